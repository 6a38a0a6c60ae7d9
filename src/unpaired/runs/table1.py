"""Table 1 of the paper: seven systems on Cityscapes, Cat -> Dog and Horse -> Zebra, at 256 px, batch 1.

QS-Attn is the paper's recipe with its plain products; each baseline has its own paper's. Published scores are the best
epoch on the test set, chosen by FID; the published local windows are scrambled (docs/method.md). Hours are images times
the arithmetic of a step (``benchmarks/bench_methods.py``) at a sustained 10 TFLOP/s.
"""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

from unpaired.engine.trainer import TrainingConfig
from unpaired.methods.cut import CUTConfig
from unpaired.methods.cyclegan import CycleGANConfig
from unpaired.methods.fsesim import FSeSimConfig
from unpaired.methods.munit import MUNITConfig
from unpaired.runs.table3 import qs_attn_run
from unpaired.training import DatasetConfig, RunConfig

_MUNIT_IMAGES = 1_000_000


def _baseline(method: str, folder: Path, seed: int, model: Any) -> RunConfig:
    return RunConfig(method, DatasetConfig(folder=folder), model=model, training=TrainingConfig(seed=seed))


def _munit(folder: Path, seed: int) -> RunConfig:
    run = _baseline("munit", folder, seed, MUNITConfig())
    return dataclasses.replace(run, training=dataclasses.replace(run.training, images=_MUNIT_IMAGES))


# ---------------------------------------------------------------------------------------------------------------------
# Cityscapes: 2,975 images an epoch
# ---------------------------------------------------------------------------------------------------------------------
def cityscapes_cyclegan(folder: Path, seed: int = 0) -> RunConfig:
    """Table 1, CycleGAN on Cityscapes: 200 epochs, cycle 10, identity 5, pools of 50.

    Published: mAP 20.4, pixAcc 55.9, classAcc 25.4, FID 76.3. 595,000 images, about 31 hours at 10 TFLOP/s.
    """
    return _baseline("cyclegan", folder, seed, CycleGANConfig())


def cityscapes_munit(folder: Path, seed: int = 0) -> RunConfig:
    """Table 1, MUNIT on Cityscapes: Adam 1e-4 halved after each tenth.

    Published: mAP 16.9, pixAcc 56.5, classAcc 22.5, FID 91.4. 1,000,000 images, about 53 hours at 10 TFLOP/s.
    """
    return _munit(folder, seed)


def cityscapes_cut(folder: Path, seed: int = 0) -> RunConfig:
    """Table 1, CUT on Cityscapes: 400 epochs, N = 256.

    Published: mAP 24.7, pixAcc 68.8, classAcc 30.7, FID 56.4. 1,190,000 images, about 42 hours at 10 TFLOP/s.
    """
    return _baseline("cut", folder, seed, CUTConfig())


def cityscapes_fsesim(folder: Path, seed: int = 0) -> RunConfig:
    """Table 1, FSeSim on Cityscapes: 400 epochs; needs VGG16's weights (setting vgg16_weights).

    Published: mAP 22.1, pixAcc 69.4, classAcc 27.8, FID 54.3. 1,190,000 images, about 19 hours at 10 TFLOP/s.
    """
    return _baseline("fsesim", folder, seed, FSeSimConfig())


def cityscapes_qs_attn_global(folder: Path, seed: int = 0) -> RunConfig:
    """Table 1, QS-Attn Global on Cityscapes: 400 epochs, N = 256.

    Published: mAP 25.5, pixAcc 79.9, classAcc 31.2, FID 53.5. 1,190,000 images, about 44 hours at 10 TFLOP/s.
    """
    return qs_attn_run(folder, seed, attention="global")


def cityscapes_qs_attn_local(folder: Path, seed: int = 0) -> RunConfig:
    """Table 1, QS-Attn Local on Cityscapes: 400 epochs, N = 256, windows of 7 x 7.

    Published: mAP 26.2, pixAcc 80.5, classAcc 31.9, FID 48.8. 1,190,000 images, about 43 hours at 10 TFLOP/s.
    """
    return qs_attn_run(folder, seed, attention="local")


def cityscapes_qs_attn_local_global(folder: Path, seed: int = 0) -> RunConfig:
    """Table 1, QS-Attn Local+Global on Cityscapes: 400 epochs, N = 256, windows of 7 x 7.

    Published: mAP 27.9, pixAcc 81.4, classAcc 32.6, FID 50.2. 1,190,000 images, about 44 hours at 10 TFLOP/s.
    """
    return qs_attn_run(folder, seed, attention="local_global")


# ---------------------------------------------------------------------------------------------------------------------
# Cat -> Dog: 5,153 images an epoch
# ---------------------------------------------------------------------------------------------------------------------
def cat2dog_cyclegan(folder: Path, seed: int = 0) -> RunConfig:
    """Table 1, CycleGAN on Cat -> Dog: 200 epochs, cycle 10, identity 5, pools of 50.

    Published: SWD 19.5, FID 85.9. 1,030,600 images, about 54 hours at 10 TFLOP/s.
    """
    return _baseline("cyclegan", folder, seed, CycleGANConfig())


