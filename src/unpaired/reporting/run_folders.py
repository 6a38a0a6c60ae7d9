"""What a report reads: settings and logs of run folders, and held-out images to translate."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, TypeVar

from unpaired.data import UnpairedFiles, find_test_images
from unpaired.data.dataset import places_of
from unpaired.data.folders import is_dataset
from unpaired.errors import ConfigError, DataError, nearest
from unpaired.evaluation import evenly_spaced
from unpaired.files import json_lines, lies_within
from unpaired.methods import METHODS
from unpaired.reporting.rows import check_distinct
from unpaired.run_config import DatasetConfig, RunConfig
from unpaired.run_folder import SessionRecord, read_sessions

Direction = Literal["AtoB", "BtoA"]
T = TypeVar("T")
_UNKNOWN = "\N{EN DASH}"


@dataclass(frozen=True)
class RunFolder:
    """A run, read from its folder."""

    path: Path
    name: str
    """What a report calls it."""
    config: RunConfig
    """Its settings (``run.yaml``)."""
    log: list[dict[str, Any]]
    """Lines of ``log.jsonl``, in order of images seen."""
    sessions: list[SessionRecord]
    """Lines of ``sessions.jsonl``."""

    @property
    def title(self) -> str:
        """The name of its method."""
        return METHODS[self.config.method].title

    def samples(self) -> list[tuple[int, Path]]:
        """Images seen and picture of each sample grid, in order; links out of the run are left out."""
        found = (path for path in self.path.glob("samples/*.png") if lies_within(path, self.path))
        return sorted((int(path.stem), path) for path in found if path.stem.isdecimal())

    def curve(self, *keys: str) -> list[tuple[float, float]]:
        """(images seen, value) of one number of the log, such as ``"terms", "contrastive"``."""
        points = []
        for record in self.log:
            value: Any = record
            for key in keys:
                value = value.get(key) if isinstance(value, dict) else None
            if isinstance(record.get("images_seen"), int) and isinstance(value, int | float):
                points.append((float(record["images_seen"]), float(value)))
        return points

    def facts(self) -> dict[str, str]:
        """Method, data, length, machine and versions, in words."""
        dataset, init = self.config.dataset, self.config.init
        where = f"{dataset.folder}, {dataset.direction}" if dataset.folder else f"{dataset.source}, {dataset.target}"
        if dataset.domains is not None:
            where = f"{dataset.domains}: {', '.join(self.config.model.domains)}"
        counts = self.sessions[0].images if self.sessions else None
        if counts is not None and len(counts) == 2:
            where += f" ({counts[0]:,} + {counts[1]:,} images)"
        points = self.curve("seconds_per_image")
        seconds = sum(each * (seen - x) for (seen, each), (x, _) in zip(points, [(0, 0), *points], strict=False))
        spent = f"{seconds / 3600:.1f} hours" if seconds >= 5400 else f"{seconds / 60:.1f} minutes"
        return {
            "method": self.title,
            "trained on": where,
            "images seen": self._images_seen(),
            "begun with": "" if init is None else f"{', '.join(init.networks)} ({init.weights}) of {init.source}",
            "training time": spent if seconds else _UNKNOWN,
            "seed": str(self.config.training.seed),
            "device": self._of_sessions(lambda x: x.cuda or f"CPU, threads: {x.threads or '?'}"),
            "versions": self._of_sessions(_versions),
        }

    def _images_seen(self) -> str:
        seen, asked = (self.log[-1].get("images_seen") if self.log else None), self.config.images
        if seen is None:
            return f"{asked:,} asked for" if asked else _UNKNOWN
        words = f"{seen:,}" if asked in (None, seen) else f"{seen:,} of {asked:,}"
        return words + "".join(f", extended to {one.to:,} at {one.at:,}" for one in self.config.extensions)

    def _of_sessions(self, words: Callable[[SessionRecord], str]) -> str:
        return "; ".join(dict.fromkeys(map(words, self.sessions))) or _UNKNOWN


def _versions(session: SessionRecord) -> str:
    versions, git = session.versions, session.git
    words = f"unpaired {versions.get('unpaired', '?')}, torch {versions.get('torch', '?')}"
    if git.commit:
        words += f", commit {git.commit[:10]}{' with changes' if git.changed else ''}"
    return words


def read_runs(paths: Sequence[Path], names: Sequence[str] = ()) -> list[RunFolder]:
    """Read several run folders, called by ``names`` or else by their methods, or by their folders if methods repeat.

    Raises:
        ConfigError: There is no run, a folder is no run or is named twice, or ``names`` does not fit.
    """
    if not paths:
        raise ConfigError("name at least one run folder (the --out of 'unpaired train')")
    if names and len(names) != len(paths):
        raise ConfigError(f"names: {len(names)} given for {len(paths)} runs; give one per run, in their order")
    if len(set(names)) != len(names):
        raise ConfigError("names: two runs have the same name; columns must be told apart")
    check_distinct(paths)
    for path in paths:
        if not (path / "run.yaml").is_file():
            what = "there is no such folder" if not path.exists() else "it holds no run.yaml"
            raise ConfigError(f"{path} is not a run folder: {what}; give the --out of 'unpaired train'")
    configs = [RunConfig.load(path / "run.yaml") for path in paths]
    return [
        RunFolder(path, name, config, json_lines(path / "log.jsonl"), read_sessions(path))
        for path, name, config in zip(paths, names or _names(paths, configs), configs, strict=True)
    ]


def _names(paths: Sequence[Path], configs: Sequence[RunConfig]) -> list[str]:
    titles = [METHODS[config.method].title for config in configs]
    folders = [path.resolve().name for path in paths]
    choices = (titles, folders, [f"{path.resolve().parent.name}/{path.resolve().name}" for path in paths])
    return next((each for each in choices if len(set(each)) == len(each)), [path.as_posix() for path in paths])


def held_out_images(
    datasets: Mapping[str, DatasetConfig],
    data: Path | None = None,
    source: Path | None = None,
    target: Path | None = None,
    direction: Direction | None = None,
    *,
    option: str = "DATA",
) -> tuple[UnpairedFiles, str]:
    """Find the held-out images to translate: those given, else those of the data set that the runs were trained on.

    Args:
        datasets: Name of a run -> its data set; empty where nothing is known of the runs.
        data: Folder with testA and testB, or a dataset.
        source: Instead of ``data``: folder or pattern of source images, together with ``target``.
        target: Folder of real target images.
        direction: Which domain of a folder is the source; unset takes the runs' own.
        option: What the command calls ``data``, for messages.

    Returns:
        The files and, in words, where they lie.

    Raises:
        DataError: There are none.
        ConfigError: The runs do not say which, or differ.
    """
    if data is None and source is None and target is None:
        if datasets and all(dataset.domains is not None for dataset in datasets.values()):
            return _scored_pair(list(datasets.values()))
        named = {(dataset.held_out_source, dataset.held_out_target) for dataset in datasets.values()}
        if len(named) == 1 and None not in (pair := named.pop()):
            source, target = pair
    if data is None and source is None and target is None:
        places = {
            name: dataset.folder or next(iter(places_of(dataset.source)), None) or dataset.domains
            for name, dataset in datasets.items()
        }
        data = _common(option, places)
        if data is None or data not in [dataset.folder for dataset in datasets.values()]:
            raise ConfigError(f"no run names a folder with testA and testB; give {option}, or --source and --target")
        if not data.is_dir() and not is_dataset(data):
            raise DataError(f"the runs were trained on {data}, which is not there now; give {option}, or --source DIR")
    if data is None and direction is not None:
        raise ConfigError(f"direction: applies to {option} only; with --source and --target, leave it out")
    files = find_test_images(data, source, target)
    if files is None:
        raise DataError(f"{data}: there are no held-out images (testA and testB); give another folder, or --source DIR")
    if data is None:
        return files, f"{source} -> {target}"
    own = {name: dataset.direction for name, dataset in datasets.items() if dataset.folder is not None}
    chosen = direction or _common("--direction", own) or "AtoB"
    return files.swapped() if chosen == "BtoA" else files, f"{data} {chosen}"


def _common(option: str, values: Mapping[str, T | None]) -> T | None:
    """The value that the runs share; ``None`` if no run has one."""
    known = {name: value for name, value in values.items() if value is not None}
    if len(set(known.values())) > 1:
        listed = "; ".join(f"{name}: {value}" for name, value in known.items())
        raise ConfigError(f"{option.strip('-').lower()}: the runs differ ({listed}); choose with {option}")
    return next(iter(known.values()), None)


def _scored_pair(datasets: Sequence[DatasetConfig]) -> tuple[UnpairedFiles, str]:
    """Held-out images of the two domains that runs of several domains scored."""
    if len({(dataset.domains, dataset.scored_pair()) for dataset in datasets}) > 1:
        raise ConfigError("the runs know different domains, or scored different ones; give --source DIR and --target")
    found = datasets[0].held_out_files()
    if found is None:
        raise DataError(f"{datasets[0].domains} has no test/<domain> (or val/<domain>); give --source and --target")
    return found


def choose_images(files: UnpairedFiles, count: int, pick: Sequence[str] = ()) -> tuple[Path, ...]:
    """Choose source images: ``count`` of them evenly spaced by name, or those named in ``pick``, suffixes optional.

    Raises:
        ConfigError: ``count`` is too small.
        DataError: A name is unknown.
    """
    if pick:
        by_name = {path.stem: path for path in files.source} | {path.name: path for path in files.source}
        for name in pick:
            if name not in by_name:
                raise DataError(f"pick: there is no held-out image '{name}'{nearest(name, by_name)}")
        return tuple(dict.fromkeys(by_name[name] for name in pick))
    if count < 1:
        raise ConfigError(f"show must be at least 1, not {count}")
    return evenly_spaced(files.source, count)
