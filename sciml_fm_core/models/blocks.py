"""The trunk of a Fourier neural operator as matrix products on contiguous memory, in differentiable operations.

Hidden fields are ``hidden[y, x, batch, channel]``: with space first, the truncated Fourier transforms are products of
small real matrices with everything behind them, and the product with the weights of each mode is one batched product,
with no permuted copies between them. This plain form is for CUDA, `torch.compile` and `torch.func`; `fused` has the
same for CPUs.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional

from sciml_fm_core.eager import cached_tensors


class Block(NamedTuple):
    """Parameters of one block, ``v = spectral_gate * convolution(u) + gate * (u @ weight) + mean``.

    Attributes:
        spectral: (2, 2 m * m, d, d), real and imaginary part of each mode's matrix.
        weight: (c, d), of the pointwise convolution; c = d channels after the first block.
        mean: (batch, d).
        spectral_gate, gate: (batch, d), or None.
        mode_gate: (2 m * m, 2, batch, d), complex factors of the modes of the convolution, or None.
        point_gates: (ny, nx, batch, d) each, factors at each point of the convolution and of the rest, or None.
    """

    spectral: Tensor
    weight: Tensor
    mean: Tensor
    spectral_gate: Tensor | None = None
    gate: Tensor | None = None
    mode_gate: Tensor | None = None
    point_gates: tuple[Tensor, Tensor] | None = None


class Head(NamedTuple):
    """Parameters of the pointwise network d -> p -> q behind the last block.

    Attributes:
        project: (d, p), and ``project_bias`` (p,).
        output: (p, q), and ``output_bias`` (q,).
    """

    project: Tensor
    project_bias: Tensor
    output: Tensor
    output_bias: Tensor


class FourierMatrices(NamedTuple):
    """Real matrices of the truncated transform of ny x nx points to modes ky in [-m, m), kx in [0, m), and back.

    ``along_x`` (2 m, nx) has rows (kx, re/im); ``back_x`` (nx, 2 m) is its inverse with the factor 1 / (ny nx) of both
    directions; a mode with kx > 0 stands for itself and its conjugate, hence a factor 2. ``waves`` (2 (m + 1), ny)
    holds cos and sin of ky = 0 .. m along y: the products with them give the modes of both signs, see `unfold`.
    """

    along_x: Tensor
    back_x: Tensor
    waves: Tensor


@cached_tensors(maxsize=32)
def fourier_matrices(ny: int, nx: int, modes: int, dtype: torch.dtype, device: torch.device) -> FourierMatrices:
    """`FourierMatrices` for a grid; computed once in float64, outside any graph."""
    k = torch.arange(modes + 1, dtype=torch.float64, device="cpu")
    phase_y, phase_x = (
        2 * torch.pi * torch.outer(k, torch.arange(n, dtype=torch.float64, device="cpu") / n) for n in (ny, nx)
    )
    waves = torch.cat([phase_y.cos(), phase_y.sin()])
    along_x = torch.stack([phase_x[:-1].cos(), -phase_x[:-1].sin()], dim=1).flatten(0, 1)
    multiplicity = k[:-1].clamp(max=1).repeat_interleave(2) + 1
    back_x = along_x.T * multiplicity / (ny * nx)
    return FourierMatrices(*(t.to(device, dtype).contiguous() for t in (along_x, back_x, waves)))


def unfold(products: Tensor) -> Tensor:
    """Modes of both signs from the products with `waves`; the transpose of `fold`.

    With P = sum cos(k y) v and Q = sum sin(k y) v, the transform of a complex v is ``P - i Q`` at ky = k and
    ``P + i Q`` at ky = -k: half the work of a product for each sign.

    Args:
        products: (cos/sin, k = 0 .. m, kx, re/im, features).

    Returns:
        Spectrum (ky = 0 .. m - 1, -m .. -1, kx, re/im, features).
    """
    m = products.shape[2]
    cosine, sine = products.unbind(0)
    turned = torch.stack([sine[:, :, 1], -sine[:, :, 0]], dim=2)  # -i Q
    return torch.cat([cosine[:m] + turned[:m], (cosine[1:] - turned[1:]).flip(0)])


def fold(spectrum: Tensor) -> Tensor:
    """Coefficients of `waves` from a spectrum, both shaped as in `unfold`."""
    m = spectrum.shape[1]
    zero = torch.zeros_like(spectrum[:1])
    above, below = torch.cat([spectrum[:m], zero]), torch.cat([zero, spectrum[m:].flip(0)])
    difference = above - below
    return torch.stack([above + below, torch.stack([-difference[:, :, 1], difference[:, :, 0]], dim=2)])


def analyse(field: Tensor, matrices: FourierMatrices) -> Tensor:
    """Spectrum (2 m * m, 2, ...) of a field (ny, nx, ...): modes (ky, kx), real and imaginary part."""
    m = matrices.along_x.shape[0] // 2
    rows = torch.matmul(matrices.along_x, field.flatten(2))  # (y, (kx, re/im), features)
    products = matrices.waves @ rows.view(len(field), -1)
    return unfold(products.view(2, m + 1, m, 2, -1)).view(2 * m * m, 2, *field.shape[2:])


def synthesise(spectrum: Tensor, matrices: FourierMatrices) -> Tensor:
    """Field (ny, nx, ...) of a spectrum (2 m * m, 2, ...), see `analyse`."""
    (nx, columns), ny = matrices.back_x.shape, matrices.waves.shape[1]
    coefficients = fold(spectrum.reshape(columns, columns // 2, 2, -1))
    rows = matrices.waves.T @ coefficients.view(len(matrices.waves), -1)
    return torch.matmul(matrices.back_x, rows.view(ny, columns, -1)).view(ny, nx, *spectrum.shape[2:])


def mix_modes(spectrum: Tensor, weight: Tensor) -> Tensor:
    """Multiply each mode by its own complex matrix.

    Args:
        spectrum: (2 m * m, 2, batch, d), real and imaginary part.
        weight: (2, 2 m * m, d, d), real and imaginary part.

    Returns:
        As the spectrum.
    """
    turned = torch.stack([-spectrum[:, 1], spectrum[:, 0]], dim=1)  # times i
    real, imag = weight.unbind(0)
    return torch.baddbmm(torch.bmm(spectrum.flatten(1, 2), real), turned.flatten(1, 2), imag).view(spectrum.shape)


def with_mean(spectrum: Tensor, mean: Tensor) -> Tensor:
    """A spectrum (2 m * m, 2, ...) with numbers (...) added on its mode 0. Not in place: `torch.func` may map them."""
    return spectrum + functional.pad(mean[None, None], [0, 0] * mean.ndim + [0, 1, 0, len(spectrum) - 1])


def complex_product(first: Tensor, second: Tensor) -> Tensor:
    """Product of complex numbers, (modes, 2, ...) each, with real and imaginary part along the second axis."""
    (real, imag), (other_real, other_imag) = first.unbind(1), second.unbind(1)
    return torch.stack([real * other_real - imag * other_imag, real * other_imag + imag * other_real], dim=1)


def plain_trunk(
    fields: Tensor,
    spectrum: Tensor,
    blocks: Sequence[Block],
    head: Head,
    matrices: FourierMatrices,
    pointwise: torch.dtype | None = None,
) -> Tensor:
    """All blocks, with GELU between them, and the head.

    Args:
        fields: (ny, nx, batch, c), what the first block's pointwise convolution takes.
        spectrum: (2 m * m, 2, batch, d), what its spectral convolution takes.
        blocks: one or more.
        head: behind the last one.
        matrices: of the grid.
        pointwise: dtype of the products of d channels with pointwise weights; that of the fields where None.

    Returns:
        (ny, nx, batch, q).
    """
    hidden = plain_blocks(fields, spectrum, blocks, matrices, pointwise)
    features = functional.gelu(_product(hidden, head.project, pointwise) + head.project_bias)
    return features @ head.output + head.output_bias


def plain_blocks(
    fields: Tensor,
    spectrum: Tensor,
    blocks: Sequence[Block],
    matrices: FourierMatrices,
    pointwise: torch.dtype | None = None,
) -> Tensor:
    """What the head of `plain_trunk` takes, (ny, nx, batch, d); arguments as there."""
    hidden, points = fields, fields.shape[0] * fields.shape[1]
    for number, block in enumerate(blocks):
        if number:
            hidden = functional.gelu(hidden)
            spectrum = analyse(hidden, matrices)
        mixed = mix_modes(spectrum, block.spectral)
        if block.spectral_gate is not None:
            mixed = mixed * block.spectral_gate  # here, where it is smallest
        if block.mode_gate is not None:
            mixed = complex_product(mixed, block.mode_gate)
        if block.point_gates is None:
            mixed = with_mean(mixed, points * block.mean)
        convolved = synthesise(mixed, matrices)
        product = _product(hidden, block.weight, pointwise if number else None)
        if block.point_gates is not None:
            at_convolution, at_product = block.point_gates
            convolved, product = convolved * at_convolution, (product + block.mean) * at_product
        hidden = convolved + product if block.gate is None else torch.addcmul(convolved, product, block.gate)
    return hidden


def _product(field: Tensor, weight: Tensor, dtype: torch.dtype | None) -> Tensor:
    """``field @ weight``, both rounded to a dtype, and so the result, where there is one."""
    return field @ weight if dtype is None else (field.to(dtype) @ weight.to(dtype)).to(field.dtype)
