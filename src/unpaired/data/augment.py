"""Users' transforms of training images: by name, as a list of torchvision's, or as an object; seeded per image."""

from __future__ import annotations

import hashlib
import importlib
import inspect
import random
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import torch
import yaml

from unpaired.config import parse_yaml
from unpaired.errors import ConfigError, DataError, nearest
from unpaired.plugins import named, plugins_of

LIBRARIES = {"albumentations", "torch", "torchvision"}
"""Packages whose transforms need no plug-in."""
PYTHON = "python:"
"""How the description of a transform that was given as an object begins."""


def described(transform: Any) -> str:
    """What a run records of a transform that is given as an object: its name, or all that it says of itself."""
    name = getattr(transform, "__qualname__", None)
    words = " ".join(repr(transform).split())
    if name or " at 0x" in words:  # a function; or an object that says nothing of itself
        words = f"{transform.__module__}:{name or type(transform).__qualname__}"
    return PYTHON + words


def load_transform(words: str) -> Callable[..., Any]:
    """The transform that settings name.

    Args:
        words: ``package.module:name``, or a YAML list of transforms of torchvision v2, each a name or
            ``{name: {argument: value}}``.

    Raises:
        ConfigError: There is no such transform, or it cannot be made.
    """
    if words.startswith(PYTHON):
        raise ConfigError(f"transform: {words} was given in Python; call unpaired.train(..., transform=...) again")
    if not words.lstrip().startswith("["):
        return _named(words)
    from torchvision.transforms import v2

    try:
        steps = parse_yaml(words)
    except (yaml.YAMLError, RecursionError) as error:
        raise ConfigError(f"transform: '{words}' is not YAML: {' '.join(str(error).split())}") from error
    made = []
    for step in steps:
        name, arguments = next(iter(step.items())) if isinstance(step, Mapping) and len(step) == 1 else (step, {})
        if not isinstance(name, str) or not inspect.isclass(getattr(v2, name, None)):
            known = [each for each in dir(v2) if each[0].isupper()]
            raise ConfigError(f"transform: torchvision.transforms.v2 has no '{name}'{nearest(str(name), known)}")
        try:
            made.append(getattr(v2, name)(**(arguments or {})))
        except (TypeError, ValueError) as error:
            raise ConfigError(f"transform: {name}: {error}") from error
    return v2.Compose(made)


def code_digest(given: Any, words: str | None) -> str:
    """SHA-256 of the code of a transform: of an object's function or class, or of the plug-in that settings name.

    Empty for those of a library, and where the code is not available.
    """
    if given is None:
        return "".join(plugin.sha256 for plugin in plugins_of([], {"transform": words}))
    written = given if inspect.isroutine(given) else type(given)
    try:
        known = written.__module__.partition(".")[0] in LIBRARIES
        return "" if known else hashlib.sha256(inspect.getsource(written).encode()).hexdigest()
    except (OSError, TypeError):
        return ""


def _named(words: str) -> Callable[..., Any]:
    module, colon, name = words.partition(":")
    if not colon or not name:
        raise ConfigError(f"transform: '{words}' is neither package.module:name nor a YAML list of torchvision's")
    try:
        known = module.partition(".")[0] in LIBRARIES
        found = getattr(importlib.import_module(module), name) if known else named("transform", words)
        found = found() if inspect.isclass(found) else found
    except ConfigError:
        raise
    except Exception as error:  # somebody's code is imported
        why = (str(error) or type(error).__name__).splitlines()[0]
        raise ConfigError(f"transform: {words} cannot be imported ({type(error).__name__}: {why})") from error
    if not callable(found):
        raise ConfigError(f"transform: {words} is of type {type(found).__name__}, which is not callable")
    return found


def apply(transform: Callable[..., Any], values_HWC: np.ndarray, seed: int, least: tuple[int, int]) -> np.ndarray:
    """One image through a transform whose random draws are a function of ``seed`` alone.

    Args:
        transform: Of albumentations: it is given an image (H, W, C). A torch module, as torchvision's are: a tensor (C,
            H, W). Any other: an array (H, W, C). All of the type of the files; what comes back has to be of it, too.
        values_HWC: The loaded image, before the crop.
        seed: In [0, 2**63); Python's, numpy's and torch's generators begin with it, and are as they were afterwards.
        least: Height and width of the crop; sides may be smaller where those of the loaded image are.

    Raises:
        DataError: The transform fails, or returns something else than such an image.
    """
    what = f"the transform {type(transform).__name__ if not hasattr(transform, '__name__') else transform.__name__}"
    of_python, of_numpy = random.getstate(), np.random.get_state()
    with torch.random.fork_rng(devices=[]):
        random.seed(seed)
        np.random.seed(seed % 2**32)
        torch.manual_seed(seed)
        try:
            made = _applied(transform, values_HWC.copy(), seed)
        except Exception as error:  # somebody's code
            why = (str(error) or type(error).__name__).splitlines()[0]
            raise DataError(f"{what} fails on an image {values_HWC.shape} ({type(error).__name__}: {why})") from error
        finally:
            random.setstate(of_python)
            np.random.set_state(of_numpy)
    needed = [min(sides) for sides in zip(least, values_HWC.shape, strict=False)]
    if (
        not isinstance(made, np.ndarray)
        or made.dtype != values_HWC.dtype
        or made.ndim != 3
        or made.shape[2] != values_HWC.shape[2]
        or any(side < fewest for side, fewest in zip(made.shape, needed, strict=False))
    ):
        got = f"{made.dtype} {made.shape}" if isinstance(made, np.ndarray) else type(made).__name__
        raise DataError(
            f"{what} made {got} of {values_HWC.dtype} {values_HWC.shape}; it has to return the same type and channels, "
            f"at least {needed[0]} x {needed[1]} pixels (height x width)"
        )
    return made


def _applied(transform: Callable[..., Any], values_HWC: np.ndarray, seed: int) -> Any:
    rooms = {base.__module__.partition(".")[0] for base in type(transform).__mro__}
    if "albumentations" in rooms:
        transform.set_random_seed(seed % 2**32)  # type: ignore[attr-defined]
        return transform(image=values_HWC)["image"]
    if rooms & {"torch", "torchvision"}:
        made = transform(torch.from_numpy(values_HWC.transpose(2, 0, 1).copy()))
        return made.numpy().transpose(1, 2, 0) if isinstance(made, torch.Tensor) and made.ndim == 3 else made
    return transform(values_HWC)
