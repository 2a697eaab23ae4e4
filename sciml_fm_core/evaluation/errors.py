"""Errors of operators on examples that are drawn or given: of a task, of all shifts, along what is varied."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
from torch import Tensor

from sciml_fm_core.data.given import (
    Data,
    Reader,
    check_resampled,
    check_task,
    described,
    open_data,
    rows_of,
    with_system,
)
from sciml_fm_core.data.splits import draw_split
from sciml_fm_core.models.operator import Operator
from sciml_fm_core.models.predict import predict_together
from sciml_fm_core.physics.evolution import Evolution
from sciml_fm_core.physics.spectral import Resolution, check_finite
from sciml_fm_core.physics.system import SYSTEMS, System
from sciml_fm_core.physics.tasks import Task, tasks_of
from sciml_fm_core.schema import takes_numpy

from .metrics import has_size, measured_errors, relative_error, statistics_of

Measured = Callable[[str, int, int], None]
"""Called before a part of the examples is measured, with what it is of, how many are done, and how many there are."""
PART = 4096
"""Examples that `evaluate` holds at once."""
MAP_POINTS = 2**21
"""Grid points of the solutions that `error_map` holds at once."""


def validation_sets(tasks, count: int, *, seed: int = 0, resolution: Resolution = 64, device="cpu"):
    """Draw validation examples of each task, from the validation stream."""
    return [
        (task.system, draw_split(task, "validation", count, seed=seed, resolution=resolution).to(device))
        for task in tasks
    ]


@takes_numpy
def evaluate(
    operator: Operator,
    task: Task | None = None,
    *,
    data: Data | None = None,
    system: System | str | None = None,
    count: int | None = None,
    resolution: Resolution | None = None,
    seed: int = 0,
    symmetries: bool = False,
    callback: Measured | None = None,
) -> dict[str, Any]:
    """Measure errors on freshly drawn test examples, or on given ones (zero-shot on a task not trained on).

    >>> from sciml_fm_core import load_operator
    >>> task = Task.parse("SYS-1(1,5)")
    >>> evaluate(load_operator("sys-1"), task, count=4, resolution=32)["error"] < 0.01
    True
    >>> own = draw_split(task, "test", 4, resolution=32)
    >>> evaluate(load_operator("sys-1"), data=own)["examples"]
    4

    Args:
        operator: what is measured.
        task: what is drawn; of given examples, what they have to be of, where it is said.
        data: examples to measure on instead, see `open_data`.
        system: which they are of, for an operator of several, or where a file does not say it.
        count: number of examples: 512 where None, or all that are given.
        resolution: points in each direction: 128 where None, or the grid of those that are given; else these are
            resampled.
        seed: of the examples that are drawn.
        symmetries: measure predictions averaged over the symmetries of the square, see `Operator.predict`.
        callback: called with what is measured, and how many examples of how many are.

    Returns:
        ``error`` (the mean relative error mu), ``median``, ``percentile_90``, ``worst``, and what was tested;
        ``left_out`` is the number of examples whose solution is zero, which have no relative error.

    Raises:
        ValueError: if the operator was not trained for the system, the examples are not of the task, there is neither
            a task nor data, fewer examples than asked for, or every solution is zero.
    """
    reader: Reader
    about: dict[str, Any]
    if data is not None:
        data, system = with_system(data, system)
        resolved = operator.normalization.resolve(task.system if system is None and task is not None else system)
        reader = open_data(data, resolved)
        if task is not None:
            check_task(reader, task)
        if count is not None:
            if not 1 <= count <= reader.size:
                raise ValueError(f"count: expected 1 to {reader.size} given examples, got {count}")
            reader = rows_of(reader, torch.arange(count))
        check_resampled(reader, [] if resolution is None else [resolution])
        about = {"data": described(reader)}
    elif task is not None:
        resolved, count = operator.normalization.resolve(task.system), 512 if count is None else count
        reader = draw_split(task, "test", count, seed=seed, resolution=128 if resolution is None else resolution)
        about = {"seed": seed}
    else:
        raise ValueError("evaluate: expected a task to draw examples of, or data=...")
    label = about.get("data", {}).get("task") if task is None else task.label

    def parts() -> Iterator[tuple[Tensor, Tensor]]:
        for start in range(0, reader.size, PART):
            if callback is not None:
                callback(label or resolved.name, start, reader.size)
            examples = reader.take(slice(start, start + PART))
            examples = examples if resolution is None else examples.resampled(resolution)
            found = operator.predict(examples.source, examples.coefficients, resolved, symmetries=symmetries)
            yield found, examples.solution

    error = measured_errors(parts())
    return {
        "task": label,
        **statistics_of(error),
        "worst": error.max().item(),
        "examples": reader.size,
        "left_out": reader.size - len(error),
        "resolution": reader.resolution if resolution is None else resolution,
        **about,
    }


@takes_numpy
def evaluate_shifts(
    operator: Operator, *, count: int = 512, resolution: int = 128, seed: int = 0, callback: Measured | None = None
) -> dict[str, float]:
    """Measure the mean relative error on an operator's own tasks and on each named shift of every system it takes.

    Evolutions are measured where the operator was trained on them. The callback is that of `evaluate`.
    """
    labels = operator.tasks
    stationary = (system for system in SYSTEMS.values() if not isinstance(system, Evolution))
    others = (system for system in stationary if operator.normalization.knows(system))
    for system in dict.fromkeys([*operator.systems, *others]):
        labels += tasks_of(system).values()
    options: dict[str, Any] = {"count": count, "resolution": resolution, "seed": seed, "callback": callback}
    return {label: evaluate(operator, Task.parse(label), **options)["error"] for label in dict.fromkeys(labels)}


@torch.no_grad()
def error_map(
    operators: Sequence[Operator],
    source: Tensor,
    dial: Tensor,
    parameters: Tensor,
    system: System | str | None = None,
) -> Tensor:
    """Mean relative error of operators over some sources, at each of many values of the dial and the parameters.

    The coefficients and the exact solution of a point are found once for all operators, and many points are predicted
    in one batch.

    Args:
        operators: what to compare; they know the system.
        source: sources that every point is measured on, shape (s, n, n), or input fields, (s, p, ny, nx).
        dial: value of the dial of each point, shape (points,).
        parameters: of ``system.parameters``, broadcast to (points, s, len(system.parameters)).
        system: the PDE, or its name; needed where an operator knows several.

    Returns:
        Errors, shape (operators, points), float64; NaN where a source cannot reach the value of the dial, or no
        solution is other than zero.

    Raises:
        ValueError: on wrong shapes or values that are not finite, or if an operator was not trained for the system.
    """
    if not operators:
        raise ValueError("error map: expected at least one operator, got none")
    known = operators[0].normalization.resolve(system)
    if source.ndim != 1 + known.input_axes or dial.ndim != 1 or not len(source):
        raise ValueError(
            f"error map: expected sources (s, {'n, n' if known.input_axes == 2 else 'p, ny, nx'}) and dial values "
            f"(points,), got {tuple(source.shape)} and {tuple(dial.shape)}"
        )
    for name, values in (("source", source), ("dial", dial), ("parameters", parameters)):
        check_finite(values, name)
    wanted = len(dial), len(source), len(known.parameters)
    try:
        parameters = parameters.double().expand(wanted)
    except RuntimeError:
        raise ValueError(f"parameters: expected to broadcast to {wanted}, got {tuple(parameters.shape)}") from None
    errors = torch.full((len(operators), len(dial)), torch.nan, dtype=torch.float64, device="cpu")
    alike: dict[tuple, list[int]] = {}
    for number, operator in enumerate(operators):
        alike.setdefault((type(operator.model), operator.model.config), []).append(number)

    def measure(points: Tensor) -> None:
        values = dial.double()[points, None].expand(-1, len(source))
        try:
            varied = known.varied(source, values)
            coefficients = known.coefficients(values, varied, parameters[points]).to(source.dtype)
        except ValueError:  # a source cannot reach one of the values
            for point in points.split(1) if len(points) > 1 else ():
                measure(point)
            return
        solution = known.solve(varied, coefficients)
        for numbers in alike.values():
            predictions = predict_together([operators[number] for number in numbers], varied, coefficients, known)
            found = relative_error(predictions, solution.expand_as(predictions))
            kept = has_size(solution)
            if known.output_axes > 2:
                found, kept = found.mean(dim=-1), kept.all(dim=-1)
            mean = found.double().masked_fill(~kept, 0).sum(dim=-1) / kept.sum(dim=-1)
            errors[torch.tensor(numbers, device="cpu")[:, None], points] = mean.cpu()

    for points in torch.arange(len(dial), device="cpu").split(max(1, MAP_POINTS // source.numel())):
        measure(points)
    return errors
