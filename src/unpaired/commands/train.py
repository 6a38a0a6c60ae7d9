"""``unpaired train``: every setting of a run as an option, or from a YAML file, or both."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

import tyro
from tyro.conf import OmitArgPrefixes, arg

from unpaired.data import DataConfig
from unpaired.engine.trainer import TrainingConfig
from unpaired.errors import ConfigError, nearest
from unpaired.methods import METHODS
from unpaired.training import DatasetConfig, RunConfig, train

_DESCRIPTION = """Train a translator from two folders of images, no pairs.

Run the same command again to resume: it goes on from the newest valid checkpoint in OUT. Ctrl-C saves and ends.
Options depend on the method: 'unpaired train --method cut --help'. A run file (--config run.yaml, as stored in every
run folder) gives the defaults; options given beside it win."""


def main(argv: Sequence[str]) -> int:
    """Parse, train, and say what to do next."""
    base = _from_file(argv)
    arguments = tyro.cli(
        _arguments(base), args=list(argv), prog="unpaired train", description=_DESCRIPTION, config=(OmitArgPrefixes,)
    )
    dataset = _dataset(arguments, base.dataset)
    config = RunConfig(arguments.method, dataset, arguments.loading, arguments.model, arguments.training)
    result = train(config, arguments.out, quiet=arguments.quiet)
    if result.interrupted and not result.finished:
        return 130
    if result.finished and result.first_process and not arguments.quiet:
        print(f"translate: unpaired translate {arguments.out} INPUT --out DIR")
    return 0


def _from_file(argv: Sequence[str]) -> RunConfig:
    """The defaults: the run file if one is named, else the method's own."""
    path, method = _value_of(argv, "--config"), _value_of(argv, "--method")
    if path is not None:
        base = RunConfig.load(Path(path))
        if method is not None and method != base.method:
            raise ConfigError(f"--method {method} contradicts {path}, which is a run of '{base.method}'; drop one")
        return base
    if method is not None and method not in METHODS:
        raise ConfigError(f"--method: there is no '{method}'{nearest(method, METHODS)}; known: {', '.join(METHODS)}")
    return RunConfig(method or "qs_attn", DatasetConfig())


def _dataset(given: Any, base: DatasetConfig) -> DatasetConfig:
    """The folders named on the command line, as absolute paths; what it leaves open comes from the run file."""
    if given.data is not None:
        places = (given.data, given.source, given.target)
    else:
        named = given.source is not None or given.target is not None
        places = (None if named else base.folder, given.source or base.source, given.target or base.target)
    held_out = (given.held_out_source or base.held_out_source, given.held_out_target or base.held_out_target)
    folder, source, target, *held_out_places = (place and place.absolute() for place in (*places, *held_out))
    return DatasetConfig(folder, source, target, given.direction, *held_out_places)


def _value_of(argv: Sequence[str], option: str) -> str | None:
    """The last value of an option that decides which other options there are, read before the real parsing."""
    found = None
    for position, word in enumerate(argv):
        if word == option and position + 1 < len(argv):
            found = argv[position + 1]
        elif word.startswith(option + "="):
            found = word.partition("=")[2]
    return found


def _arguments(base: RunConfig) -> type[Any]:
    """The typed command line for one method, with ``base`` as the defaults."""
    methods: Any = Literal[tuple(METHODS)]
    words = arg(metavar="[DATA]", help="Folder with trainA and trainB (and testA, testB).")
    folder: Any = Annotated[Path | None, words, tyro.conf.Positional]
    fields: list[tuple[str, Any, Any]] = [
        ("data", folder, None),
        ("out", Annotated[Path, arg(help="The run folder; resumes if it holds this run.")], dataclasses.MISSING),
        ("method", Annotated[methods, arg(help="What to train.")], base.method),
        ("config", Annotated[Path | None, arg(help="A run file (YAML) with the defaults.")], None),
        ("source", Annotated[Path | None, arg(help="Folder of the source domain, instead of DATA.")], None),
        ("target", Annotated[Path | None, arg(help="Folder of the target domain, instead of DATA.")], None),
        ("direction", Annotated[Literal["AtoB", "BtoA"], arg(help="Which domain of DATA is the source.")],
         base.dataset.direction),
        ("held_out_source", Annotated[Path | None, arg(help="Source images to score, not valA or testA.")], None),
        ("held_out_target", Annotated[Path | None, arg(help="Target images to score, not valB or testB.")], None),
        ("quiet", Annotated[bool, arg(help="Print nothing but errors.")], False),
        ("training", TrainingConfig, base.training),
        ("loading", DataConfig, base.data),
        ("model", METHODS[base.method].Config, base.model),
    ]  # fmt: skip
    return dataclasses.make_dataclass(
        "Train",
        [(n, t) if d is dataclasses.MISSING else (n, t, dataclasses.field(default=d)) for n, t, d in fields],
        kw_only=True,
    )
