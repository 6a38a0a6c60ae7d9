"""Trained models that come with the package, by name."""

from __future__ import annotations

from pathlib import Path

MODELS = Path(__file__).parents[1] / "models"
"""One folder per model: model.json, safetensors, and a card that says what it was trained on and what it scores."""


def packaged() -> dict[str, Path]:
    """Name -> folder of each model in the package."""
    return {file.parent.name: file.parent for file in sorted(MODELS.glob("*/model.json"))}


def folder_of(path: str | Path) -> Path:
    """The folder that is meant: ``path`` if there is such a one, else that of the model in the package so named."""
    path = Path(path)
    return path if path.exists() else packaged().get(str(path), path)
