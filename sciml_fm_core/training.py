"""Training: one loop for pre-training and adaptation, on fixed files or fresh examples, on CPU or CUDA."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import NamedTuple

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from .datasets import Batches
from .files import atomic_path, save_tensors
from .metrics import relative_error
from .operator import Operator
from .systems import System
from .tasks import Examples

LOSSES = ("relative", "squared")


@dataclass(frozen=True)
class TrainConfig:
    """How to train.

    Attributes:
        steps: optimiser steps.
        learning_rate: at the start; decays to 0 over the steps as half a cosine.
        loss: ``relative``, the mean of ||u - u0|| / ||u0||; or ``squared``, the paper's: the squared error summed over
            the grid, averaged over the batch.
        warmup: steps over which the learning rate rises from 0.
        validate_every: steps between validations, where there are validation examples.
        report_every: steps between calls of the callback.
        time_limit: seconds after which the decay has reached 0 and training ends, whatever `steps`; None for no limit.
        checkpoint_every: steps between checkpoints, where a checkpoint path is given.
        compile: compile the network with torch.compile (needs a C++ compiler on a CPU); pays off in runs of many
            minutes, never in a few-shot run of seconds.
    """

    steps: int = 1000
    learning_rate: float = 2e-3
    loss: str = "relative"
    warmup: int = 0
    validate_every: int = 100
    report_every: int = 10
    time_limit: float | None = None
    checkpoint_every: int = 500
    compile: bool = False

    def __post_init__(self):
        if self.loss not in LOSSES:
            raise ValueError(f"loss: expected one of {', '.join(LOSSES)}, got {self.loss!r}")
        if self.steps < 1 or min(self.validate_every, self.report_every, self.checkpoint_every) < 1:
            raise ValueError("TrainConfig: expected steps and intervals of at least 1")
        if not (self.learning_rate > 0 and math.isfinite(self.learning_rate)):
            raise ValueError(f"learning_rate: expected a finite number above 0, got {self.learning_rate}")
        if self.time_limit is not None and self.time_limit <= 0:
            raise ValueError(f"time_limit: expected seconds above 0, got {self.time_limit}")


class Progress(NamedTuple):
    """Where a training stands; what the callback gets. ``fraction`` of the steps, or of the time limit, is done."""

    step: int
    steps: int
    fraction: float
    loss: float
    validation_error: float | None
    learning_rate: float
    examples_per_second: float
    seconds_left: float


Callback = Callable[[Progress], bool | None]
"""Called every `report_every` steps and at the end; returning True stops the training and keeps what it has."""


@dataclass
class History:
    """What happened: one row per report, and the best validation error."""

    rows: list[dict] = field(default_factory=list)
    best_error: float | None = None
    best_step: int = 0
    examples_seen: int = 0
    seconds: float = 0.0
    stopped: bool = False


def training_loss(prediction: Tensor, solution: Tensor, loss: str) -> Tensor:
    """``relative`` or ``squared`` loss of a batch (batch, n, n), a scalar."""
    if loss == "relative":
        return relative_error(prediction, solution).mean()
    return (prediction - solution).square().sum(dim=(-2, -1)).mean()


def mean_error(operator: Operator, sets: Sequence[tuple[System, Examples]]) -> float:
    """The paper's metric mu: mean relative error over all examples of all sets."""
    errors = [
        relative_error(operator.predict(examples.source, examples.coefficients, system), examples.solution)
        for system, examples in sets
    ]
    return torch.cat([error.cpu() for error in errors]).mean().item()


