"""Heavy tails in the spectra of weights: a power law fitted to the squared singular values of each layer.

Martin & Mahoney (arXiv:1810.01075) relate the exponent of the tail to how well a network generalises. The fit is that
of Clauset, Shalizi & Newman (arXiv:0706.1062).
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import NamedTuple

import torch
from torch import Tensor

from sciml_fm_core.models.base import Model
from sciml_fm_core.models.fno import SpectralConvolution

FEWEST = 10
"""Values that a tail needs."""


CANDIDATES = 400
"""Values of x_min that are tried where there are more, evenly in their order."""


class PowerLaw(NamedTuple):
    """A density ``p(x) ~ x^-alpha`` for x >= x_min.

    ``distance`` is that of Kolmogorov and Smirnov between the tail and the law; ``size`` the number of values in it.
    """

    alpha: float
    x_min: float
    distance: float
    size: int


def fit_power_law(values: Tensor, *, fewest: int = FEWEST) -> PowerLaw:
    """The power law that fits the tail of positive values best.

    For each candidate x_min among the values, maximum likelihood gives
    ``alpha = 1 + count / sum log(x_i / x_min)`` over the values ``x_i >= x_min``; chosen is the x_min whose law has the
    smallest Kolmogorov-Smirnov distance to them (arXiv:0706.1062, eqs. 3.1 and 3.9).

    >>> uniform = torch.rand(4000, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    >>> abs(fit_power_law((1 - uniform) ** (-1 / 1.5)).alpha - 2.5) < 0.1  # a Pareto law with alpha = 2.5
    True

    Args:
        values: shape (count,), positive.
        fewest: values that the tail must have.

    Raises:
        ValueError: on another shape, values that are not finite and positive, or too few different ones.
    """
    if values.ndim != 1 or len(values) < fewest or fewest < 2:
        raise ValueError(f"power law: expected at least {max(fewest, 2)} values, got shape {tuple(values.shape)}")
    x = values.double().sort().values
    if not (torch.isfinite(x).all() and x[0] > 0):
        raise ValueError("power law: expected finite values above 0; leave out those that are zero")
    logarithms, best = x.log(), None
    last = len(x) - fewest
    for first in sorted({round(last * i / CANDIDATES) for i in range(CANDIDATES + 1)}):
        if first and x[first] == x[first - 1]:
            continue
        off = logarithms[first:] - logarithms[first]
        count, total = len(off), off.sum().item()
        if not total:
            break
        alpha = 1 + count / total
        law = 1 - torch.exp((1 - alpha) * off)
        steps = torch.arange(count + 1, dtype=torch.float64, device="cpu") / count
        distance = torch.maximum((law - steps[:-1]).abs().max(), (steps[1:] - law).abs().max()).item()
        if best is None or distance < best.distance:
            best = PowerLaw(alpha, x[first].item(), distance, count)
    if best is None:
        raise ValueError("power law: expected values that differ, got equal ones")
    return best


def layer_spectra(model: Model) -> dict[str, Tensor]:
    """Squared singular values of each layer with two or more input and output channels, by name of its weight.

    A convention of ours: the weight of a spectral layer, shape (2, modes, d, d), is a complex matrix of channels on
    each Fourier mode; the singular values of all modes are pooled. Any other weight of more than two axes is a matrix
    of its first axis against all others. What is zero to rounding is left out.

    >>> from sciml_fm_core import load_operator
    >>> spectra = layer_spectra(load_operator("sys-1").model)
    >>> all((values > 0).all() for values in spectra.values())
    True
    """
    spectral = {f"{path}.weight" for path, layer in model.named_modules() if isinstance(layer, SpectralConvolution)}
    return {
        name: values
        for name, weight in model.tensors().items()
        if weight.ndim >= 2 and len(values := _squared_singular_values(weight.detach().cpu(), name in spectral)) >= 2
    }


def fit_layers(spectra: Mapping[str, Tensor], *, fewest: int = FEWEST) -> dict[str, PowerLaw]:
    """The law of each layer, by name, from `layer_spectra`.

    Layers of fewer than twice as many singular values as a tail needs are left out.
    """
    return {name: fit_power_law(values, fewest=fewest) for name, values in spectra.items() if len(values) >= 2 * fewest}


def mean_exponent(model: Model, *, fewest: int = FEWEST) -> float:
    """Mean over layers of the exponent alpha of `fit_layers`, the summary of Martin & Mahoney; NaN without any."""
    found = [law.alpha for law in fit_layers(layer_spectra(model), fewest=fewest).values()]
    return sum(found) / len(found) if found else math.nan


def _squared_singular_values(weight: Tensor, spectral: bool) -> Tensor:
    matrices = torch.complex(*weight.double().unbind(0)) if spectral else weight.double().flatten(1)
    squares = torch.linalg.svdvals(matrices).square().flatten()
    return squares[squares > 1e-12 * squares.max()] if len(squares) else squares
