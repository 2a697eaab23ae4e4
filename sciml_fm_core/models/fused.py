"""The trunk of a Fourier neural operator for CPUs: what `blocks.plain_trunk` computes, in one differentiable function.

All that touches a row of points is done while that row is in the cache, forward and backward; the backward pass is
written out, so that nothing is copied or added up between blocks; and every large array is used again by the next call.
The numbers are those of the plain form to rounding (see ``tests/test_blocks.py``).
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import chain
from typing import Any, ClassVar

import torch
from torch import Tensor

from sciml_fm_core.eager import is_eager, is_ordinary

from .blocks import Block, FourierMatrices, Head, plain_trunk

CACHE_ELEMENTS = 2**20
"""Elements of a hidden field worked on at once; measured best between 2^19 and 2^21 (two cores, 1 MiB of second-level
cache each)."""

SPARE_BYTES = 2**29
"""Memory kept for the next call, at most."""
OF_A_BLOCK = 6
"""What is taken of a `Block`: all but factors at each point."""


def fused_trunk(
    fields: Tensor, spectrum: Tensor, blocks: Sequence[Block], head: Head, matrices: FourierMatrices
) -> Tensor:
    """`plain_trunk` for ordinary tensors outside `torch.func`, tracing and compilation; square grids, one output,
    and blocks without factors at each point.

    Differentiable any number of times: a backward pass that is to be differentiated computes the plain form again.
    """
    parameters = chain.from_iterable(block[:-1] for block in blocks)
    arguments = matrices, fields.contiguous(), spectrum.contiguous(), *head, *parameters
    result = _Trunk.apply(*arguments) if torch.is_grad_enabled() else _Trunk.forward(None, *arguments)
    return result.unsqueeze(-1)


class Workspace:
    """Arrays that are used again: fresh ones cost a page fault every 4 KiB, up to a fifth of a training step.

    The n-th array taken is the n-th of an earlier workspace that is gone, where its shape is the same. What is gone is
    kept for the next, up to `SPARE_BYTES`, as long as the process lives.
    """

    _spare: ClassVar[list[list[Tensor]]] = []

    def __init__(self):
        try:
            self._arrays = self._spare.pop()
        except IndexError:
            self._arrays = []
        self.taken = 0

    def __del__(self):
        held = [self._arrays[: self.taken], *self._spare]
        if sum(array.nbytes for arrays in held for array in arrays) <= SPARE_BYTES:
            self._spare.append(held[0])

    @torch.inference_mode(False)  # an array made in that mode could not be used by a training
    def take(self, like: Tensor, *shape: int) -> Tensor:
        """An array of any content."""
        if self.taken == len(self._arrays):
            self._arrays.append(torch.empty(shape, dtype=like.dtype, device=like.device))
        array = self._arrays[self.taken]
        if array.shape != shape or array.dtype != like.dtype:
            array = self._arrays[self.taken] = torch.empty(shape, dtype=like.dtype, device=like.device)
        self.taken += 1
        return array


class _Spectral:
    """What is done between two transforms along x, on arrays of its own that every block uses again.

    Shapes: ``rows`` (n, 2 m, f) with (kx, re/im) and f = batch * d features, and ``columns`` the same with the first
    two axes exchanged; ``products`` (m, re/im, cos/sin, m + 1, f); spectra (2 m * m, re/im, batch, d).
    """

    def __init__(self, work: Workspace, matrices: FourierMatrices, spectrum: Tensor):
        self.matrices = matrices
        self.n, self.modes = matrices.back_x.shape[0], matrices.along_x.shape[0] // 2
        n, m = self.n, self.modes
        features = spectrum[0, 0].numel()
        self.columns = work.take(spectrum, 2 * m, n, features)
        self.products = work.take(spectrum, m, 2, 2, m + 1, features)
        self.below = work.take(spectrum, m, m, 2, features)
        self.turned = work.take(spectrum, *spectrum.shape)
        # Order of ky = -1 .. -m in the second half of a spectrum, which has them from -m on.
        self.backwards = torch.arange(m - 1, -1, -1, device=spectrum.device)

    def synthesise(self, spectrum: Tensor) -> Tensor:
        """Inverse transform along y, `blocks.fold` included: rows, to be multiplied by ``back_x``."""
        m, (cosine, sine) = self.modes, self.products.permute(2, 3, 0, 1, 4)
        spectrum = spectrum.view(2 * m, m, 2, -1)
        above, below = spectrum[:m], self.below
        torch.index_select(spectrum[m:], 0, self.backwards, out=below)
        cosine[0], cosine[m], sine[0] = above[0], below[-1], 0
        torch.add(above[1:], below[:-1], out=cosine[1:m])
        torch.sub(below[:-1, :, 1], above[1:, :, 1], out=sine[1:m, :, 0])
        torch.sub(above[1:, :, 0], below[:-1, :, 0], out=sine[1:m, :, 1])
        sine[m, :, 0] = below[-1, :, 1]
        torch.neg(below[-1, :, 0], out=sine[m, :, 1])
        waves = self.matrices.waves.T.expand(2 * m, -1, -1)
        return torch.bmm(waves, self.products.view(2 * m, 2 * (m + 1), -1), out=self.columns).transpose(0, 1)

    def analyse(self, rows: Tensor, out: Tensor) -> Tensor:
        """Transform of rows along y, `blocks.unfold` included; the transpose of `synthesise`."""
        m, (cosine, sine) = self.modes, self.products.permute(2, 3, 0, 1, 4)
        waves = self.matrices.waves.expand(2 * m, -1, -1)
        torch.bmm(waves, rows.transpose(0, 1), out=self.products.view(2 * m, 2 * (m + 1), -1))
        spectrum, below = out.view(2 * m, m, 2, -1), self.below
        torch.add(cosine[:m, :, 0], sine[:m, :, 1], out=spectrum[:m, :, 0])
        torch.sub(cosine[:m, :, 1], sine[:m, :, 0], out=spectrum[:m, :, 1])
        torch.sub(cosine[1:, :, 0], sine[1:, :, 1], out=below[:, :, 0])
        torch.add(cosine[1:, :, 1], sine[1:, :, 0], out=below[:, :, 1])
        torch.index_select(below, 0, self.backwards, out=spectrum[m:])
        return out

    def turn(self, spectrum: Tensor) -> None:
        """``turned`` becomes the spectrum times i."""
        torch.neg(spectrum[:, 1], out=self.turned[:, 0])
        self.turned[:, 1] = spectrum[:, 0]

    def mix(self, spectrum: Tensor, weight: Tensor, out: Tensor) -> Tensor:
        """`blocks.mix_modes`, for a spectrum that was turned."""
        torch.bmm(spectrum.flatten(1, 2), weight[0], out=out.flatten(1, 2))
        out.flatten(1, 2).baddbmm_(self.turned.flatten(1, 2), weight[1])
        return out

    def mix_backward(self, spectrum: Tensor, weight: Tensor, gradient: Tensor, out: Tensor) -> Tensor:
        """Gradient of the weight of `mix`; that of the spectrum, which was turned, goes into ``out``."""
        transposed = weight.transpose(2, 3)
        weight_gradient = torch.empty_like(weight)
        torch.bmm(spectrum.flatten(1, 2).transpose(1, 2), gradient.flatten(1, 2), out=weight_gradient[0])
        torch.bmm(self.turned.flatten(1, 2).transpose(1, 2), gradient.flatten(1, 2), out=weight_gradient[1])
        self.turned[:, 0] = gradient[:, 1]
        torch.neg(gradient[:, 0], out=self.turned[:, 1])
        torch.bmm(gradient.flatten(1, 2), transposed[0], out=out.flatten(1, 2))
        out.flatten(1, 2).baddbmm_(self.turned.flatten(1, 2), transposed[1])
        return weight_gradient


class _Trunk(torch.autograd.Function):
    """Arguments: matrices, fields, spectrum, the head's four, then six of each block."""

    @staticmethod
    def forward(ctx, matrices, fields, spectrum, *parameters):
        head, blocks = Head(*parameters[:4]), _blocks_of(parameters)
        work = Workspace()
        spectral = _Spectral(work, matrices, spectrum)
        n, features, points = spectral.n, spectrum[0, 0].numel(), spectral.n**2
        rows, mixed = work.take(fields, n, 2 * spectral.modes, features), work.take(spectrum, *spectrum.shape)
        parts = _row_slices(n, n * features)
        buffers = work.take(fields, 2, parts[0].stop, n, features)
        old, kept = fields.view(n, n, -1), []
        for number, block in enumerate(blocks):
            spectral.turn(spectrum)
            gated = block.spectral_gate is not None or block.mode_gate is not None
            in_place = not gated or (ctx is None and block.mode_gate is None)
            unscaled = mixed if in_place else work.take(spectrum, *spectrum.shape)
            spectral.mix(spectrum, block.spectral, out=unscaled)
            if gated:
                _apply_gates(unscaled, block, out=mixed)
            mixed[0, 0].add_(block.mean, alpha=points)
            columns = spectral.synthesise(mixed)
            if number == len(blocks) - 1:
                break
            # without a backward pass a row of new points may take the place of the old ones
            new = work.take(fields, n, n, features) if ctx is not None or not number else old
            before = None if ctx is None else work.take(fields, n, n, features)  # the GELU
            for part in parts:
                value, buffer = buffers[:, : len(rows[part])]
                value = value if before is None else before[part]
                _by_row(matrices.back_x, columns[part], out=value)
                _add_pointwise(value, old[part], block.weight, block.gate, buffer)
                torch.ops.aten.gelu.out(value, out=new[part])
                _by_row(matrices.along_x, new[part], out=rows[part])
            kept.append((spectrum, unscaled, old, before))
            spectrum = spectral.analyse(rows, out=work.take(spectrum, *spectrum.shape))
            old = new
        last = None if ctx is None else work.take(fields, n, n, features)
        result = _head_forward(work, columns, old, blocks[-1], head, last, matrices)
        if ctx is not None:
            ctx.save_for_backward(fields, kept[0][0] if kept else spectrum, *parameters)
            ctx.matrices, ctx.work, ctx.spectral, ctx.scratch = matrices, work, spectral, (rows, mixed, buffers)
            ctx.taken = work.taken
            ctx.kept = [*kept, (spectrum, unscaled, old, last)]
        return result

    @staticmethod
    def backward(ctx, result_gradient):
        fields, spectrum, *parameters = ctx.saved_tensors
        if (
            torch.is_grad_enabled() or not is_eager() or not is_ordinary(result_gradient)
        ):  # the gradients are to be differentiated themselves, or mapped
            return None, *_plain_backward(ctx, torch.is_grad_enabled(), result_gradient, fields, spectrum, *parameters)
        matrices, work, spectral = ctx.matrices, ctx.work, ctx.spectral
        head, blocks, (rows, mixed, buffers) = Head(*parameters[:4]), _blocks_of(parameters), ctx.scratch
        n, features, points = spectral.n, rows.shape[-1], spectral.n**2
        work.taken = ctx.taken  # a second backward pass takes the arrays of the first
        parts = _row_slices(n, n * features)
        gradient = work.take(fields, n, n, features)  # of each block's input, in turn
        fields_gradient = torch.empty_like(fields) if ctx.needs_input_grad[1] else None
        spectrum_gradient = work.take(mixed, *mixed.shape)
        products = [_no_products(block) for block in blocks]
        targets = [None if fields_gradient is None else fields_gradient.view(n, n, -1), *[gradient] * (len(blocks) - 1)]

        *_, old, last = ctx.kept[-1]
        head_gradients = _head_backward(
            work, result_gradient, rows, last, old, blocks[-1], head, targets[-1], products[-1], matrices
        )
        found: list[Tensor | None] = []
        for number in reversed(range(len(blocks))):
            block, (spectrum, unscaled, *_) = blocks[number], ctx.kept[number]
            spectral.analyse(rows, out=mixed)  # a transform along y is the transpose of the inverse
            mean_gradient = mixed[0, 0] * points
            spectral_gate_gradient, mode_gate_gradient = _gates_backward(unscaled, block, mixed, spectrum_gradient)
            spectral.turn(spectrum)
            weight_gradient = spectral.mix_backward(spectrum, block.spectral, mixed, out=spectrum_gradient)
            pointwise_gradient, gate_gradient = _pointwise_gradients(block, products[number])
            found[:0] = [weight_gradient, pointwise_gradient, mean_gradient]
            found[3:3] = [spectral_gate_gradient, gate_gradient, mode_gate_gradient]
            if number == 0:
                break
            columns = spectral.synthesise(spectrum_gradient)
            block, (*_, old, before) = blocks[number - 1], ctx.kept[number - 1]
            target = targets[number - 1]
            for part in parts:
                inner = buffers[0, : len(rows[part])]
                gradient[part].baddbmm_(matrices.along_x.T.expand(len(inner), -1, -1), columns[part])
                torch.ops.aten.gelu_backward.grad_input(gradient[part], before[part], grad_input=inner)
                _by_row(matrices.back_x.T, inner, out=rows[part])
                into = None if target is None else target[part]
                _pointwise_backward(inner, old[part], block, into, products[number - 1])
        return None, fields_gradient, spectrum_gradient.clone(), *head_gradients, *found


