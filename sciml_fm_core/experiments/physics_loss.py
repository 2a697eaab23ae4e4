"""Learning from an equation alone: no labels, or fresh ones without end to compare with.

The axis is computing, not examples.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, replace
from typing import Any, ClassVar, cast

from sciml_fm_core.data.batches import Batches, FreshBatches
from sciml_fm_core.evaluation.errors import evaluate, validation_sets
from sciml_fm_core.experiments.paper import COARSE_FIRST, Budget, find_budget
from sciml_fm_core.models.operator import load_operator
from sciml_fm_core.physics.tasks import PAPER_TASKS, Task
from sciml_fm_core.study.custom import CustomRun, Schedule
from sciml_fm_core.study.registry import experiment
from sciml_fm_core.training.config import TrainConfig
from sciml_fm_core.training.loop import fit
from sciml_fm_core.training.losses import LABEL_FREE, find_loss
from sciml_fm_core.training.recipes import find_recipe
from sciml_fm_core.training.transfer import new_operator
from sciml_fm_core.training.unlabelled import UNLABELLED, WithoutSolutions


class CurriculumBatches(FreshBatches):
    """Fresh examples of a task whose dial begins in an easier range and moves from there to that of the task.

    Both ends move evenly, on a logarithmic dial by equal factors, and have arrived halfway through the training
    (curriculum regularisation: Krishnapriyan et al., arXiv:2109.01050).

    Args:
        easiest: what the training begins with.
        task: what it ends with, of the same system.
        batch_size, options: as in `FreshBatches`.

    Raises:
        ValueError: as `FreshBatches`, or if the systems differ.
    """

    ARRIVED = 0.5

    def __init__(self, easiest: Task, task: Task, batch_size: int, **options):
        super().__init__([task], batch_size, **options)
        if easiest.system is not task.system:
            raise ValueError(f"curriculum: expected two tasks of one system, got {easiest.label} and {task.label}")
        self.easiest, self.task = easiest, task

    def tasks_at(self, progress: float) -> list[Task]:
        """The task of that moment alone."""
        return [self.task_at(progress)]

    def task_at(self, progress: float) -> Task:
        """The task when that much of the training is done.

        >>> first, last = Task.parse("SYS-1(1,5)"), Task.parse("SYS-1(11,15)")
        >>> batches = CurriculumBatches(first, last, 4)
        >>> [batches.task_at(progress).label for progress in (0, 0.25, 0.5, 1)]
        ['SYS-1(1,5)', 'SYS-1(6,10)', 'SYS-1(11,15)', 'SYS-1(11,15)']
        """
        share, dial = min(1.0, progress / self.ARRIVED), self.task.system.dialled

        def between(first: float, last: float) -> float:
            value = first * (last / first) ** share if dial.logarithmic else first + share * (last - first)
            return round(value) if dial.whole else value

        low, high = between(self.easiest.low, self.task.low), between(self.easiest.high, self.task.high)
        return self.task if share == 1 else replace(self.task, low=low, high=high)


@dataclass(frozen=True)
class EquationRun(CustomRun):
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
    kind: ClassVar[str] = "equation"

    def __post_init__(self):
        for label in (self.task, *([self.easiest] if self.easiest else [])):
            Task.parse(label)
        find_loss(self.loss)
        find_recipe(self.recipe)

    def measure(self, device):
        """Error of the operator, and of the one that it starts from as ``error_before``.

        ``cpu_seconds`` are those of the training.
        """
        task = Task.parse(self.task)
        if self.parent:
            operator = load_operator(self.parent, device).copy()
            start = evaluate(operator, task, count=self.test, resolution=self.test_resolution)["error"]
        else:
            start = None
            operator = new_operator([task], recipe=self.recipe, size=self.size, seed=self.seed, device=device)
        n = self.resolution[-1][1]
        ((system, held_out),) = validation_sets([task], self.validation, resolution=n, device=device)
        options: dict[str, Any] = {"resolution": dict(self.resolution), "seed": self.seed, "device": device}
        batches: Batches = FreshBatches([task], self.batch_size, **options)
        if self.easiest:
            batches = CurriculumBatches(Task.parse(self.easiest), task, self.batch_size, **options)
        if self.loss in LABEL_FREE:
            batches, held_out = WithoutSolutions(batches), held_out.without_solution()
        every = max(1, self.steps // 15)
        config = TrainConfig(
            steps=self.steps, learning_rate=self.learning_rate, loss=self.loss, warmup=0 if self.parent else None,
            validate_every=every, report_every=every,
        )  # fmt: skip
        computing = time.process_time()
        history = fit(operator, batches, config, validation=[(system, held_out)])
        computing = time.process_time() - computing
        measured = evaluate(operator, task, count=self.test, resolution=self.test_resolution)
        return {
            "labels": 0 if self.loss in LABEL_FREE else history.examples_seen,
            "parameters": operator.model.parameter_count,
            **{name: measured[name] for name in ("error", "median", "percentile_90")},
            "error_before": start,
            "validation_loss": history.best_error,
            "best_step": history.best_step,
            "seconds": round(history.seconds, 2),
            "cpu_seconds": round(computing, 2),
        }


@experiment("physics_loss")
def physics_loss(budget: str | Budget = "laptop") -> list[EquationRun]:
    """Learning from the equation alone, at points further and further along the dials of SYS-1 and SYS-2.

    From random weights by the plain residual, by the preconditioned one and, to compare, by labels without end; at the
    far end of the dial also with a curriculum along it. Then from the operators that ship, at the medium shift.
    """
    chosen = find_budget(budget, "physics_loss")
    runs = []
    common: dict[str, Any] = {"batch_size": chosen.batch_size, "validation": chosen.validation, "test": chosen.test}
    common |= {"test_resolution": chosen.test_resolution}
    made = common | {"size": chosen.equation_size, "steps": chosen.equation_steps}
    for system, parent in (("poisson", "sys-1"), ("advection_diffusion", "sys-2")):
        near, medium, far = (PAPER_TASKS[system][shift] for shift in ("none", "medium", "large"))
        for task in (near, medium, far):
            runs += [EquationRun(task, loss, **made) for loss in ("residual", "physics", "relative")]
        runs += [EquationRun(far, loss, easiest=near, **made) for loss in ("residual", "physics")]
        runs += [
            EquationRun(
                medium, loss, parent, size="", steps=steps, learning_rate=cast(float, UNLABELLED.learning_rate),
                resolution=COARSE_FIRST, **common,
            )
            for loss in ("residual", "physics")
            for steps in chosen.tuning_steps
        ]  # fmt: skip
    return runs
