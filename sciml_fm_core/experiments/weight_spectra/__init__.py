"""Spectra of the weights, and what they tell of the error: the method, and the runs that measure it."""

from . import method, runs  # noqa: F401 - registers them
