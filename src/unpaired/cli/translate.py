"""``unpaired translate``: a file, a folder or a pattern in; the same names and sizes out."""

from __future__ import annotations

import os
import sys
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
import torch
import tyro
from PIL import Image
from tyro.conf import Positional, arg

from unpaired.cli.runtime import ONNX_SUFFIX, onnx_translator
from unpaired.cli.translation_bar import tracked
from unpaired.data import (
    IMAGE_SUFFIXES,
    Picture,
    PixelFormat,
    Remarks,
    can_hold,
    encode,
    left_behind,
    list_images,
    listing_of,
    pictures,
    preview_note,
    read_image,
    read_picture,
    read_values,
    resize_values,
    shorter_side,
    tensor_of,
)
from unpaired.errors import ConfigError, DataError, nearest
from unpaired.files import write_atomically
from unpaired.grids import image_grid, png_bytes
from unpaired.inference import InferencePrecision, Translator
from unpaired.inference.large_images import memory_bound

_GRID_ROWS = 8


@dataclass(frozen=True)
class Translate:
    """Translate images with a trained run. Names and sizes are kept.

    Results have the channels and the type (8-bit, 16-bit, float) of the target images of training, and keep the colour
    profile, the resolution and the pixels without data of their source.

    Files that cannot be read are named and skipped, and the exit code is then 1.
    """

    run: Positional[
        Annotated[
            str,
            arg(
                help="A run folder (the --out of 'unpaired train'), owner/name[@revision] on the Hub, or an .onnx file "
                "of 'unpaired export'."
            ),
        ]
    ]
    input: Positional[Annotated[str, arg(help="An image, a folder, or a pattern such as 'photos/*.jpg'.")]]
    out: Path
    """Folder for the translations; made if missing."""
    weights: Literal["ema", "last", "best"] = "ema"
    """The averaged weights, those of the last step, or those that scored best on held-out images during training."""
    device: str = "auto"
    """auto, cpu, cuda or cuda:N."""
    precision: InferencePrecision = "32"
    """bf16 takes about 0.4 of the time of float32 on a processor with AMX, and twice its time on one without; results
    are up to a few grey levels from those of float32 (docs/results.md). auto takes it where it is faster here."""
    runtime: Literal["torch", "onnx"] = "torch"
    """onnx: through ONNX Runtime on the CPU, with the run exported into a temporary file first (up to a minute; use
    'unpaired export' once and give its file instead of the run). An .onnx file always runs there."""
    batch_size: int = 1
    """Images of equal size translated at a time."""
    size: str = "original"
    """original: at the image's own size. training: at the side of the training crops. A number: with the shorter side
    scaled to so many pixels. The result is brought back to the original size in any case."""
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
    style_seed: int | None = None
    """Seed of the style, with methods that have styles (MUNIT); unset takes 0."""
    style_reference: Path | None = None
    """An image of the wanted domain whose style is taken."""
    styles: int = 1
    """Translate each image in so many styles, of the seeds that follow style_seed; each goes into a folder of its own,
    and a grid (styles.png) shows the first images in all of them."""
    domain: str | None = None
    """Name of the wanted domain, with methods that know several."""
    memory_gib: float | None = None
    """Most memory to take, in GiB; unset means half of what is free. Images that need more are translated in stripes,
    with the same result; maps that do not fit wait in a scratch file beside OUT."""


@dataclass(frozen=True)
class _Item:
    path: Path
    values: np.ndarray
    original_size: tuple[int, int]
    picture: Picture
    page: int
    pages: int


