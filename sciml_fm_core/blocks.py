"""The blocks of a Fourier neural operator as matrix products on contiguous memory, in a plain and a fused form.

Hidden fields are ``hidden[y, x, batch, member, channel]``: with space first, the truncated Fourier transforms are
products of small real matrices with everything behind them, and the product with the weights of each mode is one
batched product, with no permuted copies between them. ``member`` numbers networks of equal shape that are trained
together.

The plain form is written in PyTorch's own differentiable operations, for CUDA and for `torch.compile`. The fused form,
for CPUs, does all that touches a row of points while that row is in the cache, forward and backward, and keeps one
array per block for the backward pass; it takes one member at a time, since several at once only crowd each other out of
the cache. Both give the same numbers to rounding (see ``tests/test_blocks.py``).
"""

from __future__ import annotations

from functools import lru_cache
from typing import NamedTuple

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn import functional

CACHE_ELEMENTS = 2**20
"""Elements of a hidden field worked on at once by the fused form; measured best between 2^19 and 2^21 (two cores, 1 MiB
of second-level cache each)."""


class FourierMatrices(NamedTuple):
    """Real matrices of the truncated transform of n points to modes ky in [-m, m), kx in [0, m), and of its inverse.

    ``along_x`` (2 m, n) has rows (re/im, kx); ``back_x`` (n, 2 m) is its inverse with the factor 1 / n^2 of both
    directions; a mode with kx > 0 stands for itself and its conjugate, hence a factor 2. ``waves`` (2 (m + 1), n) holds
    cos and sin of ky = 0 .. m along y: the products with them give the modes of both signs, see `unfold`.
    """

    along_x: Tensor
    back_x: Tensor
    waves: Tensor


@lru_cache(maxsize=32)
def fourier_matrices(n: int, modes: int, dtype: torch.dtype, device: torch.device) -> FourierMatrices:
    """`FourierMatrices` for a grid; computed once in float64, outside any graph."""
    with torch.no_grad():
        k = torch.arange(modes + 1, dtype=torch.float64)
        phase = 2 * torch.pi * torch.outer(k, torch.arange(n, dtype=torch.float64) / n)
        waves = torch.cat([phase.cos(), phase.sin()])
        along_x = torch.cat([phase[:-1].cos(), -phase[:-1].sin()])
        multiplicity = torch.full((modes,), 2.0, dtype=torch.float64)
        multiplicity[0] = 1
        back_x = along_x.T * multiplicity.repeat(2) / n**2
        return FourierMatrices(*(t.to(device, dtype).contiguous() for t in (along_x, back_x, waves)))


def unfold(products: Tensor) -> Tensor:
    """Modes of both signs from the products with `waves`; the transpose of `fold`.

    With P = sum cos(k y) v and Q = sum sin(k y) v, the transform of a complex v is ``P - i Q`` at ky = k and
    ``P + i Q`` at ky = -k: half the work of a product for each sign.

    Args:
        products: (2 (m + 1), 2 m, features): rows (cos/sin, k), columns (re/im, kx).

    Returns:
        Spectrum (2, 2 m * m, features): re/im, modes (ky, kx) with ky = 0 .. m - 1, -m .. -1.
    """
    m = products.shape[1] // 2
    (p_real, p_imag), (q_real, q_imag) = products.view(2, m + 1, 2, m, -1).transpose(1, 2)
    real = torch.cat([p_real[:m] + q_imag[:m], (p_real[1:] - q_imag[1:]).flip(0)])
    imag = torch.cat([p_imag[:m] - q_real[:m], (p_imag[1:] + q_real[1:]).flip(0)])
    return torch.stack([real, imag]).view(2, 2 * m * m, -1)


def fold(spectrum: Tensor, modes: int) -> Tensor:
    """Coefficients of `waves`, (2 (m + 1), 2 m, features), from a spectrum (2, 2 m * m, features), see `unfold`."""
    m = modes
    real, imag = spectrum.reshape(2, 2 * m, m, -1)
    zero = real.new_zeros(1, *real.shape[1:])
    above = [torch.cat([part[:m], zero]) for part in (real, imag)]  # k = 0 .. m
    below = [torch.cat([zero, part[m:].flip(0)]) for part in (real, imag)]
    cosine = torch.stack([above[0] + below[0], above[1] + below[1]], dim=1)
    sine = torch.stack([below[1] - above[1], above[0] - below[0]], dim=1)
    return torch.stack([cosine, sine]).view(2 * (m + 1), 2 * m, -1)


