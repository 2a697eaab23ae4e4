"""SYS-4, ``-div(a grad u) = f`` with a diffusivity a(x) that varies in space.

The operator is symmetric and positive, and is solved by preconditioned conjugate gradients, see
`DiffusionOperator`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from types import MappingProxyType

import torch
from torch import Tensor

from .parameter import Parameter
from .random_fields import random_field
from .resolved import ResolvedModes
from .spectral import gradient, laplacian
from .symmetries import Geometry
from .variable_system import VariableSystem

HETEROGENEITY = Parameter(
    "heterogeneity",
    0,
    1.2,
    start=0.2,
    label="Heterogeneity s",
    help="Standard deviation of log a: how much the diffusivity varies in space; at 0 it is 1 everywhere.",
    minimum=0,
)
"""The dial: s of ``a = exp(s g) / mean``."""

SHIFTS: Mapping[str, tuple[float, float]] = MappingProxyType(
    {"pre-training": (0, 0.3), "mild": (0.3, 0.6), "medium": (0.6, 0.9), "large": (0.9, 1.2)}
)
"""Ranges of s; the median contrast is 2.5, 13, 63 and 340."""


def diffusivity(heterogeneity: Tensor, field: Tensor) -> Tensor:
    """``a = exp(s g) / mean``, shape (..., n, n), for s (...) and a field g (..., n, n) of zero mean and unit size.

    >>> a = diffusivity(torch.tensor(0.5), random_field(torch.randn(16, 16)))
    >>> round(a.mean().item(), 5), round(heterogeneity(a).item(), 5)
    (1.0, 0.5)
    """
    a = torch.exp(heterogeneity[..., None, None] * field)
    return a / a.mean((-2, -1), keepdim=True)


def heterogeneity(a: Tensor) -> Tensor:
    """The dial s of a diffusivity (..., n, n): the standard deviation of log a, shape (...)."""
    return a.log().std((-2, -1), correction=0)


def contrast(a: Tensor) -> Tensor:
    """``max a / min a`` of a diffusivity (..., n, n), shape (...)."""
    return a.amax((-2, -1)) / a.amin((-2, -1))


LAPLACIAN_SHARE = 0.3
"""Share of the inverse Laplacian itself in the preconditioner; from 0.1 to 1 it hardly matters."""


@dataclass(frozen=True)
class DiffusionOperator:
    """``-div(a grad .)`` on vectors of `ResolvedModes`, and ``M^-1 = a^(-1/2) P a^(-1/2) + 0.3 P``, P = (-lap)^-1.

    By P alone, conjugate gradients take about 9 sqrt(max a / min a) iterations to 1e-8. The scaled one is exact up to
    the potential ``lap(sqrt a) / sqrt a``, which matters little to short waves (Concus and Golub 1973). Their sum takes
    half as many iterations as P at a contrast of 13, a quarter at 340, and about the same on every grid. Where a is
    constant it is exact.

    Attributes:
        a: diffusivities, shape (batch, n, n).
        modes: of the grid.
    """

    a: Tensor
    modes: ResolvedModes

    def apply(self, x: Tensor) -> Tensor:
        """``-div(a grad u)`` of the vector of u: four transforms."""
        return self.modes.divergence(self.a[:, None] * self.modes.gradient(x)).neg_()

    def precondition(self, residual: Tensor) -> Tensor:
        """``M^-1 r``: four transforms."""
        scale, modes = self.a.rsqrt(), self.modes
        scaled = modes.vector(scale * modes.field(residual)) * modes.inverse_laplacian
        plain = residual * modes.inverse_laplacian
        return modes.vector(scale * modes.field(scaled)).add_(plain, alpha=LAPLACIAN_SHARE)

    def take(self, kept: Tensor) -> DiffusionOperator:
        return replace(self, a=self.a[kept])


def draw_diffusivity(heterogeneity: Tensor, n: int, generator: torch.Generator) -> Tensor:
    """Random diffusivities (batch, n, n) of the asked heterogeneities (batch,), in their precision, on their device."""
    noise = torch.randn(len(heterogeneity), n, n, generator=generator, device=generator.device, dtype=torch.float32)
    return diffusivity(heterogeneity, random_field(noise.to(heterogeneity)))


class VariableDiffusion(VariableSystem):
    """SYS-4, ``-div(a grad u) = f``, ``a = exp(s g) / mean``; dial: the heterogeneity s.

    s is the standard deviation of log a. At s = 0 it is Poisson's equation with K = I.
    """

    name = "variable_diffusion"
    label = "SYS-4"
    title = "Heterogeneous diffusion"
    equation = r"-\nabla \cdot (a \nabla u) = f"
    inputs = ("diffusivity", "source")
    dialled = HETEROGENEITY
    shifts = SHIFTS
    geometry = Geometry()
    told_channels = 1

    def operator(self, fields, modes):
        return DiffusionOperator(fields[:, 0], modes)

    def check_fields(self, fields):
        if (wrong := (fields <= 0).flatten(1).any(1)).any():
            example = int(wrong.nonzero()[0])
            raise ValueError(
                f"diffusivity: expected values above 0, got {fields[example].min():.3g} in example {example}"
            )

    def draw_fields(self, dial, n, generator):
        return draw_diffusivity(dial, n, generator)[:, None]

    def dial(self, source, coefficients):
        return heterogeneity(source[..., 0, :, :])

    def varied(self, source, dial):
        a, f = source.unbind(-3)
        logarithm, now = a.log(), heterogeneity(a)[..., None, None]
        field = (logarithm - logarithm.mean((-2, -1), keepdim=True)) / now.masked_fill(now == 0, 1)
        a = diffusivity(dial.to(a), field)
        return torch.stack([a, f.expand_as(a)], dim=-3)

    def on_square(self, source, coefficients, side):
        return torch.cat([source[..., :1, :, :] / side**2, source[..., 1:, :, :]], dim=-3), coefficients

    def told_fields(self, source):
        """The logarithm of a, less its mean."""
        logarithm = source[:, :1].log()
        return logarithm - logarithm.mean((-2, -1), keepdim=True)

    def frozen_symbol(self, source, n):
        mean = source[:, 0].double().mean((-2, -1))
        return mean[:, None, None] * laplacian(n, like=mean)

    def pushed(self, source, solution):
        """``grad log a . grad u``: the equation is ``-lap u = f / a + grad log a . grad u``."""
        slope, other = (torch.stack(gradient(each), dim=1) for each in (source[:, 0].log(), solution))
        return (slope * other).sum(1)

    def first_iterate(self, source):
        """One step of steepest descent from zero, preconditioned by the Laplacian."""
        a, f = source.unbind(1)
        modes = ResolvedModes.of(f)
        right = modes.vector(f)
        direction = right * modes.inverse_laplacian
        image = DiffusionOperator(a, modes).apply(direction)
        along, curvature = (torch.linalg.vecdot(direction.flatten(1), each.flatten(1)) for each in (right, image))
        length = along / torch.where(curvature > 0, curvature, 1)
        return modes.field(length[:, None, None, None] * direction)
