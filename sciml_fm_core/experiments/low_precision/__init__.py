"""What do fewer bits cost: the method, and the runs that measure it."""

from . import method, runs

__all__ = ["method", "runs"]
