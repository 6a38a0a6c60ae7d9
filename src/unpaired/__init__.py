"""Unpaired image-to-image translation: QS-Attn done right, with its baselines, metrics and figures.

>>> import unpaired
>>> unpaired.__version__.count(".")
2
"""

from __future__ import annotations

import sys
from importlib import metadata
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from unpaired.data import DataConfig, DatasetConfig, embedded_dataset
    from unpaired.engine.callbacks import Callback
    from unpaired.engine.training_config import TrainingConfig
    from unpaired.errors import UserError
    from unpaired.evaluation import evaluate_run
    from unpaired.inference import Translator
    from unpaired.inference.hub import Licences
    from unpaired.methods import METHODS
    from unpaired.ops import query_selected_attention, significance_map
    from unpaired.plugins import load_plugin
    from unpaired.recipes import recipe
    from unpaired.training import RunConfig, train

__version__ = metadata.version("unpaired")
__all__ = [
    "METHODS",
    "Callback",
    "DataConfig",
    "DatasetConfig",
    "Licences",
    "RunConfig",
    "TrainingConfig",
    "Translator",
    "UserError",
    "__version__",
    "embedded_dataset",
    "evaluate_run",
    "load_plugin",
    "query_selected_attention",
    "recipe",
    "significance_map",
    "train",
]

_HOMES = {
    "METHODS": "unpaired.methods",
    "DataConfig": "unpaired.data",
    "DatasetConfig": "unpaired.data",
    "Licences": "unpaired.inference.hub",
    "RunConfig": "unpaired.training",
    "TrainingConfig": "unpaired.engine.training_config",
    "Translator": "unpaired.inference",
    "Callback": "unpaired.engine.callbacks",
    "UserError": "unpaired.errors",
    "embedded_dataset": "unpaired.data",
    "evaluate_run": "unpaired.evaluation",
    "load_plugin": "unpaired.plugins",
    "query_selected_attention": "unpaired.ops",
    "recipe": "unpaired.recipes",
    "significance_map": "unpaired.ops",
    "train": "unpaired.training",
}


def __getattr__(name: str) -> Any:
    """Import the public names on first use, so that ``unpaired --help`` need not wait for torch."""
    if name not in _HOMES:
        raise AttributeError(f"module 'unpaired' has no attribute '{name}'")
    import importlib

    found = getattr(importlib.import_module(_HOMES[name]), name)
    if "unpaired.methods" in sys.modules:
        from unpaired.plugins import load_plugins

        load_plugins()
    return found
