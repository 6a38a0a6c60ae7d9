"""What happens when a person presses Translate: uploads in, files in a temporary folder out. No Gradio here."""

from __future__ import annotations

import shutil
import tempfile
import time
import zipfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import torch
from PIL import Image

from unpaired.data import image_to_tensor, shorter_side
from unpaired.errors import ConfigError, DataError, UserError
from unpaired.grids import fit
from unpaired.inference.video import VideoResult, translate_video
from unpaired.reporting.pictures import Panel, View
from unpaired.studio.limits import Limits
from unpaired.studio.runs import StudioRun
from unpaired.studio.uploads import inside, open_upload, shown_name

Progress = Callable[[int, int], None]
_VIEW = 512
"""Smaller pictures are enlarged to this side for looking at."""
_LARGEST_VIEW = 1600
_HEAT_PIXELS = 2**18
"""Significance needs all pairs of locations, so it is computed on at most so many pixels."""
_CLIP_FRAMES = 3000
"""Most frames of a clip: two minutes at 25 a second."""


@dataclass(frozen=True)
class PageRequest:
    """How to translate; what a run's method does not support is left out for it."""

    size: Literal["original", "training"] = "original"
    reverse: bool = False
    style_seed: int | None = None
    domain: str | None = None

    def of(self, run: StudioRun) -> dict[str, Any]:
        """The arguments of ``Translator.translate`` for one run."""
        wanted: dict[str, Any] = {}
        if self.reverse and "reverse" in run.supports:
            wanted["reverse"] = True
        if self.style_seed is not None and "style" in run.supports:
            wanted["style_seed"] = self.style_seed
        if run.translator is not None and self.domain in run.translator.method.domains:
            wanted["domain"] = self.domain
        return wanted


@dataclass(frozen=True)
class Picture:
    """One picture and its translations, as PNG files.

    Attributes:
        name: As uploaded, without folders; no two of one request are the same.
        size: Width and height.
        source: The input, as the first run saw it.
        made: Name of a run -> its translation, of the input's size.
    """

    name: str
    size: tuple[int, int]
    source: Path
    made: dict[str, Path]


@dataclass(frozen=True)
class Results:
    """What one request left in its folder.

    Attributes:
        folder: Holds everything; :func:`discard` removes it.
        pictures: In the order of the uploads.
        refused: A sentence for each upload that was not translated.
        seconds: Run -> seconds spent translating.
    """

    folder: Path
    pictures: tuple[Picture, ...]
    refused: tuple[str, ...]
    seconds: dict[str, float] = field(default_factory=dict)


def translate_uploads(
    runs: Sequence[StudioRun],
    uploads: Sequence[str | Path],
    root: Path,
    limits: Limits,
    page_request: PageRequest = PageRequest(),
    progress: Progress = lambda done, total: None,
) -> Results:
    """Translate every upload with every run.

    Args:
        runs: At least one that has weights.
        uploads: Files below ``root``.
        root: The temporary folder of the studio; the results go into a new folder in it.
        limits: The studio's limits.
        page_request: How to translate.
        progress: Called with (translations done, all).

    Raises:
        ConfigError: There is nothing to do, or too much.
    """
    able = [run for run in runs if run.translator is not None]
    if not able:
        raise ConfigError(
            "this training has no weights yet; wait for its first checkpoint" if runs else "choose a run first"
        )
    if not uploads:
        raise ConfigError("drop, paste or choose a picture first")
    if len(uploads) > limits.batch:
        raise ConfigError(f"{len(uploads)} pictures are more than the limit of {limits.batch} at a time")
    folder = Path(tempfile.mkdtemp(prefix="results-", dir=root))
    pictures: list[Picture] = []
    refused: list[str] = []
    seconds = {run.name: 0.0 for run in able}
    taken: set[str] = set()
    for number, upload in enumerate(uploads):
        progress(number * len(able), len(uploads) * len(able))
        place = folder / f"{number:03}"
        place.mkdir()
        try:
            name = _free_name(shown_name(upload), taken)
            pictures.append(_translate_one(able, upload, name, place, root, limits, page_request, seconds))
        except UserError as error:
            refused.append(str(error))
        except (MemoryError, RuntimeError) as error:  # PyTorch says that memory ran out with a RuntimeError
            if not isinstance(error, MemoryError) and "memory" not in str(error):
                raise
            refused.append(f"{shown_name(upload)}: it does not fit into memory; scale it down")
    return Results(folder, tuple(pictures), tuple(refused), seconds)


def _translate_one(
    runs: Sequence[StudioRun],
    upload: str | Path,
    name: str,
    place: Path,
    root: Path,
    limits: Limits,
    page_request: PageRequest,
    seconds: dict[str, float],
) -> Picture:
    made: dict[str, Path] = {}
    source = place / "input.png"
    size = (0, 0)
    for number, run in enumerate(runs):
        assert run.translator is not None
        image = open_upload(upload, root, limits, run.translator.source)
        if number == 0:
            image.save(source)
            size = image.size
        begun = time.perf_counter()
        result = _translated(run, image, page_request)
        seconds[run.name] += time.perf_counter() - begun
        made[run.name] = place / f"{number}.png"
        result.save(made[run.name])
    return Picture(name, size, source, made)


