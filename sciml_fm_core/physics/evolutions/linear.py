"""Evolutions without a rest, which cost nothing: advection-diffusion, dispersion, hyper-diffusion."""

from __future__ import annotations

from typing import ClassVar

import torch

from sciml_fm_core.physics.evolution import Evolution
from sciml_fm_core.physics.parameter import Parameter
from sciml_fm_core.physics.spectral import advection_symbol, laplacian
from sciml_fm_core.physics.symmetries import Geometry

from .states import smooth_states


class _Exact(Evolution):
    def draw(self, dial, parameters, grid, generator):
        return smooth_states(len(dial), grid, generator)


class AdvectionDiffusionInTime(_Exact):
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
