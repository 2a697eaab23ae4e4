"""Pre-training and transfer: zero-shot, fine-tuning, training from scratch, and the learning-rate grid."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any, cast

import torch

from sciml_fm_core.data.batches import Batches, FixedBatches, FreshBatches, TurnedBatches
from sciml_fm_core.data.given import (
    Data,
    Reader,
    check_task,
    described,
    file_of,
    hold_out,
    open_data,
    sample,
    with_system,
)
from sciml_fm_core.data.rollouts import FixedTrajectories, FreshTrajectories, Unrolled
from sciml_fm_core.data.splits import stream
from sciml_fm_core.evaluation.errors import validation_sets
from sciml_fm_core.evaluation.metrics import has_size
from sciml_fm_core.models.base import find_model
from sciml_fm_core.models.fno import FNO, FNOConfig
from sciml_fm_core.models.normalization import (
    FieldsNormalization,
    PaperNormalization,
    StepNormalization,
    fit_normalization,
)
from sciml_fm_core.models.operator import Operator, load_operator
from sciml_fm_core.physics.examples import Examples
from sciml_fm_core.physics.spectral import Resolution
from sciml_fm_core.physics.spectral_system import is_spectral
from sciml_fm_core.physics.system import System
from sciml_fm_core.physics.tasks import Task
from sciml_fm_core.physics.trajectories import Trajectories, draw_trajectories
from sciml_fm_core.schema import takes_numpy

from .cards import training_card
from .config import Callback, History, TrainConfig
from .distributed import ALONE, Processes
from .loop import fit, fit_together
from .losses import check_kept, mean_losses
from .member import Member
from .recipes import completed, find_recipe, recipe_of
from .unlabelled import unlabelled_config, unlabelled_data


@takes_numpy
def new_operator(
    tasks: Sequence[Task],
    *,
    recipe: str = "dimensionless",
    architecture: str = "fno",
    size: str = "1M",
    seed: int = 0,
    device: str | torch.device = "cpu",
    inputs_for: Sequence[Task] = (),
    examples: Sequence[tuple[System, Examples]] = (),
    **shape: Any,
) -> Operator:
    """Untrained operator for tasks.

    With `inputs_for` it has input channels for the coefficients of further tasks too, scaled to their values: a network
    that is told coefficients can later take those of an equation that it was not trained on. The normalisation is
    fitted on ``examples`` of the tasks, or on freshly drawn ones where there are none; without tasks, the examples say
    what it is for. The size ``auto`` fits the network to the grid of the examples; ``shape`` are further fields of the
    network's config, such as a ``margin``.

    >>> new_operator([Task.parse("SYS-1(1,5)")], size="64K").model.parameter_count
    109073

    Raises:
        ValueError: on an unknown recipe, architecture or size.
    """
    chosen, model = find_recipe(recipe), find_model(architecture)
    sized = model.sized(size, [given.resolution for _, given in examples])
    drawn = [*(() if examples else tasks), *inputs_for]
    normalization = fit_normalization(chosen.normalization, drawn, seed=seed, examples=examples, **chosen.options)
    if unknown := [name for name in shape if name not in {each.name for each in fields(model.config_type)}]:
        raise ValueError(f"{unknown[0]}: the architecture {architecture} has none; leave it out, or use fno")
    at_points = {"point_channels": normalization.point_channels} if issubclass(model, FNO) else {}
    config = model.config_type(
        normalization.in_channels,
        gate_width=chosen.gate_width if normalization.in_channels > 1 else 0,
        mode_channels=normalization.mode_channels,
        out_channels=normalization.out_channels,
        **{**sized, **at_points, **shape},
    )
    labels = [task.label for task in tasks]
    card = {"tasks": labels, "recipe": recipe, "architecture": architecture, "size": size, "seed": seed}
    return Operator(model.create(config, stream(seed, "weights")), normalization, card).to(device)


@takes_numpy
def pretrain(
    tasks: Sequence[Task] = (),
    config: TrainConfig | None = None,
    *,
    recipe: str | None = None,
    architecture: str = "fno",
    size: str = "1M",
    seed: int = 0,
    batch_size: int | None = None,
    resolution: Resolution | Mapping[float, Resolution] | None = None,
    data: Data | Sequence[Data] = (),
    validation: Data | Sequence[Data] = (),
    validation_count: int = 256,
    device: str | torch.device = "cpu",
    callback: Callback | None = None,
    checkpoint: str | Path | None = None,
    processes: Processes = ALONE,
    inputs_for: Sequence[Task] = (),
    start: Operator | str | Path | None = None,
    unrolled: Unrolled | None = None,
    **shape: Any,
) -> tuple[Operator, History]:
    """Train an operator for one or several tasks, on fresh examples or on given ones, in memory or in files.

    Args:
        tasks: what to learn; several make a mixed operator; none where given data of one file say all.
        config: how to train; what it leaves open is the recipe's.
        recipe: a key of `RECIPES`; where None, ``dimensionless``, or ``fields`` for a system without a symbol.
        architecture: a key of `MODELS`.
        size: a key of the architecture's `sizes`, or ``auto``: as the grid of the data allows.
        seed: seed of the weights, of fresh examples, and of what is held out of given ones.
        batch_size: the recipe's where None.
        resolution: points to train on; a number or a schedule, see `FreshBatches`. Where None, 64, or the grid of the
            data; given data are resampled to another one.
        data: examples to read again and again instead of fresh ones, a set for each task, see `open_data`. The
            normalisation is fitted on them, and the card says which they were.
        validation: examples to choose the weights by, a set for each task. Where there are none, some of the data are
            held out by the seed, or drawn from a stream of their own where there are no data.
        validation_count: validation examples for each task that are drawn, or held out: a fifth of the data at most,
            and 0 for none.
        device: where to train.
        callback, checkpoint: as in `fit`.
        processes: several that call this together and share each batch, see `distributed.started_by_torchrun`.
        inputs_for: further tasks whose coefficients it has inputs for, and none of whose examples it is trained on.
        start: an operator, or the name or file of one, whose weights are where the training begins, see `FNO.widened`;
            random ones where None.
        unrolled: how many steps evolutions are followed in training, with the recipe ``step``, see `Unrolled`.
        shape: further fields of the network's config, such as ``margin`` of `FNOConfig` for fields that are not
            periodic.

    Returns:
        The operator, with its card, and the history.

    Raises:
        ValueError: on unknown names, data that do not belong to the tasks, or a batch size (or number of examples) that
            is no multiple of the number of processes.
        FloatingPointError: if the loss stops being finite, or no validation error ever is.
    """
    sets, held_out = _of_tasks(data, tasks, "data"), _of_tasks(validation, tasks, "validation")
    systems = [task.system for task in tasks] or [file.system for one in sets if (file := file_of(one)) is not None]
    if not systems:
        raise ValueError("pre-training: expected a task, or data of a file, got neither")
    recipe = recipe or ("dimensionless" if is_spectral(systems[0]) else "fields")
    chosen = find_recipe(recipe)
    takes_steps = chosen.normalization == StepNormalization.kind
    if sets and not held_out and validation_count:
        parts = [hold_out(one, validation_count, seed=seed) for one in sets]
        held_out, sets = [part for part, _ in parts], [rest for _, rest in parts]
    operator = new_operator(
        tasks, recipe=recipe, architecture=architecture, size=size, seed=seed, device=device, inputs_for=inputs_for,
        **shape,
        examples=[(system, sample(one)) for system, one in zip(systems, sets, strict=False)],
    )  # fmt: skip
    if start is not None:
        begun = start if isinstance(start, Operator) else load_operator(start)
        operator = started(operator, begun)
        of_start = {key: value for key, value in begun.card.items() if key != "curve"}
        operator.card["start"] = of_start | {"digest": begun.digest}
    config = completed(config, operator)
    batch_size = chosen.batch_size if batch_size is None else batch_size
    if resolution is None and not sets:
        resolution = 64
    last = resolution[max(resolution)] if isinstance(resolution, Mapping) else resolution
    share = processes.rank, processes.world_size
    batches: Batches
    if sets:
        pairs = list(zip(systems, sets, strict=True))
        batches = FixedBatches(pairs, batch_size, resolution=resolution, seed=seed, device=device, share=share)
        check_kept(pairs, cast(str, config.loss), "data")
    elif takes_steps:
        batches = FreshTrajectories(
            tasks, batch_size, unrolled, resolution=resolution or 64, seed=seed, device=device, share=share
        )
    else:
        batches = FreshBatches(tasks, batch_size, resolution=resolution or 64, seed=seed, device=device, share=share)
    read = [one.take(slice(None)) for one in held_out]
    validated: list[tuple[System, Examples | Trajectories]]
    if held_out or sets:
        validated = [
            (system, (one if last is None else one.resampled(last)).to(device))
            for system, one in zip(systems, read, strict=False)
        ]
    elif takes_steps:
        validated = [
            (
                task.system,
                draw_trajectories(task, max(1, validation_count // 16), VALIDATION_STEPS, last or 64, streams),
            )
            for task in (tasks if validation_count else ())
            for streams in [stream(seed, "validation", task.label, device=device)]
        ]
    else:
        drawn = tasks if validation_count else []
        validated = [*validation_sets(drawn, validation_count, seed=seed, resolution=last or 64, device=device)]
    check_kept([(of, one) for of, one in validated if isinstance(one, Examples)], config.validation_loss, "validation")
    history = fit(
        operator,
        batches,
        config,
        validation=validated,
        callback=callback,
        checkpoint=checkpoint,
        processes=processes,
    )
    if validated and history.best_error is None:
        raise FloatingPointError("validation: the error was never finite; lower the learning rate")
    operator.card |= {
        "kind": "pre-trained",
        "batch_size": batch_size,
        "resolution": _plain_resolution(resolution, sets),
        "data": [described(one) for one in sets] or "fresh examples",
        "validation": [_about_validation(*both) for both in zip(held_out, read, strict=True)]
        or (_drawn_text(validated[0][1]) if validated else "none"),
        "learning_rate": config.learning_rate,
        "loss": config.loss,
        "precision": config.precision,
        **({"unrolled": batches.unrolled.described()} if isinstance(batches, FreshTrajectories) else {}),
        **training_card(history, operator),
    }
    if processes.world_size > 1:
        operator.card["hardware"] = f"{processes.world_size} x {operator.card['hardware']}"
    return operator, history


def started(operator: Operator, start: Operator) -> Operator:
    """An untrained operator with the weights of another: the same network, or one that has fewer fields.

    Raises:
        ValueError: if their networks differ otherwise, or the inputs of the start are no fields alone.
    """
    model, config = start.copy().model, operator.model.config
    fewer = model.config.in_channels <= config.in_channels and not start.normalization.channel_names
    if model.config != config and fewer and isinstance(model, FNO) and isinstance(config, FNOConfig):
        model = model.widened(config.in_channels, config.point_channels)
    if model.config != config:
        raise ValueError(
            f"start: expected an operator with the network {config}, or fewer fields of it, such as `symbol` for the "
            f"recipe correction; got {start.model.config}; choose another size, recipe or start"
        )
    return Operator(model, operator.normalization, operator.card).to(operator.device)


def _drawn_text(drawn: Examples | Trajectories) -> str:
    """What a card says of validation examples that were drawn, as many of each task."""
    what = f"trajectories of {drawn.steps} steps" if isinstance(drawn, Trajectories) else "examples"
    return f"{drawn.size} drawn {what} for each task"


def _of_tasks(data: Data | Sequence[Data], tasks: Sequence[Task], name: str) -> list[Reader]:
    """A set of given examples for each task, checked to be of it; none where there are no data, one without tasks."""
    each = [with_system(one, None)[0] for one in ([data] if isinstance(data, Data) else data)]
    if not tasks:
        readers = [open_data(one, name=name) for one in each]
        if len(readers) > 1 or not all(map(file_of, readers)):
            raise ValueError(f"{name}: expected one file where no task is named, got {len(readers)} sets")
        return readers
    if each and len(each) != len(tasks):
        raise ValueError(f"{name}: expected one set of examples for each task, {len(tasks)}, got {len(each)}")
    readers = [open_data(one, task.system, name) for one, task in zip(each, tasks, strict=False)]
    for reader, task in zip(readers, tasks, strict=False):
        check_task(reader, task)
    return readers


def _plain_resolution(
    resolution: Resolution | Mapping[float, Resolution] | None, sets: Sequence[Reader]
) -> Resolution | dict[str, Resolution]:
    if isinstance(resolution, Mapping):
        return {str(start): points for start, points in resolution.items()}
    return sets[0].resolution if resolution is None else resolution


ADAPT_LEARNING_RATE = 1e-3
LABELLED_BATCH = 128

VALIDATION_STEPS = 6
"""Steps of the trajectories that a pre-training on evolutions is validated by."""

LINE = (0.25, 0.5, 0.75)
"""Where between the start and the trained weights of a fine-tuning others are tried. Beyond the trained ones (1.25) was
best only where the learning rate was too low."""


@dataclass
class Adaptation:
    """An adapted operator and how it came about.

    Attributes:
        operator: with the chosen weights.
        history: of the training with the chosen learning rate.
        learning_rate: the chosen one.
        tried: the lowest validation error with each learning rate, None where it diverged or nothing was validated.
        chosen_step: step of that training that the weights come from; 0 where the untouched start was best.
        interpolation: where they lie between the start, 0, and the weights of that step, 1.
        validation_error: of the chosen weights, None where nothing was validated.
    """

    operator: Operator
    history: History
    learning_rate: float
    tried: dict[float, float | None]
    chosen_step: int
    interpolation: float
    validation_error: float | None


@takes_numpy
def fine_tune(
    operator: Operator,
    data: Data | Trajectories | None = None,
    *,
    unlabelled: Task | None = None,
    unrolled: Unrolled | None = None,
    system: System | str | None = None,
    validation: Data | Trajectories | None = None,
    config: TrainConfig | None = None,
    learning_rates: Sequence[float] | None = None,
    batch_size: int | None = None,
    resolution: Resolution | Mapping[float, Resolution] | None = None,
    seed: int = 0,
    symmetries: bool = True,
    line: Sequence[float] | None = None,
    callback: Callback | None = None,
    checkpoint: str | Path | None = None,
) -> Adaptation:
    """Continue the training of the weights on downstream examples; the operator given is not changed.

    All weights are trained, but for those that do not require gradients: a network whose weights were given low-rank
    updates by `torch.nn.utils.parametrize`, and frozen otherwise, is tuned in these updates alone.

    The pre-trained normalisation is kept. With several learning rates each is tried and the best on validation kept.
    Where there are validation examples, the untouched start and some points on the line from it to the trained weights
    are candidates too, so that the operator is never worse on these examples than it was. Such averages often do better
    than either end (Wortsman et al., arXiv:2109.01903), above all with few examples.

    >>> from sciml_fm_core import draw_split, load_operator
    >>> data = draw_split(Task.parse("SYS-1(5,10)"), "train", 8, resolution=32)
    >>> tuned = fine_tune(load_operator("sys-1"), data, config=TrainConfig(steps=2))
    >>> tuned.operator.card["kind"], tuned.operator.card["parent"]["tasks"]
    ('fine-tuned', ['SYS-1(1,5)'])

    Without labels, ``unlabelled`` takes the place of the data: fresh sources and coefficients of a task at every step,
    trained and validated by the ``physics`` loss, see `training.unlabelled`.

    >>> task, config = Task.parse("SYS-1(5,10)"), TrainConfig(steps=2)
    >>> tuned = fine_tune(load_operator("sys-1"), unlabelled=task, config=config, batch_size=4)
    >>> tuned.operator.card["labels"], tuned.operator.card["loss"], tuned.operator.card["downstream_examples"]
    ('none', 'physics', 0)

    Args:
        operator: the pre-trained operator.
        data: downstream examples, in memory or a file, see `open_data`; or trajectories of an evolution, whose
            validation is by roll-outs.
        unlabelled: the downstream task, where no solutions are used.
        unrolled: how many steps trajectories are followed in training, see `Unrolled`.
        system: which system they belong to, for an operator of several, or where a file does not say it.
        validation: examples on which weights and learning rate are chosen, as the data; without them the last weights
            are kept. With ``unlabelled`` their solutions are not used, and some are drawn where none are given.
        config: how to train; by default 200 steps. What it leaves open: the recipe's loss, `ADAPT_LEARNING_RATE`. With
            ``unlabelled`` the default, and what is left open, are those of `UNLABELLED`.
        learning_rates: grid to try instead of the learning rate of `config`, all in one training.
        batch_size: at most; with no more examples than that, every step sees all of them. 128 where None, or 32 fresh
            ones without labels.
        resolution: points to train on, or a schedule of them, see `FixedBatches`; the data's own where None, or without
            labels the schedule of `unlabelled_data`.
        seed: seed of the shuffling and of the symmetries, or of the fresh examples.
        symmetries: train on each example as it is turned by a random symmetry of the square, another in each step,
            where the system declares its symmetries: eight times the examples, for nothing. Fresh examples need none.
        line: where on that line candidates are, between the start, 0, and the trained weights, 1; `LINE` where None.
        callback, checkpoint: as in `fit`.

    Raises:
        ValueError: if the operator does not know the system, several rates are given without validation, there are both
            data and an unlabelled task or neither, or the latter is to be learned by a loss that needs labels; on data
            as `open_data`, and a file of another split than ``train``.
        FloatingPointError: if the loss stops being finite, or no weights have a finite validation error.
    """
    if (data is None) == (unlabelled is None):
        raise ValueError("fine-tuning: expected labelled data, or a task as unlabelled=..., and not both")
    # what is left open is not the recipe's, which is for pre-training, but for the loss
    if unlabelled is not None:
        config = unlabelled_config(config, unlabelled.system)
    config = config or TrainConfig(steps=200, validate_every=10)
    loss = recipe_of(operator).loss
    config = config.completed(learning_rate=ADAPT_LEARNING_RATE, loss=loss, warmup=0, composed=0.0)
    device = operator.device
    batches: Batches
    held_out: Examples | Trajectories | None
    said: dict[str, Any] = {}
    if unlabelled is not None:
        resolved = operator.normalization.resolve(unlabelled.system)
        given, said = _validated(validation, resolved, system, labels=False)
        batches, held_out, about = unlabelled_data(unlabelled, operator, batch_size, resolution, seed, given)
    elif isinstance(data, Trajectories):
        if validation is not None and not (isinstance(validation, Trajectories) and validation.steps):
            raise ValueError("validation: expected trajectories of a step or more, as the data are")
        resolved, held_out = operator.normalization.resolve(system), validation
        size = batch_size or find_recipe("step").batch_size
        batches = steps = FixedTrajectories(resolved, data, size, unrolled, seed=seed, device=device)
        about = {
            "downstream_task": Task(resolved, data.dial.min().item(), data.dial.max().item()).label,
            "downstream_examples": data.size, "steps_of_each": data.steps, "batch_size": steps.batch_size,
            "unrolled": steps.unrolled.described(),
        }  # fmt: skip
    else:
        data, named = with_system(data, system)
        resolved = operator.normalization.resolve(named)
        reader = open_data(data, resolved, "data")
        check_kept([(resolved, reader)], cast(str, config.loss), "data")
        held_out, said = _validated(validation, resolved, system)
        size = LABELLED_BATCH if batch_size is None else batch_size
        fixed = FixedBatches([(resolved, reader)], size, resolution=resolution, seed=seed, device=device)
        batches = TurnedBatches(fixed, seed=seed) if symmetries else fixed
        file = described(reader)
        about = {
            "downstream_task": file.get("task"), "downstream_examples": fixed.count, "batch_size": fixed.batch_size,
            "downstream_data": file,
        }  # fmt: skip
    result = _adapt(
        operator,
        resolved,
        batches,
        held_out,
        config,
        learning_rates,
        LINE if line is None else line,
        callback,
        checkpoint,
    )
    card = operator.card
    result.operator.card = {
        "kind": "fine-tuned",
        **{key: card.get(key) for key in ("recipe", "architecture", "size")},
        "system": resolved.name,
        **about,
        **said,
        "learning_rate": result.learning_rate,
        "loss": config.loss,
        **training_card(result.history, result.operator),
        "best_validation_error": result.validation_error,
        "chosen_step": result.chosen_step,
        "interpolation": result.interpolation,
        "parent": {key: value for key, value in card.items() if key != "curve"},  # what it reached says nothing of this
    }
    return result


@takes_numpy
def train_from_scratch(
    operator: Operator, data: Data | Trajectories, *, system: System | str | None = None, seed: int = 0, **options: Any
) -> Adaptation:
    """The twin of `fine_tune` that starts from random weights: same network, same examples, same steps.

    Arguments as in `fine_tune`. Its start is a candidate too, but no point on the line from random weights. The
    normalisations of the paper and of fields take their statistics from the downstream examples themselves; the others
    keep those of the operator.
    """
    normalization = operator.normalization
    if not isinstance(data, Trajectories):
        data, system = with_system(data, system)  # a file is opened once
        if isinstance(normalization, PaperNormalization | FieldsNormalization) and len(normalization.systems) == 1:
            resolved = normalization.resolve(system)
            normalization = type(normalization).fit([(resolved, sample(open_data(data, resolved, "data")))])
    model = operator.model.create(operator.model.config, stream(seed, "scratch")).to(operator.device)
    start = Operator(model, normalization, operator.card)
    result = fine_tune(start, data, system=system, seed=seed, line=(), **options)
    card = result.operator.card
    result.operator.card = {**card, "kind": "from scratch", "twin_of": card.pop("parent")}
    return result


def _validated(
    data: Data | Trajectories | None, system: System, told: System | str | None, *, labels: bool = True
) -> tuple[Examples | None, dict]:
    if data is None:
        return None, {}
    if isinstance(data, Trajectories):
        raise ValueError("validation: expected examples, as the data are, got trajectories")
    reader = open_data(with_system(data, told)[0], system, "validation", labels=labels)
    read = reader.take(slice(None))
    return read, {"validation": _about_validation(reader, read)}


def _about_validation(data: Reader, read: Examples) -> dict:
    """What a card says of validation examples: also how many are left out, as their solution is zero."""
    zeros = int((~has_size(read.solution, batched=True)).sum())
    return described(data) | ({"zero_solutions": zeros} if zeros else {})


def _adapt(
    start: Operator,
    system: System,
    batches: Batches,
    validation: Examples | Trajectories | None,
    config: TrainConfig,
    learning_rates: Sequence[float] | None,
    line: Sequence[float],
    callback: Callback | None,
    checkpoint: str | Path | None,
) -> Adaptation:
    rates = [cast(float, config.learning_rate)] if learning_rates is None else list(map(float, learning_rates))
    for rate in rates:
        replace(config, learning_rate=rate)  # checks it
    if not rates:
        raise ValueError("learning rates: expected at least one, got none")
    if len(rates) > 1 and validation is None:
        raise ValueError("learning rates: choosing among several needs validation examples; pass validation=...")
    members = [Member(start.copy(), rate) for rate in rates]
    held_out = [] if validation is None else [(system, validation.to(start.device))]
    if isinstance(validation, Examples):
        check_kept([(system, validation)], config.validation_loss, "validation")
    fit_together(members, batches, config, validation=held_out, callback=callback, checkpoint=checkpoint)
    tried = {m.learning_rate: None if m.status == "diverged" else m.history.best_error for m in members}
    best = min((member for member in members if member.status != "diverged"), key=lambda member: member.score)
    history, operator = best.history, best.operator
    if not held_out:
        return Adaptation(operator, history, best.learning_rate, tried, history.rows[-1]["step"], 1.0, None)
    others = {0.0: start.copy()} | {share: _between(start, operator, share) for share in line}
    measured = mean_losses(list(others.values()), held_out, config.validation_loss)
    errors = dict(zip(others, measured, strict=True)) | {1.0: best.score}
    share = min(errors, key=lambda each: (math.isnan(errors[each]), errors[each]))
    if not math.isfinite(errors[share]):
        raise FloatingPointError("validation: no weights have a finite error, nor had the start; check the examples")
    operator = {**others, 1.0: operator}[share]
    operator.model.eval()
    step = history.best_step if share else 0
    return Adaptation(operator, history, best.learning_rate, tried, step, share, errors[share])


@torch.no_grad()
def _between(start: Operator, end: Operator, share: float) -> Operator:
    """The operator whose weights lie on the line between those of two others."""
    operator = end.copy()
    weights = (each.model.parameters() for each in (operator, start, end))
    for weight, first, last in zip(*weights, strict=True):
        weight.copy_(torch.lerp(first, last, share))
    return operator
