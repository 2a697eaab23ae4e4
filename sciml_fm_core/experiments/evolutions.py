"""How far an operator that takes steps goes, and what a few trajectories of a new equation are worth to it.

Beside the networks stands the solver that makes the labels, on coarser grids and with longer steps: at equal error its
time is the honest comparison (McGreivy and Hakim, 2024).
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache, partial
from statistics import median
from typing import Any, ClassVar

import torch
from torch import Tensor

from sciml_fm_core.data.rollouts import FreshTrajectories, Unrolled
from sciml_fm_core.data.splits import stream
from sciml_fm_core.data.trajectories import split_trajectories
from sciml_fm_core.evaluation.rollouts import (
    SHOWN,
    correlations,
    keeps_spectrum,
    rollout,
    rollout_errors,
    steps_correlated,
)
from sciml_fm_core.models.fno import FNO, FNOConfig
from sciml_fm_core.models.normalization import StepNormalization
from sciml_fm_core.models.operator import Operator, load_operator
from sciml_fm_core.physics.spectral import resample
from sciml_fm_core.physics.tasks import Task, parse_mixture
from sciml_fm_core.physics.trajectories import Trajectories, evolution
from sciml_fm_core.study.analysis import percent, select, spread, table, verdict_sentences
from sciml_fm_core.study.custom import CustomRun, milliseconds_of
from sciml_fm_core.study.registry import experiment, for_budget
from sciml_fm_core.training.config import TrainConfig
from sciml_fm_core.training.loop import fit
from sciml_fm_core.training.transfer import fine_tune, new_operator, train_from_scratch

LONGER = 2
"""Times as many steps as a fine-tuning takes, for a training from random weights."""


@lru_cache(maxsize=1)
def _tested(task: Task, count: int, steps: int, seed: int, resolution: int) -> Trajectories:
    """Test trajectories, which the next run of a study is often measured on as well."""
    return split_trajectories(task, "test", count, steps, seed=seed, resolution=resolution)


@dataclass(frozen=True)
class RolloutRun(CustomRun):
    """An operator applied to its own states for many steps of a task.

    Attributes:
        task: of an evolution.
        parent: shipped operator, or the path of a bundle; where empty, the cheap step that operators correct, alone.
        steps: how many; errors are noted at those of `SHOWN`.
        count, resolution, seed: of the test trajectories.
    """

    task: str
    parent: str
    steps: int = 200
    count: int = 32
    resolution: int = 64
    seed: int = 0
    kind: ClassVar[str] = "rollout"

    def measure(self, device):
        """Errors at the `SHOWN` steps; steps that stay correlated; what stays finite, and with its spectrum."""
        task = Task.parse(self.task)
        operator = load_operator(self.parent, device) if self.parent else silent(task).to(device)
        system = evolution(task.system)
        exact = _tested(task, self.count, self.steps, self.seed, self.resolution)
        state, coefficients = exact.states[:, 0].to(device), exact.coefficients.to(device)
        found = rollout(operator, state, coefficients, self.steps, system).cpu()
        axes = system.input_axes
        errors = rollout_errors(found, exact.states, axes)
        one = operator.predict(exact.pairs().source, exact.pairs().coefficients, system)
        single = rollout_errors(one, exact.pairs().solution, axes)
        shown = [number for number in SHOWN if number <= self.steps]
        resolved = int(min(system.resolved, 1) * self.resolution / 2)
        last = slice(-max(1, self.steps // 4), None)
        one, other = (each[:, last] if axes == 2 else each[:, last].transpose(1, 2) for each in (found, exact.states))
        kept = keeps_spectrum(one, other, resolved)
        return {
            "single_step": single.mean().item(),
            "shown": shown,
            "errors": [_median(errors[:, number]) for number in shown],
            "mean_errors": [_finite(errors[:, number].mean()) for number in shown],
            "correlated": steps_correlated(correlations(found, exact.states, axes)).double().mean().item(),
            "finite": torch.isfinite(found[:, -1]).flatten(1).all(1).double().mean().item(),
            "kept_spectrum": kept.double().reshape(self.count, -1).amin(1).mean().item(),
            "milliseconds": milliseconds_of(partial(operator.predict, state, coefficients, system), self.count),
            "parameters": operator.model.parameter_count,
        }


@dataclass(frozen=True)
class CoarseSolverRun(CustomRun):
    """The solver of the labels on coarser grids and with longer steps.

    Attributes:
        task, count, resolution, seed: the trajectories, as in `RolloutRun`.
        steps: how many.
        points: grids.
        substeps: steps of the integrator in each.
    """

    task: str
    steps: int = 10
    count: int = 32
    resolution: int = 64
    points: tuple[int, ...] = (24, 32, 48, 64)
    substeps: tuple[int, ...] = (2, 4, 6, 8, 12)
    seed: int = 0
    kind: ClassVar[str] = "coarse_solver"

    def measure(self, device):
        """A list of ``[points, substeps, error after one step, after all, milliseconds of a step]``."""
        task = Task.parse(self.task)
        system = evolution(task.system)
        exact = split_trajectories(task, "test", self.count, self.steps, seed=self.seed, resolution=self.resolution)
        rows = []
        for points in self.points:
            state, coefficients = resample(exact.states[:, 0], points), exact.coefficients
            for substeps in self.substeps:
                try:
                    found = system.trajectory(state, coefficients, self.steps, substeps=substeps)
                except ValueError:  # it was unstable
                    continue
                errors = rollout_errors(resample(found, self.resolution), exact.states, system.input_axes).mean(0)
                step = partial(system.trajectory, state, coefficients, 1, substeps=substeps)
                rows.append([points, substeps, errors[1].item(), errors[-1].item(), milliseconds_of(step, self.count)])
        return {"settings": rows}


@dataclass(frozen=True)
class FewTrajectoriesRun(CustomRun):
    """A network for a step, trained on a few trajectories of an evolution.

    Attributes:
        task: the evolution, unseen by the start.
        start: ``pre-trained``, or ``scratch`` for random weights, with `LONGER` times the steps.
        parent: the operator that is tuned, or whose network is trained from random weights.
        trajectories: labelled ones, of `length` steps each.
        seed: of the trajectories and weights.
        steps: of the training.
        unrolled: steps that each state is followed in training; half of the training takes one at a time.
        learning_rates: tried, and the best on validation roll-outs kept.
        resolution, validation, test, length: points, numbers of trajectories, and their steps.
    """

    task: str
    start: str
    parent: str
    trajectories: int
    seed: int = 0
    steps: int = 150
    unrolled: int = 4
    batch_size: int = 12
    learning_rates: tuple[float, ...] = (1e-3, 4e-3)
    resolution: int = 32
    validation: int = 8
    test: int = 32
    length: int = 10
    kind: ClassVar[str] = "few_trajectories"

    def __post_init__(self):
        evolution(Task.parse(self.task).system)
        if self.start not in ("pre-trained", "scratch"):
            raise ValueError(f"start: expected pre-trained or scratch, got {self.start!r}")

    def measure(self, device):
        """Errors of a single step and of roll-outs after 1, 5 and 10, before and after; seconds of labels, training."""
        return self.of(load_operator(self.parent, device))

    def of(self, operator: Operator) -> dict[str, Any]:
        """The same of any operator."""
        task = Task.parse(self.task)
        drawn = partial(split_trajectories, task, steps=self.length, resolution=self.resolution, seed=self.seed)
        test = drawn(split="test", count=self.test)
        drawing = time.process_time()
        few = drawn(split="train", count=self.trajectories)
        drawing = time.process_time() - drawing
        fresh, training = self.start == "scratch", time.process_time()
        steps = self.steps * (LONGER if fresh else 1)
        adapted = (train_from_scratch if fresh else fine_tune)(
            operator, few, system=task.system, validation=drawn(split="validation", count=self.validation),
            seed=self.seed, unrolled=Unrolled({0: 1, 0.5: self.unrolled}), batch_size=self.batch_size,
            learning_rates=self.learning_rates, config=TrainConfig(steps=steps, validate_every=max(1, steps // 6)),
        )  # fmt: skip
        training = time.process_time() - training
        before = {} if fresh else {f"{name}_before": value for name, value in errors_of(operator, task, test).items()}
        return {
            **errors_of(adapted.operator, task, test),
            **before,
            "learning_rate": adapted.learning_rate,
            "interpolation": adapted.interpolation,
            "label_seconds": round(drawing, 2),
            "training_seconds": round(training, 1),
        }


@dataclass(frozen=True)
class ToldRun(CustomRun):
    """A small pre-training, and what it makes of an evolution that it has not seen: to find what decides.

    Attributes:
        name: what is varied.
        tasks: trained on, joined by ``+``.
        form, stages: what the network is told, see `StepNormalization`.
        task: the evolution that is not among them.
        unrolled, push_forward, noise: see `Unrolled`; half of the training takes one step at a time.
        steps, batch_size, resolution, seed: of the training; with 0 steps the network says nothing.
        test, length: test trajectories, and their steps.
    """

    name: str
    tasks: str
    form: str = "exponential"
    stages: int = 4
    task: str = "NS(0.0003,0.003)"
    unrolled: int = 3
    push_forward: bool = False
    noise: float = 0.0
    steps: int = 250
    batch_size: int = 24
    resolution: int = 32
    width: int = 20
    modes: int = 10
    test: int = 32
    length: int = 10
    seed: int = 0
    kind: ClassVar[str] = "told"

    def measure(self, device):
        """Errors on the unseen task, as `errors_of`, and of single steps on those of the training."""
        training = time.process_time()
        operator = self.trained(device)
        sizes = {"steps": self.length, "resolution": self.resolution}
        tasks = [*parse_mixture(self.tasks), Task.parse(self.task)]
        errors = [errors_of(operator, task, split_trajectories(task, "test", self.test, **sizes)) for task in tasks]
        return {
            "training_seconds": round(time.process_time() - training, 1),
            **errors[-1],
            "seen_single_step": [each["single_step"] for each in errors[:-1]],
            "parameters": operator.model.parameter_count,
        }

    def trained(self, device, **how: Any) -> Operator:
        """The operator after its training on fresh trajectories, which `how` says more of; see `FreshTrajectories`."""
        tasks = parse_mixture(self.tasks)
        systems = tuple(dict.fromkeys(task.system for task in tasks))
        normalization = StepNormalization(systems, self.form, self.stages)
        config = FNOConfig(
            normalization.in_channels, mode_channels=normalization.mode_channels, width=self.width, modes=self.modes
        )
        model = FNO.create(config, stream(self.seed, "weights"))
        operator = Operator(model, normalization, {"recipe": "step"}).to(device)
        unrolled = Unrolled({0: 1, 0.5: self.unrolled}, self.push_forward, self.noise)
        batches = FreshTrajectories(
            tasks, self.batch_size, unrolled, resolution=self.resolution, seed=self.seed, device=device, **how
        )
        if not self.steps:
            return _silenced(operator)
        fit(operator, batches, TrainConfig(steps=self.steps))
        return operator


@dataclass(frozen=True)
class SharedRun(ToldRun):
    """A network trained on several evolutions, or on one: what it makes of each, and of one that none has seen.

    Trajectories are drawn anew whenever the training has seen `RENEWED` states of each of its evolutions, so that as
    many states come from as many labelled trajectories.

    Attributes:
        tests: evolutions that it is measured on, the unseen `task` among them.
        trajectories, tuning: labelled ones of the unseen task that it is then tuned on, and the steps of that.
        seed: also of the test trajectories. With 0 steps the cheap step alone, tuned from random weights.
    """

    form: str = "corrected"
    tests: tuple[str, ...] = ()
    trajectories: int = 2
    tuning: int = 60
    kind: ClassVar[str] = "shared"

    def measure(self, device):
        """Errors as `errors_of` and time of a step, a list with one for each test; and those of the tuning."""
        began = time.process_time()
        operator = self.trained(device, renewed=RENEWED * len(parse_mixture(self.tasks)) // self.batch_size)
        took = time.process_time() - began
        found = []
        for task in map(Task.parse, self.tests):
            test = split_trajectories(task, "test", self.test, self.length, seed=self.seed, resolution=self.resolution)
            step = partial(operator.predict, test.states[:, 0], test.coefficients, task.system)
            found.append(errors_of(operator, task, test) | {"milliseconds": milliseconds_of(step, self.test)})
        few = FewTrajectoriesRun(
            self.task, "pre-trained" if self.steps else "scratch", "", self.trajectories, self.seed, self.tuning,
            resolution=self.resolution, test=self.test, length=self.length,
        )  # fmt: skip
        tested = {f"each_{name}": [each[name] for each in found] for name in found[0]}
        return {**few.of(operator), **tested, "pretraining_seconds": round(took, 1)}


def silent(*tasks: Task) -> Operator:
    """An operator whose network says nothing, so that its predictions are the cheap steps that it would correct."""
    return _silenced(new_operator(tasks, recipe="step", width=1, modes=1, depth=1))


def _silenced(operator: Operator) -> Operator:
    for each in operator.model.parameters():
        each.data.zero_()
    return operator


def errors_of(operator: Operator, task: Task, test: Trajectories) -> dict[str, float]:
    """Mean relative errors of single steps, and of roll-outs after 1, 5 and all steps."""
    system = evolution(task.system)
    pairs = test.pairs()
    one = operator.predict(pairs.source, pairs.coefficients, system)
    found = rollout(operator, test.states[:, 0], test.coefficients, test.steps, system)
    errors = rollout_errors(found, test.states, system.input_axes).mean(0)
    single = rollout_errors(one, pairs.solution, system.input_axes).mean()
    return {
        "single_step": single.item(),
        "after_1": _finite(errors[1]),
        "after_5": _finite(errors[min(5, test.steps)]),
        "after_10": _finite(errors[-1]),
    }


def _finite(value: Tensor) -> float:
    return min(value.item(), 1e6)


def _median(values: Tensor) -> float:
    return min(median(values.tolist()), 1e6)


MOST = 0.95
"""Share of roll-outs that is asked to stay finite and keep its spectrum."""
PARENT, GRAY_SCOTT = "evolutions", "gray-scott"
SEEN: tuple[str, ...] = ("BURGERS(0.001,0.005)", "SCALAR(0.5,1.5)", "AC(0.5,1.5)", "KS(16,28)")
UNSEEN = ("NS(0.0003,0.003)", "NS(0.0001,0.0003)", "FKPP(0.4,1)", "SH(0.2,0.6)", "KS(28,48)")
MANY = [(task, PARENT) for task in (SEEN[0], SEEN[3], UNSEEN[0])]
"""Roll-outs of which there are more, to tell 95 of 100 from fewer."""
ROLLOUTS: dict[str, dict[str, Any]] = {
    "smoke": {"tasks": (SEEN[0], UNSEEN[0]), "run": {"steps": 2, "count": 2, "resolution": 32}, "many": {},
              "solver": {"steps": 1, "count": 2, "resolution": 32, "points": (24,), "substeps": (8,)}},
    "laptop": {"tasks": (*SEEN, "GS(0.035,0.05)", UNSEEN[0], UNSEEN[2]), "run": {"count": 20}, "solver": {"count": 20},
               "many": {"count": 100}},
    "gpu": {"tasks": SEEN + UNSEEN, "run": {"count": 256}, "many": {}, "solver": {"count": 256}},
    "paper": {"tasks": SEEN + UNSEEN, "run": {"count": 256, "resolution": 128}, "many": {},
              "solver": {"resolution": 128}},
}  # fmt: skip
FEW: dict[str, dict[str, Any]] = {
    "smoke": {"tasks": {UNSEEN[0]: (2,), UNSEEN[1]: ()}, "seeds": 1,
              "run": {"steps": 2, "validation": 1, "test": 2, "length": 4, "batch_size": 2, "learning_rates": (1e-3,)}},
    "laptop": {"tasks": {UNSEEN[0]: (2, 16, 128), UNSEEN[4]: (2, 16, 128), UNSEEN[1]: (16,)}, "seeds": 3, "run": {}},
    "gpu": {"tasks": dict.fromkeys(UNSEEN, (2, 8, 32, 128)), "seeds": 3,
            "run": {"steps": 2000, "resolution": 64, "batch_size": 24, "learning_rates": (3e-4, 1e-3, 4e-3)}},
    "paper": {"tasks": dict.fromkeys(UNSEEN, (2, 8, 32, 128)), "seeds": 5,
              "run": {"steps": 8000, "resolution": 64, "batch_size": 24, "learning_rates": (3e-4, 1e-3, 4e-3)}},
}  # fmt: skip
SHARED: dict[str, dict[str, Any]] = {
    "smoke": {"tasks": SEEN[1:3], "seeds": 1,
              "run": {"steps": 4, "test": 2, "length": 4, "batch_size": 4, "tuning": 1}},
    "laptop": {"tasks": SEEN, "seeds": 3, "run": {"steps": 480}},
    "gpu": {"tasks": SEEN, "seeds": 3, "run": {"steps": 8000, "resolution": 64, "tuning": 2000}},
    "paper": {"tasks": SEEN, "seeds": 5, "run": {"steps": 40000, "resolution": 64, "tuning": 8000}},
}  # fmt: skip
"""How much of the experiments to run, by budget."""
NOTHING, FOR_ALL = "the cheap step alone", "one network for all"
AS_MUCH, WHOLE = "one equation alone, as many states of it", "one equation alone, as many states in all"
"""Names of `SharedRun`; all trainings take as many steps, on equal shares of each equation."""
RENEWED = 960


@experiment("rollout")
def rollouts(budget: str = "laptop") -> list[CustomRun]:
    """Roll-outs of the shipped operator on evolutions that it was trained on and on others; and the coarser solver."""
    chosen = for_budget(ROLLOUTS, budget)
    runs: list[CustomRun] = [
        RolloutRun(task, parent, **chosen["run"] | (chosen["many"] if (task, parent) in MANY else {}))
        for task in chosen["tasks"]
        for parent in (GRAY_SCOTT if task.startswith("GS") else PARENT, "")
    ]
    return runs + [CoarseSolverRun(task, **chosen["solver"]) for task in chosen["tasks"]]


@experiment("evolution_transfer")
def evolution_transfer(budget: str = "laptop") -> list[CustomRun]:
    """A few trajectories of evolutions unseen in pre-training: fine-tuned, and from random weights.

    Beside them stand the untouched operator, the cheap step alone, and the coarser solver.
    """
    chosen = for_budget(FEW, budget)
    seeds = range(chosen["seeds"])
    few: list[CustomRun] = [
        FewTrajectoriesRun(task, start, PARENT, count, seed, **chosen["run"])
        for task, counts in chosen["tasks"].items()
        for seed in seeds
        for count in counts
        for start in ("pre-trained", "scratch")
    ]
    one = FewTrajectoriesRun(UNSEEN[0], "scratch", PARENT, 1, **chosen["run"])
    same: dict[str, Any] = {"steps": one.length, "count": one.test, "resolution": one.resolution}
    for task in chosen["tasks"]:
        few += [RolloutRun(task, parent, **same, seed=seed) for parent in (PARENT, "") for seed in seeds]
        few.append(CoarseSolverRun(task, **same, points=(16, 24, 32)))
    return [*few, *_shared_runs(**for_budget(SHARED, budget))]


def _shared_runs(tasks: Sequence[str], seeds: int, run: dict[str, Any]) -> Iterator[CustomRun]:
    for seed in range(seeds):
        one = SharedRun(FOR_ALL, "+".join(tasks), **run, task=UNSEEN[0], tests=(*tasks, UNSEEN[0]), seed=seed)
        yield from (replace(one, name=NOTHING, steps=0), one)
        for task in tasks:
            yield replace(one, name=AS_MUCH, tasks=task, batch_size=one.batch_size // len(tasks))
            yield replace(one, name=WHOLE, tasks=task)
    for task in tasks:
        yield CoarseSolverRun(task, one.length, one.test, one.resolution, (16, 24, 32))


FAR, NEAR, BROAD = (
    "BURGERS(0.001,0.005)+AC(0.5,1.5)",
    "BURGERS(0.001,0.005)+AC(0.5,1.5)+SCALAR(0.5,1.5)",
    "BURGERS(0.001,0.005)+AC(0.5,1.5)+SCALAR(0.5,1.5)+BILINEAR(0.7,1.6)",
)
TOLD: dict[str, dict[str, Any]] = {
    "multiplier alone, residual form": {"tasks": NEAR, "form": "residual", "stages": 0},
    "and two stages, residual form": {"tasks": NEAR, "form": "residual", "stages": 2},
    "two stages, exponential form": {"tasks": NEAR, "stages": 2},
    "four stages": {"tasks": NEAR},
    "four stages, no relatives": {"tasks": FAR},
    "four stages, random bilinear ones too": {"tasks": BROAD},
    "four stages, one step at a time": {"tasks": NEAR, "unrolled": 1},
    "four stages, push-forward": {"tasks": NEAR, "push_forward": True},
    "four stages, noise of 1 %": {"tasks": NEAR, "noise": 0.01},
    "the cheap step, corrected": {"tasks": NEAR, "form": "corrected"},
    "the cheap step alone, no network": {"tasks": NEAR, "form": "corrected", "steps": 0},
}
"""What is varied in small pre-trainings, by name."""


@experiment("told")
def told(budget: str = "laptop") -> list[CustomRun]:
    """Small pre-trainings that are told more or less, on narrower and broader families, asked for Navier-Stokes."""
    settings: dict[str, dict[str, Any]]
    settings = {"smoke": {"steps": 2, "test": 2, "length": 2, "batch_size": 4}, "laptop": {},
                "gpu": {"steps": 4000, "resolution": 64}, "paper": {"steps": 20000, "resolution": 64}}  # fmt: skip
    chosen, names = for_budget(settings, budget), list(TOLD)[: 2 if budget == "smoke" else None]
    return [ToldRun(name, **chosen | TOLD[name]) for name in names]


def told_table(records: Sequence[dict]) -> str:
    """What small pre-trainings make of an evolution that they have not seen."""
    rows = [
        [r["name"], *(percent(r[name]) if r[name] < 1e3 else "-" for name in ("single_step", "after_5", "after_10"))]
        for r in select(records, kind="told")
    ]
    return table(["told, and trained on", "one step", "after 5", "after 10"], rows)


def rollout_table(records: Sequence[dict]) -> str:
    """How far roll-outs go: median errors at the shown steps, what stays finite, and the time of a step."""
    runs = select(records, kind="rollout")
    shown: list[int] = max((record["shown"] for record in runs), key=len, default=[])
    rows = []
    for record in runs:
        errors = [percent(error) if error < 1e3 else "-" for error in record["errors"]]
        errors += [""] * (len(shown) - len(errors))
        far = [f"{record['correlated']:.0f}", percent(record["finite"]), percent(record["kept_spectrum"])]
        first = [record["task"], start_of(record), record["count"], percent(record["single_step"])]
        rows.append([*first, *errors, *far, f"{record['milliseconds']:.2g} ms"])
    heads = ["task", "taken by", "roll-outs", "one step", *(f"after {number}" for number in shown)]
    return table([*heads, "steps correlated", "finite", "spectrum kept", "a step"], rows)


def rollout_conclusion(records: Sequence[dict]) -> str:
    """Name the evolutions whose roll-outs stay finite and keep their spectrum in a share of `MOST`, and the others."""
    verdicts = []
    for record in (record for record in select(records, kind="rollout") if record["parent"]):
        kept, count = record["kept_spectrum"], record["count"]
        verdicts.append((f"{record['task']}, {round(kept * count)} of {count} roll-outs", kept >= MOST))
    claim = f"the goal that {percent(MOST)} stay finite over {records[0]['steps']} steps and keep their spectrum"
    return "\n\n".join(verdict_sentences(verdicts, of=claim))


def start_of(record: dict[str, Any]) -> str:
    """What took the steps of a roll-out: an operator that has seen the task or has not, or the cheap step alone."""
    if not record["parent"]:
        return "the cheap step alone"
    return "network, never seen" if record["task"] in UNSEEN else "network, seen"


def solver_at(records: Sequence[dict], task: str, error: float, after: int = 0) -> dict[str, Any] | None:
    """The fastest setting of the coarser solver whose error, after one step or all, is at most a network's; or None."""
    column = 3 if after else 2
    for record in select(records, kind="coarse_solver", task=task):
        good = [row for row in record["settings"] if row[column] <= error]
        if good:
            points, substeps, _, _, took = min(good, key=lambda row: row[4])
            return {"points": points, "substeps": substeps, "milliseconds": took}
    return None


