"""Making a study: from folders and settings to pictures of each method, in a folder that names none of it outside.

The folder appears whole or not at all: everything is made beside it and renamed at the end.
"""

from __future__ import annotations

import contextlib
import hashlib
import itertools
import secrets
import shutil
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, TypeVar

from PIL import Image

from unpaired.data import UnpairedFiles, find_test_images, list_images, pair_by_name, read_image, shorter_side
from unpaired.errors import ConfigError, DataError
from unpaired.evaluation import evenly_spaced
from unpaired.inference import Translator
from unpaired.study.records import DATABASE, IMAGES, StoreError, create_database
from unpaired.training import RunConfig

Weights = Literal["ema", "last", "best"]
Progress = Callable[[str, int, int], None]

LARGEST_SIDE = 1024
"""Pictures are shown at most so large; larger ones are scaled down, source and translations alike."""
_SAME_SHAPE = 0.02
MOST_METHODS = 9
"""Raters choose with one key."""
_LONGEST_NAME = 60

T = TypeVar("T")


@dataclass(frozen=True)
class Contender:
    """A method to compare: a trained run, or a folder of images that any software made."""

    name: str
    folder: Path

    @property
    def is_run(self) -> bool:
        """Whether the folder holds weights to translate with."""
        return any((self.folder / place).is_file() for place in ("weights/model.json", "model.json"))


@dataclass(frozen=True)
class Plan:
    """Everything that decides what a study shows.

    Attributes:
        contenders: At least two, of different names.
        files: Held-out source images, and real target images for the second question.
        images: How many sources to show at most, evenly spaced by name.
        examples: How many real target images to show.
        seed: Of the orders in which raters see images and methods.
        weights: Of the runs.
        size: ``training``, ``original`` or the shorter side in pixels, at which runs translate.
        device: To translate on.
        settings: What is kept in words, to recognise the same plan.
    """

    contenders: Sequence[Contender]
    files: UnpairedFiles
    images: int
    examples: int
    seed: int
    weights: Weights
    size: str
    device: str
    settings: dict[str, Any]


@dataclass(frozen=True)
class _Chosen:
    """One source image and, for contenders that are folders, the files that belong to it."""

    source: Path
    made: dict[str, Path]


def contenders_of(folders: Sequence[Path], names: Sequence[str] = ()) -> list[Contender]:
    """The methods to compare.

    Args:
        folders: Runs, or folders of made images.
        names: One for each; empty takes the folders' names.

    Raises:
        ConfigError: Their number or a name cannot be used.
        DataError: A folder is not there.
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


def held_out_files(
    contenders: Sequence[Contender],
    data: Path | None,
    source: Path | None = None,
    target: Path | None = None,
    direction: Literal["AtoB", "BtoA"] | None = None,
) -> tuple[UnpairedFiles, str]:
    """Held-out images in the direction of the runs.

    Args:
        contenders: Their ``run.yaml`` says what is not given.
        data: Folder with testA and testB.
        source: Folder of source images, instead of ``data``.
        target: Folder of real target images, instead of ``data``.
        direction: Which domain of ``data`` is the source.

    Returns:
        The files, and where they lie in words.

    Raises:
        ConfigError: Nobody says, or the runs differ.
        DataError: The images cannot be used.
    """
    known = {
        contender.name: RunConfig.load(contender.folder / "run.yaml").dataset
        for contender in contenders
        if contender.is_run and (contender.folder / "run.yaml").is_file()
    }
    if data is None and source is None and target is None:
        data = _one_of("data", {name: dataset.folder for name, dataset in known.items()})
        if data is None:
            raise ConfigError("data: no run names a data folder; give --data DIR, or --source DIR and --target DIR")
    files = find_test_images(data, source, target)
    if files is None:
        raise DataError(
            f"{data}: there are no held-out images; give a folder with testA and testB, or --source DIR --target DIR"
        )
    if data is None:
        if direction is not None:
            raise ConfigError("direction: belongs to --data; --source and --target say it themselves")
        return files, f"{source} -> {target}"
    own = {name: dataset.direction for name, dataset in known.items() if dataset.folder is not None}
    chosen = direction or _one_of("direction", own) or "AtoB"
    return files.swapped() if chosen == "BtoA" else files, f"{data} {chosen}"


def _one_of(setting: str, values: Mapping[str, T | None]) -> T | None:
    """What all runs agree on; None where no run says."""
    said = {name: value for name, value in values.items() if value is not None}
    if len(set(said.values())) > 1:
        listed = "; ".join(f"{name}: {value}" for name, value in said.items())
        raise ConfigError(f"{setting}: the runs differ ({listed}); choose with --{setting}")
    return next(iter(said.values()), None)


def make_study(plan: Plan, out: Path, progress: Progress = lambda words, done, total: None) -> int:
    """Translate, copy and write a new study folder.

    Args:
        plan: What to show.
        out: The folder; absent or empty.
        progress: Called with (what, done, total).

    Returns:
        The number of source images.

    Raises:
        DataError: Images are missing, unreadable or of another shape than their source.
        ConfigError: Two methods made the same images.
        CheckpointError: A run cannot be used.
    """
    chosen = _choose(plan)
    examples = _choose_examples(plan, chosen)
    with _folder_or_nothing(out) as folder:
        (folder / IMAGES).mkdir()
        pictures = _Pictures(folder / IMAGES)
        sources = [pictures.add(read_image(one.source)) for one in chosen]
        columns, origins = [], []
        for contender in plan.contenders:
            column, origin = _column(contender, plan, chosen, pictures, progress)
            columns.append(column)
            origins.append((contender.name, origin))
        _check_shapes(plan, chosen, sources, columns)
        _check_different(plan, columns)
        shown = [pictures.add(read_image(path)) for path in examples]
        create_database(
            folder / DATABASE,
            seed=plan.seed,
            settings=plan.settings,
            methods=origins,
            images=[
                (one.source.name, source.file, source.size, [column[i].file for column in columns])
                for i, (one, source) in enumerate(zip(chosen, sources, strict=True))
            ],
            target_examples=[(path.name, picture.file) for path, picture in zip(examples, shown, strict=True)],
        )
    return len(chosen)


def _choose(plan: Plan) -> list[_Chosen]:
    """Evenly spaced source images, of those for which every folder has a translation."""
    made: dict[str, dict[Path, Path]] = {}
    candidates: Sequence[Path] = plan.files.source
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
        candidates = [path for path in candidates if path in made[contender.name]]
    if not candidates:
        raise DataError(
            f"no source image has a translation in every folder ({', '.join(made)}); translate the same images"
        )
    return [
        _Chosen(path, {name: pairs[path] for name, pairs in made.items()})
        for path in evenly_spaced(candidates, plan.images)
    ]


def _choose_examples(plan: Plan, chosen: Sequence[_Chosen]) -> Sequence[Path]:
    """Real target images; in paired data not the answers to what is shown, as far as there are others."""
    stems = {one.source.stem for one in chosen}
    others = [path for path in plan.files.target if path.stem not in stems]
    return evenly_spaced(others if len(others) >= plan.examples else plan.files.target, plan.examples)


@dataclass(frozen=True)
class _Picture:
    """A PNG of the study: its random id, its size, a digest of its pixels."""

    file: str
    size: tuple[int, int]
    digest: bytes


class _Pictures:
    """Writes pictures under random names."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def add(self, image: Image.Image) -> _Picture:
        image = image.convert("RGB")
        if max(image.size) > LARGEST_SIDE:
            image.thumbnail((LARGEST_SIDE, LARGEST_SIDE), Image.Resampling.LANCZOS)
        file = secrets.token_hex(12)
        image.save(self._folder / f"{file}.png")
        return _Picture(file, image.size, hashlib.sha256(image.tobytes()).digest())


