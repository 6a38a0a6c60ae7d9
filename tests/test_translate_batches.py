"""Many files through ``unpaired translate``: where results go, what is never replaced, and what one failure costs."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from tiny import tiny_trained
from unpaired import cli
from unpaired.cli import translation_targets
from unpaired.errors import DataError
from unpaired.inference import Translator, batch

Capture = pytest.CaptureFixture[str]
Translate = Callable[..., tuple[int, str, str]]


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_trained(tmp_path_factory.mktemp("batches"))


@pytest.fixture
def tree(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Folders and links as people have them; the working folder holds them."""
    for name in ("in/top.png", "in/sub/a.png", "in/sub/deep/a.png", "only/one/1.png", "elsewhere/b.png", "[x]/c.png"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.random.default_rng(len(name)).integers(0, 255, (8, 9, 3), np.uint8)).save(tmp_path / name)
    (tmp_path / "in" / "linked").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "in" / "alias.png").symlink_to(tmp_path / "elsewhere" / "b.png")
    (tmp_path / "door").symlink_to(tmp_path / "in")
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def translate(run: Path, capsys: Capture) -> Translate:
    def call(*words: object) -> tuple[int, str, str]:
        code = cli.main(["translate", str(run), *map(str, words), "--out", "out"])
        answer = capsys.readouterr()
        assert "Traceback" not in answer.err
        return code, answer.out, answer.err

    return call


def made(folder: str | Path = "out") -> set[str]:
    return {str(path.relative_to(folder)) for path in Path(folder).rglob("*") if path.is_file()}


ALL = {"top.png", "alias.png", "sub/a.png", "sub/deep/a.png", "linked/b.png"}


@pytest.mark.parametrize(
    ("words", "names"),
    [
        (["in"], {"top.png", "alias.png"}),
        (["in/top.png"], {"top.png"}),
        (["in/sub/a.png", "in/top.png"], {"a.png", "top.png"}),
        (["in/*.png", "elsewhere"], {"top.png", "alias.png", "b.png"}),
        (["in/*/*.png"], {"sub/a.png", "linked/b.png"}),
        (["in/sub/**/*.png"], {"a.png", "deep/a.png"}),
        (["./in/../in/*.png"], {"top.png", "alias.png"}),
        (["in/sub/../*.png", "in/top.png"], {"top.png", "alias.png"}),
        (["in", "--recursive"], ALL),
        (["door", "--recursive"], ALL),
        (["only", "--recursive"], {"one/1.png"}),
        (["only/one"], {"1.png"}),
        (["in/linked"], {"b.png"}),
        (["[x]/c.png"], {"c.png"}),
        (["in", "in/top.png", "--format", "npy"], {"top.npy", "alias.npy"}),
    ],
)
def test_results_lie_as_their_images_do_below_the_input(
    tree: Path, translate: Translate, words: list[str], names: set[str]
) -> None:
    code, out, err = translate(*words)
    assert code == 0, err
    assert made() == names
    assert f"{len(names)} of {len(names)} images translated" in out


def test_links_to_inputs_are_inputs(tree: Path, translate: Translate) -> None:
    before = {path: path.read_bytes() for path in tree.rglob("*.png")}
    (tree / "hard").mkdir()
    os.link(tree / "in" / "top.png", tree / "hard" / "top.png")
    for place in ("in", "door", "hard"):
        (tree / "out").symlink_to(tree / place)
        for words in ((), ("--overwrite",), ("--skip-existing",)):
            code, _, err = translate("in/top.png", *words)
            assert (code, "would replace it; choose another --out" in err) == (2, True), err
        (tree / "out").unlink()
    code, _, err = translate("in/sub/a.png", "in/sub/deep/a.png")
    assert (code, "would both become out/a.png" in err) == (2, True)
    assert {path: path.read_bytes() for path in before} == before


def test_existing_results_are_counted_skipped_or_made_again(tree: Path, translate: Translate) -> None:
    assert translate("in/top.png")[0] == 0
    result = tree / "out" / "top.png"
    result.write_bytes(b"mine")
    code, _, err = translate("in")
    assert code == 2
    assert "1 of 2 results are in out already (such as out/top.png); --overwrite" in err
    assert made() == {"top.png"}
    code, out, _ = translate("in", "--skip-existing")
    assert (code, result.read_bytes()) == (0, b"mine")
    assert "1 of 2 images translated into out; 0 skipped, 1 existed already" in out
    assert translate("in", "--overwrite")[0] == 0
    assert Image.open(result).size == (9, 8)
    assert translate("in", "--skip-existing")[1].startswith("0 of 2 images translated into out; 0 skipped, 2 existed")
    assert "drop one" in translate("in", "--skip-existing", "--overwrite")[2]


