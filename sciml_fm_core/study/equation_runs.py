"""Runs that learn from an equation alone: no labels, or fresh ones without end to compare with.

They are recorded as other runs are, see `runs`, and kept apart from them: their axis is computing, not examples.
"""

from __future__ import annotations

import time
from dataclasses import asdict, dataclass
from typing import Any

from sciml_fm_core.data.batches import Batches, CurriculumBatches, FreshBatches
from sciml_fm_core.evaluation.errors import evaluate, validation_sets
from sciml_fm_core.models.operator import load_operator
from sciml_fm_core.physics.tasks import Task
from sciml_fm_core.training.cards import hardware, versions
from sciml_fm_core.training.config import TrainConfig
from sciml_fm_core.training.loop import fit
from sciml_fm_core.training.losses import LABEL_FREE, find_loss
from sciml_fm_core.training.recipes import find_recipe
from sciml_fm_core.training.transfer import new_operator
from sciml_fm_core.training.unlabelled import WithoutSolutions

Schedule = tuple[tuple[float, int], ...]
KIND = "equation"
"""What the records of these runs have as their ``kind``; those of adaptations have none."""


@dataclass(frozen=True)
class EquationRun:
    """An operator trained on fresh sources and coefficients of a task by one loss, and measured once.

    Attributes:
        task: what it learns and is measured on.
        loss: a name in `LOSSES`. Only one that needs labels is given any: as many as it sees examples.
        parent: shipped operator or bundle to start from; random weights of `recipe` and `size` where empty.
        easiest: task from which the dial moves to that of `task`, see `CurriculumBatches`; none where empty.
        recipe, size, seed, steps, batch_size, learning_rate, resolution: as in `pretrain`.
        validation, test: numbers of examples, the latter on ``test_resolution`` points with seed 0.
    """

    task: str
    loss: str
    parent: str = ""
    easiest: str = ""
    recipe: str = "dimensionless"
    size: str = "256K"
    seed: int = 0
    steps: int = 300
    batch_size: int = 32
    learning_rate: float = 5e-3
    resolution: Schedule = ((0.0, 32),)
    validation: int = 64
    test: int = 256
    test_resolution: int = 64

    def __post_init__(self):
        for label in (self.task, *([self.easiest] if self.easiest else [])):
            Task.parse(label)
        find_loss(self.loss)
        find_recipe(self.recipe)


def learn_and_measure(run: EquationRun, identity: str, device: str) -> dict:
    """The record of a run, computed.

    ``cpu_seconds`` are those that the training took of all cores together, which do not depend on what else a machine
    does meanwhile; ``error_before`` is that of the operator a run starts from.
    """
    began, task = time.monotonic(), Task.parse(run.task)
    if run.parent:
        operator = load_operator(run.parent, device).copy()
        start = evaluate(operator, task, count=run.test, resolution=run.test_resolution)["error"]
    else:
        start = None
        operator = new_operator([task], recipe=run.recipe, size=run.size, seed=run.seed, device=device)
    ((system, held_out),) = validation_sets([task], run.validation, resolution=run.resolution[-1][1], device=device)
    batches = _batches(run, task, device)
    if run.loss in LABEL_FREE:
        batches, held_out = WithoutSolutions(batches), held_out.without_solution()
    every = max(1, run.steps // 15)
    config = TrainConfig(
        steps=run.steps, learning_rate=run.learning_rate, loss=run.loss, warmup=0 if run.parent else None,
        validate_every=every, report_every=every,
    )  # fmt: skip
    computing = time.process_time()
    history = fit(operator, batches, config, validation=[(system, held_out)])
    computing = time.process_time() - computing
    measured = evaluate(operator, task, count=run.test, resolution=run.test_resolution)
    return {
        "identity": identity,
        "kind": KIND,
        **asdict(run),
        "labels": 0 if run.loss in LABEL_FREE else history.examples_seen,
        "parameters": operator.model.parameter_count,
        **{name: measured[name] for name in ("error", "median", "percentile_90")},
        "error_before": start,
        "validation_loss": history.best_error,
        "best_step": history.best_step,
        "seconds": round(history.seconds, 2),
        "cpu_seconds": round(computing, 2),
        "total_seconds": round(time.monotonic() - began, 2),
        "hardware": hardware(operator.device),
        "versions": versions(),
    }


def _batches(run: EquationRun, task: Task, device: str) -> Batches:
    options: dict[str, Any] = {"resolution": dict(run.resolution), "seed": run.seed, "device": device}
    if run.easiest:
        return CurriculumBatches(Task.parse(run.easiest), task, run.batch_size, **options)
    return FreshBatches([task], run.batch_size, **options)
