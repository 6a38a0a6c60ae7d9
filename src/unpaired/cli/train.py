"""``unpaired train``: every setting of a run as an option, or from a YAML file, or both."""

from __future__ import annotations

import dataclasses
import re
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

import tyro
from tyro.conf import arg

from unpaired.cli.options import option_names, parse
from unpaired.config import Count, Positive, settings
from unpaired.data import DataConfig
from unpaired.data.augment import LIBRARIES
from unpaired.data.huggingface import absolute
from unpaired.engine.training_config import TrainingConfig
from unpaired.errors import ConfigError, nearest
from unpaired.inference.hub import is_repo_id
from unpaired.methods import METHODS
from unpaired.plugins import load_plugin
from unpaired.recipes import recipe
from unpaired.recipes.adaptation import adapted
from unpaired.run_config import DatasetConfig, InitialWeights, RunConfig
from unpaired.training import train

_DESCRIPTION = """Train a translator from two folders of images, no pairs.

Run the same command again to resume: it continues from the newest valid checkpoint in OUT. Ctrl-C saves and ends.
Options depend on the method: 'unpaired train --method cut --help'. A run file (--config run.yaml, as stored in every
run folder) or a recipe (--recipe quick: a picture within minutes; --recipe table3_a: a published experiment; 'unpaired
recipes' lists them) gives the defaults; options override them. --plugin my_method.py (any number of them) adds
your own methods and networks: --method mine, --generator my_networks:Mine.

Example: unpaired train data/horse2zebra --recipe quick --out runs/quick"""


def main(argv: Sequence[str]) -> int:
    """Parse, train, and say what to do next."""
    for option in ("--generator", "--discriminator", "--transform"):
        named = re.fullmatch(r"(([\w]+)[\w.]*):.*", _value_of(argv, option) or "")
        if named and named[2] not in LIBRARIES:  # whoever writes module:Class names its code
            load_plugin(named[1])
    if len(argv) > 1 and not any(word.startswith("-") for word in argv[:2]):
        source, target = map(shlex.quote, argv[:2])
        raise ConfigError(f"DATA is one folder; two are --source {source} --target {target}; see unpaired train --help")
    base = _defaults(argv)
    arguments: Any = parse(
        _arguments(base), argv, "unpaired train",
        {"device": "training calls it --accelerator (auto, cpu, cuda or mps)", **_of_other_methods(base.method)},
        description=_DESCRIPTION,
    )  # fmt: skip
    dataset = _dataset(arguments, base.dataset)
    config = RunConfig(
        arguments.method,
        dataset,
        arguments.loading,
        _from_options(arguments.model, arguments.method),
        arguments.training,
        _initial(arguments, base),
        base.extensions,
    )
    if arguments.recipe is not None:
        options = (word.partition("=")[0].removeprefix("--") for word in argv if word.startswith("--"))
        given = {option.removeprefix("no-").replace("-", "_") for option in options}
        config, lines = adapted(arguments.recipe, config, arguments.out, given)
        for line in lines if not arguments.quiet else ():
            print(line, file=sys.stderr)
    result = train(
        config, arguments.out, extend_to=arguments.extend_to, skip_bad=arguments.skip_bad,
        data_changed=arguments.data_changed, quiet=arguments.quiet,
    )  # fmt: skip
    if result.interrupted and not result.finished:
        return 128 + result.interrupted
    if result.finished and result.first_process and not arguments.quiet:
        print(f"translate: unpaired translate {shlex.quote(str(arguments.out))} INPUT --out DIR")
    return 0


def _defaults(argv: Sequence[str]) -> RunConfig:
    """The defaults: those of the recipe or of the run file if there is one, else the method's own."""
    path, method = _value_of(argv, "--config"), _known(_value_of(argv, "--method"))
    if (name := _value_of(argv, "--recipe")) is not None:
        if path is not None:
            raise ConfigError(f"--config {path} contradicts --recipe {name}: both give the settings; drop one")
        return recipe(name, method)
    if path is not None:
        base = RunConfig.load(Path(path))
        if method is not None and method != base.method:
            raise ConfigError(f"--method {method} contradicts {path}, which is a run of '{base.method}'; drop one")
        return base
    return RunConfig(method or "qs_attn", DatasetConfig())


def _known(method: str | None) -> str | None:
    """``method``, if there is one of that name or none is named. Raises ``ConfigError``."""
    if method is not None and method not in METHODS:
        raise ConfigError(
            f"--method: there is no '{method}'{nearest(method, METHODS)}; known: {', '.join(METHODS)}; one of your own "
            "needs --plugin FILE"
        )
    return method


def _dataset(given: Any, base: DatasetConfig) -> DatasetConfig:
    """The folders named on the command line, as absolute paths; what it leaves open comes from the run file."""
    if given.data is not None and given.folder is not None:
        raise ConfigError(f"--data {given.data} contradicts DATA {given.folder}; drop one")
    data, domains = given.data or given.folder, given.domains
    if given.recipe is not None and "domain" in METHODS[given.method].supports and domains is None:
        data, domains = None, data  # the recipe is for several domains: DATA is their folder
    if data is not None or domains is not None:
        places = (data, given.source or None, given.target or None)
    else:
        named = bool(given.source or given.target)
        places = (None if named else base.folder, given.source or base.source, given.target or base.target)
        domains = None if named else base.domains
    weights = [
        getattr(given, name) or (getattr(base, name) if places[1:] == (base.source, base.target) else ())
        for name in ("source_weights", "target_weights")
    ]
    if given.recipe is not None and not any((*places, domains)):
        raise ConfigError("--recipe gives the settings, not the images: unpaired train --recipe NAME DATA --out OUT")
    held_out = (given.held_out_source or base.held_out_source, given.held_out_target or base.held_out_target)
    folder, source, target, held_out_source, held_out_target, domains = map(_absolute, (*places, *held_out, domains))
    scored = given.scored_domains or (base.scored_domains if domains is not None else None)
    return DatasetConfig(
        folder, source, target, given.direction, held_out_source, held_out_target, domains, scored, *weights
    )


