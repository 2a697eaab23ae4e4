"""How far a prediction is from the solution: relative error, PDE residual, spectra."""

from __future__ import annotations

import torch
from torch import Tensor

from sciml_fm_core.physics.spectral import check_grid, parseval_weights, transform, wavenumbers


def relative_error(prediction: Tensor, solution: Tensor) -> Tensor:
    """``||u - u0|| / ||u0||`` of each example in the discrete L2 norm.

    Its mean over a test set is the paper's metric mu.

    >>> relative_error(torch.full((2, 4, 4), 1.5), torch.ones(2, 4, 4))
    tensor([0.5000, 0.5000])

    Args:
        prediction: u, shape (..., n, n).
        solution: u0, shape (..., n, n).

    Returns:
        Shape (...). Where the solution is zero, 0 for a zero prediction and infinity otherwise.

    Raises:
        ValueError: if the shapes differ.
    """
    if prediction.shape != solution.shape:
        raise ValueError(
            f"relative error: expected a prediction of shape {tuple(solution.shape)}, got {tuple(prediction.shape)}"
        )
    difference = torch.linalg.vector_norm(prediction - solution, dim=(-2, -1))
    size = torch.linalg.vector_norm(solution, dim=(-2, -1))
    return torch.where(difference == 0, torch.zeros_like(size), difference / size)


def relative_residual(residual: Tensor, source: Tensor) -> Tensor:
    """``||L u - f|| / ||f||`` of each example, shape (...), from `System.residual`."""
    return torch.linalg.vector_norm(residual, dim=(-2, -1)) / torch.linalg.vector_norm(source, dim=(-2, -1))


def energy_spectrum(field: Tensor) -> Tensor:
    """Energy by wavenumber: ``E(q) = sum |u_hat(k)|^2 / n^4`` over modes with ``q - 1/2 <= |k| < q + 1/2``.

    Args:
        field: shape (..., n, n).

    Returns:
        Shape (..., n // 2), q = 0 .. n / 2 - 1. Summed over all shells it is the mean square of the field, less what
        lies in the corners beyond the last shell.
    """
    n = check_grid(field)
    energy = transform(field).abs() ** 2 * parseval_weights(n, device=field.device).to(field.dtype) / n**4
    kx, ky = wavenumbers(n, device=field.device)
    shell = torch.round(torch.hypot(kx, ky)).long().flatten()
    kept = shell < n // 2
    spectrum = energy.new_zeros(*field.shape[:-2], n // 2)
    return spectrum.index_add_(-1, shell[kept], energy.flatten(-2)[..., kept])
