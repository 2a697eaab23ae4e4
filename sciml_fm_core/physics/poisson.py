"""SYS-1, Poisson's equation with a constant diffusion tensor."""

from __future__ import annotations

from types import MappingProxyType

import torch

from .diffusion import (
    DIFFUSION_FEATURES,
    PRINCIPAL_AXIS,
    check_positive_definite,
    diffusion_features,
    diffusion_symbol,
    eigenvalue_radius,
    elliptic_bounds,
    mean_diffusion,
    rotated_diffusion,
    tensor_in_latex,
)
from .parameter import Parameter
from .spectral_system import SpectralSystem
from .symmetries import Geometry


class Poisson(SpectralSystem):
    """SYS-1, ``-div(K grad u) = f``; dial: the eigenvalue e of K / 0.01, the other eigenvalue being 1."""

    name = "poisson"
    label = "SYS-1"
    title = "Poisson"
    equation = r"-\nabla \cdot (K \nabla u) = f"
    coefficient_names = ("k11", "k22", "k12")
    dialled = Parameter(
        "eigenvalue",
        1,
        20,
        start=3,
        label="Eigenvalue e of the diffusion tensor",
        help="Ratio of the eigenvalues of K: how much faster diffusion is along its principal axis.",
        step=0.1,
        minimum=1,
    )
    shifts = MappingProxyType(
        {"pre-training": (1, 5), "none": (1, 2.5), "mild": (2.5, 7.5), "medium": (5, 10), "large": (10, 20)}
    )
    parameters = (PRINCIPAL_AXIS,)
    zero_mean = True
    positive = True
    geometry = Geometry(tensors=(("k11", "k22", "k12"),))

    def symbol(self, coefficients, n):
        return diffusion_symbol(coefficients, n)

    def preconditioner(self, coefficients, n):
        """See `mean_diffusion`."""
        return mean_diffusion(coefficients, n)

    def symbol_bounds(self, coefficients, n):
        """Spectral equivalence with the Laplacian: the eigenvalues of K times ``4 pi^2 |k|^2``."""
        return elliptic_bounds(coefficients, n)

    def dial(self, source, coefficients):
        """Ratio of the eigenvalues of K, at least 1."""
        k11, k22, k12 = coefficients.double().unbind(-1)
        mean, radius = (k11 + k22) / 2, eigenvalue_radius(k11, k22, k12)
        return ((mean + radius) / (mean - radius)).to(coefficients.dtype)

    def coefficients(self, dial, source, parameters):
        return rotated_diffusion(dial, parameters[..., 0])

    def on_square(self, source, coefficients, side):
        return source, coefficients / side**2

    def check_coefficients(self, coefficients):
        check_positive_definite(coefficients, self.name)

    @property
    def feature_names(self):
        return DIFFUSION_FEATURES

    def features(self, coefficients):
        return diffusion_features(coefficients)

    def scale(self, coefficients):
        return 4 * torch.pi**2 * (coefficients[..., 0] + coefficients[..., 1]) / 2

    def equation_with(self, coefficients):
        return rf"{self.equation},\quad {tensor_in_latex(coefficients)}"