def main(argv: Sequence[str]) -> int:
    """Translate everything that can be read; 0 when that was everything, 1 otherwise."""
    options = tyro.cli(Translate, args=list(argv), prog="unpaired translate")
    if options.batch_size < 1:
        raise ConfigError(f"batch_size must be at least 1, not {options.batch_size}")
    if options.format != "same" and f".{options.format}" not in IMAGE_SUFFIXES:
        known = [suffix[1:] for suffix in IMAGE_SUFFIXES]
        near = nearest(options.format, known)
        raise ConfigError(f"format: '{options.format}' is not written{near}; known: {', '.join(known)}")
    if options.styles < 1:
        raise ConfigError(f"styles must be at least 1, not {options.styles}")
    if options.styles > 1 and options.style_reference is not None:
        raise ConfigError("styles: one reference is one style; use --style-seed, or drop --styles")
    if options.runtime == "onnx" or options.run.endswith(ONNX_SUFFIX):
        if options.precision != "32":
            raise ConfigError(
                f"precision: ONNX Runtime computes in float32, not in {options.precision}; leave --precision or "
                "--runtime onnx out, and give a run folder"
            )
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
    side = _side(options.size, translator)
    paths = list_images(options.input, recursive=options.recursive)
    if options.styles == 1:
        return _translate_all(options, translator, paths, side)
    first, code = options.style_seed or 0, 0
    folders = {seed: options.out / f"style{seed}" for seed in range(first, first + options.styles)}
    for seed, folder in folders.items():
        code = max(code, _translate_all(replace(options, out=folder, style_seed=seed), translator, paths, side))
    _write_styles_grid(options, translator, paths, folders)
    return code


def _write_styles_grid(
    options: Translate, translator: Translator, paths: Sequence[Path], folders: dict[int, Path]
) -> None:
    """``styles.png``: the first images, each in every style."""
    base = _base(paths)
    rows: list[list[Path]] = []
    for path in paths:
        made = [_target(path, base, replace(options, out=folder)) for folder in folders.values()]
        if len(rows) < _GRID_ROWS and all(file.exists() for file in made):
            rows.append([path, *made])
    if not rows:
        return
    taken, wanted = translator.sides(options.reverse)
    heads = ["input", *(f"style {seed}" for seed in folders)]
    columns: dict[str, list[Image.Image]] = {}
    for head, files, pixels in zip(heads, zip(*rows, strict=True), [taken] + [wanted] * len(folders), strict=True):
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


def _base(paths: Sequence[Path]) -> Path:
    """The folder that all inputs lie in."""
    return Path(os.path.commonpath([path.parent.resolve() for path in paths]))


def _translate_all(options: Translate, translator: Translator, paths: Sequence[Path], side: int | None) -> int:
    base = _base(paths)
    targets = {path: _target(path, base, options) for path in paths}
    _check_targets(targets)
    taken, made = translator.sides(options.reverse)
    _check_kinds(targets.values(), made)
    request: dict[str, Any] = {
        "reverse": options.reverse,
        "style_seed": options.style_seed,
        "style_reference": None,
        "domain": options.domain,
    }
    if options.style_reference is not None:
        request["style_reference"] = made.to_floats(tensor_of(read_values(options.style_reference, made)))

    written, skipped = 0, list[str]()
    remarks = Remarks(listing_of([options.input], options.recursive), options.pages == "all", taken)
    done: dict[Path, list[tuple[np.ndarray, Picture]]] = {}
    lost: Counter[str] = Counter()
    items = tracked(_read(paths, side, taken, remarks, skipped), len(paths), translator)
    for group in _groups(items, options.batch_size):
        try:
            batch = torch.stack([taken.to_floats(tensor_of(item.values)) for item in group])
            images = translator.translate(batch, **request)
        except (MemoryError, torch.OutOfMemoryError, RuntimeError) as error:
            if not _out_of_memory(error):
                raise
            skipped += [f"{item.path}: {_size(item.values)} does not fit into memory; use --size N" for item in group]
            continue
        for item, translated in zip(group, images, strict=True):
            pages = done.setdefault(item.path, [])
            pages.append((resize_values(made.to_values(translated), item.original_size), item.picture))
            if item.page + 1 == item.pages == len(pages):  # the last one, and none is missing
                lost.update(_save(done.pop(item.path), targets[item.path]))
                written += 1
    if remarks.line:
        print(remarks.line, file=sys.stderr)
    if lost:
        words = "; ".join(f"{name} of {count}" for name, count in lost.most_common())
        print(f"not in the results: {words} image{'s' * (max(lost.values()) != 1)}", file=sys.stderr)
    for message in skipped:
        print(f"skipped: {message}", file=sys.stderr)
    print(f"{written} of {len(paths)} images translated into {options.out}; {len(skipped)} skipped")
    return 1 if skipped else 0


def _out_of_memory(error: Exception) -> bool:
    """Whether ``error`` says that memory ran out; torch's allocator on the CPU says so in words only."""
    named = isinstance(error, MemoryError | torch.OutOfMemoryError)
    return named or "can't allocate memory" in str(error) or "not enough memory" in str(error)


