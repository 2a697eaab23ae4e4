"""Training: one loop for pre-training and adaptation, on fixed files or fresh examples, on CPU or CUDA."""

from __future__ import annotations

import json
import math
import shutil
import sysconfig
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import NamedTuple

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from .datasets import Batches
from .distributed import ALONE, Processes
from .files import atomic_path, save_tensors
from .fno import FNO, network_of
from .metrics import relative_error
from .normalization import Encoded
from .operator import Operator, encode_together, predict_together
from .systems import System
from .tasks import Examples

LOSSES = ("relative", "squared")
PRECISIONS = ("float32", "tf32", "bfloat16")

COMPILE_STEPS = 5000
"""Steps from which a training on a GPU is compiled, where `TrainConfig.compile` leaves it to the rule. On two CPU cores
torch.compile takes 12 to 16 s, and its code is somewhat faster than the fused form at 64 x 64 and slower at 128 x 128
(``benchmarks/README.md``), so the rule never compiles there."""

GRAPH_PARAMETERS = 4 * 10**6
"""Parameters up to which a compiled network is replayed as a CUDA graph: small networks wait for kernel launches."""
CHECKPOINT_FORMAT = "sciml-fm checkpoint"


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
        compile: compile the network with torch.compile (needs a C compiler), as a CUDA graph where it is small. Where
            None, by rule: on a GPU with a C compiler, from `COMPILE_STEPS` steps on, without a time limit; never on a
            CPU or in a few-shot run of seconds.
        precision: of the steps; validation and what is saved are float32. ``tf32`` rounds the factors of every product
            to 10 bits on a GPU that has TF32; ``bfloat16`` those of the pointwise products of hidden channels to 7, and
            their results, and keeps transforms and modes in float32.
    """

    steps: int = 1000
    learning_rate: float = 2e-3
    loss: str = "relative"
    warmup: int = 0
    validate_every: int = 100
    report_every: int = 10
    time_limit: float | None = None
    checkpoint_every: int = 500
    compile: bool | None = None
    precision: str = "float32"

    def __post_init__(self):
        if self.precision not in PRECISIONS:
            raise ValueError(f"precision: expected one of {', '.join(PRECISIONS)}, got {self.precision!r}")
        if self.loss not in LOSSES:
            raise ValueError(f"loss: expected one of {', '.join(LOSSES)}, got {self.loss!r}")
        if self.steps < 1 or min(self.validate_every, self.report_every, self.checkpoint_every) < 1:
            raise ValueError("TrainConfig: expected steps and intervals of at least 1")
        if not (self.learning_rate > 0 and math.isfinite(self.learning_rate)):
            raise ValueError(f"learning_rate: expected a finite number above 0, got {self.learning_rate}")
        if self.time_limit is not None and self.time_limit <= 0:
            raise ValueError(f"time_limit: expected seconds above 0, got {self.time_limit}")


class CheckpointError(ValueError):
    """A checkpoint that cannot be gone on from: damaged, or of another training."""


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
    """``relative`` or ``squared`` loss of a batch (..., batch, n, n), shape (...)."""
    if loss == "relative":
        return relative_error(prediction, solution.expand_as(prediction)).mean(dim=-1)
    return (prediction - solution).square().sum(dim=(-2, -1)).mean(dim=-1)


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


@dataclass
class Member:
    """One of several operators trained together, and what became of it.

    Attributes:
        operator: trained in place; all members' networks have the same shape.
        learning_rate: its own.
        data: its own batches, as large as the others'; those of `fit_together` where None.
        history: filled in as it is trained.
        status: ``training``, then ``finished``, ``dropped`` (halved away, see `fit_together`) or ``diverged``.
    """

    operator: Operator
    learning_rate: float
    data: Batches | None = None
    history: History = field(default_factory=History)
    status: str = "training"
    best: dict[str, Tensor] | None = None

    def keep_best(self, error: float, step: int) -> None:
        """Keep the weights of the lowest validation error."""
        if math.isfinite(error) and error < self.score:
            self.history.best_error, self.history.best_step = error, step
            self.best = {key: value.detach().clone() for key, value in self.operator.model.state_dict().items()}

    @property
    def score(self) -> float:
        """Lowest validation error so far; infinity before the first."""
        return math.inf if self.history.best_error is None else self.history.best_error


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
        step = _load_checkpoint(Path(checkpoint), members, optimizer, settings)
    network = _network(config, members[0].operator)
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
        with _products_in(config.precision):
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
            _save_checkpoint(Path(checkpoint), members, optimizer, settings, step)
    for member in members:
        if member.status == "training" and not stopped:
            member.status = "finished"
        if member.best is not None:
            member.operator.model.load_state_dict(member.best)
        member.operator.model.eval()


def compiles(config: TrainConfig, device: torch.device) -> bool:
    """Whether a training compiles its network: as asked, else by the rule of `TrainConfig.compile`."""
    if config.compile is not None:
        return config.compile
    if config.precision == "tf32":  # Inductor of some versions of PyTorch reads the older setting of TF32, and fails
        return False
    long = config.time_limit is None and config.steps >= COMPILE_STEPS
    return long and device.type == "cuda" and _has_compiler(device)


def _has_compiler(device: torch.device) -> bool:
    """Whether there is what torch.compile needs on a GPU: Triton, a C compiler with Python's headers, a recent GPU."""
    headers = Path(sysconfig.get_paths()["include"]) / "Python.h"
    tools = find_spec("triton") is not None and shutil.which("cc") is not None and headers.is_file()
    return tools and torch.cuda.get_device_capability(device) >= (7, 0)


