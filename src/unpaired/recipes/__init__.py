"""Recipes: sets of settings by name, in YAML files: the published experiments, the demo's, and the quick recipe.

A file is one recipe that goes with several ``methods``, or lists several ``recipes`` of one ``method`` each. With
``columns`` these are the rows of a table, and the recipe of each of their ``cells`` is called ``<column>_<row>``.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from unpaired.config import from_dict, load_yaml, to_dict
from unpaired.errors import ConfigError, nearest

if TYPE_CHECKING:
    from unpaired.data import DatasetConfig
    from unpaired.run_config import RunConfig


def read_recipes(path: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    """Names and entries of the recipes in a file, as :data:`RECIPES` holds them. Raises ``ConfigError``."""
    found = load_yaml(path)
    if "recipes" not in found:
        yield path.stem, found
        return
    shared = found.get("data", {})  # of all recipes of the file
    for entry in found["recipes"].values() if shared else ():
        entry["data"] = shared | entry.get("data", {})
    if "columns" not in found:
        yield from found["recipes"].items()
    else:
        for column, words in found["columns"].items():
            for row, entry in found["recipes"].items():
                told = {
                    "title": entry["title"].format(column=words),
                    "notes": found["notes"].format(cell=entry["cells"][column]),
                }
                yield f"{column}_{row}", {key: value for key, value in entry.items() if key != "cells"} | told


RECIPES: dict[str, dict[str, Any]] = {
    name: entry for path in sorted(Path(__file__).parent.glob("*.yaml")) for name, entry in read_recipes(path)
}
"""Name -> its entry: ``title``, ``notes``, ``method`` or ``methods`` (name -> its own settings or nothing), ``base``
(the recipe below this one), ``data``, ``training``, ``model``, and ``near`` (:mod:`unpaired.recipes.near`)."""


def methods_of(name: str) -> list[str]:
    """The methods that a recipe goes with, its usual one first.

    Raises:
        ConfigError: There is no such recipe.
    """
    if name not in RECIPES:
        raise ConfigError(f"there is no recipe '{name}'{nearest(name, RECIPES)}; 'unpaired recipes' lists them")
    entry = RECIPES[name]
    return list(entry["methods"]) if "methods" in entry else [entry["method"]]


def recipe(name: str, method: str | None = None, dataset: DatasetConfig | None = None) -> RunConfig:
    """The settings of a recipe.

    Settings of a recipe for several methods that the method does not have are left out; those that stand under its own
    name win.

    Args:
        name: A key of :data:`RECIPES`.
        method: A key of ``METHODS``; unset takes the recipe's usual one.
        dataset: Where the images lie; unset: nowhere yet.

    Raises:
        ConfigError: There is no such recipe, or it is not made for this method.
    """
    from unpaired.data import DataConfig, DatasetConfig  # torch, for which the names alone need not wait
    from unpaired.engine.trainer import TrainingConfig
    from unpaired.methods import METHODS
    from unpaired.run_config import RunConfig

    known = methods_of(name)
    method = method or known[0]
    if method not in known:
        raise ConfigError(f"recipe: '{name}' is not made for the method '{method}'; it goes with {', '.join(known)}")
    entry, settings, where = RECIPES[name], METHODS[method].Config, f"recipe {name}"
    if "base" in entry:
        usual = recipe(entry["base"], method).to_mapping()
    else:
        usual = {"data": METHODS[method].data_defaults, "training": {}, "model": to_dict(settings())}
    own = entry.get("model", {})
    if "methods" in entry:
        own = {key: value for key, value in own.items() if key in usual["model"]} | (entry["methods"][method] or {})
    data, training = ({**usual[section], **entry.get(section, {})} for section in ("data", "training"))
    return RunConfig(
        method,
        dataset or DatasetConfig(),
        from_dict(DataConfig, data, f"{where}: data"),
        from_dict(settings, merged(usual["model"], own), f"{where}: model"),
        from_dict(TrainingConfig, training, f"{where}: training"),
    )


def demo(images: int = 4000, seed: int = 0) -> RunConfig:
    """The recipe ``demo`` on the embedded drawings, black line drawings -> colour, with another length and seed."""
    from dataclasses import replace

    from unpaired.data import DatasetConfig, embedded_dataset

    drawings = embedded_dataset("fluent", "drawing_to_colour").root
    config = recipe("demo", dataset=DatasetConfig(folder=drawings, direction="BtoA"))
    training = replace(config.training, images=images, seed=seed, score_every=max(1, images // 2))
    return replace(config, training=training)


def merged(usual: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    """``usual`` with changes; of nested settings, only those named change."""
    together = dict(usual)
    for key, value in changes.items():
        nested = isinstance(value, Mapping) and isinstance(usual.get(key), Mapping)
        together[key] = merged(usual[key], value) if nested else value
    return together
