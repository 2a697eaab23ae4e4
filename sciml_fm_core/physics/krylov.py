"""Krylov methods for a batch of linear equations at once, each example with its own operator.

All examples take their steps together, on any device. An example that has converged leaves the batch: it costs no
more, and no step is ever taken from a residual of zero. The number of iterations of an example is the number of times
that the preconditioner was applied, so it is the cost of its solution in solves with constant coefficients.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import NamedTuple, Protocol

import torch
from torch import Tensor

Iterate = tuple[Tensor, ...]
"""An iterate x, its residual ``b - A x``, and what the next iteration takes besides."""
Progress = Callable[[int, int], object]
"""Called with the number of examples that are solved and the number of all; what it returns is not used."""


class LinearOperator(Protocol):
    """What the methods need of ``A x = b``, example by example, where x has shape (batch, ...) and is real."""

    def apply(self, x: Tensor) -> Tensor:
        """``A x``, of the shape of x."""

    def precondition(self, residual: Tensor) -> Tensor:
        """``M^-1 r``, an approximation of ``A^-1 r``; symmetric and positive for `conjugate_gradients`."""

    def take(self, kept: Tensor) -> LinearOperator:
        """The operator of some of the examples, by their numbers."""


class Solved(NamedTuple):
    """What a Krylov method found, by example.

    Attributes:
        solution: x, shape (batch, ...).
        iterations: how often the preconditioner was applied, shape (batch,).
        residual: ``||b - A x|| / ||b||`` as the method knows it, shape (batch,); 0 where b is 0.
    """

    solution: Tensor
    iterations: Tensor
    residual: Tensor


class NotConverged(ValueError):
    """An example whose residual stayed above the tolerance.

    Attributes:
        example: its number in the batch.
        residual: its relative residual.
    """

    def __init__(self, example: int, residual: float, iterations: int, tolerance: float):
        self.example, self.residual, self.iterations, self.tolerance = example, residual, iterations, tolerance
        super().__init__(
            f"example {example}: expected a relative residual of at most {tolerance:.3g}, got {residual:.3g} after "
            f"{iterations} iterations; allow more iterations, ask for less, or compute in float64"
        )


def conjugate_gradients(
    operator: LinearOperator,
    source: Tensor,
    *,
    start: Tensor | None = None,
    tolerance: float = 1e-8,
    limit: int = 1000,
) -> Solved:
    """Solve ``A x = b`` for a symmetric positive operator by preconditioned conjugate gradients.

    (Hestenes and Stiefel 1952; Saad, Iterative methods for sparse linear systems, algorithm 9.1.)

    Args:
        operator: A and its preconditioner.
        source: b, shape (batch, ...), real, in the precision of the computation.
        start: first iterate, of the shape of b; zero where None.
        tolerance: relative residual that each example is to reach.
        limit: most iterations.

    Raises:
        NotConverged: if an example does not reach it.
    """
    state = _State(source, operator, start, tolerance)
    p, rz = torch.zeros_like(source), torch.zeros_like(state.size)
    return state.iterate(conjugate_gradient, operator, limit, p, rz)


def conjugate_gradient(operator: LinearOperator, x: Tensor, residual: Tensor, p: Tensor, rz: Tensor) -> Iterate:
    """One iteration: x, its residual, and the direction p with its product of r and z, both 0 at first."""
    z = operator.precondition(residual)
    before, rz = rz, _dot(residual, z)
    p = torch.addcmul(z, p, _like(_over(rz, before), p))
    q = operator.apply(p)
    return *_along(x, residual, _over(rz, _dot(p, q)), p, q), p, rz


def conjugate_residuals(
    operator: LinearOperator,
    source: Tensor,
    *,
    start: Tensor | None = None,
    tolerance: float = 1e-8,
    limit: int = 1000,
    memory: int = 100,
) -> Solved:
    """Solve ``A x = b`` for an operator that need not be symmetric, by generalised conjugate residuals.

    Each iterate has the smallest residual among all combinations of the directions that are remembered: without a limit
    of the memory they are those of GMRES. The preconditioner may change from one iteration to the next, and may be
    nonlinear. (Eisenstat, Elman and Schultz 1983.)

    Args:
        operator, source, start, tolerance, limit: as of `conjugate_gradients`.
        memory: directions that are remembered; older ones are forgotten one by one.

    Raises:
        NotConverged: if an example does not reach the tolerance.
    """
    state = _State(source, operator, start, tolerance)
    none = source.new_empty(len(source), 0, *source.shape[1:])
    return state.iterate(partial(conjugate_residual, memory=memory), operator, limit, none, none)


def conjugate_residual(
    operator: LinearOperator, x: Tensor, residual: Tensor, directions: Tensor, images: Tensor, *, memory: int
) -> Iterate:
    """One iteration: x, its residual, and the directions so far with their images, shape (batch, count, ...)."""
    p = operator.precondition(residual)
    q = operator.apply(p)
    if images.shape[1]:
        share = torch.linalg.vecdot(images.flatten(2), q.flatten(1)[:, None])[:, None]
        q = q - (share @ images.flatten(2)).view(q.shape)
        p = p - (share @ directions.flatten(2)).view(p.shape)
    length = _dot(q, q).sqrt()
    p, q = (each * _like(_over(torch.ones_like(length), length), each) for each in (p, q))
    kept = (torch.cat([old[:, -(memory - 1) :], new[:, None]], dim=1) for old, new in ((directions, p), (images, q)))
    return *_along(x, residual, _dot(residual, q), p, q), *kept


def _along(x: Tensor, residual: Tensor, length: Tensor, direction: Tensor, image: Tensor) -> Iterate:
    """Go along a direction, whose image under A is known."""
    return torch.addcmul(x, direction, _like(length, direction)), torch.addcmul(residual, image, _like(-length, image))


class _State:
    """Iterates of all examples, and the residuals of those that have not converged yet."""

    def __init__(self, source: Tensor, operator: LinearOperator, start: Tensor | None, tolerance: float):
        self.tolerance = tolerance
        self.solution = torch.zeros_like(source) if start is None else start.clone()
        self.iterations = torch.zeros(len(source), dtype=torch.long, device=source.device)
        self.size = _dot(source, source).sqrt()
        self.relative = torch.ones_like(self.size)
        self.active = torch.arange(len(source), device=source.device)
        self.x = self.solution
        self.residual = source if start is None else source - operator.apply(start)
        self._measure()

    @property
    def is_empty(self) -> bool:
        return not len(self.active)

    def _measure(self) -> None:
        """Enter the relative residuals of the active examples."""
        size = self.size[self.active]
        length = _dot(self.residual, self.residual).sqrt()
        self.relative[self.active] = torch.where(size > 0, length / torch.where(size > 0, size, 1), length)

    def iterate(self, advance: Callable[..., Iterate], operator: LinearOperator, limit: int, *memory: Tensor) -> Solved:
        """Advance the active examples until there are none, with what an iteration takes of the one before."""
        operator, *kept = self.drop_converged(operator, *memory)
        for iteration in range(1, limit + 1):
            if self.is_empty:
                break
            self.x, self.residual, *kept = advance(operator, self.x, self.residual, *kept)
            self.iterations[self.active] = iteration
            self._measure()
            operator, *kept = self.drop_converged(operator, *kept)
        return self.result()

    def drop_converged(self, operator: LinearOperator, *tensors: Tensor) -> tuple:
        """Leave converged examples out of the active ones, the operator and these tensors."""
        converged = self.relative[self.active] <= self.tolerance
        if not converged.any():
            return operator, *tensors
        self.solution[self.active[converged]] = self.x[converged]
        kept = (~converged).nonzero().flatten()
        self.active, self.x, self.residual = self.active[kept], self.x[kept], self.residual[kept]
        return operator.take(kept), *(tensor[kept] for tensor in tensors)

    def result(self) -> Solved:
        """All examples, or an error for the one with the largest residual."""
        if not self.is_empty:
            worst = int(self.relative[self.active].nan_to_num(nan=torch.inf).argmax())
            example = int(self.active[worst])
            raise NotConverged(example, float(self.relative[example]), int(self.iterations[example]), self.tolerance)
        return Solved(self.solution, self.iterations, self.relative)


def _dot(x: Tensor, y: Tensor) -> Tensor:
    """Inner product of each example, shape (batch,)."""
    return torch.linalg.vecdot(x.flatten(1), y.flatten(1))


def _over(numerator: Tensor, divisor: Tensor) -> Tensor:
    """Quotient, 0 where the divisor is not positive: rounding has taken the direction, and no step is made along it."""
    return torch.where(divisor > 0, numerator / torch.where(divisor > 0, divisor, 1), 0)


def _like(numbers: Tensor, field: Tensor) -> Tensor:
    """Numbers (batch,) with the dimensions of a field (batch, ...)."""
    return numbers.view(-1, *[1] * (field.ndim - 1))


def in_chunks(
    solve: Callable[[slice], Solved], count: int, chunk: int | None = None, progress: Progress | None = None
) -> Solved:
    """Solve examples some at a time, by a function of their slice, and join what was found.

    Chunks are so small that several threads would mostly wait for each other: on a CPU one computes, and the numbers
    are the same to the bit for any number of threads.

    Args:
        solve: what solves the examples of a slice.
        count: number of all examples.
        chunk: examples at a time, on a CPU; all, with the threads that are set, where None.
        progress: called after each chunk.

    Raises:
        NotConverged: with the number of the example among all of them.
    """
    threads = torch.get_num_threads()
    if chunk is not None and threads > 1:
        torch.set_num_threads(1)
    chunk = chunk or max(count, 1)
    parts = []
    try:
        for first in range(0, max(count, 1), chunk):
            parts.append(solve(slice(first, min(first + chunk, count))))
            if progress is not None:
                progress(min(first + chunk, count), count)
    except NotConverged as error:
        raise NotConverged(first + error.example, error.residual, error.iterations, error.tolerance) from None
    finally:
        if torch.get_num_threads() != threads:
            torch.set_num_threads(threads)
    return Solved(*(torch.cat(column) for column in zip(*parts, strict=True)))