def _absolute(place: Any) -> Any:
    """Folders as absolute paths, a single one of several as itself."""
    return absolute(place[0] if isinstance(place, tuple) and len(place) == 1 else place)


def _initial(given: Any, base: RunConfig) -> InitialWeights | None:
    """What the run begins with; a folder as an absolute path."""
    if given.init is None:
        if given.init_weights is not None:
            raise ConfigError("--init-weights chooses among the weights of --init; give both")
        return base.init
    source = given.init if is_repo_id(given.init) else str(Path(given.init).absolute())
    return InitialWeights(source, given.init_weights or "ema")


def _as_options(model: Any) -> Any:
    """A method's settings without the names of its domains, which are no option: the folder of --domains has them."""
    if not hasattr(model, "domains"):
        return model
    hidden: Any = ("domains", Annotated[tuple[str, ...], tyro.conf.Suppress], dataclasses.field(default=()))
    options = dataclasses.make_dataclass(type(model).__name__, [hidden], bases=(type(model),), frozen=True)
    return options(**vars(model))


def _from_options(model: Any, method: str) -> Any:
    """The settings that were parsed, of the method's own class again."""
    return METHODS[method].Config(**vars(model))


def _of_other_methods(method: str) -> dict[str, str]:
    """Options that this method has not -> which others have them."""
    having: dict[str, list[str]] = {}
    for name, row in METHODS.items():
        for option, _ in option_names(row.Config):
            having.setdefault(option, []).append(name)
    return {
        option: f"{METHODS[method].title} ({method}) has no such setting; --method {' or '.join(names)} has it"
        for option, names in having.items()
        if method not in names
    }


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
    model = _as_options(base.model)
    words = arg(
        metavar="[DATA]",
        help="Folder with trainA and trainB (and testA, testB), "
        "which 'unpaired data prepare' makes of two folders; or hf:NAME.",
    )
    folder: Any = Annotated[Path | None, words, tyro.conf.Positional]
    fields: list[tuple[str, Any, Any]] = [
        ("folder", folder, None),
        ("data", Annotated[Path | None, arg(help="The same as DATA; hf:NAME is a dataset of the Hugging Face Hub, or "
                                            "a folder, parquet files or shards that its library reads.")], None),
        ("out", Annotated[Path, arg(help="The run folder; resumes if it holds this run.")], dataclasses.MISSING),
        ("method", Annotated[methods, arg(help="The method to train.")], base.method),
        ("config", Annotated[Path | None, arg(help="A run file (YAML) with the defaults.")], None),
        ("recipe", Annotated[str | None, arg(help="A recipe with the defaults, such as quick or table3_a; 'unpaired "
                                             "recipes' lists them.")], None),
        ("source", Annotated[tuple[Path, ...], arg(help="Folder of the source domain, or several, instead of DATA; "
                                                   "hf:NAME?split=S&column=C&label=L is a dataset.")], ()),
        ("target", Annotated[tuple[Path, ...], arg(help="The same for the target domain.")], ()),
        ("source_weights", Annotated[tuple[Positive, ...], arg(help="Sampling weights of several source folders; "
                                                            "unset: each image equally often.")], ()),
        ("target_weights", Annotated[tuple[Positive, ...], arg(help="The same for the target folders.")], ()),
        ("direction", Annotated[Literal["AtoB", "BtoA"], arg(help="Which domain of DATA is the source.")],
         base.dataset.direction),
        ("held_out_source", Annotated[Path | None, arg(help="Source images to score instead of valA or testA.")], None),
        ("held_out_target", Annotated[Path | None, arg(help="Target images to score instead of valB or testB.")], None),
        ("domains", Annotated[Path | None, arg(help="Folder with train/<domain> and test/<domain>, instead of DATA.")],
         None),
        ("scored_domains", Annotated[tuple[str, str] | None, arg(help="Source and target domain that are scored.")],
         None),
        ("init", Annotated[str | None, arg(help="Begin with the weights of this run folder or of owner/name on the Hub "
                                           "instead of random ones; optimizers start fresh.")], None),
        ("init_weights", Annotated[Literal["ema", "last", "best"] | None,
                                   arg(help="Which weights of --init; unset takes the averaged ones (ema).")], None),
        ("extend_to", Annotated[Count | None, arg(help="Train the run in OUT, finished or not, until this many images "
                                                "are seen in all, with the schedule of a run of that length.")], None),
        ("skip_bad", Annotated[bool, arg(help="Leave out training images that cannot be read.")], False),
        ("data_changed", Annotated[bool, arg(help="Continue although training images were added, removed or replaced; "
                                                  "sessions.jsonl lists them.")], False),
        ("quiet", Annotated[bool, arg(help="Print nothing but errors.")], False),
        ("training", TrainingConfig, base.training),
        ("loading", DataConfig, base.data),
        ("model", type(model), model),
    ]  # fmt: skip
    groups = {
        "image": ("source", "target", "direction", "held_out_source", "held_out_target", "domains", "scored_domains"),
        "run": ("init", "init_weights", "extend_to", "skip_bad", "data_changed", "quiet"),
    }
    made = dataclasses.make_dataclass(
        "Train",
        [(n, t) if d is dataclasses.MISSING else (n, t, dataclasses.field(default=d)) for n, t, d in fields],
        kw_only=True,
        frozen=True,
        namespace={"option_groups": groups},
    )
    return settings(made)