def _column(
    contender: Contender, plan: Plan, chosen: Sequence[_Chosen], pictures: _Pictures, progress: Progress
) -> tuple[list[_Picture], str]:
    """One method's picture of every source, and where they came from in words."""
    words = f"{'translating' if contender.is_run else 'reading'} {contender.name}"
    progress(words, 0, len(chosen))
    column = []
    if not contender.is_run:
        for done, one in enumerate(chosen, start=1):
            column.append(pictures.add(read_image(one.made[contender.name])))
            progress(words, done, len(chosen))
        return column, f"images in {contender.folder.resolve()}"
    translator = Translator.from_pretrained(contender.folder, weights=plan.weights, device=plan.device)
    if not (translator.source.plain and translator.target.plain):
        raise DataError(
            f"{contender.folder}: a study shows 8-bit gray or colour, but this run takes {translator.source.words} and "
            f"makes {translator.target.words}"
        )
    side = shorter_side(translator.image_size)
    for done, one in enumerate(chosen, start=1):
        image = read_image(one.source, translator.channels, translator.background)
        column.append(pictures.add(translator.translate(_scaled(image, plan.size, side))))
        progress(words, done, len(chosen))
    kind = translator.origin.weights if translator.origin is not None else plan.weights
    seen = translator.description.get("images_seen")
    trained = f", trained on {seen:,} images" if isinstance(seen, int) else ""
    size = {"training": f"shorter side {side}", "original": "original size"}
    at = size.get(plan.size, f"shorter side {plan.size}")
    return column, f"run {contender.folder.resolve()} ({kind} weights{trained}; {at})"


def _scaled(image: Image.Image, size: str, training_side: int) -> Image.Image:
    """The image as a run gets it."""
    side = {"original": min(image.size), "training": training_side}.get(size) or int(size)
    scale = side / min(image.size)
    new = (round(image.width * scale), round(image.height * scale))
    return image if new == image.size else image.resize(new, Image.Resampling.BICUBIC)


def _check_shapes(
    plan: Plan, chosen: Sequence[_Chosen], sources: Sequence[_Picture], columns: Sequence[Sequence[_Picture]]
) -> None:
    for contender, column in zip(plan.contenders, columns, strict=True):
        for one, source, picture in zip(chosen, sources, column, strict=True):
            wanted, found = (picture_.size[0] / picture_.size[1] for picture_ in (source, picture))
            rounding = 1 / min(picture.size)  # whole pixels cannot keep every ratio
            if abs(found / wanted - 1) > _SAME_SHAPE + rounding:
                raise DataError(
                    f"{contender.folder}: its translation of {one.source.name} is {picture.size[0]} x "
                    f"{picture.size[1]}, which is another shape than the source's {source.size[0]} x "
                    f"{source.size[1]}; raters would tell methods by their shape: bring the files to the same one"
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
    """A folder that becomes ``out`` when the block ends well, and is gone when it does not."""
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
