"""Does an operator know where it is wrong: ensembles and other spreads, how they are calibrated, and the runs."""

from . import ensemble, method, operators, runs  # noqa: F401 - registers them
