"""What pressing Translate does, without a browser and without Gradio."""

from __future__ import annotations

import io
import re
import shutil
import zipfile
from pathlib import Path

import pytest
from PIL import Image

from tiny import write_images
from unpaired.data import read_image
from unpaired.errors import CheckpointError, ConfigError, DataError
from unpaired.inference import Translator
from unpaired.studio.gallery import copy_examples, pairs_html
from unpaired.studio.limits import Limits
from unpaired.studio.runs import StudioRun, open_runs
from unpaired.studio.translating import PageRequest, Results, discard, download, see, translate_uploads, view

LIMITS = Limits(megapixels=0.1, megabytes=1, batch=3)


@pytest.fixture
def runs(studio_runs: tuple[Path, Path]) -> tuple[StudioRun, ...]:
    return open_runs(studio_runs, device="cpu")


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return write_images(tmp_path / "root", 2, size=(41, 36))


def translated(runs: tuple[StudioRun, ...], root: Path, page_request: PageRequest | None = None) -> Results:
    return translate_uploads(runs, sorted(root.glob("*.png")), root, LIMITS, page_request or PageRequest())


def test_every_picture_is_translated_by_every_run_at_its_own_size(runs: tuple[StudioRun, ...], root: Path) -> None:
    results = translated(runs, root)
    assert [picture.name for picture in results.pictures] == ["image0.png", "image1.png"]
    assert results.refused == ()
    for picture, path in zip(results.pictures, sorted(root.glob("*.png")), strict=True):
        assert picture.size == (41, 36)
        assert list(picture.made) == ["first", "second"]
        for run in runs:
            assert run.translator is not None
            expected = run.translator.translate(read_image(path))
            assert read_image(picture.made[run.name]).tobytes() == expected.tobytes()


def test_the_same_picture_gives_the_same_file(runs: tuple[StudioRun, ...], root: Path) -> None:
    made = [translated(runs, root).pictures[0].made["first"].read_bytes() for _ in range(2)]
    assert made[0] == made[1]


def test_at_the_training_size_the_result_comes_back_to_its_own(runs: tuple[StudioRun, ...], root: Path) -> None:
    plain, scaled = (translated(runs[:1], root, page_request).pictures[0].made["first"]
                     for page_request in (PageRequest(), PageRequest("training")))  # fmt: skip
    with Image.open(plain) as one, Image.open(scaled) as other:
        assert one.size == other.size == (41, 36)
        assert one.tobytes() != other.tobytes()


def test_a_wish_that_a_method_does_not_know_is_left_out(runs: tuple[StudioRun, ...], root: Path) -> None:
    page_request = PageRequest(reverse=True, style_seed=3, domain="a")
    assert page_request.of(runs[0]) == {}
    assert len(translated(runs, root, page_request).pictures) == 2


def test_a_bad_file_does_not_stop_the_others(runs: tuple[StudioRun, ...], root: Path) -> None:
    (root / "image00.png").write_bytes(b"no picture")
    results = translated(runs, root)
    assert [picture.name for picture in results.pictures] == ["image0.png", "image1.png"]
    (words,) = results.refused
    assert words.startswith("image00.png: ")


def test_memory_that_runs_out_refuses_one_picture(
    runs: tuple[StudioRun, ...], root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*args: object, **options: object) -> None:
        raise RuntimeError("DefaultCPUAllocator: can't allocate memory")

    monkeypatch.setattr(Translator, "translate", full)
    results = translated(runs, root)
    assert results.pictures == ()
    assert "does not fit into memory" in results.refused[0]


def test_requests_that_ask_for_nothing_or_too_much(runs: tuple[StudioRun, ...], root: Path) -> None:
    with pytest.raises(ConfigError, match="choose a picture first"):
        translate_uploads(runs, [], root, LIMITS)
    with pytest.raises(ConfigError, match="choose a run first"):
        translate_uploads([], [root / "image0.png"], root, LIMITS)
    with pytest.raises(ConfigError, match="4 pictures are more than the limit of 3"):
        translate_uploads(runs, [root / "image0.png"] * 4, root, LIMITS)
    assert not list(root.glob("results-*")), "nothing is left behind"


def test_a_zip_holds_every_translation_by_run_and_name(runs: tuple[StudioRun, ...], root: Path) -> None:
    results = translate_uploads(runs, [root / "image0.png", root / "image0.png"], root, LIMITS)
    path = download(results)
    with zipfile.ZipFile(path) as archive:
        assert sorted(archive.namelist()) == [
            "first/image0-2.png", "first/image0.png", "second/image0-2.png", "second/image0.png",
        ]  # fmt: skip
        with Image.open(io.BytesIO(archive.read("first/image0.png"))) as image:
            assert image.size == (41, 36)
    assert path.is_relative_to(results.folder)


