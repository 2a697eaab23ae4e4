"""A flow over a plate that resists bending: the biharmonic operator with advection."""

from __future__ import annotations

import math
from types import MappingProxyType

import torch

from .diffusion import DIFFUSIVITY, FLOW_DIRECTION
from .parameter import Parameter
from .spectral import advection_symbol, laplacian, vector_norm
from .spectral_system import SpectralSystem
from .symmetries import Geometry


class BiharmonicAdvection(SpectralSystem):
    """``b lap^2 u + v . grad u = f``; dial: the advection strength ``P = |v| / (2 pi)^3 b``.

    P is the ratio of both terms on the longest wave along the flow; on a wave of wavenumber k it is ``P / |k|^3``. The
    stiffness ``b = 0.01 / 4 pi^2`` damps the longest wave as a diffusivity of 0.01 does. At P = 0 the operator is the
    biharmonic one.
    """

    name = "biharmonic_advection"
    label = "BIHARM"
    title = "Biharmonic with advection"
    equation = r"b\,\Delta^2 u + v \cdot \nabla u = f"
    coefficient_names = ("stiffness", "v1", "v2")
    constants = MappingProxyType({"stiffness": DIFFUSIVITY / (4 * math.pi**2)})
    dialled = Parameter(
        "advection strength",
        0,
        5,
        start=1,
        label="Advection strength P",
        help="How strongly the flow carries the longest wave, compared with the stiffness that damps it; 0 is the "
        "biharmonic operator alone.",
        step=0.05,
        minimum=0,
    )
    shifts = MappingProxyType({"weak": (0, 1), "strong": (1, 5), "whole": (0, 5)})
    parameters = (FLOW_DIRECTION,)
    zero_mean = True
    above_zero = ("stiffness",)
    geometry = Geometry(vectors=(("v1", "v2"),))

    def symbol(self, coefficients, n):
        bending = coefficients[..., 0, None, None] * laplacian(n, like=coefficients) ** 2
        return torch.complex(bending, advection_symbol(coefficients[..., 1:], n).expand(bending.shape))

    def symbol_bounds(self, coefficients, n):
        """Coercivity by the stiffness; and continuity, with all of v."""
        squared = laplacian(n, like=coefficients)
        low = coefficients[..., 0, None, None] * squared**2
        speed = vector_norm(coefficients[..., 1:])
        return low, torch.hypot(low, speed[..., None, None] * squared.sqrt())

    def dial(self, source, coefficients):
        return vector_norm(self.features(coefficients))

    def coefficients(self, dial, source, parameters):
        stiffness, direction = torch.full_like(dial, self.constants["stiffness"]), parameters[..., 0]
        speed = dial * (2 * torch.pi) ** 3 * stiffness
        return torch.stack([stiffness, speed * torch.cos(direction), speed * torch.sin(direction)], dim=-1)

    @property
    def feature_names(self):
        return ("advection_x", "advection_y")

    def features(self, coefficients):
        """``v / (2 pi)^3 b``: as for SYS-2, the ratio of advection to damping on the longest wave along each axis."""
        return coefficients[..., 1:] / ((2 * torch.pi) ** 3 * coefficients[..., :1])

    def scale(self, coefficients):
        speed = vector_norm(coefficients[..., 1:])
        return (2 * torch.pi) ** 4 * coefficients[..., 0] + 2 * torch.pi * speed

    def equation_with(self, coefficients):
        b, v1, v2 = (f"{coefficients[name]:.3g}" for name in self.coefficient_names)
        return rf"{self.equation},\quad b = {b},\; v = \begin{{pmatrix}} {v1} \\ {v2} \end{{pmatrix}}"