def fit(
    operator: Operator,
    data: Batches,
    config: TrainConfig,
    *,
    validation: Sequence[tuple[System, Examples]] = (),
    callback: Callback | None = None,
    checkpoint: str | Path | None = None,
) -> History:
    """Train an operator in place with Adam and cosine decay; it ends with the weights of lowest validation error.

    Without validation examples it ends with the last weights.

    Args:
        operator: trained where its weights are.
        data: the batch of each step.
        config: how to train.
        validation: examples on which the weights are chosen; never the test set.
        callback: the one hook: progress bars, live plots, cancelling.
        checkpoint: file to keep the state of the training in; where it exists, training goes on from it.

    Raises:
        ValueError: if the checkpoint belongs to another training.
        FloatingPointError: if the loss stops being finite.
    """
    model = operator.model
    optimizer = torch.optim.Adam(model.parameters(), lr=config.learning_rate, fused=True)
    history, best, first = History(), None, 0
    if checkpoint is not None and Path(checkpoint).exists():
        history, best, first = _load_checkpoint(Path(checkpoint), operator, optimizer, config)
    network = torch.compile(model) if config.compile else model
    started, seen_before = time.perf_counter() - history.seconds, history.examples_seen
    resumed = time.perf_counter()
    step, progress, validated = first, _fraction(first, history.seconds, config), None

    model.train()
    while progress < 1 and not history.stopped:
        rate = config.learning_rate * 0.5 * (1 + math.cos(math.pi * progress))
        rate *= min(1.0, (step + 1) / (config.warmup + 1))
        for group in optimizer.param_groups:
            group["lr"] = rate
        parts = data.batch(step, progress)
        encoded = [operator.normalization.encode(part.source, part.coefficients, system) for system, part in parts]
        fields, constants, scale, zero_mean = (torch.cat(tensors) for tensors in zip(*encoded, strict=True))
        decoded = type(encoded[0])(fields, constants, scale, zero_mean).decode(network(fields, constants))
        loss = training_loss(decoded, torch.cat([part.solution for _, part in parts]), config.loss)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()

        step += 1
        history.examples_seen += len(fields)
        history.seconds = time.perf_counter() - started
        progress = _fraction(step, history.seconds, config)
        last = progress >= 1
        if validation and (last or step % config.validate_every == 0):
            validated = mean_error(operator, validation)
            if math.isfinite(validated) and (history.best_error is None or validated < history.best_error):
                history.best_error, history.best_step = validated, step
                best = {key: value.detach().clone() for key, value in model.state_dict().items()}
        if last or step % config.report_every == 0:
            value = loss.item()
            if not math.isfinite(value):
                raise FloatingPointError(
                    f"training: the loss is {value} at step {step}; lower the learning rate ({config.learning_rate:g})"
                )
            row = {"step": step, "loss": value, "validation_error": validated, "learning_rate": rate}
            history.rows.append(row | {"seconds": round(history.seconds, 3)})
            if callback is not None:
                speed = (history.examples_seen - seen_before) / max(time.perf_counter() - resumed, 1e-9)
                left = history.seconds * (1 - progress) / max(progress, 1e-9)
                history.stopped = bool(
                    callback(Progress(step, config.steps, progress, value, validated, rate, speed, left))
                )
            validated = None
        if checkpoint is not None and (last or history.stopped or step % config.checkpoint_every == 0):
            _save_checkpoint(Path(checkpoint), operator, optimizer, config, history, best, step)
    if best is not None:
        model.load_state_dict(best)
    model.eval()
    return history


def _fraction(step: int, seconds: float, config: TrainConfig) -> float:
    """How much of the training is done: by steps, or by time where that comes first."""
    by_time = seconds / config.time_limit if config.time_limit else 0.0
    return min(1.0, max(step / config.steps, by_time))


def _save_checkpoint(path, operator, optimizer, config, history, best, step) -> None:
    tensors = {f"model.{key}": value.detach() for key, value in operator.model.state_dict().items()}
    if best is not None:
        tensors |= {f"best.{key}": value for key, value in best.items()}
    for index, state in optimizer.state_dict()["state"].items():
        tensors |= {f"optimizer.{index}.{key}": torch.as_tensor(value) for key, value in state.items()}
    header = {
        "format": "sciml-fm checkpoint",
        "model": operator.model.config.to_dict(),
        "config": asdict(config),
        "history": asdict(history) | {"stopped": False},
        "step": step,
    }
    with atomic_path(path) as partial:
        save_tensors({key: value.cpu() for key, value in tensors.items()}, partial, header)


def _load_checkpoint(path, operator, optimizer, config) -> tuple[History, dict | None, int]:
    try:
        with safe_open(path, framework="pt") as file:
            header = json.loads((file.metadata() or {}).get("header", "{}"))
            tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
    except (SafetensorError, OSError, ValueError) as error:
        raise ValueError(f"checkpoint {path}: not readable ({error}); remove it to start again") from error
    same = header.get("model") == operator.model.config.to_dict() and header.get("config") == asdict(config)
    if header.get("format") != "sciml-fm checkpoint" or not same:
        raise ValueError(f"checkpoint {path}: belongs to a training with other settings; remove it or use another name")
    device = operator.device

    def group(prefix: str) -> dict[str, Tensor]:
        return {key.removeprefix(prefix): value for key, value in tensors.items() if key.startswith(prefix)}

    operator.model.load_state_dict(group("model."))
    state: dict[int, dict[str, Tensor]] = {}
    for key, value in group("optimizer.").items():
        index, name = key.split(".")
        state.setdefault(int(index), {})[name] = value
    optimizer.load_state_dict({"state": state, "param_groups": optimizer.state_dict()["param_groups"]})
    best = {key: value.to(device) for key, value in group("best.").items()} or None
    return History(**header["history"]), best, header["step"]
