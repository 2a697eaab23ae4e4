"""SYS-5, ``-lap u + v . grad u = f`` with a divergence-free flow v(x) that varies in space.

The flow is a mean flow and a random one, ``v = s (sqrt(m) e + sqrt(1 - m) w)``: e a unit vector, w the rotated
gradient of a smooth random stream function, of root mean square 1, and m the share of the mean flow in the energy. At
m = 1 it is SYS-2 with K = I. What is varied is the ratio ``s / 2 pi``: of advection to diffusion,
``||v . grad u|| / ||lap u||``, for the longest wave along a constant flow.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from types import MappingProxyType

import torch
from torch import Tensor

from .krylov import conjugate_residuals
from .parameter import Parameter
from .random_fields import random_field
from .resolved import ResolvedModes
from .spectral import advection_symbol, gradient, laplacian
from .symmetries import Geometry
from .variable_system import VariableSystem

ADVECTION_RATIO = Parameter(
    "flow ratio",
    0.05,
    5,
    start=0.5,
    label="Flow ratio",
    help="‖v‖ / 2π: how strongly the flow carries the longest wave, compared with its diffusion.",
    logarithmic=True,
)
"""The dial."""

SHIFTS: Mapping[str, tuple[float, float]] = MappingProxyType(
    {"pre-training": (0.2, 1), "none": (0.2, 0.4), "mild": (0.4, 1.6), "medium": (1, 2), "large": (2, 5)}
)
"""Ranges of the ratio, those of SYS-2."""


def flow(ratio: Tensor, mean_share: Tensor, direction: Tensor, stream: Tensor) -> Tensor:
    """Divergence-free flow, shape (..., 2, n, n).

    Args:
        ratio: root mean square of v over 2 pi, shape (...).
        mean_share: share m of the mean flow in the energy, shape (...).
        direction: of the mean flow, in radians, shape (...).
        stream: stream functions, shape (..., n, n), of any size; without waves at the Nyquist wavenumber.

    >>> stream = random_field(torch.randn(16, 16, dtype=torch.float64))
    >>> v = flow(*torch.tensor([0.5, 0.2, 0.0], dtype=torch.float64), stream)
    >>> round(flow_ratio(v).item(), 9), bool(divergence(v).abs().max() < 1e-12)
    (0.5, True)
    """
    along_x, along_y = gradient(stream)
    rotated = torch.stack([along_y, -along_x], dim=-3)
    rotated = rotated / _size(rotated)[..., None, None, None]
    mean = torch.stack([direction.cos(), direction.sin()], dim=-1)[..., None, None]
    m = mean_share[..., None, None, None]
    return 2 * torch.pi * ratio[..., None, None, None] * (m.sqrt() * mean + (1 - m).sqrt() * rotated)


def _size(velocity: Tensor) -> Tensor:
    """Root mean square of flows (..., 2, n, n), shape (...)."""
    return velocity.square().sum(-3).mean((-2, -1)).sqrt()


def flow_ratio(velocity: Tensor) -> Tensor:
    """The dial of flows (..., 2, n, n), shape (...)."""
    return _size(velocity) / (2 * torch.pi)


def divergence(velocity: Tensor) -> Tensor:
    """``div v`` of flows (..., 2, n, n), shape (..., n, n)."""
    modes = ResolvedModes.of(velocity)
    return modes.field(modes.divergence(velocity))


@dataclass(frozen=True)
class AdvectionOperator:
    """``-lap + v . grad`` on vectors of `ResolvedModes`, preconditioned by the operator with the mean flow.

    Attributes:
        velocity: flows, shape (batch, 2, n, n).
        inverse_symbol: ``1 / (4 pi^2 |k|^2 + 2 pi i k . v)`` with the mean of v, shape (batch, n, n // 2 + 1).
        modes: of the grid.
    """

    velocity: Tensor
    inverse_symbol: Tensor
    modes: ResolvedModes

    @classmethod
    def of(cls, velocity: Tensor, modes: ResolvedModes) -> AdvectionOperator:
        """The operator of flows (batch, 2, n, n)."""
        advection = (velocity.mean((-2, -1))[..., None, None] * modes.waves).sum(-3)
        symbol = torch.complex(modes.laplacian[..., 0].expand_as(advection), advection)
        return cls(velocity, 1 / symbol.masked_fill(modes.left_out, 1), modes)

    def apply(self, x: Tensor) -> Tensor:
        """``-lap u + v . grad u`` of the vector of u: three transforms."""
        carried = (self.velocity * self.modes.gradient(x)).sum(-3)
        return self.modes.vector(carried).addcmul_(x, self.modes.laplacian)

    def precondition(self, residual: Tensor) -> Tensor:
        """Division by the symbol with the mean flow."""
        return torch.view_as_real(torch.view_as_complex(residual) * self.inverse_symbol)

    def take(self, kept: Tensor) -> AdvectionOperator:
        return replace(self, velocity=self.velocity[kept], inverse_symbol=self.inverse_symbol[kept])


def draw_flow(ratio: Tensor, n: int, generator: torch.Generator) -> Tensor:
    """Random flows (batch, 2, n, n) of the asked ratios (batch,), in their precision and on their device.

    The share of the mean flow is uniform in [0, 1], its direction in the circle.
    """
    count, device = len(ratio), generator.device
    numbers = torch.rand(2, count, generator=generator, device=device, dtype=torch.float32).to(ratio)
    noise = torch.randn(count, n, n, generator=generator, device=device, dtype=torch.float32).to(ratio)
    return flow(ratio, numbers[0], 2 * torch.pi * numbers[1], random_field(noise, exponent=3.5))


class VariableAdvection(VariableSystem):
    """SYS-5, ``-lap u + v . grad u = f`` with a flow that varies in space, without divergence; dial: ``|v| / 2 pi``.

    With a constant flow it is SYS-2 with K = I.
    """

    name = "variable_advection"
    label = "SYS-5"
    title = "Varying flow"
    equation = r"-\Delta u + v \cdot \nabla u = f,\quad \nabla \cdot v = 0"
    inputs = ("v1", "v2", "source")
    dialled = ADVECTION_RATIO
    shifts = SHIFTS
    geometry = Geometry(vectors=(("v1", "v2"),))
    told_channels = 2
    method = staticmethod(conjugate_residuals)

    def operator(self, fields, modes):
        return AdvectionOperator.of(fields, modes)

    def check_fields(self, fields):
        """A flow with sources has no solution for some f."""
        size = divergence(fields).square().mean((-2, -1)).sqrt()
        if (wrong := size > 1e-3 * 2 * torch.pi * _size(fields)).any():
            example = int(wrong.nonzero()[0])
            raise ValueError(
                f"v: expected a flow without divergence, got one of root mean square {size[example]:.3g} in example "
                f"{example}; make it from a stream function, v = (d psi / dy, -d psi / dx)"
            )

    def draw_fields(self, dial, n, generator):
        return draw_flow(dial, n, generator)

    def dial(self, source, coefficients):
        return flow_ratio(source[..., :2, :, :])

    def varied(self, source, dial):
        velocity, f = source[..., :2, :, :], source[..., 2:, :, :]
        now = flow_ratio(velocity)
        velocity = (dial / now.masked_fill(now == 0, 1)).to(velocity)[..., None, None, None] * velocity
        return torch.cat([velocity, f.expand(*velocity.shape[:-3], *f.shape[-3:])], dim=-3)

    def told_fields(self, source):
        """The flow over 2 pi."""
        return source[:, :2] / (2 * torch.pi)

    def frozen_symbol(self, source, n):
        mean = source[:, :2].double().mean((-2, -1))
        advection = advection_symbol(mean, n)
        return torch.complex(laplacian(n, like=mean).expand_as(advection), advection)

    def pushed(self, source, solution):
        """``-(v - mean v) . grad u``."""
        velocity = source[:, :2] - source[:, :2].mean((-2, -1), keepdim=True)
        return -(velocity * torch.stack(gradient(solution), dim=1)).sum(1)

    def first_iterate(self, source):
        """The solution with the mean flow."""
        modes = ResolvedModes.of(source)
        return modes.field(AdvectionOperator.of(source[:, :2], modes).precondition(modes.vector(source[:, 2])))