def _network(config: TrainConfig, operator: Operator) -> Callable[..., Tensor]:
    """The network as it is trained: with the pointwise precision asked for, and compiled where that pays."""
    network: Callable[..., Tensor] = network_of
    if config.precision == "bfloat16":
        network = partial(network_of, pointwise=torch.bfloat16)
    if config.precision == "tf32" and operator.device.type == "cpu":
        raise ValueError("precision: expected a CUDA GPU for tf32, got a CPU; use float32")
    return compiled(network, operator.model) if compiles(config, operator.device) else network


def compiled(network: Callable[..., Tensor], model: FNO) -> Callable[..., Tensor]:
    """`network_of`, or a form of it, under torch.compile: on a GPU as a CUDA graph where the model is small."""
    graph = next(model.parameters()).is_cuda and model.parameter_count <= GRAPH_PARAMETERS
    return torch.compile(network, dynamic=False, mode="reduce-overhead" if graph else None)


@contextmanager
def _products_in(precision: str) -> Iterator[None]:
    """Let CUDA use TF32 for the products inside, where that is asked for."""
    if precision != "tf32":
        yield
        return
    settings = torch.backends.cuda.matmul
    before, settings.fp32_precision = settings.fp32_precision, "tf32"
    try:
        yield
    finally:
        settings.fp32_precision = before


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


def _save_checkpoint(path: Path, members: Sequence[Member], optimizer, settings: dict, step: int) -> None:
    tensors: dict[str, Tensor] = {}
    states = []
    for number, member in enumerate(members):
        weights = {"model": member.operator.model.state_dict(), "best": member.best or {}}
        tensors |= {f"{number}.{kind}.{key}": value for kind, state in weights.items() for key, value in state.items()}
        history = asdict(member.history) | {"stopped": False}
        states.append({"learning_rate": member.learning_rate, "status": member.status, "history": history})
    for index, state in optimizer.state_dict()["state"].items():
        tensors |= {f"optimizer.{index}.{key}": torch.as_tensor(value) for key, value in state.items()}
    header = {
        "format": CHECKPOINT_FORMAT,
        "model": members[0].operator.model.config.to_dict(),
        **settings,
        "members": states,
        "step": step,
    }
    with atomic_path(path) as partial:
        save_tensors({key: value.detach().cpu() for key, value in tensors.items()}, partial, header)


def _load_checkpoint(path: Path, members: Sequence[Member], optimizer, settings: dict) -> int:
    try:
        with safe_open(path, framework="pt") as file:
            header = json.loads((file.metadata() or {}).get("header", "{}"))
            tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
    except (SafetensorError, OSError, ValueError) as error:
        raise CheckpointError(f"checkpoint {path}: not readable ({error}); remove it to start again") from error
    same = all(header.get(key) == value for key, value in settings.items())
    same = same and header.get("model") == members[0].operator.model.config.to_dict()
    rates = [state["learning_rate"] for state in header.get("members", [])]
    if header.get("format") != CHECKPOINT_FORMAT or not same or rates != [m.learning_rate for m in members]:
        raise CheckpointError(
            f"checkpoint {path}: belongs to a training with other settings; remove it or use another name"
        )

    def group(prefix: str) -> dict[str, Tensor]:
        return {key.removeprefix(prefix): value for key, value in tensors.items() if key.startswith(prefix)}

    for number, (member, state) in enumerate(zip(members, header["members"], strict=True)):
        member.operator.model.load_state_dict(group(f"{number}.model."))
        member.best = {key: value.to(member.operator.device) for key, value in group(f"{number}.best.").items()} or None
        member.history, member.status = History(**state["history"]), state["status"]
    moments: dict[int, dict[str, Tensor]] = {}
    for key, value in group("optimizer.").items():
        index, name = key.split(".")
        moments.setdefault(int(index), {})[name] = value
    optimizer.load_state_dict({"state": moments, "param_groups": optimizer.state_dict()["param_groups"]})
    return header["step"]
