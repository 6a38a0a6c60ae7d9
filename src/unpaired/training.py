"""One training run from its settings: files, method, run folder, engine. This is where the floors below meet."""

from __future__ import annotations

import functools
import hashlib
import json
import sys
from collections.abc import Callable, Iterable
from dataclasses import replace
from importlib import metadata
from pathlib import Path
from typing import Any

import torch

from unpaired.config import from_dict, to_dict
from unpaired.data import (
    DataConfig,
    DatasetConfig,
    Formats,
    PixelFormat,
    SampleStream,
    decay_turns,
    load_examples,
    size_words,
)
from unpaired.engine.checkpoint import CheckpointFolder
from unpaired.engine.precision import Choice, choose_precision, step_time_ratio
from unpaired.engine.processes import on_rank_zero
from unpaired.engine.trainer import FitResult, fit, make_fabric
from unpaired.environment import environment
from unpaired.errors import CheckpointError, ConfigError, DataError, TrainingError, UserError
from unpaired.evaluation import HeldOutScorer
from unpaired.files import write_atomically
from unpaired.inference.initial import INITIAL, InitialWeights, load_initial, take_initial
from unpaired.length import Extension, TrainingLength
from unpaired.methods import DEFAULT_REQUEST, METHODS, Method, TranslateRequest
from unpaired.methods.base import frozen_networks
from unpaired.run_config import MAY_CHANGE, RunConfig, as_begun, first_digest, flat, store

FORMATS = "formats.json"
"""File of a run folder: type, channels and mapping of the images of both domains."""


def train(config: RunConfig, out: Path, *, extend_to: int | None = None, quiet: bool = False) -> FitResult:
    """Train one run in the folder ``out``; if it already holds part of this run, go on from there.

    Args:
        config: The run.
        out: The run folder: ``run.yaml``, ``sessions.jsonl``, ``log.jsonl``, ``samples/``, ``checkpoints/``,
            ``weights/``, ``tensorboard/``.
        extend_to: Train the run in ``out``, finished or not, until so many images are seen in all. From here on its
            schedule is that of a run of this length. ``run.yaml`` keeps it, so later calls may leave it out.
        quiet: Print nothing.

    Raises:
        UserError: Anything that a person can mend, each with what to do.
    """
    given, config = config, as_begun(_with_domains(config), out)
    stream = config.dataset.stream(config.data, config.training.seed)
    channels = max(config.data.domain_channels)
    planned = config.training.images or config.model.optimiser.epochs * stream.images_per_epoch
    fabric = make_fabric(config.training)
    torch.manual_seed(config.training.seed)
    method = METHODS[config.method](config.model, channels=channels)
    if config.data.shorter_crop_side < method.smallest_image:
        raise ConfigError(
            f"image_size: {method.title}'s discriminator needs crops of at least {method.smallest_image} pixels, "
            f"not {size_words(config.data.image_size)}"
        )
    if method.smallest_batch > 1 and config.training.batch_size < method.smallest_batch * config.training.devices:
        raise ConfigError(
            f"batch_size: {method.title} compares the images of a batch with each other, at least "
            f"{method.smallest_batch} in each process; {config.training.batch_size} is too few (its authors take 16)"
        )
    if method.not_recordable and config.training.cuda_graph:
        raise ConfigError(f"cuda_graph: a step of this run cannot be recorded ({method.not_recordable}); turn one off")
    if method.one_process_only and config.training.devices > 1:
        raise ConfigError(f"devices: {config.training.devices} asked for, but {method.one_process_only}; use 1")
    method.prepare()
    fabric.launch()
    if config.training.threads:  # only now: launching several processes sets a number of its own
        torch.set_num_threads(config.training.threads)
    precision = functools.partial(_choose_precision, config, method, channels, fabric.device)
    on_rank_zero(
        fabric,
        lambda: _prepare_folder(
            out, config, stream, method, TrainingLength(planned), extend_to, precision, quiet=quiet
        ),
    )
    recorded = RunConfig.load(out / "run.yaml")
    config = config.in_precision(recorded.training.precision)
    if recorded.init is not None:
        load_initial(method, recorded.init, out)
    if config.data != given.data and fabric.is_global_zero and not quiet:
        words = f"{out} began with an earlier version; its images go on to be loaded as then: {_changes(given, config)}"
        print(words, file=sys.stderr)
    formats = load_formats(out, config.data)
    length, constant_images = TrainingLength(planned, recorded.extensions), config.model.optimiser.constant_images
    stretches = [(0, planned), *((extension.at, extension.to) for extension in length.extensions)]
    turns = decay_turns([(first, constant_images(total)) for first, total in stretches])
    stream = config.dataset.stream(config.data, config.training.seed, formats, turns)
    scorer = _scorer(config, formats, frozen_networks(config.model), quiet=quiet) if fabric.is_global_zero else None
    return fit(
        method,
        stream,
        config.training,
        config.model.optimiser,
        fabric=fabric,
        run=out,
        name=config.method,
        length=length,
        examples=load_examples(config.dataset.example_files(6), config.data, formats[0]),
        description=describe(config, formats),
        scorer=scorer,
        request=_request(config, method),
        quiet=quiet,
    )


