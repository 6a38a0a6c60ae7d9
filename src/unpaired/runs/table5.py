"""Table 5 of the paper: the number of queries, N, of QS-Attn Global and of CUT, on Horse -> Zebra.

Recipe, cost and the meaning of published scores as in ``table3``.
"""

from __future__ import annotations

from pathlib import Path

from unpaired.engine.trainer import TrainingConfig
from unpaired.methods.cut import CUTConfig
from unpaired.runs.table3 import qs_attn_run
from unpaired.training import DatasetConfig, RunConfig


def _cut_run(folder: Path, seed: int, num_queries: int) -> RunConfig:
    model = CUTConfig(num_queries=num_queries)
    return RunConfig("cut", DatasetConfig(folder=folder), model=model, training=TrainingConfig(seed=seed))


def table5_qs_attn_64(folder: Path, seed: int = 0) -> RunConfig:
    """Table 5: QS-Attn Global with N = 64 queries per tap and image.

    Published: FID 47.9, SWD 30.1. About 20 hours at 10 TFLOP/s.
    """
    return qs_attn_run(folder, seed, num_queries=64)


def table5_qs_attn_128(folder: Path, seed: int = 0) -> RunConfig:
    """Table 5: QS-Attn Global with N = 128 queries per tap and image.

    Published: FID 40.9, SWD 28.5. About 20 hours at 10 TFLOP/s.
    """
    return qs_attn_run(folder, seed, num_queries=128)


def table5_qs_attn_256(folder: Path, seed: int = 0) -> RunConfig:
    """Table 5: QS-Attn Global with N = 256 queries per tap and image.

    Published: FID 41.1, SWD 30.3. About 20 hours at 10 TFLOP/s.
    """
    return qs_attn_run(folder, seed, num_queries=256)


def table5_qs_attn_512(folder: Path, seed: int = 0) -> RunConfig:
    """Table 5: QS-Attn Global with N = 512 queries per tap and image.

    Published: FID 45.6, SWD 31.1. About 20 hours at 10 TFLOP/s.
    """
    return qs_attn_run(folder, seed, num_queries=512)


def table5_cut_64(folder: Path, seed: int = 0) -> RunConfig:
    """Table 5: CUT with N = 64 queries per tap and image.

    Published: FID 52.6, SWD 33.4. About 20 hours at 10 TFLOP/s.
    """
    return _cut_run(folder, seed, 64)


def table5_cut_128(folder: Path, seed: int = 0) -> RunConfig:
    """Table 5: CUT with N = 128 queries per tap and image.

    Published: FID 46.5, SWD 33.8. About 20 hours at 10 TFLOP/s.
    """
    return _cut_run(folder, seed, 128)


def table5_cut_256(folder: Path, seed: int = 0) -> RunConfig:
    """Table 5: CUT with N = 256 queries per tap and image.

    Published: FID 45.5, SWD 31.5. About 20 hours at 10 TFLOP/s.
    """
    return _cut_run(folder, seed, 256)


def table5_cut_512(folder: Path, seed: int = 0) -> RunConfig:
    """Table 5: CUT with N = 512 queries per tap and image.

    Published: FID 53.5, SWD 32.8. About 20 hours at 10 TFLOP/s.
    """
    return _cut_run(folder, seed, 512)
