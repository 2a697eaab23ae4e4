"""Forecasts of where an operator is off: the method, and the runs that measure it."""

from . import method, runs  # noqa: F401 - registers them
