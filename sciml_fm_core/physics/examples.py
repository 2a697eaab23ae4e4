"""Solved examples of one system."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from .spectral import resample


class Examples(NamedTuple):
    """A batch of solved examples of one system.

    ``source`` and ``solution`` have shape (count, n, n), ``coefficients`` (count, c), ``dial`` (count,).
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

    def resampled(self, n: int) -> Examples:
        """The same examples on n x n points, see `spectral.resample`."""
        if n == self.source.shape[-1]:
            return self
        return Examples(resample(self.source, n), self.coefficients, resample(self.solution, n), self.dial)

    def without_solution(self) -> Examples:
        """The same sources and coefficients with NaN for solutions: what must not depend on labels cannot then."""
        return self._replace(solution=torch.full_like(self.solution[:1, :1, :1], torch.nan).expand_as(self.solution))

    @property
    def resolution(self) -> int:
        """Points in each direction."""
        return self.source.shape[-1]

    @property
    def size(self) -> int:
        """Number of examples (``len`` is that of the tuple)."""
        return self.source.shape[0]
