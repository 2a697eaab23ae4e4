"""One visitor's page: wires the state to the views, and keeps heavy work off the event loop."""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from threading import Event

import panel as pn
import panel_material_ui as pmui
import torch

from sciml_fm_core.evaluation.errors import error_map
from sciml_fm_core.models.operator import Operator, load_operator
from sciml_fm_core.physics.system import System

from . import text
from .adapt import AdaptView
from .bundles import Bundle, find_bundles
from .compute import Frame, coarse_to_fine, compute, sweep_sources
from .controls import DialControls, SourceControls, SystemControls
from .curves import DialErrors
from .fields import FieldsView
from .parts import Html, column, show
from .predictions import PREDICTIONS
from .state import ExploreState

TITLE = "Explore pre-trained neural operators"
INTRODUCTION = """
<div style='font-size:14px;line-height:1.45'>A neural operator was pre-trained to solve a PDE for parameters in one
range. <b>Turn the dial</b> out of that range and see where its predictions break; <b>fine-tune</b> on a few examples
and see how little mends them, beside the same network trained from scratch. The spectral solver is exact and far
faster than any network on these equations: nothing here is about speed, but about what networks learn and how it
transfers.</div>
"""

FRAMES = ThreadPoolExecutor(1, thread_name_prefix="frames")
"""One warm thread for the fields of all sessions: a prediction uses every core as it is."""
SWEEPS = ThreadPoolExecutor(1, thread_name_prefix="sweeps")
SWEEP_BATCH = 4
"""Values of the dial measured at once: the curve grows while the rest is still measured."""

PUBLISH_MILLISECONDS = 120

log = logging.getLogger(__name__)


def shared_operator(bundle: Bundle) -> Operator:
    """Weights of a bundle, loaded once for all sessions and never changed."""
    return pn.state.as_cached(f"operator {bundle.version}", load_operator, name_or_path=str(bundle.path))


