"""Sets of images from their owners' archives or from any folders, checked before training."""

from unpaired.preparation.archives import Source, open_source
from unpaired.preparation.check import NEAR, Part, Report, check_set
from unpaired.preparation.findings import Finding
from unpaired.preparation.official import COLLECTION, OFFICIAL, offer
from unpaired.preparation.plan import Plan, PrepareSettings, Progress
from unpaired.preparation.prepare import Prepared, how_to_get, prepare
from unpaired.preparation.recipes import RECIPES
from unpaired.preparation.summary import lines, parts_table, to_json

__all__ = [
    "COLLECTION",
    "NEAR",
    "OFFICIAL",
    "RECIPES",
    "Finding",
    "Part",
    "Plan",
    "PrepareSettings",
    "Prepared",
    "Progress",
    "Report",
    "Source",
    "check_set",
    "how_to_get",
    "lines",
    "offer",
    "open_source",
    "parts_table",
    "prepare",
    "to_json",
]
