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
from unpaired.data.reading import describe
from unpaired.errors import DataError
from unpaired.inference import Translator, batch
from unpaired.inference.large_images import translate as stripes

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
    def call(*words: object, out: str = "out") -> tuple[int, str, str]:
        code = cli.main(["translate", str(run), *map(str, words), "--out", out])
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


@pytest.mark.parametrize(
    ("words", "out"),
    [
        (["in", "--recursive"], "in/out"),
        (["in", "--recursive"], "in/sub/out/deep"),
        (["door", "--recursive"], "in/out"),
        (["in", "--recursive"], "door/out"),
        ([".", "--recursive"], "out"),
        (["in/../in", "--recursive"], "./in/out"),
        (["in/**/*.png"], "in/out"),
        (["in/*/*.png"], "in/out"),
        (["in/*.png"], "in/one.d"),
        (["in", "elsewhere", "--recursive"], "in/out"),
    ],
)
def test_results_within_the_input_are_no_input(tree: Path, translate: Translate, words: list[str], out: str) -> None:
    code, _, err = translate(*words, out=out)
    assert (code, "where results go" in err, "subfolder" in err) == (0, False, False), err
    results = made(out)
    before = {name: (Path(out) / name).read_bytes() for name in results}
    missing = sorted(results)[0]
    (Path(out) / missing).unlink()
    code, second, err = translate(*words, "--skip-existing", out=out)
    assert code == 0, err
    assert second.startswith(f"1 of {len(results)} images translated into {Path(out)}; 0 skipped")
    assert {name: (Path(out) / name).read_bytes() for name in made(out)} == before
    if "--recursive" in words or "**" in words[0]:
        assert f"not translated: {len(results) - 1} image" in err  # so nobody looks for them in vain
        for more in ((), ("--overwrite",)):  # they may be somebody's originals
            code, _, err = translate(*words, *more, out=out)
            assert (code, "which lies in INPUT; choose another --out, or --skip-existing" in err) == (2, True), err
    assert {name: (Path(out) / name).read_bytes() for name in made(out)} == before


def test_only_what_lies_in_an_out_below_the_input_is_left_out(tree: Path, translate: Translate) -> None:
    assert translate("in/sub", out="in")[0] == 0  # the input lies in OUT
    assert (tree / "in" / "a.png").exists()
    for words in (["in/sub"], ["in/sub/a.png"], ["in/sub/*.png"], ["in", "in/sub", "--recursive"]):
        code, _, err = translate(*words, "--overwrite", out="in/sub")
        assert (code, "would replace " in err, "; choose another --out" in err) == (2, True, True), err
    code, _, err = translate("only", "--recursive", out="only/one")
    assert (code, "all of its 1 images lie in only/one" in err) == (2, True), err


