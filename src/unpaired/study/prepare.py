"""Making a study: the pictures of each method, under random names, in a folder that appears whole or not at all."""

from __future__ import annotations

import contextlib
import functools
import hashlib
import itertools
import secrets
import shutil
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from PIL import Image

from unpaired.data import UnpairedFiles, list_images, pair_by_name, read_image, read_image_of, shorter_side
from unpaired.errors import ConfigError, DataError
from unpaired.evaluation import evenly_spaced
from unpaired.inference import Translator
from unpaired.run_config import DatasetConfig, RunConfig
from unpaired.study.records import DATABASE, IMAGES, StoreError, create_database, printable

Weights = Literal["ema", "last", "best"]
Progress = Callable[[str, int, int], None]

LARGEST_SIDE = 1024
"""Of the pictures shown; larger ones are scaled down, sources and translations alike."""
_SAME_SHAPE = 0.02
"""Largest relative difference of aspect ratios, besides rounding to whole pixels."""
MOST_METHODS = 9
"""Raters choose with a single digit key."""
_LONGEST_NAME = 60


@dataclass(frozen=True)
class Contender:
    """A method to compare: a trained run, or a folder of images made by any software."""

    name: str
    folder: Path

    @property
    def is_run(self) -> bool:
        """Whether the folder holds weights to translate with."""
        return any((self.folder / place).is_file() for place in ("weights/model.json", "model.json"))

    @functools.cached_property
    def dataset(self) -> DatasetConfig:
        """The data set of a run; an empty one where nothing is known of it."""
        file = self.folder / "run.yaml"
        return RunConfig.load(file).dataset if self.is_run and file.is_file() else DatasetConfig()


@dataclass(frozen=True)
class Plan:
    """Everything that decides what a study shows."""

    contenders: Sequence[Contender]
    """At least two, of different names."""
    files: UnpairedFiles
    """Held-out source images, and real target images for the second question."""
    images: int
    """Most sources to show, evenly spaced by name."""
    examples: int
    """Real target images to show."""
    seed: int
    """Of the orders in which raters see images and methods."""
    weights: Weights
    """Of the runs."""
    size: str
    """``training``, ``original`` or the shorter side in pixels, at which runs translate."""
    device: str
    settings: dict[str, Any]
    """Kept with the study, to recognise the same plan."""


def contenders_of(folders: Sequence[Path], names: Sequence[str] = ()) -> list[Contender]:
    """The methods to compare, called by ``names`` or else by their folders.

    Raises:
        ConfigError: Their number or a name cannot be used.
        DataError: A folder does not exist.
    """
    count = len(folders)
    if not 2 <= count <= MOST_METHODS:
        raise ConfigError(f"a study compares 2 to {MOST_METHODS} methods, not {count}; raters choose with a key each")
    names = names or tuple(folder.resolve().name for folder in folders)
    if len(names) != count:
        raise ConfigError(f"names: {len(names)} given for {count} methods; give one for each")
    for name in names:
        if not name.strip() or len(name) > _LONGEST_NAME or not name.isprintable():
            raise ConfigError(f"names: {name!r} must be 1 to {_LONGEST_NAME} printable characters")
        if names.count(name) > 1:
            raise ConfigError(f"two methods would be called '{name}'; tell them apart with --names")
    for folder in folders:
        if not folder.is_dir():
            what = "is a file, not a folder" if folder.exists() else "there is no such folder"
            raise DataError(f"{folder}: {what}; give runs, or folders of made images")
    return [Contender(name, folder) for name, folder in zip(names, folders, strict=True)]


def make_study(plan: Plan, out: Path, progress: Progress = lambda words, done, total: None) -> int:
    """Translate, copy and write a new study folder.

    Args:
        plan: What to show.
        out: The folder; absent or empty.
        progress: Called with (what, done, total).

    Returns:
        The number of source images.

    Raises:
        DataError: Images are missing, unreadable, named twice or of another shape than their source.
        ConfigError: Two methods made the same images.
        CheckpointError: A run cannot be used.
    """
    made, names = _made_images(plan), _names(plan.files.source)
    chosen = evenly_spaced([path for path in plan.files.source if all(path in files for files in made.values())],
                           plan.images)  # fmt: skip
    with _folder_or_nothing(out) as folder:
        (folder / IMAGES).mkdir()
        add = functools.partial(_add_picture, folder / IMAGES)
        sources = [add(read_image(path)) for path in chosen]
        examples = [(printable(path.name), add(read_image(path)).file) for path in _choose_examples(plan, chosen)]
        columns, origins = [], []
        for contender in plan.contenders:
            translate, origin = _images_of(contender, plan, made.get(contender.name, {}))
            words, column = f"{'translating' if contender.is_run else 'reading'} {contender.name}", []
            progress(words, 0, len(chosen))
            for done, path in enumerate(chosen, start=1):
                column.append(add(translate(path)))
                progress(words, done, len(chosen))
            columns.append(column)
            origins.append((contender.name, printable(origin)))
        _check_shapes(plan, chosen, sources, columns)
        _check_different(plan, columns)
        create_database(
            folder / DATABASE,
            seed=plan.seed,
            settings=plan.settings,
            methods=origins,
            images=[
                (names[path], source.file, source.size, [column[i].file for column in columns])
                for i, (path, source) in enumerate(zip(chosen, sources, strict=True))
            ],
            target_examples=examples,
        )
    return len(chosen)


