"""What a report reads: settings and logs of run folders, and the held-out images that the runs translate."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from unpaired.data import UnpairedFiles, find_test_images, list_images, pair_by_name
from unpaired.errors import ConfigError, DataError, nearest
from unpaired.files import json_lines
from unpaired.methods import METHODS
from unpaired.run_config import RunConfig

Direction = Literal["AtoB", "BtoA"]
_UNKNOWN = "\N{EN DASH}"


@dataclass(frozen=True)
class RunFolder:
    """One run, as its folder tells it.

    Attributes:
        path: The folder.
        name: What a report calls it.
        config: Its settings (``run.yaml``).
        log: Lines of ``log.jsonl``, in order of images seen.
        sessions: Lines of ``sessions.jsonl``.
    """

    path: Path
    name: str
    config: RunConfig
    log: list[dict[str, Any]]
    sessions: list[dict[str, Any]]

    @property
    def title(self) -> str:
        """The name of its method."""
        return METHODS[self.config.method].title

    def samples(self) -> list[tuple[int, Path]]:
        """Images seen and picture of each sample grid, in order."""
        found = self.path.glob("samples/*.png")
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
        """What a reader must know of it, in words: method, data, length, machine, versions."""
        dataset, init = self.config.dataset, self.config.init
        where = f"{dataset.folder}, {dataset.direction}" if dataset.folder else f"{dataset.source}, {dataset.target}"
        if dataset.domains is not None:
            where = f"{dataset.domains}: {', '.join(self.config.model.domains)}"
        counts = self.sessions[0].get("images") if self.sessions else None
        if isinstance(counts, list) and len(counts) == 2:
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
            "device": self._of_sessions(lambda x: str(x.get("cuda") or f"CPU, threads: {x.get('threads', '?')}")),
            "versions": self._of_sessions(_versions),
        }

    def _images_seen(self) -> str:
        seen, asked = (self.log[-1].get("images_seen") if self.log else None), self.config.images
        if seen is None:
            return f"{asked:,} asked for" if asked else _UNKNOWN
        words = f"{seen:,}" if asked in (None, seen) else f"{seen:,} of {asked:,}"
        return words + "".join(f", extended to {one.to:,} at {one.at:,}" for one in self.config.extensions)

    def _of_sessions(self, words: Callable[[dict[str, Any]], str]) -> str:
        return "; ".join(dict.fromkeys(map(words, self.sessions))) or _UNKNOWN


def _versions(session: dict[str, Any]) -> str:
    versions, git = session.get("versions") or {}, session.get("git") or {}
    words = f"unpaired {versions.get('unpaired', '?')}, torch {versions.get('torch', '?')}"
    if commit := git.get("commit"):
        words += f", commit {commit[:10]}{' with changes' if git.get('changed') else ''}"
    return words


def read_runs(paths: Sequence[Path], names: Sequence[str] = ()) -> list[RunFolder]:
    """Read the folders of several runs.

    Args:
        paths: Run folders.
        names: What to call them; by default their methods, or their folders if methods repeat.

    Raises:
        ConfigError: There is no run, a folder is no run or is named twice, or ``names`` does not fit.
    """
    if not paths:
        raise ConfigError("name at least one run folder (the --out of 'unpaired train')")
    if names and len(names) != len(paths):
        raise ConfigError(f"names: {len(names)} given for {len(paths)} runs; give one per run, in their order")
    if len(set(names)) != len(names):
        raise ConfigError("names: two runs have the same name; columns must be told apart")
    seen: dict[Path, Path] = {}
    for path in paths:
        if path.resolve() in seen:
            raise ConfigError(f"{path} is the same run as {seen[path.resolve()]}; name each run once")
        seen[path.resolve()] = path
        if not (path / "run.yaml").is_file():
            what = "there is no such folder" if not path.exists() else "it holds no run.yaml"
            raise ConfigError(f"{path} is not a run folder: {what}; give the --out of 'unpaired train'")
    configs = [RunConfig.load(path / "run.yaml") for path in paths]
    return [
        RunFolder(path, name, config, json_lines(path / "log.jsonl"), json_lines(path / "sessions.jsonl"))
        for path, name, config in zip(paths, names or _names(paths, configs), configs, strict=True)
    ]


def _names(paths: Sequence[Path], configs: Sequence[RunConfig]) -> list[str]:
    titles = [METHODS[config.method].title for config in configs]
    folders = [path.resolve().name for path in paths]
    choices = (titles, folders, [f"{path.resolve().parent.name}/{path.resolve().name}" for path in paths])
    return next((each for each in choices if len(set(each)) == len(each)), [str(path) for path in paths])


def held_out_images(
    runs: Sequence[RunFolder],
    data: Path | None = None,
    source: Path | None = None,
    target: Path | None = None,
    direction: Direction | None = None,
) -> UnpairedFiles:
    """Find the images to translate: those that were given, else those of the data set that the runs were trained on.

    Args:
        runs: At least one.
        data: Folder with testA and testB.
        source: Instead of ``data``: folder or pattern of source images.
        target: Folder of real target images, which may hold the truth of each source; not needed.
        direction: Which domain of a folder is the source; unset takes the runs' own.

    Raises:
        DataError: There are none.
        ConfigError: The runs do not agree on them.
    """
    if source is not None and data is None and target is None:
        return UnpairedFiles(tuple(list_images(source)), ())
    if data is None and source is None and target is None:
        if all(run.config.dataset.domains is not None for run in runs):
            return _scored_pair(runs)
        data = _common_folder(runs)
    files = find_test_images(data, source, target)
    if files is None:
        raise DataError(f"{data}: there are no held-out images (testA and testB); give another folder, or --source DIR")
    if data is not None and (direction or _common_direction(runs)) == "BtoA":
        return files.swapped()
    return files


def _scored_pair(runs: Sequence[RunFolder]) -> UnpairedFiles:
    """Held-out images of the two domains that runs of several domains scored."""
    pairs = {(run.config.dataset.domains, run.config.dataset.scored_pair()): run.config.dataset for run in runs}
    if len(pairs) > 1:
        raise ConfigError("the runs know different domains, or scored different ones; give --source DIR and --target")
    (dataset,) = pairs.values()
    found = dataset.held_out_files()
    if found is None:
        raise DataError(f"{dataset.domains} has no test/<domain> (or val/<domain>); give --source DIR and --target")
    return found[0]


def _common_folder(runs: Sequence[RunFolder]) -> Path:
    folders = {run.config.dataset.folder: run for run in runs}
    if len(folders) > 1:
        listed = ", ".join(f"{run.path}: {folder or 'separate folders'}" for folder, run in folders.items())
        raise ConfigError(f"the runs were trained on different data ({listed}); say which images to show: give DATA")
    (folder,) = folders
    if folder is None:
        raise ConfigError(f"{runs[0].path}/run.yaml names no folder with testA and testB; give DATA or --source DIR")
    if not folder.is_dir():
        raise DataError(f"{runs[0].path} was trained on {folder}, which is not there now; give DATA or --source DIR")
    return folder


def _common_direction(runs: Sequence[RunFolder]) -> Direction:
    directions = {run.config.dataset.direction: run for run in runs}
    if len(directions) > 1:
        listed = ", ".join(f"{run.path}: {direction}" for direction, run in directions.items())
        raise ConfigError(f"the runs translate in different directions ({listed}); name one with --direction")
    return next(iter(directions))


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
    total = len(files.source)
    count = min(count, total)
    return tuple(files.source[number * total // count] for number in range(count))


def find_partners(files: UnpairedFiles, paired: Literal["auto", "yes", "no"] = "auto") -> dict[Path, Path]:
    """Map each source image to the target image of the same stem, its truth; empty when the files are no pairs.

    Args:
        files: Held-out images.
        paired: ``auto`` takes files as pairs when every source file has a partner.

    Raises:
        DataError: They have to be pairs and are not.
    """
    if paired == "no" or not files.target:
        return {}
    try:
        pairs = dict(pair_by_name(files.source, files.target))
    except DataError:  # a stem occurs twice
        if paired == "yes":
            raise
        return {}
    if len(pairs) == len(files.source):
        return pairs
    if paired == "yes":
        alone = next(path for path in files.source if path not in pairs)
        raise DataError(f"paired: {alone} has no target file of the same stem; rename the files or drop --paired")
    return {}
