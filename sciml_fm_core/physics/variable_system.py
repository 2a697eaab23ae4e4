"""Linear equations whose coefficients are fields: what systems that are solved by a Krylov method share.

Beside the equation they know what an operator is told that corrects a first iterate, see
`models.normalization.CorrectionNormalization`.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable
from typing import ClassVar

import torch
from torch import Tensor

from .krylov import Solved
from .sources import draw_amplitudes, normalize, render
from .spectral import broadcast_shapes
from .system import System
from .tasks import SPARSITIES


class VariableSystem(System):
    """A linear equation ``A u = f`` on the torus; the last input field is the source f, the others are coefficients.

    A subclass says how both are drawn, gives the functions that solve the equation and evaluate its residual, and what
    is left of the operator with its fields frozen at their means.
    """

    coefficient_names = ()
    zero_mean = True
    told_channels: ClassVar[int]
    """Number of `told_fields`."""
    solved_by: ClassVar[Callable[[Tensor], Solved]]
    """Solves for input fields (batch, p, n, n)."""
    left_by: ClassVar[Callable[[Tensor, Tensor], Tensor]]
    """Residual ``A u - f`` of input fields and a solution."""

    @abstractmethod
    def draw_fields(self, dial: Tensor, n: int, generator: torch.Generator) -> Tensor:
        """Random coefficient fields (count, p - 1, n, n) at values (count,) of the dial."""

    @abstractmethod
    def told_fields(self, source: Tensor) -> Tensor:
        """What a network is told at each point of the coefficients, (batch, told_channels, n, n), of order one."""

    @abstractmethod
    def frozen_symbol(self, source: Tensor, n: int) -> Tensor:
        """Fourier symbol, (batch, n, n // 2 + 1), of the operator with its fields replaced by their means; float64."""

    @abstractmethod
    def pushed(self, source: Tensor, solution: Tensor) -> Tensor:
        """What the operator with its fields frozen leaves out, as a source (batch, n, n), of a solution of its own."""

    @abstractmethod
    def first_iterate(self, source: Tensor) -> Tensor:
        """An approximate solution (batch, n, n), exact where the fields are constant."""

    def draw(self, dial, parameters, grid, generator):
        if grid[0] != grid[1] or grid[0] % 2:
            raise ValueError(f"resolution: expected an even number of points, alike in both directions, got {grid}")
        fields = self.draw_fields(dial, grid[0], generator)
        shares = torch.tensor(SPARSITIES, device=generator.device)
        sparsity = shares[torch.arange(len(dial), device=generator.device) % len(shares)]
        source = normalize(render(draw_amplitudes(sparsity, generator).double(), grid[0]), zero_mean=True)
        return torch.cat([fields, source[:, None].to(fields)], dim=1)

    def solve(self, source, coefficients):
        self.check(source, coefficients)
        found = type(self).solved_by(source.reshape(-1, *source.shape[-3:])).solution
        return found.view(*source.shape[:-3], *source.shape[-2:]).to(source.dtype)

    def residual(self, solution, source, coefficients):
        leading = broadcast_shapes(solution.shape[:-2], source.shape[:-3])
        fields, found = source.shape[-3:], solution.shape[-2:]
        given = source.expand(*leading, *fields).reshape(-1, *fields)
        return type(self).left_by(given, solution.expand(*leading, *found).reshape(-1, *found)).view(*leading, *found)

    def coefficients(self, dial, source, parameters):
        return dial.new_empty(*dial.shape, 0)