@torch.enable_grad()
def _plain_backward(ctx, as_graph: bool, result_gradient: Tensor, *inputs: Tensor | None) -> list[Tensor | None]:
    """Gradients of the trunk's inputs from the plain form, as part of a graph where one is made."""
    # The spectrum is made of the fields: by an alias of each, what one gives is not counted for the other.
    aliases: list[Any] = [None if tensor is None else tensor.view_as(tensor) for tensor in inputs]
    fields, spectrum, *parameters = aliases
    result = plain_trunk(fields, spectrum, _blocks_of(parameters), Head(*parameters[:4]), ctx.matrices)[..., 0]
    needed = ctx.needs_input_grad[1:]
    wanted = [alias for alias, needs in zip(aliases, needed, strict=True) if needs]
    found = iter(torch.autograd.grad(result, wanted, result_gradient, create_graph=as_graph, allow_unused=True))
    return [next(found) if needs else None for needs in needed]


def _blocks_of(parameters: Sequence[Any]) -> list[Block]:
    """The blocks among the parameters of `_Trunk`."""
    return [Block(*parameters[first : first + OF_A_BLOCK]) for first in range(4, len(parameters), OF_A_BLOCK)]


def _complex_product(first: Tensor, second: Tensor, out: Tensor, sign: int = 1) -> None:
    """`blocks.complex_product` into another tensor; with a sign of -1 of the complex conjugate of the second."""
    (real, imag), (other_real, other_imag) = first.unbind(1), second.unbind(1)
    torch.mul(real, other_real, out=out[:, 0]).addcmul_(imag, other_imag, value=-sign)
    torch.mul(imag, other_real, out=out[:, 1]).addcmul_(real, other_imag, value=sign)


