"""Similar domains: stronger content preservation, so that translations are not worse than their inputs."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from unpaired.config import from_dict, to_dict
from unpaired.data import UnpairedFiles
from unpaired.errors import DataError
from unpaired.evaluation import Evaluator, ScoringNetworks, evenly_spaced
from unpaired.methods import METHODS
from unpaired.recipes import RECIPES, merged, recipe
from unpaired.run_config import RunConfig

_DISTANCE = "kid_lite0_x1e3"
_MOST = 200


def held_back(name: str, config: RunConfig, out: Path) -> tuple[RunConfig, str]:
    """The settings with stronger content preservation if the domains are similar, and a message about it.

    The distance is the KID (EfficientNet-Lite0) between untranslated images of both domains, held-out ones if there are
    any, else training images. Settings that the user changed are kept.

    Args:
        name: The recipe.
        config: The settings of the run.
        out: Its folder; if it holds a run already, that run's settings are used and nothing is measured.

    Raises:
        DataError: The images cannot be read.
    """
    near: dict[str, Any] = RECIPES[name].get("near") or {}
    defaults, settings = to_dict(recipe(name, config.method).model), to_dict(config.model)
    changes = _unchanged(near.get("model", {}), settings, defaults)
    if not changes:
        return config, ""
    if (out / "run.yaml").exists():
        before = to_dict(RunConfig.load(out / "run.yaml").model)
        return _changed(config, _taken(before, changes)), ""
    distance = domain_distance(config)
    if distance is None or distance >= near["below"]:
        return config, ""
    words = ", ".join(f"{key} {value:g}" for key, value in _named(changes))
    return _changed(config, changes), (
        f"The domains are similar (KID (Lite0) of the untranslated images {distance:.0f}, below {near['below']}): "
        f"this run preserves the content more strongly ({words})."
    )


def domain_distance(config: RunConfig) -> float | None:
    """KID (Lite0), x 1e-3, between untranslated images of both domains; None if they cannot be compared."""
    found = config.dataset.held_out_files()
    files = found[0] if found is not None else config.dataset.training_files()
    few = UnpairedFiles(evenly_spaced(files.source, _MOST), evenly_spaced(files.target, _MOST))
    try:
        evaluator = Evaluator(
            few,
            config.data,
            ScoringNetworks(),
            intervals=False,
            formats=config.dataset.training_images().formats(config.data),
        )
    except DataError:  # for example duplicate images, which training itself reports
        return None
    if _DISTANCE in evaluator.left_out or not evaluator.comparable:
        return None
    evaluator.names = [_DISTANCE]
    return evaluator.score_inputs()[_DISTANCE].value


def _unchanged(changes: Mapping[str, Any], settings: Mapping[str, Any], defaults: Mapping[str, Any]) -> dict[str, Any]:
    """The changes to settings that the method has and the user left at the recipe's defaults."""
    found: dict[str, Any] = {}
    for key, value in changes.items():
        if key in defaults and isinstance(value, Mapping):
            if nested := _unchanged(value, settings[key], defaults[key]):
                found[key] = nested
        elif key in defaults and settings[key] == defaults[key]:
            found[key] = value
    return found


def _taken(settings: Mapping[str, Any], names: Mapping[str, Any]) -> dict[str, Any]:
    """The values of ``settings`` for the keys of ``names``."""
    return {
        key: _taken(settings[key], value) if isinstance(value, Mapping) else settings[key]
        for key, value in names.items()
        if key in settings
    }


def _named(changes: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    """Names and values of settings, including nested ones."""
    for key, value in changes.items():
        if isinstance(value, Mapping):
            yield from _named(value)
        else:
            yield key, value


def _changed(config: RunConfig, changes: dict[str, Any]) -> RunConfig:
    settings = METHODS[config.method].Config
    return replace(config, model=from_dict(settings, merged(to_dict(config.model), changes), "recipe"))
