"""Batches of states of evolutions, with the states of several steps to come: what roll-outs are trained on."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from sciml_fm_core.physics.evolution import Evolution
from sciml_fm_core.physics.examples import Examples
from sciml_fm_core.physics.spectral import Resolution
from sciml_fm_core.physics.system import System
from sciml_fm_core.physics.tasks import Task
from sciml_fm_core.physics.trajectories import Trajectories, draw_trajectories, evolution

from .batches import check_share, equal_shares, scheduled, with_start
from .splits import stream

Part = tuple[System, Examples]


@dataclass(frozen=True)
class Unrolled:
    """How a network is trained on several steps.

    Attributes:
        steps: of which the mean of the losses is taken, each from the network's own state before; a number, or a
            schedule ``{progress: steps}``.
        push_forward: no gradient flows through the states in between (Brandstetter et al., arXiv:2202.03376).
        noise: size of random waves that are added to the first state, relative to its own.
    """

    steps: int | Mapping[float, int] = 1
    push_forward: bool = False
    noise: float = 0.0

    def __post_init__(self):
        whole = all(type(steps) is int and steps > 0 for steps in with_start(self.steps, "steps").values())
        if not whole or not 0 <= self.noise < 1:
            raise ValueError(f"roll-outs: expected steps of at least 1 and a noise in [0, 1), got {self}")

    def at(self, progress: float) -> int:
        """Steps when that much of the training is done."""
        return scheduled(with_start(self.steps, "steps"), progress)

    def described(self) -> dict:
        """What a card says of it."""
        steps = {str(start): count for start, count in with_start(self.steps, "steps").items()}
        return {"steps": steps, "push_forward": self.push_forward, "noise": self.noise}

    @property
    def most(self) -> int:
        """The most steps that are asked for."""
        return max(with_start(self.steps, "steps").values())


class _Trajectories:
    """What both kinds of batches do with trajectories: choose states, turn them, add noise."""

    unrolled: Unrolled
    seed: int
    share: tuple[int, int] = (0, 1)

    def batch(self, step: int, progress: float) -> list[Part]:
        """Examples of one step: states and the next ones."""
        return self.rolled(step, progress)[0]

    def rolled(self, step: int, progress: float) -> list[list[Part]]:
        """For 1, 2, ... steps the batch whose solutions are the states after them; sources are those of the first."""
        generator = stream(self.seed, "trajectories", step)
        ahead = self.unrolled.at(progress)
        whole = [self._windows(*chosen, ahead, generator) for chosen in self._chosen(step, progress, generator)]
        found, dealt, (rank, processes) = [], 0, self.share
        for system, of, windows in whole:  # each process has its part of the batch, which all have drawn
            own = slice((rank - dealt) % processes, None, processes)
            if own.start < len(windows):
                found.append((system, of.take(own), windows[own]))
            dealt += len(windows)
        return [
            [
                (system, Examples(windows[:, 0], of.coefficients, windows[:, number], of.dial))
                for system, of, windows in found
            ]
            for number in range(1, ahead + 1)
        ]

    def _chosen(self, step, progress, generator) -> list[tuple[Evolution, Trajectories]]:
        raise NotImplementedError

    def _windows(
        self, system: Evolution, chosen: Trajectories, ahead: int, generator: torch.Generator
    ) -> tuple[Evolution, Trajectories, Tensor]:
        start = torch.randint(chosen.steps - ahead + 1, (chosen.size,), generator=generator, device="cpu")
        columns = start[:, None] + torch.arange(ahead + 1, device="cpu")
        windows = chosen.states[torch.arange(chosen.size, device="cpu")[:, None], columns]
        elements = system.symmetries[
            torch.randint(len(system.symmetries), (chosen.size,), generator=generator, device="cpu")
        ].to(windows.device)
        windows = system.turned_fields(windows, elements[:, None], system.inputs)
        chosen = chosen._replace(coefficients=system.turned(chosen.coefficients, elements))
        if self.unrolled.noise:
            white = torch.randn(windows[:, 0].shape, generator=generator, dtype=windows.dtype, device="cpu")
            kept = system.resolved_waves(windows.shape[-1])
            waves = torch.fft.irfft2(torch.fft.rfft2(white) * kept, s=windows.shape[-2:]).to(windows.device)
            size = windows[:, 0].flatten(1).square().mean(1).sqrt().view(-1, *[1] * (windows.ndim - 2))
            windows[:, 0] += self.unrolled.noise * size * waves
        return system, chosen, windows


class FreshTrajectories(_Trajectories):
    """States of fresh trajectories: some of each task, drawn anew after a number of steps, by the seed and the step.

    Args:
        tasks: of evolutions; shared out equally within each batch.
        batch_size: states in a batch.
        unrolled: how many steps each is followed.
        resolution: points, or a schedule ``{progress: points}``, as in `FreshBatches`.
        seed: seed of the stream.
        device: where they are made.
        pool: trajectories of each task that are used at a time.
        length: steps in each, but at least those of a roll-out.
        later: half of the trajectories begin up to so many steps after the initial state.
        renewed: steps of the training after which all are drawn anew.
        share: (rank, world size) of the process, which gets its part of the batch.

    Raises:
        ValueError: on fewer states than tasks, a task of a system that is no evolution, a schedule that does not begin
            at 0, or unequal shares.
    """

    def __init__(
        self,
        tasks: Sequence[Task],
        batch_size: int,
        unrolled: Unrolled | None = None,
        *,
        resolution: Resolution | Mapping[float, Resolution] = 64,
        seed: int = 0,
        device: torch.device | str = "cpu",
        pool: int = 32,
        length: int = 6,
        later: int = 30,
        renewed: int = 160,
        share: tuple[int, int] = (0, 1),
    ):
        if batch_size < len(tasks) or not tasks:
            raise ValueError(f"fresh trajectories: expected at least one state for each of {len(tasks)} tasks")
        for task in tasks:
            evolution(task.system)
        check_share("batch size", batch_size, share)
        self.share = share
        self.tasks, self.batch_size, self.seed, self.device = list(tasks), batch_size, seed, torch.device(device)
        self.unrolled = unrolled or Unrolled()
        self.schedule: dict[float, Resolution] = with_start(resolution)
        self.pool, self.length, self.later = pool, max(length, self.unrolled.most), later
        self.renewed = renewed
        self._drawn: tuple[tuple, list[Trajectories]] = ((), [])

    def _chosen(self, step, progress, generator):
        pool = self._pool(step // self.renewed, scheduled(self.schedule, progress))
        chosen = []
        shares = equal_shares(self.batch_size, len(self.tasks), step)
        for task, drawn, count in zip(self.tasks, pool, shares, strict=True):
            rows = torch.randint(drawn.size, (count,), generator=generator, device="cpu")
            chosen.append((evolution(task.system), drawn.take(rows)))
        return chosen

    def _pool(self, number: int, resolution: Resolution) -> list[Trajectories]:
        if self._drawn[0] != (number, resolution):
            generator = stream(self.seed, "pool", number, device=self.device)
            halves = self.pool - self.pool // 2, self.pool // 2
            passed = 0, int(torch.randint(self.later + 1, (), generator=stream(self.seed, "later", number)))
            drawn = [
                Trajectories.joined(
                    [
                        draw_trajectories(task, count, steps + self.length, resolution, generator).after(steps)
                        for count, steps in zip(halves, passed, strict=True)
                        if count
                    ]
                )
                for task in self.tasks
            ]
            self._drawn = (number, resolution), drawn
        return self._drawn[1]


class FixedTrajectories(_Trajectories):
    """States of given trajectories, chosen at random by the seed and the step.

    Args:
        system: the evolution.
        trajectories: of it.
        batch_size: states in a batch.
        unrolled: how many steps each is followed, at most those of the trajectories.
        seed: seed of the stream.
        device: where batches are put.
    """

    def __init__(
        self,
        system: System,
        trajectories: Trajectories,
        batch_size: int,
        unrolled: Unrolled | None = None,
        *,
        seed: int = 0,
        device: torch.device | str = "cpu",
    ):
        self.system, self.trajectories = evolution(system), trajectories.to(device)
        self.batch_size, self.unrolled, self.seed = batch_size, unrolled or Unrolled(), seed
        self.system.check(trajectories.states[:, 0], trajectories.coefficients)
        if len(set(map(len, trajectories))) > 1:
            raise ValueError(
                f"trajectories: expected as many of each, got {', '.join(map(str, map(len, trajectories)))}"
            )
        if self.unrolled.most > trajectories.steps:
            raise ValueError(
                f"trajectories: expected at least {self.unrolled.most} steps, as many as a roll-out, got "
                f"{trajectories.steps}"
            )

    @property
    def count(self) -> int:
        """Number of trajectories."""
        return self.trajectories.size

    def _chosen(self, step, progress, generator):
        rows = torch.randint(self.count, (self.batch_size,), generator=generator, device="cpu")
        return [(self.system, self.trajectories.take(rows))]
