"""The backends of query selection: every module of this package that defines ``BACKEND``.

For each formulation it supports, a backend computes the functions that ``reference.py`` defines: ``significance`` and
``route``.
"""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from torch import Tensor

from unpaired.ops.attention import Attention, Measure
from unpaired.ops.checks import Formulation

SignificanceFunction = Callable[[Tensor, Attention, Measure], tuple[Tensor, Tensor]]
RouteFunction = Callable[[Tensor, Sequence[Tensor], Tensor, Attention], list[Tensor]]

_PUBLISHED = "formulation='published' needs the whole attention matrix, which only 'reference' keeps"


def _none() -> list[str]:
    return []


@dataclass(frozen=True)
class Backend:
    """An implementation of query selection; reasons are short phrases for ``unpaired info`` and errors.

    Attributes:
        name: Value of ``backend=``.
        preference: ``backend=None`` uses the backend with the lowest value that can run.
        formulations: Formulation -> (significance, route).
        missing: Reasons why it cannot run on this machine.
        refusals: Reasons why it cannot run on these features, (B, C, H, W).
        only_by_name: Reasons why ``backend=None`` skips it although it can run.
    """

    name: str
    preference: int
    formulations: Mapping[Formulation, tuple[SignificanceFunction, RouteFunction]]
    missing: Callable[[], list[str]] = _none
    refusals: Callable[[Tensor], list[str]] = lambda source: []
    only_by_name: Callable[[], list[str]] = _none

    def reasons(self, source: Tensor, formulation: Formulation) -> list[str]:
        """Why it cannot run this request; empty if it can."""
        unsupported = [] if formulation in self.formulations else [_PUBLISHED]
        return self.missing() or unsupported + self.refusals(source)


def _find() -> dict[str, Backend]:
    modules = [importlib.import_module(f"{__name__}.{each.name}") for each in pkgutil.iter_modules(__path__)]
    found: list[Backend] = [module.BACKEND for module in modules if hasattr(module, "BACKEND")]
    return {backend.name: backend for backend in sorted(found, key=lambda backend: backend.preference)}


BACKENDS = _find()
