"""Scores as plain values, for JSON lines that other programs read."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from unpaired.metrics import Score


def score_values(scores: Mapping[str, Score]) -> dict[str, dict[str, Any]]:
    """Scores by full name, without the values of single images; infinities as words, which JSON has no numbers for."""
    return {
        score.full_name: {key: _plain(value) for key, value in asdict(score).items() if key != "per_image"}
        for score in scores.values()
    }


def _plain(value: Any) -> Any:
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    return [_plain(item) for item in value] if isinstance(value, tuple | list) else value