def _made_images(plan: Plan) -> dict[str, dict[Path, Path]]:
    """Contender that is a folder of images -> source image -> its translation."""
    made: dict[str, dict[Path, Path]] = {}
    for contender in plan.contenders:
        if contender.is_run:
            continue
        images = list_images(contender.folder)
        made[contender.name] = dict(pair_by_name(plan.files.source, images))
        if not made[contender.name]:
            raise DataError(
                f"{contender.folder}: none of its {len(images)} images is named like one of the "
                f"{len(plan.files.source)} source images (found {images[0].name}, expected {plan.files.source[0].name})"
            )
    if made and not set.intersection(*(set(files) for files in made.values())):
        raise DataError(
            f"no source image has a translation in every folder ({', '.join(made)}); translate the same images"
        )
    return made


def _names(images: Sequence[Path]) -> dict[Path, str]:
    """What results call images: their file names, with as many folders in front as tell all of them apart."""
    parts = [(*image.parent.parts, image.name) for image in images]
    for depth in range(1, max(map(len, parts)) + 1):
        names = [printable("/".join(each[-depth:])) for each in parts]
        if len(set(names)) == len(names):
            return dict(zip(images, names, strict=True))
    twice = next(image for image, name in zip(images, names, strict=True) if names.count(name) > 1)
    raise DataError(f"{twice}: is given twice; a study shows each source image once, so name it once")


def _choose_examples(plan: Plan, chosen: Sequence[Path]) -> Sequence[Path]:
    """Real target images; in paired data not the truths of the sources shown, if there are enough others."""
    stems = {path.stem for path in chosen}
    others = [path for path in plan.files.target if path.stem not in stems]
    return evenly_spaced(others if len(others) >= plan.examples else plan.files.target, plan.examples)


@dataclass(frozen=True)
class _Picture:
    """A PNG of the study: its random id, its size, a digest of its pixels."""

    file: str
    size: tuple[int, int]
    digest: bytes


def _add_picture(folder: Path, image: Image.Image) -> _Picture:
    """Write a picture under a random name."""
    image = image.convert("RGB")
    image.thumbnail((LARGEST_SIDE, LARGEST_SIDE), Image.Resampling.LANCZOS)
    file = secrets.token_hex(12)
    image.save(folder / f"{file}.png")
    return _Picture(file, image.size, hashlib.sha256(image.tobytes()).digest())


def _images_of(
    contender: Contender, plan: Plan, made: Mapping[Path, Path]
) -> tuple[Callable[[Path], Image.Image], str]:
    """The function that gives a method's picture of a source, and where the pictures came from in words."""
    if not contender.is_run:
        return lambda path: read_image(made[path]), f"images in {contender.folder.resolve()}"
    translator = Translator.from_pretrained(contender.folder, weights=plan.weights, device=plan.device)
    if not (translator.source.plain and translator.target.plain):
        raise DataError(
            f"{contender.folder}: a study shows 8-bit gray or colour, but this run takes {translator.source.words} and "
            f"makes {translator.target.words}"
        )
    side = shorter_side(translator.image_size)

    def translate(path: Path) -> Image.Image:
        image = read_image_of(translator.source, path)
        return translator.translate(_scaled(image, plan.size, side), domain=contender.dataset.shown_domain)

    kind = translator.origin.weights if translator.origin is not None else plan.weights
    seen = translator.description.get("images_seen")
    trained = f", trained on {seen:,} images" if isinstance(seen, int) else ""
    size = {"training": f"shorter side {side}", "original": "original size"}
    at = size.get(plan.size, f"shorter side {plan.size}")
    return translate, f"run {contender.folder.resolve()} ({kind} weights{trained}; {at})"


def _scaled(image: Image.Image, size: str, training_side: int) -> Image.Image:
    """The image at the size at which runs translate."""
    side = {"original": min(image.size), "training": training_side}.get(size) or int(size)
    scale = side / min(image.size)
    new = (round(image.width * scale), round(image.height * scale))
    return image if new == image.size else image.resize(new, Image.Resampling.BICUBIC)


def _check_shapes(
    plan: Plan, chosen: Sequence[Path], sources: Sequence[_Picture], columns: Sequence[Sequence[_Picture]]
) -> None:
    for contender, column in zip(plan.contenders, columns, strict=True):
        for path, source, picture in zip(chosen, sources, column, strict=True):
            wanted, found = (one.size[0] / one.size[1] for one in (source, picture))
            rounding = 1 / min(picture.size)  # whole pixels cannot keep every ratio
            if abs(found / wanted - 1) > _SAME_SHAPE + rounding:
                raise DataError(
                    f"{contender.folder}: its translation of {path.name} is {picture.size[0]} x "
                    f"{picture.size[1]}, which is another shape than the source's {source.size[0]} x "
                    f"{source.size[1]}; raters could tell methods apart by shape: give all files one aspect ratio"
                )


def _check_different(plan: Plan, columns: Sequence[Sequence[_Picture]]) -> None:
    for (first, a), (second, b) in itertools.combinations(zip(plan.contenders, columns, strict=True), 2):
        if [picture.digest for picture in a] == [picture.digest for picture in b]:
            raise ConfigError(
                f"{first.name} and {second.name} made exactly the same images ({first.folder}, {second.folder}); "
                "compare different ones"
            )


@contextlib.contextmanager
def _folder_or_nothing(out: Path) -> Iterator[Path]:
    """A temporary folder that becomes ``out`` if the block succeeds and is removed otherwise."""
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise ConfigError(f"{out} is there already and holds no study; choose another --out")
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        making = Path(tempfile.mkdtemp(prefix=f".{out.name}.", dir=out.parent))
    except OSError as error:
        raise DataError(f"cannot make {out}: {error.strerror or error}; choose another --out") from error
    try:
        yield making
        if out.exists():
            out.rmdir()
        making.chmod(0o755)
        making.rename(out)
    except (OSError, StoreError) as error:
        raise DataError(f"cannot write {out}: {error}; choose another --out") from error
    finally:
        shutil.rmtree(making, ignore_errors=True)
