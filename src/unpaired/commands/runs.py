"""``unpaired runs``: the named runs and the recipes, one line each, or one of them in full."""

from __future__ import annotations

import inspect
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import tyro
import yaml
from rich.console import Console
from rich.table import Table
from tyro.conf import Positional, arg

from unpaired.errors import ConfigError, nearest
from unpaired.methods import METHODS
from unpaired.recipes import RECIPES, read_recipe, recipe
from unpaired.runs import RUNS
from unpaired.training import DatasetConfig, RunConfig

_LINES = 160
"""Columns where there is no terminal to ask."""
_DATA = Path("DATA")
_LEFT_OUT = ("folder", "source", "target", "domains", "seed")
"""Settings that the command line gives."""


@dataclass(frozen=True)
class Runs:
    """List the named runs: published results and demonstrations, each with its settings and what to expect; and the
    recipes, sets of settings that go with several methods.

    'unpaired runs NAME' shows one in full; 'unpaired train --run NAME DATA --out OUT' trains a run, 'unpaired train
    --recipe NAME --method METHOD DATA --out OUT' one by a recipe.
    """

    name: Positional[Annotated[str | None, arg(metavar="[NAME]", help="The run or recipe to show in full.")]] = None


def main(argv: Sequence[str]) -> int:
    """Print."""
    options = tyro.cli(Runs, args=list(argv), prog="unpaired runs")
    if options.name is None:
        runs = [(name, function(_DATA).method, summary(name)) for name, function in RUNS.items()]
        recipes = [(name, read_recipe(name)["title"]) for name in RECIPES]
        console = Console(width=None if sys.stdout.isatty() else _LINES, highlight=False)
        for heads, rows in ((("run", "method", "what it is"), runs), (("recipe", "what it is"), recipes)):
            table = Table(box=None, pad_edge=False)
            for head in heads:
                table.add_column(head, no_wrap=head != "what it is")
            for row in rows:
                table.add_row(*row)
            console.print(table)
            console.print()
        console.print("unpaired runs NAME shows one in full; unpaired train --run NAME DATA --out OUT trains a run,")
        console.print("unpaired train --recipe NAME --method METHOD DATA --out OUT one by a recipe.")
        return 0
    known = [*RUNS, *RECIPES]
    if options.name not in known:
        raise ConfigError(
            f"there is no run '{options.name}'{nearest(options.name, known)}; 'unpaired runs' lists those there are"
        )
    if options.name in RUNS:
        kind, config = "run", RUNS[options.name](_DATA)
        print(description(options.name))
    else:
        found = read_recipe(options.name)
        kind, config = "recipe", recipe(options.name, next(iter(found["methods"])))
        print(f"{found['title']}.\n\nIt goes with the methods {', '.join(found['methods'])} (--method).")
    print(f"\nSettings that are not the defaults of the method '{config.method}' ({METHODS[config.method].title}):\n")
    print(yaml.safe_dump(changes(config), sort_keys=False, allow_unicode=True, width=120), end="")
    print(f"\nunpaired train --{kind} {options.name} DATA --out OUT")
    return 0


def description(name: str) -> str:
    """What a named run says of itself."""
    return inspect.cleandoc(RUNS[name].__doc__ or "")


def summary(name: str) -> str:
    """The first line of it."""
    return description(name).partition("\n")[0]


def changes(config: RunConfig) -> dict[str, Any]:
    """The settings of a run that are not its method's defaults, in the sections of a run file, without its images."""
    defaults = RunConfig(config.method, DatasetConfig()).to_mapping()
    sections: dict[str, Any] = {"method": config.method}
    for section, values in config.to_mapping().items():
        if section != "method":
            found = _different(values, defaults[section])
            sections |= {section: found} if found else {}
    return sections


def _different(values: dict[str, Any], defaults: dict[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for key, value in values.items():
        before = defaults.get(key)
        if isinstance(value, dict) and isinstance(before, dict):
            found |= {key: inner} if (inner := _different(value, before)) else {}
        elif value != before and key not in _LEFT_OUT:
            found[key] = value
    return found
