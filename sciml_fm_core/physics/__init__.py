"""What is solved: Fourier calculus, sources, systems of PDEs, and tasks that draw solved examples of them."""

# Importing a system registers it: those of the paper in its order, then equations that no operator is trained on.
from . import poisson, advection_diffusion, helmholtz  # noqa: F401, I001
from . import fractional_laplacian, screened_poisson, biharmonic_advection  # noqa: F401
from . import variable_diffusion, variable_advection  # noqa: F401 - whose coefficients are fields
from . import evolutions  # noqa: F401 - states in time
from . import reflection  # noqa: F401 - boundaries, as variants of them
