"""A physical parameter: the range it is drawn from or dialled in, and what people are told of it."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from torch import Tensor


@dataclass(frozen=True)
class Parameter:
    """A scalar that fixes the coefficients of an example: the one that tasks vary (the dial), or one beside it.

    Attributes:
        name: such as ``eigenvalue``.
        low, high: range; a parameter beside the dial is drawn uniformly in it.
        start: where it stands at first; the middle of the range where None.
        label: name in full, for a reader; the name itself where empty.
        help: one sentence that explains it.
        step: distance of neighbouring values; a hundredth of the range where None. A logarithmic dial has two
            significant digits instead.
        logarithmic: whether equal ratios are equal distances.
        log_uniform: tasks draw it so that equal ratios are equally probable, not equal differences.
        whole: tasks draw whole numbers, both ends included.
        minimum: smallest value that has a meaning; any above 0 where None.
        angle: in radians, shown in degrees.
        period: of an angle whose turn by less than 2 pi changes nothing.

    >>> Parameter("exponent", 0.5, 2.0, step=0.25).snap(0.9)
    1.0
    """

    name: str
    low: float
    high: float
    start: float | None = None
    label: str = ""
    help: str = ""
    step: float | None = None
    logarithmic: bool = False
    log_uniform: bool = False
    whole: bool = False
    minimum: float | None = None
    angle: bool = False
    period: float = 2 * math.pi

    def __post_init__(self):
        if not (math.isfinite(self.low) and math.isfinite(self.high) and self.low < self.high):
            raise ValueError(f"parameter {self.name}: expected a finite low < high, got {self.low} and {self.high}")
        if self.logarithmic and self.low <= 0:
            raise ValueError(f"parameter {self.name}: expected low above 0 on a logarithmic scale, got {self.low}")

    @property
    def title(self) -> str:
        """Name for a reader."""
        return self.label or (self.name if len(self.name) == 1 else self.name[:1].upper() + self.name[1:])

    @property
    def default(self) -> float:
        """Where it stands at first."""
        return (self.low + self.high) / 2 if self.start is None else self.start

    def spread(self, shares: Tensor, low: float, high: float) -> Tensor:
        """Values in [low, high] as tasks draw them, from uniform numbers in [0, 1)."""
        if self.log_uniform:
            return low * (high / low) ** shares
        return low + shares * (high - low)

    def position(self, value: float) -> float:
        """Where a value lies along the range, 0 to 1; outside it is clipped."""
        low, high, value = self.low, self.high, min(self.high, max(self.low, value))
        if self.logarithmic:
            low, high, value = math.log(low), math.log(high), math.log(value)
        return (value - low) / (high - low)

    def snap(self, value: float) -> float:
        """Nearest of `values`."""
        if self.logarithmic:
            value = max(value, 1e-300)
            return min(self._values, key=lambda v: abs(math.log(v / value)))
        return min(self._values, key=lambda v: abs(v - value))

    @cached_property
    def _values(self) -> tuple[float, ...]:
        return tuple(self.values())

    def values(self) -> list[float]:
        """All values that a dial can take; two significant digits on a logarithmic one."""
        if self.logarithmic:
            return sorted({float(f"{value:.2g}") for value in np.geomspace(self.low, self.high, 101)})
        step = self.step or (self.high - self.low) / 100
        count = int((self.high - self.low) / step + 1e-6)
        return [float(f"{self.low + i * step:.10g}") for i in range(count + 1)]

    def sweep(self, count: int = 29) -> list[float]:
        """Values at which a curve along the dial is measured."""
        spaced = np.geomspace if self.logarithmic else np.linspace
        return [float(f"{value:.4g}") for value in spaced(self.low, self.high, count)]
