"""Unpaired image-to-image translation: QS-Attn done right, with its baselines, metrics and figures.

>>> import unpaired
>>> unpaired.__version__.count(".")
2
"""

from __future__ import annotations

from importlib import metadata
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from unpaired.inference import Translator
    from unpaired.training import RunConfig, train

__version__ = metadata.version("unpaired")
__all__ = ["RunConfig", "Translator", "__version__", "train"]

_HOMES = {"Translator": "unpaired.inference", "RunConfig": "unpaired.training", "train": "unpaired.training"}


def __getattr__(name: str) -> Any:
    """Import the public names on first use, so that ``unpaired --help`` need not wait for torch."""
    if name not in _HOMES:
        raise AttributeError(f"module 'unpaired' has no attribute '{name}'")
    import importlib

    return getattr(importlib.import_module(_HOMES[name]), name)
