"""Table 4 of the paper: which taps select. Recipe, cost and the meaning of published scores as in ``table3``."""

from __future__ import annotations

from pathlib import Path

from unpaired.networks import DEFAULT_TAPS
from unpaired.runs.table3 import qs_attn_run
from unpaired.training import RunConfig


def table4_last_two(folder: Path, seed: int = 0) -> RunConfig:
    """Table 4, A: query selection on the last two taps.

    Published: SWD 30.3, FID 41.1 on Horse -> Zebra; SWD 12.8, FID 72.8 on Cat -> Dog. About 20 hours at 10 TFLOP/s.
    """
    return qs_attn_run(folder, seed)


def table4_all_pooled(folder: Path, seed: int = 0) -> RunConfig:
    """Table 4, B: query selection on all five taps, the first three average-pooled to 64 x 64.

    Published: SWD 32.5, FID 40.4 on Horse -> Zebra; SWD 12.6, FID 73.1 on Cat -> Dog. About 20 hours at 10 TFLOP/s.
    """
    return qs_attn_run(folder, seed, attention_taps=DEFAULT_TAPS, pool_attention_to=64)


def table4_all_full(folder: Path, seed: int = 0) -> RunConfig:
    """Table 4 without pooling: query selection on all five taps at full resolution.

    68,644 locations at the first tap: what linear memory allows. No published score. The published formulation would
    need 19 GB for one attention matrix of the first tap. Memory is linear here, the logits are still n x n products:
    those of down1 alone are 1.1 TFLOP per image (half of it by symmetry), so a step has two to three times
    the arithmetic of ``table4_last_two``: estimated at 40 to 60 hours at 10 TFLOP/s.
    """
    return qs_attn_run(folder, seed, attention_taps=DEFAULT_TAPS)
