"""Did a network learn the operator, or a table of its grid or step of time: the method, and runs that measure it."""

from . import method, runs  # noqa: F401 - registers them