@pytest.mark.parametrize(
    ("words", "out", "said"),
    [
        (["in/top.png"], "night.png", (0, "1 of 1 images translated into night.png; 0 skipped")),
        (["in/top.png"], "new/night.TIF", (0, "translated into new/night.TIF")),
        (["in/top.png"], "night.jpg", (0, "translated into night.jpg")),
        (["in/top.png", "--format", "jpg"], "night.JPEG", (0, "translated into night.JPEG")),
        (["in/sub/*.png"], "night.npy", (0, "translated into night.npy")),
        (
            ["in/top.png", "--skip-existing"],
            "there.png",
            (0, "0 of 1 images translated into there.png; 0 skipped, 1 ex"),
        ),
        (["in/top.png"], "there.png", (2, "there.png exists already; --overwrite makes it again, --skip-existing")),
        (["in/top.png"], "in/top.png", (2, "would replace it; choose another --out")),
        (["in/top.png", "--overwrite"], "door/top.png", (2, "would replace it; choose another --out")),
        (["in/top.png"], "night.mp4", (2, "night.mp4 is named like a video, and INPUT holds images; name a folder")),
        (["in"], "night.mp4", (2, "night.mp4 is named like a video, and INPUT holds images; name a folder")),
        (["in"], "night.png", (2, "night.png is one file, but INPUT is a folder; name a folder as --out")),
        (["only", "--recursive"], "night.png", (2, "night.png is one file, but INPUT is a folder; name a folder")),
        (["in/*.png"], "night.png", (2, "night.png is one file, but INPUT is 2 images; name a folder as --out")),
        (["in/top.png", "in/sub/a.png"], "a.gif", (2, "a.gif is one file, but INPUT is 2 images; name a folder")),
        (["in/top.png", "--format", "jpg"], "night.png", (2, "--format jpg contradicts --out night.png; drop one")),
        (["in/top.png"], "folder.png", (0, "1 of 1 images translated into folder.png; 0 skipped")),
        (["in"], "folder.png", (0, "2 of 2 images translated into folder.png; 0 skipped")),
        (["in/top.png"], "v1.5", (0, "1 of 1 images translated into v1.5; 0 skipped")),
    ],
)
def test_one_image_may_become_a_file_of_a_name(
    tree: Path, translate: Translate, words: list[str], out: str, said: tuple[int, str]
) -> None:
    Path("folder.png").mkdir()
    Path("there.png").write_bytes(b"mine")
    before = {path: path.read_bytes() for path in tree.rglob("*") if path.is_file()}
    code, printed, err = translate(*words, out=out)
    assert (code, said[1] in printed + err) == (said[0], True), printed + err
    after = {path.relative_to(tree): path for path in tree.rglob("*") if path.is_file() and path not in before}
    assert {path: path.read_bytes() for path in before} == before
    if code or "there" in out:
        assert not after
    elif out in ("folder.png", "v1.5"):
        assert {path.parent for path in after} == {Path(out)}
    else:
        assert [*after] == [Path(out)]
        kind = {".tif": "TIFF", ".npy": "NPY", ".png": "PNG", ".gif": "GIF"}.get(Path(out).suffix.lower(), "JPEG")
        found = describe(out)
        assert (found.kind, found.width, found.height) == (kind, 9, 8)


def test_pages_go_into_one_file_too(tree: Path, translate: Translate) -> None:
    frames = [Image.fromarray(np.random.default_rng(n).integers(0, 255, (8, 9, 3), np.uint8)) for n in range(3)]
    frames[0].save("anim.gif", save_all=True, append_images=frames[1:])
    assert translate("anim.gif", "--pages", "all", out="night.webp")[0] == 0
    assert describe("night.webp").pages == 3
    code, _, err = translate("anim.gif", "--pages", "all", out="night.jpg")
    assert code == 1
    assert "anim.gif: a .jpg file cannot hold 3 pages of 3 channels of uint8, which this run makes; use avif," in err
    assert "gif, png, tiff or webp (--format, or the suffix of --out), or --pages first" in err
    assert not Path("night.jpg").exists()


@pytest.mark.parametrize("batch_size", [1, 4])
def test_an_image_too_large_for_the_memory_costs_no_other(
    tree: Path, translate: Translate, monkeypatch: pytest.MonkeyPatch, batch_size: int
) -> None:
    monkeypatch.setattr(stripes, "taken_memory", lambda device: 0)
    sizes = {"1_small": (24, 20), "2_big": (1500, 60), "3_big": (1500, 60), "4_small": (24, 20), "5_small": (24, 20)}
    Path("mixed").mkdir()
    for name, size in sizes.items():
        Image.new("RGB", size, (90, 140, 70)).save(f"mixed/{name}.png")
    code, out, err = translate("mixed", "--memory-gib", "0.002", "--batch-size", batch_size)
    assert (code, made()) == (1, {"1_small.png", "4_small.png", "5_small.png"}), err
    lines = [line for line in err.splitlines() if line.startswith("skipped: ")]
    assert len(lines) == 2
    for name, line in zip(("2_big", "3_big"), lines, strict=True):
        assert line.startswith(f"skipped: mixed/{name}.png: memory_gib: 0.00 GiB are too little for 1500 x 60 pixels")
    assert "3 of 5 images translated into out; 2 skipped" in out


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
        (not_encodable, {"alias.png", "linked/b.png"}, "(too wide); use png (--format, or the suffix of --out)"),
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
