"""Methods: one paper, one file; adding one is a file, a row here and a run in ``runs.py``."""

from unpaired.methods.base import (
    DEFAULT_REQUEST,
    ImageBatch,
    Method,
    OptimiserConfig,
    Phase,
    TranslateRequest,
    image_seeds,
)
from unpaired.methods.cut import CUT, FastCUT
from unpaired.methods.cyclegan import CycleGAN
from unpaired.methods.cyclegan_qs_attn import CycleGANQSAttn
from unpaired.methods.dclgan import DCLGAN
from unpaired.methods.dclgan_qs_attn import DCLGANQSAttn
from unpaired.methods.enco import EnCo
from unpaired.methods.fsesim import FSeSim, LSeSim
from unpaired.methods.hneg_src import HnegSRC
from unpaired.methods.monce import MoNCE
from unpaired.methods.multi_domain_qs_attn import MultiDomainQSAttn
from unpaired.methods.munit import MUNIT
from unpaired.methods.qs_attn import QSAttn
from unpaired.methods.santa import SANTA
from unpaired.methods.sincut import SinCUT

METHODS: dict[str, type[Method]] = {
    "qs_attn": QSAttn,
    "cut": CUT,
    "fastcut": FastCUT,
    "sincut": SinCUT,
    "cyclegan": CycleGAN,
    "cyclegan_qs_attn": CycleGANQSAttn,
    "dclgan": DCLGAN,
    "dclgan_qs_attn": DCLGANQSAttn,
    "multi_domain_qs_attn": MultiDomainQSAttn,
    "munit": MUNIT,
    "fsesim": FSeSim,
    "lsesim": LSeSim,
    "monce": MoNCE,
    "hneg_src": HnegSRC,
    "enco": EnCo,
    "santa": SANTA,
}

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
