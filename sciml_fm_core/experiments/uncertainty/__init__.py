"""Uncertainty of predictions: ensembles and other spreads, their calibration, and the runs that measure them."""

from . import ensemble, method, operators, runs  # noqa: F401 - registers them
