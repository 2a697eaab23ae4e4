"""Settings of a training, its progress and its history."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, NamedTuple

from sciml_fm_core.schema import TakesNumpy, check_choice

from .losses import LABEL_FREE, find_loss

if TYPE_CHECKING:
    from sciml_fm_core.models.operator import Operator

PRECISIONS = ("float32", "tf32", "bfloat16")

COMPILE_STEPS = 5000
"""Steps from which a training on a GPU is compiled, where `TrainConfig.compile` leaves it to the rule, which never
compiles on a CPU: torch.compile takes 12 to 16 s there, and gains little or nothing (``benchmarks/README.md``)."""
MOST_STEPS = 10**12
"""Thousands of years; a checkpoint could not be read that says more than 64 bits hold."""


@dataclass(frozen=True)
class TrainConfig(TakesNumpy):
    """Settings of a training.

    Attributes:
        steps: optimiser steps.
        learning_rate: at the start; decays to 0 over the steps as half a cosine. The recipe's where None, as are
            ``loss``, ``warmup`` and ``composed``.
        loss: a name in `LOSSES`, such as ``relative``, the mean of ||u - u0|| / ||u0||; ``squared``, the paper's; or
            ``physics``, which needs no solutions.
        warmup: steps over which the learning rate rises from 0.
        composed: share of the examples that are described by an operator followed by another, for networks conditioned
            on the symbol, see `SymbolNormalization`. It broadens a pre-training; few-shot training has none.
        validate_every: steps between validations, where there are validation examples.
        report_every: steps between calls of the callback.
        time_limit: seconds after which the decay has reached 0 and training ends, whatever `steps`; None for no limit.
        checkpoint_every: steps between checkpoints, where a checkpoint path is given.
        compile: compile the network with torch.compile, as a CUDA graph where it is small. Where None, by rule: on a
            GPU with a C compiler, from `COMPILE_STEPS` steps on, without a time limit.
        precision: of the steps; validation and what is saved are float32. ``tf32`` rounds the factors of every product
            to 10 bits on a GPU that has TF32; ``bfloat16`` those of the pointwise products of hidden channels to 7, and
            their results, and keeps transforms and modes in float32.
        validate_by: the loss whose mean over validation examples chooses weights and learning rate. Where None, it is
            ``relative``, the paper's error; or the loss itself where that needs no solutions.
    """

    steps: int = 1000
    learning_rate: float | None = None
    loss: str | None = None
    warmup: int | None = None
    composed: float | None = None
    validate_every: int = 100
    report_every: int = 10
    time_limit: float | None = None
    checkpoint_every: int = 500
    compile: bool | None = None
    precision: str = "float32"
    validate_by: str | None = None

    def __post_init__(self):
        check_choice("precision", self.precision, PRECISIONS)
        for loss in (self.loss, self.validate_by):
            if loss is not None:
                find_loss(loss)
        for name in ("steps", "warmup", "validate_every", "report_every", "checkpoint_every"):
            if type(value := getattr(self, name)) is not int and value is not None:
                raise ValueError(f"{name}: expected a whole number, got {value}")
        if self.steps < 1 or min(self.validate_every, self.report_every, self.checkpoint_every) < 1:
            raise ValueError("TrainConfig: expected steps and intervals of at least 1")
        if self.steps > MOST_STEPS:
            raise ValueError(f"steps: expected at most {MOST_STEPS}, got {self.steps}; limit the time instead")
        if self.learning_rate is not None and not (self.learning_rate > 0 and math.isfinite(self.learning_rate)):
            raise ValueError(f"learning_rate: expected a finite number above 0, got {self.learning_rate}")
        if self.composed is not None and not 0 <= self.composed <= 1:
            raise ValueError(f"composed: expected a share in [0, 1], got {self.composed}")
        if self.warmup is not None and self.warmup < 0:
            raise ValueError(f"warmup: expected steps of at least 0, got {self.warmup}")
        if self.time_limit is not None and not self.time_limit > 0:
            raise ValueError(f"time_limit: expected seconds above 0, got {self.time_limit}")

    @property
    def validation_loss(self) -> str:
        """What `validate_by` says or leaves open."""
        own = self.loss if self.loss in LABEL_FREE else None
        return self.validate_by or own or "relative"

    def completed(self, **defaults: Any) -> TrainConfig:
        """Fill in values for the fields that are None."""
        return replace(self, **{name: value for name, value in defaults.items() if getattr(self, name) is None})


class Progress(NamedTuple):
    """State of a training as the callback gets it; ``fraction`` of the steps, or of the time limit, is done.

    ``operator`` is the one in training itself: the next step changes it, so whoever keeps it takes a copy.
    """

    step: int
    steps: int
    fraction: float
    loss: float
    validation_error: float | None
    learning_rate: float
    examples_per_second: float
    seconds_left: float
    operator: Operator | None = None


Callback = Callable[[Progress], bool | None]
"""Called every `report_every` steps and at the end; returning True stops the training and keeps what it has."""


@dataclass
class History:
    """Course of a training: one row per report, and the best validation error."""

    rows: list[dict] = field(default_factory=list)
    best_error: float | None = None
    best_step: int = 0
    examples_seen: int = 0
    seconds: float = 0.0
    stopped: bool = False
