"""``unpaired translate``: a file, a folder or a pattern in, or a video; the same names and sizes out."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import nullcontext
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

from PIL import Image
from pydantic import Field
from tyro.conf import Positional, arg

from unpaired.cli.options import RayAddress, parse
from unpaired.cli.runtime import ONNX_SUFFIX, onnx_translator
from unpaired.cli.translation_bar import tracked
from unpaired.cli.translation_targets import all_named, check_targets, existing, make_folder, result_name, unfit
from unpaired.cli.translation_videos import is_video, translate_videos
from unpaired.cluster import map_on_ray, ray_cluster, ray_has_gpus, ray_workers
from unpaired.config import BatchSize, Gib, Seed, settings
from unpaired.data import (
    IMAGE_SUFFIXES,
    PixelFormat,
    Remarks,
    listing_of,
    pictures,
    preview_note,
    read_image,
    read_values,
    shorter_side,
    tensor_of,
)
from unpaired.errors import ConfigError, nearest
from unpaired.files import write_atomically
from unpaired.grids import image_grid, png_bytes
from unpaired.inference import InferencePrecision, Translator
from unpaired.inference.batch import Outcome, translate_files
from unpaired.inference.large_images import free_memory, memory_bound, taken_memory
from unpaired.plugins import load_plugins

_GRID_ROWS = 8


@settings
class Translate:
    """Translate images, or a video, with a trained run. Names and sizes are kept.

    Results have the channels and the type (8-bit, 16-bit, float) of the target images of training, and keep the colour
    profile, the resolution and the pixels without data of their source.

    Files that cannot be read or written are named and left out, and the exit code is then 1.

    Of a video (MP4, MOV, MKV, WebM and others; pip install "unpaired[video]") each frame is translated; sound, times of
    the frames and pixel aspect are kept, and how much more it flickers than before is said.

    Example: unpaired translate runs/mine photos --out translated
    """

    run: Positional[
        Annotated[
            str,
            arg(
                metavar="RUN",
                help="A run folder (the --out of 'unpaired train'), owner/name[@revision] on the Hub, or an .onnx file "
                "of 'unpaired export'.",
            ),
        ]
    ]
    input: Positional[
        Annotated[
            tuple[str, ...],
            arg(
                metavar="INPUT [INPUT ...]",
                help="Images, folders, or patterns in quotes such as 'photos/**/*.jpg'; or videos.",
            ),
        ]
    ]
    out: Path
    """Folder for the translations; made if missing. Each lies below it as its image lies below INPUT. For one video,
    a name ending in .mp4, .mov, .mkv or .webm is the file to write."""
    overwrite: bool = False
    """Make translations again that OUT already holds; without it or --skip-existing nothing is made where it does."""
    skip_existing: bool = False
    """Make only the translations that OUT does not hold, to continue after an interruption."""
    weights: Literal["ema", "last", "best"] = "ema"
    """The averaged weights, those of the last step, or those that scored best on held-out images during training."""
    device: str = "auto"
    """auto, cpu, cuda, cuda:N or mps."""
    precision: InferencePrecision = "32"
    """bf16 takes about 0.4 of the time of float32 on a processor with AMX, 0.7 on one with AVX512-BF16 alone, and
    longer on others; results are up to a few grey levels from those of float32 (docs/results.md). auto takes it where
    it is faster here."""
    runtime: Literal["torch", "onnx"] = "torch"
    """onnx: through ONNX Runtime on the CPU, with the run exported into a temporary file first (up to a minute; use
    'unpaired export' once and give its file instead of the run). An .onnx file always runs there."""
    batch_size: BatchSize = 1
    """Images of equal size translated at a time."""
    size: str = "original"
    """original: at the image's own size. training: at the side of the training crops. A number: with the shorter side
    scaled to that many pixels. The result is brought back to the original size in any case."""
    format: str = "same"
    """File type of the results, such as png, jpg, webp, avif, gif, tiff or npy; same keeps each file's name. PNG holds
    up to 4 channels of 8 or 16 bits, TIFF and NPY whatever there is, the others 8-bit gray and colour."""
    recursive: bool = False
    """Go into subfolders of INPUT."""
    pages: Literal["first", "all"] = "first"
    """all: translate every page of a TIFF and every frame of an animation (GIF, APNG, WebP, AVIF), into a file of as
    many. first: only the first."""
    reverse: bool = False
    """Translate from the target to the source domain, with methods that go both ways."""
    style_seed: Seed | None = None
    """Seed of the style, with methods that have styles (MUNIT); unset takes 0."""
    style_reference: Path | None = None
    """An image of the wanted domain whose style is taken."""
    styles: Annotated[int, Field(ge=1, le=1000)] = 1
    """Translate each image in this many styles, with the seeds from style_seed on; each style has a folder of its own,
    and a grid (styles.png) shows the first images in all of them."""
    domain: str | None = None
    """Name of the wanted domain, with methods that know several."""
    memory_gib: Gib | None = None
    """Most memory to use, in GiB; unset means half of what is free. Images that need more are translated in stripes,
    with the same result; maps that do not fit wait in a scratch file beside OUT."""
    ray: RayAddress = None
    """Spread the images over the workers of the Ray cluster at ADDRESS (host:port of its head), one CPU core or GPU
    each; without ADDRESS over the one that runs here. All its machines see INPUT, OUT and RUN at the same paths."""
    option_groups: ClassVar[dict[str, tuple[str, ...]]] = {
        "reading": ("recursive", "pages", "size"),
        "writing": ("format", "overwrite", "skip_existing"),
        "style and domain": ("reverse", "style_seed", "style_reference", "styles", "domain"),
        "computing": ("device", "precision", "runtime", "batch_size", "memory_gib", "ray"),
    }


def main(argv: Sequence[str]) -> int:
    """Translate everything that can be read; 0 when that was everything, 1 otherwise, 130 after Ctrl-C."""
    options = parse(Translate, argv, "unpaired translate")
    _check(options)
    with nullcontext() if options.ray is None else ray_cluster(options.ray):
        return _translate(options)


def _opened(options: Translate) -> tuple[Translate, Translator]:
    """The translator, and the options of its translations."""
    if options.runtime == "onnx" or options.run.endswith(ONNX_SUFFIX):
        translator = onnx_translator(
            options.run, options.weights, options.device, reverse=options.reverse, domain=options.domain
        )
        options = replace(options, reverse=False, domain=None)  # the file translates so by itself
    else:
        translator = Translator.from_pretrained(
            options.run, weights=options.weights, device=options.device, precision=options.precision
        )
    memory_bound(options.memory_gib)  # refused before anything is read
    translator.memory_gib = options.memory_gib
    translator.scratch = next(folder for folder in options.out.absolute().parents if folder.is_dir())
    return options, translator


def _translate(given: Translate) -> int:
    """Check where everything goes, and translate it here or, on a cluster, in workers that open the run themselves."""
    options, translator = _opened(given if given.ray is None else replace(given, device="cpu", precision="32"))
    side = _side(options.size, translator)
    if any(is_video(place) for place in options.input):
        return translate_videos(options, translator, side, _request(options, translator))
    named = all_named(options.input, options.recursive)
    first = options.style_seed or 0
    styles = {
        options.out / f"style{seed}": replace(options, style_seed=seed) for seed in range(first, first + options.styles)
    }
    plans = {
        folder: {path: folder / result_name(path, name, options.format) for path, name in sorted(named.items())}
        for folder in (styles if options.styles > 1 else [options.out])
    }
    pairs = [pair for plan in plans.values() for pair in plan.items()]
    check_targets(pairs)
    targets = [target for _, target in pairs]
    refused = unfit(pairs, translator.sides(options.reverse)[1])
    there = existing(options.out, targets, overwrite=options.overwrite, skip_existing=options.skip_existing)
    total = len(targets)
    requests = {folder: _request(styles.get(folder, options), translator) for folder in plans}
    make_folder(options.out)
    listing = listing_of(options.input, options.recursive)
    track = partial(tracked, translator=translator)
    remarks = Remarks(listing, options.pages == "all", translator.sides(options.reverse)[0])
    done = Outcome(remarks, problems=[*refused.values()])
    try:
        for folder, plan in plans.items():
            left = {path: target for path, target in plan.items() if target not in there | refused.keys()}
            if options.ray is None:
                translate_files(translator, left, requests[folder], side, options.batch_size, done, track)
            else:
                own = replace(given, style_seed=requests[folder]["style_seed"])
                _translate_on_ray(own, left, translator, done)
        if options.styles > 1:
            _write_styles_grid(options, translator, plans)
        return 1 if done.problems else 0
    except KeyboardInterrupt:
        print("interrupted; run the same command with --skip-existing to continue", file=sys.stderr)
        return 130
    finally:
        for line in done.lines():
            print(line, file=sys.stderr)
        words = f"{done.written} of {total} images translated into {options.out}; {len(done.problems)} skipped"
        print(words + (f", {len(there)} were there" if there else ""))


def _check(options: Translate) -> None:
    """Refuse options that contradict each other or cannot work."""
    if not options.input:
        raise ConfigError("INPUT is missing: name images, folders or patterns")
    if options.format != "same" and f".{options.format}" not in IMAGE_SUFFIXES:
        known = [suffix[1:] for suffix in IMAGE_SUFFIXES]
        near = nearest(options.format, known)
        raise ConfigError(f"format: '{options.format}' is not written{near}; known: {', '.join(known)}")
    if options.styles > 1 and options.style_reference is not None:
        raise ConfigError("styles: one reference is one style; use --style-seed, or drop --styles")
    if options.ray is not None and ":" in options.device:
        raise ConfigError(f"device: Ray gives each worker a GPU of its own; use cuda, not {options.device}")
    if options.overwrite and options.skip_existing:
        raise ConfigError("--overwrite makes existing results again, --skip-existing does not: drop one")
    if (options.runtime == "onnx" or options.run.endswith(ONNX_SUFFIX)) and options.precision != "32":
        raise ConfigError(
            f"precision: ONNX Runtime computes in float32, not in {options.precision}; leave --precision or "
            "--runtime onnx out, and give a run folder"
        )


# ---------------------------------------------------------------------------------------------------------------------
# the batch
# ---------------------------------------------------------------------------------------------------------------------
def _request(options: Translate, translator: Translator) -> dict[str, Any]:
    """What each translation should be, in the words of ``Translator.translate``, if the method offers it."""
    names = ("reverse", "style_seed", "style_reference", "domain")
    request: dict[str, Any] = {name: getattr(options, name) for name in names}
    translator.request(**request)
    return request


def _translate_on_ray(options: Translate, targets: dict[Path, Path], shown: Translator, done: Outcome) -> None:
    """As ``translate_files``, by the workers of the cluster; results are replaced whole, so one made twice is one."""
    gpus = int(options.device == "cuda" or (options.device == "auto" and ray_has_gpus()))
    own = replace(options, device="cuda" if gpus else options.device)
    workers = ray_workers(1, gpus)
    parts = map_on_ray(partial(_worker, own, workers), [*targets.items()], workers=workers, gpus=gpus)

    def images() -> Iterator[None]:
        for number, part in parts:
            done.add(part)
            yield from [None] * number

    before = done.written
    try:
        for _ in tracked(images(), len(targets), shown):
            pass
    except BaseException:  # the workers made more than they have told of
        if not options.overwrite:
            done.written = before + sum(target.exists() for target in targets.values())
        raise


def _worker(given: Translate, workers: int) -> Callable[[Sequence[tuple[Path, Path]]], tuple[int, Outcome]]:
    """Open the run in a worker: what translates some files and says how many, and what became of them."""
    load_plugins()
    options, translator = _opened(given)
    if given.memory_gib is None and translator.device.type == "cpu":  # the workers of a machine share it
        share = free_memory() / 2 / min(workers, os.cpu_count() or 1)
        translator.memory_gib = (taken_memory() + share) / 2**30
    request, side = _request(options, translator), _side(options.size, translator)

    def work(pairs: Sequence[tuple[Path, Path]]) -> tuple[int, Outcome]:
        done = Outcome(Remarks(frames=options.pages == "all", pixels=translator.sides(options.reverse)[0]))
        translate_files(translator, dict(pairs), request, side, options.batch_size, done)
        return len(pairs), done

    return work


def _side(size: str, translator: Translator) -> int | None:
    """The shorter side to scale images to, in pixels; None leaves them as they are."""
    if size in ("original", "training"):
        return None if size == "original" else shorter_side(translator.image_size)
    if not size.isdecimal() or int(size) < 4:
        raise ConfigError(f"size is '{size}': it must be original, training, or a number of pixels from 4 on")
    return int(size)


# ---------------------------------------------------------------------------------------------------------------------
# the grid of styles
# ---------------------------------------------------------------------------------------------------------------------
def _write_styles_grid(options: Translate, translator: Translator, plans: dict[Path, dict[Path, Path]]) -> None:
    """``styles.png``: the first images, each in every style."""
    rows = [[path, *(plan[path] for plan in plans.values())] for path in next(iter(plans.values()))]
    rows = [row for row in rows if all(file.exists() for file in row)][:_GRID_ROWS]
    if not rows:
        return
    taken, wanted = translator.sides(options.reverse)
    heads = ["input", *(folder.name.replace("style", "style ") for folder in plans)]
    columns: dict[str, list[Image.Image]] = {}
    for head, files, pixels in zip(heads, zip(*rows, strict=True), [taken] + [wanted] * len(plans), strict=True):
        columns[head + preview_note(pixels)] = _looks(files, pixels)
    grid = options.out / "styles.png"
    largest = max(max(column[0].size) for column in columns.values())
    write_atomically(grid, png_bytes(image_grid(columns, cell=min(192, largest))))
    print(f"wrote {grid}")


def _looks(files: Sequence[Path], pixels: PixelFormat) -> list[Image.Image]:
    """Files of one format as pictures for people."""
    if pixels.plain:
        return [read_image(file) for file in files]
    return pictures([pixels.to_floats(tensor_of(read_values(file, pixels))) for file in files], pixels)
