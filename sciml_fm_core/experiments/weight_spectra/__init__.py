"""Do the spectra of the weights tell of the error: the method, and the runs that measure it."""

from . import method, runs  # noqa: F401 - registers them
