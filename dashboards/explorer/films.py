"""State in, arrays out, for evolutions: a trajectory and what each operator makes of it, a step at a time."""

from __future__ import annotations

import math
import statistics
import time
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from sciml_fm_core.evaluation.rollouts import BLOWN_UP, CORRELATED, correlations, rollout, rollout_errors
from sciml_fm_core.physics.trajectories import evolution

from . import text
from .compute import Frame, Message, Prediction, Query, drawn_field, finite, make_source
from .predictions import PREDICTIONS

STEPS = 40
"""Steps of a film."""


def whole_film(query: Query) -> Frame:
    """All steps as one frame, with an axis for 0, 1, 2, ... steps before those of the fields; errors are of the last.

    Raises:
        ValueError: as `Film`.
    """
    film = Film(query)
    states = [dict.fromkeys(film.states(), film.source), film.states()]
    while not film.is_over:
        film.advance()
        if not film.ended:
            states.append(film.states())
    solution, *found = (torch.stack([state[key] for state in states]).numpy() for key in states[0])
    predictions = {
        key: Prediction(values, values - solution, errors[-1], math.nan)
        for (key, errors), values in zip(film.errors.items(), found, strict=True)
    }
    return Frame(query, film.source.numpy(), solution, math.nan, film.coefficients, predictions)


class Film:
    """The trajectory of a query and the roll-outs of its operators, each from its own last state; not for two threads.

    Of a state of several fields, errors are means over the fields, and the one drawn by hand is shown.

    Attributes:
        source: the initial state, of all fields.
        number: of the last step taken, 1 at first.
        errors: relative errors after 1, 2, ... steps, by key of the prediction; infinite where there is no number.
        lost: the step at which the correlation fell below `CORRELATED`, by key, where it did.
        ended: why the film ends before its last step: the solver's reason; empty otherwise.

    Raises:
        ValueError: as `make_source`, or if the dial cannot be reached or the solver fails in the first step.
    """

    def __init__(self, query: Query):
        self.query, self.number, self.ended = query, 0, ""
        self._system, source = evolution(query.system), make_source(query)
        dial, parameters = (torch.tensor(values, dtype=torch.float64) for values in (query.dial, query.parameters))
        coefficients = self._system.coefficients(dial, source.double(), parameters)
        self._given = coefficients.to(source.dtype)
        self.coefficients = dict(zip(self._system.coefficient_names, self._given.tolist(), strict=True))
        self._time = float(self._system.time(coefficients))
        self.source = source
        self._solver = self._system.states(source.double(), coefficients, STEPS)
        self._operators = {key: load() for key, load in query.operators.items() if load}
        self._found = dict.fromkeys(self._operators, source)
        self.errors: dict[str, list[float]] = {key: [] for key in self._operators}
        self.correlation: dict[str, float] = {}
        self.lost: dict[str, int] = {}
        self._seconds: dict[str, list[float]] = {key: [] for key in ("solver", *self._operators)}
        self._exact = self._timed("solver", next, self._solver)
        self._predict()

    @property
    def is_over(self) -> bool:
        """Whether there is no further step."""
        return self.number == STEPS or bool(self.ended)

    @torch.inference_mode()
    def advance(self) -> None:
        """Take the next step, of the solver and of every operator."""
        try:
            self._exact = self._timed("solver", next, self._solver)
        except ValueError as error:
            self.ended = str(error)
        else:
            self._predict()

    def _timed(self, key: str, take: Callable[..., Tensor], *arguments: Any) -> Tensor:
        began = time.perf_counter()
        found = take(*arguments)
        self._seconds[key].append(time.perf_counter() - began)
        return found

    @torch.inference_mode()
    def _predict(self) -> None:
        self.number += 1
        exact = self._exact.to(self.source.dtype)
        for key, operator in self._operators.items():
            last = self._found[key]
            if torch.isfinite(last).all():  # else it has blown up before
                found = self._timed(key, rollout, operator, last, self._given, 1, self._system)[1]
                largest = BLOWN_UP * self.source.abs().max().clamp(min=1)  # of the film, not of this step of it
                self._found[key] = torch.where(found.abs().max() < largest, found, torch.nan)
            self.errors[key].append(rollout_errors(self._found[key], exact).mean().item())
            self.correlation[key] = correlations(self._found[key], exact, self._system.output_axes).item()
            if self.correlation[key] < CORRELATED:
                self.lost.setdefault(key, self.number)

    def message(self) -> Message:
        """Header and arrays of the step taken last, as of a frame; of the first, the initial state too."""
        shown, query = drawn_field(self._system), self.query
        field = {key: state.view(-1, *state.shape[-2:])[shown] for key, state in self._found.items()}
        exact = self._exact.view(-1, *self._exact.shape[-2:])[shown].float()
        arrays = {"solution": exact} | {
            key: values - exact for key, values in field.items() if torch.isfinite(values).all()
        }
        if self.number == 1:
            arrays["source"] = self.source.view(-1, *exact.shape)[shown]
        header = {
            "system": query.system.name,
            "dial": query.dial,
            "points": query.resolution,
            "sentence": self.sentence(),
            "given": query.given,
            "rms": exact.square().mean().sqrt().item() or 1.0,
            "learning": list(query.learning),
            "step": self.number,
            "time": self._time,
            "lost": self.lost,
            "over": self.is_over,
            "numbers": {
                key: {"error": finite(errors[-1]), "correlation": self.correlation[key]}
                for key, errors in self.errors.items()
            },
        }
        return header, {name: values.numpy() for name, values in arrays.items()}

    def states(self) -> dict[str, Tensor]:
        """The exact ``solution`` after the step taken last, and by key what is predicted, with all fields."""
        return {"solution": self._exact.to(self.source.dtype), **self._found}

    def sentence(self) -> str:
        """How far the operators follow, and how long a step takes."""
        seconds = {key: statistics.median(values) for key, values in self._seconds.items() if values}
        names = {key: PREDICTIONS[key].name for key in self.errors}
        said = text.film_sentence(self.errors, self.lost, seconds, names, self.is_over)
        return text.FILM["ended"].format(said=said, reason=self.ended) if self.ended else said
