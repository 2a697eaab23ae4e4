"""Adaptation without labels: fresh sources and coefficients of a task, and the residual of its equation.

Nothing of a solution reaches the training or the choice of weights: `WithoutSolutions` puts NaN in its place. Used are
the symbol of the equation and the preconditioner of the physics loss. On the systems of this package the exact solver
needs no more than the symbol: this shows what a network can learn from an equation, not that it needs a network.

The task that draws sources and coefficients is more than an equation: for SYS-2 the velocity of an asked dial is found
from symbol and source (`AdvectionDiffusion.speed`), and SYS-3 rejects sources whose solution is too large. Both shape
which equations are seen, and neither shows the network a solution.
"""

from __future__ import annotations

from collections.abc import Mapping

from sciml_fm_core.data.batches import Batches, FreshBatches
from sciml_fm_core.evaluation.errors import validation_sets
from sciml_fm_core.models.operator import Operator
from sciml_fm_core.physics.examples import Examples
from sciml_fm_core.physics.spectral import Resolution
from sciml_fm_core.physics.system import System
from sciml_fm_core.physics.tasks import Task

from .config import TrainConfig
from .losses import LABEL_FREE, check_residual

UNLABELLED = TrainConfig(steps=300, learning_rate=3e-3, loss="physics", validate_every=20)
"""How to adapt without labels. The learning rate may be larger than with a few labels: no example is seen twice."""

BATCH_SIZE = 32
VALIDATION_COUNT = 64


class WithoutSolutions:
    """Batches that have NaN in place of the solutions."""

    def __init__(self, batches: Batches):
        self.batches = batches

    def batch(self, step: int, progress: float) -> list[tuple[System, Examples]]:
        """Examples of one step."""
        return [(system, examples.without_solution()) for system, examples in self.batches.batch(step, progress)]


def unlabelled_config(config: TrainConfig | None, system: System) -> TrainConfig:
    """Complete a configuration by `UNLABELLED`, for examples of a system.

    Raises:
        ValueError: if its loss, or what it validates by, needs labels, or is a residual that is not known.
    """
    config = (config or UNLABELLED).completed(learning_rate=UNLABELLED.learning_rate, loss=UNLABELLED.loss, warmup=0)
    for name in (config.loss, config.validation_loss):
        if name not in LABEL_FREE:
            known = " or ".join(sorted(LABEL_FREE))
            raise ValueError(f"unlabelled: expected a loss that needs no labels, {known}, got {name!r}")
        check_residual(name, system)
    return config


def unlabelled_data(
    task: Task,
    operator: Operator,
    batch_size: int | None = None,
    resolution: Resolution | Mapping[float, Resolution] | None = None,
    seed: int = 0,
    validation: Examples | None = None,
) -> tuple[WithoutSolutions, Examples, dict]:
    """Batches to train on, validation examples, and what a card says of both.

    By default most steps are on the coarsest grid that resolves the network's modes, of at least 32 points, and the
    last 15 % on twice as many; `VALIDATION_COUNT` validation examples are drawn at the last resolution.
    """
    coarse, batch_size = max(32, operator.model.smallest_grid), BATCH_SIZE if batch_size is None else batch_size
    schedule = resolution or {0.0: coarse, 0.85: 2 * coarse}
    schedule = schedule if isinstance(schedule, Mapping) else {0.0: schedule}
    batches = FreshBatches([task], batch_size, resolution=schedule, seed=seed, device=operator.device)
    if validation is None:
        last = schedule[max(schedule)]
        ((_, validation),) = validation_sets([task], VALIDATION_COUNT, resolution=last, device=operator.device)
    about = {"downstream_task": task.label, "downstream_examples": 0, "labels": "none", "batch_size": batch_size}
    return WithoutSolutions(batches), validation.without_solution(), about
