"""Evolutions without a rest, which cost nothing: advection-diffusion, dispersion, hyper-diffusion."""

from __future__ import annotations

from typing import ClassVar

import torch

from sciml_fm_core.physics.parameter import Parameter
from sciml_fm_core.physics.spectral import advection_symbol, derivative_wavenumbers, laplacian
from sciml_fm_core.physics.symmetries import Geometry

from .states import FromSmoothStates

EXCHANGED = (0, 1)
"""The symmetries of the square that exchange x and y, and mirror nothing."""


class AdvectionDiffusionInTime(FromSmoothStates):
    """``du/dt + c . grad u = nu lap u``; dial: the viscosity nu."""

    name = "advection_diffusion_in_time"
    label = "ADVDIFF"
    title = "Advection and diffusion in time"
    equation = r"\partial_t u + c \cdot \nabla u = \nu\, \Delta u"
    coefficient_names = ("nu", "cx", "cy", "time")
    dialled = Parameter("nu", 1e-4, 0.03, start=1e-3, label="Viscosity ν", logarithmic=True, log_uniform=True)
    parameters = (Parameter("cx", -0.5, 0.5), Parameter("cy", -0.5, 0.5))
    constants: ClassVar = {"time": 0.5}
    shifts: ClassVar = {"pre-training": (3e-4, 3e-3), "faster": (3e-3, 0.03)}
    geometry = Geometry(vectors=(("cx", "cy"),))

    def symbol(self, coefficients, n):
        diffusion = coefficients[..., 0, None, None] * laplacian(n, like=coefficients)
        return torch.complex(diffusion, advection_symbol(coefficients[..., 1:3], n).expand(diffusion.shape))


class Dispersion(FromSmoothStates):
    """``du/dt = xi (d^3/dx^3 + d^3/dy^3) u``; dial: xi. Waves travel, short ones faster, and none decays.

    Koehler et al. (2024), APEBench, arXiv:2411.00180.
    """

    name = "dispersion"
    label = "DISP"
    title = "Dispersion"
    equation = r"\partial_t u = \xi\, (\partial_x^3 + \partial_y^3)\, u"
    coefficient_names = ("dispersivity", "time")
    dialled = Parameter(
        "dispersivity", 1e-5, 3e-4, start=6e-5, label="Dispersivity ξ", logarithmic=True, log_uniform=True
    )
    constants: ClassVar = {"time": 0.5}
    shifts: ClassVar = {"pre-training": (2e-5, 1e-4), "faster": (1e-4, 3e-4)}
    geometry = Geometry()
    kept_by = EXCHANGED

    def symbol(self, coefficients, n):
        kx, ky = derivative_wavenumbers(n, dtype=coefficients.dtype, device=coefficients.device)
        cubes = (2 * torch.pi) ** 3 * (kx**3 + ky**3) * coefficients[..., 0, None, None]
        return torch.complex(torch.zeros_like(cubes), cubes)


class HyperDiffusion(FromSmoothStates):
    """``du/dt = -mu lap^2 u``; dial: mu.

    Koehler et al. (2024), APEBench, arXiv:2411.00180.
    """

    name = "hyper_diffusion"
    label = "HYPER"
    title = "Hyper-diffusion"
    equation = r"\partial_t u = -\mu\, \Delta^2 u"
    coefficient_names = ("hyper_diffusivity", "time")
    dialled = Parameter(
        "hyper_diffusivity", 3e-7, 3e-5, start=3e-6, label="Hyper-diffusivity μ", logarithmic=True, log_uniform=True
    )
    constants: ClassVar = {"time": 0.5}
    shifts: ClassVar = {"pre-training": (1e-6, 1e-5), "stronger": (1e-5, 3e-5)}
    geometry = Geometry()

    def symbol(self, coefficients, n):
        return coefficients[..., 0, None, None] * laplacian(n, like=coefficients).square()