def _changes(before: RunConfig, after: RunConfig) -> str:
    old, new = to_dict(before.data), to_dict(after.data)
    return ", ".join(f"{key} {new[key]} (not {old[key]})" for key in new if new[key] != old[key])


def _with_domains(config: RunConfig) -> RunConfig:
    """The run with the names of its domains among the model's settings, where the method knows several.

    Such a method offers ``domain`` and has the setting ``domains``.

    Raises:
        ConfigError: The method and the folder, or the names of the domains, do not belong together.
        DataError: The folder cannot be used.
    """
    method, folder = METHODS[config.method], config.dataset.domains
    several = "domain" in method.supports
    if several and folder is None:
        raise ConfigError(
            f"{method.title} learns several domains from one folder each: give --domains DIR, which holds "
            "train/<domain>, instead of DATA with trainA and trainB"
        )
    if folder is None:
        return config
    if not several:
        able = ", ".join(key for key, row in METHODS.items() if "domain" in row.supports)
        raise ConfigError(
            f"domains: {method.title} translates between two domains; give DATA with trainA and trainB, or --source "
            f"and --target, or take a method of several domains: {able}"
        )
    names = config.dataset.training_domains().names
    if config.model.domains not in ((), names):
        raise ConfigError(
            f"domains: the model's settings name {', '.join(config.model.domains)}, but {folder / 'train'} holds "
            f"{', '.join(names)}; make the folders fit, or leave the model's 'domains' empty"
        )
    config.dataset.scored_pair()  # a wrong name is said before anything is written
    return replace(config, model=replace(config.model, domains=names))


def _request(config: RunConfig, method: Method) -> TranslateRequest:
    """What translations to score and to look at should be."""
    if config.dataset.domains is None:
        return DEFAULT_REQUEST
    return TranslateRequest(domain=method.domains.index(config.dataset.scored_pair()[1]))


def _scorer(
    config: RunConfig, formats: Formats, frozen_networks: Iterable[str], *, quiet: bool
) -> HeldOutScorer | None:
    """What scores the held-out images during training; None where there are none or none were wanted."""
    training, asked = config.training, config.training.score_every is not None or config.training.score_by != "auto"
    if training.score_every == 0:
        return None
    found = config.dataset.held_out_files()
    if found is None:
        if asked:
            raise ConfigError(
                "score_every: there are no held-out images to score; add testA and testB (or valA and valB; "
                "test/<domain> for several domains) to the data folder, name --held-out-source and "
                "--held-out-target, or use --score-every 0"
            )
        return None
    files, words = found
    try:
        scorer = HeldOutScorer(
            files, config.data, training.score_images, training.score_by, words, formats, frozen_networks
        )
        if scorer.remark and not quiet:
            print(scorer.remark, file=sys.stderr)
        return scorer
    except UserError as error:
        if asked:
            raise
        if not quiet:
            print(f"No scores during training: {error}", file=sys.stderr)
        return None


def describe(config: RunConfig, formats: Formats | None = None) -> dict[str, Any]:
    """What ``Translator`` needs to rebuild the networks of a run and to read and write its images, as plain values."""
    formats = formats or config.data.plain_formats
    return {
        "format": 1,
        "method": config.method,
        "model": to_dict(config.model),
        "channels": max(pixels.channels for pixels in formats),
        "source": to_dict(formats[0]),
        "target": to_dict(formats[1]),
        "image_size": config.data.image_size,
        "background": list(config.data.background),
        "unpaired_version": metadata.version("unpaired"),
    }


def names_digest(paths: Iterable[Path]) -> str:
    """What a run remembers of its training images: 16 hex digits over their names, in order."""
    return hashlib.sha256("\n".join(path.name for path in paths).encode()).hexdigest()[:16]


