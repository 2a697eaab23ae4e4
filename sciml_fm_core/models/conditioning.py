"""What a network is told of the equation beside the source: scalars, and values on each Fourier mode."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn


class Conditioning(NamedTuple):
    """What a network is told of the equations of a batch.

    Attributes:
        scalars: numbers that describe each equation, shape (batch, k); k may be 0.
        modes: real values on each mode of the real transform of p points, shape (batch, p, p // 2 + 1, c), or None; p
            is the network's choice, see `Model.mode_points`.
    """

    scalars: Tensor
    modes: Tensor | None = None


SYMBOL_CHANNELS = 5
"""Number of `symbol_features`."""


def symbol_features(z: Tensor) -> Tensor:
    """What a network is told of a normalised Fourier symbol z = symbol / scale, shape (..., 5) for z of shape (...).

    ``asinh(log |z|)``, cosine and sine of the phase of z, ``1 / (1 + |z|)`` and ``log |z|``. All are bounded or grow
    slowly: an equation never seen stays within reach. A mode that the operator annihilates, z = 0, has no phase.

    >>> symbol_features(torch.tensor([1.0, 0.0])).tolist()[0]
    [0.0, 1.0, 0.0, 0.5, 0.0]
    """
    size = z.abs()
    known = size.clamp(1e-6, 1e6)
    real, imag = (z.real, z.imag) if z.is_complex() else (z, torch.zeros_like(z))
    divisor, logarithm = torch.where(size > 0, size, 1), torch.log(known)
    features = (torch.asinh(logarithm), real / divisor, imag / divisor, 1 / (1 + known), logarithm)
    return torch.stack(features, dim=-1)


MULTIPLIER_CHANNELS = 4
"""Number of `multiplier_features`."""


def multiplier_features(z: Tensor) -> Tensor:
    """What a network is told of a step that multiplies a mode by exp(z), shape (..., 4) for z of shape (...).

    Real and imaginary part of exp(z), where it is bounded, and asinh of those of z.

    >>> multiplier_features(torch.tensor([0.0])).tolist()
    [[1.0, 0.0, 0.0, 0.0]]
    """
    real, imag = (z.real, z.imag) if z.is_complex() else (z, torch.zeros_like(z))
    size = torch.exp(real.clamp(max=3.0))
    return torch.stack((size * imag.cos(), size * imag.sin(), real.asinh(), imag.asinh()), dim=-1)


class Gates(nn.Module):
    """Network of the scalars alone that modulates hidden channels: scalars (batch, k) to (batch, outputs).

    A network without it must build every product of a coefficient and a field out of pointwise nonlinearities; a gate
    gives it the product. Users bound what comes out, see `bounded_scale`.
    """

    def __init__(self, scalars: int, outputs: int, hidden: int):
        super().__init__()
        last = nn.Linear(hidden, outputs)
        self.layers = nn.Sequential(nn.Linear(scalars, hidden), nn.GELU(), nn.Linear(hidden, hidden), nn.GELU(), last)
        nn.init.zeros_(last.bias)

    def forward(self, scalars: Tensor) -> Tensor:
        """Unbounded gates."""
        return self.layers(scalars)


class ModeGates(nn.Module):
    """Network, shared by all modes, of the values on a mode: a complex factor for each hidden channel of each block.

    Values (..., c) to (..., blocks, 2, width), real and imaginary part. Where a network is told the Fourier symbol of
    an equation, this is where it learns to divide by it; what it learns on one mode serves all others, so that an
    equation never seen is one whose modes have been seen. It makes complex numbers of order one and, for each block,
    the logarithm of their common size, see `complex_factors`: sizes are multiplied by adding what it makes, and a
    power of |z|, for which log |z| is told, stays one beyond the sizes that were seen.
    """

    def __init__(self, values: int, blocks: int, width: int, hidden: int):
        super().__init__()
        self.blocks, self.width = blocks, width
        last = nn.Linear(hidden, blocks * (1 + 2 * width))
        self.layers = nn.Sequential(nn.Linear(values, hidden), nn.GELU(), nn.Linear(hidden, hidden), nn.GELU(), last)

    def forward(self, values: Tensor) -> Tensor:
        """Factors of the modes."""
        return complex_factors(self.layers(values), self.blocks)


LARGEST_LOGARITHM = 3.0
"""Largest logarithm of the size of a block's factors: a symbol outside all that was seen cannot make them explode."""


def complex_factors(output: Tensor, blocks: int) -> Tensor:
    """Factors (..., blocks, 2, width) from the output (..., blocks * (1 + 2 width)) of the layers of `ModeGates`."""
    logarithm, factors = output.split([blocks, output.shape[-1] - blocks], dim=-1)
    size = torch.exp(logarithm.clamp(-LARGEST_LOGARITHM, LARGEST_LOGARITHM))
    return factors.unflatten(-1, (blocks, 2, -1)) * size[..., None, None]


def bounded_scale(gate: Tensor) -> Tensor:
    """``1 + tanh(g / 2)`` in (0, 2): a coefficient outside the training range cannot make it explode."""
    return 1 + torch.tanh(gate / 2)
