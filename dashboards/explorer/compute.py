"""State in, arrays out: from one point of the page to its fields and numbers, without any display or server.

`frame_message(compute(query), mean)` is all that whatever feeds a page needs. `compute` is called on the
thread for frames, `frame_message` on the event loop; neither knows what is displayed.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar

import numpy as np
import torch
from torch import Tensor

from sciml_fm_core.data.splits import stream
from sciml_fm_core.evaluation.metrics import relative_error, relative_residual
from sciml_fm_core.experiments.error_bounds import error_bounds
from sciml_fm_core.experiments.training_range.method import ErrorForecast, TrainingRange
from sciml_fm_core.experiments.uncertainty.ensemble import Ensemble
from sciml_fm_core.models.operator import Operator
from sciml_fm_core.models.predict import predict_together
from sciml_fm_core.physics.sources import draw_amplitudes, normalize, place, render
from sciml_fm_core.physics.spectral import resample
from sciml_fm_core.physics.spectral_system import SpectralSystem, is_spectral
from sciml_fm_core.physics.system import System
from sciml_fm_core.physics.variable_system import VariableSystem

from . import text

RESOLUTION = 128
EVOLUTION_RESOLUTION = 64
"""Points of what is stepped through in time, as its operators were trained."""
SPREAD_RESOLUTION = 64
"""Points for the members of an ensemble: as fine as they were trained, and a quarter of the work."""

Rows = Sequence[tuple[float, float, float]]
Message = tuple[dict[str, Any], dict[str, np.ndarray]]
"""A header that JSON can hold, and fields by name; row i of a field is at y = i / n."""

Found = TypeVar("Found")

log = logging.getLogger(__name__)


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
        painted: rows as those of ``gaussians`` of each further input field that is painted, by its name.
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
    painted: dict[str, tuple[tuple[float, float, float], ...]] = field(default_factory=dict)


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
    """Everything the page shows for one query; fields are float32, row i at y = i / n.

    Of a system with several fields ``source`` is the input field that is drawn by hand, see `drawn_field`, and
    ``solution`` the first output field; the others are in ``further``, by their names.
    """

    query: Query
    source: np.ndarray
    solution: np.ndarray
    solution_residual: float
    coefficients: dict[str, float]
    predictions: dict[str, Prediction | None] = field(default_factory=dict)
    further: dict[str, np.ndarray] = field(default_factory=dict)


def drawn_field(system: System) -> int:
    """Number of the input field that is drawn by hand: the one named ``source``, else the last."""
    return system.inputs.index("source") if "source" in system.inputs else len(system.inputs) - 1


def further_fields(system: System) -> list[str]:
    """Names of the fields that are shown beside the one that is drawn by hand and the first output field."""
    shown = system.inputs[drawn_field(system)], system.outputs[0]
    return [name for name in (*system.inputs, *system.outputs) if name not in shown]


PAINTED_WIDTH = 0.1
"""Standard deviation of what is painted into a coefficient, which is smoother than a source."""


def painted_fields(system: System) -> list[str]:
    """Names of the coefficients that can be painted: `painted` gives one that is positive."""
    return [name for name in system.inputs if name == "diffusivity" and isinstance(system, VariableSystem)]


def painted(rows: Rows, n: int) -> Tensor:
    """A positive field (n, n), to be `VariableSystem.varied` to the dial: the exponential of Gaussians."""
    return place(rows, n, zero_mean=True, width=PAINTED_WIDTH).exp()


def is_drawn_as_gaussians(system: System) -> bool:
    """Whether its random sources are those of the paper, whose sparsity can be set."""
    return isinstance(system, SpectralSystem) and type(system).draw is System.draw


def make_source(query: Query) -> Tensor:
    """Source of a query, shape (n, n), or its input fields, (p, n, n).

    Raises:
        ValueError: if it is drawn by hand and empty.
    """
    system, n, generator = query.system, query.resolution, stream(query.seed, "explore")
    placed = None
    if query.gaussians is not None:
        if not query.gaussians:
            raise ValueError("The source is empty: click on its field to place a Gaussian, or choose a preset.")
        placed = place(query.gaussians, n, zero_mean=system.zero_mean)
    if is_drawn_as_gaussians(system):
        if placed is not None:
            return placed
        amplitudes = draw_amplitudes(torch.tensor([query.sparsity], dtype=torch.float32, device="cpu"), generator)
        return normalize(render(amplitudes, n), zero_mean=system.zero_mean)[0]
    dial, parameters = (torch.tensor([values], dtype=torch.float64) for values in (query.dial, query.parameters))
    source = system.draw(dial, parameters, (n, n), generator)[0].float()
    if placed is not None:
        source.view(-1, n, n)[drawn_field(system)] = placed
    for name, rows in query.painted.items():
        source[system.inputs.index(name)] = painted(rows, n)
        source = system.varied(source, dial[0]).float()
    return source


@torch.inference_mode()
def compute(query: Query) -> Frame:
    """Solve exactly, predict with every operator there is, and measure.

    Raises:
        ValueError: if the source is empty or the dial cannot be reached with it.
    """
    system, source = query.system, make_source(query)
    exact_source = source.double()
    dial, parameters = (torch.tensor(values, dtype=torch.float64) for values in (query.dial, query.parameters))
    coefficients = system.coefficients(dial, exact_source, parameters)
    exact = system.solve(exact_source, coefficients)
    residual = _residual(exact, exact_source, coefficients, system)
    solution, given = exact.to(source.dtype), coefficients.to(source.dtype)
    found = _predict({key: load() for key, load in query.operators.items() if load}, system, source, given)
    measured = _measured(found, solution, system, exact_source, coefficients) if found else {}
    inputs, outputs = source.view(-1, *source.shape[-2:]), solution.view(-1, *source.shape[-2:])
    fields = dict(zip((*system.inputs, *system.outputs), torch.cat([inputs, outputs]).numpy(), strict=True))
    return Frame(
        query=query,
        source=inputs[drawn_field(system)].numpy(),
        solution=outputs[0].numpy(),
        solution_residual=residual.item(),
        further={name: fields[name] for name in further_fields(system)},
        coefficients=dict(zip(system.coefficient_names, given.tolist(), strict=True)),
        predictions={key: measured.get(key) for key in query.operators},
    )


def attempt(make: Callable[..., Found], *arguments: Any) -> Found | str:
    """Compute fields, or say why there are none."""
    try:
        return make(*arguments)
    except (ValueError, ArithmeticError) as error:
        return str(error)
    except Exception:
        log.exception("computing the fields failed")
        return "Computing the fields failed; the server's log says why."


def _residual(solution: Tensor, source: Tensor, coefficients: Tensor, system: System) -> Tensor:
    """Relative residuals, shape (...); NaN where the system has none, or no field named as its source."""
    if type(system).residual is System.residual or "source" not in system.inputs:
        return torch.full(solution.shape[: -system.output_axes], torch.nan)
    given = source if system.input_axes == 2 else source[..., drawn_field(system), :, :]
    return relative_residual(system.residual(solution, source, coefficients), given)


@torch.inference_mode()
def expected(frame: Frame, key: str = "zero_shot") -> ErrorForecast | None:
    """What the distance to the training lets expect of a prediction, where the `TrainingRange` is known already."""
    load = frame.query.operators.get(key)
    trained = TrainingRange.known(load()) if load else None
    if trained is None or not is_spectral(frame.query.system):
        return None
    source, coefficients = torch.from_numpy(frame.source), torch.tensor(list(frame.coefficients.values()))
    return trained.forecast(source, coefficients, frame.query.system)


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
    error = relative_error(predictions, solution.expand_as(predictions))
    off = (error if system.output_axes == 2 else error.mean(dim=-1)).tolist()
    residual = _residual(predictions, source.to(predictions.dtype), coefficients, system).tolist()
    if system.output_axes > 2:
        predictions, solution = predictions[:, 0], solution[0]
    errors = predictions - solution
    bounds = [(0.0, math.inf)] * len(off)
    finite = [i for i, each in enumerate(off) if math.isfinite(each)]  # a training may blow up
    if finite and is_spectral(system):
        known = error_bounds(predictions[finite], source, coefficients, system)
        for i, lower, upper in zip(finite, known.lower.tolist(), known.upper.tolist(), strict=True):
            bounds[i] = lower, upper
    return {
        key: Prediction(predictions[i].numpy(), errors[i].numpy(), off[i], residual[i], bounds[i])
        for i, key in enumerate(found)
    }


# What the browser is told --------------------------------------------------------------------------------------------


def frame_message(frame: Frame, mean: float | None = None) -> Message:
    """Header and arrays of a frame: its exact fields, the signed error of each prediction, and what is said of them.

    Args:
        frame: from `compute`.
        mean: error of the zero-shot operator over several random sources, None where it is not known yet.
    """
    query = frame.query
    shown = {key: prediction for key, prediction in frame.predictions.items() if prediction is not None}
    arrays = {"source": frame.source, "solution": frame.solution} | {key: p.error for key, p in shown.items()}
    arrays |= frame.further
    header = {
        "system": query.system.name,
        "dial": query.dial,
        "points": frame.source.shape[0],
        "sentence": sentence_of(frame, mean),
        "given": query.given,
        "rms": float(np.sqrt(np.mean(frame.solution**2))) or 1.0,
        "residual": finite(frame.solution_residual),
        "learning": list(query.learning),
        "numbers": {
            key: {
                "error": finite(p.relative_error),
                "residual": finite(p.residual),
                "bounds": [finite(bound) for bound in p.bounds],
            }
            for key, p in shown.items()
        },
    }
    return header, arrays


def sentence_of(frame: Frame, mean: float | None) -> str:
    """Where a frame stands to what its operator was trained on; of nothing but the frame: the page may have moved."""
    query, zero_shot = frame.query, frame.predictions.get("zero_shot")
    return text.sentence(
        query.system,
        query.dial,
        query.trained,
        zero_shot and zero_shot.relative_error,
        mean,
        float(np.abs(frame.solution).max()),
        query.gaussians,
        expected(frame),
        zero_shot.bounds if zero_shot else (0.0, math.inf),
    )


@torch.inference_mode()
def spread_message(frame: Frame, ensemble: Ensemble, number: int) -> Message:
    """Measure how far the members of an ensemble lie apart at a frame, which has this number.

    The array is their standard deviation at each point, ``relative`` its root mean square over that of their mean.
    """
    source = resample(torch.from_numpy(frame.source), SPREAD_RESOLUTION)
    found = ensemble.predict(source, torch.tensor(list(frame.coefficients.values())), frame.query.system)
    points = frame.query.resolution
    header = {"frame": number, "points": points, "relative": finite(found.relative_spread.item())}
    return header, {"spread": resample(found.spread, points).clamp(min=0).numpy()}


def finite(value: float | None) -> float | None:
    """A number that JSON can hold, or None in its place."""
    return value if value is not None and math.isfinite(value) else None
