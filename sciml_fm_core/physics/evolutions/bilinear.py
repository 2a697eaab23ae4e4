"""A broad family of flows to pre-train on: states that carry themselves, in more ways than any equation with a name."""

from __future__ import annotations

from typing import ClassVar

import torch

from sciml_fm_core.physics.evolution import derivatives, fields_of
from sciml_fm_core.physics.parameter import Parameter
from sciml_fm_core.physics.spectral import advection_symbol, laplacian

from .navier_stokes import SAME
from .states import FromSmoothStates


class Bilinear(FromSmoothStates):
    """``du/dt + c . grad u + v . grad u + div(b u^2) / 2 = nu lap u``; dial: the exponent a.

    The velocity is ``v = s (cos t rot + sin t grad) (-lap)^(-a / 2) u``: without divergence at t = 0, where it is that
    of an active scalar, and without rotation at a right angle. Every coefficient is drawn, so that the products of
    multipliers of u that the rest is made of are many; with a up to 1.6 those of a fluid, a = 2, are none of them.
    """

    name = "bilinear"
    label = "BILINEAR"
    title = "A state that carries itself"
    equation = (
        r"\partial_t u + (c + v) \cdot \nabla u + \tfrac{1}{2} \nabla \cdot (b\, u^2) = \nu\, \Delta u,\quad"
        r"v = s\, (\cos t\, \mathrm{rot} + \sin t\, \nabla)\, (-\Delta)^{-a/2} u"
    )
    coefficient_names = ("exponent", "nu", "strength", "turn", "bx", "by", "cx", "cy", "time")
    dialled = Parameter("exponent", 0.7, 1.6, start=1, label="Exponent a")
    parameters = (
        Parameter("nu", 6e-4, 4e-3, logarithmic=True, log_uniform=True),
        Parameter("strength", 0, 2.5),
        Parameter("turn", -0.25, 0.25),
        *(Parameter(name, -0.06, 0.06) for name in ("bx", "by")),
        *(Parameter(name, -0.5, 0.5) for name in ("cx", "cy")),
    )
    constants: ClassVar = {"time": 0.5}
    shifts: ClassVar = {"pre-training": (0.7, 1.6)}

    def symbol(self, coefficients, n):
        diffusion = coefficients[..., 1, None, None] * laplacian(n, like=coefficients)
        return torch.complex(diffusion, advection_symbol(coefficients[..., 6:8], n).expand(diffusion.shape))

    def rest(self, state_hat, coefficients):
        exponent, _, strength, turn, bx, by = coefficients[..., :6, None, None].unbind(-3)
        n = state_hat.shape[-2]
        size = laplacian(n, like=state_hat.real)
        size[0, 0] = 1
        stream = size ** (-exponent / 2) * SAME ** (exponent / 2 - 1)
        stream[..., 0, 0] = 0
        along_x, along_y = derivatives(state_hat)
        u, u_x, u_y, psi_x, psi_y = fields_of(state_hat, along_x, along_y, stream * along_x, stream * along_y)
        rot, grad = strength * turn.cos(), strength * turn.sin()
        carried = (rot * psi_y + grad * psi_x + bx * u) * u_x + (grad * psi_y - rot * psi_x + by * u) * u_y
        return -torch.fft.rfft2(carried)
