"""What a network is told of the equation beside the source: scalars, values on each Fourier mode, fields."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import ClassVar, Literal, NamedTuple

import torch
from torch import Tensor, nn

from sciml_fm_core.physics.system import System


class Conditioning(NamedTuple):
    """What a network is told of the equations of a batch.

    Attributes:
        scalars: numbers that describe each equation, shape (..., batch, k); k may be 0.
        modes: real values on each mode of the real transform, shape (..., batch, n, n // 2 + 1, c), or None.
        fields: values at each point, shape (..., batch, c, n, n), or None.
    """

    scalars: Tensor
    modes: Tensor | None = None
    fields: Tensor | None = None

    def member(self, number: int) -> Conditioning:
        """That of one of several members, from values that have, or lack, a leading axis of members."""
        wanted = {"scalars": 3, "modes": 5, "fields": 5}
        return Conditioning(
            *(
                value[min(number, len(value) - 1)] if value is not None and value.ndim == wanted[name] else value
                for name, value in self._asdict().items()
            )
        )


class Conditioner(ABC):
    """Makes values on modes or fields from the coefficients of an equation.

    A subclass that has a `kind` registers itself in `CONDITIONERS`; it is built without arguments, and a bundle names
    it by its kind.
    """

    kind: ClassVar[str]
    """Key in `CONDITIONERS`."""
    part: ClassVar[Literal["modes", "fields"]]
    """Which part of a `Conditioning` it makes."""
    channels: ClassVar[int]
    """Number of values on each mode, or of fields."""

    def __init_subclass__(cls, **options):
        super().__init_subclass__(**options)
        if "kind" in cls.__dict__:
            CONDITIONERS[cls.kind] = cls()

    @abstractmethod
    def values(self, coefficients: Tensor, system: System, n: int) -> Tensor:
        """For coefficients (batch, k) of a system: (batch, n, n // 2 + 1, channels), or (batch, channels, n, n)."""


CONDITIONERS: dict[str, Conditioner] = {}
"""Conditioners by kind."""


class SymbolOnModes(Conditioner):
    """The Fourier symbol itself: with ``z = symbol / scale`` on each mode, ``asinh(log |z|)``, cosine and sine of the
    phase of z, and ``1 / (1 + |z|)``. All are bounded or grow slowly: an equation never seen stays within reach.
    """

    kind = "symbol"
    part = "modes"
    channels = 4

    def values(self, coefficients, system, n):
        symbol = system.symbol(coefficients.double(), n) / system.scale(coefficients.double())[..., None, None]
        size = symbol.abs().clamp(min=1e-6)
        real, imag = (symbol.real, symbol.imag) if symbol.is_complex() else (symbol, torch.zeros_like(symbol))
        features = (torch.asinh(torch.log(size)), real / size, imag / size, 1 / (1 + size))
        return torch.stack(features, dim=-1).to(coefficients.dtype)


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


def bounded_scale(gate: Tensor) -> Tensor:
    """``1 + tanh(g / 2)`` in (0, 2): a coefficient outside the training range cannot make it explode."""
    return 1 + torch.tanh(gate / 2)
