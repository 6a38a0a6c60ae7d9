"""Runs that the paper's tables do not hold: other baselines with their papers' settings, and its open question.

256 px, batch 1; hours as in ``table1``. Published FID on Horse -> Zebra where the method's own paper reports it; each
is the best that its authors found, so none can be compared with another's.
"""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

from unpaired.engine.trainer import TrainingConfig
from unpaired.methods import METHODS
from unpaired.training import DatasetConfig, RunConfig


def _defaults(method: str, folder: Path, seed: int, **settings: Any) -> RunConfig:
    model = METHODS[method].Config(**settings)
    return RunConfig(method, DatasetConfig(folder=folder), model=model, training=TrainingConfig(seed=seed))


def fastcut(folder: Path, seed: int = 0) -> RunConfig:
    """FastCUT with the settings of the CUT paper: 200 epochs, no identity pass, mirrored inputs.

    Published: FID 73.4 on Horse -> Zebra. 266,800 images there, about 6 hours at 10 TFLOP/s.
    """
    return _defaults("fastcut", folder, seed)


def sincut(folder: Path, seed: int = 0) -> RunConfig:
    """SinCUT: one picture per domain, crops of 64 pixels from zooms of it, batches of 16.

    The folder holds one image in trainA and one in trainB. Published: a figure, no score. 1,600,000 crops (16 epochs of
    100,000); a step of 16 crops is 1,126 GFLOP, so about 3 hours at 10 TFLOP/s.
    """
    training = TrainingConfig(seed=seed, batch_size=16)
    return RunConfig("sincut", DatasetConfig(folder=folder), training=training)


def lsesim(folder: Path, seed: int = 0) -> RunConfig:
    """LSeSim: FSeSim with learned maps; needs VGG16's weights (setting vgg16_weights).

    No published score of this setting in the QS-Attn paper. 400 epochs; about as many hours as FSeSim in ``table1``.
    """
    return _defaults("lsesim", folder, seed)


def monce(folder: Path, seed: int = 0) -> RunConfig:
    """MoNCE: CUT with negatives weighted by an optimal-transport plan.

    The settings are those of its script for Horse -> Zebra, batches of 12 among them. Published: FID 41.9 on Horse ->
    Zebra, by its own paper. 400 epochs; about the hours of CUT in ``table1``.
    """
    run = _defaults("monce", folder, seed, transport_temperature=0.1)
    return dataclasses.replace(run, training=dataclasses.replace(run.training, batch_size=12))


def hneg_src(folder: Path, seed: int = 0) -> RunConfig:
    """Hneg-SRC: semantic relation consistency and a decoupled contrast with hard negatives.

    Published: FID 34.4 on Horse -> Zebra, by its own paper. 400 epochs; about the hours of CUT in ``table1``.
    """
    return _defaults("hneg_src", folder, seed)


def enco(folder: Path, seed: int = 0) -> RunConfig:
    """EnCo: the decoder agrees with the encoder of its own pass, at patches that the discriminator doubts.

    The settings are those of its script. No published score could be checked here. 200 epochs without a second
    encoding; about a third of the hours of CUT in ``table1``.
    """
    return _defaults("enco", folder, seed)


def santa(folder: Path, seed: int = 0) -> RunConfig:
    """SANTA: a decoder for every place on the path between two domains, and a short path.

    The settings are the defaults of its code. No published score could be checked here. 400 epochs; about the hours of
    CUT in ``table1``.
    """
    return _defaults("santa", folder, seed)


def dclgan(folder: Path, seed: int = 0) -> RunConfig:
    """DCLGAN: two directions, two projectors, dual contrast.

    Published: FID 43.2 on Horse -> Zebra, by its own paper. 400 epochs; two to three times the hours of CUT.
    """
    return _defaults("dclgan", folder, seed)


def cyclegan_qs_attn(folder: Path, seed: int = 0) -> RunConfig:
    """Open question: CycleGAN + QS-Attn, cycle and identity kept, selected contrast in both directions.

    No published score: Appendix A of the paper leaves it open. 200 epochs; more hours than CycleGAN in ``table1``.
    """
    return _defaults("cyclegan_qs_attn", folder, seed)


def dclgan_qs_attn(folder: Path, seed: int = 0) -> RunConfig:
    """Open question: DCLGAN + QS-Attn, the dual contrast at selected and routed features.

    No published score: Appendix A of the paper leaves it open. 400 epochs; as many hours as DCLGAN.
    """
    return _defaults("dclgan_qs_attn", folder, seed)


def multi_domain_qs_attn(folder: Path, seed: int = 0) -> RunConfig:
    """Open question: one generator for all directions between several domains.

    The folder holds train/<domain>. No published score: Appendix A of the paper leaves it open. 400 epochs of its own
    kind (every image once as source and once as target); a step costs what one of QS-Attn costs, so hours follow from
    the number of images.
    """
    dataset = DatasetConfig(domains=folder)
    return RunConfig("multi_domain_qs_attn", dataset, training=TrainingConfig(seed=seed))