def equal_error_table(records: Sequence[dict]) -> str:
    """The solver's time for a step at the error that a network, or the cheap step alone, has after one."""
    rows = []
    for record in _steps_taken(records):
        found = solver_at(records, record["task"], record["error"])
        solver = (
            f"{found['milliseconds']:.2g} ms ({found['points']} points, {found['substeps']} substeps)"
            if found
            else "slower settings than were tried"
        )
        took = f"{record['milliseconds']:.2g} ms"
        rows.append([record["task"], record["taken by"], percent(record["error"]), took, solver])
    return table(["task", "taken by", "error after one step", "a step", "the solver at that error"], rows)


def _steps_taken(records: Sequence[dict]) -> list[dict[str, Any]]:
    """What takes a step of each task, its error after one step and its time; fine-tunings to the most trajectories."""
    found = []
    for record in select(records, kind="rollout", seed=0):
        took = {"task": record["task"], "milliseconds": record["milliseconds"]}
        found.append(took | {"taken by": start_of(record), "error": record["mean_errors"][0]})
        tuned = select(records, kind="few_trajectories", task=record["task"], start="pre-trained")
        if tuned and record["parent"]:
            most = max(each["trajectories"] for each in tuned)
            error = median(each["after_1"] for each in select(tuned, trajectories=most))
            found.append(took | {"taken by": f"fine-tuned on {most} trajectories", "error": error})
    for record in select(records, kind="shared", name=FOR_ALL, seed=0):
        seen = record["tests"][:-1]  # whose solver was timed beside it
        steps = zip(seen, record["each_milliseconds"], record["each_after_1"], strict=False)
        found += [{"task": of, "milliseconds": ms, "taken by": FOR_ALL, "error": error} for of, ms, error in steps]
    return found


