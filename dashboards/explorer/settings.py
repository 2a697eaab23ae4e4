"""What a training on the page is asked for, and what came out of it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from sciml_fm_core.models.operator import Operator
from sciml_fm_core.physics.tasks import Task

Row = tuple[int, float, float | None]
"""Step, loss and validation error of a learning curve."""
Key = tuple[float, float, int, bool, int, float]


@dataclass(frozen=True)
class AdaptSettings:
    """What to adapt to: a task, how many of its examples, for how many steps, at which learning rate.

    A learning rate of None tries a grid of them and keeps the best on validation. With ``physics`` there are no
    examples: the equation takes their place.
    """

    task: Task
    examples: int
    steps: int
    learning_rate: float | None
    physics: bool = False

    @property
    def key(self) -> Key:
        """Results with the same key replace each other."""
        return self.task.low, self.task.high, self.examples, self.physics, self.steps, self.learning_rate or 0.0

    @property
    def short(self) -> str:
        """A name short enough for a button."""
        return f"{'no labels' if self.physics else self.examples} on {self.task.low:g}–{self.task.high:g}"

    @property
    def training(self) -> str:
        """How it is trained, in words."""
        rate = "best of the grid" if self.learning_rate is None else f"rate {self.learning_rate:g}"
        return f"{self.steps} steps, {rate}"

    @property
    def given(self) -> str:
        """What the operator is given of the task, in words."""
        return "0 labels, physics loss" if self.physics else f"{self.examples} examples"


@dataclass(frozen=True)
class Adapted:
    """A fine-tuned operator and its from-scratch twin, trained on the same examples for the same steps.

    Without labels there is no twin.

    All by key of `PREDICTIONS`; ``errors`` are mean relative errors on held-out examples of the task. An operator that
    ships is a function that loads it.
    """

    settings: AdaptSettings
    operators: dict[str, Operator | Callable[[], Operator]]
    learning_rates: dict[str, float]
    errors: dict[str, float]
    finished: float
    names: dict[str, str] = field(default_factory=dict)
    """Names by which `load_operator` finds those that ship."""
    curves: dict[str, tuple[Row, ...]] = field(default_factory=dict)
    """Learning curves of those that were trained here, as `JobState.curves`."""

    @property
    def key(self) -> Key:
        """The key of the settings."""
        return self.settings.key
