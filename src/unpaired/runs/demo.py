"""The demonstration, and a small generator by the paper's recipe for small images of one's own."""

from __future__ import annotations

import dataclasses
from pathlib import Path

from unpaired.data import embedded_dataset
from unpaired.engine.trainer import TrainingConfig
from unpaired.methods.qs_attn import QSAttnConfig
from unpaired.recipes import recipe
from unpaired.run_config import loading
from unpaired.training import DatasetConfig, RunConfig


def demo(images: int = 4000, seed: int = 0) -> RunConfig:
    """The quick recipe on the embedded drawings: black line drawings -> colour, 64 px, QS-Attn, two CPU cores.

    The files are used at their own size, and the light generator is the smooth one: drawings need no texture.
    docs/quick.md has what the recipe changes of the paper's, and what is known of each change.
    """
    data = embedded_dataset("fluent", "drawing_to_colour")
    base = recipe("quick", "qs_attn", DatasetConfig(folder=data.root, direction="BtoA"))
    return dataclasses.replace(
        base,
        data=dataclasses.replace(base.data, image_size=64, load_size=64, num_workers=0),
        model=dataclasses.replace(base.model, generator="light_smooth"),
        training=dataclasses.replace(
            base.training,
            images=images,
            seed=seed,
            accelerator="cpu",
            log_every=50,
            score_every=max(1, images // 2),
            score_images=100,
        ),
    )


def small_images(folder: Path, seed: int = 0) -> RunConfig:
    """The paper's recipe for small images: QS-Attn Global at 64 px, a small generator, 10,000 images.

    About 20 minutes on two CPU cores. On the 200 validation drawings of the package (two seeds, with plain products) it
    reached SWD 55 and 72, from 106, and a paired L1 of 0.35 and 0.36, from 0.55 (docs/results.md). No published score.
    """
    return RunConfig(
        method="qs_attn",
        dataset=DatasetConfig(folder=folder),
        data=loading("qs_attn", image_size=64, load_size=64, num_workers=0),
        model=QSAttnConfig(base_channels=16, blocks=6, num_queries=64, discriminator_layers=2, similarity="scaled"),
        training=TrainingConfig(images=10_000, seed=seed, ema_half_life_images=500.0),
    )
