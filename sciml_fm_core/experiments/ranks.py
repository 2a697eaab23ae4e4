"""Statistics of ranks: how well a score tells two groups apart, and whether two quantities rise together."""

from __future__ import annotations

import torch
from torch import Tensor


def ranks(values: Tensor) -> Tensor:
    """Ranks 1 .. count of values (count,), float64; equal values share the mean of theirs.

    >>> ranks(torch.tensor([3.0, 1.0, 3.0])).tolist()
    [2.5, 1.0, 2.5]
    """
    _, inverse, counts = values.unique(return_inverse=True, return_counts=True)
    last = counts.cumsum(0).double()
    return (last - (counts - 1) / 2)[inverse]


def area_under_roc(score: Tensor, positive: Tensor) -> float:
    """Area under the receiver operating characteristic: the chance that a positive case has the higher score.

    Equal scores count half: 1 tells all cases apart, 1/2 none. It is the statistic of Mann and Whitney (1947),
    ``(R - p (p + 1) / 2) / (p q)`` with R the sum of the ranks of the p positive cases among all p + q.

    >>> area_under_roc(torch.tensor([0.1, 0.4, 0.35, 0.8]), torch.tensor([False, False, True, True]))
    0.75

    Args:
        score: shape (count,).
        positive: of the same shape, boolean.

    Returns:
        The area, NaN where all cases are positive or none is.

    Raises:
        ValueError: on another shape, or a score that is not a number.
    """
    _check_pair(score, positive, "score and positive")
    wanted = positive.bool()
    p, q = int(wanted.sum()), int((~wanted).sum())
    if not p or not q:
        return float("nan")
    return ((ranks(score)[wanted].sum() - p * (p + 1) / 2) / (p * q)).item()


def roc_curve(score: Tensor, positive: Tensor) -> tuple[Tensor, Tensor]:
    """Shares of the negative and of the positive cases at or above each threshold, from none to all, shape (t + 1,).

    By the trapezoidal rule its area is `area_under_roc`.

    >>> false, true = roc_curve(torch.tensor([0.1, 0.4, 0.35, 0.8]), torch.tensor([False, False, True, True]))
    >>> false.tolist(), true.tolist()
    ([0.0, 0.0, 0.5, 0.5, 1.0], [0.0, 0.5, 0.5, 1.0, 1.0])

    Raises:
        ValueError: on another shape, a score that is not a number, or if all cases are positive or none is.
    """
    _check_pair(score, positive, "score and positive")
    wanted = positive.bool()
    if wanted.all() or not wanted.any():
        raise ValueError("roc curve: expected cases of both kinds, got one; change the level that parts them")
    values, inverse = score.unique(return_inverse=True)
    shares = []
    for group in (~wanted, wanted):
        count = torch.zeros(len(values), dtype=torch.float64, device="cpu").index_add_(0, inverse, group.double())
        shares.append(torch.cat([count.new_zeros(1), count.flip(0).cumsum(0)]) / count.sum())
    return shares[0], shares[1]


def rank_correlation(x: Tensor, y: Tensor, *, generator: torch.Generator, draws: int = 9999) -> tuple[float, float]:
    """Spearman's rank correlation, and its p-value against any order by chance.

    The correlation of the `ranks`; the p-value is the share of random permutations of y, and of the data themselves,
    whose correlation is at least as large in size.

    >>> x = torch.arange(8.0)
    >>> correlation, p = rank_correlation(x, x**3, generator=torch.Generator().manual_seed(0))
    >>> round(correlation, 12), p < 0.001
    (1.0, True)

    Args:
        x, y: shape (count,), at least three.
        generator: of the permutations.
        draws: number of them.

    Returns:
        The correlation, NaN where one of both is constant, and the p-value.

    Raises:
        ValueError: on another shape, fewer than three values, or one that is not a number.
    """
    _check_pair(x, y, "x and y")
    if len(x) < 3:
        raise ValueError(f"rank correlation: expected at least 3 pairs, got {len(x)}")
    first, second = (ranks(values) - (len(x) + 1) / 2 for values in (x, y))
    size = (first.square().sum() * second.square().sum()).sqrt()
    if not size:
        return float("nan"), float("nan")
    found = (first @ second / size).item()
    orders = torch.rand(draws, len(x), generator=generator, dtype=torch.float64, device="cpu").argsort(dim=1)
    chance = (second[orders] @ first / size).abs()
    return found, (1 + int((chance >= abs(found) - 1e-12).sum())) / (1 + draws)


def _check_pair(x: Tensor, y: Tensor, name: str) -> None:
    if x.ndim != 1 or x.shape != y.shape or not len(x):
        raise ValueError(
            f"{name}: expected one value of each per case, got shapes {tuple(x.shape)} and {tuple(y.shape)}"
        )
    if x.isnan().any() or (y.is_floating_point() and y.isnan().any()):
        raise ValueError(f"{name}: expected numbers, got NaN; leave those cases out")