def _apply_gates(spectrum: Tensor, block: Block, out: Tensor) -> None:
    """``out = mode_gate * spectral_gate * spectrum``, of the gates that the block has."""
    if block.mode_gate is not None:
        _complex_product(spectrum, block.mode_gate, out)
    if block.spectral_gate is not None:
        torch.mul(spectrum if block.mode_gate is None else out, block.spectral_gate, out=out)


def _gates_backward(
    spectrum: Tensor, block: Block, gradient: Tensor, buffer: Tensor
) -> tuple[Tensor | None, Tensor | None]:
    """Gradients of both gates; the gradient, of what `_apply_gates` gave, becomes that of the spectrum."""
    spectral_gate_gradient = mode_gate_gradient = None
    if block.spectral_gate is not None:
        ungated = spectrum
        if block.mode_gate is not None:
            ungated = torch.empty_like(spectrum)
            _complex_product(spectrum, block.mode_gate, ungated)
        torch.mul(ungated, gradient, out=buffer)
        spectral_gate_gradient = buffer.sum((0, 1))
        gradient *= block.spectral_gate
    if block.mode_gate is not None:
        mode_gate_gradient = torch.empty_like(gradient)
        _complex_product(gradient, spectrum, mode_gate_gradient, sign=-1)
        buffer.copy_(gradient)
        _complex_product(buffer, block.mode_gate, gradient, sign=-1)
    return spectral_gate_gradient, mode_gate_gradient