def few_trajectories_table(records: Sequence[dict]) -> str:
    """Errors after one and ten steps by start and number of trajectories, and those of the cheap step alone."""
    rows = []
    for task in dict.fromkeys(record["task"] for record in select(records, kind="rollout")):
        few = select(records, kind="few_trajectories", task=task)
        for count in sorted({record["trajectories"] for record in few}):
            for start in ("pre-trained", "scratch"):
                runs = select(few, trajectories=count, start=start)
                cells = (spread([run[name] for run in runs]) for name in ("single_step", "after_10"))
                rows.append([task, str(count), start, *cells])
        for parent, start in ((PARENT, "pre-trained"), ("", "the cheap step alone")):
            runs = select(records, kind="rollout", task=task, parent=parent)
            errors = [[run["single_step"], run["mean_errors"][-1]] for run in runs]
            rows.append([task, "0", start, *map(spread, zip(*errors, strict=True))])
    return table(["task", "trajectories", "start", "one step", "after 10 steps"], rows)


def transfer_conclusion(records: Sequence[dict]) -> str:
    """A line for each task: what holds with every seed, and what does not."""
    return "\n".join(
        f"- {task}. {' '.join(verdict_sentences(verdicts))}" for task, verdicts in transfer_verdicts(records).items()
    )


