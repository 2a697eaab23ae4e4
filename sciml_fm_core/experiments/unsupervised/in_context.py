"""Predictions mended by a few solved examples at test time, with no training: by nearest predicted values, by a factor.

Chen et al., arXiv:2402.15734, and its released code (github.com/delta-lab-ai/data_efficient_nopt, ``forward_icl``).
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

NEIGHBOURS = 20.0
"""Neighbours of a point, times the root of the number of examples, in the released code."""
RESOLVED = 1e-10
"""Share of the variance of all true values below which that of a few is zero, as prefix sums cannot tell."""


def in_context(
    prediction: Tensor,
    example_predictions: Tensor,
    example_solutions: Tensor,
    *,
    neighbours: float = NEIGHBOURS,
    spread: float | None = None,
) -> Tensor:
    """Replace each predicted value by the mean true value of the examples' points that were predicted alike.

    Of a point of a query with predicted value p, the neighbours are the ``k = int(neighbours * sqrt(J))`` points, among
    all points of all J examples, whose predicted values are nearest to p (of those equally far, smaller ones). With
    their true values t, the answer is ``mean(t)`` where they agree, ``std(t) / |mean(t)| <= spread``, and p elsewhere.
    Which network it was, where the points are and what the equation is play no part: whatever is a function of the
    predicted value can be mended, and nothing else.

    Values on a line that are sorted have their k nearest side by side, from the number of midpoints
    ``(v_i + v_(i+k)) / 2`` below p on, so that one sort and one search find all of them, and prefix sums their moments:
    O((N + M) log N) for N points of examples and M of queries, where the released code compares all pairs.

    >>> u = torch.linspace(-1, 1, 16).reshape(1, 4, 4)
    >>> torch.allclose(in_context(u**3, u**3, u, neighbours=1), u)  # a network that cubes the truth
    True

    Args:
        prediction: of the queries, shape (..., n, n).
        example_predictions: the same network's predictions of J solved examples, shape (J, m, m).
        example_solutions: their true solutions, shape (J, m, m).
        neighbours: k over sqrt(J).
        spread: up to which relative spread neighbours agree; ``math.inf`` to believe them everywhere. Where None, up to
            the mean relative spread over the points of the query, the rule of the released code: about half of them.

    Returns:
        As the prediction, which it is where there are no examples.

    Raises:
        ValueError: if the shapes of the examples differ, or a value is not positive.
    """
    if example_predictions.shape != example_solutions.shape or example_predictions.ndim != 3:
        raise ValueError(
            "in context: expected predictions and solutions of the examples of one shape (J, m, m), got "
            f"{tuple(example_predictions.shape)} and {tuple(example_solutions.shape)}"
        )
    if not neighbours > 0 or (spread is not None and not spread > 0):
        raise ValueError(f"in context: expected neighbours and spread above 0, got {neighbours} and {spread}")
    count = len(example_predictions)
    if not count:
        return prediction
    values, truths = example_predictions.flatten().double(), example_solutions.flatten().double()
    # by truth, then stably by prediction: equal predictions have an order that is not that of the examples
    order = truths.argsort()
    order = order[values[order].argsort(stable=True)]
    values, truths = values[order], truths[order]
    k = min(max(1, int(neighbours * math.sqrt(count))), len(values))
    first = torch.searchsorted((values[:-k] + values[k:]) / 2, prediction.double().contiguous())
    centre = truths.mean()  # sums of squares lose fewer digits about it
    mean = _window_means(truths - centre, first, k)
    square = _window_means((truths - centre).square(), first, k)
    variance = square - mean.square()
    lost = RESOLVED * (truths - centre).square().mean()
    deviation = torch.where(variance > lost, variance, 0).clamp(min=0).sqrt()
    mean = mean + centre
    relative = deviation / mean.abs().clamp(min=torch.finfo(torch.float64).tiny)
    limit = relative.mean(dim=(-2, -1), keepdim=True) if spread is None else spread
    return torch.where(relative <= limit, mean, prediction.double()).to(prediction.dtype)


def _window_means(values: Tensor, first: Tensor, k: int) -> Tensor:
    """Means of k values in a row, from each of the first ones on."""
    sums = torch.cat([values.new_zeros(1), values.cumsum(0)])
    return (sums[first + k] - sums[first]) / k


def scale_factor(predictions: Tensor, solutions: Tensor) -> Tensor:
    """The factor a that fits ``a * prediction`` to the solutions best, ``sum(p u) / sum(p p)`` over all points.

    What a few solved examples give for nothing, and so what `in_context` is to be compared with.

    >>> u = torch.linspace(-1, 1, 16).reshape(1, 4, 4)
    >>> scale_factor(2 * u, u)
    tensor(0.5000)

    Args:
        predictions, solutions: of the examples, of one shape (J, m, m).

    Returns:
        A number; 1 where there are no examples or all predictions are zero.

    Raises:
        ValueError: if the shapes differ.
    """
    if predictions.shape != solutions.shape:
        raise ValueError(
            f"scale factor: expected predictions of shape {tuple(solutions.shape)}, got {tuple(predictions.shape)}"
        )
    p, u = predictions.double(), solutions.double()
    size = p.square().sum()
    return torch.where(size > 0, (p * u).sum() / torch.where(size > 0, size, 1), 1).to(predictions.dtype)
