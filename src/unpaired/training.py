"""One training run from its settings; it connects the layers below: files, method, run folder, engine."""

from __future__ import annotations

import contextlib
import functools
import sys
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, replace
from importlib import metadata
from pathlib import Path
from typing import Any

import torch

from unpaired.config import to_dict
from unpaired.data import Formats, decay_turns, load_examples, read_values, size_words
from unpaired.data.augment import described
from unpaired.data.dataset import Objects, TrainingImages
from unpaired.data.domains import domain_names
from unpaired.data.sets import python_dataset
from unpaired.engine.announce import opening_lines
from unpaired.engine.callbacks import Callback
from unpaired.engine.processes import ends_with_the_others, launch, make_fabric, on_rank_zero
from unpaired.engine.trainer import FitResult, fit
from unpaired.environment import freed_memory_kept
from unpaired.errors import ConfigError, DataError, UserError
from unpaired.evaluation import HeldOutScorer
from unpaired.files import ignore
from unpaired.inference.initial import load_initial
from unpaired.length import TrainingLength
from unpaired.methods import DEFAULT_REQUEST, METHODS, Method, TranslateRequest
from unpaired.methods.base import frozen_networks
from unpaired.run_config import RunConfig, as_begun, flat
from unpaired.session import begin_session, load_formats, planned_images


def train(
    config: RunConfig,
    out: str | Path,
    *,
    extend_to: int | None = None,
    skip_bad: bool = False,
    data_changed: bool = False,
    callbacks: Sequence[Callback] = (),
    quiet: bool = False,
    source: Any = None,
    target: Any = None,
    held_out: tuple[Any, Any] | None = None,
    transform: Callable[..., Any] | None = None,
) -> FitResult:
    """Train one run in the folder ``out``; if it already holds part of this run, go on from there.

    Args:
        config: The run.
        out: The run folder: ``run.yaml``, ``sessions.jsonl``, ``log.jsonl``, ``samples/``, ``checkpoints/``,
            ``weights/``, ``tensorboard/``.
        extend_to: Train the run in ``out``, finished or not, until this many images are seen in all. From here on its
            schedule is that of a run of this length. ``run.yaml`` keeps it, so later calls may leave it out.
        skip_bad: Leave out training images that cannot be read.
        data_changed: Go on although training images were added, removed or replaced since the session before.
        callbacks: Called during training, in the first process.
        quiet: Print nothing.
        source: The training images of the source domain, instead of the folders of ``config.dataset``: a map-style
            torch dataset (or sequence) of PIL images, arrays (H, W, C) as files hold them, or tensors (C, H, W) of
            integers or of floats in [-1, 1], which count as 8-bit pictures; or of tuples that begin with one, or
            mappings with ``image``. ``dataset[i]`` has to be the same each time: random changes belong into
            ``transform``.
        target: Those of the target domain, in the same way; both or neither.
        held_out: Two more, source and target, which are scored during training; without them nothing is scored.
        transform: Applied to each loaded image before crop and flip: a transform of albumentations or torchvision v2,
            or a function of an array (H, W, C) (:mod:`unpaired.data.augment`). Its random draws are a function of the
            seed and of the sample's number. Instead, ``config.data.transform`` names one that can be imported.

    Raises:
        UserError: Anything that the user can fix; the message says how.
    """
    from unpaired.loggers import CsvLog, OwnLoggers  # with lightning_fabric, whose import takes a while

    out = Path(out)
    config = _with_objects(config, source, target, held_out, transform)
    given, config = config, as_begun(_with_domains(config), out)
    images = config.dataset.training_images(config.data.least_images)
    images.stream(config.data, config.training.seed)  # what is wrong is said before anything is built
    fabric, method = make_fabric(config.training), _build(config)
    launch(fabric)
    if config.training.threads:  # only now: launching several processes sets a number of its own
        torch.set_num_threads(config.training.threads)
    first = fabric.is_global_zero
    say = functools.partial(print, file=sys.stderr) if first and not quiet else ignore
    loggers = config.training.logger
    own: list[Callback] = [OwnLoggers(loggers, say), *([CsvLog()] if "csv" in loggers else [])] if first else []
    with contextlib.ExitStack() as held, ends_with_the_others(fabric):
        if fabric.device.type == "cpu":
            held.enter_context(freed_memory_kept())
        skip = on_rank_zero(
            fabric,
            lambda: begin_session(
                held, out, config, images, method, extend_to, fabric.device, say, skip_bad=skip_bad,
                data_changed=data_changed,
            ),
        )  # fmt: skip
        images = images.without(skip) if skip_bad else images
        recorded = RunConfig.load(out / "run.yaml")
        run = config.in_precision(recorded.training.precision)
        if recorded.init is not None:
            load_initial(method, recorded.init, out)
        if run.data != given.data:
            words = _changes(given, run)
            say(f"{out} began with an earlier version; its images are still loaded as they were then: {words}")
        formats = load_formats(out, run.data)
        planned = planned_images(run, images.stream(run.data, run.training.seed))
        length, constant_images = TrainingLength(planned, recorded.extensions), run.model.optimiser.constant_images
        stretches = [(0, planned), *((extension.at, extension.to) for extension in length.extensions)]
        turns = decay_turns([(start, constant_images(total)) for start, total in stretches])
        stream = images.stream(run.data, run.training.seed, formats, turns)
        if first and not quiet:
            batch = run.training.batch_size
            for line in opening_lines(method, run.model, run.data, stream, fabric.device, length.total, batch):
                say(line)
        return fit(
            method,
            stream,
            run.training,
            run.model.optimiser,
            fabric=fabric,
            run=out,
            name=run.method,
            length=length,
            examples=load_examples(_examples(config, images, formats), run.data, formats[0]),
            description=describe(run, formats),
            scorer=_scorer(run, formats, frozen_networks(run.model), say) if first else None,
            request=_request(run, method),
            callbacks=[*own, *callbacks],
            flat_settings=flat(run.to_mapping()),
            quiet=quiet,
        )


