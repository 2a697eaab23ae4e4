"""Sources: sums of Gaussians, drawn at random as in the paper or placed by hand.

Random sources are sums over a 12 x 12 lattice of isotropic Gaussians of standard deviation 1/32, spaced 1/16 and
centred on (0.5, 0.5); they are not wrapped around the torus (they are below 4e-6 at its edges). A Gaussian separates
in x and y, so a whole batch is two small matrix products.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from .spectral import grid_shape, sandwich

SIGMA = 1 / 32
SPACING = 2 * SIGMA
LATTICE = 12
LARGEST_AMPLITUDE = 1.0
SMALLEST_AMPLITUDE = 1e-3

PRESETS: dict[str, tuple[tuple[float, float, float], ...]] = {
    "single": ((0.5, 0.5, 1.0),),
    "dipole": ((0.35, 0.5, 1.0), (0.65, 0.5, -1.0)),
    "row": tuple((0.2 + 0.15 * i, 0.5, 1.0) for i in range(5)),
    "ring": tuple(
        (0.5 + 0.28 * math.cos(i * math.pi / 4), 0.5 + 0.28 * math.sin(i * math.pi / 4), 1.0) for i in range(8)
    ),
    "checkerboard": tuple(
        (0.125 + 0.25 * i, 0.125 + 0.25 * j, 1.0 if (i + j) % 2 == 0 else -1.0) for i in range(4) for j in range(4)
    ),
}
"""Sources to place by hand: rows of (x, y, amplitude)."""


def lattice_profiles(n: int, *, device: torch.device | str | None = None) -> Tensor:
    """One-dimensional Gaussians ``exp(-(x - c)^2 / 2 sigma^2)`` of the 12 lattice lines on n points, shape (12, n)."""
    x = torch.arange(n, dtype=torch.float64, device=device) / n
    centres = 0.5 + SPACING * (torch.arange(LATTICE, dtype=torch.float64, device=device) - (LATTICE - 1) / 2)
    return torch.exp(-((x[None, :] - centres[:, None]) ** 2) / (2 * SIGMA**2))


def draw_amplitudes(sparsity: Tensor, generator: torch.Generator) -> Tensor:
    """Random lattice amplitudes: zero with probability s, else uniform in (1e-3, 1); never all zero.

    Args:
        sparsity: s of each source, shape (batch,).
        generator: source of randomness; the amplitudes are drawn on its device.

    Returns:
        Amplitudes, shape (batch, 12, 12), float32.
    """
    shape = (len(sparsity), LATTICE, LATTICE)
    device = generator.device
    kept = torch.rand(shape, generator=generator, device=device, dtype=torch.float32)
    kept = kept > sparsity.to(device)[:, None, None]
    values = torch.rand(shape, generator=generator, device=device, dtype=torch.float32)
    values = SMALLEST_AMPLITUDE + (LARGEST_AMPLITUDE - SMALLEST_AMPLITUDE) * values
    lone = torch.randint(LATTICE**2, (len(sparsity),), generator=generator, device=device)
    empty = ~kept.flatten(1).any(dim=1)
    kept.view(len(sparsity), -1)[empty, lone[empty]] = True
    return torch.where(kept, values, 0)


def render(amplitudes: Tensor, grid: int | tuple[int, int], *, out: Tensor | None = None) -> Tensor:
    """Sum of lattice Gaussians with amplitudes (..., 12, 12) on n x n or (ny, nx) points, shape (..., ny, nx)."""
    along_y, along_x = (lattice_profiles(n, device=amplitudes.device).to(amplitudes.dtype) for n in grid_shape(grid))
    if along_y.shape == along_x.shape:
        return sandwich(amplitudes, along_y.T, out=out)
    return along_y.T @ amplitudes @ along_x


def normalize(source: Tensor, *, zero_mean: bool, maximum: Tensor | None = None, out: Tensor | None = None) -> Tensor:
    """Divide a source by its maximum, or by the one given, then subtract the mean where the system needs it."""
    maximum = source.amax(dim=(-2, -1), keepdim=True) if maximum is None else maximum
    source = torch.div(source, maximum, out=out)
    return torch.sub(source, source.mean(dim=(-2, -1), keepdim=True), out=out) if zero_mean else source


def place(
    gaussians: Sequence[tuple[float, float, float]],
    n: int,
    *,
    zero_mean: bool,
    width: float = SIGMA,
    dtype: torch.dtype = torch.float32,
) -> Tensor:
    """Source of Gaussians placed by hand, wrapped around the torus, largest absolute value 1.

    Args:
        gaussians: rows of (x, y, amplitude), positions taken modulo 1.
        n: number of points in each direction.
        zero_mean: subtract the mean, as Poisson and advection-diffusion need.
        width: standard deviation of each, which is that of the random sources unless it is said.

    Returns:
        Source of shape (n, n).

    Raises:
        ValueError: if there is no Gaussian, a value is not finite, all amplitudes are zero, or nothing of the Gaussians
            is on the grid, because they are too narrow or cancel.
    """
    rows = torch.tensor([tuple(map(float, row)) for row in gaussians], dtype=torch.float64, device="cpu")
    if rows.ndim != 2 or rows.shape[1] != 3 or not torch.isfinite(rows).all() or not rows[:, 2].any():
        raise ValueError(
            f"gaussians: expected at least one row of finite (x, y, amplitude) with amplitude not 0, got {gaussians!r}"
        )
    source = _sum_of(rows, n, width)
    largest = source.abs().amax()
    if not (width > 0 and largest > 1e-12 * rows[:, 2].abs().amax()):  # what is left of those that cancel is rounding
        raise ValueError(f"gaussians: expected some that {n} points show and that do not cancel, got {gaussians!r}")
    source = source / largest
    return (source - source.mean() if zero_mean else source).to(dtype)


def placed(rows: Tensor, n: int, width: float = SIGMA) -> Tensor:
    """`place` of rows (gaussians, 3) in float64, without checks, and without a mean of zero; shape (n, n)."""
    source = _sum_of(rows, n, width)
    return source / source.abs().amax(dim=(-2, -1))


def _sum_of(rows: Tensor, n: int, width: float) -> Tensor:
    points = torch.arange(n, dtype=torch.float64, device="cpu") / n

    def profiles(centres: Tensor) -> Tensor:
        offset = points[None, :] - centres[:, None]
        offset = offset - torch.round(offset)  # nearest image on the torus
        return torch.exp(-(offset**2) / (2 * width**2))

    return torch.einsum("g,gy,gx->yx", rows[:, 2], profiles(rows[:, 1]), profiles(rows[:, 0]))
