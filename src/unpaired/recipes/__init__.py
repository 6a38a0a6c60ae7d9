"""Recipes: named settings in YAML files, for published experiments, the demo and the quick recipe.

A file holds one recipe for several ``methods``, or several ``recipes`` of one ``method`` each. With ``columns``, the
recipes are rows of a table, and each cell is a recipe ``<column>_<row>``.
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
    """Names and entries of the recipes in a file, as in :data:`RECIPES`. Raises ``ConfigError``."""
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
        for column, label in found["columns"].items():
            for row, entry in found["recipes"].items():
                texts = {
                    "title": entry["title"].format(column=label),
                    "notes": found["notes"].format(cell=entry["cells"][column]),
                }
                yield f"{column}_{row}", {key: value for key, value in entry.items() if key != "cells"} | texts


RECIPES: dict[str, dict[str, Any]] = {
    name: entry for path in sorted(Path(__file__).parent.glob("*.yaml")) for name, entry in read_recipes(path)
}
"""Name -> entry: ``title``, ``notes``, ``method`` or ``methods`` (name -> its own settings or null), ``base`` (the
recipe it extends), ``data``, ``training``, ``model``, and ``near`` and ``flat``
(:mod:`unpaired.recipes.adaptation`)."""


def methods_of(name: str) -> list[str]:
    """The methods that a recipe supports, its default first. Raises ``ConfigError`` if there is no such recipe."""
    if name not in RECIPES:
        raise ConfigError(f"there is no recipe '{name}'{nearest(name, RECIPES)}; 'unpaired recipes' lists them")
    entry = RECIPES[name]
    return list(entry["methods"]) if "methods" in entry else [entry["method"]]


def recipe(name: str, method: str | None = None, dataset: DatasetConfig | None = None) -> RunConfig:
    """The settings of a recipe.

    Settings of a recipe for several methods that the method does not have are skipped; those under the method's name
    take precedence.

    Args:
        name: A key of :data:`RECIPES`.
        method: A key of ``METHODS``; unset means the recipe's default.
        dataset: The images; may be set later.

    Raises:
        ConfigError: There is no such recipe, or it does not support the method.
    """
    from unpaired.data import DataConfig, DatasetConfig  # imports torch, which the names do not need
    from unpaired.engine.training_config import TrainingConfig
    from unpaired.methods import METHODS
    from unpaired.run_config import RunConfig

    known = methods_of(name)
    method = method or known[0]
    if method not in known:
        raise ConfigError(f"recipe: '{name}' does not support the method '{method}', only {', '.join(known)}")
    entry, settings, where = RECIPES[name], METHODS[method].Config, f"recipe {name}"
    if "base" in entry:
        base = recipe(entry["base"], method).to_mapping()
    else:
        base = {"data": METHODS[method].data_defaults, "training": {}, "model": to_dict(settings())}
    own = entry.get("model", {})
    if "methods" in entry:
        own = {key: value for key, value in own.items() if key in base["model"]} | (entry["methods"][method] or {})
    data, training = ({**base[section], **entry.get(section, {})} for section in ("data", "training"))
    return RunConfig(
        method,
        dataset or DatasetConfig(),
        from_dict(DataConfig, data, f"{where}: data"),
        from_dict(settings, merged(base["model"], own), f"{where}: model"),
        from_dict(TrainingConfig, training, f"{where}: training"),
    )


def demo(images: int = 4000, seed: int = 0) -> RunConfig:
    """The recipe ``demo`` on the embedded line drawings -> colour, with the given length and seed."""
    from dataclasses import replace

    from unpaired.data import DatasetConfig, embedded_dataset

    drawings = embedded_dataset("fluent", "drawing_to_colour").root
    config = recipe("demo", dataset=DatasetConfig(folder=drawings, direction="BtoA"))
    training = replace(config.training, images=images, seed=seed, score_every=max(1, images // 2))
    return replace(config, training=training)


def merged(base: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    """``base`` updated with ``changes``, recursively."""
    result = dict(base)
    for key, value in changes.items():
        nested = isinstance(value, Mapping) and isinstance(base.get(key), Mapping)
        result[key] = merged(base[key], value) if nested else value
    return result
