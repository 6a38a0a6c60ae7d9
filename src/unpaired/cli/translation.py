"""What ``unpaired translate`` does, here or on the workers of a cluster."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import nullcontext
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from PIL import Image

from unpaired.cli.runtime import ONNX_SUFFIX, onnx_translator
from unpaired.cli.translation_bar import tracked
from unpaired.cli.translation_targets import (
    all_named,
    check_kinds,
    check_one_image,
    check_targets,
    existing,
    is_file_name,
    lies_in,
    make_folder,
    result_name,
)
from unpaired.cli.translation_videos import is_video, translate_videos
from unpaired.cluster import map_on_ray, ray_cluster, ray_has_gpus, ray_workers
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
from unpaired.inference import Translator
from unpaired.inference.batch import Outcome, translate_files
from unpaired.inference.large_images import free_memory, memory_bound, taken_memory
from unpaired.plugins import load_plugins

if TYPE_CHECKING:
    from unpaired.cli.translate import Translate

_GRID_ROWS = 8


def translate(options: Translate) -> int:
    """Translate everything that can be read, and say what became of it.

    Returns:
        0 when that was everything, 1 otherwise, 130 after Ctrl-C.

    Raises:
        UserError: Options contradict each other, or nothing can be translated.
    """
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
    named, results = all_named(options.input, options.recursive, options.out)
    if single := is_file_name(options.out):
        check_one_image(options.out, options.input, len(named), options.format, options.styles)
    first = options.style_seed or 0
    styles = {
        options.out / f"style{seed}": replace(options, style_seed=seed) for seed in range(first, first + options.styles)
    }
    plans = {
        folder: {
            path: folder if single else folder / result_name(path, name, options.format)
            for path, name in sorted(named.items())
        }
        for folder in (styles if options.styles > 1 else [options.out])
    }
    pairs = [pair for plan in plans.values() for pair in plan.items()]
    check_targets(pairs, () if options.skip_existing else results)
    targets = [target for _, target in pairs]
    check_kinds(pairs, translator.sides(options.reverse)[1])
    there = existing(options.out, targets, overwrite=options.overwrite, skip_existing=options.skip_existing)
    total = len(targets)
    requests = {folder: _request(styles.get(folder, options), translator) for folder in plans}
    make_folder(options.out.parent if single else options.out)
    if results:
        several = "s" * (len(results) > 1)
        print(f"not translated: {len(results)} image{several} in {options.out}, where results go", file=sys.stderr)
    listing = listing_of(options.input, options.recursive)
    for left_out in (listing.others, listing.subfolders):
        left_out[:] = [path for path in left_out if not lies_in(path, options.out)]
    track = partial(tracked, translator=translator)
    remarks = Remarks(listing, options.pages == "all", translator.sides(options.reverse)[0])
    done = Outcome(remarks)
    try:
        for folder, plan in plans.items():
            left = {path: target for path, target in plan.items() if target not in there}
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
        print(words + (f", {len(there)} existed already" if there else ""))


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