def _prepare_folder(
    out: Path,
    config: RunConfig,
    stream: SampleStream,
    method: Method,
    length: TrainingLength,
    extend_to: int | None,
    choose: Callable[[], Choice],
    *,
    quiet: bool,
) -> None:
    """Make the run folder, or check that it holds this very run; fix there what the run begins with and its length.

    A precision that is left to the machine is fixed there as well: ``choose`` says which, where the folder does not.
    """
    digest = names_digest(stream.paths)
    lines: list[str] = []
    try:
        out.mkdir(parents=True, exist_ok=True)
        if (out / "run.yaml").exists():
            previous = _check_same_run(out, config, digest)
            config = replace(config, init=previous.init, extensions=previous.extensions)
        elif any(path.name not in (FORMATS, INITIAL) and path.suffix != ".tmp" for path in out.iterdir()):
            raise ConfigError(f"{out} is not empty and holds no run; choose another --out")
        elif extend_to is not None:
            raise ConfigError(f"extend_to: {out} holds no run to extend; give its length with --images")
        else:
            if config.init is not None:
                channels = max(config.data.domain_channels)
                taken, line = take_initial(config.init, method, config.model, channels, out)
                config = replace(config, init=taken)
                lines.append(line)
            if config.training.precision == "auto":
                choice = choose()
                config = config.in_precision(choice.precision)
                lines.append(choice.line)
            lines += filter(None, [config.dataset.left_out(config.data)])
            _store_formats(out, config)
        if config.extensions or extend_to is not None:
            length = replace(length, extensions=config.extensions)
            extensions, line = _extended(out, config, length, extend_to)
            config = replace(config, extensions=extensions)
            lines.append(line)
        store(out / "run.yaml", config.to_mapping())
        session = {**environment(), "files_digest": digest, "images": stream.domain_sizes}
        with (out / "sessions.jsonl").open("a", encoding="utf-8") as file:
            file.write(json.dumps(session) + "\n")
    except OSError as error:
        raise TrainingError(f"cannot write to the run folder {out}: {error.strerror or error}") from error
    for line in lines if not quiet else ():
        print(line, file=sys.stderr)


def _choose_precision(config: RunConfig, method: Method, channels: int, device: torch.device) -> Choice:
    """What ``precision: auto`` means for a new run on this machine."""
    images, fast = -(-config.training.batch_size // config.training.devices), config.training.fast_convolutions
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


def _store_formats(out: Path, config: RunConfig) -> None:
    """Find what the images are made of and write it down, unless they are plain 8-bit ones."""
    formats = config.dataset.formats(config.data)
    if formats != config.data.plain_formats:
        plain = {name: to_dict(pixels) for name, pixels in zip(("source", "target"), formats, strict=True)}
        write_atomically(out / FORMATS, json.dumps(plain, indent=2).encode())


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
        found = json.loads(path.read_text(encoding="utf-8"))
        source, target = (from_dict(PixelFormat, found[name], f"{path}: {name}") for name in ("source", "target"))
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise CheckpointError(
            f"{path} cannot be read ({error}); restore it, or choose another --out to begin again"
        ) from error
    return source, target


def _check_same_run(out: Path, config: RunConfig, digest: str) -> RunConfig:
    """The run that the folder holds. Raises ``UserError`` if it is not the one of ``config``."""
    previous = RunConfig.load(out / "run.yaml")
    if previous.method != config.method:
        raise CheckpointError(
            f"{out} holds a run of the method '{previous.method}', not '{config.method}'; choose another --out"
        )
    before, now = (
        flat(replace(run, init=None, extensions=()).to_mapping()) for run in (previous, config)
    )  # these two are compared below
    changed = sorted(key for key in before | now if before.get(key) != now.get(key) and key not in MAY_CHANGE)
    if changed:
        listed = "; ".join(f"{key} was {before.get(key)!r}, now {now.get(key)!r}" for key in changed[:4])
        longer = " (to train it further, add --extend-to)" if "training.images" in changed else ""
        raise ConfigError(
            f"{out} holds a run with other settings ({listed}); choose another --out or use the same ones{longer}"
        )
    if previous.init is None and config.init is not None:
        raise ConfigError(f"{out} holds a run that began without --init {config.init.source}; choose another --out")
    if previous.init is not None and (config.init is None or not previous.init.is_asked_for_by(config.init)):
        raise ConfigError(
            f"{out} holds a run that began with --init {previous.init.source} --init-weights {previous.init.weights}; "
            "give the same (it is not read again) or choose another --out"
        )
    if previous.extensions[: len(config.extensions)] != config.extensions:
        raise ConfigError(f"{out} holds a run with other extensions; choose another --out or use its own run.yaml")
    if first_digest(out) not in (digest, None):
        raise DataError(
            f"the training images are not those that the run in {out} began with (names or number differ), so it "
            "cannot go on as it was; restore them or choose another --out"
        )
    return previous


__all__ = ["MAY_CHANGE", "DatasetConfig", "InitialWeights", "RunConfig", "describe", "first_digest", "flat", "train"]
