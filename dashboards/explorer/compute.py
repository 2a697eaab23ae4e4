"""From what is dialled to fields and numbers: pure functions, called off the event loop."""

from __future__ import annotations

import math
from collections.abc import Callable, Hashable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor

from sciml_fm_core.data.splits import stream
from sciml_fm_core.evaluation.metrics import relative_error, relative_residual
from sciml_fm_core.experiments.error_bounds import error_bounds
from sciml_fm_core.experiments.training_range.method import ErrorForecast, TrainingRange
from sciml_fm_core.experiments.uncertainty.ensemble import Ensemble
from sciml_fm_core.models.operator import Operator, predict_together
from sciml_fm_core.physics.sources import draw_amplitudes, normalize, place, render
from sciml_fm_core.physics.spectral import resample
from sciml_fm_core.physics.system import System
from sciml_fm_core.physics.tasks import SPARSITIES

RESOLUTION = 128
SWEEP_RESOLUTION = 64
SWEEP_SOURCES = 8
SPREAD_RESOLUTION = 64
"""Points for the members of an ensemble: as fine as they were trained, and a quarter of the work."""


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
        trained: range of the dial that the zero-shot operator was trained on, None where it never was.
        given: on what the adapted operators were trained, in words.
        learning: keys of those that are in training now.
    """

    system: System
    dial: float
    parameters: tuple[float, ...]
    seed: int
    sparsity: float
    gaussians: tuple[tuple[float, float, float], ...] | None
    operators: dict[str, Callable[[], Operator] | None]
    resolution: int = RESOLUTION
    trained: tuple[float, float] | None = None
    given: str = ""
    learning: tuple[str, ...] = ()


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
    amplitudes = draw_amplitudes(
        torch.tensor([query.sparsity], dtype=torch.float32, device="cpu"), stream(query.seed, "explore")
    )
    return normalize(render(amplitudes, query.resolution), zero_mean=zero_mean)[0]


def compute(query: Query) -> Frame:
    """Solve exactly, predict with every operator there is, and measure.

    Raises:
        ValueError: if the source is empty or the dial cannot be reached with it.
    """
    (found,) = compute_together([query])
    if isinstance(found, Exception):
        raise found
    return found


@torch.inference_mode()
def compute_together(queries: Sequence[Query]) -> list[Frame | Exception]:
    """As `compute`, of several queries; in place of a frame, the error of its query.

    What asks the same operators is predicted at once, which is faster than one after the other.
    """
    found: list[Any] = [_or_error(_solve, query) for query in queries]
    alike: dict[Hashable, list[int]] = {}
    for number, one in enumerate(found):
        if isinstance(one, _Solved):
            alike.setdefault(one.asks, []).append(number)
    for numbers in alike.values():
        solved = [found[number] for number in numbers]
        frames = _or_error(_frames, solved)
        if isinstance(frames, Exception):  # of one of them, so that each is tried by itself
            frames = [frames] if len(solved) == 1 else [_or_error(lambda one: _frames([one])[0], one) for one in solved]
        for number, frame in zip(numbers, frames, strict=True):
            found[number] = frame
    return found


def _or_error(work: Callable, argument: Any) -> Any:
    try:
        return work(argument)
    except Exception as error:
        return error


@dataclass(frozen=True)
class _Solved:
    """A query, its exact solution and what both are made of; ``exact`` is in float64."""

    query: Query
    operators: dict[str, Operator]
    source: Tensor
    coefficients: Tensor
    solution: Tensor
    residual: float
    exact: tuple[Tensor, Tensor]
    """Source and coefficients."""

    @property
    def asks(self) -> Hashable:
        """Equal where predictions can be made together."""
        asked = [(key, id(operator)) for key, operator in self.operators.items()]
        return self.query.system.name, self.query.resolution, tuple(asked)


def _solve(query: Query) -> _Solved:
    system = query.system
    source = make_source(query)
    dial = torch.tensor(query.dial, dtype=torch.float64)
    parameters = torch.tensor(query.parameters, dtype=torch.float64)
    exact = source.double(), system.coefficients(dial, source.double(), parameters)
    solution = system.solve(*exact)
    residual = relative_residual(system.residual(solution, *exact), exact[0]).item()
    operators = {key: load() for key, load in query.operators.items() if load}
    return _Solved(query, operators, source, exact[1].to(source.dtype), solution.to(source.dtype), residual, exact)


def _frames(solved: Sequence[_Solved]) -> list[Frame]:
    """Frames of queries that ask the same operators."""
    sources = torch.stack([one.source for one in solved])
    coefficients = torch.stack([one.coefficients for one in solved])
    system = solved[0].query.system
    found = _predict(solved[0].operators, system, sources, coefficients)
    frames = []
    for number, one in enumerate(solved):
        own = {key: predictions[number] for key, predictions in found.items()}
        measured = _measured(own, one.solution, system, *one.exact) if own else {}
        frames.append(
            Frame(
                query=one.query,
                source=one.source.numpy(),
                solution=one.solution.numpy(),
                solution_residual=one.residual,
                coefficients=dict(zip(system.coefficient_names, one.coefficients.tolist(), strict=True)),
                predictions={key: measured.get(key) for key in one.query.operators},
            )
        )
    return frames


@torch.inference_mode()
def expected(frame: Frame, key: str = "zero_shot") -> ErrorForecast | None:
    """What the distance to the training lets expect of a prediction, where the `TrainingRange` is known already."""
    load = frame.query.operators.get(key)
    trained = TrainingRange.known(load()) if load else None
    if trained is None:
        return None
    source, coefficients = torch.from_numpy(frame.source), torch.tensor(list(frame.coefficients.values()))
    return trained.forecast(source, coefficients, frame.query.system)


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
    """Predictions by key, of several sources; networks of equal shape are applied together."""
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


def sweep_sources(
    system: System, count: int = SWEEP_SOURCES, resolution: int = SWEEP_RESOLUTION
) -> tuple[Tensor, Tensor]:
    """Sources and other parameters over which the error along the dial is averaged.

    They are the same every time, with the sparsities of the paper's tasks in equal shares.
    """
    generator = stream(0, "explore", "sweep")
    sparsity = torch.tensor(SPARSITIES)[torch.arange(count) % len(SPARSITIES)]
    source = normalize(render(draw_amplitudes(sparsity, generator), resolution), zero_mean=system.zero_mean)
    uniform = torch.rand(count, len(system.parameters), generator=generator, dtype=torch.float64)
    low = torch.tensor([p.low for p in system.parameters], dtype=torch.float64)
    high = torch.tensor([p.high for p in system.parameters], dtype=torch.float64)
    return source, low + uniform * (high - low)


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


def finite(value: float | None) -> float | None:
    """A number that JSON can hold, or None in its place."""
    return value if value is not None and math.isfinite(value) else None
