"""Scores of translated images: tensors in [-1, 1] in, floats out, the protocol in each value's name."""

from unpaired.metrics.evaluate import METRICS, Measured, Metric, Score, evaluate_images
from unpaired.metrics.paired import paired_l1, paired_psnr, paired_ssim
from unpaired.metrics.swd import swd_progan

__all__ = [
    "METRICS",
    "Measured",
    "Metric",
    "Score",
    "evaluate_images",
    "paired_l1",
    "paired_psnr",
    "paired_ssim",
    "swd_progan",
]
