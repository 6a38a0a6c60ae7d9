"""Interruptions: whatever ends a preparation, the same call goes on, and another is refused."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from official_archives import afhq, contents, horse2zebra, picture, quiet, write_folder, write_zip

from unpaired.data import prepare_write
from unpaired.data.check import check_set
from unpaired.data.prepare import PrepareSettings, prepare
from unpaired.errors import DataError

DEFAULT_REQUEST = PrepareSettings()


@pytest.fixture
def archive(tmp_path: Path) -> Path:
    return write_zip(tmp_path / "horse2zebra.zip", horse2zebra((30, 20, 6, 5)))


def stops_after(count: int, error: BaseException) -> Callable[[str, int, int], None]:
    def progress(stage: str, done: int, total: int) -> None:
        if stage == "writing images" and done == count:
            raise error

    return progress


@pytest.mark.parametrize("count", [1, 25, 60])
@pytest.mark.parametrize("settings", [DEFAULT_REQUEST, PrepareSettings(size=16, val_count=3)])
def test_an_interrupted_preparation_goes_on(
    count: int, settings: PrepareSettings, archive: Path, tmp_path: Path
) -> None:
    prepare("horse2zebra", [archive], tmp_path / "whole", settings, quiet)
    out = tmp_path / "out"
    with pytest.raises(KeyboardInterrupt):
        prepare("horse2zebra", [archive], out, settings, stops_after(count, KeyboardInterrupt()))
    written = len(contents(out))
    assert count <= written <= min(61, count + 64)  # what was begun is finished, the rest is not begun
    report = check_set(out, quiet)
    assert "unfinished" in {finding.kind for finding in report.findings}
    assert not report.passed(strict=False)
    done = prepare("horse2zebra", [archive], out, settings, quiet)
    assert (done.written.there, done.written.written) == (written, 61 - written)
    assert contents(out) == contents(tmp_path / "whole")
    assert "unfinished" not in {finding.kind for finding in done.report.findings}
    assert (out / "preparation.json").read_bytes() == (tmp_path / "whole" / "preparation.json").read_bytes()


def test_a_killed_preparation_goes_on(archive: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    code = (
        "import os, sys; from pathlib import Path; from unpaired import files; from unpaired.data.prepare import *\n"
        "def progress(stage, done, total):\n"
        "    if stage == 'writing images' and done == 10:\n"
        "        open(Path(sys.argv[2]) / 'trainA' / f'.n7.jpg.{os.getpid()}.tmp', 'wb').write(b'half')\n"
        "        os.kill(os.getpid(), 9)\n"
        "prepare('horse2zebra', [Path(sys.argv[1])], Path(sys.argv[2]), PrepareSettings(), progress)"
    )
    assert subprocess.run([sys.executable, "-c", code, str(archive), str(out)], check=False).returncode == -9
    assert [path.name for path in out.glob("*/.*.tmp")]
    prepare("horse2zebra", [archive], out, DEFAULT_REQUEST, quiet)
    assert contents(out) == {name.removeprefix("horse2zebra/"): x for name, x in horse2zebra((30, 20, 6, 5)).items()}


def test_a_full_disk_leaves_whole_files_and_the_same_call_goes_on(
    archive: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out, whole, left = tmp_path / "out", prepare_write.write_atomically, [13]  # the record, and 12 images

    def full(path: Path, *parts: bytes) -> None:
        left[0] -= 1
        if left[0] < 0:
            raise OSError(28, "No space left on device", str(path))
        whole(path, *parts)

    with monkeypatch.context() as patch:
        patch.setattr(prepare_write, "write_atomically", full)
        with pytest.raises(OSError, match="No space left"):
            prepare("horse2zebra", [archive], out, DEFAULT_REQUEST, quiet)
    assert len(contents(out)) == 12
    assert prepare("horse2zebra", [archive], out, DEFAULT_REQUEST, quiet).written.there == 12


def test_too_little_room_is_known_before_the_first_file(
    archive: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    usage = type("Usage", (), {"free": 1000})
    monkeypatch.setattr(prepare_write.shutil, "disk_usage", lambda path: usage)
    with pytest.raises(DataError, match=r"GiB are to be written and 0\.0 GiB are free"):
        prepare("horse2zebra", [archive], tmp_path / "out", DEFAULT_REQUEST, quiet)
    assert contents(tmp_path / "out") == {}


def test_a_finished_one_is_checked_and_missing_files_come_back(archive: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    prepare("horse2zebra", [archive], out, DEFAULT_REQUEST, quiet)
    before = contents(out)
    (out / "trainA" / "n3.jpg").unlink()
    done = prepare("horse2zebra", [archive], out, DEFAULT_REQUEST, quiet)
    assert (done.written.written, done.written.there) == (1, 60)
    assert contents(out) == before
    moved = archive.rename(tmp_path / "renamed.zip")
    assert prepare("horse2zebra", [moved], out, DEFAULT_REQUEST, quiet).written.written == 0


def test_another_preparation_is_refused(archive: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    prepare("horse2zebra", [archive], out, DEFAULT_REQUEST, quiet)
    before = contents(out)
    with pytest.raises(DataError, match=r"with other settings \(size None, now 16, seed 0, now 2\)"):
        prepare("horse2zebra", [archive], out, PrepareSettings(size=16, seed=2), quiet)
    other = write_zip(tmp_path / "other.zip", horse2zebra((30, 20, 6, 4)))
    with pytest.raises(DataError, match="from other files, or they have changed since"):
        prepare("horse2zebra", [other], out, DEFAULT_REQUEST, quiet)
    with pytest.raises(DataError, match="was prepared as horse2zebra, not afhq"):
        prepare("afhq", [write_zip(tmp_path / "afhq.zip", afhq())], out, DEFAULT_REQUEST, quiet)
    assert contents(out) == before


def test_a_folder_of_something_else_is_refused(archive: Path, tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "thesis.txt").write_text("years of work")
    with pytest.raises(DataError, match=r"is not empty \(holds thesis\.txt\)"):
        prepare("horse2zebra", [archive], tmp_path / "out", DEFAULT_REQUEST, quiet)
    with pytest.raises(DataError, match="is a file"):
        prepare("horse2zebra", [archive], tmp_path / "out" / "thesis.txt", DEFAULT_REQUEST, quiet)
    (tmp_path / "empty").mkdir()
    assert prepare("horse2zebra", [archive], tmp_path / "empty", DEFAULT_REQUEST, quiet).written.written == 61
    for content in ("{", "[]", '{"format": 99}', '{"format": 1, "sorcery": 2}'):
        (tmp_path / "empty" / "preparation.json").write_text(content)
        with pytest.raises(DataError, match=r"preparation\.json: (cannot be read|was written by another version)"):
            prepare("horse2zebra", [archive], tmp_path / "empty", DEFAULT_REQUEST, quiet)


def test_a_place_inside_the_source_is_refused(tmp_path: Path) -> None:
    folder = write_folder(tmp_path / "p", {f"{d}/{i}.png": picture(i + len(d)) for d in ("a", "bc") for i in range(4)})
    for out in (folder, folder / "a", folder / "new" / "deeper"):
        with pytest.raises(DataError, match="lies in the folder that it is prepared from"):
            prepare(str(folder), [], out, DEFAULT_REQUEST, quiet)
    assert not (folder / "new").exists()


def test_a_piece_of_a_running_preparation_stays(archive: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    prepare("horse2zebra", [archive], out, DEFAULT_REQUEST, quiet)
    mine = out / "trainA" / f".x.jpg.{os.getpid()}.tmp"
    old = out / "trainA" / ".y.jpg.elsewhere.tmp"
    for path in (mine, old):
        path.write_bytes(b"half")
    os.utime(old, (1, 1))
    prepare("horse2zebra", [archive], out, DEFAULT_REQUEST, quiet)
    assert mine.exists()
    assert not old.exists()
    assert json.loads((out / "preparation.json").read_text())["finished"]
