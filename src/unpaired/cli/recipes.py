"""``unpaired recipes``: the recipes, one line each, or one of them in full."""

from __future__ import annotations

import sys
import textwrap
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Any

import yaml
from rich.console import Console
from rich.table import Table
from tyro.conf import Positional, arg

from unpaired.cli.options import parse
from unpaired.recipes import RECIPES, methods_of

_LINES = 160
"""Columns where there is no terminal to ask."""
_LEFT_OUT = ("folder", "source", "target", "domains", "seed")
"""Settings that the command line gives."""


@dataclass(frozen=True)
class Recipes:
    """List the recipes: a picture within minutes, the demo, and the published experiments, each with its settings and
    what to expect.

    'unpaired recipes NAME' shows one in full; 'unpaired train --recipe NAME DATA --out OUT' trains by it.

    Example: unpaired recipes table3_a
    """

    name: Positional[Annotated[str | None, arg(metavar="[NAME]", help="The recipe to show in full.")]] = None


_CONDITIONS = {
    "near": "If the KID (Lite0, x 1e-3) of untranslated images is below {below:g}, 'unpaired train' takes these:",
    "flat": "If more than {above:.0%} of the pixels of target images equal their neighbours, it takes these:",
}
"""Key of a recipe -> when its settings apply (:mod:`unpaired.recipes.adaptation`)."""


def main(argv: Sequence[str]) -> int:
    """Print."""
    options = parse(Recipes, argv, "unpaired recipes")
    if options.name is None:
        _list()
    else:
        _show(options.name)
    return 0


def _list() -> None:
    table = Table(box=None, pad_edge=False)
    for head in ("recipe", "method", "what it is"):
        table.add_column(head, no_wrap=head != "what it is")
    for name in sorted(RECIPES, key=lambda name: len(methods_of(name)) == 1):  # those for several methods first
        methods = methods_of(name)
        table.add_row(name, methods[0] if len(methods) == 1 else f"{len(methods)} methods", RECIPES[name]["title"])
    console = Console(width=None if sys.stdout.isatty() else _LINES, highlight=False)
    console.print(table)
    console.print(
        "\nunpaired recipes NAME shows one in full; unpaired train --recipe NAME DATA --out OUT trains by it."
    )


def _show(name: str) -> None:
    from unpaired.methods import METHODS
    from unpaired.recipes import recipe

    methods, entry = methods_of(name), RECIPES[name]
    config = recipe(name)
    print(f"{entry['title']}.\n")
    if notes := entry.get("notes"):
        print(f"{textwrap.fill(notes.strip(), 100, break_on_hyphens=False)}\n")
    if len(methods) > 1:
        print(f"It works with the methods {', '.join(methods)} (--method).\n")
    print(f"Settings that are not the defaults of the method '{config.method}' ({METHODS[config.method].title}):\n")
    print(yaml.safe_dump(changes(config), sort_keys=False, allow_unicode=True, width=120), end="")
    for kind, condition in _CONDITIONS.items():
        if (rule := entry.get(kind)) is not None:
            print(f"\n{condition.format(**rule)}\n")
            print(yaml.safe_dump({"model": rule["model"]}, sort_keys=False), end="")
    print(f"\nunpaired train --recipe {name} DATA --out OUT")


def changes(config: Any) -> dict[str, Any]:
    """The settings of a ``RunConfig`` that are not its method's defaults, in the sections of a run file."""
    from unpaired.data import DatasetConfig
    from unpaired.run_config import RunConfig

    defaults = RunConfig(config.method, DatasetConfig()).to_mapping()
    sections: dict[str, Any] = {"method": config.method}
    for section, values in config.to_mapping().items():
        if section != "method" and (found := _different(values, defaults[section])):
            sections[section] = found
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
