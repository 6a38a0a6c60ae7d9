"""One session of a run: locks the run folder, and checks that settings and images are those of earlier sessions."""

from __future__ import annotations

import contextlib
import functools
import json
import shlex
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import torch

from unpaired.config import checked, from_dict, to_dict
from unpaired.data import (
    DataConfig,
    Formats,
    PixelFormat,
    SampleStream,
    changes,
    inventory,
    inventory_json,
    look_over,
    names_digest,
    state_digest,
)
from unpaired.data.augment import code_digest
from unpaired.data.dataset import TrainingImages
from unpaired.data.domains import DomainFiles
from unpaired.data.inventory import Inventory, Seen, short_name
from unpaired.data.sets import Several, dataset_stamps, sample_of
from unpaired.data.stored import KINDS
from unpaired.engine.checkpoint import CheckpointFolder
from unpaired.engine.precision import Choice, choose_precision, step_time_ratio
from unpaired.environment import environment
from unpaired.errors import CheckpointError, ConfigError, DataError, TrainingError
from unpaired.files import read_json, write_atomically
from unpaired.inference.initial import INITIAL, take_initial
from unpaired.length import Extension, TrainingLength
from unpaired.methods import Method
from unpaired.plugins import Plugin, plugins_of
from unpaired.run_config import MAY_CHANGE, PATHS, RunConfig, flat, store
from unpaired.run_folder import SessionRecord, append_line, cut_lines, is_unfinished_start, locked, read_sessions

FILES = "files.json"
"""File of a run folder: names and sizes of the training images of each domain."""
FORMATS = "formats.json"
"""File of a run folder: type, channels and mapping of the images of both domains."""


def begin_session(
    held: contextlib.ExitStack,
    out: Path,
    config: RunConfig,
    images: TrainingImages,
    method: Method,
    extend_to: int | None,
    device: torch.device,
    say: Callable[[str], object],
    *,
    skip_bad: bool,
    data_changed: bool,
) -> frozenset[Any]:
    """Lock the run folder for this session; make it, or check that it holds this very run; fix its files and length.

    A precision that is left to the machine is fixed there as well.

    Args:
        held: Closed at the end of the session, which frees the folder.
        out: The run folder.
        config: The run as it was asked for.
        images: All its training images.
        method: What is to be trained; it is not changed.
        extend_to: As :func:`unpaired.training.train`.
        device: On which it is trained.
        say: Called with one sentence per thing that the person should know.
        skip_bad, data_changed: As :func:`unpaired.training.train`.

    Returns:
        Damaged training images that are left out.

    Raises:
        UserError: The folder is another run's, is held by another training or cannot be written, or the images are
            damaged or others.
    """
    lines: list[str] = []
    try:
        begun = (out / "run.yaml").exists()
        if not begun and not is_unfinished_start(out, (FORMATS, INITIAL)):
            raise ConfigError(f"{out} is not empty and holds no run; choose another --out")
        held.enter_context(locked(out))
        if begun := (out / "run.yaml").exists():
            previous = _check_same_run(out, config)
            config = replace(config, init=previous.init, extensions=previous.extensions)
            if previous.dataset != config.dataset:
                lines.append(_moved(previous, config))
        elif extend_to is not None:
            raise ConfigError(f"extend_to: {out} holds no run to extend; give its length with --images")
        cut_lines(out / "sessions.jsonl", say)
        skipped, images, record, seen = _training_images(
            out, config, images, say, skip_bad=skip_bad, data_changed=data_changed, begun=begun
        )
        if not begun:
            if config.init is not None:
                channels = max(config.data.domain_channels)
                taken, line = take_initial(config.init, method, config.model, channels, out)
                config = replace(config, init=taken)
                lines.append(line)
            if config.training.precision == "auto":
                choice = _choose_precision(config, method, max(config.data.domain_channels), device)
                config = config.in_precision(choice.precision)
                lines.append(choice.line)
            formats = _store_formats(out, config, images)
            names = images.files.names if isinstance(images.files, DomainFiles) else ("source", "target")
            lines += seen.lines(formats, names) if seen is not None else ()
        if config.extensions or extend_to is not None:
            length = TrainingLength(
                planned_images(config, images.stream(config.data, config.training.seed)), config.extensions
            )
            extensions, line = _extended(out, config, length, extend_to)
            config = replace(config, extensions=extensions)
            lines.append(line)
        plugins = dict.fromkeys([*config.plugins, *_readers(images)])
        used = {"plugins": [asdict(plugin) for plugin in plugins]} if plugins else {}
        store(out / "run.yaml", {**config.to_mapping(), **used})
        others = record.pop("others")
        append_line(out / "sessions.jsonl", {**environment(), **record, **used})
        if others or not (out / FILES).exists():
            write_atomically(out / FILES, inventory_json(images.domains))
    except OSError as error:
        raise TrainingError(f"cannot write to the run folder {out}: {error.strerror or error}") from error
    for line in filter(None, lines):
        say(line)
    return skipped


