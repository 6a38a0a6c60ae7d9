"""Requests that the studio's page never sends, and its end by a signal; no browser needed."""

from __future__ import annotations

import os
import shutil
import signal
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from served_studio import ServedStudio

from tiny import write_images

pytest.importorskip("gradio", reason='needs pip install "unpaired[studio]"')

pytestmark = [
    pytest.mark.slow,  # Gradio takes seconds to import
    pytest.mark.skipif(sys.platform == "win32", reason="FIFOs and signals"),
]


@pytest.fixture(scope="module")
def studio(studio_runs: tuple[Path, Path], tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServedStudio]:
    served = ServedStudio(tmp_path_factory.mktemp("requests"), str(studio_runs[0]))
    yield served
    served.end()


def said(studio: ServedStudio, function: int, *inputs: Any) -> str:
    """What the queue says of one call of a function of the page."""
    session = f"s{os.urandom(4).hex()}"
    asked = {"fn_index": function, "data": inputs, "session_hash": session}
    httpx.post(f"{studio.address}gradio_api/queue/join", json=asked, timeout=60).raise_for_status()
    with httpx.stream("GET", f"{studio.address}gradio_api/queue/data?session_hash={session}", timeout=60) as answer:
        for line in answer.iter_lines():
            if "process_completed" in line:
                return line
    raise AssertionError("the queue said nothing")


def translate(studio: ServedStudio, path: Any) -> str:
    file = {"path": path, "meta": {"_type": "gradio.FileData"}}
    return said(studio, 0, [{"image": file, "caption": None}], ["first"], "original", False, 0, None, None)


def uploaded(studio: ServedStudio, file: Path) -> str:
    with file.open("rb") as content:
        answer = httpx.post(f"{studio.address}gradio_api/upload", files={"files": (file.name, content)}, timeout=60)
    path: str = answer.json()[0]
    return path


def test_only_uploads_are_read_whatever_path_a_request_names(studio: ServedStudio, tmp_path: Path) -> None:
    folder = write_images(tmp_path / "pictures", 2)
    good, picture = uploaded(studio, folder / "image0.png"), folder / "image1.png"
    assert "Translated" in translate(studio, good)
    root = Path(good).parents[1]
    os.mkfifo(tmp_path / "fifo.png")
    shutil.copy(picture, studio.here / "relative.png")
    foreign = [
        str(picture), "relative.png", "/dev/zero", str(tmp_path / "fifo.png"), "/etc/passwd", f"file://{picture}",
        f"{root}/../../{picture}", f"http://127.0.0.1:{studio.address.rpartition(':')[2]}gradio_api/file={good}",
        "https://example.com/a.png", str(root), "", None, 5, ["a"], {"path": str(picture)}, "\0", "a" * 5000,
    ]  # fmt: skip
    for path in foreign:
        try:
            answer = translate(studio, path)
        except httpx.HTTPStatusError:  # refused before it was queued
            continue
        assert '"success":false' in answer.replace(" ", ""), path
        assert str(tmp_path) not in answer
    (studio.here / "relative.png").unlink()
    copies = [path for path in root.rglob("*") if path.is_file() and path.read_bytes() == picture.read_bytes()]
    assert not copies, "no other file was copied to where visitors could fetch it"
    assert "Translated" in translate(studio, good), "the studio still answers"


def test_pages_that_outlived_a_restart_are_told_and_the_log_stays_empty(tmp_path: Path) -> None:
    studio = ServedStudio(tmp_path)
    for session in ("old", "", "\u00e9", "x" * 5000):
        address = f"{studio.address}gradio_api/queue/data"
        with httpx.stream("GET", address, params={"session_hash": session}, timeout=60) as answer:
            answer.read()
        assert answer.status_code == 200
        assert '"session_not_found":true' in answer.text.replace(" ", "")
    assert studio.end() == (0, "")


def test_clips_have_the_limits_of_pictures_and_no_playlists(studio: ServedStudio, tmp_path: Path) -> None:
    clips = pytest.importorskip("clips", reason='needs pip install "unpaired[video]"')
    secret = clips.clip(tmp_path / "secret.ts", audio=None)
    (tmp_path / "list.m3u8").write_text(f"#EXTM3U\n#EXT-X-TARGETDURATION:2\n#EXTINF:1,\n{secret}\n#EXT-X-ENDLIST\n")
    large = clips.clip(tmp_path / "large.mp4", size=(1000, 800), frames=2, audio=None)
    small = clips.clip(tmp_path / "small.mp4", frames=2)
    meta = {"meta": {"_type": "gradio.FileData"}}
    config = httpx.get(f"{studio.address}config", timeout=60).json()
    names = {part["id"]: part.get("props", {}).get("elem_id") for part in config["components"]}
    function = next(
        number
        for number, each in enumerate(config["dependencies"])
        if [names[i] for i in each["inputs"]][:1] == ["clip"]
    )
    answers = {}
    for file in (small, tmp_path / "list.m3u8", large):
        path = uploaded(studio, file)
        answers[file.name] = said(studio, function, {"path": path, **meta}, "first")
    assert "2 frames of 48 x 32 pixels" in answers["small.mp4"]
    assert "1,000 x 800 pixels are more than the limit of 500,000" in answers["large.mp4"]
    assert "frames of" not in answers["list.m3u8"]
    assert str(studio.temporary) not in answers["list.m3u8"]


def test_sigterm_removes_the_pictures_as_ctrl_c_does(studio_runs: tuple[Path, Path], tmp_path: Path) -> None:
    served = ServedStudio(tmp_path, str(studio_runs[0]))
    translate(served, uploaded(served, write_images(tmp_path / "pictures", 1) / "image0.png"))
    served.process.send_signal(signal.SIGTERM)
    _, err = served.process.communicate(timeout=60)
    assert (served.process.returncode, err) == (0, "")
    assert not list(served.temporary.glob("unpaired-studio-*"))
