"""Methods: one paper, one file; adding one is a file, a row here and a run in ``runs.py``."""

from unpaired.methods.base import PLAIN, ImageBatch, Method, OptimiserConfig, Phase, Wish, image_seeds
from unpaired.methods.cut import CUT, FastCUT
from unpaired.methods.qs_attn import QSAttn

METHODS: dict[str, type[Method]] = {
    "qs_attn": QSAttn,
    "cut": CUT,
    "fastcut": FastCUT,
}

__all__ = ["METHODS", "PLAIN", "ImageBatch", "Method", "OptimiserConfig", "Phase", "Wish", "image_seeds"]
