"""From what is dialled to fields and numbers: pure functions, called off the event loop."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor

from sciml_fm_core.data.splits import stream
from sciml_fm_core.evaluation.error_bounds import error_bounds
from sciml_fm_core.evaluation.metrics import relative_error, relative_residual
from sciml_fm_core.evaluation.training_range import Flag, TrainingRange
from sciml_fm_core.models.ensemble import Ensemble
from sciml_fm_core.models.operator import Operator, predict_together
from sciml_fm_core.physics.sources import draw_amplitudes, normalize, place, render
from sciml_fm_core.physics.spectral import resample
from sciml_fm_core.physics.system import System
from sciml_fm_core.physics.tasks import SPARSITIES

RESOLUTION = 128
SWEEP_RESOLUTION = 64
SWEEP_SOURCES = 8
SPREAD_RESOLUTION = 64
"""Of the members of an ensemble: as fine as they were trained, and a quarter of the work."""


@dataclass(frozen=True)
class Query:
    """One point of the page, complete: what a frame is computed from.

    Attributes:
        system: the PDE.
        dial: value of its dial.
        parameters: values of ``system.parameters``, angles in radians.
        seed, sparsity: of the random source.
        gaussians: rows (x, y, amplitude) of a source drawn by hand, or None for the random one.
        operators: a function by key of each prediction that gives its operator, or None where there is none yet.
        resolution: points in each direction.
    """

    system: System
    dial: float
    parameters: tuple[float, ...]
    seed: int
    sparsity: float
    gaussians: tuple[tuple[float, float, float], ...] | None
    operators: dict[str, Callable[[], Operator] | None]
    resolution: int = RESOLUTION


@dataclass(frozen=True)
class Prediction:
    """A predicted solution beside the exact one.

    ``relative_error`` is ``||u - u0|| / ||u0||``, ``residual`` is ``||L u - f|| / ||f||``; ``bounds`` are those
    of the relative error by `error_bounds`.
    """

    values: np.ndarray
    error: np.ndarray
    relative_error: float
    residual: float
    bounds: tuple[float, float] = (0.0, math.inf)


@dataclass(frozen=True)
class Frame:
    """Everything the page shows for one query; fields are float32, row i at y = i / n."""

    query: Query
    source: np.ndarray
    solution: np.ndarray
    solution_residual: float
    coefficients: dict[str, float]
    predictions: dict[str, Prediction | None] = field(default_factory=dict)


def make_source(query: Query) -> Tensor:
    """Source of a query, shape (n, n).

    Raises:
        ValueError: if it is drawn by hand and empty.
    """
    zero_mean = query.system.zero_mean
    if query.gaussians is not None:
        if not query.gaussians:
            raise ValueError("The source is empty: click on its field to place a Gaussian, or choose a preset.")
        return place(query.gaussians, query.resolution, zero_mean=zero_mean)
    amplitudes = draw_amplitudes(torch.tensor([query.sparsity]), stream(query.seed, "explore"))
    return normalize(render(amplitudes, query.resolution), zero_mean=zero_mean)[0]


@torch.inference_mode()
def compute(query: Query) -> Frame:
    """Solve exactly, predict with every operator there is, and measure.

    Raises:
        ValueError: if the source is empty or the dial cannot be reached with it.
    """
    system = query.system
    source = make_source(query)
    dial = torch.tensor(query.dial, dtype=torch.float64)
    parameters = torch.tensor(query.parameters, dtype=torch.float64)
    exact_source, exact_coefficients = source.double(), system.coefficients(dial, source.double(), parameters)
    coefficients = exact_coefficients.to(source.dtype)

    exact = system.solve(exact_source, exact_coefficients)
    residual = relative_residual(system.residual(exact, exact_source, exact_coefficients), exact_source).item()
    solution = exact.to(source.dtype)

    found = _predict({key: load() for key, load in query.operators.items() if load}, system, source, coefficients)
    measured = _measured(found, solution, system, exact_source, exact_coefficients) if found else {}
    return Frame(
        query=query,
        source=source.numpy(),
        solution=solution.numpy(),
        solution_residual=residual,
        coefficients=dict(zip(system.coefficient_names, coefficients.tolist(), strict=True)),
        predictions={key: measured.get(key) for key in query.operators},
    )


@torch.inference_mode()
def expected(frame: Frame, key: str = "zero_shot") -> Flag | None:
    """What the distance to the training lets expect of a prediction, where the `TrainingRange` is known already."""
    load = frame.query.operators.get(key)
    trained = TrainingRange.known(load()) if load else None
    if trained is None:
        return None
    source, coefficients = torch.from_numpy(frame.source), torch.tensor(list(frame.coefficients.values()))
    return trained.flag(source, coefficients, frame.query.system)


@dataclass(frozen=True)
class Spread:
    """How far the members of an ensemble lie apart: their standard deviation at each point of a frame.

    ``relative`` is its root mean square over that of their mean.
    """

    values: np.ndarray
    relative: float


@torch.inference_mode()
def spread_of(frame: Frame, ensemble: Ensemble) -> Spread:
    """The spread of an ensemble for the source and the coefficients of a frame."""
    source = resample(torch.from_numpy(frame.source), SPREAD_RESOLUTION)
    found = ensemble.predict(source, torch.tensor(list(frame.coefficients.values())), frame.query.system)
    fine = resample(found.spread, frame.query.resolution).clamp(min=0)
    return Spread(fine.numpy(), found.relative_spread.item())


def _predict(operators: dict[str, Operator], system: System, source: Tensor, coefficients: Tensor) -> dict[str, Tensor]:
    """Predictions by key; networks of equal shape are applied together."""
    alike: dict[tuple, list[str]] = {}
    for key, operator in operators.items():
        alike.setdefault((type(operator.model), operator.model.config), []).append(key)
    found: dict[str, Tensor] = {}
    for keys in alike.values():
        predicted = predict_together([operators[key] for key in keys], source, coefficients, system)
        found |= dict(zip(keys, predicted, strict=True))
    return found


def _measured(
    found: dict[str, Tensor], solution: Tensor, system: System, source: Tensor, coefficients: Tensor
) -> dict[str, Prediction]:
    predictions = torch.stack(list(found.values()))
    off = relative_error(predictions, solution.expand_as(predictions)).tolist()
    given = source.to(predictions.dtype)
    residual = relative_residual(system.residual(predictions, given, coefficients), given).tolist()
    errors = predictions - solution
    bounds = [(0.0, math.inf)] * len(off)
    finite = [i for i, each in enumerate(off) if math.isfinite(each)]  # a training may blow up
    if finite:
        known = error_bounds(predictions[finite], source, coefficients, system)
        for i, lower, upper in zip(finite, known.lower.tolist(), known.upper.tolist(), strict=True):
            bounds[i] = lower, upper
    return {
        key: Prediction(predictions[i].numpy(), errors[i].numpy(), off[i], residual[i], bounds[i])
        for i, key in enumerate(found)
    }


@dataclass(frozen=True)
class SweepSources:
    """Sources and other parameters over which the error along the dial is averaged."""

    source: Tensor
    parameters: Tensor


def sweep_sources(system: System, count: int = SWEEP_SOURCES, resolution: int = SWEEP_RESOLUTION) -> SweepSources:
    """The same random sources and parameters every time, with the sparsities of the paper's tasks in equal shares."""
    generator = stream(0, "explore", "sweep")
    sparsity = torch.tensor(SPARSITIES)[torch.arange(count) % len(SPARSITIES)]
    source = normalize(render(draw_amplitudes(sparsity, generator), resolution), zero_mean=system.zero_mean)
    uniform = torch.rand(count, len(system.parameters), generator=generator, dtype=torch.float64)
    low = torch.tensor([p.low for p in system.parameters], dtype=torch.float64)
    high = torch.tensor([p.high for p in system.parameters], dtype=torch.float64)
    return SweepSources(source, low + uniform * (high - low))


def coarse_to_fine(count: int) -> Iterator[int]:
    """Indices 0 .. count - 1, ends first, then ever finer, so that a partial curve already spans the range."""
    seen: set[int] = set()
    stride = max(count - 1, 1)
    while len(seen) < count:
        for index in range(0, count, stride):
            if index not in seen:
                seen.add(index)
                yield index
        stride = max(stride // 2, 1)
