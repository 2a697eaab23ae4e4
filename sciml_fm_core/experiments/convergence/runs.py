"""Runs that tell an operator from a table of one grid or of one step of time."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, ClassVar

from torch import Tensor

from sciml_fm_core.data.splits import draw_split
from sciml_fm_core.experiments.convergence.method import convergence, flow_convergence
from sciml_fm_core.experiments.shipped import TRAINED_ON
from sciml_fm_core.models.base import find_model
from sciml_fm_core.models.operator import load_operator
from sciml_fm_core.physics.evolution import Evolution
from sciml_fm_core.physics.parameter import Parameter
from sciml_fm_core.physics.spectral import laplacian
from sciml_fm_core.physics.spectral_system import spectral
from sciml_fm_core.physics.tasks import Task
from sciml_fm_core.study.analysis import select, spread, table
from sciml_fm_core.study.custom import CustomRun, Schedule
from sciml_fm_core.study.registry import experiment, for_budget
from sciml_fm_core.training.config import TrainConfig
from sciml_fm_core.training.recipes import find_recipe
from sciml_fm_core.training.transfer import pretrain

DRAWN_ON = 64
"""Points of the grid on which sources are drawn, before they are made band-limited."""


@dataclass(frozen=True)
class ConvergenceRun(CustomRun):
    """One operator on finer and finer grids: one that ships, or one that is trained first.

    Attributes:
        task: what it was trained on, and where its sources are drawn from.
        parent: shipped operator or bundle; trained by what follows where empty.
        architecture, recipe, size, steps, batch_size, resolution: as in `pretrain`.
        seed: of the sources, and of the training.
        sources: their number.
        resolutions: grids, see `convergence`.
    """

    task: str
    parent: str = ""
    architecture: str = "fno"
    recipe: str = "dimensionless"
    size: str = "1M"
    seed: int = 0
    steps: int = 600
    batch_size: int = 32
    resolution: Schedule = ((0.0, 32), (0.85, 64))
    sources: int = 8
    resolutions: tuple[int, ...] = (32, 64, 128, 256, 512)
    kind: ClassVar[str] = "convergence"

    def __post_init__(self):
        Task.parse(self.task)
        find_model(self.architecture)
        find_recipe(self.recipe)

    def measure(self, device):
        """Means over the sources on each grid, as lists; ``passes`` says whether an operator was learned."""
        task = Task.parse(self.task)
        if self.parent:
            operator = load_operator(self.parent, device)
        else:
            config = TrainConfig(steps=self.steps, validate_every=max(1, self.steps // 10))
            operator, _ = pretrain(
                [task], config, recipe=self.recipe, architecture=self.architecture, size=self.size, seed=self.seed,
                batch_size=self.batch_size, resolution=dict(self.resolution), validation_count=64, device=device,
            )  # fmt: skip
        card = operator.card
        schedule = card.get("resolution", {}) if self.parent else {str(at): n for at, n in self.resolution}
        trained_on = max(schedule.values(), default=DRAWN_ON)
        examples = draw_split(task, "test", self.sources, seed=self.seed, resolution=DRAWN_ON)
        found = convergence(operator, spectral(task.system), examples.source, examples.coefficients, self.resolutions)
        return {
            "architecture": operator.model.architecture,
            **{name: card[name] for name in ("recipe", "size")},
            "parameters": operator.model.parameter_count,
            "trained_on": trained_on,
            **{name: _means(getattr(found, name)) for name in ("error", "distance", "aliasing")},
            "passes": found.passes(trained_on),
        }


class _Unregistered:
    """Holder of a name: the class that inherits it has none of its own, and is not offered beside the equations."""

    name: ClassVar[str] = "heat_for_a_time"


class HeatForATime(_Unregistered, Evolution):
    """The heat equation ``du/dt = 0.01 lap u`` from ``u(0) = f`` to the time T on the dial."""

    label = "HEAT"
    title = "Heat over a time T"
    equation = r"\partial_t u = 0.01\,\Delta u,\quad u(0) = f"
    coefficient_names = ("diffusivity", "time")
    constants = MappingProxyType({"diffusivity": 0.01})
    dialled = Parameter("time", 0.02, 2, start=0.2, help="How long the source diffuses.", logarithmic=True)
    zero_mean = False

    def symbol(self, coefficients, n):
        return coefficients[..., 0, None, None] * laplacian(n, like=coefficients)


@dataclass(frozen=True)
class FlowRun(CustomRun):
    """An operator of the heat equation, asked for one time in one step and in several.

    Attributes:
        shortest, longest: times that it is trained on, drawn uniformly; one time where they are equal.
        recipe, size, seed, steps, batch_size, points: of the training, on ``points`` points throughout.
        whole: the time asked for.
        numbers: of steps to it.
        table_step: see `flow_convergence`.
        test, test_resolution: initial states.
    """

    shortest: float
    longest: float
    recipe: str = "dimensionless"
    size: str = "256K"
    seed: int = 0
    steps: int = 250
    batch_size: int = 32
    points: int = 32
    whole: float = 0.4
    numbers: tuple[int, ...] = (1, 2, 4, 8)
    table_step: float = 0.2
    test: int = 32
    test_resolution: int = 64
    kind: ClassVar[str] = "flow"

    def __post_init__(self):
        find_recipe(self.recipe)
        _ = self.task

    @property
    def task(self) -> Task:
        """Task that it is trained on."""
        return Task(HeatForATime(), self.shortest, self.longest)

    def measure(self, device):
        """Means over the initial states for each number of steps, as lists."""
        system, task = HeatForATime(), self.task
        config = TrainConfig(steps=self.steps, validate_every=max(1, self.steps // 10))
        operator, history = pretrain(
            [task], config, recipe=self.recipe, size=self.size, seed=self.seed, batch_size=self.batch_size,
            resolution=self.points, validation_count=64, device=device,
        )  # fmt: skip
        asked = Task(system, self.whole, self.whole)
        examples = draw_split(asked, "test", self.test, seed=self.seed, resolution=self.test_resolution)
        found = flow_convergence(
            operator, system, examples.source, examples.coefficients, self.numbers, table_step=self.table_step
        )  # fmt: skip
        return {
            "parameters": operator.model.parameter_count,
            "validation_error": history.best_error,
            **{name: _means(getattr(found, name)) for name in ("error", "defect", "to_table")},
        }


def _means(values: Tensor) -> list[float]:
    return [float(f"{value:.4g}") for value in values.double().flatten(1).mean(dim=1).tolist()]


COARSE_ALONE: Schedule = ((0.0, 32),)
COARSE_FIRST = ConvergenceRun.resolution
OTHERS_SIZE = "64K"
"""Size of the networks that resample to a grid of their own: what is asked of them does not depend on it."""


def _trained(steps: int) -> tuple[tuple[str, Schedule, int], ...]:
    return tuple((size, schedule, steps) for size in ("256K", "1M") for schedule in (COARSE_FIRST, COARSE_ALONE))


SETTINGS: dict[str, dict[str, Any]] = {
    # seconds: only shows that everything runs
    "smoke": {
        "seeds": (0,), "grids": {"sources": 2, "resolutions": (32, 64, 128)}, "others": 2,
        "trained": (("64K", COARSE_FIRST, 2), ("64K", COARSE_ALONE, 2)),
        "flow": {"size": "64K", "steps": 2, "test": 2, "test_resolution": 32},
    },
    # minutes on two cores
    "laptop": {
        "seeds": (0, 1, 2), "grids": {}, "others": 300, "flow": {},
        "trained": (("256K", COARSE_FIRST, 400), ("256K", COARSE_ALONE, 400), ("1M", COARSE_ALONE, 300)),
    },
    # an hour on one data-centre GPU
    "gpu": {
        "seeds": (0, 1, 2), "grids": {"sources": 256}, "others": 40_000, "trained": _trained(40_000),
        "flow": {"size": "1M", "steps": 20_000, "test": 1024},
    },
    "paper": {
        "seeds": (0, 1, 2, 3, 4), "grids": {"sources": 1024}, "others": 128_000, "trained": _trained(128_000),
        "flow": {"size": "1M", "steps": 128_000, "test": 4096},
    },
}  # fmt: skip
"""How much of the experiment to run, by budget; ``others`` are the steps of the U-Net and the vision transformer."""


@experiment("convergence")
def convergence_runs(budget: str = "laptop") -> list[CustomRun]:
    """Every operator that ships, other architectures, an FNO that saw one coarse grid alone, and steps of time.

    Steps of time: operators of the heat equation that were trained on one step, and on a range of them, each told the
    time as a coefficient, or through the symbol. Of the operators that ship, the smoke budget has one.
    """
    chosen = for_budget(SETTINGS, budget)
    seeds, grids = chosen["seeds"], chosen["grids"]
    runs: list[CustomRun] = [
        ConvergenceRun(task, parent, seed=seed, **grids)
        for parent, tasks in list(TRAINED_ON.items())[: 1 if budget == "smoke" else None]
        for task in tasks
        for seed in seeds
    ]
    runs += [
        ConvergenceRun("SYS-1(1,5)", architecture=name, size=OTHERS_SIZE, steps=chosen["others"], **grids)
        for name in ("unet", "vit")
    ]
    for seed in seeds:
        common = {"seed": seed, **grids}
        for size, schedule, number in chosen["trained"]:
            made = {"size": size, "steps": number, "resolution": schedule}
            runs.append(ConvergenceRun("SYS-1(1,5)", **made, **common))
        for recipe in ("dimensionless", "symbol"):
            for shortest, longest in ((0.2, 0.2), (0.05, 0.4)):
                runs.append(FlowRun(shortest, longest, recipe, seed=seed, **chosen["flow"]))
    return runs


def convergence_table(records: Sequence[dict]) -> str:
    """Table of the distance of the answers of each shipped operator to its own on the finest grid, over its error."""
    rows, shipped = [], [r for r in records if r["kind"] == "convergence" and r["parent"]]
    points = shipped[0]["resolutions"]
    for parent, task in dict.fromkeys((r["parent"], r["task"]) for r in shipped):
        own = select(shipped, parent=parent, task=task)
        shares = [spread([r["distance"][i] / r["error"][i] for r in own]) for i in range(len(points) - 1)]
        rows.append([f"`{parent}`", task, spread([r["error"][-1] for r in own]), *shares])
    return table(["operator", "task", "error", *(f"{n} points" for n in points[:-1])], rows)