def in_the_way(tree: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tree / "out").mkdir()
    (tree / "out" / "linked").write_text("a file where a folder is wanted")


def not_encodable(tree: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    original = batch.encode

    def encode(images: Any, *others: Any) -> Any:
        return original(images, *others) if images[0].shape[0] == 8 else refuse()

    def refuse() -> None:
        raise DataError("70,000 x 1 pixels as .png (too wide)")

    Image.new("RGB", (9, 7)).save(tree / "elsewhere" / "b.png")
    monkeypatch.setattr(batch, "encode", encode)


def not_translatable(tree: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    original = Translator.translate

    def translate(self: Translator, images: Any, **request: Any) -> Any:
        if (images[:, 0, 0] == 7).any():
            raise MemoryError if len(images) == 1 else DataError("not finite")
        return original(self, images, **request)

    Image.new("RGB", (9, 8), (7, 7, 7)).save(tree / "elsewhere" / "b.png")
    monkeypatch.setattr(Translator, "translate", translate)


def gone(tree: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    original = translation_targets.list_images
    monkeypatch.setattr(
        translation_targets, "list_images", lambda *words: [*original(*words), Path("in/linked/gone.png")]
    )


@pytest.mark.parametrize(
    ("damage", "lost", "words"),
    [
        (in_the_way, {"linked/b.png"}, "cannot write out/linked/b.png"),
        (not_encodable, {"alias.png", "linked/b.png"}, "(too wide); use --format png"),
        (not_translatable, {"alias.png", "linked/b.png"}, "9 x 8 pixels do not fit into memory; use --size N"),
        (gone, set(), "in/linked/gone.png: there is no such file"),
    ],
)
@pytest.mark.parametrize("batch_size", [1, 4])
def test_one_image_that_fails_costs_no_other(
    tree: Path, translate: Translate, monkeypatch: pytest.MonkeyPatch,
    damage: Callable[[Path, pytest.MonkeyPatch], None], lost: set[str], words: str, batch_size: int,
) -> None:  # fmt: skip
    damage(tree, monkeypatch)
    code, out, err = translate("in", "--recursive", "--batch-size", batch_size)
    assert code == 1, err
    assert made() & ALL == ALL - lost
    lines = [line for line in err.splitlines() if line.startswith("skipped: ")]
    assert len(lines) == max(1, len(lost))
    assert all(words in line for line in lines)
    assert f"{5 - len(lost)} of {6 - bool(lost)} images translated" in out


@pytest.mark.parametrize("reason", [errno.ENOSPC, errno.EROFS, KeyboardInterrupt])
def test_a_full_disk_and_ctrl_c_end_it_and_say_how_many_are_done(
    tree: Path, translate: Translate, monkeypatch: pytest.MonkeyPatch, reason: Any
) -> None:
    original, calls = batch.write_atomically, list[Path]()

    def write(path: Path, *parts: Any) -> None:
        calls.append(path)
        if len(calls) > 2:
            raise OSError(reason, os.strerror(reason)) if isinstance(reason, int) else reason
        original(path, *parts)

    monkeypatch.setattr(batch, "write_atomically", write)
    code, out, err = translate("in", "--recursive")
    assert code == (3 if isinstance(reason, int) else 130)
    assert "2 of 5 images translated into out" in out
    assert "run the same command with --skip-existing to continue" in err
    assert len(calls) == 3
    monkeypatch.setattr(batch, "write_atomically", original)
    assert translate("in", "--recursive", "--skip-existing")[0] == 0
    assert made() == ALL


def test_a_place_that_cannot_be_written_is_refused_before_the_first_image(tree: Path, translate: Translate) -> None:
    (tree / "out").write_text("a file")
    code, _, err = translate("in")
    assert (code, "cannot write to out: File exists; choose another --out" in err) == (2, True), err


@pytest.mark.parametrize(
    ("name", "head", "words"),
    [
        ("clip.bin", b"\0\0\0\x18ftypisom", "this is a video; extract its frames first"),
        ("scan.dcm", bytes(128) + b"DICM", "this is DICOM, a medical image"),
        ("brain.nii", bytes(344) + b"n+1\0", "this is NIfTI, a medical image"),
        ("photo.heic", b"\0\0\0\x18ftypheic", "this is a HEIC photo"),
        ("paper.pdf", b"%PDF-1.7", "this is a PDF"),
        ("set.zip", b"PK\3\4", "this is a zip archive"),
    ],
)
def test_a_file_that_is_no_image_is_named_for_what_it_is(
    tree: Path, translate: Translate, name: str, head: bytes, words: str
) -> None:
    (tree / name).write_bytes(head + bytes(99))
    code, _, err = translate(name)
    assert (code, made()) == (2, set())
    assert words in err
