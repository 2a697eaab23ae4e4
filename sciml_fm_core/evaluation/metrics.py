"""Metrics of a prediction: relative error, PDE residual, spectra."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor

from sciml_fm_core.physics.spectral import (
    check_grid,
    parseval_weights,
    power_of_two,
    relative_size,
    shells,
    transform,
)


def relative_error(prediction: Tensor, solution: Tensor) -> Tensor:
    """Relative error ``||u - u0|| / ||u0||`` of each example in the discrete L2 norm, for numbers of any size.

    Its mean over a test set is the paper's metric mu, see `mean_relative_error`.

    >>> relative_error(torch.full((2, 4, 4), 1.5), torch.ones(2, 4, 4))
    tensor([0.5000, 0.5000])

    Args:
        prediction: u, shape (..., n, n).
        solution: u0, shape (..., n, n).

    Returns:
        Shape (...). Infinity, and not NaN, for a prediction that is no number: it is never the best of several.
        Where the solution is zero, 0 for a zero prediction and infinity otherwise.

    Raises:
        ValueError: if the shapes differ.
    """
    if prediction.shape != solution.shape:
        raise ValueError(
            f"relative error: expected a prediction of shape {tuple(solution.shape)}, got {tuple(prediction.shape)}"
        )
    unit = power_of_two(solution.abs().amax(dim=(-2, -1), keepdim=True))
    return relative_size(prediction / unit - solution / unit, solution / unit)


def relative_residual(residual: Tensor, source: Tensor) -> Tensor:
    """Relative residual ``||L u - f|| / ||f||``, shape (...), from `System.residual`; 0 or infinity where f is 0."""
    return relative_size(residual, source)


def has_size(target: Tensor, *, batched: bool = False) -> Tensor:
    """Mask, shape (...), of the targets (..., n, n) that are not zero: means of relative errors are over these alone.

    Of a batch of examples the mask has shape (count,): an example of several fields counts where none of them is zero.

    Against a zero solution every prediction but zero is infinitely wrong, by however little: one such example would
    decide a mean, and with it the choice of weights and learning rates, and absolute errors have another unit.
    """
    mask = (target != 0).any(dim=-1).any(dim=-1)
    return mask.flatten(1).all(dim=1) if batched and mask.ndim > 1 else mask


def mean_relative_error(prediction: Tensor, solution: Tensor) -> float:
    """The paper's metric mu: the mean of `relative_error` over all examples whose solution is not zero.

    >>> solution = torch.stack([torch.ones(4, 4), torch.zeros(4, 4)])
    >>> mean_relative_error(solution + 0.5, solution)
    0.5

    Args:
        prediction, solution: shape (..., n, n).

    Raises:
        ValueError: if the shapes differ, or every solution is zero.
    """
    return measured_errors([(prediction, solution)]).mean().item()


def measured_errors(parts: Iterable[tuple[Tensor, Tensor]]) -> Tensor:
    """`relative_error` of the examples whose solution is not zero, shape (count,), float64; at least one.

    Of solutions (count, q, ny, nx) of several fields it is the mean of theirs.

    Args:
        parts: predictions and solutions of some examples each.

    Raises:
        ValueError: if the shapes differ, or every solution is zero.
    """
    errors = torch.cat([_by_example(*part) for part in parts])
    if not len(errors):
        raise ValueError("relative error: expected an example whose solution is not zero, got none to measure on")
    return errors


def statistics_of(errors: Tensor) -> dict[str, float]:
    """``error``, their mean, ``median`` and ``percentile_90`` of errors (count,); infinite where one that is decides.

    >>> statistics_of(torch.tensor([1.0, 2.0, 4.0, 8.0]))["median"]
    3.0
    """
    quantiles = errors.quantile(errors.new_tensor([0.5, 0.9])).nan_to_num(nan=torch.inf, posinf=torch.inf)
    return dict(zip(("error", "median", "percentile_90"), [errors.mean().item(), *quantiles.tolist()], strict=True))


def _by_example(prediction: Tensor, solution: Tensor) -> Tensor:
    error, counts = relative_error(prediction, solution).double(), has_size(solution, batched=True)
    return (error if error.ndim < 2 else error.flatten(1).mean(dim=1))[counts]


def energy_spectrum(field: Tensor) -> Tensor:
    """Energy by wavenumber: ``E(q) = sum |u_hat(k)|^2 / n^4`` over modes with ``q - 1/2 <= |k| < q + 1/2``.

    Args:
        field: shape (..., n, n).

    Returns:
        Shape (..., n // 2), q = 0 .. n / 2 - 1. Summed over all shells it is the mean square of the field, less what
        lies in the corners beyond the last shell.
    """
    n = check_grid(field)
    energy = (transform(field).abs() / n**2) ** 2 * parseval_weights(n, device=field.device).to(field.dtype)
    shell = shells(n, field.device).flatten()
    kept = shell < n // 2
    spectrum = energy.new_zeros(*field.shape[:-2], n // 2)
    return spectrum.index_add_(-1, shell[kept], energy.flatten(-2)[..., kept])
