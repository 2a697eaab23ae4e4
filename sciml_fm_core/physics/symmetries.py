"""The rotations and reflections of the square, and what they do to fields and coefficients.

The square has eight symmetries, the dihedral group D4: the matrices Q with one entry 1 or -1 in each row and column.
On the periodic grid each maps points to points. With ``(Q u)(x) = u(Q^-1 x)``, a field and its source are turned
alike, and an equation with constant coefficients keeps its form: vectors become ``Q v``, tensors ``Q K Q^T``, and
scalars stay. So a solved example gives eight, at no cost and without any error.

An element is an integer from 0 to 7, ``swap + 2 mirror_x + 4 mirror_y``: first x and y are exchanged where ``swap``,
then x and y change sign where ``mirror_x`` and ``mirror_y``. 0 is the identity.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from .spectral import broadcast_shapes

ELEMENTS = 8
"""How many symmetries the square has."""
SWAP = 1
"""The part of an element that exchanges x and y."""


@dataclass(frozen=True)
class Geometry:
    """How the coefficients or fields of an equation turn with the square; what is not named is a scalar and stays.

    Attributes:
        tensors: names of the components ``(k11, k22, k12)`` of each symmetric tensor.
        vectors: names of the components ``(v1, v2)`` of each vector.

    >>> flow = Geometry(vectors=(("v1", "v2"),))
    >>> flow.turned(torch.tensor([3.0, 1.0, 2.0]), torch.tensor(3), ("omega", "v1", "v2"))  # (x, y) to (-y, x)
    tensor([ 3., -2.,  1.])
    """

    tensors: tuple[tuple[str, str, str], ...] = ()
    vectors: tuple[tuple[str, str], ...] = ()

    @property
    def names(self) -> tuple[str, ...]:
        """All coefficients and fields that are components of something."""
        return tuple(name for components in (*self.tensors, *self.vectors) for name in components)

    def turned(self, coefficients: Tensor, elements: Tensor, names: tuple[str, ...]) -> Tensor:
        """Coefficients, or values of fields, (..., c), named in their order, turned by elements of shape (...)."""
        swap, sign_x, sign_y = _parts(elements, coefficients.dtype)
        leading = broadcast_shapes(coefficients.shape[:-1], elements.shape)
        coefficients = coefficients.expand(*leading, len(names))
        columns = dict(zip(names, coefficients.unbind(-1), strict=True))
        for first, second, mixed in (each for each in self.tensors if each[0] in columns):
            columns[first], columns[second] = _exchanged(columns[first], columns[second], swap)
            columns[mixed] = sign_x * sign_y * columns[mixed]
        for first, second in (each for each in self.vectors if each[0] in columns):
            columns[first], columns[second] = _exchanged(columns[first], columns[second], swap)
            columns[first], columns[second] = sign_x * columns[first], sign_y * columns[second]
        return torch.stack(list(columns.values()), dim=-1) if columns else coefficients


def turned_field(field: Tensor, elements: Tensor) -> Tensor:
    """``(Q u)(x) = u(Q^-1 x)`` of periodic fields; the point x = 0 stays where it is.

    >>> turned_field(torch.arange(16.0).reshape(4, 4), torch.tensor(2))[0]  # x to -x
    tensor([0., 3., 2., 1.])

    Args:
        field: shape (..., n, n), indexed [..., y, x].
        elements: one for each field, integers that broadcast to (...).
    """
    swap, mirror_x, mirror_y = (part[..., None, None] for part in _bits(elements))
    if field.shape[-1] == field.shape[-2] or swap.any():
        field = torch.where(swap, field.mT, field)
    field = torch.where(mirror_x, _mirrored(field, -1), field)
    return torch.where(mirror_y, _mirrored(field, -2), field)


def inverse(elements: Tensor) -> Tensor:
    """The elements that undo these: themselves, but for the two quarter turns."""
    swap, mirror_x, mirror_y = _bits(elements)
    first, second = torch.where(swap, mirror_y, mirror_x), torch.where(swap, mirror_x, mirror_y)
    return swap + 2 * first + 4 * second


def _bits(elements: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    return (elements & 1) > 0, (elements & 2) > 0, (elements & 4) > 0


def _parts(elements: Tensor, dtype: torch.dtype) -> tuple[Tensor, Tensor, Tensor]:
    """Whether x and y are exchanged, and the signs that x and y then get."""
    swap, mirror_x, mirror_y = _bits(elements)
    return swap, 1 - 2 * mirror_x.to(dtype), 1 - 2 * mirror_y.to(dtype)


def _exchanged(first: Tensor, second: Tensor, swap: Tensor) -> tuple[Tensor, Tensor]:
    return torch.where(swap, second, first), torch.where(swap, first, second)


def _mirrored(field: Tensor, dim: int) -> Tensor:
    """Index j to -j mod n."""
    return field.flip(dim).roll(1, dim)
