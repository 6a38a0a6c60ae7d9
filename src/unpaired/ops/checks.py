"""Argument checks of query selection; each message names the setting, what it must be and what it was."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import Any, Literal, get_args

import torch
from torch import Tensor

from unpaired.errors import ConfigError, nearest
from unpaired.ops.attention import Similarity

AttentionMode = Literal["global", "local", "local_global"]
Significance = Literal["entropy", "max_mean", "random"]
Routing = Literal["cross", "self", "none"]
Formulation = Literal["equations", "published"]


def listed(names: Iterable[str]) -> str:
    """Names quoted for an error: ``'a', 'b'``."""
    return ", ".join(repr(name) for name in names)


def check_choices(**choices: tuple[object, Any]) -> None:
    """Check ``setting=(value, Literal type)`` pairs."""
    for setting, (value, literal) in choices.items():
        allowed = get_args(literal)
        if value not in allowed:
            hint = nearest(str(value), allowed)
            raise ConfigError(f"{setting} must be one of {listed(allowed)}, got {value!r}{hint}")


def check_numbers(num_queries: object, window: object, temperature: object) -> None:
    """Check N, the side of the window, and the temperature (None is its default)."""
    if not _is_whole(num_queries) or num_queries < 1:  # type: ignore[operator]
        raise ConfigError(f"num_queries must be a whole number of at least 1, got {num_queries!r}")
    if not _is_whole(window) or window < 1 or window % 2 == 0:  # type: ignore[operator]
        raise ConfigError(f"window must be an odd whole number of at least 1 (it has a centre), got {window!r}")
    if temperature is not None and not _is_positive(temperature):
        raise ConfigError(f"temperature must be a finite number above 0 (or None for the default), got {temperature!r}")


def _is_whole(number: object) -> bool:
    return isinstance(number, int) and not isinstance(number, bool)


def _is_positive(number: object) -> bool:
    return isinstance(number, int | float) and not isinstance(number, bool) and math.isfinite(number) and number > 0


def check_formulation(
    formulation: Formulation, significance: Significance, similarity: Similarity, temperature: float | None
) -> None:
    """Check that the published formulation gets only settings that the published code has."""
    check_choices(formulation=(formulation, Formulation))
    if formulation == "equations":
        return
    for setting, value, allowed in (
        ("significance", significance, ("entropy", "random")),
        ("similarity", similarity, ("dot",)),
        ("temperature", temperature, (None, 1)),
    ):
        if value not in allowed:
            raise ConfigError(f"{setting}={value!r} does not exist in the published code: use formulation='equations'")


def check_tensors(source: Tensor, targets: Sequence[Tensor]) -> None:
    """Check that source and targets are (B, C, H, W) tensors of the same shape and device."""
    if not isinstance(source, Tensor) or source.dim() != 4 or source.numel() == 0:
        raise ConfigError(f"source must be a (B, C, H, W) tensor without empty dimensions, got {_described(source)}")
    if not isinstance(targets, list | tuple):
        raise ConfigError(f"targets must be a list of tensors like source, got {_described(targets)}")
    for name, tensor in (("source", source), *((f"targets[{i}]", target) for i, target in enumerate(targets))):
        if not isinstance(tensor, Tensor) or tensor.shape != source.shape or tensor.device != source.device:
            raise ConfigError(f"{name} must be like source, {_described(source)}, got {_described(tensor)}")
        if not tensor.is_floating_point():
            raise ConfigError(f"{name} must have a floating dtype, got {tensor.dtype}")


def _described(value: object) -> str:
    return f"shape {tuple(value.shape)} on {value.device}" if isinstance(value, Tensor) else f"a {type(value).__name__}"


def checked_seeds(random_seeds: Tensor | None, source: Tensor) -> Tensor:
    """Check the seeds of the images and move them to the device of the source."""
    if random_seeds is None:
        raise ConfigError("significance='random' needs random_seeds, one int64 per image")
    if not isinstance(random_seeds, Tensor):
        raise ConfigError(f"random_seeds must be an int64 tensor, one per image, got {_described(random_seeds)}")
    if random_seeds.dtype != torch.int64 or random_seeds.shape != source.shape[:1]:
        raise ConfigError(
            f"random_seeds must be int64 of shape ({source.shape[0]},), one per image, "
            f"got {random_seeds.dtype} of shape {tuple(random_seeds.shape)}"
        )
    return random_seeds.to(source.device)


def check_indices(indices: Tensor, source: Tensor) -> None:
    """Check positions that the caller gave."""
    batch, _, height, width = source.shape
    if not isinstance(indices, Tensor):
        raise ConfigError(f"indices must be an int64 tensor of shape ({batch}, N), got {_described(indices)}")
    if indices.dtype != torch.int64 or indices.dim() != 2 or indices.shape[0] != batch or not indices.numel():
        raise ConfigError(
            f"indices must be int64 of shape ({batch}, N), N >= 1, got {indices.dtype} of shape {tuple(indices.shape)}"
        )
    if indices.device != source.device:
        raise ConfigError(f"indices must be on {source.device} like source, got {indices.device}")
    # On other devices reading the values would synchronise; there the gather itself checks them.
    if indices.device.type == "cpu" and (int(indices.min()) < 0 or int(indices.max()) >= height * width):
        raise ConfigError(f"indices must lie in [0, {height * width}), the positions of a {height} x {width} map")
