"""Measures of an uncertainty: bands and their coverage, scores, conformal calibration, constraints.

A band is ``|u - u0| <= width`` at each point; its width is a factor times a spread, which may come from an ensemble or
from anywhere else. Of a band it is asked whether it holds what it should, and of two that do, which one is narrower.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor

from sciml_fm_core.experiments.ranks import ranks
from sciml_fm_core.physics.spectral import inverse_transform, root_mean_square, transform
from sciml_fm_core.physics.spectral_system import spectral
from sciml_fm_core.physics.system import System

GAUSSIAN_90 = 1.6448536269514722
"""Standard deviations on each side of the mean that hold 90 % of a Gaussian."""


def covered(mean: Tensor, width: Tensor, solution: Tensor) -> Tensor:
    """Share of the points of each example at which ``|mean - solution| <= width``.

    >>> covered(torch.zeros(1, 2, 2), torch.ones(1, 2, 2), torch.tensor([[[0.5, -0.9], [1.0, 2.0]]]))
    tensor([0.7500])

    Args:
        mean, width, solution: shape (..., n, n); the width broadcasts.

    Returns:
        Shape (...).
    """
    inside = (mean - solution).abs() <= width
    return inside.to(mean.dtype).mean(dim=(-2, -1))


def relative_width(width: Tensor, solution: Tensor) -> Tensor:
    """Mean of a band's half width over the root mean square of the solution of each example, shape (...)."""
    return width.expand_as(solution).mean(dim=(-2, -1)) / root_mean_square(solution)


def gaussian_crps(mean: Tensor, spread: Tensor, value: Tensor) -> Tensor:
    """Continuous ranked probability score of Gaussians, point by point; lower is better, in the units of the field.

    With ``z = (value - mean) / spread``, ``spread (z (2 Phi(z) - 1) + 2 phi(z) - 1 / sqrt(pi))``, Gneiting and Raftery
    2007, equation 21. Where the spread is zero it is ``|value - mean|``.

    >>> one, zero = torch.ones(1), torch.zeros(1)
    >>> round(gaussian_crps(zero, one, zero).item(), 4), gaussian_crps(zero, zero, one).item()
    (0.2337, 1.0)

    Raises:
        ValueError: if a spread is negative.
    """
    if (spread < 0).any():
        raise ValueError("CRPS: expected a spread of at least 0; pass a standard deviation")
    safe = torch.where(spread > 0, spread, 1)
    z = (value - mean) / safe
    density = torch.exp(-0.5 * z.square()) / math.sqrt(2 * math.pi)
    score = safe * (z * torch.erf(z / math.sqrt(2)) + 2 * density - 1 / math.sqrt(math.pi))
    return torch.where(spread > 0, score, (value - mean).abs())


# Conformal calibration ------------------------------------------------------------------------------------------------


def conformal_scores(mean: Tensor, spread: Tensor, solution: Tensor, coverage: float = 0.9) -> Tensor:
    """Smallest factor of the spread by which a band holds a share of the points of each example.

    The ``coverage`` quantile over the points of ``|mean - solution| / spread``: the lowest of these ratios that is no
    smaller than that share of them.

    Args:
        mean, spread, solution: shape (..., n, n); the spread broadcasts.
        coverage: share of the points that the band is to hold. UQNO (Ma et al., arXiv:2402.01960) calls 1 minus this
            alpha; the configuration that ships with its code says alpha 0.9 where the code takes a coverage.

    Returns:
        Shape (...).

    Raises:
        ValueError: if the coverage is not in (0, 1], or a spread is negative.
    """
    if not 0 < coverage <= 1:
        raise ValueError(f"coverage: expected a share in (0, 1], got {coverage}")
    if (spread < 0).any():
        raise ValueError("conformal scores: expected a spread of at least 0; pass a standard deviation")
    error = (mean - solution).abs()
    ratio = torch.where(error == 0, torch.zeros_like(error), error / spread).flatten(-2)
    return ratio.kthvalue(_rank(coverage * ratio.shape[-1]), dim=-1).values


def conformal_factor(scores: Tensor, confidence: float = 0.9) -> float:
    """Factor of the spread that is large enough for a new example with a probability of at least ``confidence``.

    The ``ceil((N + 1) confidence)``-th smallest of the scores of N calibration examples: that holds for any spread and
    any error, if only the new example is drawn as the calibration examples were (split conformal prediction; Vovk et
    al. 2005). Of an example drawn otherwise nothing is promised.

    >>> conformal_factor(torch.arange(1.0, 10.0), confidence=0.9), conformal_factor(torch.arange(1.0, 20.0), 0.9)
    (9.0, 18.0)

    Args:
        scores: of the calibration examples, shape (N,), see `conformal_scores`.
        confidence: share of the examples whose band is to hold what it should.

    Raises:
        ValueError: if there are too few calibration examples for that confidence.
    """
    if not 0 < confidence < 1:
        raise ValueError(f"confidence: expected a share in (0, 1), got {confidence}")
    count = scores.numel()
    rank = _rank((count + 1) * confidence)
    if rank > count:
        raise ValueError(
            f"calibration: {count} examples are too few for a confidence of {confidence:g}; give at least "
            f"{_rank(confidence / (1 - confidence))}"
        )
    return scores.flatten().kthvalue(rank).values.item()


