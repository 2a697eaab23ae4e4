"""``-div(a grad u) = f`` with u = 0 on the boundary of the unit square, for coefficients that may jump: five points.

Fluxes go through the faces between neighbouring points, with the harmonic mean of a on each, so that they are right
where a jumps halfway. Points are at j / n as everywhere; u = 0 where j is 0 or n.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import torch
from torch import Tensor
from torch.nn.functional import pad

from sciml_fm_core.physics.krylov import Solved, conjugate_gradients, in_chunks

_POINTS = 2**18


@dataclass(frozen=True)
class FivePoint:
    """The operator on values at the inner points, and the inverse Laplacian by sine transforms as preconditioner.

    Attributes:
        along_x, along_y: a on the faces over the squared spacing, (batch, n - 1, n) and (batch, n, n - 1).
        sines: matrix of the sine transform, symmetric and orthogonal, (n - 1, n - 1).
        inverse: of the Laplacian's eigenvalues, (n - 1, n - 1).
    """

    along_x: Tensor
    along_y: Tensor
    sines: Tensor
    inverse: Tensor

    @classmethod
    def of(cls, a: Tensor) -> FivePoint:
        """The operator of coefficients (batch, n, n) at j / n; at j = n, where they are missing, as beside it."""
        n, inverse = a.shape[-1], 1 / pad(a[:, None], (0, 1, 0, 1), mode="replicate")[:, 0]
        along_x = 2 * n * n / (inverse[:, 1:n, 1:] + inverse[:, 1:n, :-1])
        along_y = 2 * n * n / (inverse[:, 1:, 1:n] + inverse[:, :-1, 1:n])
        j = torch.arange(1, n, dtype=a.dtype, device=a.device)
        eigenvalues = n * n * (2 - 2 * torch.cos(torch.pi * j / n))
        sines = math.sqrt(2 / n) * torch.sin(torch.pi * torch.outer(j, j) / n)
        return cls(along_x, along_y, sines, 1 / (eigenvalues[:, None] + eigenvalues))

    def apply(self, x: Tensor) -> Tensor:
        flux_x, flux_y = self.along_x * pad(x, (1, 1)).diff(dim=-1), self.along_y * pad(x, (0, 0, 1, 1)).diff(dim=-2)
        return -flux_x.diff(dim=-1) - flux_y.diff(dim=-2)

    def precondition(self, residual: Tensor) -> Tensor:
        return self.sines @ (self.sines @ residual @ self.sines * self.inverse) @ self.sines

    def take(self, kept: Tensor) -> FivePoint:
        return replace(self, along_x=self.along_x[kept], along_y=self.along_y[kept])


def solve(a: Tensor, source: Tensor, *, tolerance: float = 1e-8) -> Tensor:
    """Solution of shape (batch, n, n), in the precision of a; float32 reaches a tolerance of about 1e-5.

    Args:
        a: coefficients above 0, shape (batch, n, n).
        source: f, of the same shape; on the boundary it is not used.
        tolerance: relative residual that each example is to reach.

    Raises:
        NotConverged: if an example does not reach it.

    >>> u = solve(torch.ones(1, 8, 8), torch.ones(1, 8, 8), tolerance=1e-5)
    >>> round(u.max().item(), 3)
    0.073
    """

    def solve_part(part: slice) -> Solved:
        return conjugate_gradients(FivePoint.of(a[part]), source[part, 1:, 1:], tolerance=tolerance)

    chunk = max(1, _POINTS // a[0].numel()) if a.device.type == "cpu" else None
    return pad(in_chunks(solve_part, len(a), chunk, None).solution, (1, 0, 1, 0))
