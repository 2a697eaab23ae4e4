"""The training loop, for pre-training and adaptation, on files or fresh examples, on CPU or CUDA."""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

import torch
from torch import Tensor

from sciml_fm_core.data.batches import Batches
from sciml_fm_core.evaluation.metrics import relative_error
from sciml_fm_core.models.normalization import Encoded
from sciml_fm_core.models.operator import Operator, encode_together, predict_together
from sciml_fm_core.physics.examples import Examples
from sciml_fm_core.physics.system import System

from .checkpoints import load_checkpoint, save_checkpoint
from .config import Callback, History, Progress, TrainConfig
from .distributed import ALONE, Processes
from .losses import training_loss
from .member import Member
from .precision import products_in, trained_network


def mean_errors(operators: Sequence[Operator], sets: Sequence[tuple[System, Examples]]) -> list[float]:
    """The paper's metric mu of each operator: mean relative error over all examples of all sets."""
    errors = []
    for system, examples in sets:
        predictions = predict_together(operators, examples.source, examples.coefficients, system)
        errors.append(relative_error(predictions, examples.solution.expand_as(predictions)).cpu())
    return torch.cat(errors, dim=1).mean(dim=1).tolist()


def mean_error(operator: Operator, sets: Sequence[tuple[System, Examples]]) -> float:
    """`mean_errors` of one operator."""
    return mean_errors([operator], sets)[0]


def fit(
    operator: Operator,
    data: Batches,
    config: TrainConfig,
    *,
    validation: Sequence[tuple[System, Examples]] = (),
    callback: Callback | None = None,
    checkpoint: str | Path | None = None,
    processes: Processes = ALONE,
) -> History:
    """Train an operator in place with Adam and cosine decay; it ends with the weights of lowest validation error.

    A run is a function of the seeds, the configuration and the number of threads: resumed from a checkpoint it ends
    with the same bytes as uninterrupted (except where a time limit decides when it ends).

    Args:
        operator: what to train, on the device it is on.
        data: `FreshBatches` or `FixedBatches`, on the same device.
        config: how to train.
        validation: examples on which the weights are chosen; never the test set.
        callback: the one hook: progress bars, live plots, cancelling.
        checkpoint: file to keep the state of the training in; where it exists, training goes on from it.
        processes: several that call this together, each with its share of the data: they take the steps that one
            would take with all of it (to rounding), and end with the same weights. The first one's callback counts.

    Raises:
        ValueError: if the checkpoint belongs to another training, or is not the same for all processes.
        FloatingPointError: if the loss stops being finite.
    """
    member = Member(operator, config.learning_rate)
    fit_together(
        [member],
        data,
        config,
        validation=validation,
        callback=callback,
        checkpoint=checkpoint,
        processes=processes,
    )
    return member.history


