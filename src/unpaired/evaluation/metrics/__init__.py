"""The metrics. Every module of this folder is imported, so a new metric is one new file here."""

import importlib
import pkgutil

ORDER = ("distances", "swd", "segmentation", "paired", "content", "unchanged", "collapse")
"""Whose rows come first in printed tables; those of further modules follow."""


def load_metrics() -> None:
    """Import every module of this folder, which fills ``METRICS``."""
    for name in dict.fromkeys((*ORDER, *(module.name for module in pkgutil.iter_modules(__path__)))):
        importlib.import_module(f"{__name__}.{name}")


load_metrics()
