"""Scores of translated images: tensors in [-1, 1] in, floats out, the protocol in each value's name."""

from unpaired.metrics.evaluate import evaluate_images, known_metrics, possible_metrics, why_not
from unpaired.metrics.paired import paired_l1, paired_psnr, paired_ssim
from unpaired.metrics.sets import ImageSets, Measured, Metric, Score
from unpaired.metrics.swd import swd_progan
from unpaired.metrics.table import METRICS
from unpaired.metrics.unchanged import Change, blank_paper, change_where_kept, kept_outside, mask_of_boxes

__all__ = [
    "METRICS",
    "Change",
    "ImageSets",
    "Measured",
    "Metric",
    "Score",
    "blank_paper",
    "change_where_kept",
    "evaluate_images",
    "kept_outside",
    "known_metrics",
    "mask_of_boxes",
    "paired_l1",
    "paired_psnr",
    "paired_ssim",
    "possible_metrics",
    "swd_progan",
    "why_not",
]
