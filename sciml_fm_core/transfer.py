"""Pre-training and transfer: zero-shot, fine-tuning, training from scratch, and the learning-rate grid."""

from __future__ import annotations

import os
import platform
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeAlias

import torch
from torch import Tensor

from . import __version__
from .datasets import Batches, DatasetFile, FixedBatches, FreshBatches, draw_split, stream
from .distributed import ALONE, Processes
from .fno import FNO, SIZES, FNOConfig
from .metrics import relative_error
from .normalization import PaperNormalization, fit_normalization
from .operator import Operator, predict_together
from .spectral import check_finite
from .systems import System
from .tasks import PAPER_TASKS, Examples, Task
from .training import Callback, History, Member, TrainConfig, fit, fit_together

PAPER_LEARNING_RATES = (1e-5, 5e-5, 1e-4, 5e-4, 1e-3)
"""The paper's grid; one is chosen on validation for every model, dataset size and start."""

MAP_POINTS = 2**21
"""Grid points of the solutions that `error_map` holds at once."""

HALVE_AT = (0.15, 0.4)
"""Where a grid is halved: five rates cost as many steps as 2.6 trained to the end."""


@dataclass(frozen=True)
class Recipe:
    """How an operator is built and trained."""

    normalization: str
    gate_width: int
    loss: str
    learning_rate: float
    batch_size: int
    warmup: int = 0


RECIPES = {
    "ours": Recipe("dimensionless", 128, "relative", 5e-3, 32, warmup=20),
    "paper": Recipe("paper", 0, "squared", 1e-3, 128),
}
"""``paper`` reproduces the study; ``ours`` is what ships: scale-free inputs, bounded gates, relative loss."""


def recipe_of(operator: Operator) -> Recipe:
    """The recipe an operator was made by; ours where its card names none that is known."""
    return RECIPES.get(operator.card.get("recipe", ""), RECIPES["ours"])


def new_operator(
    tasks: Sequence[Task], *, recipe: str = "ours", size: str = "1M", seed: int = 0, device: str | torch.device = "cpu"
) -> Operator:
    """Untrained operator for tasks.

    Raises:
        ValueError: on an unknown recipe or size.
    """
    chosen = _choose("recipe", RECIPES, recipe)
    normalization = fit_normalization(chosen.normalization, list(tasks), seed=seed)
    config = FNOConfig(normalization.in_channels, gate_width=chosen.gate_width, **_choose("size", SIZES, size))
    operator = Operator(FNO(config, stream(seed, "weights")), normalization)
    operator.card = {"tasks": [task.label for task in tasks], "recipe": recipe, "size": size, "seed": seed}
    return operator.to(device)


def _choose(what: str, table: Mapping, name: str):
    if name not in table:
        raise ValueError(f"{what}: expected one of {', '.join(table)}, got {name!r}")
    return table[name]


