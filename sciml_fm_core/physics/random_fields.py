"""Smooth Gaussian random fields on the periodic unit square."""

from __future__ import annotations

import torch
from torch import Tensor

from .spectral import check_grid, laplacian, wavenumbers

EXPONENT = 2.5
INVERSE_LENGTH = 4 * torch.pi


def random_field(
    noise: Tensor, *, exponent: float = EXPONENT, inverse_length: float = INVERSE_LENGTH, modes: int | None = None
) -> Tensor:
    """Fields of zero mean and of root mean square 1, whose amplitudes are ``(|2 pi k|^2 + tau^2)^(-alpha / 2)``.

    Waves with ``|kx|`` or ``|ky|`` of a third of the points or more are left out, so that the product of two fields has
    no waves that the grid takes for others.

    Args:
        noise: independent standard normal numbers, shape (..., n, n).
        exponent: alpha; the larger, the smoother.
        inverse_length: tau; below it waves of all lengths have about the same amplitude.
        modes: wavenumbers from which waves are left out; n / 3 where None.

    Returns:
        Fields, shape (..., n, n).

    >>> field = random_field(torch.randn(2, 16, 16, dtype=torch.float64))
    >>> torch.allclose(field.square().mean((-2, -1)), torch.ones(2, dtype=torch.float64))
    True
    """
    n = check_grid(noise, "noise")
    kx, ky = wavenumbers(n, dtype=noise.dtype, device=noise.device)
    amplitude = (laplacian(n, like=noise) + inverse_length**2) ** (-exponent / 2)
    limit = n / 3 if modes is None else modes
    amplitude = amplitude.masked_fill((kx.abs() >= limit) | (ky.abs() >= limit), 0)
    amplitude[0, 0] = 0
    field = torch.fft.irfft2(torch.fft.rfft2(noise) * amplitude, s=(n, n))
    return field / field.square().mean((-2, -1), keepdim=True).sqrt()
