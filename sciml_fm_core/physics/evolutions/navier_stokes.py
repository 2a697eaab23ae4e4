"""Active scalars, from surface quasi-geostrophy to the Navier-Stokes equations of two dimensions in vorticity.

The velocity is ``v = s rot psi = s (d psi / dy, -d psi / dx)`` with the stream function
``psi = c(a) (-lap)^(-a / 2) u``. At a = 1 it is that of surface quasi-geostrophy, at a = 2 u is the vorticity of a
fluid. The factor c makes the velocity of waves with |k| = 2 the same for every a.
"""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor

from sciml_fm_core.physics.evolution import derivatives, fields_of
from sciml_fm_core.physics.parameter import Parameter
from sciml_fm_core.physics.spectral import laplacian
from sciml_fm_core.physics.symmetries import Geometry

from .states import FromSmoothStates, smooth_states

SAME = 4 * 4 * torch.pi**2
"""Laplacian of the waves whose velocity is the same for every exponent: those with |k| = 2."""

VISCOSITY = Parameter("nu", 1e-5, 0.01, start=1e-3, label="Viscosity ν", logarithmic=True, log_uniform=True)
STRENGTH = Parameter("strength", 0.8, 1.6, label="Strength of the flow")


def advected(state_hat: Tensor, strength: Tensor, exponent: Tensor) -> Tensor:
    """Fourier coefficients of ``-v . grad u`` from those of u (..., n, n // 2 + 1).

    Args:
        state_hat: of a field u.
        strength: s, shape (...).
        exponent: a, shape (...).
    """
    n = state_hat.shape[-2]
    size = laplacian(n, like=state_hat.real)
    size[0, 0] = 1
    stream = size ** (-exponent[..., None, None] / 2) * SAME ** (exponent[..., None, None] / 2 - 1)
    stream[..., 0, 0] = 0
    along_x, along_y = derivatives(state_hat)
    u_x, u_y, psi_x, psi_y = fields_of(along_x, along_y, stream * along_x, stream * along_y)
    return torch.fft.rfft2((psi_x * u_y - psi_y * u_x) * strength[..., None, None])


ROTATIONS = (0, 3, 5, 6)
"""The symmetries of the square that are rotations: a mirror turns the sign of what rotates, see `symmetries`."""


class _Flow(FromSmoothStates):
    geometry = Geometry()
    keeps_mean = True
    kept_by: ClassVar[tuple[int, ...]] = ROTATIONS

    def symbol(self, coefficients, n):
        nu = coefficients[..., self.coefficient_names.index("nu"), None, None]
        return nu * laplacian(n, like=coefficients)


class ActiveScalar(_Flow):
    """``du/dt + v . grad u = nu lap u`` with ``v = s rot (-lap)^(-a / 2) u``; dial: the exponent a."""

    name = "active_scalar"
    label = "SCALAR"
    title = "Active scalar"
    equation = r"\partial_t u + v \cdot \nabla u = \nu\, \Delta u,\quad v = s\, \mathrm{rot}\, (-\Delta)^{-a/2} u"
    coefficient_names = ("exponent", "nu", "strength", "time")
    dialled = Parameter(
        "exponent", 0.5, 2, start=1, label="Exponent a", help="1: surface quasi-geostrophy; 2: a fluid."
    )
    parameters = (Parameter("nu", 3e-4, 3e-3, logarithmic=True, log_uniform=True), Parameter("strength", 0.5, 2))
    constants: ClassVar = {"time": 0.5}
    shifts: ClassVar = {"pre-training": (0.5, 1.5), "fluids": (1.5, 2)}

    def rest(self, state_hat, coefficients):
        return advected(state_hat, coefficients[..., 2], coefficients[..., 0])


class NavierStokes(_Flow):
    """``dw/dt + v . grad w = nu lap w`` for the vorticity w of a fluid in two dimensions; dial: the viscosity nu."""

    name = "navier_stokes"
    label = "NS"
    title = "Navier-Stokes"
    equation = (
        r"\partial_t \omega + v \cdot \nabla \omega = \nu\, \Delta \omega,"
        r"\quad v = s\, \mathrm{rot}\, (-\Delta)^{-1} \omega"
    )
    coefficient_names = ("nu", "strength", "time")
    dialled = VISCOSITY
    parameters = (STRENGTH,)
    constants: ClassVar = {"time": 0.5}
    shifts: ClassVar = {"medium": (3e-4, 3e-3), "large": (1e-4, 3e-4)}

    def rest(self, state_hat, coefficients):
        return advected(state_hat, coefficients[..., 1], torch.full_like(coefficients[..., 0], 2))


class ForcedNavierStokes(_Flow):
    """``dw/dt + v . grad w = nu lap w + f`` with ``f = 0.1 (sin 2 pi (x + y) + cos 2 pi (x + y))``; dial: nu.

    States are of a size between that at which Li et al. begin (0.2) and those of their times 10 to 50.

    Li et al. (2021), Fourier neural operator for parametric partial differential equations, arXiv:2010.08895.
    """

    name = "forced_navier_stokes"
    label = "NSF"
    title = "Forced Navier-Stokes"
    equation = (
        r"\partial_t \omega + v \cdot \nabla \omega = \nu\, \Delta \omega"
        r" + a\, (\sin 2 \pi (x + y) + \cos 2 \pi (x + y))"
    )
    coefficient_names = ("nu", "forcing", "time")
    dialled = Parameter("nu", 5e-6, 2e-3, start=1e-3, label="Viscosity ν", logarithmic=True, log_uniform=True)
    constants: ClassVar = {"forcing": 0.1, "time": 1.0}
    largest_step = 0.02
    shifts: ClassVar = {"pre-training": (5e-4, 2e-3), "medium": (5e-5, 2e-4), "large": (5e-6, 2e-5)}
    kept_by = (0,)  # the forcing has a direction

    def rest(self, state_hat, coefficients):
        one = torch.ones_like(coefficients[..., 0])
        change = advected(state_hat, one, 2 * one)
        n = state_hat.shape[-2]
        # sin t + cos t = Re((1 - i) exp(i t)), half of which is stored
        change[..., 1, 1] += coefficients[..., 1] * n**2 * (0.5 - 0.5j)
        return change

    def draw(self, dial, parameters, grid, generator):
        size = torch.rand(len(dial), 1, 1, generator=generator, device=generator.device, dtype=torch.float64)
        return (0.2 + 1.8 * size) * smooth_states(len(dial), grid, generator, inverse_length=7.0)