def pretrain(
    tasks: Sequence[Task],
    config: TrainConfig | None = None,
    *,
    recipe: str = "ours",
    size: str = "1M",
    seed: int = 0,
    batch_size: int | None = None,
    resolution: int | Mapping[float, int] = 64,
    data: Sequence[DatasetFile] = (),
    validation_count: int = 256,
    device: str | torch.device = "cpu",
    callback: Callback | None = None,
    checkpoint: str | Path | None = None,
    processes: Processes = ALONE,
) -> tuple[Operator, History]:
    """Train an operator for one or several tasks, on fresh examples or on files.

    Args:
        tasks: what to learn; several make a mixed operator.
        config: how to train; the recipe's learning rate, loss and warmup with the default steps where None.
        recipe: a key of `RECIPES`.
        size: a key of `fno.SIZES`.
        seed: seed of the weights and of the examples.
        batch_size: the recipe's where None.
        resolution: of fresh examples; a number or a schedule, see `FreshBatches`.
        data: dataset files to train on instead of fresh examples, one for each task.
        validation_count: validation examples for each task, from their own stream, at the last resolution.
        device: where to train.
        callback, checkpoint: as in `fit`.
        processes: several that call this together and share each batch, see `distributed.started_by_torchrun`.

    Returns:
        The operator, with its card, and the history.

    Raises:
        ValueError: on unknown names, files that do not belong to the tasks, or a batch size (or number of examples in
            the files) that is no multiple of the number of processes.
    """
    chosen = _choose("recipe", RECIPES, recipe)
    config = config or replace(TrainConfig(), **recipe_settings(recipe))
    operator = new_operator(tasks, recipe=recipe, size=size, seed=seed, device=device)
    batch_size = batch_size or chosen.batch_size
    last = data[0].resolution if data else resolution if isinstance(resolution, int) else list(resolution.values())[-1]
    batches: Batches
    share = processes.rank, processes.count
    if data:
        if [file.system.name for file in data] != [task.system.name for task in tasks]:
            raise ValueError("pretrain: expected one dataset file for each task, of its system, in the same order")
        sets = [(file.system, file) for file in data]
        batches = FixedBatches(sets, batch_size, seed=seed, device=device, share=share)
    else:
        batches = FreshBatches(tasks, batch_size, resolution=resolution, seed=seed, device=device, share=share)
    held_out = validation_sets(tasks, validation_count, seed=seed, resolution=last, device=device)
    history = fit(
        operator,
        batches,
        config,
        validation=held_out,
        callback=callback,
        checkpoint=checkpoint,
        processes=processes,
    )
    operator.card |= {
        "kind": "pre-trained",
        "batch_size": batch_size,
        "resolution": resolution if isinstance(resolution, int) else {str(k): v for k, v in resolution.items()},
        "data": [file.path.name for file in data] or "fresh examples",
        "learning_rate": config.learning_rate,
        "loss": config.loss,
        "precision": config.precision,
        **training_card(history, operator),
    }
    if processes.count > 1:
        operator.card["hardware"] = f"{processes.count} x {operator.card['hardware']}"
    return operator, history


def recipe_settings(recipe: str) -> dict:
    """The fields of `TrainConfig` that a recipe sets."""
    chosen = _choose("recipe", RECIPES, recipe)
    return {"loss": chosen.loss, "learning_rate": chosen.learning_rate, "warmup": chosen.warmup}


def training_card(history: History, operator: Operator) -> dict:
    """What a card records of a training: cost, hardware, versions, learning curve."""
    return {
        "examples_seen": history.examples_seen,
        "seconds": round(history.seconds, 1),
        "best_validation_error": history.best_error,
        "parameters": operator.model.parameter_count,
        "hardware": hardware(operator.device),
        "versions": {"sciml_fm": __version__, "torch": torch.__version__.split("+")[0]},
        "curve": [[row["step"], round(row["validation_error"], 6)] for row in history.rows if row["validation_error"]],
    }


