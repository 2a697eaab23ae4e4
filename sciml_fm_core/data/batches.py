"""Batches for training: fresh examples, or fixed ones in a new order each epoch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Protocol, TypeVar, runtime_checkable

import torch

from sciml_fm_core.physics.examples import Examples
from sciml_fm_core.physics.spectral import Resolution, grid_shape
from sciml_fm_core.physics.symmetries import SWAP
from sciml_fm_core.physics.system import System
from sciml_fm_core.physics.tasks import Task
from sciml_fm_core.schema import takes_numpy

from .given import Data, check_resampled, open_data
from .splits import stream

T = TypeVar("T")


@runtime_checkable
class Batches(Protocol):
    """What training draws from: the batch of a step, in parts of one system each."""

    def batch(self, step: int, progress: float) -> list[tuple[System, Examples]]: ...


def with_start(value: T | Mapping[float, T], name: str = "resolution") -> dict[float, T]:
    """A schedule ``{progress: value}`` from one, checked to begin at 0, or from a value that never changes."""
    schedule = dict(value) if isinstance(value, Mapping) else {0.0: value}
    if min(schedule, default=1) > 0:
        raise ValueError(f"{name}: expected a schedule that begins at 0, such as {{0: 32, 0.7: 64}}, got {value}")
    return schedule


def scheduled(schedule: Mapping[float, T], progress: float) -> T:
    """The value when that much of the training is done."""
    return schedule[max(start for start in schedule if start <= progress)]


def equal_shares(batch_size: int, tasks: int, step: int) -> list[int]:
    """How many examples of a batch each task has: as many each, and what is left over to other tasks at each step.

    >>> equal_shares(8, 3, 0), equal_shares(8, 3, 1)
    ([3, 3, 2], [3, 2, 3])
    """
    return [batch_size // tasks + ((i + step) % tasks < batch_size % tasks) for i in range(tasks)]


def check_share(what: str, number: int, share: tuple[int, int]) -> None:
    """Equal shares only: the mean of the processes' mean losses is then the mean over the batch."""
    if number % share[1]:
        raise ValueError(f"{what}: expected a multiple of the number of processes, {share[1]}, got {number}")


class FreshBatches:
    """Fresh examples forever, a function of the seed and the step alone: nothing is read twice, resuming is exact.

    Args:
        tasks: shared out equally within each batch.
        batch_size: examples in a batch.
        resolution: points in each direction, or a schedule ``{progress: points}`` such as ``{0: 32, 0.7: 64}``: a
            spectral network trained on a coarse grid carries over to a finer one, at a fraction of the cost.
        seed: seed of the stream.
        device: where the numbers are drawn and the examples made.
        share: (rank, world size): each rank gets its part of the batch. The whole batch is made on every rank, since it
            comes from one random stream.

    Raises:
        ValueError: on fewer examples than tasks, a schedule that does not begin at 0, or unequal shares.
    """

    @takes_numpy
    def __init__(
        self,
        tasks: Sequence[Task],
        batch_size: int,
        *,
        resolution: Resolution | Mapping[float, Resolution] = 64,
        seed: int = 0,
        device: torch.device | str = "cpu",
        share: tuple[int, int] = (0, 1),
    ):
        if batch_size < len(tasks) or not tasks:
            raise ValueError(f"fresh batches: expected at least one example for each of {len(tasks)} tasks")
        check_share("batch size", batch_size, share)
        self.share = share
        self.tasks, self.batch_size, self.seed, self.device = list(tasks), batch_size, seed, torch.device(device)
        self.schedule: dict[float, Resolution] = with_start(resolution)

    def batch(self, step: int, progress: float) -> list[tuple[System, Examples]]:
        """Examples of one step."""
        n = scheduled(self.schedule, progress)
        generator = stream(self.seed, "fresh", step, device=self.device)
        shares = equal_shares(self.batch_size, len(self.tasks), step)
        parts, dealt = [], 0
        rank, processes = self.share
        for task, count in zip(self.tasks_at(progress), shares, strict=True):
            examples, own = task.sample(count, n, generator, device=self.device), (rank - dealt) % processes
            if own < count:
                parts.append((task.system, examples.take(slice(own, None, processes))))
            dealt += count
        return parts

    def tasks_at(self, progress: float) -> list[Task]:
        """What is drawn from when that much of the training is done."""
        return self.tasks


