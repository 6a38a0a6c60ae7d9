"""Several runs in one table, from the records in their folders: nothing is translated or scored here."""

from unpaired.comparison.figures import footnotes
from unpaired.comparison.formats import (
    score_block,
    to_csv,
    to_json,
    to_markdown,
    training_csv,
    training_markdown,
)
from unpaired.comparison.groups import Group, group_runs
from unpaired.comparison.latex import to_latex
from unpaired.comparison.over_training import TrainingTable, training_series, training_table
from unpaired.comparison.records import training_scores
from unpaired.comparison.table import Column, Comparison, Row, Value, collect

__all__ = [
    "Column",
    "Comparison",
    "Group",
    "Row",
    "TrainingTable",
    "Value",
    "collect",
    "footnotes",
    "group_runs",
    "score_block",
    "to_csv",
    "to_json",
    "to_latex",
    "to_markdown",
    "training_csv",
    "training_markdown",
    "training_scores",
    "training_series",
    "training_table",
]
