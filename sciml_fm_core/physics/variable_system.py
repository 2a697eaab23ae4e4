"""Linear equations whose coefficients are fields: what systems that are solved by a Krylov method share.

Derivatives are spectral, and an equation is solved among the waves that the grid resolves: those at the Nyquist
wavenumber, of which the first derivative has no sign, are left out of source and solution (see
`spectral.derivative_wavenumbers`).

Beside the equation they know what an operator is told that corrects a first iterate, see
`models.normalization.CorrectionNormalization`.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable
from typing import ClassVar

import torch
from torch import Tensor

from .krylov import LinearOperator, Progress, Solved, conjugate_gradients, in_chunks
from .resolved import ResolvedModes
from .sources import draw_amplitudes, normalize, render
from .spectral import broadcast_shapes, check_finite, check_grid, is_finite, largest_size, power_of_two
from .system import System
from .tasks import SPARSITIES

POINTS = 2**16
"""Points of the examples that are solved at a time on a CPU, so that what they need stays in its cache."""


class VariableSystem(System):
    """A linear equation ``A u = f`` on the torus; the last input field is the source f, the others are coefficients.

    A subclass says how these are drawn, gives the operator A and the method that solves with it, and what is left of
    the operator with its fields frozen at their means.
    """

    coefficient_names = ()
    zero_mean = True
    told_channels: ClassVar[int]
    """Number of `told_fields`."""
    method: ClassVar[Callable[..., Solved]] = staticmethod(conjugate_gradients)
    """The method of `krylov` that solves the equation."""

    @abstractmethod
    def operator(self, fields: Tensor, modes: ResolvedModes) -> LinearOperator:
        """A with its preconditioner, on vectors of the modes, for coefficient fields (batch, p - 1, n, n)."""

    @abstractmethod
    def check_fields(self, fields: Tensor) -> None:
        """Raise ValueError where A is not defined for coefficient fields (batch, p - 1, n, n)."""

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

    def solved(
        self,
        inputs: Tensor,
        *,
        start: Tensor | None = None,
        tolerance: float = 1e-8,
        limit: int = 1000,
        dtype: torch.dtype = torch.float64,
        progress: Progress | None = None,
    ) -> Solved:
        """Solve ``A u = f`` to a relative residual, without the mean.

        >>> from sciml_fm_core import SYSTEMS
        >>> source = torch.cos(2 * torch.pi * torch.arange(16, dtype=torch.float64) / 16).expand(16, 16)
        >>> found = SYSTEMS["variable_diffusion"].solved(torch.stack([torch.ones(16, 16), source])[None])
        >>> torch.allclose(found.solution[0], source / (4 * torch.pi**2)), found.iterations.tolist()
        (True, [1])

        Args:
            inputs: coefficient fields, and f of zero mean, shape (batch, p, n, n), n even.
            start: first iterate, shape (batch, n, n); zero where None.
            tolerance: relative residual that each example is to reach.
            limit: most iterations.
            dtype: precision of the computation; float32 reaches a tolerance of about 1e-5.
            progress: called after every chunk of examples.

        Returns:
            The solution (batch, n, n) in `dtype`, and by example the iterations and the relative residual.

        Raises:
            ValueError: on a wrong shape, values that are not finite, fields for which A is not defined, a source with a
                mean, or an example that does not reach the tolerance, which is named (`NotConverged`).
        """
        self._check_inputs(inputs)
        unit = power_of_two(largest_size(inputs[:, -1]))[:, None, None]  # no square overflows or vanishes
        fields, source = inputs[:, :-1].to(dtype), (inputs[:, -1] / unit).to(dtype)
        self.check_fields(fields)
        modes = ResolvedModes.of(source)

        def solve_part(part: slice) -> Solved:
            begin = None if start is None else modes.vector((start[part] / unit[part]).to(source))
            operator, right = self.operator(fields[part], modes), modes.vector(source[part])
            found = type(self).method(operator, right, start=begin, tolerance=tolerance, limit=limit)
            return found._replace(solution=modes.field(found.solution) * unit[part].to(source))

        chunk = max(1, POINTS // modes.n**2) if source.device.type == "cpu" else None
        return in_chunks(solve_part, len(source), chunk, progress)

    def _check_inputs(self, inputs: Tensor) -> None:
        n = check_grid(inputs, "inputs")
        if inputs.ndim != 4 or inputs.shape[1] != len(self.inputs):
            raise ValueError(
                f"inputs: expected shape (batch, {len(self.inputs)}, n, n) for {' '.join(self.inputs)}, got "
                f"{tuple(inputs.shape)}"
            )
        check_finite(inputs, "inputs")
        source = inputs[:, -1].double()
        mean = source.mean((-2, -1)).abs()
        if (wrong := mean > 1e-5 * source.abs().amax((-2, -1))).any():
            example = int(wrong.nonzero()[0])
            raise ValueError(
                f"{self.inputs[-1]}: expected a source of zero mean on the torus, got a mean of {mean[example]:.3g} in "
                f"example {example} on {n} x {n} points; subtract it"
            )

    def solve(self, source, coefficients):
        self.check(source, coefficients)
        found = self.solved(source.reshape(-1, *source.shape[-3:])).solution.to(source.dtype)
        if not is_finite(found):
            raise ValueError(f"solution: too large for {source.dtype}; scale the source, or pass it as float64")
        leading = broadcast_shapes(source.shape[:-3], coefficients.shape[:-1])
        return found.view(*source.shape[:-3], *source.shape[-2:]).expand(*leading, *source.shape[-2:])

    def residual(self, solution, source, coefficients):
        """``A u - f`` among the resolved waves, without its mean."""
        leading = broadcast_shapes(solution.shape[:-2], source.shape[:-3])
        fields, found = source.shape[-3:], solution.shape[-2:]
        given = source.expand(*leading, *fields).reshape(-1, *fields)
        modes = ResolvedModes.of(given)
        image = self.operator(given[:, :-1], modes).apply(
            modes.vector(solution.expand(*leading, *found).reshape(-1, *found))
        )
        return modes.field(image - modes.vector(given[:, -1])).view(*leading, *found)

    def coefficients(self, dial, source, parameters):
        return dial.new_empty(*dial.shape, 0)
