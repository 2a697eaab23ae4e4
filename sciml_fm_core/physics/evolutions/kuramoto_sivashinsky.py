"""The Kuramoto-Sivashinsky equation: flames and films that never come to rest."""

from __future__ import annotations

from typing import ClassVar

import torch

from sciml_fm_core.physics.evolution import Evolution, derivatives, fields_of
from sciml_fm_core.physics.parameter import Parameter
from sciml_fm_core.physics.spectral import laplacian
from sciml_fm_core.physics.symmetries import Geometry

from .states import smooth_states


class KuramotoSivashinsky(Evolution):
    """``du/dt + lap u + lap^2 u + |grad u|^2 / 2 = its mean`` on a square; dial: the side of the square.

    In coordinates of the unit square, so that a derivative is divided by the side. The right-hand side keeps the mean,
    which would drift. Waves longer than 2 pi grow, those with ``|k| = sqrt(1/2)`` fastest, shorter ones decay.

    Kuramoto (1978), Progress of Theoretical Physics Supplement 64, 346; Sivashinsky (1977), Acta Astronautica 4, 1177.
    """

    name = "kuramoto_sivashinsky"
    label = "KS"
    title = "Kuramoto-Sivashinsky"
    equation = (
        r"\partial_t u + \ell^{-2} \Delta u + \ell^{-4} \Delta^2 u"
        r" + \tfrac{1}{2} \ell^{-2} (|\nabla u|^2 - \langle |\nabla u|^2 \rangle) = 0"
    )
    coefficient_names = ("size", "time")
    dialled = Parameter("size", 12, 48, start=24, label="Side of the square ℓ")
    constants: ClassVar = {"time": 1.0}
    shifts: ClassVar = {"pre-training": (16, 28), "larger": (28, 48)}
    above_zero = ("size",)
    geometry = Geometry()
    keeps_mean = True

    def symbol(self, coefficients, n):
        waves = laplacian(n, like=coefficients) / coefficients[..., 0, None, None] ** 2
        return waves.square() - waves

    def rest(self, state_hat, coefficients):
        along_x, along_y = fields_of(*derivatives(state_hat))
        change = torch.fft.rfft2(along_x.square() + along_y.square())
        change = change / (-2 * coefficients[..., 0, None, None] ** 2)
        change[..., 0, 0] = 0
        return change

    def draw(self, dial, parameters, grid, generator):
        return 2 * smooth_states(len(dial), grid, generator, modes=12, exponent=6, inverse_length=25.0)