def analyse(field: Tensor, matrices: FourierMatrices) -> Tensor:
    """Spectrum (2, 2 m * m, ...) of a field (n, n, ...): real and imaginary part, modes (ky, kx)."""
    n, m = matrices.back_x.shape[0], matrices.along_x.shape[0] // 2
    rows = torch.matmul(matrices.along_x, field.reshape(n, n, -1))  # (y, (re/im, kx), ...)
    return _analyse_rows(rows, matrices).view(2, 2 * m * m, *field.shape[2:])


def _analyse_rows(rows: Tensor, matrices: FourierMatrices) -> Tensor:
    """Transform along y of (n, 2 m, features) to (2, 2 m * m, features); the transpose of `synthesise_rows`."""
    n, m2, features = rows.shape
    return unfold((matrices.waves @ rows.view(n, -1)).view(-1, m2, features))


def synthesise_rows(spectrum: Tensor, matrices: FourierMatrices) -> Tensor:
    """Inverse transform along y alone: (2, 2 m * m, ...) to (n, 2 m, features), to be multiplied by ``back_x``."""
    n, m = matrices.back_x.shape[0], matrices.along_x.shape[0] // 2
    return (matrices.waves.T @ fold(spectrum, m).view(2 * (m + 1), -1)).view(n, 2 * m, -1)


def mix_modes(spectrum: Tensor, weight: Tensor, gate: Tensor | None = None, mean: Tensor | None = None) -> Tensor:
    """Multiply each mode by its own complex matrix.

    Args:
        spectrum: (2, 2 m * m, batch, members, d).
        weight: (2, 2 m * m, members, d, d), real and imaginary part.
        gate: (batch, members, d), scales the result: here, where it is smallest.
        mean: added to the mode of wavenumber zero, broadcast to (batch, members, d).

    Returns:
        As the spectrum.
    """
    modes, batch, members, width = spectrum.shape[1:]
    real, imag = (part.transpose(1, 2).reshape(modes * members, batch, width) for part in spectrum.unbind(0))
    w_real, w_imag = weight.flatten(1, 2).unbind(0)
    mixed_real = torch.baddbmm(torch.bmm(real, w_real), imag, w_imag, alpha=-1)
    mixed_imag = torch.baddbmm(torch.bmm(real, w_imag), imag, w_real)
    mixed = torch.stack([mixed_real, mixed_imag]).view(2, modes, members, batch, -1).transpose(2, 3)
    if gate is not None:
        mixed = mixed * gate
    if mean is not None:
        mixed[0, 0] += mean
    return mixed


# The plain form -------------------------------------------------------------------------------------------------------


def plain_block(mixed, hidden, weight, gate, matrices, activate=True):
    """One block after its modes are mixed: ``v = GELU(synthesis(mixed) + gate * (hidden @ weight))``.

    Args:
        mixed: (2, 2 m * m, batch, members, d), from `mix_modes`.
        hidden: (n, n, batch, members, d), the block's input.
        weight: (members, d, d), of the pointwise convolution; its bias is in the mean of ``mixed``.
        gate: (batch, members, d), or None.
        matrices: of the grid.
        activate: apply the GELU.

    Returns:
        v, shaped as hidden, and its spectrum, which is what the next block mixes.
    """
    new = torch.matmul(matrices.back_x, synthesise_rows(mixed, matrices)).view(hidden.shape)
    pointwise = _by_member(hidden, weight)
    new = new + pointwise if gate is None else torch.addcmul(new, pointwise, gate)
    if not activate:
        return new
    new = functional.gelu(new)
    return new, analyse(new, matrices)


def plain_head(mixed, hidden, weight, gate, project, project_bias, output, output_bias, matrices):
    """The last block, without GELU, and the pointwise network d -> p -> 1 behind it.

    Args:
        mixed, hidden, weight, gate, matrices: as in `plain_block`.
        project: (members, d, p) and ``project_bias`` (members, p).
        output: (members, p, 1) and ``output_bias`` (members, 1).

    Returns:
        (n, n, batch, members).
    """
    hidden = plain_block(mixed, hidden, weight, gate, matrices, activate=False)
    hidden = functional.gelu(_by_member(hidden, project) + project_bias)
    return (_by_member(hidden, output) + output_bias)[..., 0]


def _by_member(field: Tensor, weight: Tensor) -> Tensor:
    """Each member's field (..., member, c) times its own matrix (member, c, d)."""
    if len(weight) == 1:
        return field @ weight[0]
    product = torch.bmm(field.reshape(-1, *field.shape[-2:]).transpose(0, 1), weight)
    return product.transpose(0, 1).reshape(*field.shape[:-1], weight.shape[-1])


# The fused form -------------------------------------------------------------------------------------------------------


