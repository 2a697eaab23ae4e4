"""Screened Poisson's equation: a source that spreads by diffusion while it decays everywhere."""

from __future__ import annotations

from types import MappingProxyType

import torch

from .diffusion import DIFFUSION_FEATURES, DIFFUSIVITY
from .parameter import Parameter
from .spectral import laplacian
from .spectral_system import SpectralSystem
from .symmetries import Geometry


class ScreenedPoisson(SpectralSystem):
    """``c u - 0.01 lap u = f``, that is ``c + 0.01 * 4 pi^2 |k|^2`` on mode k; dial: the screening c.

    It is SYS-3 with ``omega = -c``: nothing oscillates, and the influence of a source falls off over a length
    ``sqrt(0.01 / c)``. The mean of the source is kept, and that of the solution is ``mean(f) / c``.
    """

    name = "screened_poisson"
    label = "SCREENED"
    title = "Screened Poisson"
    equation = r"c\,u - d\,\Delta u = f"
    coefficient_names = ("diffusivity", "screening")
    constants = MappingProxyType({"diffusivity": DIFFUSIVITY})
    dialled = Parameter(
        "screening",
        0.1,
        5,
        start=1,
        label="Screening c",
        help="How fast u decays everywhere: the larger, the shorter the distance over which a source is felt.",
        logarithmic=True,
    )
    shifts = MappingProxyType({"weak": (0.1, 1), "strong": (1, 5), "whole": (0.1, 5)})
    zero_mean = False
    positive = True
    above_zero = ("diffusivity", "screening")
    geometry = Geometry()

    def symbol(self, coefficients, n):
        diffusivity, screening = coefficients[..., None, None].unbind(-3)
        return diffusivity * laplacian(n, like=coefficients) + screening

    def symbol_bounds(self, coefficients, n):
        """At least the larger one of diffusion and screening, at most twice that."""
        diffusivity, screening = coefficients[..., None, None].unbind(-3)
        low = torch.maximum(diffusivity * laplacian(n, like=coefficients), screening)
        return low, 2 * low

    def on_square(self, source, coefficients, side):
        return source, coefficients / coefficients.new_tensor([side**2, 1])

    @property
    def feature_names(self):
        return (*DIFFUSION_FEATURES, "resonance")

    def features(self, coefficients):
        """An isotropic K, and ``-c / (4 pi^2 d)``: as for SYS-3 with ``omega = -c``."""
        diffusivity, screening = coefficients.unbind(-1)
        zero = torch.zeros_like(screening)
        return torch.stack([zero, zero, zero + 1, -screening / (4 * torch.pi**2 * diffusivity)], dim=-1)

    def scale(self, coefficients):
        return 4 * torch.pi**2 * coefficients[..., 0]

    def equation_with(self, coefficients):
        return rf"{coefficients['screening']:.3g}\,u - {coefficients['diffusivity']:.3g}\,\Delta u = f"
