"""Settings of a recipe that depend on the images: for similar domains, and for flat graphics."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from statistics import fmean
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


def domain_distance(seen: Evaluator) -> float | None:
    """KID (Lite0), x 1e-3, between untranslated images of both domains; None if they cannot be compared."""
    if _DISTANCE in seen.left_out or not seen.comparable:
        return None
    seen.names = [_DISTANCE]
    return seen.score_inputs()[_DISTANCE].value


def flat_share(seen: Evaluator) -> float:
    """Mean share of pixels of a target image, in [0, 1], that equal the pixels below and to the right.

    It is 0.52 to 0.79 for drawings and emoji, 0.37 for label maps of Cityscapes, and 0.01 to 0.06 for photographs.
    """
    equal = [
        ((image[:, 1:, :-1] == image[:, :-1, :-1]) & (image[:, :-1, 1:] == image[:, :-1, :-1])).all(0)
        for image in seen.targets.images
    ]
    return fmean(each.float().mean().item() for each in equal)


_RULES: dict[str, tuple[Callable[[Evaluator], float | None], str]] = {
    "near": (
        domain_distance,
        "The domains are similar (KID (Lite0) of the untranslated images {found:.0f}, below {bound:g}): this run "
        "preserves the content more strongly",
    ),
    "flat": (
        flat_share,
        "The target images are flat graphics ({found:.0%} of their pixels equal their neighbours, above {bound:.0%}): "
        "this run avoids texture and uses more varied colours",
    ),
}
"""Key of a recipe -> what is measured, and what is said where it is ``below`` or ``above`` the bound there."""


def adapted(name: str, config: RunConfig, out: Path, given: Collection[str] = ()) -> tuple[RunConfig, list[str]]:
    """The settings that a recipe has for such images (its keys ``near`` and ``flat``), and sentences about them.

    Held-out images are looked at if there are any, else training images. Settings that the user gave or changed are
    kept, and so are those that the recipe sets for the method alone, such as a generator of its own.

    Args:
        name: The recipe.
        config: The settings of the run.
        out: Its folder; if it holds a run already, that run's settings are used and nothing is measured.
        given: Names of settings that the user gave, even if they are the recipe's.

    Raises:
        DataError: The images cannot be read.
    """
    defaults, settings = to_dict(recipe(name, config.method).model), to_dict(config.model)
    entry = RECIPES[name]
    rules = {kind: entry[kind] for kind in _RULES if kind in entry}
    of_the_method = (entry.get("methods", {}).get(config.method) or {}).keys() & entry.get("model", {}).keys()
    changes: dict[str, dict[str, Any]] = {}
    for kind, rule in rules.items():
        wanted = {key: value for key, value in rule["model"].items() if key not in of_the_method}
        if found := _unchanged(wanted, settings, defaults, given):
            changes[kind] = found
    if not changes:
        return config, []
    if (out / "run.yaml").exists():
        before = to_dict(RunConfig.load(out / "run.yaml").model)
        for each in changes.values():
            config = _changed(config, _taken(before, each))
        return config, []
    if (seen := _look_at(config)) is None:
        return config, []
    lines: list[str] = []
    for kind, each in changes.items():
        measure, words = _RULES[kind]
        value, rule = measure(seen), rules[kind]
        bound = float(rule["below"] if "below" in rule else rule["above"])
        if value is not None and (value < bound if "below" in rule else value > bound):
            config = _changed(config, each)
            named = ", ".join(f"{key} {new:g}" if isinstance(new, float) else f"{key} {new}"
                              for key, new in _named(each))  # fmt: skip
            lines.append(f"{words.format(found=value, bound=bound)} ({named}).")
    return config, lines


def _look_at(config: RunConfig) -> Evaluator | None:
    """Some images of both domains; None if they cannot be evaluated."""
    found = config.dataset.held_out_files()
    files = found[0] if found is not None else config.dataset.training_files()
    few = UnpairedFiles(evenly_spaced(files.source, _MOST), evenly_spaced(files.target, _MOST))
    formats = config.dataset.training_images().formats(config.data)
    try:
        return Evaluator(few, config.data, ScoringNetworks(), intervals=False, formats=formats)
    except DataError:  # for example duplicate images, which training itself reports
        return None


def _unchanged(
    changes: Mapping[str, Any], settings: Mapping[str, Any], defaults: Mapping[str, Any], given: Collection[str]
) -> dict[str, Any]:
    """The changes to settings that the method has and the user left at the recipe's defaults."""
    found: dict[str, Any] = {}
    for key, value in changes.items():
        if key in defaults and isinstance(value, Mapping):
            if nested := _unchanged(value, settings[key], defaults[key], given):
                found[key] = nested
        elif key in defaults and key not in given and settings[key] == defaults[key]:
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
