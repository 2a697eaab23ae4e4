"""The training loop, for pre-training and adaptation, on files or fresh examples, on CPU or CUDA."""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import cast

import torch
from torch import Tensor

from sciml_fm_core.data.batches import Batches
from sciml_fm_core.data.rollouts import FixedTrajectories, FreshTrajectories
from sciml_fm_core.data.splits import stream
from sciml_fm_core.files import user_path
from sciml_fm_core.models.base import apply_together
from sciml_fm_core.models.normalization import COMPOSITIONS, VARIATIONS, Encoded
from sciml_fm_core.models.operator import Operator
from sciml_fm_core.models.predict import encode_together
from sciml_fm_core.physics.examples import Examples
from sciml_fm_core.physics.system import System
from sciml_fm_core.physics.trajectories import Trajectories

from .checkpoints import load_checkpoint, save_checkpoint
from .config import Callback, History, Progress, TrainConfig
from .description import describe_training
from .distributed import ALONE, Processes
from .interrupts import Interrupts
from .losses import LABEL_FREE, mean_losses, training_loss
from .member import Member
from .precision import products_in, trained_network
from .recipes import completed

UNROLLED = (FreshTrajectories, FixedTrajectories)
"""Batches that say what comes after several steps."""


def fit(
    operator: Operator,
    data: Batches,
    config: TrainConfig,
    *,
    validation: Sequence[tuple[System, Examples | Trajectories]] = (),
    callback: Callback | None = None,
    checkpoint: str | Path | None = None,
    processes: Processes = ALONE,
) -> History:
    """Train an operator in place with Adam and cosine decay.

    It ends with the weights of lowest validation error, or with the last ones where nothing is given to validate on.

    A run is a function of the seeds, the configuration and the number of threads: resumed from a checkpoint it ends
    with the same bytes as uninterrupted (except where a time limit decides when it ends).

    Args:
        operator: what to train, on the device it is on.
        data: any `Batches`, such as `FreshBatches` or `FixedBatches`, on the same device.
        config: how to train.
        validation: examples on which the weights are chosen; never the test set.
        callback: the one hook: progress bars, live plots, cancelling.
        checkpoint: file to keep the state of the training in; where it exists, the training resumes from it. It belongs
            to this training alone: to its data, weights, settings and validation examples, see `describe_training`.
        processes: several that call this together, each with its share of the data: they take the steps that one
            would take with all of it (to rounding), and end with the same weights. The first one's callback counts.

    Raises:
        ValueError: if the checkpoint belongs to another training, no weight is to be trained, or data are not finite.
        FloatingPointError: if the loss stops being finite.
        KeyboardInterrupt: on Ctrl-C, between two steps, after the state was written to the checkpoint; so on SIGTERM.
    """
    config = completed(config, operator)
    member = Member(operator, cast(float, config.learning_rate))
    fit_together(
        [member], data, config, validation=validation, callback=callback, checkpoint=checkpoint, processes=processes
    )  # fmt: skip
    return member.history


def fit_together(
    members: Sequence[Member],
    data: Batches,
    config: TrainConfig,
    *,
    validation: Sequence[tuple[System, Examples | Trajectories]] = (),
    callback: Callback | None = None,
    checkpoint: str | Path | None = None,
    processes: Processes = ALONE,
) -> None:
    """Train several operators in place on the same batches, such as one with several learning rates, or seeds.

    Each takes the steps it would take alone (to rounding), with its own learning rate instead of that of ``config``;
    examples and inputs are made once. Arguments as in `fit`: the checkpoint holds all members, the callback gets the
    progress of the one that leads on validation, and several processes train one member only.

    Raises:
        ValueError: as `fit`, or where several processes train several members.
        FloatingPointError: if every member's loss stops being finite; where some do, the others go on.
        KeyboardInterrupt: as `fit`.
    """
    if processes.world_size > 1 and len(members) > 1:
        raise ValueError(f"several processes: expected one operator to train, got {len(members)}; use one process")
    config = completed(config, members[0].operator)
    path = None if checkpoint is None else user_path(checkpoint)
    training = _Training(members, data, config, validation, callback, path, processes)
    with Interrupts() as interrupts:
        while training.progress < 1 and not training.stopped:
            losses = training.step()
            if training.is_due(config.validate_every):
                training.validate()
            interrupted = training.agree(interrupts.noted is not None)
            diverged = interrupted and not torch.isfinite(losses).all()  # nothing to keep
            if training.is_due(config.report_every) or diverged:
                training.report(losses)
            if training.is_due(config.checkpoint_every) or interrupted:
                training.save()
            if interrupted:
                interrupts.act(training.stop_message)
    training.finish()


