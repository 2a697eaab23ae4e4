"""Side studies, one file or folder each: the method, the runs, the figure. The folders below import none of them.

Importing this package registers them all, see `study.registry`.
"""

from . import (  # noqa: F401 - registers them
    architectures,
    convergence,
    error_bounds,
    learned_symbol,
    low_precision,
    physics_loss,
    ranks,
    released,
    shipped,
    training_range,
    uncertainty,
    unsupervised,
    weight_spectra,
)
