"""Methods: one paper, one file, registered by a decorator; every file of this package is imported."""

import importlib
import pkgutil

from unpaired.methods.base import (
    DEFAULT_REQUEST,
    METHODS,
    ImageBatch,
    Method,
    OptimiserConfig,
    Phase,
    TranslateRequest,
    image_seeds,
)

for _module in pkgutil.iter_modules(__path__):
    importlib.import_module(f"{__name__}.{_module.name}")
for _name in sorted(METHODS, key=lambda name: (name != "qs_attn", name)):  # the default first, then by name
    METHODS[_name] = METHODS.pop(_name)

__all__ = [
    "DEFAULT_REQUEST",
    "METHODS",
    "ImageBatch",
    "Method",
    "OptimiserConfig",
    "Phase",
    "TranslateRequest",
    "image_seeds",
]
