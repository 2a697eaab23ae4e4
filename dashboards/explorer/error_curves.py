"""The error along the dial, measured in the background: the curves over which the dial is turned."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from threading import Event
from weakref import WeakKeyDictionary

import torch

from sciml_fm_core.evaluation.errors import error_map
from sciml_fm_core.evaluation.training_range import TrainingRange
from sciml_fm_core.models.operator import Operator
from sciml_fm_core.physics.system import System

from .compute import Query, coarse_to_fine, sweep_sources
from .limits import give_way
from .state import ExploreState

Curves = dict[str, list[tuple[float, float]]]
"""Pairs of a value of the dial and the mean error there, by key of `PREDICTIONS`."""

SWEEPS = ThreadPoolExecutor(1, thread_name_prefix="sweeps", initializer=give_way)
KNOWN: WeakKeyDictionary[Operator, Curves] = WeakKeyDictionary()
"""Errors along the dial that are known, by operator and system: sessions that share an operator share its curve."""
BATCH = 4
"""Values of the dial measured at once: the curve grows while the rest is still measured."""
ROUGH_VALUES, ROUGH_SOURCES = 12, 2
"""Of the curve of an operator that trains."""

log = logging.getLogger(__name__)


class ErrorCurves:
    """The curves of one session.

    Args:
        state: of the page.
        tell: sends a message to the stage, as `Stage.tell`.
        on_loop: runs a function on the session's event loop, called from any thread.
        changed: called on the loop when the curves are others.
    """

    def __init__(
        self,
        state: ExploreState,
        tell: Callable[..., None],
        on_loop: Callable[[Callable[[], None]], None],
        changed: Callable[[], None],
    ):
        self.state, self._tell, self._on_loop, self._changed = state, tell, on_loop, changed
        self.curves: Curves = {}
        self._stop = Event()
        self._rough: Future | None = None
        state.param.watch(lambda *_: self._changed_state(), ["system_name", "bundle_name", "shown", "live"])

    def mean(self, key: str, dial: float) -> float | None:
        """Mean error at a value of the dial, None where the curve does not reach it yet."""
        return mean_at(dial, self.curves.get(key, []))

    def close(self) -> None:
        """Measure no more."""
        self._stop.set()

    def request(self) -> None:
        """Measure the curves anew, off the event loop; they fill in from coarse to fine."""
        self._stop.set()
        stop = self._stop = Event()
        query, values = self.state.query(), self.state.scale.sweep()
        self.curves = {}
        self._tell("curves", reset=True, curves={})
        SWEEPS.submit(self._measure, query, values, stop)

    def _measure(self, query: Query, values: list[float], stop: Event) -> None:
        if stop.is_set():  # while it waited
            return
        try:
            operators = {name: load() for name, load in query.operators.items() if load and not stop.is_set()}
            curves = {
                name: KNOWN.setdefault(operator, {}).setdefault(query.system.name, [])
                for name, operator in operators.items()
            }
            self._told(curves, stop)
            sources = sweep_sources(query.system)
            done = {name: {value for value, _ in known} for name, known in curves.items()}
            order = [values[index] for index in coarse_to_fine(len(values))]
            for first in range(0, len(order), BATCH):
                batch = order[first : first + BATCH]
                lacking = [name for name in curves if not done[name].issuperset(batch)]
                if stop.is_set() or not lacking:
                    continue
                dial = torch.tensor(batch, dtype=torch.float64)
                own = [operators[name] for name in lacking]
                found = error_map(own, sources.source, dial, sources.parameters, query.system)
                for name, errors in zip(lacking, found.tolist(), strict=True):
                    pairs = zip(batch, errors, strict=True)
                    curves[name] += [pair for pair in pairs if pair[0] not in done[name]]
                self._told(curves, stop)
            judged = operators.get("zero_shot")
            if judged is not None and judged.tasks and TrainingRange.known(judged) is None and not stop.is_set():
                TrainingRange.of(judged)  # what is expected beforehand: the sentence of the page tells it from now on
                self._told(curves, stop)
        except Exception:
            log.exception("measuring the error along the dial failed")

    def _told(self, curves: Curves, stop: Event) -> None:
        # What a source cannot reach is known too, as NaN, and not measured again.
        finite = {name: {pair for pair in known if math.isfinite(pair[1])} for name, known in curves.items()}
        shown = {name: sorted(known) for name, known in finite.items()}
        self._on_loop(partial(self._show, shown, stop))

    def _show(self, curves: Curves, stop: Event) -> None:
        if not stop.is_set():
            self.curves = curves
            self._tell("curves", curves=curves)
            self._changed()

    def _changed_state(self) -> None:
        """Measure anew, or follow an operator that trains, roughly: what it learns, and what it forgets."""
        live = self.state.live
        if not live:
            self.request()
        elif self._rough is None or self._rough.done():
            self._stop.set()
            values = self.state.scale.sweep(ROUGH_VALUES)
            self._rough = SWEEPS.submit(self._measure_roughly, dict(live), self.state.system, values)

    def _measure_roughly(self, operators: dict[str, Operator], system: System, values: list[float]) -> None:
        try:
            sources = sweep_sources(system, ROUGH_SOURCES)
            dial = torch.tensor(values, dtype=torch.float64)
            found = error_map(list(operators.values()), sources.source, dial, sources.parameters, system).tolist()
        except Exception:
            log.exception("measuring the error along the dial failed")
            return
        curves = {
            name: [pair for pair in zip(values, errors, strict=True) if math.isfinite(pair[1])]
            for name, errors in zip(operators, found, strict=True)
        }
        self._on_loop(lambda: self._tell("curves", curves=curves) if self.state.live else None)


def mean_at(dial: float, curve: list[tuple[float, float]]) -> float | None:
    """Error between the neighbours of a value on a curve, on a logarithmic scale; None beyond its ends.

    >>> mean_at(2, [(3, 0.04), (1, 0.01)])
    0.02
    """
    below = max((point for point in curve if point[0] <= dial), default=None)
    above = min((point for point in curve if point[0] >= dial), default=None)
    if below is None or above is None:
        return None
    share = (dial - below[0]) / (above[0] - below[0]) if above[0] > below[0] else 0.0
    return math.exp((1 - share) * math.log(below[1]) + share * math.log(above[1]))
