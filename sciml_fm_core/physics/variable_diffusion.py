"""SYS-4, ``-div(a grad u) = f`` with a diffusivity a(x) that varies in space.

Derivatives are spectral, and the equation is solved among the waves that the grid resolves: those at the Nyquist
wavenumber, of which the first derivative has no sign, are left out of source and solution (see
`spectral.derivative_wavenumbers`). There the operator is symmetric and positive, and is solved by preconditioned
conjugate gradients, see `DiffusionOperator`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from types import MappingProxyType

import torch
from torch import Tensor

from .krylov import Progress, Solved, conjugate_gradients
from .parameter import Parameter
from .random_fields import random_field
from .resolved import ResolvedModes
from .spectral import check_finite, check_grid, gradient, laplacian
from .symmetries import Geometry
from .variable_system import VariableSystem

INPUTS = ("a", "f")
"""Names of the input fields, in the order of tensors."""

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


def residual(inputs: Tensor, solution: Tensor) -> Tensor:
    """``-div(a grad u) - f`` among the resolved waves, without its mean, shape (..., n, n).

    Args:
        inputs: a and f, shape (..., 2, n, n).
        solution: u, shape (..., n, n).
    """
    a, source = inputs.unbind(-3)
    modes = ResolvedModes.of(source)
    return modes.field(DiffusionOperator(a, modes).apply(modes.vector(solution)) - modes.vector(source))


def solve(
    inputs: Tensor,
    *,
    start: Tensor | None = None,
    tolerance: float = 1e-8,
    limit: int = 1000,
    dtype: torch.dtype = torch.float64,
    progress: Progress | None = None,
) -> Solved:
    """Solve ``-div(a grad u) = f`` on the torus, to a relative residual, without the mean.

    Args:
        inputs: a > 0 and f of zero mean, shape (batch, 2, n, n), n even.
        start: first iterate, shape (batch, n, n); zero where None.
        tolerance: relative residual that each example is to reach.
        limit: most iterations.
        dtype: precision of the computation; float32 reaches a tolerance of about 1e-5.
        progress: called after every chunk of examples.

    Returns:
        The solution (batch, n, n) in `dtype`, and by example the iterations, each of which takes as many transforms
        as four solves with constant coefficients, and the relative residual.

    Raises:
        ValueError: on a wrong shape, values that are not finite, a diffusivity that is not positive, a source with a
            mean, or an example that does not reach the tolerance, which is named (`NotConverged`).

    >>> x = torch.arange(16, dtype=torch.float64) / 16
    >>> source = torch.cos(2 * torch.pi * x).expand(16, 16)
    >>> found = solve(torch.stack([torch.ones(16, 16), source])[None])
    >>> torch.allclose(found.solution[0], source / (4 * torch.pi**2)), found.iterations.tolist()
    (True, [1])
    """
    check_inputs(inputs, INPUTS)
    a, source = inputs.to(dtype).unbind(1)
    if not (a > 0).all():
        example = int((a <= 0).flatten(1).any(1).nonzero()[0])
        raise ValueError(f"a: expected a diffusivity above 0, got {a[example].min():.3g} in example {example}")
    modes = ResolvedModes.of(source)
    options = {"tolerance": tolerance, "limit": limit}
    return modes.solve(
        conjugate_gradients, lambda part: DiffusionOperator(a[part], modes), source, start, progress, **options
    )


def check_inputs(inputs: Tensor, names: tuple[str, ...]) -> None:
    """Raise ValueError unless these are finite fields (batch, len(names), n, n), the last of which has no mean."""
    n = check_grid(inputs, "inputs")
    if inputs.ndim != 4 or inputs.shape[1] != len(names):
        raise ValueError(
            f"inputs: expected shape (batch, {len(names)}, n, n) for {' '.join(names)}, got {tuple(inputs.shape)}"
        )
    check_finite(inputs, "inputs")
    source = inputs[:, -1].double()
    mean = source.mean((-2, -1)).abs()
    if (wrong := mean > 1e-5 * source.abs().amax((-2, -1))).any():
        example = int(wrong.nonzero()[0])
        raise ValueError(
            f"{names[-1]}: expected a source of zero mean on the torus, got a mean of {mean[example]:.3g} in example "
            f"{example} on {n} x {n} points; subtract it"
        )


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
    solved_by = solve
    left_by = residual

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
