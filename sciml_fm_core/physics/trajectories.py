"""Trajectories: states of an evolution after 0, 1, 2, ... steps."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from .evolution import Evolution
from .examples import Examples
from .spectral import Resolution, resample, resolution_of
from .system import System
from .tasks import Task


class Trajectories(NamedTuple):
    """States of one evolution, step after step.

    ``states`` (count, steps + 1, n, n), or (count, steps + 1, q, n, n) of q fields; ``coefficients`` (count, c);
    ``dial`` (count,).
    """

    states: Tensor
    coefficients: Tensor
    dial: Tensor

    @property
    def size(self) -> int:
        """Number of trajectories (``len`` is that of the tuple)."""
        return self.states.shape[0]

    @property
    def steps(self) -> int:
        """Steps in each."""
        return self.states.shape[1] - 1

    @property
    def resolution(self) -> Resolution:
        """Points in each direction."""
        return resolution_of(self.states.shape)

    def take(self, index) -> Trajectories:
        """The trajectories at a slice or index tensor."""
        return Trajectories(*(tensor[index] for tensor in self))

    def after(self, steps: int) -> Trajectories:
        """The same trajectories without their first steps."""
        return self._replace(states=self.states[:, steps:])

    @staticmethod
    def joined(parts: Sequence[Trajectories]) -> Trajectories:
        """Trajectories of one evolution and length together."""
        return Trajectories(*map(torch.cat, zip(*parts, strict=True)))

    def to(self, device: torch.device | str) -> Trajectories:
        """The same trajectories on another device."""
        return Trajectories(*(tensor.to(device) for tensor in self))

    def resampled(self, resolution: Resolution) -> Trajectories:
        """The same trajectories on another grid, see `spectral.resample`."""
        return self._replace(states=resample(self.states, resolution))

    def pairs(self) -> Examples:
        """Every step as an example: a state and the next one."""
        steps = self.steps
        before, after = self.states[:, :-1].flatten(0, 1), self.states[:, 1:].flatten(0, 1)
        return Examples(
            before, self.coefficients.repeat_interleave(steps, 0), after, self.dial.repeat_interleave(steps, 0)
        )


def evolution(system: System) -> Evolution:
    """A system that is asked for steps in time.

    Raises:
        ValueError: if it is no evolution.
    """
    if not isinstance(system, Evolution):
        raise ValueError(f"system {system.name}: it is no evolution in time; choose one, such as BURGERS or NS")
    return system


def draw_trajectories(
    task: Task,
    count: int,
    steps: int,
    resolution: Resolution = 64,
    generator: torch.Generator | None = None,
    *,
    dtype: torch.dtype = torch.float32,
    device: torch.device | str | None = None,
) -> Trajectories:
    """Trajectories of a task from random initial states, as `Task.sample` draws them.

    >>> task = Task.parse("BURGERS(3e-4,3e-3)")
    >>> draw_trajectories(task, 2, 3, 32, torch.Generator().manual_seed(0)).states.shape
    torch.Size([2, 4, 32, 32])

    Raises:
        ValueError: as `Task.sample`, or if the task is no evolution's.
    """
    system = evolution(task.system)
    if steps < 1:
        raise ValueError(f"steps: expected at least 1, got {steps}")
    first = task.sample(count, resolution, generator, dtype=dtype, device=device)
    with torch.no_grad():
        further = system.trajectory(first.solution, first.coefficients, steps - 1) if steps > 1 else None
    axis = 1
    after = first.solution.unsqueeze(axis) if further is None else further
    return Trajectories(torch.cat([first.source.unsqueeze(axis), after], dim=axis), first.coefficients, first.dial)
