"""Labels that cost something: few of them at a shift of heterogeneous diffusion, from four starts.

What is learned once may be free (constant coefficients, solved by one division), cheap (mild heterogeneity) or as dear
as the target itself. Beside the networks stands the solver that makes the labels, stopped at their error.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import pairwise
from typing import Any, ClassVar

import torch

from sciml_fm_core.data.splits import draw_split
from sciml_fm_core.evaluation.errors import evaluate
from sciml_fm_core.evaluation.metrics import relative_error
from sciml_fm_core.models.operator import Operator, load_operator
from sciml_fm_core.physics import variable_diffusion
from sciml_fm_core.physics.krylov import NotConverged
from sciml_fm_core.physics.tasks import Task
from sciml_fm_core.study.analysis import percent, select, spread, table
from sciml_fm_core.study.custom import CustomRun
from sciml_fm_core.study.registry import experiment, for_budget
from sciml_fm_core.training.config import TrainConfig
from sciml_fm_core.training.transfer import fine_tune, new_operator, pretrain, started, train_from_scratch

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
LONGER = 4
"""Times as many steps as a fine-tuning takes, for a training from random weights."""


@dataclass(frozen=True)
class FewLabelsRun(CustomRun):
    """A network trained on few labelled examples of a task of SYS-4, from one of the `STARTS`.

    Attributes:
        task: the shift.
        start: a key of `STARTS`; ``own`` is pre-trained on the task for `pretraining` steps, from ``constant``.
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
        if self.start not in STARTS:
            raise ValueError(f"start: expected one of {', '.join(STARTS)}, got {self.start!r}")

    def measure(self, device):
        """Error before and after; the cost of the labels in seconds and in solves with constant coefficients; and the
        seconds of the training, all of computing on all cores."""
        task = Task.parse(self.task)
        operator, before = self._start(device), None
        if self.start != "scratch":
            before = evaluate(operator, task, count=self.test, resolution=self.resolution)["error"]
        drawing = time.process_time()
        few = draw_split(task, "train", self.examples, seed=self.seed, resolution=self.resolution)
        drawing = time.process_time() - drawing
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
            "label_solves": TRANSFORMS * int(variable_diffusion.solve(few.source).iterations.sum()),
            "label_seconds": round(drawing, 3),
            "training_seconds": round(training, 2),
            "parameters": operator.model.parameter_count,
        }

    def _start(self, device: str) -> Operator:
        if self.start == "own":
            return _pretrained(self.task, self.pretraining, self.batch_size, self.resolution, self.seed, device)
        if self.start == "mild":
            return load_operator(self.parent, device)
        task = Task.parse(self.task)
        operator = new_operator([task], recipe=RECIPE, seed=self.seed, device=device)
        return started(operator, load_operator(self.parent, device)) if self.parent else operator


@lru_cache(maxsize=4)
def _pretrained(task: str, steps: int, batch_size: int, resolution: int, seed: int, device: str) -> Operator:
    config = TrainConfig(steps=steps, validate_every=max(1, steps // 5))
    options: dict[str, Any] = {"batch_size": batch_size, "resolution": resolution, "validation_count": 64}
    operator, _ = pretrain(
        [Task.parse(task)], config, recipe=RECIPE, start="symbol", seed=seed, device=device, **options
    )
    return operator


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
                solved = variable_diffusion.solve(inputs, tolerance=tolerance)
            except NotConverged as error:
                raise ValueError(f"{self.task}: {error}") from error
            took = time.process_time() - began
            off = relative_error(solved.solution.to(test.solution), test.solution).mean().item()
            found.append((off, solved.iterations.double().mean().item(), 1000 * took / self.test))
        errors, iterations, milliseconds = (list(column) for column in zip(*found, strict=True))
        return {"errors": errors, "iterations": iterations, "milliseconds": [round(each, 3) for each in milliseconds]}


SHIFTS = ("SYS-4(0.3,0.6)", "SYS-4(0.6,0.9)", "SYS-4(0.9,1.2)")
SETTINGS: dict[str, dict[str, Any]] = {
    "smoke": {"tasks": SHIFTS[:1], "examples": (4,), "seeds": 1, "pretraining": 2,
              "few": {"steps": 2, "validation": 2, "test": 2, "learning_rates": (1e-3,), "batch_size": 2}},
    "laptop": {"tasks": SHIFTS[:2], "examples": (8, 64), "seeds": 1, "pretraining": 400,
               "few": {"steps": 60, "validation": 32, "test": 128}},
    "gpu": {"tasks": SHIFTS, "examples": (8, 32, 128, 512), "seeds": 3, "pretraining": 4000,
            "few": {"steps": 1000, "test": 512, "resolution": 64, "learning_rates": (3e-4, 1e-3, 3e-3)}},
    "paper": {"tasks": SHIFTS, "examples": (8, 32, 128, 512, 2048), "seeds": 5, "pretraining": 20000,
              "few": {"steps": 5000, "test": 1024, "resolution": 64, "learning_rates": (3e-4, 1e-3, 3e-3)}},
}  # fmt: skip
"""How much of the experiment to run, by budget."""


@experiment("variable_coefficients")
def variable_coefficients(budget: str = "laptop") -> list[CustomRun]:
    """Few labelled examples of SYS-4 at its shifts, from random weights and from three pre-trainings; and the solver.

    Raises:
        ValueError: on an unknown budget.
    """
    chosen = for_budget(SETTINGS, budget)
    few = chosen["few"]
    shared = {name: few[name] for name in ("test", "resolution") if name in few}
    runs: list[CustomRun] = [SolverRun(task, **shared) for task in chosen["tasks"]]
    for task in chosen["tasks"]:
        for seed in range(chosen["seeds"]):
            for start in STARTS:
                steps = chosen["pretraining"] if start == "own" else 0
                runs += [
                    FewLabelsRun(task, start, count, PARENTS.get(start, ""), seed, pretraining=steps, **few)
                    for count in chosen["examples"]
                ]
    return runs


def few_labels_table(records: Sequence[dict]) -> str:
    """Errors at each shift by start and number of labels, and the time that the solver takes for the same error."""
    few, solver = select(records, kind="few_labels"), select(records, kind="solver")
    counts, rows = sorted({record["examples"] for record in few}), []
    for task in dict.fromkeys(record["task"] for record in few):
        for start, name in STARTS.items():
            cells = []
            for count in counts:
                errors = [r["error"] for r in select(few, task=task, start=start, examples=count)]
                cells.append(spread(errors) if errors else "")
            before = [r["error_before"] for r in select(few, task=task, start=start) if r["error_before"] is not None]
            rows.append([task, name, spread(before) if before else "", *cells])
        for record in select(solver, task=task):
            shown = zip(record["errors"], record["milliseconds"], strict=True)
            rows.append(
                [task, "the solver", "; ".join(f"{percent(e)} in {ms:.2g} ms" for e, ms in shown), *[""] * len(counts)]
            )
    return table(["task", "start", "no labels", *(f"{count} labels" for count in counts)], rows)


def labels_saved(records: Sequence[dict]) -> list[dict[str, Any]]:
    """For each shift and start, how many labels from scratch are worth the few: by interpolation of the logarithms.

    None where scratch never comes that low, or the start is worse with as many labels.
    """
    few, found = select(records, kind="few_labels"), []
    for task in dict.fromkeys(record["task"] for record in few):
        for seed in sorted({record["seed"] for record in few}):
            scratch = sorted((r["examples"], r["error"]) for r in select(few, task=task, start="scratch", seed=seed))
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