class FixedBatches:
    """Fixed examples, in a new order each epoch, by a stream of the seed; the last batch of an epoch may be smaller.

    A batch is a function of the seed and the step. From files, a thread reads the next one while this one is used.

    Args:
        sets: pairs of a system and its examples, as `open_data` takes them; a loss without labels needs no solutions.
        batch_size: examples in a batch; at most all of them.
        resolution: resample them to this many points, or by a schedule as in `FreshBatches`, by trigonometric
            interpolation; as they are where None.
        seed: seed of the shuffling.
        device: where batches are put.
        share: (rank, processes); a batch is dealt out to several processes, and the rank's part is read.

    Raises:
        ValueError: on no examples, several grids and no resolution, a schedule that does not begin at 0, or unequal
            shares; else as `open_data`.
    """

    @takes_numpy
    def __init__(
        self,
        sets: Sequence[tuple[System, Data]],
        batch_size: int,
        *,
        resolution: Resolution | Mapping[float, Resolution] | None = None,
        seed: int = 0,
        device: torch.device | str = "cpu",
        share: tuple[int, int] = (0, 1),
    ):
        self.schedule: dict[float, Resolution] | None = None if resolution is None else with_start(resolution)
        self.sets = [(system, open_data(data, system, labels=False)) for system, data in sets]
        for _, reader in self.sets:
            check_resampled(reader, (self.schedule or {}).values())
        self.seed, self.device = seed, torch.device(device)
        self.count = sum(reader.size for _, reader in self.sets)
        if not self.count:
            raise ValueError("fixed batches: expected at least one example")
        if batch_size < 1:
            raise ValueError(f"batch size: expected at least 1, got {batch_size}")
        grids = sorted({reader.resolution for _, reader in self.sets}, key=grid_shape)
        if len(grids) > 1 and resolution is None:
            raise ValueError(f"data: on grids of {grids} points; give the resolution to train on")
        check_share("batch size", batch_size, share)
        check_share("number of examples", self.count, share)  # the last batch of an epoch is what remains
        self.batch_size, self.share = min(batch_size, self.count), share
        self._epoch, self._order = -1, torch.empty(0, device="cpu")
        in_memory = all(isinstance(reader, Examples) for _, reader in self.sets)
        self._thread = None if in_memory else ThreadPoolExecutor(max_workers=1)
        self._ahead: dict[int, Future[list[tuple[System, Examples]]]] = {}

    @property
    def steps_per_epoch(self) -> int:
        """Batches in one pass over the examples."""
        return -(-self.count // self.batch_size)

    def batch(self, step: int, progress: float) -> list[tuple[System, Examples]]:
        """Examples of one step."""
        if self._thread is None:
            parts = self._read(step)
        else:
            current = self._ahead.get(step) or self._thread.submit(self._read, step)
            self._ahead = {step + 1: self._thread.submit(self._read, step + 1)}
            parts = current.result()
        parts = [(system, examples.to(self.device)) for system, examples in parts]
        if self.schedule is None:
            return parts
        n = scheduled(self.schedule, progress)
        return [(system, examples.resampled(n)) for system, examples in parts]

    def _read(self, step: int) -> list[tuple[System, Examples]]:
        epoch, position = divmod(step, self.steps_per_epoch)
        if epoch != self._epoch:
            order = torch.randperm(self.count, generator=stream(self.seed, "epoch", epoch), device="cpu")
            self._epoch, self._order = epoch, order
        index = self._order[position * self.batch_size : (position + 1) * self.batch_size]
        index = index[self.share[0] :: self.share[1]]
        parts, first = [], 0
        for system, reader in self.sets:
            rows = index[(index >= first) & (index < first + reader.size)] - first
            if len(rows):
                parts.append((system, reader.take(rows)))
            first += reader.size
        return parts


class TurnedBatches:
    """Batches in which each example is turned by a random symmetry of the square, where its system declares them.

    The element of an example is a function of the seed and the step, so that resuming is exact. See
    `physics.symmetries`.

    Args:
        batches: what to turn.
        seed: seed of the elements.
    """

    @takes_numpy
    def __init__(self, batches: Batches, *, seed: int = 0):
        self.batches, self.seed = batches, seed

    def batch(self, step: int, progress: float) -> list[tuple[System, Examples]]:
        """Examples of one step."""
        generator = stream(self.seed, "symmetry", step)
        parts = []
        for system, examples in self.batches.batch(step, progress):
            chosen = torch.randint(len(system.symmetries), (examples.size,), generator=generator, device="cpu")
            if isinstance(examples.resolution, tuple):
                chosen = chosen & ~SWAP  # x and y cannot be exchanged
            turned = system.turned_examples(examples, system.symmetries[chosen].to(examples.source.device))
            parts.append((system, turned))
        return parts
