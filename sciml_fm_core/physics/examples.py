"""Solved examples of one system."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from .spectral import Resolution, resample, resolution_of


class Examples(NamedTuple):
    """A batch of solved examples of one system.

    ``source`` and ``solution`` have shape (count, ny, nx), or (count, p, ny, nx) and (count, q, ny, nx) where there are
    several input or output fields; ``coefficients`` (count, c), ``dial`` (count,).
    """

    source: Tensor
    coefficients: Tensor
    solution: Tensor
    dial: Tensor

    def to(self, device: torch.device | str) -> Examples:
        """The same examples on another device."""
        return Examples(*(tensor.to(device) for tensor in self))

    def take(self, index) -> Examples:
        """The examples at a slice or index tensor."""
        return Examples(*(tensor[index] for tensor in self))

    def resampled(self, resolution: Resolution) -> Examples:
        """The same examples on n x n or (ny, nx) points, see `spectral.resample`."""
        source, solution = (resample(fields, resolution) for fields in (self.source, self.solution))
        return Examples(source, self.coefficients, solution, self.dial)

    def without_solution(self) -> Examples:
        """The same sources and coefficients with NaN for solutions: what must not depend on labels cannot then."""
        return self._replace(solution=torch.full_like(self.solution[..., :1, :1], torch.nan).expand_as(self.solution))

    @property
    def resolution(self) -> Resolution:
        """Points in each direction, or (ny, nx)."""
        return resolution_of(self.source.shape)

    @property
    def size(self) -> int:
        """Number of examples (``len`` is that of the tuple)."""
        return self.source.shape[0]