class Explorer:
    """The page of one session."""

    def __init__(self, state: ExploreState | None = None):
        bundles, problems = find_bundles()
        self.state = state or ExploreState(bundles, shared_operator)
        self._document = pn.state.curdoc
        try:
            self._loop: asyncio.AbstractEventLoop | None = asyncio.get_running_loop()
        except RuntimeError:
            self._loop = None  # outside a server
        self._thread = threading.get_ident()
        self.notice = Html(text.message("; ".join(problems)) if problems else "")
        self.system = SystemControls(self.state)
        self.dial = DialControls(self.state)
        self.source = SourceControls(self.state)
        self.fields = FieldsView(self.source.edited)
        self.errors = DialErrors(self.state.set_dial)
        self.adapt = AdaptView(self.state, self.on_loop)
        self._wanted = self._painted = 0
        self._task: asyncio.Task | None = None
        self._sweep_stop = Event()
        self._known_curves: dict[tuple, list[tuple[float, float]]] = {}

        self.state.param.watch(
            lambda *_: self.request_frame(),
            ["system_name", "bundle_name", "dial", "parameters", "drawn", "seed", "sparsity", "gaussians", "shown"],
        )
        self.state.param.watch(lambda *_: self._new_scale(), ["system_name", "bundle_name"])
        self.state.param.watch(lambda *_: self.request_sweep(), ["system_name", "bundle_name", "shown"])
        self._new_scale()
        self._paint(self._attempt())
        pn.state.onload(self.request_sweep)
        pn.state.on_session_destroyed(lambda _: self.close())

    def on_loop(self, function: Callable[[], None]) -> None:
        """Run a function on the session's event loop; may be called from any thread."""
        if self._loop is None or self._document is None:
            function()
        elif threading.get_ident() == self._thread:
            self._document.add_next_tick_callback(function)
        else:
            # From another thread, and not at once: a browser that is still painting the last message gets no burst.
            self._loop.call_soon_threadsafe(self._document.add_timeout_callback, function, PUBLISH_MILLISECONDS)

    def close(self) -> None:
        """Stop whatever still works for this session."""
        self.adapt.stop()
        self._sweep_stop.set()

    # Fields ---------------------------------------------------------------------------------------------------------

    def request_frame(self) -> None:
        """Compute the fields anew; requests that arrive meanwhile are answered by one further frame, the latest."""
        self._wanted += 1
        if self._task is None or self._task.done():
            self._task = asyncio.get_running_loop().create_task(self._frames())

    async def _frames(self) -> None:
        loop = asyncio.get_running_loop()
        while self._painted != self._wanted:
            self._painted = self._wanted
            query = self.state.query()
            outcome = await loop.run_in_executor(FRAMES, self._attempt, query)
            self.on_loop(partial(self._paint, outcome))

    def _attempt(self, query=None) -> Frame | str:
        """A frame, or the reason why there is none."""
        try:
            return compute(query or self.state.query())
        except (ValueError, ArithmeticError) as error:
            return str(error)
        except Exception:
            log.exception("computing the fields failed")
            return "Computing the fields failed; the server's log says why."

    def _paint(self, outcome: Frame | str) -> None:
        state = self.state
        self.fields.show_points(state.gaussians if state.drawn else [])
        if isinstance(outcome, str):
            self.notice.object = text.message(_kindly(outcome))
            return
        if outcome.query.system is not state.system:
            return  # overtaken by a change of system
        show(self.notice, "")
        self.fields.paint(outcome, state.current.settings.given if state.current else "")
        show(self.system.equation, text.equation(state.system, outcome.coefficients))
        self.errors.set_present(
            outcome.query.dial,
            {name: p.relative_error if p else None for name, p in outcome.predictions.items()},
        )

    # Error along the dial -------------------------------------------------------------------------------------------

    def _new_scale(self) -> None:
        state = self.state
        self.errors.set_scale(state.scale, state.trained_range)
        self.errors.set_present(state.dial, dict.fromkeys(PREDICTIONS))

    def request_sweep(self) -> None:
        """Measure the error along the dial anew, off the event loop; the curve fills in from coarse to fine."""
        self._sweep_stop.set()
        stop = self._sweep_stop = Event()
        state = self.state
        query, values = state.query(), state.scale.sweep()
        wanted: dict[str, tuple[Callable[[], Operator], list[tuple[float, float]]]] = {}
        result = state.current and state.current.finished
        for name, predictor in PREDICTIONS.items():
            load = query.operators[name]
            if load is None:
                self.on_loop(partial(self.errors.set_curve, name, []))
                continue
            key = (state.system_name, state.bundle_name, name, result if predictor.adapted else None)
            known = self._known_curves.setdefault(key, [])
            self.on_loop(partial(self.errors.set_curve, name, list(known)))
            if len(known) < len(values):
                wanted[name] = load, known
        if wanted:
            SWEEPS.submit(self._sweep, wanted, state.system, values, stop)

    def _sweep(
        self,
        wanted: dict[str, tuple[Callable[[], Operator], list[tuple[float, float]]]],
        system: System,
        values: list[float],
        stop: Event,
    ) -> None:
        try:
            operators = [load() for load, _ in wanted.values()]
            curves = {name: known for name, (_, known) in wanted.items()}
            sources = sweep_sources(system)
            done = {name: {value for value, _ in known} for name, known in curves.items()}
            in_all = set.intersection(*done.values())
            order = [values[index] for index in coarse_to_fine(len(values)) if values[index] not in in_all]
            for first in range(0, len(order), SWEEP_BATCH):
                batch = order[first : first + SWEEP_BATCH]
                if stop.is_set():
                    return
                dial = torch.tensor(batch, dtype=torch.float64)
                found = error_map(operators, sources.source, dial, sources.parameters, system)
                for (name, known), errors in zip(curves.items(), found.tolist(), strict=True):
                    known += [point for point in zip(batch, errors, strict=True) if point[0] not in done[name]]
                    self.on_loop(partial(self._show_curve, name, list(known), stop))
        except Exception:
            log.exception("measuring the error along the dial failed")

    def _show_curve(self, name: str, points: list[tuple[float, float]], stop: Event) -> None:
        if not stop.is_set():
            self.errors.set_curve(name, points)

    # Layout ---------------------------------------------------------------------------------------------------------

    def page(self) -> pmui.Page:
        """The whole page."""
        along = text.title(
            "Error along the dial", "mean over 8 random sources; band: pre-training range; click to go there"
        )
        errors = column(Html(along, margin=0), self.errors.pane, share="3 1 0", margin=(0, 10))
        adapt = column(self.adapt.layout(), share="2 1 0", margin=(0, 6))
        return pmui.Page(
            title=TITLE,
            header=[pn.pane.HTML(text.page_link("Studies", "studies"), margin=(0, 10))],
            sidebar=[*self.system.layout(), self.dial.box, pmui.Divider(), *self.source.layout()],
            sidebar_width=320,
            main=[
                pn.Column(
                    Html(INTRODUCTION, margin=0),
                    self.notice,
                    self.fields.layout(),
                    pn.Row(errors, adapt, sizing_mode="stretch_width", margin=(10, 0)),
                    sizing_mode="stretch_width",
                    margin=(4, 14),
                )
            ],
        )


def _kindly(reason: str) -> str:
    """A message of the core, as a sentence."""
    return reason[:1].upper() + reason[1:] + ("" if reason.endswith(".") else ".")
