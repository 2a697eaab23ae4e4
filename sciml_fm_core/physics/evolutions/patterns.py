"""Patterns: the Swift-Hohenberg equation, and the reaction and diffusion of Gray and Scott."""

from __future__ import annotations

from typing import ClassVar

import torch

from sciml_fm_core.physics.evolution import Evolution
from sciml_fm_core.physics.parameter import Parameter
from sciml_fm_core.physics.spectral import laplacian
from sciml_fm_core.physics.symmetries import Geometry

from .states import shares, smooth_states


class SwiftHohenberg(Evolution):
    """``du/dt = r u - (1 + lap)^2 u + g u^2 - u^3`` on a square of side ``size``; dial: r. Rolls of length 2 pi.

    In coordinates of the unit square, so that the Laplacian is divided by size^2.

    Swift and Hohenberg (1977), Physical Review A 15, 319.
    """

    name = "swift_hohenberg"
    label = "SH"
    title = "Swift-Hohenberg"
    equation = r"\partial_t u = r\, u - (1 + \ell^{-2} \Delta)^2 u + g\, u^2 - u^3"
    coefficient_names = ("rate", "quadratic", "size", "time")
    dialled = Parameter("rate", 0.1, 1.2, start=0.5, label="Growth rate r")
    parameters = (Parameter("quadratic", 0, 1),)
    constants: ClassVar = {"size": 25.0, "time": 1.0}
    shifts: ClassVar = {"pre-training": (0.2, 0.6), "stronger": (0.6, 1.2)}
    above_zero = ("size",)
    geometry = Geometry()
    resolved = 1 / 2

    def symbol(self, coefficients, n):
        rate, _, size, _ = coefficients[..., None, None].unbind(-3)
        return (1 - laplacian(n, like=coefficients) / size**2).square() - rate

    def rest(self, state_hat, coefficients):
        n = state_hat.shape[-2]
        u = torch.fft.irfft2(state_hat, s=(n, n))
        return torch.fft.rfft2(coefficients[..., 1, None, None] * u.square() - u**3)

    def draw(self, dial, parameters, grid, generator):
        return 0.3 * smooth_states(len(dial), grid, generator, modes=8, exponent=6, inverse_length=25.0)


class GrayScott(Evolution):
    """``du/dt = d_u lap u - u v^2 + F (1 - u)`` and ``dv/dt = d_v lap v + u v^2 - (F + k) v``; dial: the feed F.

    Spots that divide and stripes, which another feed or kill k exchanges.

    Pearson (1993), Science 261, 189.
    """

    name = "gray_scott"
    label = "GS"
    title = "Gray-Scott"
    equation = (
        r"\partial_t u = d_u\, \Delta u - u v^2 + F (1 - u),\quad"
        r"\partial_t v = d_v\, \Delta v + u v^2 - (F + k)\, v"
    )
    inputs = outputs = ("u", "v")
    coefficient_names = ("feed", "kill", "d_u", "d_v", "time")
    dialled = Parameter("feed", 0.02, 0.06, start=0.04, label="Feed F")
    parameters = (Parameter("kill", 0.058, 0.062),)
    constants: ClassVar = {"d_u": 8e-5, "d_v": 4e-5, "time": 20.0}
    shifts: ClassVar = {"pre-training": (0.035, 0.05), "spots": (0.02, 0.035), "stripes": (0.05, 0.06)}
    geometry = Geometry()
    resolved = 1 / 2
    largest_step = 1.0

    def symbol(self, coefficients, n):
        feed, kill, d_u, d_v, _ = coefficients[..., None, None].unbind(-3)
        waves = laplacian(n, like=coefficients)
        return torch.stack([d_u * waves + feed, d_v * waves + feed + kill], dim=-3)

    def rest(self, state_hat, coefficients):
        n = state_hat.shape[-2]
        u, v = torch.fft.irfft2(state_hat, s=(n, n)).unbind(-3)
        reaction = u * v.square()
        change = torch.stack([coefficients[..., 0, None, None] - reaction, reaction], dim=-3)
        return torch.fft.rfft2(change)

    def draw(self, dial, parameters, grid, generator):
        seeds = shares(3 * smooth_states(len(dial), grid, generator, modes=6, exponent=4) - 2)
        return torch.stack([1 - seeds / 2, seeds / 4], dim=1)
