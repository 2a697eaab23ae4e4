"""Grids of runs, their records, and what the records show."""

from .custom import CustomRun
from .records import read_table, write_table
from .registry import experiment, results
from .runs import AdaptationRun, PretrainingRun, run_study

MeasuredRun = CustomRun  # its former name

__all__ = [
    "AdaptationRun",
    "CustomRun",
    "MeasuredRun",
    "PretrainingRun",
    "experiment",
    "read_table",
    "results",
    "run_study",
    "write_table",
]