def _head_forward(work, columns, old, block, head, last, matrices) -> Tensor:
    """The last block's pixels and the head behind them; ``last`` keeps the former where it is given."""
    n, features = len(old), columns.shape[-1]
    width, inner = head.project.shape
    pixels = features // width
    result = old.new_empty(n, n, pixels)
    parts = _row_slices(n, n * pixels * inner)
    buffers = work.take(old, 2, parts[0].stop, n, features)
    projected = work.take(old, parts[0].stop, n, pixels, inner)
    for part in parts:
        value, buffer = buffers[:, : len(old[part])]
        value = value if last is None else last[part]
        _by_row(matrices.back_x, columns[part], out=value)
        _add_pointwise(value, old[part], block.weight, block.gate, buffer)
        activated = _project(projected[: len(value)], value, head)
        torch.ops.aten.gelu.out(activated, out=activated)
        result[part].copy_(head.output_bias)
        _add_product(result[part], activated, head.output)
    return result


def _head_backward(
    work, result_gradient, rows, last, old, block, head, target, products, matrices
) -> tuple[Tensor, ...]:
    """Gradients of the head; those of the last block's pointwise part are collected, its transform goes to rows."""
    n, features = len(old), rows.shape[-1]
    width, inner = head.project.shape
    pixels = features // width
    result_gradient = result_gradient.contiguous()
    project_gradient, bias_gradient, output_gradient = (torch.zeros_like(tensor) for tensor in head[:3])
    parts = _row_slices(n, 2 * n * pixels * inner)
    values = work.take(old, parts[0].stop, n, features)
    projected = work.take(old, 2, parts[0].stop, n, pixels, inner)
    for part in parts:
        value, (before, after) = values[: len(old[part])], projected[:, : len(old[part])]
        _project(before, last[part], head)  # computed again: cheaper than keeping it
        torch.ops.aten.gelu.out(before, out=after)
        _add_weight_gradient(output_gradient, after, result_gradient[part])
        _add_product(after, result_gradient[part], head.output.T, beta=0)
        torch.ops.aten.gelu_backward.grad_input(after, before, grad_input=after)
        bias_gradient += after.view(-1, inner).sum(0)
        _add_weight_gradient(project_gradient, last[part], after)
        _add_product(value, after, head.project.T, beta=0)
        _by_row(matrices.back_x.T, value, out=rows[part])
        into = None if target is None else target[part]
        _pointwise_backward(value, old[part], block, into, products)
    return project_gradient, bias_gradient, output_gradient, result_gradient.sum().view(1)


