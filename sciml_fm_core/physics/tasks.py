"""Tasks, written ``SYS-1(1,5)``: a system, the range of its dial, the sparsity of its sources."""

from __future__ import annotations

import re
from dataclasses import dataclass, field

import torch

from sciml_fm_core.schema import TakesNumpy

from .examples import Examples
from .probe import check_kept
from .sampling import check_resolution, draw_accepted
from .spectral import Resolution
from .system import SYSTEMS, System, find_system

SPARSITIES = (0.2, 0.4, 0.6, 0.8)
"""Sparsities of the sources, in equal shares: example i has sparsity number i mod 4, so any prefix is balanced."""

_PLUS = re.compile(r"(?<=\))\s*\+")  # not the one of 1e+06
_LABEL = re.compile(r"\s*([A-Za-z][\w-]*)\s*\(\s*([-+.\deE]+)\s*,\s*([-+.\deE]+)\s*\)\s*")


@dataclass(frozen=True)
class Task(TakesNumpy):
    """Examples of one system with the dial drawn uniformly in [low, high].

    Attributes:
        system: the PDE.
        low, high: range of the dial; whole numbers, both included, where the system's dial is one.
        sparsities: probabilities that a Gaussian is absent, in equal shares.
        reject: apply the sampler's rule of the system (SYS-3: redraw while ``max |u| > 2``). It shapes the data and is
            no property of the equation: `System.solve` never applies it.
    """

    system: System
    low: float
    high: float
    sparsities: tuple[float, ...] = field(default=SPARSITIES)
    reject: bool = True

    def __post_init__(self):
        if not self.low <= self.high:
            raise ValueError(f"task {self.label}: expected low <= high, got {self.low:g} > {self.high:g}; swap them")
        minimum = self.system.dialled.minimum
        if not ((self.low > 0 if minimum is None else self.low >= minimum) and self.high < float("inf")):
            least = "above 0" if minimum is None else f"of at least {minimum:g}"
            raise ValueError(f"task {self.label}: expected a finite range of the {self.system.dial_name} {least}")
        if self.system.dialled.whole and not (float(self.low).is_integer() and float(self.high).is_integer()):
            raise ValueError(f"task {self.label}: {self.system.dial_name} is drawn as a whole number; round the range")
        if not self.sparsities or not all(0 <= s <= 1 for s in self.sparsities):
            raise ValueError(f"sparsities: expected probabilities in [0, 1], got {self.sparsities}")
        for end in (self.low, self.high):
            try:
                check_kept(self.system, float(end))
            except ValueError as error:
                raise ValueError(f"task {self.label}: {error}") from None

    @property
    def label(self) -> str:
        """The paper's name of the task, such as ``SYS-1(1,5)``."""
        return _label(self.system, self.low, self.high)

    @classmethod
    def parse(cls, label: str) -> Task:
        """Task from a label such as ``SYS-1(1,5)`` or ``poisson(1,5)``.

        >>> Task.parse("poisson(1,5)").label
        'SYS-1(1,5)'

        Raises:
            ValueError: if the text is not of that form, the system is unknown or the range reversed.
        """
        match = _LABEL.fullmatch(label)
        try:
            if match is None:
                raise ValueError
            low, high = float(match[2]), float(match[3])
        except ValueError:
            known = ", ".join(system.label for system in SYSTEMS.values())
            raise ValueError(
                f"task: expected SYSTEM(low,high) such as 'SYS-1(1,5)', with a system of {known}; got {label!r}"
            ) from None
        return cls(find_system(match[1]), low, high)

    def sample(
        self,
        count: int,
        resolution: Resolution = 128,
        generator: torch.Generator | None = None,
        *,
        dtype: torch.dtype = torch.float32,
        device: torch.device | str | None = None,
    ) -> Examples:
        """Draw and solve examples.

        >>> examples = Task.parse("SYS-1(1,5)").sample(4, 32, torch.Generator().manual_seed(0))
        >>> examples.source.shape, examples.coefficients.shape
        (torch.Size([4, 32, 32]), torch.Size([4, 3]))

        Args:
            count: number of examples.
            resolution: points in each direction, even; of a system without a symbol also (ny, nx), of any size.
            generator: source of randomness. The numbers are drawn on its device, whatever `device` is.
            dtype: float32 or float64. The numbers drawn do not depend on it, nor on the resolution.
            device: where the examples are made; the generator's device by default.

        Returns:
            `Examples` (source, coefficients, solution, dial).

        Raises:
            ValueError: if the count or the resolution is not positive, no generator is given, or the rejection rule
                turns nearly every draw away.
        """
        if count < 1:
            raise ValueError(f"count: expected at least 1, got {count}")
        check_resolution(resolution, self.system)
        if generator is None:
            raise ValueError("generator: expected a torch.Generator; pass torch.Generator().manual_seed(seed)")
        return draw_accepted(self, count, resolution, generator, dtype, device)[0]


def _label(system: System, low: float, high: float) -> str:
    return f"{system.label}({low:.15g},{high:.15g})"


def parse_mixture(label: str) -> list[Task]:
    """Tasks of a mixture written ``SYS-1(1,5) + SYS-2(0.2,1)``; a single task is a mixture of one.

    Raises:
        ValueError: as `Task.parse`.
    """
    return [Task.parse(part) for part in _PLUS.split(label)]


def tasks_of(system: System) -> dict[str, str]:
    """Labels of a system's tasks by the names of their shifts, pre-training first where the system has such a range.

    >>> tasks_of(find_system("SYS-3"))
    {'pre-training': 'SYS-3(1,10)', 'none': 'SYS-3(1,5)', 'medium': 'SYS-3(5,12)'}
    """
    return {shift: _label(system, *ends) for shift, ends in system.shifts.items()}


def is_label(text: str) -> bool:
    """Whether a text has the form of a task or a mixture, whatever system it names.

    >>> is_label("SYS-1(1,5) + MINE(2,3)"), is_label("SYS-1(5")
    (True, False)
    """
    return all(_LABEL.fullmatch(part) for part in _PLUS.split(text))


PAPER_TASKS: dict[str, dict[str, str]] = {
    name: tasks_of(SYSTEMS[name]) for name in ("poisson", "advection_diffusion", "helmholtz")
}
"""Pre-training task and downstream shifts of the paper's systems."""
