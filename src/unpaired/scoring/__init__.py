"""Scoring of held-out images: files, networks and metrics brought together, in bounded memory."""

from unpaired.scoring.cache import FeatureCache, cache_folder
from unpaired.scoring.evaluator import Evaluator, Paired, Progress
from unpaired.scoring.images import ColourImages, ImageFiles, StoredImages, read_files
from unpaired.scoring.networks import ScoringNetworks

__all__ = [
    "ColourImages",
    "Evaluator",
    "FeatureCache",
    "ImageFiles",
    "Paired",
    "Progress",
    "ScoringNetworks",
    "StoredImages",
    "cache_folder",
    "read_files",
]
