"""Grids of runs, their records, and what the records show."""

from .experiments import EXPERIMENTS
from .measured import MeasuredRun
from .records import read_table, write_table
from .registry import experiment, results
from .runs import AdaptationRun, PretrainingRun, run_study

__all__ = [
    "EXPERIMENTS",
    "AdaptationRun",
    "MeasuredRun",
    "PretrainingRun",
    "experiment",
    "read_table",
    "results",
    "run_study",
    "write_table",
]
