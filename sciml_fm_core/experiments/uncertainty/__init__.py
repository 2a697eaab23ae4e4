"""Does an operator know where it is wrong: the method, and the runs that measure it."""

from . import method, operators, runs

__all__ = ["method", "operators", "runs"]