def _examples(config: RunConfig, images: TrainingImages, formats: Formats) -> Sequence[Any]:
    """Images for the sample grids; where damaged ones are stood in for, those of them that can be read."""
    found = config.dataset.example_files(6, images)
    if not images.stand_in:
        return found
    readable = []
    for image in found:
        with contextlib.suppress(DataError):
            read_values(image, formats[0])
            readable.append(image)
    return readable or found


def _with_objects(config: RunConfig, source: Any, target: Any, held_out: Any, transform: Any) -> RunConfig:
    """The run with what was handed over in Python, and what its record says of that."""
    if (source is None) != (target is None):
        raise ConfigError("source, target: give both datasets, or neither and the folders in config.dataset")
    dataset, data = config.dataset, config.data
    if source is not None:
        if (dataset.folder, dataset.domains) != (None, None):
            raise ConfigError(
                "source, target: the datasets contradict config.dataset.folder or .domains; leave those out"
            )
        places = [Path(python_dataset(items, role).label) for role, items in (("source", source), ("target", target))]
        dataset = replace(dataset, source=places[0], target=places[1])
    if transform is not None:
        data = replace(data, transform=described(transform))
    if source is None and held_out is None and transform is None:
        return config
    objects = Objects(source, target, held_out, transform)
    return replace(config, dataset=replace(dataset, objects=objects), data=data)


def _build(config: RunConfig) -> Method:
    """The method with its initial weights. Raises ``ConfigError`` for settings that do not go together."""
    torch.manual_seed(config.training.seed)
    method = METHODS[config.method](config.model, channels=max(config.data.domain_channels))
    if config.data.shorter_crop_side < method.smallest_image:
        raise ConfigError(
            f"image_size: {method.title} needs crops of at least {method.smallest_image} pixels, "
            f"not {size_words(config.data.image_size)}"
        )
    if method.smallest_batch > 1 and config.training.batch_size < method.smallest_batch * config.training.processes:
        raise ConfigError(
            f"batch_size: {method.title} compares the images of a batch with each other, at least "
            f"{method.smallest_batch} in each process; {config.training.batch_size} is too few (its authors take 16)"
        )
    if method.not_recordable and config.training.cuda_graph:
        raise ConfigError(
            f"cuda_graph: a step of this run cannot be recorded ({method.not_recordable}); use --no-cuda-graph"
        )
    if method.one_process_only and config.training.processes > 1:
        raise ConfigError(f"devices: {config.training.processes} asked for, but {method.one_process_only}; use 1")
    method.prepare()
    return method


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
            f"and --target, or use a multi-domain method: {able}"
        )
    names = domain_names(folder)
    if config.model.domains not in ((), names):
        raise ConfigError(
            f"domains: the model's settings name {', '.join(config.model.domains)}, but {folder / 'train'} holds "
            f"{', '.join(names)}; rename the folders, or leave the model's 'domains' empty"
        )
    config.dataset.scored_pair()  # a wrong name is said before anything is written
    return replace(config, model=replace(config.model, domains=names))


def _request(config: RunConfig, method: Method) -> TranslateRequest:
    """What translations to score and to look at should be."""
    if config.dataset.domains is None:
        return DEFAULT_REQUEST
    return TranslateRequest(domain=method.domains.index(config.dataset.scored_pair()[1]))


def _scorer(
    config: RunConfig, formats: Formats, frozen_networks: Iterable[str], say: Callable[[str], object]
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
        if scorer.remark:
            say(scorer.remark)
        return scorer
    except UserError as error:
        if asked:
            raise
        say(f"No scores during training: {error}")
        return None


def describe(config: RunConfig, formats: Formats | None = None) -> dict[str, Any]:
    """What ``Translator`` needs to rebuild the networks of a run and to read and write its images, as plain values."""
    formats, model = formats or config.data.plain_formats, config.model
    served = model.for_translation() if hasattr(model, "for_translation") else model
    plugins = replace(config, model=served).plugins
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
        **({"plugins": [asdict(plugin) for plugin in plugins]} if plugins else {}),
    }