def _side(size: str, translator: Translator) -> int | None:
    """The shorter side to scale images to, in pixels; None leaves them as they are."""
    if size in ("original", "training"):
        return None if size == "original" else shorter_side(translator.image_size)
    if not size.isdecimal() or int(size) < 4:
        raise ConfigError(f"size is '{size}': it must be original, training, or a number of pixels from 4 on")
    return int(size)


def _target(path: Path, base: Path, options: Translate) -> Path:
    """Where the translation of ``path`` goes: the same name, below the same subfolder of the input."""
    relative = path.parent.resolve().relative_to(base) / path.name
    if options.format != "same":
        relative = relative.with_suffix(f".{options.format}")
    elif path.suffix.lower() not in IMAGE_SUFFIXES:
        raise ConfigError(f"{path}: no image can be written under a name ending in '{path.suffix}'; use --format png")
    return options.out / relative


def _check_targets(targets: dict[Path, Path]) -> None:
    inputs = {source.resolve(): source for source in targets}
    taken: dict[Path, Path] = {}
    for source, target in targets.items():
        replaced = inputs.get(target.resolve())
        if replaced is not None:
            what = "it" if replaced == source else f"the input {replaced}"
            raise ConfigError(f"the translation of {source} would replace {what}; choose another --out")
        if target in taken:
            raise ConfigError(
                f"{taken[target]} and {source} would both become {target}; translate them one after the other"
            )
        taken[target] = source


def _check_kinds(targets: Iterable[Path], made: PixelFormat) -> None:
    """Refuse, before anything is made, kinds of files that cannot hold the results."""
    for target in targets:
        if not can_hold(target.suffix, made.dtype, made.channels):
            raise ConfigError(
                f"{target.name}: a {target.suffix} file cannot hold {made.words}, which this run makes; "
                "use --format tiff (or npy)"
            )


def _size(values: np.ndarray) -> tuple[int, int]:
    """Width and height."""
    return values.shape[1], values.shape[0]


def _read(
    paths: Sequence[Path], side: int | None, taken: PixelFormat, remarks: Remarks, skipped: list[str]
) -> Iterator[_Item]:
    for path in paths:
        page, pages = 0, 1
        while page < pages:
            try:
                picture = read_picture(path, taken, page)
            except DataError as error:
                skipped.append(str(error))
                break
            if page == 0:
                remarks.add(picture.description, picture.invalid is not None)
                pages = picture.description.pages if remarks.frames else 1
            values = picture.values
            size = _size(values)
            if side is not None and min(size) != side:
                scale = side / min(size)
                values = resize_values(values, (round(size[0] * scale), round(size[1] * scale)))
            yield _Item(path, values, size, picture, page, pages)
            page += 1


def _groups(items: Iterable[_Item], batch_size: int) -> Iterator[list[_Item]]:
    """Consecutive items of one size, at most ``batch_size`` of them."""
    group: list[_Item] = []
    for item in items:
        if group and (len(group) == batch_size or group[0].values.shape != item.values.shape):
            yield group
            group = []
        group.append(item)
    if group:
        yield group


def _save(pages: Sequence[tuple[np.ndarray, Picture]], target: Path) -> list[str]:
    """Write one image, whole or not at all, with what was attached to its source; returns what has no place there."""
    images, pictures = zip(*pages, strict=True)
    channels, attached = images[0].shape[2], pictures[0].description.attached
    holes = [picture.invalid_for(channels) for picture in pictures]
    if not can_hold(target.suffix, images[0].dtype.name, channels, len(images)):
        many = f"a {target.suffix} file cannot hold {len(images)} such pages"
        raise DataError(f"cannot write {target}: {many}; use --format tiff, or --pages first")
    try:
        content = encode(images, target.suffix, attached, holes, [picture.duration for picture in pictures])
    except DataError as error:
        raise DataError(f"cannot write {target}: {error}; use --format png") from error
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(target, content)
    except OSError as error:
        raise DataError(f"cannot write {target}: {error.strerror or error}; choose another --out") from error
    return left_behind(attached, target.suffix, channels, holes=any(hole is not None for hole in holes))
