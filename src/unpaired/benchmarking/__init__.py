"""Methods x data x seeds from one file: planned, run one process per device slot, resumed, and put into tables."""

from unpaired.benchmarking.cells import Cell, compose
from unpaired.benchmarking.lock import locked
from unpaired.benchmarking.matrix import Matrix, load_matrix
from unpaired.benchmarking.plan import Plan, Run
from unpaired.benchmarking.results import write_reports, write_tables
from unpaired.benchmarking.schedule import Outcome, Schedule
from unpaired.benchmarking.state import Stage, stage_of

__all__ = [
    "Cell",
    "Matrix",
    "Outcome",
    "Plan",
    "Run",
    "Schedule",
    "Stage",
    "compose",
    "load_matrix",
    "locked",
    "stage_of",
    "write_reports",
    "write_tables",
]