def _rank(value: float) -> int:
    """The whole number at or above a value that rounding may have raised."""
    return max(1, math.ceil(value - 1e-9))


# Whether a signal knows where the error is ----------------------------------------------------------------------------


class Correlation(NamedTuple):
    """Pearson correlation of the logarithms of two positive quantities over examples, and Spearman's of their ranks."""

    pearson: float
    spearman: float


def log_correlation(first: Tensor, second: Tensor) -> Correlation:
    """`Correlation` of two positive quantities, shape (N,), such as sizes of spreads and errors.

    Equal values have equal ranks, the mean of those they take up. What does not vary correlates with nothing: 0.

    >>> log_correlation(torch.tensor([1.0, 10.0, 100.0]), torch.tensor([2.0, 4.0, 8.0]))
    Correlation(pearson=1.0, spearman=1.0)

    Raises:
        ValueError: on other shapes, fewer than three examples, or values that are not positive.
    """
    if first.ndim != 1 or first.shape != second.shape or len(first) < 3:
        raise ValueError(
            f"correlation: expected three values or more of each, got {tuple(first.shape)}, {tuple(second.shape)}"
        )
    if not ((first > 0) & (second > 0)).all():
        raise ValueError("correlation: expected values above 0, as their logarithms are compared")
    logs = torch.stack([first, second]).double().log()
    found = (torch.corrcoef(pairs)[0, 1].nan_to_num().item() for pairs in (logs, torch.stack([*map(ranks, logs)])))
    return Correlation(*(round(each, 12) for each in found))


def preconditioned_step(solution: Tensor, source: Tensor, coefficients: Tensor, system: System) -> Tensor:
    """Change by one step of a preconditioned iteration: ``(L u - f) / P``, mode by mode, shape (..., n, n).

    An estimate of the error that needs the equation and no other network; P is the system's `preconditioner`.

    Raises:
        ValueError: as `System.residual`.
    """
    n = source.shape[-1]
    residual_hat = transform(system.residual(solution, source, coefficients))
    return inverse_transform(
        residual_hat / spectral(system).preconditioner(coefficients, n).to(residual_hat.real.dtype), n
    )


# Constraints ----------------------------------------------------------------------------------------------------------


def probconserv(mean: Tensor, spread: Tensor, constraints: Tensor, values: Tensor) -> Tensor:
    """The mean of a Gaussian field given that it satisfies linear constraints ``G u = b`` exactly.

    ``u + S G^T (G S G^T)^-1 (b - G u)`` with the covariance ``S = diag(spread^2)``: where the field is uncertain it
    gives way (ProbConserv: Hansen et al., arXiv:2302.11002, equation 7 without noise). A constraint is meant to be one
    number that is known of each solution, such as its mean. With the equation of every mode as constraints, G has an
    inverse, whatever the mean and the spread, and the result is the exact solution: that is solving, not updating.

    Args:
        mean, spread: shape (..., n, n).
        constraints: rows of G, shape (rows, n, n).
        values: b, shape (..., rows).

    Returns:
        Shape (..., n, n).

    Raises:
        ValueError: on other shapes, or where the spread leaves no way to satisfy the constraints.

    >>> u, spread = torch.zeros(4, 4), torch.eye(4)
    >>> mean = torch.full((1, 4, 4), 1 / 16)
    >>> probconserv(u, spread, mean, torch.tensor([1.0])).diagonal()
    tensor([4., 4., 4., 4.])
    """
    rows = len(constraints)
    if constraints.shape[1:] != mean.shape[-2:] or mean.shape != spread.shape or values.shape[-1:] != (rows,):
        raise ValueError(
            "probconserv: expected a mean and a spread (..., n, n), constraints (rows, n, n) and values (..., rows), "
            f"got {tuple(mean.shape)}, {tuple(spread.shape)}, {tuple(constraints.shape)} and {tuple(values.shape)}"
        )
    matrix = constraints.flatten(1)  # (rows, points)
    spread_to = spread.square().flatten(-2).unsqueeze(-2) * matrix  # (..., rows, points)
    missing = values - mean.flatten(-2) @ matrix.T
    factors, info = torch.linalg.solve_ex(spread_to @ matrix.T, missing.unsqueeze(-1))
    if info.any():
        raise ValueError("probconserv: the spread is zero where a constraint needs a change; give it a least value")
    return mean + (factors * spread_to).sum(dim=-2).unflatten(-1, mean.shape[-2:])


def known_mean(source: Tensor, coefficients: Tensor, system: System) -> Tensor:
    """Mean of the solution as the equation gives it, ``mean(f) multiplier(0)``, shape (...); 0 where L annihilates it.

    >>> from sciml_fm_core.physics.system import find_system
    >>> known_mean(torch.ones(4, 4), torch.tensor([0.01, 2.0]), find_system("SYS-3"))
    tensor(-0.5000)
    """
    multiplier, _ = spectral(system).solution_multiplier(coefficients, 4)
    return source.mean(dim=(-2, -1)) * multiplier[..., 0, 0].real.to(source.dtype)