def cat2dog_munit(folder: Path, seed: int = 0) -> RunConfig:
    """Table 1, MUNIT on Cat -> Dog: Adam 1e-4 halved after each tenth.

    Published: SWD 24.4, FID 104.4. 1,000,000 images, about 53 hours at 10 TFLOP/s.
    """
    return _munit(folder, seed)


def cat2dog_cut(folder: Path, seed: int = 0) -> RunConfig:
    """Table 1, CUT on Cat -> Dog: 400 epochs, N = 256.

    Published: SWD 12.9, FID 76.2. 2,061,200 images, about 74 hours at 10 TFLOP/s.
    """
    return _baseline("cut", folder, seed, CUTConfig())


def cat2dog_fsesim(folder: Path, seed: int = 0) -> RunConfig:
    """Table 1, FSeSim on Cat -> Dog: 400 epochs; needs VGG16's weights (setting vgg16_weights).

    Published: SWD 13.8, FID 87.8. 2,061,200 images, about 33 hours at 10 TFLOP/s.
    """
    return _baseline("fsesim", folder, seed, FSeSimConfig())


def cat2dog_qs_attn_global(folder: Path, seed: int = 0) -> RunConfig:
    """Table 1, QS-Attn Global on Cat -> Dog: 400 epochs, N = 256.

    Published: SWD 12.8, FID 72.8. 2,061,200 images, about 75 hours at 10 TFLOP/s.
    """
    return qs_attn_run(folder, seed, attention="global")


def cat2dog_qs_attn_local(folder: Path, seed: int = 0) -> RunConfig:
    """Table 1, QS-Attn Local on Cat -> Dog: 400 epochs, N = 256, windows of 7 x 7.

    Published: SWD 13.3, FID 79.3. 2,061,200 images, about 74 hours at 10 TFLOP/s.
    """
    return qs_attn_run(folder, seed, attention="local")


def cat2dog_qs_attn_local_global(folder: Path, seed: int = 0) -> RunConfig:
    """Table 1, QS-Attn Local+Global on Cat -> Dog: 400 epochs, N = 256, windows of 7 x 7.

    Published: SWD 13.2, FID 80.0. 2,061,200 images, about 75 hours at 10 TFLOP/s.
    """
    return qs_attn_run(folder, seed, attention="local_global")


# ---------------------------------------------------------------------------------------------------------------------
# Horse -> Zebra: 1,334 images an epoch
# ---------------------------------------------------------------------------------------------------------------------
def horse2zebra_cyclegan(folder: Path, seed: int = 0) -> RunConfig:
    """Table 1, CycleGAN on Horse -> Zebra: 200 epochs, cycle 10, identity 5, pools of 50.

    Published: SWD 39.1, FID 77.2. 266,800 images, about 14 hours at 10 TFLOP/s.
    """
    return _baseline("cyclegan", folder, seed, CycleGANConfig())


def horse2zebra_munit(folder: Path, seed: int = 0) -> RunConfig:
    """Table 1, MUNIT on Horse -> Zebra: Adam 1e-4 halved after each tenth.

    Published: SWD 50.7, FID 133.8. 1,000,000 images, about 53 hours at 10 TFLOP/s.
    """
    return _munit(folder, seed)


def horse2zebra_cut(folder: Path, seed: int = 0) -> RunConfig:
    """Table 1, CUT on Horse -> Zebra: 400 epochs, N = 256.

    Published: SWD 31.5, FID 45.5. 533,600 images, about 19 hours at 10 TFLOP/s.
    """
    return _baseline("cut", folder, seed, CUTConfig())


def horse2zebra_fsesim(folder: Path, seed: int = 0) -> RunConfig:
    """Table 1, FSeSim on Horse -> Zebra: 400 epochs; needs VGG16's weights (setting vgg16_weights).

    Published: SWD 37.2, FID 43.4. 533,600 images, about 8 hours at 10 TFLOP/s.
    """
    return _baseline("fsesim", folder, seed, FSeSimConfig())


def horse2zebra_qs_attn_global(folder: Path, seed: int = 0) -> RunConfig:
    """Table 1, QS-Attn Global on Horse -> Zebra: 400 epochs, N = 256.

    Published: SWD 30.3, FID 41.1. 533,600 images, about 20 hours at 10 TFLOP/s.
    """
    return qs_attn_run(folder, seed, attention="global")


def horse2zebra_qs_attn_local(folder: Path, seed: int = 0) -> RunConfig:
    """Table 1, QS-Attn Local on Horse -> Zebra: 400 epochs, N = 256, windows of 7 x 7.

    Published: SWD 31.2, FID 38.6. 533,600 images, about 19 hours at 10 TFLOP/s.
    """
    return qs_attn_run(folder, seed, attention="local")


def horse2zebra_qs_attn_local_global(folder: Path, seed: int = 0) -> RunConfig:
    """Table 1, QS-Attn Local+Global on Horse -> Zebra: 400 epochs, N = 256, windows of 7 x 7.

    Published: SWD 31.9, FID 42.3. 533,600 images, about 20 hours at 10 TFLOP/s.
    """
    return qs_attn_run(folder, seed, attention="local_global")
