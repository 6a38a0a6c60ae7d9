"""Recipes: sets of settings, one YAML file each, that go with any of the methods which the file lists."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from unpaired.config import from_dict, load_yaml, to_dict
from unpaired.data import DataConfig, DatasetConfig
from unpaired.engine.trainer import TrainingConfig
from unpaired.errors import ConfigError, nearest
from unpaired.methods import METHODS
from unpaired.run_config import RunConfig

RECIPES: dict[str, Path] = {path.stem: path for path in sorted(Path(__file__).parent.glob("*.yaml"))}
"""Name -> file."""


def recipe(name: str, method: str = "qs_attn", dataset: DatasetConfig | None = None) -> RunConfig:
    """A run of ``method`` by a recipe.

    Settings of the recipe that the method does not have are left out; those that stand under its own name win.

    Args:
        name: A key of :data:`RECIPES`.
        method: A key of ``METHODS``.
        dataset: Where the images lie; unset: nowhere yet.

    Raises:
        ConfigError: There is no such recipe, or it is not made for this method.
    """
    found = read_recipe(name)
    if method not in found["methods"]:
        raise ConfigError(
            f"recipe: '{name}' is not made for the method '{method}'; it goes with {', '.join(found['methods'])}"
        )
    settings = METHODS[method].Config
    usual = to_dict(settings())
    own = found["methods"][method] or {}
    shared = {key: value for key, value in found.get("model", {}).items() if key in usual}
    where = str(RECIPES[name])
    return RunConfig(
        method,
        dataset or DatasetConfig(),
        from_dict(DataConfig, {**METHODS[method].data_defaults, **found.get("data", {})}, f"{where}: data"),
        from_dict(settings, merged(usual, {**shared, **own}), f"{where}: {method}"),
        from_dict(TrainingConfig, found.get("training", {}), f"{where}: training"),
    )


def read_recipe(name: str) -> dict[str, Any]:
    """A recipe's file: ``title``, ``methods`` (name -> its own settings or nothing), ``data``, ``training``, ``model``,
    and ``near``, what changes where domains are near each other (:mod:`unpaired.recipes.near`).

    Raises:
        ConfigError: There is no such recipe.
    """
    if name not in RECIPES:
        raise ConfigError(f"recipe: there is no '{name}'{nearest(name, RECIPES)}; known: {', '.join(RECIPES)}")
    return load_yaml(RECIPES[name])


def merged(usual: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    """``usual`` with changes; of nested settings, only those named change."""
    together = dict(usual)
    for key, value in changes.items():
        nested = isinstance(value, Mapping) and isinstance(usual.get(key), Mapping)
        together[key] = merged(usual[key], value) if nested else value
    return together
