"""State of one operator in training."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

from torch import Tensor

from sciml_fm_core.models.operator import Operator

from .config import History

STATUSES = ("training", "finished", "diverged")


@dataclass
class Member:
    """State of one of several operators that are trained together.

    Attributes:
        operator: trained in place; all members' networks have the same shape.
        learning_rate: its own.
        history: filled in as it is trained.
        status: one of `STATUSES`.
        best: the weights of lowest validation error, None before the first.
        unreported: the last validation error, until a row of the history has it.
    """

    operator: Operator
    learning_rate: float
    history: History = field(default_factory=History)
    status: str = "training"
    best: dict[str, Tensor] | None = None
    unreported: float | None = None

    def keep_best(self, error: float, step: int) -> None:
        """Note a validation error, and keep the weights where it is the lowest so far."""
        self.unreported = error
        if math.isfinite(error) and error < self.score:
            self.history.best_error, self.history.best_step = error, step
            self.best = {key: value.detach().clone() for key, value in self.operator.model.state_dict().items()}

    @property
    def score(self) -> float:
        """Lowest validation error so far; infinity before the first."""
        return math.inf if self.history.best_error is None else self.history.best_error