def fused_block(mixed, hidden, weight, gate, matrices):
    """`plain_block`, fused, for one member. Differentiable once."""
    return _apply(_FusedBlock, mixed.flatten(2), hidden, weight[0], gate, matrices)


def fused_head(mixed, hidden, weight, gate, project, project_bias, output, output_bias, matrices):
    """`plain_head`, fused, for one member; its hidden field of p channels is never stored. Differentiable once."""
    first = (tensor[0] for tensor in (project, project_bias, output, output_bias))
    return _apply(_FusedHead, mixed.flatten(2), hidden, weight[0], gate, *first, matrices)


def _apply(function: type[torch.autograd.Function], *arguments):
    if torch.is_grad_enabled():
        return function.apply(*arguments)
    return function.forward(None, *arguments)  # nothing is kept


def _row_slices(n: int, elements_per_row: int) -> list[slice]:
    rows = max(1, min(n, CACHE_ELEMENTS // elements_per_row))
    return [slice(first, min(first + rows, n)) for first in range(0, n, rows)]


def _add_product(out: Tensor, field: Tensor, weight: Tensor, beta: int = 1) -> None:
    """``out = beta * out + field @ weight`` in place."""
    c, d = weight.shape
    out.view(-1, d).addmm_(field.view(-1, c), weight, beta=beta)


def _add_weight_gradient(gradient: Tensor, field: Tensor, field_gradient: Tensor) -> None:
    """Gradient of ``field @ weight`` with respect to the weight, added in place."""
    c, d = gradient.shape
    gradient.addmm_(field.view(-1, c).T, field_gradient.view(-1, d))


def _add_pointwise(out: Tensor, field: Tensor, weight: Tensor, gate: Tensor | None, buffer: Tensor | None) -> None:
    """``out += gate * (field @ weight)`` in place."""
    if gate is None or buffer is None:
        _add_product(out, field, weight)
    else:
        _add_product(buffer, field, weight, beta=0)
        out.addcmul_(buffer, gate.view(-1))


def _pointwise_backward(gradient, field, weight, gate, field_gradient, weight_gradient, gate_gradient, buffer) -> None:
    """Gradients of `_add_pointwise`, each added to where it is collected; the gradient itself is overwritten."""
    if gate is not None:
        _add_product(buffer, field, weight, beta=0)  # computed again: cheaper than keeping it
        gate_gradient += buffer.mul_(gradient).sum((0, 1)).view(gate.shape)
        gradient.mul_(gate.view(-1))
    _add_weight_gradient(weight_gradient, field, gradient)
    _add_product(field_gradient, gradient, weight.T, beta=0)


class _FusedBlock(torch.autograd.Function):
    @staticmethod
    def forward(ctx, mixed, hidden, weight, gate, matrices):
        n, features = hidden.shape[0], mixed.shape[-1]
        rows = synthesise_rows(mixed, matrices)
        old, new = hidden.view(n, n, -1), hidden.new_empty(n, n, features)
        before = new if ctx is None else torch.empty_like(new)  # the GELU
        new_rows = torch.empty_like(rows)
        parts = _row_slices(n, n * features)
        buffer = None if gate is None else old.new_empty(parts[0].stop, n, features)
        for part in parts:
            count = len(rows[part])
            torch.bmm(matrices.back_x.expand(count, -1, -1), rows[part], out=before[part])
            _add_pointwise(before[part], old[part], weight, gate, None if buffer is None else buffer[:count])
            torch.ops.aten.gelu.out(before[part], out=new[part])
            torch.bmm(matrices.along_x.expand(count, -1, -1), new[part], out=new_rows[part])
        spectrum = _analyse_rows(new_rows, matrices).view(2, -1, *hidden.shape[2:])
        if ctx is not None:
            ctx.save_for_backward(before, hidden, weight, gate)
            ctx.matrices = matrices
        return new.view(hidden.shape), spectrum

    @staticmethod
    @once_differentiable
    def backward(ctx, new_gradient, spectrum_gradient):
        (before, hidden, weight, gate), matrices = ctx.saved_tensors, ctx.matrices
        n, features = hidden.shape[0], before.shape[-1]
        rows = synthesise_rows(spectrum_gradient, matrices)  # a transform along y is the transpose of the inverse
        new_gradient, old = new_gradient.contiguous().view(n, n, features), hidden.view(n, n, -1)
        old_gradient, weight_gradient = torch.empty_like(old), torch.zeros_like(weight)
        gate_gradient = None if gate is None else torch.zeros_like(gate)
        mixed_rows = torch.empty_like(rows)
        parts = _row_slices(n, n * features)
        buffers = old.new_empty(2, parts[0].stop, n, features)
        for part in parts:
            count = len(rows[part])
            gradient, buffer = buffers[:, :count]
            torch.baddbmm(new_gradient[part], matrices.along_x.T.expand(count, -1, -1), rows[part], out=gradient)
            torch.ops.aten.gelu_backward.grad_input(gradient, before[part], grad_input=gradient)
            torch.bmm(matrices.back_x.T.expand(count, -1, -1), gradient, out=mixed_rows[part])
            collected = old_gradient[part], weight_gradient, gate_gradient
            _pointwise_backward(gradient, old[part], weight, gate, *collected, buffer)
        return (
            _analyse_rows(mixed_rows, matrices),
            old_gradient.view(hidden.shape),
            weight_gradient,
            gate_gradient,
            None,
        )


class _FusedHead(torch.autograd.Function):
    @staticmethod
    def forward(ctx, mixed, hidden, weight, gate, project, project_bias, output, output_bias, matrices):
        n, features, width = hidden.shape[0], mixed.shape[-1], hidden.shape[-1]
        pixels, inner = features // width, project.shape[-1]
        rows, old = synthesise_rows(mixed, matrices), hidden.view(n, n, -1)
        result = hidden.new_empty(n, n, pixels)
        parts = _row_slices(n, n * pixels * inner)
        most = parts[0].stop
        last = None if ctx is None else hidden.new_empty(n, n, features)
        buffers, projected = hidden.new_empty(2, most, n, features), hidden.new_empty(most, n, pixels, inner)
        for part in parts:
            count = len(rows[part])
            block = buffers[0, :count] if last is None else last[part]
            torch.bmm(matrices.back_x.expand(count, -1, -1), rows[part], out=block)
            _add_pointwise(block, old[part], weight, gate, buffers[1, :count])
            activated = _project(projected[:count], block, project, project_bias)
            torch.ops.aten.gelu.out(activated, out=activated)
            result[part].copy_(output_bias)
            _add_product(result[part], activated, output)
        if ctx is not None:
            ctx.save_for_backward(last, hidden, weight, gate, project, project_bias, output)
            ctx.matrices = matrices
        return result.view(hidden.shape[:-1])

    @staticmethod
    @once_differentiable
    def backward(ctx, result_gradient):
        (last, hidden, weight, gate, project, project_bias, output), matrices = ctx.saved_tensors, ctx.matrices
        n, features, width = hidden.shape[0], last.shape[-1], hidden.shape[-1]
        pixels, inner = features // width, project.shape[-1]
        old, result_gradient = hidden.view(n, n, -1), result_gradient.contiguous().view(n, n, pixels)
        old_gradient, weight_gradient = torch.empty_like(old), torch.zeros_like(weight)
        gate_gradient = None if gate is None else torch.zeros_like(gate)
        project_gradient, bias_gradient = torch.zeros_like(project), torch.zeros_like(project_bias)
        output_gradient = torch.zeros_like(output)
        mixed_rows = hidden.new_empty(n, matrices.along_x.shape[0], features)
        parts = _row_slices(n, 2 * n * pixels * inner)
        buffers = hidden.new_empty(2, parts[0].stop, n, features)
        projected = hidden.new_empty(2, parts[0].stop, n, pixels, inner)
        for part in parts:
            count = len(old[part])
            (gradient, buffer), (before, after) = buffers[:, :count], projected[:, :count]
            _project(before, last[part], project, project_bias)  # computed again: cheaper than keeping it
            torch.ops.aten.gelu.out(before, out=after)
            _add_weight_gradient(output_gradient, after, result_gradient[part])
            _add_product(after, result_gradient[part], output.T, beta=0)
            torch.ops.aten.gelu_backward.grad_input(after, before, grad_input=after)
            bias_gradient += after.view(-1, inner).sum(0)
            _pointwise_backward(after, last[part], project, None, gradient, project_gradient, None, None)
            torch.bmm(matrices.back_x.T.expand(count, -1, -1), gradient, out=mixed_rows[part])
            collected = old_gradient[part], weight_gradient, gate_gradient
            _pointwise_backward(gradient, old[part], weight, gate, *collected, buffer)
        gradients = project_gradient, bias_gradient, output_gradient, result_gradient.sum().view(1)
        mixed_gradient = _analyse_rows(mixed_rows, matrices)
        return mixed_gradient, old_gradient.view(hidden.shape), weight_gradient, gate_gradient, *gradients, None


def _project(out: Tensor, field: Tensor, project: Tensor, bias: Tensor) -> Tensor:
    """``field @ project + bias`` into out."""
    out.copy_(bias)
    _add_product(out, field, project)
    return out
