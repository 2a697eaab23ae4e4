"""Convergence of answers under refinement, which tells an operator from a table of one grid or step of time."""

from . import method, runs  # noqa: F401 - registers them
