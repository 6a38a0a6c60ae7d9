"""Table 3 of the paper: its ablations A to H, on Horse -> Zebra.

All share the paper's recipe: 400 epochs at 256 px, batch 1, Adam 2e-4, N = 256 on the last two taps, plain products.
533,600 images; a step is about 1,340 GFLOP, so a run takes some 20 hours at a sustained 10 TFLOP/s. Published scores
are the best epoch on the test set, chosen by FID, of the published code.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from unpaired.engine.trainer import TrainingConfig
from unpaired.methods.qs_attn import QSAttnConfig
from unpaired.training import DatasetConfig, RunConfig


def qs_attn_run(folder: Path, seed: int, **settings: Any) -> RunConfig:
    """The paper's recipe with some of QS-Attn's settings replaced."""
    return RunConfig(
        "qs_attn",
        DatasetConfig(folder=folder),
        model=QSAttnConfig(**settings),
        training=TrainingConfig(seed=seed),
    )


def table3_a(folder: Path, seed: int = 0) -> RunConfig:
    """Table 3, A: global attention, selection by its entropy, cross-domain routing: the whole method, Global.

    Published: FID 41.1, SWD 30.3. About 20 hours at 10 TFLOP/s.
    """
    return qs_attn_run(folder, seed, attention="global")


def table3_b(folder: Path, seed: int = 0) -> RunConfig:
    """Table 3, B: queries drawn at random, routed by the source's global attention.

    Published: FID 52.1, SWD 34.4. About 20 hours at 10 TFLOP/s.
    """
    return qs_attn_run(folder, seed, significance="random")


def table3_c(folder: Path, seed: int = 0) -> RunConfig:
    """Table 3, C: queries selected by entropy, nothing routed.

    Published: FID 61.1, SWD 37.7. About 20 hours at 10 TFLOP/s.
    """
    return qs_attn_run(folder, seed, routing="none")


def table3_d(folder: Path, seed: int = 0) -> RunConfig:
    """Table 3, D: selected by the source's entropy, each domain routed by its own attention.

    Published: FID 43.3, SWD 32.1. About 20 hours at 10 TFLOP/s.
    """
    return qs_attn_run(folder, seed, routing="self")


def table3_e(folder: Path, seed: int = 0) -> RunConfig:
    """Table 3, E: queries drawn at random, each domain routed by its own attention.

    Published: FID 53.4, SWD 34.9. About 20 hours at 10 TFLOP/s.
    """
    return qs_attn_run(folder, seed, significance="random", routing="self")


def table3_f(folder: Path, seed: int = 0) -> RunConfig:
    """Table 3, F: selected by Informer's max-mean (Eq. 6), cross-domain routing.

    Published: FID 43.9, SWD 33.3. About 20 hours at 10 TFLOP/s.
    """
    return qs_attn_run(folder, seed, significance="max_mean")


def table3_g(folder: Path, seed: int = 0) -> RunConfig:
    """Table 3, G: local attention selects and routes: the paper's Local mode.

    Published: FID 38.6, SWD 31.2, by code whose windows are scrambled (docs/method.md). About 20 hours at 10 TFLOP/s.
    """
    return qs_attn_run(folder, seed, attention="local")


def table3_h(folder: Path, seed: int = 0) -> RunConfig:
    """Table 3, H: local attention selects, rows of the global one route: Local+Global.

    Published: FID 42.3, SWD 31.9, by code whose windows are scrambled (docs/method.md). About 20 hours at 10 TFLOP/s.
    """
    return qs_attn_run(folder, seed, attention="local_global")