def test_a_single_translation_is_downloaded_as_a_png(runs: tuple[StudioRun, ...], root: Path) -> None:
    results = translate_uploads(runs[:1], [root / "image0.png"], root, LIMITS)
    path = download(results)
    assert path.name == "image0-first.png"
    assert path.read_bytes() == results.pictures[0].made["first"].read_bytes()
    with pytest.raises(DataError, match="nothing was translated"):
        download(Results(results.folder, (), ()))
    discard(results)
    assert not results.folder.exists()


def test_significance_is_found_for_each_tap(runs: tuple[StudioRun, ...], root: Path) -> None:
    found = see(runs[0], translated(runs, root).pictures[0])
    assert tuple(panel.tap for panel in found) == runs[0].taps == ("block1", "block5")
    for panel in found:
        (seen,) = panel.views
        assert (panel.image, seen.name) == ("image0.png", "first")
        assert 0 < len(seen.indices) <= seen.entropy.size


def test_small_pictures_are_enlarged_for_looking_and_others_left(tmp_path: Path) -> None:
    for side in (40, 600, 1800):
        Image.new("RGB", (side, side // 2)).save(tmp_path / f"{side}.png")
    assert view(tmp_path / "600.png") == tmp_path / "600.png"
    for side, shown in ((40, 480), (1800, 1600)):
        with Image.open(view(tmp_path / f"{side}.png")) as image:
            assert image.size == (shown, shown // 2)


def test_memory_does_not_grow_over_many_requests(runs: tuple[StudioRun, ...], root: Path) -> None:
    def resident() -> int:
        return int(Path("/proc/self/statm").read_text().split()[1]) * 4096

    if not Path("/proc/self/statm").exists():
        pytest.skip("/proc/self/statm tells the memory in use, and is only on Linux")
    for _ in range(5):
        discard(translated(runs, root))
    before = resident()
    for _ in range(20):
        discard(translated(runs, root))
    assert resident() - before < 8 * 2**20, "20 requests hold on to less than 8 MiB"
    assert not list(root.glob("results-*"))


def test_runs_that_cannot_be_shown(studio_runs: tuple[Path, Path], tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="is not a trained run"):
        open_runs([tmp_path], device="cpu")
    with pytest.raises(ConfigError, match="named twice"):
        open_runs([studio_runs[0], studio_runs[0]], device="cpu")


def test_a_run_of_other_channels_is_refused_in_one_line(
    studio_runs: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Translator, "channels", 5)
    with pytest.raises(ConfigError, match=r"5 channels, but the studio shows 8-bit pictures only"):
        open_runs(studio_runs[:1], device="cpu")


def test_a_training_without_weights_is_shown_all_the_same(studio_runs: tuple[Path, Path], tmp_path: Path) -> None:
    (tmp_path / "run.yaml").write_bytes((studio_runs[0] / "run.yaml").read_bytes())
    (run,) = open_runs([tmp_path], device="cpu")
    assert (run.translator, run.live, run.taps) == (None, True, ())


def test_weights_that_a_training_writes_are_read_and_half_written_ones_are_not(
    studio_runs: tuple[Path, Path], tmp_path: Path, root: Path
) -> None:
    folder = shutil.copytree(studio_runs[0], tmp_path / "run", ignore=shutil.ignore_patterns("weights"))
    (run,) = open_runs([folder], device="cpu")
    with pytest.raises(ConfigError, match="has no weights yet"):
        translated((run,), root)
    shutil.copytree(studio_runs[0] / "weights", folder / "weights")
    before = translated((run,), root).pictures[0].made["run"].read_bytes()
    weights = folder / "weights" / "ema.safetensors"
    whole = weights.read_bytes()
    weights.write_bytes(whole[:100])
    assert translated((run,), root).pictures[0].made["run"].read_bytes() == before
    shutil.copy(folder / "weights" / "last.safetensors", weights)
    weights.write_bytes(whole)
    assert translated((run,), root).pictures[0].made["run"].read_bytes() == before


def test_a_folder_of_runs_stands_for_its_runs(studio_runs: tuple[Path, Path]) -> None:
    assert [run.name for run in open_runs([studio_runs[0].parent], device="cpu")] == ["first"]


def test_examples_are_the_runs_own_held_out_images(runs: tuple[StudioRun, ...], tmp_path: Path) -> None:
    taken = copy_examples(tmp_path / "examples", runs[0], Limits(megapixels=0.0005))
    own = sorted((runs[0].path.parent / "data" / "testA").iterdir())
    assert [path.stem for path in taken] == [path.stem for path in own]
    for path in taken:
        with Image.open(path) as image:
            assert image.width * image.height <= 500
    with pytest.raises(DataError, match="has weights only"):
        copy_examples(tmp_path / "examples", runs[1], LIMITS)


def test_the_embedded_drawings_can_be_shown() -> None:
    page = pairs_html(5)
    assert page.count("<img") == len(set(re.findall(r'alt="([^"]+)"', page))) == 5
