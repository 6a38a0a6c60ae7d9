"""Evaluation: metrics, the networks that they use, and the scores of runs, as values and as kept records.

``registry.py`` says what a metric is; each file of ``metrics/`` registers its own.
"""

from unpaired.evaluation import metrics as _metrics  # noqa: F401 - fills METRICS
from unpaired.evaluation.evaluator import Evaluator, HeldOutScorer
from unpaired.evaluation.image_files import evenly_spaced, in_colour
from unpaired.evaluation.metrics.paired import paired_l1, paired_psnr, paired_ssim
from unpaired.evaluation.metrics.swd import swd_progan
from unpaired.evaluation.metrics.unchanged import Change, change_where_kept, kept_outside, mask_of_boxes
from unpaired.evaluation.registry import METRICS, ImageSets, Metric, Score, evaluate_images, known_metrics, metric
from unpaired.evaluation.runs import (
    FORMAT,
    LABELS,
    REFERENCES,
    Evaluation,
    append_record,
    best_record,
    evaluate,
    evaluate_made,
    evaluate_run,
    record,
)
from unpaired.evaluation.scoring_networks import FeatureCache, ScoringNetworks, register_network

__all__ = [
    "FORMAT",
    "LABELS",
    "METRICS",
    "REFERENCES",
    "Change",
    "Evaluation",
    "Evaluator",
    "FeatureCache",
    "HeldOutScorer",
    "ImageSets",
    "Metric",
    "Score",
    "ScoringNetworks",
    "append_record",
    "best_record",
    "change_where_kept",
    "evaluate",
    "evaluate_images",
    "evaluate_made",
    "evaluate_run",
    "evenly_spaced",
    "in_colour",
    "kept_outside",
    "known_metrics",
    "mask_of_boxes",
    "metric",
    "paired_l1",
    "paired_psnr",
    "paired_ssim",
    "record",
    "register_network",
    "swd_progan",
]
