"""Labels that cost something: few of them at a shift of heterogeneous diffusion, from four starts.

What is learned once may be free (constant coefficients, solved by one division), cheap (mild heterogeneity) or as dear
as the target itself. Beside the networks stands the solver that makes the labels, stopped at their error.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import pairwise
from statistics import median
from typing import Any, ClassVar

import torch

from sciml_fm_core.data.splits import draw_split
from sciml_fm_core.evaluation.errors import evaluate
from sciml_fm_core.evaluation.metrics import relative_error
from sciml_fm_core.models.operator import Operator, load_operator
from sciml_fm_core.physics.examples import Examples
from sciml_fm_core.physics.krylov import NotConverged
from sciml_fm_core.physics.tasks import Task
from sciml_fm_core.physics.variable_diffusion import VariableDiffusion
from sciml_fm_core.schema import check_choice
from sciml_fm_core.study.analysis import percent, select, spread, table
from sciml_fm_core.study.custom import CustomRun
from sciml_fm_core.study.registry import experiment, for_budget
from sciml_fm_core.training.config import TrainConfig
from sciml_fm_core.training.transfer import fine_tune, new_operator, pretrain, started, train_from_scratch

from .physics_loss import EquationRun

RECIPE = "correction"
STARTS = {
    "scratch": "random weights",
    "constant": "constant coefficients (free)",
    "mild": "mild heterogeneity (cheap)",
    "own": "the target's own range",
}
"""What an operator has learned before it sees the labelled examples."""
PARENTS = {"constant": "symbol", "mild": "sys-4"}
TRANSFORMS = 4
"""Solves with constant coefficients that an iteration of the solver of labels costs, by its transforms."""
OWN_RATE = 1e-2
"""Learning rate of the pre-training on the target's own range; with the recipe's lower one few steps reach less."""
FEWEST_SEEDS = 3
"""Seeds without which no winner is named."""
LONGER = 4
"""Times as many steps as a fine-tuning takes, for a training from random weights."""


@dataclass(frozen=True)
class FewLabelsRun(CustomRun):
    """A network trained on few labelled examples of a task of SYS-4, from one of the `STARTS`.

    Attributes:
        task: the shift.
        start: a key of `STARTS`; ``own`` is pre-trained on the task for `pretraining` steps, from random weights.
        parent: shipped operator that it starts from; none where empty.
        examples: labelled ones to train on.
        seed: of the examples, of the weights, and of their order.
        steps: of the fine-tuning; from scratch `LONGER` times as many.
        learning_rates: tried, and the best on validation kept.
        resolution, validation, test: points, and numbers of examples, as in `fine_tune`.
    """

    task: str
    start: str
    examples: int
    parent: str = ""
    seed: int = 0
    steps: int = 80
    batch_size: int = 16
    pretraining: int = 0
    learning_rates: tuple[float, ...] = (1e-3, 3e-3)
    resolution: int = 32
    validation: int = 64
    test: int = 256
    kind: ClassVar[str] = "few_labels"

    def __post_init__(self):
        Task.parse(self.task)
        check_choice("start", self.start, STARTS)

    def measure(self, device):
        """Error before and after; the cost of the labels in seconds and in solves with constant coefficients; and the
        seconds of the training and of the pre-training, all of computing on all cores."""
        task = Task.parse(self.task)
        operator, learned = self._start(device)
        before = None
        if self.start != "scratch":
            before = evaluate(operator, task, count=self.test, resolution=self.resolution)["error"]
        few, solves, drawing = _labelled(self.task, self.examples, self.seed, self.resolution)
        held_out = draw_split(task, "validation", self.validation, seed=self.seed, resolution=self.resolution)
        fresh, training = self.start == "scratch", time.process_time()
        adapted = (train_from_scratch if fresh else fine_tune)(
            operator, few, validation=held_out, seed=self.seed, batch_size=self.batch_size,
            config=TrainConfig(steps=self.steps * (LONGER if fresh else 1), validate_every=20),
            learning_rates=self.learning_rates,
        )  # fmt: skip
        training = time.process_time() - training
        found = evaluate(adapted.operator, task, count=self.test, resolution=self.resolution)
        return {
            "error": found["error"],
            "percentile_90": found["percentile_90"],
            "error_before": before,
            "learning_rate": adapted.learning_rate,
            "label_solves": solves,
            "label_seconds": round(drawing, 3),
            "training_seconds": round(training, 2),
            "pretraining_examples": learned.get("examples_seen", 0),
            "pretraining_seconds": round(learned.get("seconds", 0), 2),
            "parameters": operator.model.parameter_count,
        }

    def _start(self, device: str) -> tuple[Operator, dict[str, Any]]:
        """The operator to train, and the card of its pre-training, which is empty where there was none."""
        if self.start == "own":
            operator = _pretrained(self.task, self.pretraining, self.batch_size, self.resolution, device)
            return operator, operator.card
        if self.start == "mild":
            operator = load_operator(self.parent, device)
            return operator, operator.card
        operator = new_operator([Task.parse(self.task)], recipe=RECIPE, seed=self.seed, device=device)
        if not self.parent:
            return operator, {}
        parent = load_operator(self.parent, device)
        return started(operator, parent), parent.card


@lru_cache(maxsize=4)
def _pretrained(task: str, steps: int, batch_size: int, resolution: int, device: str) -> Operator:
    """One for all seeds of the fine-tuning, as the shipped operators are."""
    config = TrainConfig(steps=steps, learning_rate=OWN_RATE, validate_every=max(1, steps // 5))
    options: dict[str, Any] = {"batch_size": batch_size, "resolution": resolution, "validation_count": 64}
    operator, _ = pretrain([Task.parse(task)], config, recipe=RECIPE, device=device, **options)
    return operator


@lru_cache(maxsize=4)
def _labelled(task: str, count: int, seed: int, resolution: int) -> tuple[Examples, int, float]:
    """Labelled examples, solves with constant coefficients that they cost, and the seconds of drawing and solving."""
    drawing = time.process_time()
    few = draw_split(Task.parse(task), "train", count, seed=seed, resolution=resolution)
    drawing = time.process_time() - drawing
    return few, TRANSFORMS * int(VariableDiffusion().solved(few.source).iterations.sum()), drawing


@dataclass(frozen=True)
class SolverRun(CustomRun):
    """The solver of the labels itself, stopped at several tolerances.

    Attributes:
        task, resolution, test, seed: the examples, as in `FewLabelsRun`.
        tolerances: relative residuals at which it is stopped.
    """

    task: str
    tolerances: tuple[float, ...] = (0.3, 0.1, 0.03, 0.01, 1e-3, 1e-4)
    resolution: int = 32
    test: int = 256
    seed: int = 0
    kind: ClassVar[str] = "solver"

    def measure(self, device):
        """Lists in the order of the tolerances: ``errors``, ``iterations`` and ``milliseconds`` of an example."""
        test = draw_split(Task.parse(self.task), "test", self.test, seed=self.seed, resolution=self.resolution)
        inputs, found = test.source.to(device), []
        for tolerance in self.tolerances:
            began = time.process_time()
            try:
                solved = VariableDiffusion().solved(inputs, tolerance=tolerance)
            except NotConverged as error:
                raise ValueError(f"{self.task}: {error}") from error
            took = time.process_time() - began
            off = relative_error(solved.solution.to(test.solution), test.solution).mean().item()
            found.append((off, solved.iterations.double().mean().item(), 1000 * took / self.test))
        errors, iterations, milliseconds = (list(column) for column in zip(*found, strict=True))
        return {"errors": errors, "iterations": iterations, "milliseconds": [round(each, 3) for each in milliseconds]}


SHIFTS = ("SYS-4(0.3,0.6)", "SYS-4(0.6,0.9)", "SYS-4(0.9,1.2)")
RATES = {"scratch": (3e-3, 1e-2), "constant": (3e-3, 1e-2), "mild": (1e-3, 3e-3), "own": (1e-3, 3e-3)}
"""Learning rates to choose from on validation: what has less to keep takes larger ones."""
AGAIN = {"scratch": (3e-3, 1e-2), "constant": (1e-2,), "mild": (1e-3,), "own": (1e-3,)}
"""Learning rates of further seeds: what the first one chose, but from random weights both, as there it chose either."""
SETTINGS: dict[str, dict[str, Any]] = {
    "smoke": {"tasks": SHIFTS[:1], "examples": (4,), "seeds": 1, "pretraining": 2,
              "few": {"steps": 2, "validation": 2, "test": 2, "batch_size": 2}},
    "laptop": {"tasks": SHIFTS, "examples": (64,), "once": {8: SHIFTS, 512: SHIFTS[:1]}, "seeds": 3, "pretraining": 400,
               "few": {"steps": 80, "validation": 32, "test": 128, "batch_size": 8},
               "equation": {"steps": 320, "batch_size": 8, "learning_rate": 1e-2, "validation": 32, "test": 128,
                            "test_resolution": 32}},
    "gpu": {"tasks": SHIFTS, "examples": (8, 32, 128, 512), "seeds": 3, "pretraining": 4000,
            "few": {"steps": 1000, "test": 512, "resolution": 64}},
    "paper": {"tasks": SHIFTS, "examples": (8, 32, 128, 512, 2048), "seeds": 5, "pretraining": 20000,
              "few": {"steps": 5000, "test": 1024, "resolution": 64}},
}  # fmt: skip
"""How much of the experiment to run, by budget; ``once`` are numbers of labels, with the shifts, for one seed alone."""


@experiment("variable_coefficients")
def variable_coefficients(budget: str = "laptop") -> list[CustomRun]:
    """Few labelled examples of SYS-4 at its shifts, from random weights and three pre-trainings; and the solver."""
    chosen = for_budget(SETTINGS, budget)
    few = chosen["few"]
    shared = {name: few[name] for name in ("test", "resolution") if name in few}
    runs: list[CustomRun] = [SolverRun(task, **shared) for task in chosen["tasks"]]
    draws = [(seed, count, chosen["tasks"]) for seed in range(chosen["seeds"]) for count in chosen["examples"]]
    for seed, count, tasks in [*draws, *((0, *each) for each in chosen.get("once", {}).items())]:
        for task in tasks:
            for start, rates in (AGAIN if seed else RATES).items():
                options = {"pretraining": chosen["pretraining"] if start == "own" else 0, "learning_rates": rates} | few
                runs.append(FewLabelsRun(task, start, count, PARENTS.get(start, ""), seed, **options))
    if equation := chosen.get("equation"):
        runs.append(EquationRun(chosen["tasks"][0], "physics", recipe=RECIPE, size="1M", **equation))
    return runs


def few_labels_table(records: Sequence[dict]) -> str:
    """Errors at each shift by start and number of labels."""
    few = select(records, kind="few_labels")
    counts, rows = sorted({record["examples"] for record in few}), []
    for task in dict.fromkeys(record["task"] for record in few):
        for start, name in STARTS.items():
            own = select(few, task=task, start=start)
            before = {record["error_before"] for record in own if record["error_before"] is not None}
            cells = [spread([r["error"] for r in select(own, examples=count)]) for count in counts]
            rows.append([task, name, spread(sorted(before)), *cells])
    for record in select(records, kind="equation"):
        name = f"the equation alone, {record['steps'] * record['batch_size']:,} fresh examples, no solution"
        rows.append([record["task"], name, percent(record["error"]), *[""] * len(counts)])
    return table(["task", "start", "no labels", *(f"{count} labels" for count in counts)], rows)


def costs_table(records: Sequence[dict]) -> str:
    """What the networks cost that are compared with several seeds, and the solver at the same error."""
    few, rows = select(records, kind="few_labels"), []
    for task in dict.fromkeys(record["task"] for record in few):
        (solver,) = select(records, kind="solver", task=task)
        for start, name in STARTS.items():
            own = select(few, task=task, start=start, examples=_compared(few))
            if not own:
                continue
            error, first = median(record["error"] for record in own), own[0]
            pairs = zip(solver["errors"], solver["milliseconds"], strict=True)
            reached = next((f"{ms:.2g} ms" for found, ms in pairs if found <= error), "not tried")
            before = f"{first['pretraining_examples']:,}, {first['pretraining_seconds'] / 60:.1f} min"
            rows.append(
                [
                    task, name, percent(error), before if first["pretraining_examples"] else "none",
                    f"{first['label_solves']:,}, {median(r['label_seconds'] for r in own):.2f} s",
                    f"{median(r['training_seconds'] for r in own):.0f} s", reached,
                ]
            )  # fmt: skip
    header = ["task", "start", f"error with {_compared(few)} labels", "examples before, time", "labels: solves, time"]
    return table([*header, "training", "solver to that error, an example"], rows)


def _compared(few: Sequence[dict]) -> int:
    """The number of labels that most seeds were run with; of several the largest."""
    counts = Counter(record["examples"] for record in few)
    return max(counts, key=lambda count: (counts[count], count))


def winners(records: Sequence[dict]) -> list[str]:
    """A sentence for each shift: which start is the best with every seed, and where random weights stand to it.

    No winner is named of fewer than `FEWEST_SEEDS` seeds. The target's own range stands aside, as it is learned from
    thousands of labels.
    """
    few, said = select(records, kind="few_labels"), []
    count = _compared(few)
    for task in dict.fromkeys(record["task"] for record in few):
        errors = {
            start: {r["seed"]: r["error"] for r in select(few, task=task, start=start, examples=count)}
            for start in STARTS
        }
        if min(map(len, errors.values())) < FEWEST_SEEDS:
            said.append(f"**{task}, {count} labels.** Fewer than {FEWEST_SEEDS} seeds: no winner is named.")
            continue
        rivals = {start: each for start, each in errors.items() if start != "own"}
        firsts = set()
        for seed in errors["scratch"]:
            own = {start: each[seed] for start, each in rivals.items()}
            firsts.add(min(own, key=own.__getitem__))
        medians = {start: percent(median(each.values())) for start, each in errors.items()}
        if len(firsts) == 1:
            (best,) = firsts
            text = f"From {STARTS[best]} it is the most accurate with every seed, {medians[best]}"
        else:
            shared = " and ".join(STARTS[start] for start in STARTS if start in firsts)
            text = f"No start is the best with every seed, {shared} share it"
        others = ", ".join(f"{STARTS[start]} {value}" for start, value in medians.items() if [start] != [*firsts])
        said.append(f"**{task}, {count} labels.** {text}; {others} (medians of {len(errors['scratch'])} seeds).")
    return said


def labels_saved(records: Sequence[dict]) -> list[dict[str, Any]]:
    """For each shift and start, how many labels from scratch are worth the few: by interpolation of the logarithms.

    None where scratch never comes that low, or the start is worse with as many labels. Seeds of which scratch
    was run with one number of labels alone are left out.
    """
    few, found = select(records, kind="few_labels"), []
    for task in dict.fromkeys(record["task"] for record in few):
        for seed in sorted({record["seed"] for record in few}):
            scratch = sorted((r["examples"], r["error"]) for r in select(few, task=task, start="scratch", seed=seed))
            if len(scratch) < 2:
                continue
            for start in list(STARTS)[1:]:
                for record in select(few, task=task, start=start, seed=seed):
                    worth = _examples_for(record["error"], scratch)
                    found.append(
                        {"task": task, "start": start, "seed": seed, "examples": record["examples"], "worth": worth}
                    )
    return found


def _examples_for(error: float, curve: Sequence[tuple[int, float]]) -> float | None:
    """Number of examples at which a falling curve reaches an error; its last point gives a lower bound, as infinity."""
    for (count, high), (more, low) in pairwise(curve):
        if low <= error <= high:
            share = (torch.tensor(high / error).log() / torch.tensor(high / low).log()).item() if high > low else 0.0
            return count * (more / count) ** share
    return float("inf") if error < curve[-1][1] else None
