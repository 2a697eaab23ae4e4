"""Systems that are solved by a Fourier symbol: linear operators with constant coefficients on the periodic unit square.

In Fourier space such an operator is multiplication by its symbol, so a solution is exact for every resolved mode. Those
of arXiv:2306.00258 are in `poisson`, `advection_diffusion` and `helmholtz`.
"""

from __future__ import annotations

from abc import abstractmethod
from typing import ClassVar, TypeGuard

import torch
from torch import Tensor

from sciml_fm_core.eager import known_values

from .probe import check_equation
from .spectral import (
    broadcast_shapes,
    check_grid,
    inverse_transform,
    is_finite,
    largest_size,
    parseval_weights,
    shells,
    transform,
)
from .system import System


class SpectralSystem(System):
    """A linear PDE ``L u = f`` with constant coefficients, solved exactly by its Fourier symbol.

    A subclass declares the class attributes of a `System` and ``zero_mean``, and implements `symbol`. It may override
    `multiplier`, which says how a mode of the source becomes that of the solution, `features`, `scale` and `shared`,
    which tell a neural operator how to see the coefficients, and `preconditioner`, which weighs the residual where
    there are no solutions to learn from. Its fields are on square grids of an even number of points.

    >>> import torch
    >>> from sciml_fm_core import SYSTEMS
    >>> poisson = SYSTEMS["poisson"]
    >>> x = torch.arange(32, dtype=torch.float64) / 32
    >>> source = torch.cos(2 * torch.pi * x).expand(32, 32)
    >>> solution = poisson.solve(source, torch.tensor([0.01, 0.01, 0.0], dtype=torch.float64))
    >>> torch.allclose(solution, source / (0.01 * 4 * torch.pi**2))
    True
    """

    zero_mean: ClassVar[bool] = None  # type: ignore[assignment] # to be declared
    positive: ClassVar[bool] = False
    """True when the symbol is real and above zero in all modes that L does not annihilate."""
    declared = ("label", "equation", "coefficient_names", "dialled", "zero_mean", "symbol")

    def __init_subclass__(cls, **options):
        if "solution_multiplier" in cls.__dict__:
            raise TypeError(f"system {cls.__name__}: override multiplier, from which solution_multiplier is made")
        super().__init_subclass__(**options)

    @abstractmethod
    def symbol(self, coefficients: Tensor, n: int) -> Tensor:
        """Fourier symbol of L, shape (..., n, n // 2 + 1), real or complex, for coefficients (..., c)."""

    def multiplier(self, symbol: Tensor, coefficients: Tensor) -> Tensor:
        """Fourier multiplier of the solution operator: ``u_hat(k) = multiplier(k) f_hat(k)``; ``1 / symbol``.

        Args:
            symbol: (..., n, n // 2 + 1), with 1 in the modes that L annihilates, which are removed afterwards.
            coefficients: (..., c), in float64.
        """
        return 1 / symbol

    @property
    def is_linear(self) -> bool:
        """Whether the symbol says all of the equation; not so of an `Evolution` with a rest."""
        return True

    @property
    def resonances(self) -> tuple[float, ...]:
        """Values of the dial at which the symbol of a mode is zero; none of most equations."""
        return ()

    def features(self, coefficients: Tensor) -> Tensor:
        """Dimensionless numbers that fix the solution up to `scale`; unchanged when L is multiplied by a constant."""
        return coefficients / self.scale(coefficients)[..., None]

    def scale(self, coefficients: Tensor) -> Tensor:
        """Typical size of the symbol on the largest waves, shape (...): |u| is about |f| / scale."""
        symbol = self.symbol(coefficients, 4)
        size = (symbol[..., 0, 1].abs() + symbol[..., 1, 0].abs() + symbol[..., 1, 1].abs()) / 3
        return size.to(coefficients.dtype)

    def solve(self, source: Tensor, coefficients: Tensor) -> Tensor:
        """Solve ``L u = f`` exactly in Fourier space: ``u_hat = f_hat / symbol``.

        Modes where the symbol vanishes are removed from the solution: the mean where L annihilates constants, and any
        resonant mode. Differentiable in both arguments; computed at least in float32.

        Args:
            source: f, shape (..., n, n), n even.
            coefficients: shape (..., c), in the order of `coefficient_names`; leading shapes broadcast.

        Returns:
            Solution u, shape (..., n, n), in the dtype of the source.

        Raises:
            ValueError: on a wrong shape, non-finite values, coefficients for which L is not defined, a source whose
                mean is not zero where it must be, or a solution too large for the dtype.
        """
        self.check(source, coefficients)
        self.check_mean(source)
        solution = self._solved(source, coefficients).to(source.dtype)
        if not is_finite(solution):
            raise ValueError(f"solution: too large for {source.dtype}; scale the source, or pass it as float64")
        return solution

    def _solved(self, source: Tensor, coefficients: Tensor) -> Tensor:
        n = source.shape[-1]
        return inverse_transform(self.solve_hat(transform(source), coefficients, n), n)

    def solve_hat(self, source_hat: Tensor, coefficients: Tensor, n: int) -> Tensor:
        """`solve` between Fourier coefficients (..., n, n // 2 + 1), without checks."""
        return source_hat * self._multiplier_and_null(coefficients, n, source_hat.dtype)[0].to(source_hat.dtype)

    @property
    def mode_by_mode(self) -> bool:
        """Whether `solve` multiplies each mode by `solution_multiplier`: no subclass has a `solve` of its own."""
        return all(_inherited(self, name) for name in ("solve", "solve_hat"))

    def solution_multiplier(
        self, coefficients: Tensor, n: int, dtype: torch.dtype = torch.complex128
    ) -> tuple[Tensor, Tensor]:
        """`multiplier`, zero in the modes that L annihilates, and the mask of those modes.

        The multiplier is float64, or `dtype` where it is complex: an inversion in complex128 is slow.

        Raises:
            ValueError: if a subclass solves in another way.
        """
        check_equation(self)
        if not self.mode_by_mode:
            raise ValueError(f"system {self.name}: no multiplier is known, since it has a solve of its own")
        return self._multiplier_and_null(coefficients, n, dtype)

    def _multiplier_and_null(self, coefficients: Tensor, n: int, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
        symbol, null = self.symbol_and_null(coefficients, n)
        if symbol.is_complex():
            symbol = symbol.to(dtype)
        return self.multiplier(symbol.masked_fill(null, 1), coefficients.double()).masked_fill(null, 0), null

    def preconditioner(self, coefficients: Tensor, n: int) -> Tensor:
        """Size P(k) > 0 of the operator on waves of each length, shape (..., n, n // 2 + 1), for coefficients (..., c).

        The residual of a mode is its error times the symbol, which grows with k: in the plain residual short waves
        count thousands of times as much as the long ones that make up most of a solution. Divided by P, an error
        counts about alike wherever it is, without the operator being inverted.

        Here P is the mean of ``|symbol|`` over all modes of about the same length: those with |k| < 3/2, the mean
        among them, then those nearest to 2, 3, ... So it stays away from zero where the symbol vanishes in one mode.
        It uses how large the symbol is on each of these shells, and neither its direction, nor its sign, nor its
        phase. Of a positive operator that treats all directions alike that is nearly the whole symbol, and the
        residual divided by P nearly the error: that asks for as much knowledge as solving does.
        """
        shell = shells(n, coefficients.device).clamp(min=1).flatten() - 1
        count = parseval_weights(n, device=coefficients.device).expand(n, -1).flatten()
        size = count * self.symbol(coefficients.double(), n).abs().flatten(-2)
        total = size.new_zeros(*size.shape[:-1], int(shell.max()) + 1).index_add(-1, shell, size)
        return (total / torch.bincount(shell, count))[..., shell].unflatten(-1, (n, n // 2 + 1))

    def symbol_bounds(self, coefficients: Tensor, n: int) -> tuple[Tensor, Tensor] | None:
        """``low(k) <= |symbol(k)| <= high(k)`` in the modes that L does not annihilate, from a few numbers of L.

        From these `experiments.error_bounds` makes its certificates. None where nothing is known but the symbol itself.

        Args:
            coefficients: (..., c), in float64.
            n: number of points in each direction.

        Returns:
            Two tensors of shape (..., n, n // 2 + 1).
        """
        return None

    def residual(self, solution: Tensor, source: Tensor, coefficients: Tensor) -> Tensor:
        """Signed residual ``L u - f``, shape (..., n, n), zero for the exact solution.

        The part of f in the null space of L (the mean, a resonant mode) cannot be matched by any u and is left out.

        Raises:
            ValueError: as `solve`.
        """
        self.check(source, coefficients)
        n = source.shape[-1]
        check_grid(solution, "solution")
        leading = broadcast_shapes(source.shape[: -self.input_axes], coefficients.shape[:-1])
        try:
            broadcast_shapes(solution.shape[: -self.output_axes], leading)
        except ValueError:
            raise ValueError(
                f"solution: leading shape {tuple(solution.shape[: -self.output_axes])} does not broadcast with "
                f"{tuple(leading)} of the source and coefficients; pass one solution per source"
            ) from None
        if solution.shape[-2:] != source.shape[-2:]:
            raise ValueError(
                f"solution: expected the grid of the source {tuple(source.shape[-2:])}, "
                f"got {tuple(solution.shape[-2:])}; resample one of them"
            )
        check_equation(self, residual=True)
        residual = inverse_transform(self._residual_modes(solution, source, coefficients)[0], n).to(solution.dtype)
        if not is_finite(residual) and is_finite(solution):
            raise ValueError(f"residual: too large for {solution.dtype}; pass the solution as float64")
        return residual

    def residual_modes(self, solution: Tensor, source: Tensor, coefficients: Tensor) -> tuple[Tensor, Tensor]:
        """Fourier coefficients of `residual`, and the mask of the null modes, in which they are 0; without checks.

        Raises:
            ValueError: if a subclass has a `solve` of its own, but not the `residual` that belongs to it.
        """
        check_equation(self, residual=True)
        if _inherited(self, "residual"):
            return self._residual_modes(solution, source, coefficients)
        residual_hat = transform(self.residual(solution, source, coefficients))
        return residual_hat, torch.zeros_like(residual_hat, dtype=torch.bool)

    def _residual_modes(self, solution: Tensor, source: Tensor, coefficients: Tensor) -> tuple[Tensor, Tensor]:
        symbol, null = self.symbol_and_null(coefficients, source.shape[-1])
        residual_hat = self.residual_hat(transform(solution), transform(source), symbol, coefficients.double())
        return torch.where(null, 0, residual_hat), null

    def residual_hat(self, solution_hat: Tensor, source_hat: Tensor, symbol: Tensor, coefficients: Tensor) -> Tensor:
        """`residual` between Fourier coefficients, null modes not yet left out."""
        return symbol.to(source_hat.dtype) * solution_hat - source_hat

    def check_mean(self, source: Tensor) -> None:
        """Raise ValueError when L annihilates constants and a source has a mean, for which there is no solution."""
        values = known_values(source)
        if not self.zero_mean or values is None or not values.numel():
            return
        values = values.reshape(-1, *values.shape[-2:])
        mean = torch.cat([part.double().mean(dim=(-2, -1)).abs() for part in values.split(16)])  # no copy of them all
        tolerance = 1e-3 if source.dtype in (torch.float16, torch.bfloat16) else 1e-5
        if (mean > tolerance * largest_size(values)).any():
            raise ValueError(
                f"source: {self.name} on a periodic square expects a source of zero mean, got a mean of "
                f"{mean.max():.3g}; subtract source.mean(dim=(-2, -1), keepdim=True)"
            )

    def symbol_and_null(self, coefficients: Tensor, n: int) -> tuple[Tensor, Tensor]:
        """The symbol in float64, and the mask of the modes where it is zero to the rounding of its own terms.

        Near a resonance a symbol is a difference of nearly equal terms. Whether what is left is rounding is judged mode
        by mode: a relative change eps of each coefficient c changes the symbol by ``eps |c d symbol / d c|``, and what
        is not larger than a few of these is zero. (A comparison with the largest symbol of all modes would take every
        long wave of a high-order operator on a fine grid for a null mode.)
        """
        coefficients = coefficients.double()
        symbol = self.symbol(coefficients, n)
        size = _modulus(symbol)
        null = size <= 1e-12 * size.amax(dim=(-2, -1), keepdim=True)  # candidates: rounding is smaller still
        seen = known_values(null & (size > 0))
        if seen is not None and not seen.view(torch.uint8).any():  # in bytes, which is faster
            return symbol, null
        return symbol, null & (size <= self._rounding(coefficients.detach(), n))

    @torch.no_grad()
    def _rounding(self, coefficients: Tensor, n: int) -> Tensor:
        """Rounding error of the symbol in each mode: that of its terms, from their sensitivity to each coefficient."""
        exact, change = self.symbol(coefficients, n), 2.0**-10
        terms = torch.zeros_like(_modulus(exact))
        for i in range(coefficients.shape[-1]):
            factor = torch.ones_like(coefficients[..., :1]).expand(coefficients.shape).clone()
            factor[..., i] += change
            terms += _modulus(self.symbol(coefficients * factor, n) - exact) / change
        return 16 * torch.finfo(torch.float64).eps * terms

    def varied(self, source: Tensor, dial: Tensor) -> Tensor:
        """The same source: the dial is a matter of the coefficients, with which it broadcasts."""
        return source

    def check(self, source: Tensor, coefficients: Tensor) -> None:
        """As `System.check`, on a square grid of an even number of points."""
        check_grid(source, "source")
        super().check(source, coefficients)

    def bad_row(self, coefficients: Tensor) -> tuple[int, str] | None:
        """As `System.bad_row`; nor are zeros the coefficients of an equation."""
        zero = ~coefficients.bool().any(dim=-1)
        return super().bad_row(coefficients) or (
            (int(zero.nonzero()[0]), "all coefficients are 0") if zero.any() else None
        )


def _inherited(system: SpectralSystem, name: str) -> bool:
    """Whether a method is the one of `SpectralSystem`: no subclass, nor the object itself, replaced it."""
    return getattr(type(system), name) is getattr(SpectralSystem, name) and name not in vars(system)


def _modulus(symbol: Tensor) -> Tensor:
    return symbol.real.abs() + symbol.imag.abs() if symbol.is_complex() else symbol.abs()


def spectral(system: System) -> SpectralSystem:
    """A system whose symbol is asked for.

    Raises:
        ValueError: if it has none.
    """
    if not is_spectral(system):
        raise ValueError(
            f"system {system.name}: no Fourier symbol is known of it; ask for what needs only its solutions"
        )
    return system


def is_spectral(system: System) -> TypeGuard[SpectralSystem]:
    """Whether a Fourier symbol solves a system."""
    return isinstance(system, SpectralSystem) and system.is_linear
