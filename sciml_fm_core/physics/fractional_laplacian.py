"""The fractional Laplacian: diffusion by long jumps (s < 1), or ever stiffer towards the bending of a plate (s = 2)."""

from __future__ import annotations

from types import MappingProxyType

import torch
from torch import Tensor

from .diffusion import DIFFUSIVITY
from .parameter import Parameter
from .spectral import laplacian
from .spectral_system import SpectralSystem
from .symmetries import Geometry


class FractionalLaplacian(SpectralSystem):
    """``d (-lap)^s u = f``, that is ``d (4 pi^2 |k|^2)^s`` on mode k; dial: the exponent s.

    The diffusivity ``d = 0.01 (4 pi^2)^(1 - s)`` damps the longest wave, |k| = 1, alike for every s: turning the dial
    changes how much faster shorter waves are damped, and not the size of the solution. At s = 1 the equation is SYS-1
    with an isotropic K.

    >>> from sciml_fm_core.physics.system import SYSTEMS
    >>> half = SYSTEMS["fractional_laplacian"].coefficients(torch.tensor(0.5), torch.zeros(8, 8), torch.zeros(0))
    >>> symbol = SYSTEMS["fractional_laplacian"].symbol(half, 8)
    >>> round(float(symbol[0, 2] / symbol[0, 1]), 4)  # twice the wavenumber
    2.0
    """

    name = "fractional_laplacian"
    label = "FRAC"
    title = "Fractional Laplacian"
    equation = r"d\,(-\Delta)^{s}\,u = f"
    coefficient_names = ("diffusivity", "exponent")
    dialled = Parameter(
        "exponent",
        0.5,
        2,
        start=0.75,
        label="Exponent s",
        help="Waves of wavenumber k are damped as |k| to the power 2 s: s = 1 is diffusion, below it particles jump "
        "far, s = 2 is the bending of a plate.",
        step=0.05,
    )
    shifts = MappingProxyType({"near diffusion": (0.75, 1.5), "whole": (0.5, 2)})
    zero_mean = True
    positive = True
    above_zero = ("diffusivity", "exponent")
    geometry = Geometry()

    def symbol(self, coefficients, n):
        diffusivity, exponent = coefficients[..., None, None].unbind(-3)
        return diffusivity * laplacian(n, like=coefficients) ** exponent

    def symbol_bounds(self, coefficients, n):
        """The operators of the whole orders next to s, which are local, of the same size on the longest wave."""
        longest, exponent = self.scale(coefficients)[..., None, None], coefficients[..., 1, None, None]
        squared = laplacian(n, like=coefficients) / (4 * torch.pi**2)  # |k|^2, at least 1
        return longest * squared ** exponent.floor(), longest * squared ** exponent.ceil()

    def coefficients(self, dial, source, parameters):
        return torch.stack([DIFFUSIVITY * (4 * torch.pi**2) ** (1 - dial), dial], dim=-1)

    @property
    def feature_names(self):
        return ("exponent",)

    def features(self, coefficients):
        return coefficients[..., 1:]

    def scale(self, coefficients: Tensor) -> Tensor:
        """The symbol of the longest wave."""
        diffusivity, exponent = coefficients.unbind(-1)
        return diffusivity * (4 * torch.pi**2) ** exponent

    def equation_with(self, coefficients):
        return rf"{coefficients['diffusivity']:.3g}\,(-\Delta)^{{{coefficients['exponent']:.3g}}}\,u = f"