def _translated(run: StudioRun, image: Image.Image, page_request: PageRequest) -> Image.Image:
    assert run.translator is not None
    shown = image
    if page_request.size == "training":
        scale = shorter_side(run.translator.image_size) / min(image.size)
        shown = image.resize(
            (max(1, round(image.width * scale)), max(1, round(image.height * scale))), Image.Resampling.BICUBIC
        )
    with run.lock:
        made = run.translator.translate(shown, **page_request.of(run))
    return made if made.size == image.size else made.resize(image.size, Image.Resampling.BICUBIC)


def translate_clip(
    run: StudioRun, upload: str | Path | None, root: Path, limits: Limits, progress: Progress
) -> tuple[VideoResult, Path]:
    """Translate an uploaded clip into a new folder below ``root``, frames scaled to the training size for the networks.

    Raises:
        ConfigError: There is none, or the run has no weights.
        DataError: It is damaged, none that was uploaded, or too large.
        BackendError: PyAV is not installed.
    """
    if upload is None:
        raise ConfigError("drop, choose or record a clip first")
    if run.translator is None:
        raise ConfigError(f"{run.name} has no weights yet")
    file = inside(upload, root, shown_name(upload))
    if file.stat().st_size > limits.bytes:
        raise DataError(f"{file.name}: more than the limit of {limits.megabytes:g} MB; use 'unpaired translate'")
    out = Path(tempfile.mkdtemp(prefix="clip-", dir=root)) / f"{file.stem}.mp4"
    side = shorter_side(run.translator.image_size)
    with run.lock:
        try:
            made = translate_video(run.translator, file, out, side=side, max_pixels=limits.pixels,
                                   max_frames=_CLIP_FRAMES, progress=progress)  # fmt: skip
            return made, out
        except UserError as error:
            raise DataError(str(error).replace(str(file), file.name).replace(str(out), out.name)) from None


def see(run: StudioRun, picture: Picture) -> list[Panel]:
    """What a run's encoder finds significant in one translated picture, one panel per tap.

    The picture is scaled so that its shorter side is that of the training crops.

    Raises:
        ConfigError: The run has no weights, or its encoder has no such places.
    """
    translator = run.translator
    if translator is None:
        raise ConfigError(f"{run.name} has no weights yet")
    with Image.open(picture.source) as file:
        image = file.convert("L" if translator.channels == 1 else "RGB")
    scale = min(
        shorter_side(translator.image_size) / min(image.size), (_HEAT_PIXELS / (image.width * image.height)) ** 0.5
    )
    shown = image.resize(
        (max(16, round(image.width * scale)), max(16, round(image.height * scale))), Image.Resampling.BICUBIC
    )
    found = []
    for tap in run.taps:
        with run.lock, torch.no_grad():
            seen = translator.significance(image_to_tensor(shown), tap)
        view = View(run.name, shown, seen.entropy.numpy(), seen.indices.numpy())
        found.append(Panel(picture.name, tap, [view]))
    return found


def view(path: Path) -> Path:
    """A copy of a picture at a size for looking at, beside it; the picture itself where that has one."""
    with Image.open(path) as image:
        longer = max(image.size)
        if _VIEW <= longer <= _LARGEST_VIEW:
            return path
        side = _VIEW if longer < _VIEW else _LARGEST_VIEW
        target = path.with_name(f"{path.stem}-view.png")
        fit(image, side, side).save(target)
    return target


def download(results: Results, names: Sequence[str] = ()) -> Path:
    """One file with every translation at its original size: a PNG where there is one, else a zip, run by run.

    Args:
        results: Of :func:`translate_uploads`, with at least one picture.
        names: Runs to take; unset takes all.

    Raises:
        DataError: Nothing was translated.
    """
    wanted = [
        (picture, run, path)
        for picture in results.pictures
        for run, path in picture.made.items()
        if not names or run in names
    ]
    if not wanted:
        raise DataError("nothing was translated, so there is nothing to download")
    several = len({run for _, run, _ in wanted}) > 1
    if len(wanted) == 1:
        picture, run, path = wanted[0]
        target = results.folder / f"{Path(picture.name).stem}-{shown_name(run.replace('/', '-'))}.png"
        shutil.copyfile(path, target)
        return target
    target = results.folder / "translations.zip"
    with zipfile.ZipFile(target, "w", zipfile.ZIP_STORED) as archive:  # PNG files are compressed already
        for picture, run, path in wanted:
            stem = Path(picture.name).stem
            archive.write(path, f"{shown_name(run.replace('/', '-'))}/{stem}.png" if several else f"{stem}.png")
    return target


def discard(results: Results | None) -> None:
    """Remove the files of an earlier request."""
    if results is not None:
        shutil.rmtree(results.folder, ignore_errors=True)


def _free_name(name: str, taken: set[str]) -> str:
    """``name``, numbered where another picture of the request has the same stem."""
    stem, suffix = Path(name).stem, Path(name).suffix
    free, number = stem, 1
    while free in taken:
        number += 1
        free = f"{stem}-{number}"
    taken.add(free)
    return f"{free}{suffix}"
