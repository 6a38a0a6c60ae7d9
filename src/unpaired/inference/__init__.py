"""Translation with trained weights: one class for the command line, the metrics and your own scripts.

Names are imported on first use, so that importing ``hub``, ``export`` or ``large_images`` does not load
torch.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from unpaired.inference.loading import Origin
    from unpaired.inference.precision import InferencePrecision
    from unpaired.inference.significance import Significance
    from unpaired.inference.translator import Translator

_HOMES = {"Origin": "loading", "InferencePrecision": "precision", "Significance": "significance",
          "Translator": "translator"}  # fmt: skip
__all__ = ["InferencePrecision", "Origin", "Significance", "Translator"]


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        return getattr(importlib.import_module(f"unpaired.inference.{_HOMES[name]}"), name)
    raise AttributeError(f"module 'unpaired.inference' has no attribute '{name}'")