def hardware(device: torch.device) -> str:
    """The device in words, with the threads that were used on a CPU."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    name = platform.processor() or platform.machine()
    if os.path.exists("/proc/cpuinfo"):
        with open("/proc/cpuinfo", encoding="utf-8") as file:
            name = next((line.split(":")[1].strip() for line in file if line.startswith("model name")), name)
    return f"CPU, {name}, {torch.get_num_threads()} threads"


def validation_sets(tasks, count: int, *, seed: int = 0, resolution: int = 64, device="cpu"):
    """Validation examples of each task, from the validation stream."""
    return [
        (task.system, draw_split(task, "validation", count, seed=seed, resolution=resolution).to(device))
        for task in tasks
    ]


def evaluate(
    operator: Operator, task: Task, *, count: int = 512, resolution: int = 128, seed: int = 0
) -> dict[str, Any]:
    """Errors on freshly drawn test examples (zero-shot where the operator has not seen the task).

    Returns:
        ``error`` (the mean relative error mu), ``median``, ``percentile_90``, ``worst``, and what was tested.

    Raises:
        ValueError: if the operator was not trained for the task's system.
    """
    system = operator.normalization.resolve(task.system)
    test = draw_split(task, "test", count, seed=seed, resolution=resolution)
    error = relative_error(operator.predict(test.source, test.coefficients, system), test.solution).double()
    return {
        "task": task.label,
        "error": error.mean().item(),
        "median": error.median().item(),
        "percentile_90": error.quantile(0.9).item(),
        "worst": error.max().item(),
        "examples": count,
        "resolution": resolution,
        "seed": seed,
    }


def evaluate_shifts(operator: Operator, *, count: int = 512, resolution: int = 128, seed: int = 0) -> dict[str, float]:
    """Mean relative error on the operator's own tasks, and on each of the paper's tasks of its systems."""
    labels = [*operator.card.get("tasks", [])]
    for system in operator.systems:
        labels += PAPER_TASKS.get(system.name, {}).values()
    return {
        label: evaluate(operator, Task.parse(label), count=count, resolution=resolution, seed=seed)["error"]
        for label in dict.fromkeys(labels)
    }


@torch.no_grad()
def error_map(
    operators: Sequence[Operator],
    source: Tensor,
    dial: Tensor,
    parameters: Tensor,
    system: System | str | None = None,
) -> Tensor:
    """Mean relative error of operators over some sources, at each of many values of the dial and the parameters.

    The error along the dial, or an atlas over two parameters. The coefficients and the exact solution of a point are
    found once for all operators, and many points are predicted in one batch.

    Args:
        operators: what to compare; they know the system.
        source: sources that every point is measured on, shape (s, n, n).
        dial: value of the dial of each point, shape (points,).
        parameters: of ``system.parameters``, broadcast to (points, s, len(system.parameters)).
        system: the PDE, or its name; needed where an operator knows several.

    Returns:
        Errors, shape (operators, points), float64; NaN where a source cannot reach the value of the dial.

    Raises:
        ValueError: on wrong shapes or values that are not finite, or if an operator was not trained for the system.
    """
    if not operators or source.ndim != 3 or dial.ndim != 1 or not len(source):
        raise ValueError(
            "error map: expected at least one operator, sources (s, n, n) and dial values (points,), "
            f"got {len(operators)}, {tuple(source.shape)} and {tuple(dial.shape)}"
        )
    known = operators[0].normalization.resolve(system)
    for name, values in (("source", source), ("dial", dial), ("parameters", parameters)):
        check_finite(values, name)
    wanted = len(dial), len(source), len(known.parameters)
    try:
        parameters = parameters.double().expand(wanted)
    except RuntimeError:
        raise ValueError(f"parameters: expected to broadcast to {wanted}, got {tuple(parameters.shape)}") from None
    errors = torch.full((len(operators), len(dial)), torch.nan, dtype=torch.float64)
    alike: dict[FNOConfig, list[int]] = {}
    for number, operator in enumerate(operators):
        alike.setdefault(operator.model.config, []).append(number)

    def measure(points: Tensor) -> None:
        values = dial.double()[points, None].expand(-1, len(source))
        try:
            coefficients = known.coefficients(values, source, parameters[points]).to(source.dtype)
        except ValueError:  # a source cannot reach one of the values
            for point in points.split(1) if len(points) > 1 else ():
                measure(point)
            return
        solution = known.solve(source, coefficients)
        for numbers in alike.values():
            predictions = predict_together([operators[number] for number in numbers], source, coefficients, known)
            found = relative_error(predictions, solution.expand_as(predictions))
            errors[torch.tensor(numbers)[:, None], points] = found.mean(dim=-1).double().cpu()

    for points in torch.arange(len(dial)).split(max(1, MAP_POINTS // source.numel())):
        measure(points)
    return errors


@dataclass
class Adaptation:
    """An adapted operator and how it came about; ``tried`` maps each learning rate to its validation
    error, None where it diverged or nothing was validated."""

    operator: Operator
    history: History
    learning_rate: float
    tried: dict[float, float | None]


Data: TypeAlias = Examples | DatasetFile


def fine_tune(
    operator: Operator,
    data: Data,
    *,
    system: System | str | None = None,
    validation: Examples | None = None,
    config: TrainConfig | None = None,
    learning_rates: Sequence[float] | None = None,
    halve_at: Sequence[float] = HALVE_AT,
    batch_size: int = 128,
    resolution: int | Mapping[float, int] | None = None,
    seed: int = 0,
    callback: Callback | None = None,
    checkpoint: str | Path | None = None,
) -> Adaptation:
    """Continue the training of all weights on downstream examples; the operator given is not changed.

    The pre-trained normalisation is kept. With several learning rates each is tried and the best on validation kept.

    Args:
        operator: the pre-trained operator.
        data: downstream examples, in memory or a file.
        system: which system they belong to, for an operator of several.
        validation: examples on which weights and learning rate are chosen; without them the last weights are kept.
        config: how to train; by default the recipe's loss with `ADAPT_LEARNING_RATE` and 200 steps.
        learning_rates: grid to try instead of the learning rate of `config`, all at once in one batched training.
        halve_at: fractions of the training at which the worse half of the grid is dropped; () to train all to the end.
        batch_size: at most; with no more examples than that, every step sees all of them.
        resolution: points to train on, or a schedule of them, see `FixedBatches`; the data's own where None.
        seed: seed of the shuffling.
        callback, checkpoint: as in `fit`.

    Raises:
        ValueError: if the operator does not know the system, or several rates are given without validation.
    """
    resolved = operator.normalization.resolve(_system_of(data, system))
    batches = FixedBatches([(resolved, data)], batch_size, resolution=resolution, seed=seed, device=operator.device)
    return _adapt(operator.copy, batches, validation, config, learning_rates, halve_at, callback, checkpoint)


def train_from_scratch(
    operator: Operator,
    data: Data,
    *,
    system: System | str | None = None,
    validation: Examples | None = None,
    config: TrainConfig | None = None,
    learning_rates: Sequence[float] | None = None,
    halve_at: Sequence[float] = HALVE_AT,
    batch_size: int = 128,
    resolution: int | Mapping[float, int] | None = None,
    seed: int = 0,
    callback: Callback | None = None,
    checkpoint: str | Path | None = None,
) -> Adaptation:
    """The twin of `fine_tune` that starts from random weights: same network, same examples, same steps.

    Arguments as in `fine_tune`. The paper's normalisation takes its medians from the downstream examples themselves;
    the dimensionless one has none.
    """
    resolved = operator.normalization.resolve(_system_of(data, system))
    sample = data if isinstance(data, Examples) else data.take(slice(0, min(data.size, 4096)))

    def fresh() -> Operator:
        normalization = operator.normalization
        if isinstance(normalization, PaperNormalization) and len(normalization.systems) == 1:
            normalization = PaperNormalization.fit([(resolved, sample)])
        model = FNO(operator.model.config, stream(seed, "scratch")).to(operator.device)
        return Operator(model, normalization, {**operator.card, "kind": "from scratch"})

    batches = FixedBatches([(resolved, data)], batch_size, resolution=resolution, seed=seed, device=operator.device)
    return _adapt(fresh, batches, validation, config, learning_rates, halve_at, callback, checkpoint)


ADAPT_LEARNING_RATE = 1e-3


def _system_of(data: Data, system: System | str | None) -> System | str | None:
    return data.system if system is None and isinstance(data, DatasetFile) else system


def _adapt(
    start: Callable[[], Operator],
    batches: FixedBatches,
    validation: Examples | None,
    config: TrainConfig | None,
    learning_rates: Sequence[float] | None,
    halve_at: Sequence[float],
    callback: Callback | None,
    checkpoint: str | Path | None,
) -> Adaptation:
    first, ((system, _),) = start(), batches.sets
    if config is None:
        loss = recipe_of(first).loss
        config = TrainConfig(steps=200, learning_rate=ADAPT_LEARNING_RATE, loss=loss, validate_every=10)
    rates = list(learning_rates or [config.learning_rate])
    if len(rates) > 1 and validation is None:
        raise ValueError("learning rates: choosing among several needs validation examples; pass validation=...")
    operators = [first, *(start() for _ in rates[1:])]
    members = [Member(operator, rate) for operator, rate in zip(operators, rates, strict=True)]
    held_out = [] if validation is None else [(system, validation.to(first.device))]
    halve_at = halve_at if len(rates) > 1 else ()
    fit_together(
        members,
        batches,
        config,
        halve_at=halve_at,
        validation=held_out,
        callback=callback,
        checkpoint=checkpoint,
    )
    chosen = min((member for member in members if member.status != "diverged"), key=lambda member: member.score)
    operator = chosen.operator
    operator.card = {
        **operator.card,
        "kind": operator.card.get("kind") if operator.card.get("kind") == "from scratch" else "fine-tuned",
        "parent": {key: operator.card.get(key) for key in ("tasks", "recipe", "size", "seed", "examples_seen")},
        "downstream_examples": batches.count,
        "learning_rate": chosen.learning_rate,
        **training_card(chosen.history, operator),
    }
    tried = {m.learning_rate: None if m.status == "diverged" else m.history.best_error for m in members}
    return Adaptation(operator, chosen.history, chosen.learning_rate, tried)
