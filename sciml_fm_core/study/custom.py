"""Runs that measure something else than an adaptation: each declares its settings and computes its record.

They are identified, recorded and resumed as adaptations are, see `runs`; each experiment of theirs ships in a table of
its own, such as ``laptop-physics_loss``.
"""

from __future__ import annotations

import math
import time
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from sciml_fm_core.schema import TakesNumpy
from sciml_fm_core.training.cards import hardware, versions

Schedule = tuple[tuple[float, int], ...]


@dataclass(frozen=True)
class CustomRun(TakesNumpy, ABC):
    """One row of an experiment: a frozen dataclass of plain settings, whose `measure` computes the results.

    A field named ``parent`` or ``parents`` holds shipped operators or paths of bundles; the weights themselves then
    count in the identity of the run.

    >>> @dataclass(frozen=True)
    ... class Square(CustomRun):
    ...     number: int
    ...     kind: ClassVar[str] = "square"
    ...     def measure(self, device):
    ...         return {"square": self.number**2}
    >>> record_of(Square(3), "0" * 16, "cpu")["square"]
    9
    """

    kind: ClassVar[str]
    """The ``kind`` in its records; records of adaptations have none."""

    @abstractmethod
    def measure(self, device: str) -> dict[str, Any]:
        """Compute the results, as plain values that JSON can hold."""


def milliseconds_of(call: Callable[[], object], examples: int) -> float:
    """Time of computing for an example, of all cores, of a call that takes all of them; the shortest of three."""
    took = []
    for _ in range(3):
        began = time.process_time()
        call()
        took.append(time.process_time() - began)
    return round(1000 * min(took) / examples, 3)


def minimise(
    network: nn.Module, loss: Callable[[int], Tensor], steps: int, rate: float, *, clipped: float = math.inf
) -> None:
    """Minimise the loss of each step by Adam, at a rate that decays by a cosine, with gradients up to a norm."""
    optimizer = torch.optim.Adam(network.parameters(), rate)
    decay = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    for step in range(steps):
        optimizer.zero_grad()
        loss(step).backward()
        if clipped < math.inf:
            nn.utils.clip_grad_norm_(network.parameters(), clipped)
        optimizer.step()
        decay.step()


def record_of(run: CustomRun, identity: str, device: str) -> dict[str, Any]:
    """Compute the record of a run; its ``cpu_seconds`` are those of this process on all cores."""
    began, computing = time.monotonic(), time.process_time()
    found = run.measure(device)
    took = {"cpu_seconds": round(time.process_time() - computing, 2)}
    return {
        "identity": identity,
        "kind": run.kind,
        **asdict(run),
        **took,
        **found,
        "total_seconds": round(time.monotonic() - began, 2),
        "hardware": hardware(device),
        "versions": versions(),
    }