def transfer_verdicts(records: Sequence[dict]) -> dict[str, list[tuple[str, bool]]]:
    """What is said of each task, and whether every seed says so."""
    said: dict[str, list[tuple[str, bool]]] = {}
    for step in _steps_taken(records):
        found, task = said.setdefault(step["task"], []), step["task"]
        solver = solver_at(records, task, step["error"])
        wins = solver is None or solver["milliseconds"] > step["milliseconds"]
        found.append((f"a step takes less time than the solver to its error ({step['taken by']})", wins))
    for task, found in said.items():
        untouched, alone = (
            {r["seed"]: r["mean_errors"][-1] for r in select(records, kind="rollout", task=task, parent=parent)}
            for parent in (PARENT, "")
        )
        if not alone:  # it was trained on, and is measured beside the others
            continue
        better = all(untouched[seed] < alone[seed] for seed in alone)
        found.append(("after all steps the untouched operator is ahead of the cheap step alone", better))
        few = select(records, kind="few_trajectories", task=task)
        for count in sorted({record["trajectories"] for record in few}):
            tuned, scratch = (
                {r["seed"]: r["after_10"] for r in select(few, trajectories=count, start=start)}
                for start in ("pre-trained", "scratch")
            )
            better = all(tuned[seed] < scratch[seed] for seed in tuned)
            found.append((f"{count} trajectories are worth more fine-tuned than from scratch", better))
    return said


