"""Forecasting where the equation is unknown: from one frame or from several, and what knowing the equation is worth.

Viscosity and strength differ from trajectory to trajectory and nobody says them, so that several frames tell more than
one. Memory is either in the state of a network, Long Expressive Memory with convolutions, or in the input channels of
an FNO. Beside them stand persistence and dynamic mode decomposition, and, told the equation, its linear part alone, an
operator that was trained on other evolutions, and the solver on coarser grids.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from statistics import median
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from sciml_fm_core.data.splits import stream
from sciml_fm_core.data.trajectories import split_trajectories
from sciml_fm_core.evaluation.rollouts import rollout, rollout_errors
from sciml_fm_core.models.base import drawing_from
from sciml_fm_core.models.fno import FNO, FNOConfig
from sciml_fm_core.models.operator import load_operator
from sciml_fm_core.physics.spectral import inverse_transform, relative_size, resample, transform
from sciml_fm_core.physics.tasks import Task
from sciml_fm_core.physics.trajectories import evolution
from sciml_fm_core.study.analysis import select, spread, table
from sciml_fm_core.study.custom import CustomRun, milliseconds_of, minimise
from sciml_fm_core.study.registry import experiment, for_budget

OBSERVED = 4
"""Frames before every forecast. Who is given fewer sees the last of them, so that all forecast the same frames."""
SHOWN = (1, 5, 10)
"""Steps at which errors are noted."""
RANKS = (0, 8, 32, 128, 512)
"""Dynamic mode decompositions that are tried, see `DMD`."""
METHODS = {
    "persistence": "persistence", "dmd": "dynamic mode decomposition", "conv_lem": "ConvLEM", "fno": "FNO",
    "linear": "told: linear part alone", "operator": "told: operator `evolutions`", "solver": "told: solver",
}  # fmt: skip
"""The methods by name, and what tables and figures call them; those that are told the equation say so."""

Forecast = Callable[[Tensor, int], Tensor]
"""From frames (batch, k, n, n), the oldest first, and a number of steps to the next frames (batch, steps, n, n)."""


class ConvLEM(nn.Module):
    """Long Expressive Memory with convolutions on the torus; it forecasts the change from one frame to the next.

    With frames u_n, hidden fields y_n and a memory z_n, both 0 at first, the logistic function s and periodic
    convolutions W, V::

        a_n = s(W_1 y_(n-1) + V_1 u_n + b_1)        b_n = s(W_2 y_(n-1) + V_2 u_n + b_2)
        z_n = (1 - a_n) z_(n-1) + a_n tanh(W_z y_(n-1) + V_z u_n + b_z)
        y_n = (1 - b_n) y_(n-1) + b_n tanh(W_y z_n + V_y u_n + b_y)

    The next frame is ``u_n + V y_n``, and is taken for u_(n+1) where that was not observed.

    Rusch, Mishra, Erichson and Mahoney (2022), Long expressive memory for sequence modeling, arXiv:2110.04744.

    >>> ConvLEM(4, 3)(torch.randn(2, 3, 16, 16), 5).shape
    torch.Size([2, 5, 16, 16])
    """

    def __init__(self, width: int, kernel: int):
        super().__init__()
        convolution = partial(nn.Conv2d, kernel_size=kernel, padding="same", padding_mode="circular")
        self.width = width
        self.of_frame = convolution(1, 4 * width)
        self.of_hidden = convolution(width, 3 * width, bias=False)
        self.of_memory = convolution(width, width, bias=False)
        self.change = convolution(width, 1)

    def cell(self, frame: Tensor, hidden: Tensor, memory: Tensor) -> tuple[Tensor, Tensor]:
        """Hidden fields and memory (batch, width, n, n) after a frame (batch, 1, n, n)."""
        from_frame, from_hidden = self.of_frame(frame).chunk(4, dim=1), self.of_hidden(hidden).chunk(3, dim=1)
        first, second = (torch.sigmoid(from_frame[i] + from_hidden[i]) for i in (0, 1))
        memory = torch.lerp(memory, torch.tanh(from_frame[2] + from_hidden[2]), first)
        return torch.lerp(hidden, torch.tanh(from_frame[3] + self.of_memory(memory)), second), memory

    def forward(self, frames: Tensor, steps: int) -> Tensor:
        """As a `Forecast`."""
        hidden = memory = frames.new_zeros(len(frames), self.width, *frames.shape[-2:])
        for frame in frames.split(1, dim=1):
            hidden, memory = self.cell(frame, hidden, memory)
        found = [frame + self.change(hidden)]
        while len(found) < steps:
            hidden, memory = self.cell(found[-1], hidden, memory)
            found.append(found[-1] + self.change(hidden))
        return torch.cat(found, dim=1)


class FrameFNO(nn.Module):
    """An FNO from the last k frames, as channels, to the change from the last one to the next."""

    def __init__(self, frames: int, width: int, modes: int):
        super().__init__()
        self.network = FNO(FNOConfig(frames, width=width, modes=modes))

    def forward(self, frames: Tensor, steps: int) -> Tensor:
        """As a `Forecast`."""
        for _ in range(steps):
            following = frames[:, -1:] + self.network(frames[:, -self.network.config.in_channels :])
            frames = torch.cat([frames, following], dim=1)
        return frames[:, -steps:]


class DMD:
    """Dynamic mode decomposition: the linear map from k frames to the next with the least squared error.

    It acts on coordinates of the frames. With a rank these are on the leading modes of the training frames (proper
    orthogonal decomposition), and the map is a matrix; with rank 0 they are Fourier coefficients, each with a map of
    its own, which is all that a linear map can be that does not know where it is on the torus.

    >>> turning = torch.cos(torch.arange(9.0))[None, :, None, None] * torch.randn(1, 1, 8, 8)
    >>> torch.allclose(DMD(turning, 2, 0)(turning[:, 4:6], 3), turning[:, 6:], atol=1e-5)
    True

    Args:
        states: trajectories (count, times, n, n); those after the first `OBSERVED` frames are fitted.
        frames: k, at most `OBSERVED`.
        rank: modes; 0 for Fourier coefficients.
    """

    def __init__(self, states: Tensor, frames: int, rank: int):
        flat = states.double().flatten(2)
        self.modes = torch.linalg.svd(flat.flatten(0, 1), full_matrices=False).Vh[:rank] if rank else None
        known = self._coordinates(states)
        before = [known[:, :, last - frames : last].flatten(2) for last in range(OBSERVED, states.shape[1])]
        after = known[:, :, OBSERVED:].transpose(1, 2).flatten(1, 2)
        self.map = torch.linalg.lstsq(torch.cat(before, dim=1), after, driver="gelsd").solution

    def _coordinates(self, states: Tensor) -> Tensor:
        """Shape (groups, count, times, rank), or (modes, count, times, 1) of Fourier coefficients."""
        if self.modes is not None:
            return (states.double().flatten(2) @ self.modes.T)[None]
        return transform(states.double()).flatten(2).movedim(-1, 0)[..., None]

    def __call__(self, frames: Tensor, steps: int) -> Tensor:
        """As a `Forecast`."""
        n, known, count = frames.shape[-1], self._coordinates(frames), frames.shape[1]
        for _ in range(steps):
            following = known[:, :, -count:].flatten(2) @ self.map
            known = torch.cat([known, following[:, :, None]], dim=2)
        found = known[:, :, -steps:]
        if self.modes is not None:
            return (found[0] @ self.modes).unflatten(-1, (n, n)).to(frames.dtype)
        return inverse_transform(found[..., 0].movedim(0, -1).unflatten(-1, (n, n // 2 + 1)), n).to(frames.dtype)


@dataclass(frozen=True)
class ForecastRun(CustomRun):
    """One method that forecasts the trajectories of a task.

    Attributes:
        task: an evolution.
        method: of `METHODS`.
        frames: how many it observes, at most `OBSERVED`.
        seed: of training trajectories and weights; those that choose and test are the same for all.
        parent: the operator that is told the equation, for that method.
        points, substeps: grid and steps of the solver, for that method.
        steps, batch_size, learning_rates: of a training, with Adam and cosine decay; the rate is chosen on validation.
        unrolled: steps that its second half forecasts at a time, each from the one before; the first half one.
        train, validation, test: numbers of trajectories.
        resolution, width, kernel, modes: points, and shapes of the networks.
    """

    task: str
    method: str
    frames: int = 1
    seed: int = 0
    parent: str = ""
    points: int = 0
    substeps: int = 0
    steps: int = 250
    batch_size: int = 8
    learning_rates: tuple[float, ...] = ()
    unrolled: int = 4
    train: int = 64
    validation: int = 16
    test: int = 32
    resolution: int = 32
    width: int = 16
    kernel: int = 5
    modes: int = 8
    kind: ClassVar[str] = "forecast"

    def __post_init__(self):
        evolution(Task.parse(self.task).system)
        if self.method not in METHODS or not 1 <= self.frames <= OBSERVED:
            raise ValueError(
                f"forecasting: expected a method of {', '.join(METHODS)} and 1 to {OBSERVED} frames, got "
                f"{self.method} and {self.frames}"
            )

    def measure(self, device):
        """Errors after the `SHOWN` steps, the time of that forecast for a trajectory, what was chosen, and its time."""
        task, steps = Task.parse(self.task), SHOWN[-1]
        drawn = partial(split_trajectories, task, steps=OBSERVED - 1 + steps, resolution=self.resolution)
        test, began, about = drawn(split="test", count=self.test).to(device), time.process_time(), {}
        if self.method in RATES:
            few = drawn(split="train", count=self.train, seed=self.seed).states.to(device)
            held = drawn(split="validation", count=self.validation).states.to(device)
            began = time.process_time()
            candidates = self._fitted(few)
            errors = {name: self._errors(made, held).mean().item() for name, made in candidates.items()}
            about["chosen"] = min(errors, key=errors.__getitem__)
            forecast = candidates[about["chosen"]]
        else:
            forecast = self._given(evolution(task.system), test.coefficients)
        about["fitting_seconds"] = round(time.process_time() - began, 1)
        found = self._errors(forecast, test.states).mean(0)
        frames = test.states[:, OBSERVED - self.frames : OBSERVED]
        took = milliseconds_of(partial(forecast, frames, steps), self.test)
        return about | {"errors": [min(found[step - 1].item(), 1e6) for step in SHOWN], "milliseconds": took}

    def _errors(self, forecast: Forecast, states: Tensor) -> Tensor:
        """Relative errors (count, steps) of the frames that follow the observed ones; infinite where they are none."""
        frames, exact = states[:, OBSERVED - self.frames : OBSERVED], states[:, OBSERVED:]
        return rollout_errors(forecast(frames, exact.shape[1]), exact)

    def _given(self, system: Any, coefficients: Tensor) -> Forecast:
        """What is not fitted; but for persistence it is told the equation."""

        def solved(frames: Tensor, steps: int) -> Tensor:
            first, n = resample(frames[:, -1], self.points), frames.shape[-1]
            return resample(system.trajectory(first, coefficients, steps, substeps=self.substeps)[:, 1:], n)

        def linear(frames: Tensor, steps: int) -> Tensor:
            found = [frames[:, -1]]
            for _ in range(steps):
                found.append(system.linear_step(found[-1], coefficients))
            return torch.stack(found[1:], dim=1)

        if self.method == "persistence":
            return lambda frames, steps: frames[:, -1:].expand(-1, steps, -1, -1)
        if self.method == "operator":
            operator = load_operator(self.parent, coefficients.device)
            return lambda frames, steps: rollout(operator, frames[:, -1], coefficients, steps, system)[:, 1:]
        return linear if self.method == "linear" else solved

    def _fitted(self, states: Tensor) -> dict[float, Forecast]:
        """What was fitted to trajectories: by rank, or by learning rate."""
        if self.method == "dmd":
            return {rank: DMD(states, self.frames, rank) for rank in RANKS}
        return {rate: self._trained(states, rate) for rate in self.learning_rates}

    def _trained(self, states: Tensor, rate: float) -> Forecast:
        with drawing_from(stream(self.seed, "weights")):
            memory = self.method == "conv_lem"
            network = ConvLEM(self.width, self.kernel) if memory else FrameFNO(self.frames, self.width, self.modes)
        network, scale = network.to(states.device), states.std()

        def loss(step: int) -> Tensor:
            ahead, generator = 1 if step < self.steps // 2 else self.unrolled, stream(self.seed, "batch", step)
            rows = torch.randint(len(states), (self.batch_size, 1), generator=generator)
            first = torch.randint(OBSERVED, states.shape[1] - ahead + 1, (self.batch_size, 1), generator=generator)
            window = states[rows, first + torch.arange(-self.frames, ahead)] / scale
            observed, following = window.split([self.frames, ahead], dim=1)
            return relative_size(network(observed, ahead) - following, following).mean()

        minimise(network, loss, self.steps, rate, clipped=1.0)
        return torch.no_grad()(lambda frames, steps: scale * network(frames / scale, steps))


TASKS = ("NS(0.0003,0.003)", "BURGERS(0.001,0.005)")
RATES = {"dmd": (), "fno": (3e-3, 1e-2), "conv_lem": (1e-3, 4e-3)}
"""Learning rates of what is fitted: two each, around the best of a first trial."""
GIVEN: tuple[dict[str, Any], ...] = (
    {"method": "persistence"}, {"method": "linear"}, {"method": "operator", "parent": "evolutions"},
    {"method": "solver", "points": 16, "substeps": 2}, {"method": "solver", "points": 24, "substeps": 4},
)  # fmt: skip
"""What is not fitted."""
BUDGETS: dict[str, dict[str, Any]] = {
    "smoke": {"tasks": 1, "seeds": 1, "run": {"steps": 2, "train": 2, "validation": 1, "test": 2, "batch_size": 2}},
    "laptop": {"tasks": 2, "seeds": 3, "run": {}},
    "gpu": {"tasks": 2, "seeds": 3, "run": {"steps": 10000, "train": 512, "width": 32, "modes": 12}},
    "paper": {"tasks": 2, "seeds": 5, "run": {"steps": 30000, "train": 2048, "width": 48, "modes": 12}},
}
"""How much of the experiment to run, by budget."""


@experiment("forecasting")
def forecasting(budget: str = "laptop") -> list[ForecastRun]:
    """Forecasts from one frame and from four, of two evolutions whose coefficients nobody says, by every method."""
    chosen = for_budget(BUDGETS, budget)
    tasks, settings = TASKS[: chosen["tasks"]], chosen["run"]
    given = [ForecastRun(task, **about, **settings) for task in tasks for about in GIVEN]
    return given + [
        ForecastRun(task, method, frames, seed, learning_rates=rates, **settings)
        for seed in range(chosen["seeds"])
        for task in tasks
        for method, rates in RATES.items()
        for frames in (1, OBSERVED)
    ]


def name_of(record: dict[str, Any]) -> str:
    """What forecasts, in words, with the number of frames that it observes where that differs."""
    name = METHODS[record["method"]]
    if record["method"] in RATES:
        return f"{name}, {record['frames']} frame{'s' * (record['frames'] > 1)}"
    return name + (f", {record['points']} points, {record['substeps']} substeps" if record["points"] else "")


def forecasting_table(records: Sequence[dict]) -> str:
    """Errors by evolution and method after the shown steps, medians over the seeds; times of a forecast, of fitting."""
    rows = []
    for task in dict.fromkeys(record["task"] for record in records):
        own = select(records, task=task)
        for name in sorted({name_of(record) for record in own}, key=lambda name: (name.startswith("told"), name)):
            runs = [record for record in own if name_of(record) == name]
            errors = [spread([run["errors"][i] for run in runs]) for i in range(len(SHOWN))]
            fitting = f"{median(run['fitting_seconds'] for run in runs):.0f} s" if runs[0]["method"] in RATES else ""
            rows.append([task, name, *errors, f"{median(run['milliseconds'] for run in runs):.2g} ms", fitting])
    steps = [f"{step} step{'s' * (step > 1)}" for step in SHOWN]
    return table(["evolution", "forecast by", *steps, "ten steps take", "fitted in"], rows)
