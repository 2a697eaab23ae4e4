"""Grids of runs, their records, and what the records show."""

from .records import read_table, write_table
from .runs import AdaptationRun, PretrainingRun, run_study

__all__ = ["AdaptationRun", "PretrainingRun", "read_table", "run_study", "write_table"]