def _row_slices(n: int, elements_per_row: int) -> list[slice]:
    rows = max(1, min(n, CACHE_ELEMENTS // elements_per_row))
    return [slice(first, min(first + rows, n)) for first in range(0, n, rows)]


def _by_row(matrix: Tensor, rows: Tensor, out: Tensor) -> None:
    """``out[y] = matrix @ rows[y]``."""
    torch.bmm(matrix.expand(len(rows), -1, -1), rows, out=out)


def _add_product(out: Tensor, field: Tensor, weight: Tensor, beta: int = 1) -> None:
    """``out = beta * out + field @ weight`` in place."""
    c, d = weight.shape
    out.view(-1, d).addmm_(field.view(-1, c), weight, beta=beta)


def _add_weight_gradient(gradient: Tensor, field: Tensor, field_gradient: Tensor) -> None:
    """Gradient of ``field @ weight`` with respect to the weight, added in place."""
    c, d = gradient.shape
    gradient.addmm_(field.view(-1, c).T, field_gradient.view(-1, d))


def _add_pointwise(out: Tensor, field: Tensor, weight: Tensor, gate: Tensor | None, buffer: Tensor) -> None:
    """``out += gate * (field @ weight)`` in place."""
    if gate is None:
        _add_product(out, field, weight)
    else:
        _add_product(buffer, field, weight, beta=0)
        out.addcmul_(buffer, gate.view(-1))


def _no_products(block: Block) -> Tensor:
    """Where `_pointwise_backward` collects the products of a block's input and gradient: (c, d), or of each example."""
    return (
        torch.zeros_like(block.weight)
        if block.gate is None
        else block.weight.new_zeros(len(block.gate), *block.weight.shape)
    )


def _pointwise_backward(gradient, field, block, field_gradient, products) -> None:
    """Gradient of `_add_pointwise`'s field, and products for `_pointwise_gradients`; the gradient is overwritten."""
    c, d = block.weight.shape
    if block.gate is None:
        _add_weight_gradient(products, field, gradient)
    else:
        batch = len(block.gate)
        products.baddbmm_(field.view(-1, batch, c).permute(1, 2, 0), gradient.view(-1, batch, d).permute(1, 0, 2))
        gradient.mul_(block.gate.view(-1))
    if field_gradient is not None:
        _add_product(field_gradient, gradient, block.weight.T, beta=0)


def _pointwise_gradients(block: Block, products: Tensor) -> tuple[Tensor, Tensor | None]:
    """Gradients of a block's pointwise weight and gate."""
    if block.gate is None:
        return products, None
    return (products * block.gate.unsqueeze(1)).sum(0), (products * block.weight).sum(1)


def _project(out: Tensor, field: Tensor, head: Head) -> Tensor:
    """``field @ project + bias`` into out."""
    out.copy_(head.project_bias)
    _add_product(out, field, head.project)
    return out
