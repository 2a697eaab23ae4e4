"""Learning without labels, or without training: the method, and the runs that measure it."""

from . import in_context, reconstruction, runs  # noqa: F401 - registers them
