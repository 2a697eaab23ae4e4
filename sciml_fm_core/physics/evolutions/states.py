"""Initial states of the evolutions."""

from __future__ import annotations

import torch
from torch import Tensor

from sciml_fm_core.physics.evolution import Evolution
from sciml_fm_core.physics.random_fields import random_field
from sciml_fm_core.physics.spectral import resample

POINTS = 64
"""Points of the grid that initial states are drawn on, whatever grid they are asked for: they are the same fields."""
INVERSE_LENGTH = 5.0
"""Below this physical wavenumber waves of all lengths have about the same amplitude."""


def smooth_states(
    count: int,
    grid: tuple[int, int],
    generator: torch.Generator,
    *,
    modes: int = 21,
    exponent: float = 2.5,
    inverse_length: float = INVERSE_LENGTH,
) -> Tensor:
    """Random fields (count, n, n) of zero mean and unit size, in float64, without waves shorter than ``1 / modes``.

    A coarser grid gets the waves that it has, a finer one the same field.

    Raises:
        ValueError: if the grid is not square and even.

    >>> states = smooth_states(2, (16, 16), torch.Generator().manual_seed(0))
    >>> states.shape, states.dtype
    (torch.Size([2, 16, 16]), torch.float64)
    """
    ny, nx = grid
    if ny != nx or ny % 2:
        raise ValueError(f"resolution: expected an even number of points, alike in both directions, got {grid}")
    noise = torch.randn(count, POINTS, POINTS, generator=generator, device=generator.device, dtype=torch.float64)
    field = random_field(noise, exponent=exponent, inverse_length=inverse_length, modes=modes)
    return resample(field, nx)


class FromSmoothStates(Evolution):
    """An evolution that begins with smooth random states."""

    def draw(self, dial, parameters, grid, generator):
        return smooth_states(len(dial), grid, generator)


def shares(field: Tensor) -> Tensor:
    """Fields of any size made shares between 0 and 1, ``1 / (1 + exp(-g))``."""
    return torch.sigmoid(field)