def fit_together(
    members: Sequence[Member],
    data: Batches | None,
    config: TrainConfig,
    *,
    halve_at: Sequence[float] = (),
    validation: Sequence[tuple[System, Examples]] = (),
    callback: Callback | None = None,
    checkpoint: str | Path | None = None,
    processes: Processes = ALONE,
) -> None:
    """Train several operators as one batched training: learning rates, seeds, or a start and its twin.

    Each member takes exactly the steps it would take alone (to rounding), with its own learning rate; what the members
    share (examples, transforms, one solve for all their errors) is done once. With ``halve_at``, the worse half on
    validation is dropped at those fractions of the training (successive halving: Jamieson & Talwalkar,
    arXiv:1502.07943); a dropped member keeps its best weights so far.

    Args:
        members: what to train, in place.
        data: batches for every member that has none of its own.
        config: how to train; its learning rate is not used.
        halve_at: fractions in (0, 1); needs validation examples.
        validation, checkpoint: as in `fit`; the checkpoint holds all members.
        callback: gets the progress of the member that leads on validation, or of the first.
        processes: as in `fit`, for one member only.

    Raises:
        ValueError: if the checkpoint belongs to another training or is not the same for all processes, halving lacks
            validation examples, or several processes are to train several members.
        FloatingPointError: if every member's loss stops being finite; where some do, those are dropped.
    """
    if halve_at and not validation:
        raise ValueError("halving: needs validation examples to halve on; pass validation=...")
    if processes.count > 1 and len(members) > 1:
        raise ValueError(f"several processes: expected one operator to train, got {len(members)}; use one process")
    groups = [{"params": list(m.operator.model.parameters()), "lr": m.learning_rate} for m in members]
    optimizer = torch.optim.Adam(groups, fused=True)
    settings = {"config": asdict(config), "halve_at": list(halve_at)}
    step = 0
    if checkpoint is not None and Path(checkpoint).exists():
        step = load_checkpoint(Path(checkpoint), members, optimizer, settings)
    network = trained_network(config, members[0].operator)
    resumed = time.perf_counter()
    started = resumed - max(member.history.seconds for member in members)
    if processes.mean(torch.tensor(step, dtype=torch.float64)) != step:
        raise ValueError(f"checkpoint {checkpoint}: not the same for all processes; put it where each can read it")
    (seconds,) = processes.agreed([resumed - started])
    progress = _fraction(step, seconds, config)
    apply = processes.applied([member.operator.model for member in members])
    seen, stopped = 0, False
    active = [member for member in members if member.status == "training"]
    errors: list[float | None] = [None] * len(active)  # of the last validation, if it was not reported yet
    for member in members:
        member.operator.model.train()

    while progress < 1 and not stopped:
        factor = 0.5 * (1 + math.cos(math.pi * progress)) * min(1.0, (step + 1) / (config.warmup + 1))
        for member, group in zip(members, optimizer.param_groups, strict=True):
            group["lr"] = member.learning_rate * factor
        encoded, solution = _batch(active, data, step, progress)
        models = [member.operator.model for member in active]
        optimizer.zero_grad(set_to_none=True)  # a member that is dropped has no gradient, and Adam leaves it alone
        with products_in(config.precision):
            predictions = encoded.decode(apply(models, encoded.field, encoded.constants, network))
            losses = training_loss(predictions, solution, config.loss)
            losses.sum().backward()
        optimizer.step()
        examples, losses = predictions.shape[1], losses.detach()
        del predictions  # and the graph with it: the next step takes over its memory

        step += 1
        seconds = time.perf_counter() - started
        if config.time_limit:
            (seconds,) = processes.agreed([seconds])
        before, progress = progress, _fraction(step, seconds, config)
        last = progress >= 1
        halving = len(active) > 1 and any(before < fraction <= progress < 1 for fraction in halve_at)
        for member in active:
            member.history.examples_seen += examples * processes.count
            member.history.seconds = seconds
        seen += len(active) * examples * processes.count
        if validation and (last or halving or step % config.validate_every == 0):
            measured = [math.nan] * len(active)
            if processes.first:
                measured = mean_errors([member.operator for member in active], validation)
            measured = processes.agreed(measured)
            for member, validated in zip(active, measured, strict=True):
                member.keep_best(validated, step)
            errors = [*measured]
        if last or halving or step % config.report_every == 0:
            losses = processes.mean(losses)
            for member, loss, error in zip(active, losses.tolist(), errors, strict=True):
                row = {"step": step, "loss": loss, "validation_error": error}
                row |= {"learning_rate": member.learning_rate * factor, "seconds": round(seconds, 3)}
                member.history.rows.append(row)
                if not math.isfinite(loss):
                    member.status = "diverged"
            kept = [member for member in active if member.status == "training"]
            if not kept:
                loss, rates = losses[0].item(), ", ".join(f"{member.learning_rate:g}" for member in active)
                raise FloatingPointError(
                    f"training: the loss is {loss} at step {step}; lower the learning rate ({rates})"
                )
            if halving:
                for member in sorted(kept, key=lambda m: m.score)[-(-len(kept) // 2) :]:
                    member.status = "dropped"
                kept = [member for member in kept if member.status == "training"]
            if callback is not None and processes.first:
                row = min(kept, key=lambda m: m.score).history.rows[-1]
                speed, left = seen / max(time.perf_counter() - resumed, 1e-9), seconds * (1 - progress) / progress
                shown = row["loss"], row["validation_error"], row["learning_rate"]
                stopped = bool(callback(Progress(step, config.steps, progress, *shown, speed, left)))
            stopped = bool(processes.agreed([stopped])[0])
            active, errors = kept, [None] * len(kept)
        for member in active:
            member.history.stopped = stopped
        save = last or stopped or step % config.checkpoint_every == 0
        if checkpoint is not None and processes.first and save:
            save_checkpoint(Path(checkpoint), members, optimizer, settings, step)
    for member in members:
        if member.status == "training" and not stopped:
            member.status = "finished"
        if member.best is not None:
            member.operator.model.load_state_dict(member.best)
        member.operator.model.eval()


def _batch(members: list[Member], data: Batches | None, step: int, progress: float) -> tuple[Encoded, Tensor]:
    """Inputs and solutions of a step: made once where the members share their data, else (members, batch, ...)."""

    def parts_of(batches: Batches | None) -> list[tuple[System, Examples]]:
        if batches is None:
            raise ValueError("fit together: expected data for all members, or for each")
        return batches.batch(step, progress)

    def encode(those: list[Member], parts: list[tuple[System, Examples]]) -> tuple[Tensor, ...]:
        inputs = [(system, examples.source, examples.coefficients) for system, examples in parts]
        solution = torch.cat([examples.solution for _, examples in parts])
        return *encode_together([member.operator for member in those], inputs), solution

    if all(member.data is None for member in members):
        *encoded, solution = encode(members, parts_of(data))
    else:
        rows = [encode([member], parts_of(member.data or data)) for member in members]
        *encoded, solution = (torch.stack(tensors) for tensors in zip(*rows, strict=True))
    return Encoded(*encoded), solution


def _fraction(step: int, seconds: float, config: TrainConfig) -> float:
    """How much of the training is done: by steps, or by time where that comes first."""
    by_time = seconds / config.time_limit if config.time_limit else 0.0
    return min(1.0, max(step / config.steps, by_time))
