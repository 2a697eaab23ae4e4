"""Burgers' equation of one field: waves that steepen, and diffusion that stops them."""

from __future__ import annotations

from typing import ClassVar

import torch

from sciml_fm_core.physics.evolution import derivatives
from sciml_fm_core.physics.parameter import Parameter
from sciml_fm_core.physics.spectral import laplacian
from sciml_fm_core.physics.symmetries import Geometry

from .linear import EXCHANGED
from .states import FromSmoothStates


class Burgers(FromSmoothStates):
    """``du/dt + b (d/dx + d/dy) u^2 / 2 = nu lap u``; dial: the viscosity nu. The mean stays."""

    name = "burgers"
    label = "BURGERS"
    title = "Burgers' equation"
    equation = r"\partial_t u + \tfrac{b}{2}\,(\partial_x + \partial_y)\, u^2 = \nu\, \Delta u"
    coefficient_names = ("nu", "strength", "time")
    dialled = Parameter("nu", 1e-4, 0.01, start=1e-3, label="Viscosity ν", logarithmic=True, log_uniform=True)
    parameters = (Parameter("strength", 0.04, 0.16),)
    keeps_mean = True
    constants: ClassVar = {"time": 0.5}
    shifts: ClassVar = {"pre-training": (1e-3, 5e-3), "sharper": (5e-4, 1e-3)}
    geometry = Geometry()
    kept_by = EXCHANGED

    def symbol(self, coefficients, n):
        return coefficients[..., 0, None, None] * laplacian(n, like=coefficients)

    def rest(self, state_hat, coefficients):
        n = state_hat.shape[-2]
        square = torch.fft.rfft2(torch.fft.irfft2(state_hat, s=(n, n)).square())
        along_x, along_y = derivatives(square)
        return -coefficients[..., 1, None, None] / 2 * (along_x + along_y)
