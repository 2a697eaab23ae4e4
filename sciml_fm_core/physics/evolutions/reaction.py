"""Reactions that spread: the Allen-Cahn and the Fisher-KPP equation.

Constant growth and decay belong to the linear part, so that the state 0 is left at its exact rate.
"""

from __future__ import annotations

from typing import ClassVar

import torch

from sciml_fm_core.physics.evolution import Evolution
from sciml_fm_core.physics.parameter import Parameter
from sciml_fm_core.physics.spectral import laplacian
from sciml_fm_core.physics.symmetries import Geometry

from .states import shares, smooth_states


class _Reaction(Evolution):
    coefficient_names = ("rate", "diffusivity", "time")
    geometry = Geometry()

    def symbol(self, coefficients, n):
        rate, diffusivity = coefficients[..., :2, None, None].unbind(-3)
        return diffusivity * laplacian(n, like=coefficients) - rate


class AllenCahn(_Reaction):
    """``du/dt = d lap u + r (u - u^3)``; dial: the rate r. Phases -1 and 1 with walls of width ``sqrt(2 d / r)``.

    Allen and Cahn (1979), Acta Metallurgica 27, 1085.
    """

    name = "allen_cahn"
    label = "AC"
    title = "Allen-Cahn"
    equation = r"\partial_t u = d\, \Delta u + r\, (u - u^3)"
    dialled = Parameter("rate", 0.25, 4, start=1, label="Rate r", logarithmic=True, log_uniform=True)
    parameters = (Parameter("diffusivity", 1e-3, 2e-3),)
    constants: ClassVar = {"time": 0.5}
    shifts: ClassVar = {"pre-training": (0.5, 1.5), "faster": (1.5, 4)}
    resolved = 1 / 2

    def rest(self, state_hat, coefficients):
        n = state_hat.shape[-2]
        cube = torch.fft.rfft2(torch.fft.irfft2(state_hat, s=(n, n)) ** 3)
        return -coefficients[..., 0, None, None] * cube

    def draw(self, dial, parameters, grid, generator):
        return smooth_states(len(dial), grid, generator, modes=12) / 2


class FisherKPP(_Reaction):
    """``du/dt = d lap u + r u (1 - u)`` for shares u between 0 and 1; dial: the rate r.

    Fronts move with the speed ``2 sqrt(r d)``.

    Fisher (1937), Annals of Eugenics 7, 355; Kolmogorov, Petrovsky and Piskunov (1937).
    """

    name = "fisher_kpp"
    label = "FKPP"
    title = "Fisher-KPP"
    equation = r"\partial_t u = d\, \Delta u + r\, u\, (1 - u)"
    dialled = Parameter("rate", 0.25, 2, start=0.5, label="Rate r", logarithmic=True, log_uniform=True)
    parameters = (Parameter("diffusivity", 1e-3, 2e-3),)
    constants: ClassVar = {"time": 0.5}
    shifts: ClassVar = {"pre-training": (0.4, 1), "faster": (1, 2)}

    def rest(self, state_hat, coefficients):
        n = state_hat.shape[-2]
        square = torch.fft.rfft2(torch.fft.irfft2(state_hat, s=(n, n)).square())
        return -coefficients[..., 0, None, None] * square

    def draw(self, dial, parameters, grid, generator):
        return shares(1.5 * smooth_states(len(dial), grid, generator, modes=6, exponent=4) - 1.5)
