"""What is solved: Fourier calculus, sources, systems of PDEs, and tasks that draw solved examples of them."""

from . import poisson, advection_diffusion, helmholtz  # noqa: F401, I001 - registers them, in the order of the paper
