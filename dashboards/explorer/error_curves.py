"""The error along the dial, measured in the background: the curves over which the dial is turned."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future
from threading import Event
from weakref import WeakKeyDictionary

import torch
from torch import Tensor

from sciml_fm_core.data.splits import stream
from sciml_fm_core.evaluation.errors import error_map
from sciml_fm_core.experiments.training_range.method import TrainingRange
from sciml_fm_core.models.operator import Operator
from sciml_fm_core.physics.sources import draw_amplitudes, normalize, render
from sciml_fm_core.physics.spectral_system import is_spectral
from sciml_fm_core.physics.system import System
from sciml_fm_core.physics.tasks import SPARSITIES

from .compute import Query, is_drawn_as_gaussians
from .state import ExploreState
from .workers import SWEEPS, Background

Curves = dict[str, list[tuple[float, float]]]
"""Pairs of a value of the dial and the mean error there, by key of `PREDICTIONS`."""

RESOLUTION = 64
SOURCES = 8
KNOWN: WeakKeyDictionary[Operator, Curves] = WeakKeyDictionary()
"""Errors along the dial that are known, by operator and system: sessions that share an operator share its curve."""
BATCH = 4
"""Values of the dial measured at once: the curve grows while the rest is still measured."""
ROUGH_VALUES, ROUGH_SOURCES = 12, 2
"""Values of the dial and sources for the curve of an operator in training."""


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
        self.state, self._tell, self._changed = state, tell, changed
        self._work = Background(SWEEPS, on_loop)
        self._rough: Future | None = None
        state.param.watch(lambda *_: self._changed_state(), ["system_name", "bundle_name", "shown", "live"])

    def close(self) -> None:
        """Measure no more."""
        self._work.end()

    def settled(self) -> None:
        """The dial rests: measure where it stands."""
        query = self.state.query()
        if not self.state.live and mean_of(query) is None:
            self._work.begin(self._measure, query, [], beside=True)

    def request(self) -> None:
        """Measure the curves anew, off the event loop; where the dial stands, then from coarse to fine."""
        self._tell("curves", reset=True, curves={})
        self._work.begin(self._measure, self.state.query(), along(self.state.system))

    def _measure(self, query: Query, values: list[float], stop: Event) -> None:
        operators = {name: load() for name, load in query.operators.items() if load and not stop.is_set()}
        curves = {
            name: KNOWN.setdefault(operator, {}).setdefault(query.system.name, [])
            for name, operator in operators.items()
        }
        self._told(query.system, curves, stop)
        done = {name: {value for value, _ in known} for name, known in curves.items()}
        order = list(dict.fromkeys([query.dial, *(values[index] for index in coarse_to_fine(len(values)))]))
        for first in range(0, len(order), BATCH):
            batch = order[first : first + BATCH]
            lacking = [name for name in curves if not done[name].issuperset(batch)]
            if stop.is_set() or not lacking:
                continue
            found = mean_errors([operators[name] for name in lacking], batch, query.system)
            for name, errors in zip(lacking, found, strict=True):
                pairs = zip(batch, errors, strict=True)
                curves[name] += [pair for pair in pairs if pair[0] not in done[name]]
            self._told(query.system, curves, stop)
        judged = operators.get("zero_shot")
        told = judged is not None and all(is_spectral(system) for system in judged.systems)
        if told and judged.tasks and TrainingRange.known(judged) is None and not stop.is_set():
            TrainingRange.of(judged)  # what is expected beforehand: the sentence of the page tells it from now on
            self._told(query.system, curves, stop)

    def _told(self, system: System, curves: Curves, stop: Event) -> None:
        # What a source cannot reach is known too, as NaN, and not measured again.
        drawn = set(along(system))
        finite = {name: {pair for pair in known if math.isfinite(pair[1])} for name, known in curves.items()}
        shown = {name: sorted(pair for pair in known if pair[0] in drawn) for name, known in finite.items()}
        self._work.show(stop, self._show, shown)

    def _show(self, curves: Curves) -> None:
        self._tell("curves", curves=curves)
        self._changed()

    def _changed_state(self) -> None:
        """Measure anew, or follow an operator that trains, roughly: what it learns, and what it forgets."""
        live = self.state.live
        if not live:
            self.request()
        elif self._rough is None or self._rough.done():
            values = self.state.scale.sweep(ROUGH_VALUES)
            self._rough = self._work.begin(self._measure_roughly, dict(live), self.state.system, values)

    def _measure_roughly(
        self, operators: dict[str, Operator], system: System, values: list[float], stop: Event
    ) -> None:
        found = mean_errors(list(operators.values()), values, system, ROUGH_SOURCES)
        curves = {
            name: [pair for pair in zip(values, errors, strict=True) if math.isfinite(pair[1])]
            for name, errors in zip(operators, found, strict=True)
        }
        self._work.show(stop, self._tell, "curves", curves=curves)


def mean_errors(
    operators: Sequence[Operator], values: Sequence[float], system: System, count: int = SOURCES
) -> list[list[float]]:
    """Measure the mean error over random sources, a row for each operator, NaN where a source cannot reach the dial."""
    source, parameters = sweep_sources(system, count)
    dial = torch.tensor(values, dtype=torch.float64)
    return error_map(operators, source, dial, parameters, system).tolist()


def sweep_sources(system: System, count: int = SOURCES) -> tuple[Tensor, Tensor]:
    """Draw the sources, and the other parameters, over which the error along the dial is averaged.

    They are the same every time, with the sparsities of the paper's tasks in equal shares.
    """
    generator = stream(0, "explore", "sweep")
    amplitudes, parameters = sweep_amplitudes(system, generator, count)
    if not is_drawn_as_gaussians(system):
        dial = torch.full((count,), system.dialled.default, dtype=torch.float64)
        return system.draw(dial, parameters, (RESOLUTION, RESOLUTION), generator).float(), parameters
    return normalize(render(amplitudes, RESOLUTION), zero_mean=system.zero_mean), parameters


def sweep_amplitudes(system: System, generator: torch.Generator, count: int = SOURCES) -> tuple[Tensor, Tensor]:
    """Amplitudes of Gaussians (count, 12, 12) of such sources, where they are Gaussians, and the parameters."""
    sparsity = torch.tensor(SPARSITIES)[torch.arange(count) % len(SPARSITIES)]
    amplitudes = draw_amplitudes(sparsity, generator)
    uniform = torch.rand(count, len(system.parameters), generator=generator, dtype=torch.float64)
    low = torch.tensor([p.low for p in system.parameters], dtype=torch.float64)
    high = torch.tensor([p.high for p in system.parameters], dtype=torch.float64)
    return amplitudes, low + uniform * (high - low)


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


def along(system: System) -> list[float]:
    """Values of the dial on a curve: all of them between whole numbers, where the error comes and goes with each."""
    return system.dialled.values() if system.dialled.whole else system.dialled.sweep()


def mean_of(query: Query, key: str = "zero_shot") -> float | None:
    """Mean error over several random sources of an operator of a query, where it stands; None where it is not known."""
    load = query.operators.get(key)
    return mean_at(query.dial, KNOWN.get(load(), {}).get(query.system.name, [])) if load else None


def mean_at(dial: float, curve: list[tuple[float, float]]) -> float | None:
    """Error at a value on a curve, None where it was not measured: next to a resonance its neighbours tell nothing.

    >>> mean_at(3, [(3, 0.04), (1, 0.01)])
    0.04
    """
    return next((error for value, error in list(curve) if value == dial and math.isfinite(error)), None)
