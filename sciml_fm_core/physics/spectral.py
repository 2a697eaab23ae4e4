"""Fourier calculus on the periodic unit square.

Convention: a real field ``u[..., y, x]`` sampled at ``x = j / n``, ``y = i / n`` (left edge included, right edge not)
has coefficients ``u_hat = rfft2(u)`` of shape ``(..., n, n // 2 + 1)``, so that ``u(x, y) = sum_k u_hat(k) exp(2 pi i
(kx x + ky y)) / n**2``. Wavenumbers are integers; the physical wavenumber is ``2 pi k``.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TypeAlias

import numpy as np
import torch
from torch import Tensor

from sciml_fm_core.eager import cached_tensors, is_eager, known_values

SMALLEST_GRID = 4
SERIAL_GRIDS = (*range(4, 33, 2), 64)
"""Points for which an inverse transform is left to one thread."""
FINEST_GRID = 4096
"""Points in each direction of what is drawn or read from a file, at most."""
FLOATING = (torch.float16, torch.bfloat16, torch.float32, torch.float64)
"""Types that fields may have."""


def broadcast_shapes(*shapes: Sequence[int]) -> torch.Size:
    """The common leading shape of what has these. By NumPy: PyTorch's own function imports all of SymPy.

    >>> broadcast_shapes((8, 1), (3,)), broadcast_shapes((4, 1), (1, 4))
    (torch.Size([8, 3]), torch.Size([4, 4]))

    Raises:
        ValueError: if they do not fit each other; or one is another's with a 1 behind it, (B, 1) and (B,): whether one
            is meant for each or all for all, nobody can tell.
    """
    shapes = tuple(map(tuple, shapes))
    for longer in shapes:
        if longer[-1:] == (1,) and longer[:-1] in shapes and max(longer) > 1:
            raise ValueError(
                f"leading shapes {longer} and {longer[:-1]} would give all pairs; squeeze the first to {longer[:-1]} "
                f"for one of each, or unsqueeze the second to {(1, *longer[:-1])} where all pairs are meant"
            )
    try:
        return torch.Size(np.broadcast_shapes(*shapes))
    except ValueError:
        raise ValueError(
            f"leading shapes {' and '.join(map(str, shapes))} do not broadcast; pass one row of coefficients per source"
        ) from None


def as_batch(fields: Tensor, rows: Tensor, axes: int) -> tuple[Tensor, Tensor, torch.Size]:
    """Fields (..., [p,] ny, nx) of so many axes and rows (..., c) as a batch each, and their common leading shape.

    >>> fields, rows, leading = as_batch(torch.zeros(3, 1, 8, 8), torch.zeros(4, 2), 2)
    >>> fields.shape, rows.shape, leading
    (torch.Size([12, 8, 8]), torch.Size([12, 2]), torch.Size([3, 4]))
    """
    leading = broadcast_shapes(fields.shape[:-axes], rows.shape[:-1])
    own, count = fields.shape[-axes:], leading.numel()
    batch = fields.expand(*leading, *own).reshape(count, *own)
    return batch, rows.expand(*leading, -1).reshape(count, rows.shape[-1]), leading


def check_tensor(value: object, name: str) -> None:
    """Raise ValueError when a value is no dense tensor of real numbers."""
    if not isinstance(value, Tensor):
        raise ValueError(f"{name}: expected a tensor, got {type(value).__name__}; pass torch.as_tensor(...)")
    whole = not (value.is_floating_point() or value.is_complex() or value.dtype == torch.bool or value.is_quantized)
    if value.layout != torch.strided or not (whole or value.dtype in FLOATING):
        raise ValueError(
            f"{name}: expected a dense tensor of real numbers, got {value.dtype} {value.layout}; pass it as float32"
        )


def check_grid(field: Tensor, name: str = "field") -> int:
    """Return the number of points n of a field of shape (..., n, n), n even.

    Raises:
        ValueError: if it is no tensor of real numbers, or the last two dimensions are not an even square grid.
    """
    check_tensor(field, name)
    if field.ndim < 2 or field.shape[-1] != field.shape[-2]:
        raise ValueError(f"{name}: expected shape (..., n, n), got {tuple(field.shape)}; pass a square grid of points")
    n = field.shape[-1]
    if n % 2 or n < SMALLEST_GRID:
        hint = "; a grid that repeats its left edge on the right is not periodic: drop the last row and column"
        raise ValueError(f"{name}: expected an even number of points of at least {SMALLEST_GRID}, got {n}{hint}")
    return n


Resolution: TypeAlias = int | tuple[int, int]
"""Points of a grid: n in each direction, or (ny, nx)."""


def grid_shape(resolution: Resolution | Sequence[int]) -> tuple[int, int]:
    """Points (ny, nx) of a grid.

    >>> grid_shape(64), grid_shape((48, 40))
    ((64, 64), (48, 40))
    """
    if isinstance(resolution, Sequence):
        ny, nx = map(int, resolution)
        return ny, nx
    return int(resolution), int(resolution)


def grid_text(resolution: Resolution) -> str:
    """Points of a grid, for a reader.

    >>> grid_text(64), grid_text((48, 40))
    ('64 x 64', '48 x 40')
    """
    return " x ".join(map(str, grid_shape(resolution)))


def parse_resolution(text: str) -> Resolution:
    """Points of a grid, from a text: n, or ny x nx.

    >>> parse_resolution("64"), parse_resolution("48x40")
    (64, (48, 40))

    Raises:
        ValueError: on another text.
    """
    try:
        return resolution_of([int(points) for points in (text.split("x") * 2)[:2]])
    except ValueError:
        raise ValueError(f"resolution: expected points such as 64, or 48x40 for ny x nx, got {text!r}") from None


def resolution_of(shape: Sequence[int]) -> Resolution:
    """Points of fields of a shape (..., ny, nx): n where the grid is square."""
    ny, nx = map(int, shape[-2:])
    return ny if ny == nx else (ny, nx)


def is_finite(field: Tensor) -> bool:
    """Whether a tensor holds no NaN or infinity, as far as its values are known; without a copy of it."""
    values = known_values(field)
    if values is None or not values.is_floating_point() or not values.numel():
        return True
    return all(map(math.isfinite, torch.stack(values.aminmax()).tolist()))


def largest_size(field: Tensor) -> Tensor:
    """max |u| of fields (..., n, n), shape (...); without a copy of them."""
    return torch.maximum(field.amax(dim=(-2, -1)), -field.amin(dim=(-2, -1)))


def check_finite(field: Tensor, name: str) -> None:
    """Raise ValueError when a tensor holds NaN or infinity."""
    if not is_finite(field):
        raise ValueError(f"{name}: expected finite values, got NaN or infinity; check how it was computed or read")


def power_of_two(values: Tensor) -> Tensor:
    """For each number the power of two next below or equal to its size, 1 for 0 and inf, as a constant to gradients.

    To divide by it is exact, so that squares neither overflow nor vanish and all else is the same to the bit.

    >>> power_of_two(torch.tensor([3.0, -0.3, 0.0])).tolist()
    [2.0, 0.25, 1.0]
    """
    values = values.detach()
    mantissa = torch.frexp(values).mantissa
    return torch.where((values != 0) & torch.isfinite(values), values / (2 * mantissa), 1)


def root_mean_square(values: Tensor, dim: tuple[int, ...] = (-2, -1)) -> Tensor:
    """Root mean square over dimensions, right for numbers of any size: no square overflows or vanishes.

    >>> root_mean_square(torch.full((4, 4), 1e-30)).item()
    1.0000000031710769e-30
    """
    unit = power_of_two(values.abs().amax(dim=dim, keepdim=True))
    count = math.prod(values.shape[each] for each in dim)
    return torch.linalg.vector_norm(values / unit, dim=dim) * (unit.amax(dim=dim) / count**0.5)


def relative_size(values: Tensor, target: Tensor, dim: tuple[int, ...] = (-2, -1)) -> Tensor:
    """``||values|| / ||target||``, infinity where the values are no numbers; 0 where both are zero."""
    size, unit = root_mean_square(values, dim), root_mean_square(target, dim)
    found = size / unit.masked_fill(unit == 0, 1)
    return found.masked_fill((unit == 0) & (size != 0) | found.isnan() & unit.isfinite(), torch.inf)


def vector_norm(vector: Tensor) -> Tensor:
    """Length of vectors (..., d), shape (...), whatever their size; its gradient is 0 where they are.

    >>> round(vector_norm(torch.tensor([3e-30, 4e-30])).item() / 1e-30, 6)
    5.0
    """
    size = power_of_two(vector.abs().amax(dim=-1))
    return torch.linalg.vector_norm(vector / size[..., None], dim=-1) * size


def wavenumbers(n: int, *, dtype: torch.dtype = torch.float64, device: torch.device | str | None = None):
    """Integer wavenumbers ``(kx, ky)`` of the real transform, shapes (1, n // 2 + 1) and (n, 1)."""
    kx = torch.arange(n // 2 + 1, dtype=dtype, device=device)[None, :]
    ky = torch.fft.fftfreq(n, d=1.0 / n, dtype=dtype, device=device)[:, None]
    return kx, ky


@cached_tensors(maxsize=16)
def shells(n: int, device: torch.device) -> Tensor:
    """For each wave of the real transform its length in whole numbers, |k| rounded, shape (n, n // 2 + 1)."""
    kx, ky = wavenumbers(n, device=device)
    return torch.hypot(kx, ky).round().long()


@cached_tensors(maxsize=16)
def _shell_means(n: int, dtype: torch.dtype, device: torch.device) -> Tensor:
    shell = shells(n, device).flatten()
    lengths = torch.arange(round(n / math.sqrt(2)) + 1, device=device)
    near = (3 - (shell[:, None] - lengths).abs()).clamp(min=0) * parseval_weights(n, device=device).repeat(n, 1).view(
        -1, 1
    )
    return (near / near.sum(0)).to(dtype)


def shell_sizes(field_hat: Tensor) -> Tensor:
    """Root mean square of Fourier coefficients (..., n, n // 2 + 1) on waves of length 0, 1, ..., shape (..., lengths).

    Of about that length: waves that are shorter or longer by one count two thirds, by two one third. Nothing is taken
    to be smaller than 1e-6 of the largest, where float32 has little but rounding.

    >>> x = torch.arange(16) / 16
    >>> shell_sizes(transform(torch.cos(6 * torch.pi * x).expand(16, 16))).argmax().item()
    3
    """
    n = field_hat.shape[-2]
    energy = field_hat.real.square() + field_hat.imag.square() if field_hat.is_complex() else field_hat.square()
    means = energy.flatten(-2) @ _shell_means(n, energy.dtype, energy.device)
    return (means + 1e-12 * means.amax(dim=-1, keepdim=True) + torch.finfo(means.dtype).tiny).sqrt()


def on_shells(values: Tensor, n: int) -> Tensor:
    """Values (..., lengths) for waves of each length, put where these waves are, shape (..., n, n // 2 + 1).

    Beyond the last length its value is taken.
    """
    return values[..., shells(n, values.device).clamp(max=values.shape[-1] - 1)]


def laplacian(n: int, *, like: Tensor) -> Tensor:
    """Symbol of the negative Laplacian, ``4 pi^2 |k|^2``, shape (n, n // 2 + 1), with dtype and device of a tensor.

    >>> laplacian(4, like=torch.zeros(1, dtype=torch.float64))[0, 1].item() / (4 * torch.pi**2)
    1.0
    """
    kx, ky = wavenumbers(n, dtype=like.dtype, device=like.device)
    return 4 * torch.pi**2 * (kx**2 + ky**2)


def derivative_wavenumbers(n: int, *, dtype: torch.dtype = torch.float64, device: torch.device | str | None = None):
    """Wavenumbers of an odd derivative: as `wavenumbers`, with the Nyquist wavenumber n / 2 replaced by zero.

    On the grid exp(+i pi j) and exp(-i pi j) are the same function, so the first derivative of the Nyquist mode has no
    defined sign; the only value that keeps a real field real, and commutes with reflection, is zero. Even derivatives
    keep it. This is the one place where that choice is made. (Trefethen, Spectral Methods in MATLAB, ch. 3.)
    """
    kx, ky = wavenumbers(n, dtype=dtype, device=device)
    return kx.masked_fill(kx.abs() == n // 2, 0), ky.masked_fill(ky.abs() == n // 2, 0)


def advection_symbol(velocity: Tensor, n: int) -> Tensor:
    """Imaginary part of the symbol of ``v . grad``, ``2 pi (v1 kx + v2 ky)``, shape (..., n, n // 2 + 1).

    Args:
        velocity: v, shape (..., 2).
        n: number of points in each direction.
    """
    dx, dy = derivative_wavenumbers(n, dtype=velocity.dtype, device=velocity.device)
    v1, v2 = (2 * torch.pi * velocity[..., i, None, None] for i in range(2))
    return v1 * dx + v2 * dy


def sandwich(field: Tensor, matrix: Tensor, *, out: Tensor | None = None) -> Tensor:
    """``matrix @ field @ matrix.T``: a function separable in x and y, evaluated on other points.

    In float64 on CUDA, where products of float32 may be set to be rounded to 10 bits (TF32).
    """
    if field.device.type == "cuda" and field.dtype == torch.float32:
        values = (matrix.double() @ field.double() @ matrix.T.double()).float()
        return values if out is None else out.copy_(values)
    return torch.matmul(matrix @ field, matrix.T, out=out)


def transform(field: Tensor) -> Tensor:
    """Real Fourier transform of (..., n, n) to (..., n, n // 2 + 1); half precision is computed in float32."""
    field = field if field.dtype in (torch.float32, torch.float64) else field.float()
    if is_eager() and not field.numel():  # of no field, which the library refuses
        return field.new_empty(*field.shape[:-1], field.shape[-1] // 2 + 1, dtype=field.dtype.to_complex())
    return torch.fft.rfft2(field)


def inverse_transform(field_hat: Tensor, n: int) -> Tensor:
    """Inverse of `transform`, the same to the bit for any number of threads.

    On a CPU the library of transforms adds up small grids, and 64 x 64, in another order where it has several threads;
    one thread is about as fast there.
    """
    threads = torch.get_num_threads()
    if is_eager() and not field_hat.numel():
        return field_hat.real.new_empty(*field_hat.shape[:-1], n)
    if n not in SERIAL_GRIDS or threads == 1 or field_hat.device.type != "cpu" or not is_eager():
        return torch.fft.irfft2(field_hat, s=(n, n))
    torch.set_num_threads(1)
    try:
        return torch.fft.irfft2(field_hat, s=(n, n))
    finally:
        torch.set_num_threads(threads)


def translation_symbol(shift: Tensor, n: int) -> Tensor:
    """Symbol of the translation ``u(x) -> u(x + a)``, ``exp(2 pi i k . a)``, shape (..., n, n // 2 + 1).

    Waves at the Nyquist wavenumber stay where they are in that direction, see `derivative_wavenumbers`.

    Args:
        shift: a, shape (..., 2).
        n: number of points in each direction.
    """
    angle = advection_symbol(shift, n)
    return torch.polar(torch.ones_like(angle), angle)


def filter_modes(field: Tensor, symbol: Tensor) -> Tensor:
    """The field whose Fourier modes are multiplied by a symbol; shapes (..., n, n) and (..., n, n // 2 + 1).

    By `translation_symbol` it is the field ``u(x + a)``, by trigonometric interpolation.

    >>> field = torch.arange(16.0).view(4, 4)
    >>> there, back = (translation_symbol(torch.tensor(a), 4) for a in ([0.3, 0.1], [-0.3, -0.1]))
    >>> torch.allclose(filter_modes(filter_modes(field, there), back), field)
    True
    """
    n = check_grid(field)
    field_hat = transform(field)
    return inverse_transform(field_hat * symbol.to(field_hat.dtype), n).to(field.dtype)


def parseval_weights(n: int, *, device: torch.device | str | None = None) -> Tensor:
    """Multiplicity of each stored mode, shape (1, n // 2 + 1): sum |u|^2 = sum weights |u_hat|^2 / n^2."""
    weights = torch.full((1, n // 2 + 1), 2.0, dtype=torch.float64, device=device)
    weights[:, 0] = 1.0
    weights[:, -1] = 1.0
    return weights


def gradient(field: Tensor) -> tuple[Tensor, Tensor]:
    """Spectral derivatives ``(du/dx, du/dy)`` of a field (..., n, n)."""
    n = check_grid(field)
    field_hat = transform(field)
    kx, ky = derivative_wavenumbers(n, dtype=field_hat.real.dtype, device=field.device)
    two_pi_i = 2j * torch.pi
    return inverse_transform(two_pi_i * kx * field_hat, n), inverse_transform(two_pi_i * ky * field_hat, n)


def resample(field: Tensor, resolution: Resolution) -> Tensor:
    """Trigonometric interpolation of a field (..., my, mx) to n x n or (ny, nx) points.

    Exact when the field has no energy at or beyond the Nyquist wavenumber of the coarser grid. The Nyquist mode of the
    coarser grid is dropped: its phase cannot be carried to another grid.
    """
    check_tensor(field, "field")
    (my, mx), (ny, nx) = field.shape[-2:], grid_shape(resolution)
    if (my, mx) == (ny, nx):
        return field
    if min(ny, nx) < SMALLEST_GRID:
        raise ValueError(f"resampled field: expected at least {SMALLEST_GRID} points, got {ny} x {nx}")
    y, x = (min(my, ny) + 1) // 2, (min(mx, nx) + 1) // 2  # waves below the Nyquist wavenumber, the mean included
    field_hat = transform(field)
    resampled = field_hat.new_zeros(*field.shape[:-2], ny, nx // 2 + 1)
    resampled[..., :y, :x] = field_hat[..., :y, :x]
    if y > 1:
        resampled[..., 1 - y :, :x] = field_hat[..., 1 - y :, :x]
    finer = inverse_transform(resampled, nx) if ny == nx else torch.fft.irfft2(resampled, s=(ny, nx))
    return finer.to(field.dtype) * (ny * nx / (my * mx))