def planned_images(config: RunConfig, stream: SampleStream) -> int:
    """Length of training when the run began, in images."""
    return config.training.images or config.model.optimiser.epochs * stream.images_per_epoch


def _moved(before: RunConfig, now: RunConfig) -> str:
    old, new = flat(to_dict(before.dataset)), flat(to_dict(now.dataset))
    moved = [f"{new[key]} (before: {old[key]})" for key in new if old[key] != new[key] and f"dataset.{key}" in PATHS]
    return f"The training images are now read from another place: {', '.join(moved)}." if moved else ""


def _training_images(
    out: Path,
    config: RunConfig,
    images: TrainingImages,
    say: Callable[[str], object],
    *,
    skip_bad: bool,
    data_changed: bool,
    begun: bool,
) -> tuple[frozenset[Any], TrainingImages, dict[str, Any], Seen | None]:
    """Decode the training images once, unless nothing has changed since the session before, and compare them with it.

    Returns:
        Files that cannot be used and are left out, the images without them, what the session's record says of them,
        and what decoding has shown, where it was done.

    Raises:
        DataError: A file cannot be used and ``skip_bad`` was not asked for, or they are others than before and
            ``data_changed`` was not.
    """
    everything = Several(images.domains)
    state = state_digest(everything)
    last = next(reversed(read_sessions(out, say)), SessionRecord())
    seen = None
    if begun and last.files_checked == state:
        names = last.skipped
        named = (path for path in (everything if names else ()) if short_name(path) in names)
        bad = dict.fromkeys(named, "it could not be used")
    else:
        seen = look_over(images.domains, config.data, _progress(say))
        bad = seen.bad
    if len(bad) == len(sample_of(everything)):  # the settings are at fault, not the files
        raise DataError(f"{next(iter(bad.values()))}. None of {len(bad):,} training images can be used")
    if bad and not skip_bad:
        raise DataError(
            f"{next(iter(bad.values()))}. Of {len(everything):,} training images {len(bad)} cannot be used "
            f"({_some([*map(short_name, bad)])}): fix or replace them, or leave them out with --skip-bad"
        )
    if bad:
        say(f"Left out (--skip-bad): {_some([*map(short_name, bad)])}")
        images = images.without(bad)
    digest, sizes = names_digest(Several(images.domains)), [len(found) for found in images.domains]
    record: dict[str, Any] = {"files_digest": digest, "images": sizes, "files_checked": state,
              "skipped": [*map(short_name, bad)]}  # fmt: skip
    same = (last.files_checked, last.files_digest, last.images) == (state, digest, sizes)
    before = None if same else _stored_inventory(out)  # of a million files it is large
    if before is not None:
        found = changes(before, inventory(images.domains))
    else:  # of an earlier version, which kept a digest of the names alone
        found = {"changed": ["names or number"]} if last.files_digest not in (None, digest) else {}
    code = code_digest(images.transform, config.data.transform)
    if code and last.transform not in (None, code):
        digests = f"sha256 now {code[:12]}, before {last.transform[:12]}"
        found = found | {"code of the transform": [f"{config.data.transform} ({digests})"]}
    if found and not data_changed:
        words = "; ".join(f"{kind}: {_some(names)}" for kind, names in found.items())
        raise DataError(
            f"the training images differ from those that the run in {out} was trained on so far ({words}); restore "
            "them, add --data-changed to continue with the changed images, or choose another --out"
        )
    datasets = {name: size for part in images.domains for name, size, _ in dataset_stamps(part)}
    record |= {"transform": code} if code else {}
    record |= ({"datasets": datasets} if datasets else {}) | ({"data_changed": found} if found else {})
    return frozenset(bad), images, record | {"others": not same}, seen


def _readers(images: TrainingImages) -> tuple[Plugin, ...]:
    """The plug-ins that read the training images."""
    own = {suffix: type(kind) for kind in KINDS if plugins_of([type(kind)], {}) for suffix in kind.suffixes}
    if not own:
        return ()
    suffixes = {Path(image.name).suffix.lower() for image in sample_of(Several(images.domains))}
    return plugins_of([own[suffix] for suffix in suffixes & own.keys()], {})


def _stored_inventory(out: Path) -> Inventory | None:
    try:
        return checked(Inventory, read_json(out / FILES))
    except (OSError, ValueError):
        return None


def _some(names: Sequence[str]) -> str:
    return ", ".join(names[:3]) + (f" and {len(names) - 3:,} more" if len(names) > 3 else "")


def _progress(say: Callable[[str], object]) -> Callable[[int, int], None]:
    """Say once that images are checked, where it takes longer than a few seconds."""
    started = time.monotonic()
    said: list[int] = []

    def progress(done: int, total: int) -> None:
        if not said and time.monotonic() - started > 5 and done < total:
            said.append(done)
            left = (time.monotonic() - started) * (total - done) / done
            say(f"Decodes each of {total:,} training images once to find damaged ones: about {left:.0f} seconds more.")

    return progress


