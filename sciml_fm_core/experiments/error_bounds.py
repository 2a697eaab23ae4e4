"""A certificate: bounds of the error of a prediction from its residual; the equation is not solved.

What is known of a prediction u without a solution is its residual ``r = f - L u``. Mode by mode the error is
``u - u0 = -r / symbol``, so bounds of the size of the symbol are bounds of the error. Classical a posteriori estimates
(Verfürth, A Posteriori Error Estimation Techniques for Finite Element Methods, 2013, ch. 1) know a few numbers of an
operator: its constants of ellipticity and continuity, or its distance to a resonance. These are what
`System.symbol_bounds` declares. The symbol itself would give the solution, and leave nothing to be bounded: the
residual is formed with it, and nothing is divided by it.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from sciml_fm_core.eager import known_values
from sciml_fm_core.physics.spectral import broadcast_shapes, check_finite, parseval_weights, power_of_two, transform
from sciml_fm_core.physics.spectral_system import SpectralSystem, spectral
from sciml_fm_core.physics.system import System, find_system

ROUNDING = 1e-12
"""Margin for rounding, as a share of the solution and of the bound: the symbol that a residual is multiplied by is the
one that a solution is divided by, so an error is off by a few rounding errors of prediction and solution, no more."""
TRACED_STEPS = 8
"""Steps of `_fixed_point` where nobody can look whether it has arrived."""
SMALLEST = 1e-50
"""Symbols below it count as this: infinity times a residual of zero would be no number."""


class ErrorBounds(NamedTuple):
    """Bounds ``lower <= ||u - u0|| / ||u0|| <= upper`` of each example, shape (...), float64; infinity is no bound."""

    lower: Tensor
    upper: Tensor


@torch.no_grad()
def error_bounds(prediction: Tensor, source: Tensor, coefficients: Tensor, system: System | str) -> ErrorBounds:
    """Two-sided bounds of the relative error ``||u - u0|| / ||u0||`` of a prediction, from its residual alone.

    With ``low(k) <= |symbol(k)| <= high(k)`` and ``r = f - L u``, in the norm of L2 by Parseval, the sharpest counts of

    - the triangle inequality: the error e is between ``||r / high||`` and ``||r / low||``, and the size of the solution
      between ``||u|| - e`` and ``||u|| + e``;
    - that error and solution are divided by the same unknown symbol, ``||r / s|| / ||f / s||``, of which the smallest
      and the largest value over all s between low and high are found exactly;
    - where the symbol is positive, the same of ``||r / s|| / ||u + r / s||``, which knows where an error adds to the
      prediction and where it takes away from it.

    Modes that L annihilates are zero in the solution: what a prediction has there is error, and known exactly.

    For SYS-1, low and high are ``4 pi^2 |k|^2`` times the eigenvalues of K; bounds of a good prediction are at most as
    far apart as these. For SYS-2, low is the constant of coercivity; for SYS-3 an inf-sup constant,
    which vanishes towards a resonance: the upper bound is then of no use, or infinite.

    >>> import torch
    >>> from sciml_fm_core import draw_split, load_operator, relative_error, Task
    >>> examples = draw_split(Task.parse("SYS-1(5,10)"), "test", 4, resolution=32)
    >>> prediction = load_operator("sys-1").predict(examples.source, examples.coefficients)
    >>> bounds = error_bounds(prediction, examples.source, examples.coefficients, "poisson")
    >>> error = relative_error(prediction, examples.solution)
    >>> bool(((bounds.lower <= error) & (error <= bounds.upper)).all())
    True

    Args:
        prediction: u, shape (..., n, n); computed with in float64, whatever its dtype.
        source: f, shape (..., n, n), of zero mean where the system asks for it.
        coefficients: shape (..., c), in the order of the system; leading shapes broadcast.
        system: the PDE, or its name.

    Returns:
        Bounds of shape (...): 0 and infinity for a system that declares no `symbol_bounds`, or whose solution is not
        the source divided by the symbol, such as an evolution. Where the solution is zero the error is 0 or infinite,
        as that of `relative_error`.

    Raises:
        ValueError: on wrong shapes, values that are not finite, a source whose mean is not zero where it must be, or
            coefficients for which L is not defined; or for a system without a symbol.
    """
    system = spectral(find_system(system) if isinstance(system, str) else system)
    system.check(source, coefficients)
    n = source.shape[-1]
    system.check_mean(source)
    if prediction.shape[-2:] != source.shape[-2:]:
        raise ValueError(
            f"prediction: expected the grid of the source {tuple(source.shape[-2:])}, got "
            f"{tuple(prediction.shape[-2:])}; resample one of them"
        )
    shape = broadcast_shapes(prediction.shape[:-2], source.shape[:-2], coefficients.shape[:-1])
    coefficients = coefficients.double()
    own = (
        getattr(type(system), name) is getattr(SpectralSystem, name)
        for name in ("multiplier", "residual_hat", "residual")
    )
    divides = system.mode_by_mode and all(own)
    known = system.symbol_bounds(coefficients, n) if divides else None
    if known is None:
        check_finite(prediction, "prediction")
        nothing = torch.zeros(shape, dtype=torch.float64, device=source.device)
        return ErrorBounds(nothing, nothing + torch.inf)

    symbol, null = system.symbol_and_null(coefficients, n)
    # The bounds are those of both multiplied by a number; so no square of theirs overflows or vanishes.
    prediction, source = prediction.double(), source.double()
    unit = power_of_two(torch.maximum(*(each.abs().amax(dim=(-2, -1), keepdim=True) for each in (prediction, source))))
    prediction, source = prediction / unit, source / unit
    count = parseval_weights(n, device=source.device)
    kept = count.masked_fill(null, 0)
    low, high = (bound.clamp(min=SMALLEST).masked_fill(null, 1).flatten(-2) for bound in known)
    prediction_hat, source_hat = transform(prediction), transform(source)
    residual_hat = system.residual_hat(prediction_hat, source_hat, symbol, coefficients)  # L u - f
    predicted, residual, given = (
        _product(values, values, weights)
        for values, weights in ((prediction_hat, count), (residual_hat, kept), (source_hat, kept))
    )
    removed = (predicted * null.flatten(-2)).sum(-1)
    shortest, longest = 1 / high, 1 / low  # 1 / symbol is between them
    size = predicted.sum(-1).sqrt()
    check_finite(size, "prediction")
    smallest, largest = ((_sum(residual, inverse**2) + removed).sqrt() for inverse in (shortest, longest))
    lower = smallest / (size + smallest)
    upper = torch.where(largest < size, largest / (size - largest), torch.inf)

    # Sums over the modes with 1 / symbol at its smallest, and what is added where it is at its largest.
    error, more_error = _sum(residual, shortest**2) + removed, residual * (longest**2 - shortest**2)
    if system.positive:
        mixed = _product(prediction_hat, residual_hat, -2 * kept)
        solution = size**2 - removed + _sum(mixed, shortest) + error - removed
        more_solution = mixed * (longest - shortest) + more_error
        # With R the ratio, 1 / s at its largest is the worse end where R / (1 - R) is below this.
        turn = (residual * (shortest + longest) / mixed).masked_fill(mixed <= 0, torch.inf)

        def by_prediction(ratio: Tensor) -> Tensor:
            """Ratio ``||r / s||^2 / ||u + r / s||^2``, largest at the ends of each 1 / s as long as it is below 1."""
            chosen = (turn > (ratio / (1 - ratio))[..., None]).double()
            off, whole = error + _sum(chosen, more_error), solution + _sum(chosen, more_solution)
            return torch.where((off < whole) & (ratio < 1), off / whole, torch.inf)

        upper = torch.minimum(upper, _fixed_point(by_prediction, upper.clamp(max=0.5).square()).sqrt())
    solution, more_solution = _sum(given, shortest**2), given * (longest**2 - shortest**2)
    turn = residual / given

    def by_source(above: bool) -> Callable[[Tensor], Tensor]:
        """Ratio ``||r / s||^2 / ||f / s||^2``, 1 / s at its largest in the modes whose own ratio is above, or below."""

        def step(ratio: Tensor) -> Tensor:
            chosen = (turn > ratio[..., None] if above else turn <= ratio[..., None]).double()
            return (error + _sum(chosen, more_error)) / (solution + _sum(chosen, more_solution))

        return step

    start = torch.where(upper < torch.inf, upper, 1.0).square()
    upper = torch.minimum(upper, _fixed_point(by_source(True), start).sqrt())
    lower = torch.maximum(lower, _fixed_point(by_source(False), lower.square()).sqrt())

    zero = given.sum(-1) == 0  # then so is the solution
    lower, upper = (torch.where(zero, torch.inf, bound).masked_fill(largest == 0, 0) for bound in (lower, upper))
    lower = (lower * (1 - ROUNDING) - ROUNDING).clamp(min=0)
    return ErrorBounds(lower.expand(shape), (upper * (1 + ROUNDING) + ROUNDING).expand(shape))


def _product(a: Tensor, b: Tensor, weights: Tensor) -> Tensor:
    """``weights Re(conj(a) b)`` of each mode, shape (..., modes)."""
    return ((a.real * b.real).addcmul_(a.imag, b.imag) * weights).flatten(-2)


def _sum(values: Tensor, weights: Tensor) -> Tensor:
    return torch.linalg.vecdot(values, weights)


def _fixed_point(step: Callable[[Tensor], Tensor], ratio: Tensor) -> Tensor:
    """Extreme ratio of two sums over modes (Dinkelbach 1967, On Nonlinear Fractional Programming).

    Given a ratio, a step finds in each mode for itself what is best against it; the ratio of that is a better one, from
    the second step on without fail, and after a few steps nothing is left to change. What is traced takes as
    many steps as `TRACED_STEPS` says.
    """
    for steps in itertools.count(1):
        found = step(ratio)
        changed = known_values((found - ratio).abs() > 1e-13 * ratio)
        if steps == TRACED_STEPS if changed is None else not changed.any():
            return found
        ratio = found
    raise AssertionError("unreachable")