@dataclass
class _Training:
    """State of `fit_together`: what a step changes, and what is done between steps."""

    members: Sequence[Member]
    data: Batches
    config: TrainConfig
    validation: Sequence[tuple[System, Examples | Trajectories]]
    callback: Callback | None
    checkpoint: Path | None
    processes: Processes

    def __post_init__(self) -> None:
        models = [member.operator.model for member in self.members]
        learned = [[weight for weight in model.parameters() if weight.requires_grad] for model in models]
        if not all(learned):
            raise ValueError("training: no weight requires a gradient; call model.requires_grad_() on what is to learn")
        for system, examples in self.validation:
            if about := _not_finite(examples, self.config.validation_loss):
                raise ValueError(f"validation: expected finite numbers, got NaN or infinity in {about} ({system.name})")
        self.parameters = [weight for weights in learned for weight in weights]
        self.optimizer = torch.optim.Adam([{"params": weights} for weights in learned], fused=True)
        self.processes.share_weights(models)
        self.steps_taken = 0
        if self.checkpoint is not None:
            training = self.members, self.data, self.config, self.validation
            self.described = describe_training(*training) if self.processes.first else {}
            where = self.checkpoint, self.members, self.optimizer
            self.steps_taken = load_checkpoint(*where, self.described, self.processes)
        self.network = trained_network(self.config, self.members[0].operator)
        self.resumed = time.perf_counter()
        self.started = self.resumed - max(member.history.seconds for member in self.members)
        (self.seconds,) = self.processes.broadcast([self.resumed - self.started])
        self.progress = self.previous = _fraction(self.steps_taken, self.seconds, self.config)
        self.examples, self.stopped = 0, False
        for model in models:
            model.train()

    @property
    def active(self) -> list[Member]:
        """The members that have not diverged."""
        return [member for member in self.members if member.status == "training"]

    @property
    def factor(self) -> float:
        """What the learning rates are multiplied by: warmup, then half a cosine."""
        warmup = min(1.0, (self.steps_taken + 1) / ((self.config.warmup or 0) + 1))
        return 0.5 * (1 + math.cos(math.pi * self.progress)) * warmup

    def is_due(self, interval: int) -> bool:
        """Whether something is to be done after the last step: at intervals, and at the end."""
        return self.progress >= 1 or self.stopped or self.steps_taken % interval == 0

    def step(self) -> Tensor:
        """Take one optimiser step of every active member; returns their losses."""
        factor = self.used_factor = self.factor
        for member, group in zip(self.members, self.optimizer.param_groups, strict=True):
            group["lr"] = member.learning_rate * factor
        operators = [member.operator for member in self.active]
        unrolled = self.data.unrolled if isinstance(self.data, UNROLLED) else None
        where = self.steps_taken, self.progress
        steps = self.data.rolled(*where) if isinstance(self.data, UNROLLED) else [self.data.batch(*where)]
        encoded = self._encoded(operators, steps[0])
        self.optimizer.zero_grad(set_to_none=True)  # who diverged has no gradient: Adam leaves it alone
        with products_in(self.config.precision):
            models, total = [operator.model for operator in operators], []
            for number, parts in enumerate(steps, start=1):
                outputs = apply_together(models, [each.inputs for each in encoded], self.network)
                predictions = torch.stack([each.decode(output) for each, output in zip(encoded, outputs, strict=True)])
                total.append(training_loss(predictions, parts, cast(str, self.config.loss)))
                if number < len(steps):
                    states = predictions.detach() if unrolled and unrolled.push_forward else predictions
                    encoded = [from_states(*both, parts) for both in zip(operators, states, strict=True)]
            losses = torch.stack(total).mean(dim=0)
            losses.sum().backward()
        self.processes.share_gradients(self.parameters)
        self.optimizer.step()
        self._advance(predictions.shape[1] * self.processes.world_size)
        return losses.detach()

    def _encoded(self, operators: Sequence[Operator], parts: Sequence[tuple[System, Examples]]) -> list[Encoded]:
        """Inputs of the step for each operator; those of one normalisation are made once."""
        inputs = [(system, examples.source, examples.coefficients) for system, examples in parts]
        # drawn for the whole batch, of which each rank has every world-size-th example
        rank, ranks = self.processes.rank, self.processes.world_size
        count, generator = ranks * sum(examples.size for _, examples in parts), stream(0, "variation", self.steps_taken)
        variation = torch.rand(count, VARIATIONS, generator=generator, dtype=torch.float32, device="cpu")
        if composed := self.config.composed:
            second = torch.rand(count, COMPOSITIONS, generator=generator, dtype=torch.float32, device="cpu")
            second[:, 0] = second[:, 0] < composed
            variation = torch.cat([variation, second], dim=1)
        return encode_together(operators, inputs, variation[rank::ranks].to(inputs[0][1].device))

    def _advance(self, examples: int) -> None:
        self.steps_taken += 1
        self.seconds = time.perf_counter() - self.started
        if self.config.time_limit:
            (self.seconds,) = self.processes.broadcast([self.seconds])
        self.previous, self.progress = self.progress, _fraction(self.steps_taken, self.seconds, self.config)
        for member in self.active:
            member.history.examples_seen += examples
            member.history.seconds = self.seconds
            self.examples += examples

    def validate(self) -> None:
        """Measure every active member on the validation examples, and keep the best weights."""
        if not self.validation:
            return
        active = self.active
        errors = [math.nan] * len(active)
        if self.processes.first:
            operators = [member.operator for member in active]
            for operator in operators:
                operator.model.eval()
            errors = mean_losses(operators, self.validation, self.config.validation_loss)
            for operator in operators:
                operator.model.train()
        for member, error in zip(active, self.processes.broadcast(errors), strict=True):
            member.keep_best(error, self.steps_taken)

    def report(self, losses: Tensor) -> None:
        """Enter a row in the histories, leave out who diverged, and call the callback."""
        active = self.active
        for member, loss in zip(active, self.processes.mean(losses).tolist(), strict=True):
            row = {"step": self.steps_taken, "loss": loss, "validation_error": member.unreported}
            row |= {"learning_rate": member.learning_rate * self.used_factor, "seconds": round(self.seconds, 3)}
            member.history.rows.append(row)
            member.unreported = None
            if not math.isfinite(loss):
                self._check_data()
                member.status = "diverged"
        if not self.active:
            rates = ", ".join(f"{member.learning_rate:g}" for member in active)
            about = f"{active[0].history.rows[-1]['loss']} at step {self.steps_taken}"
            raise FloatingPointError(f"training: the loss is {about}; lower the learning rate ({rates})")
        if self.callback is not None and self.processes.first:
            self.stopped = bool(self.callback(self._progress(min(self.active, key=lambda member: member.score))))
        self.stopped = bool(self.processes.broadcast([self.stopped])[0])
        for member in self.active:
            member.history.stopped = self.stopped

    def _progress(self, leader: Member) -> Progress:
        row = leader.history.rows[-1]
        speed = self.examples / max(time.perf_counter() - self.resumed, 1e-9)
        left = self.seconds * (1 - self.progress) / self.progress
        shown = row["loss"], row["validation_error"], row["learning_rate"]
        return Progress(self.steps_taken, self.config.steps, self.progress, *shown, speed, left, leader.operator)

    def save(self) -> None:
        """Write the checkpoint, where there is to be one; every rank knows whether it is written."""
        if (path := self.checkpoint) is not None:
            state = self.members, self.optimizer, self.described, self.steps_taken
            self.processes.from_first(lambda: save_checkpoint(path, *state))

    def agree(self, interrupted: bool) -> bool:
        """Whether to stop for a signal; several ranks, of which any may have got it, agree on that when they report."""
        if self.processes.world_size == 1:
            return interrupted
        due = self.is_due(self.config.report_every)
        return due and self.processes.mean(torch.tensor(float(interrupted))).item() > 0

    @property
    def stop_message(self) -> str:
        """Message of an interrupt."""
        kept = "are lost, as no checkpoint was asked for"
        if self.checkpoint is not None:
            kept = f"are kept in {self.checkpoint}, from which the same command goes on"
        return f"stopped: {self.steps_taken} of {self.config.steps} steps are taken and {kept}"

    def _check_data(self) -> None:
        """Raise ValueError when it was not the steps that made a loss infinite, but the data since the last report."""
        found = ""
        for step in range(max(0, self.steps_taken - self.config.report_every), self.steps_taken):
            for system, examples in [] if found else self.data.batch(step, self.previous):
                if about := _not_finite(examples, cast(str, self.config.loss)):
                    found = found or f" in {about} in the batch of step {step + 1} ({system.name})"
        if self.processes.mean(torch.tensor(float(bool(found)))) > 0:
            raise ValueError(f"training data: expected finite numbers, got NaN or infinity{found}; leave them out")

    def finish(self) -> None:
        """End every member with its best weights."""
        for member in self.members:
            if member.status == "training" and not self.stopped:
                member.status = "finished"
            if member.best is not None:
                member.operator.model.load_state_dict(member.best)
            member.operator.model.eval()


def from_states(operator: Operator, states: Tensor, parts: Sequence[tuple[System, Examples]]) -> Encoded:
    """Inputs of a further step from predicted states (batch, ...), one part after the other."""
    own = states.split([examples.size for _, examples in parts])
    inputs = [(system, state, each.coefficients) for state, (system, each) in zip(own, parts, strict=True)]
    return encode_together([operator], inputs)[0]


def _not_finite(examples: Examples | Trajectories, loss: str) -> str:
    """Which of the examples' numbers, of those that a loss uses, are not finite, such as ``solution of example 3``."""
    if isinstance(examples, Trajectories):
        examples = examples.pairs()
    used = ("source", "coefficients") if loss in LABEL_FREE else ("source", "coefficients", "solution")
    for name in used:
        values = getattr(examples, name)
        if not (finite := torch.isfinite(values).reshape(len(values), -1).all(dim=1)).all():
            return f"{name} of example {int((~finite).nonzero()[0])}"
    return ""


def _fraction(step: int, seconds: float, config: TrainConfig) -> float:
    """Share of the training that is done: by steps, or by time where that comes first."""
    by_time = seconds / config.time_limit if config.time_limit else 0.0
    return min(1.0, max(step / config.steps, by_time))