def _choose_precision(config: RunConfig, method: Method, channels: int, device: torch.device) -> Choice:
    """What ``precision: auto`` means for a new run on this machine."""
    images, fast = -(-config.training.batch_size // config.training.processes), config.training.fast_convolutions
    optimiser, size = config.model.optimiser, config.data.crop_size
    ratio = functools.partial(step_time_ratio, batch_size=images, fast_convolutions=fast)
    return choose_precision(device, lambda: ratio(method, optimiser, channels, size))


def _extended(
    out: Path, config: RunConfig, length: TrainingLength, extend_to: int | None
) -> tuple[tuple[Extension, ...], str]:
    """The run's extensions with the one that is asked for, and what that means, in words. Raises ``ConfigError``."""
    if extend_to is None or (length.extensions and extend_to == length.total):
        last = length.extensions[-1]
        return length.extensions, f"This run was extended to {last.to:,} images when it had seen {last.at:,}."
    found = CheckpointFolder(out / "checkpoints", config.method).newest(lambda message: None)
    at = int(found[1]["images_seen"]) if found else 0
    longer = length.extended(extend_to, at)
    optimiser = config.model.optimiser
    before, now, end = (
        optimiser.learning_rate * optimiser.factor(progress)
        for progress in (at / length.total, longer.progress(at), 1.0)
    )
    constant = optimiser.constant_images(extend_to) if optimiser.schedule != "halving" else 0
    return longer.extensions, (
        f"Extended from {length.total:,} to {extend_to:,} images after {at:,}: from here on the schedule is that of a "
        f"run of {extend_to:,} images. The learning rate {f'goes from {before:.3g} to' if before != now else 'is'} "
        f"{now:.3g}{f', stays there until image {constant:,}' if at < constant else ''} and falls to {end:.3g} at the "
        "end."
    )


def _store_formats(out: Path, config: RunConfig, images: TrainingImages) -> Formats:
    """Find what the images are made of and write it down, unless they are plain 8-bit ones."""
    formats = images.formats(config.data)
    if formats != config.data.plain_formats:
        plain = {name: to_dict(pixels) for name, pixels in zip(("source", "target"), formats, strict=True)}
        write_atomically(out / FORMATS, json.dumps(plain, indent=2).encode())
    else:
        (out / FORMATS).unlink(missing_ok=True)  # of a start with other images that was killed
    return formats


def load_formats(out: Path, data: DataConfig) -> Formats:
    """What the images of both domains of a run are made of, as they were found when it began.

    Without the file they are 8-bit gray or colour; so are those of versions that knew no others.

    Raises:
        CheckpointError: The file that says it is damaged.
    """
    path = out / FORMATS
    if not path.exists():
        return data.plain_formats
    try:
        found = read_json(path)
        source, target = (from_dict(PixelFormat, found[name], f"{path}: {name}") for name in ("source", "target"))
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise CheckpointError(
            f"{path} cannot be read ({error}); restore it, or choose another --out to begin again"
        ) from error
    return source, target


def _check_same_run(out: Path, config: RunConfig) -> RunConfig:
    """The run that the folder holds. Raises ``UserError`` if it is not the one of ``config``."""
    previous = RunConfig.load(out / "run.yaml")
    if previous.method != config.method:
        raise CheckpointError(
            f"{out} holds a run of the method '{previous.method}', not '{config.method}'; choose another --out"
        )
    before, now = (
        flat(replace(run, init=None, extensions=()).to_mapping()) for run in (previous, config)
    )  # these two are compared below
    changed = sorted(key for key in before | now if before.get(key) != now.get(key) and key not in MAY_CHANGE | PATHS)
    if changed:
        listed = "; ".join(f"{key} was {before.get(key)!r}, now {now.get(key)!r}" for key in changed[:4])
        longer = " (to train it further, add --extend-to)" if "training.images" in changed else ""
        raise ConfigError(
            f"{out} holds a run with other settings ({listed}); choose another --out or use the same ones{longer}"
        )
    if previous.init is None and config.init is not None:
        raise ConfigError(f"{out} holds a run that began without --init {config.init.source}; choose another --out")
    if previous.init is not None and (config.init is None or not previous.init.is_asked_for_by(config.init)):
        source, weights = shlex.quote(previous.init.source), previous.init.weights
        raise ConfigError(
            f"{out} holds a run that began with --init {source} --init-weights {weights}; "
            "give the same (it is not read again) or choose another --out"
        )
    if previous.extensions[: len(config.extensions)] != config.extensions:
        raise ConfigError(f"{out} holds a run with other extensions; choose another --out or use its own run.yaml")
    return previous
