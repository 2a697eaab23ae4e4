"""Darcy flow, data that nobody here made: the method, and the runs that measure it."""

from . import method, runs  # noqa: F401 - registers them