def shared_table(records: Sequence[dict], name: str = "after_10") -> str:
    """Errors of what was trained on one evolution and on several, on each of them and on one that none has seen."""
    shared = select(records, kind="shared")
    (tests, tuned), rows = (shared[0][field] for field in ("tests", "trajectories")), []
    for of, tasks in dict.fromkeys((record["name"], record["tasks"]) for record in shared):
        own = select(shared, name=of, tasks=tasks)
        cells = [spread([record[f"each_{name}"][i] for record in own]) for i in range(len(tests))]
        rows.append([of.replace("one equation", tasks), *cells, spread([record[name] for record in own])])
    after = {"single_step": "one step", "after_10": "after 10 steps"}[name]
    return table([after, *tests, f"{tests[-1]}, tuned on {tuned} trajectories"], rows)


def shared_verdicts(records: Sequence[dict]) -> str:
    """Where one network for all is ahead after all steps, with every seed, of those for one evolution, and where not.

    On the unseen one, which all of them meet, those are named by what they were trained on.
    """
    shared, rows = select(records, kind="shared"), []
    *seen, unseen = shared[0]["tests"]

    def errors(test: str, **which: Any) -> list[float]:
        own = select(shared, **which)
        return [r["each_after_10"][r["tests"].index(test)] if test else r["after_10"] for r in own]

    for name in (AS_MUCH, WHOLE):
        for words, test in (("what it was trained on", None), (unseen, unseen), (f"{unseen}, tuned", "")):
            found: dict[str, list[str]] = {"ahead": [], "behind": [], "neither": []}
            for task in seen:
                on = task if test is None else test
                pairs = zip(errors(on, name=FOR_ALL), errors(on, name=name, tasks=task), strict=True)
                ahead = {ours < theirs for ours, theirs in pairs}
                found["neither" if len(ahead) > 1 else "ahead" if ahead.pop() else "behind"].append(task)
            rows.append([name, words, *map(", ".join, found.values())])
    return table(["one network for all against", "on", "always ahead", "always behind", "neither"], rows)
