"""The fine-tuning card: settings, run and cancel, progress, learning curves, the kept results."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from functools import partial
from html import escape

import panel as pn
import panel_material_ui as pmui
from bokeh.models import ColumnDataSource, NumeralTickFormatter
from bokeh.plotting import figure

from sciml_fm_core.files import atomic_path
from sciml_fm_core.models.operator import Operator
from sciml_fm_core.physics.system import SYSTEMS

from . import text
from .bundles import user_folder
from .colours import COLOURS
from .exports import File, as_bundle, file_name
from .jobs import AdaptJob, JobState
from .parts import WIDE, Html, NumberInput, Select, WholeInput, plain
from .predictions import PREDICTIONS
from .serving import LIMITS, PUBLIC_SERVER
from .settings import Adapted, AdaptSettings
from .state import EQUATION, GRID, ExploreState

STAGES = {"testing": "Testing on held-out examples", "cancelled": "Cancelled, nothing kept"}
"""Stages of a job for which its own word is not enough."""
SHEET = """:host { flex: 0 0 360px !important; width: 360px; box-sizing: border-box; padding-left: 8px;
  border-left: 1px solid #8886 }
@media (max-width: 700px) { :host { position: fixed !important; inset: 48px 0 0 auto !important; z-index: 9;
  max-width: 100vw; overflow: auto; background: var(--mui-palette-background-default, Canvas) } }"""
"""It stands beside the stage, and on a phone over it."""


class AdaptView:
    """Settings of a fine-tuning and what becomes of it.

    Args:
        state: where settings and kept results live.
        on_loop: runs a function on the session's event loop; called from the training thread.
        send: gives a file to the browser.
    """

    def __init__(
        self,
        state: ExploreState,
        on_loop: Callable[[Callable[[], None]], None],
        send: Callable[[File], None] = lambda file: None,
    ):
        self.state, self._on_loop, self._send = state, on_loop, send
        self.job: AdaptJob | None = None
        self._following = self._pending = False
        self._latest: tuple[tuple[str, str], JobState] = (("", ""), JobState())
        self.examples = Select.from_param(state.param.examples, width=320)
        self.low = NumberInput(label="Dial from", step=0.1, width=150)
        self.high = NumberInput(label="to", step=0.1, width=150)
        self.rate = Select.from_param(state.param.learning_rate, width=150)
        self.steps = WholeInput.from_param(state.param.steps, step=10, width=150)
        self.follows = pmui.Checkbox.from_param(state.param.window_follows, size="small")
        self.run = pmui.Button(label="Fine-tune", color="primary", variant="contained", icon="play_arrow")
        self.cancel = pmui.Button(label="Cancel", color="error", variant="outlined", icon="stop", disabled=True)
        self.download = pmui.Button(label="Download the operator", variant="outlined", icon="download", disabled=True)
        folder = user_folder().name
        self.store = pmui.Button(label=f"Save it in {folder}", variant="outlined", icon="save", disabled=True)
        self.store.visible = not PUBLIC_SERVER  # there the folder is that of somebody else
        self.bar = Html()
        self.status = Html()
        self.curves = LearningCurves()
        self._show_progress(0.0)
        self._show_status("Nothing was trained yet.")

        for end in (self.low, self.high):
            end.param.watch(lambda _: self._window_edited(), "value")
        self.run.on_click(lambda _: self.start())
        self.cancel.on_click(lambda _: self.stop())
        self.download.on_click(lambda _: self._keep(self._send))
        self.store.on_click(lambda _: self._keep(self._store))
        state.param.watch(lambda *_: self.refresh(), ["kept", "shown", "system_name", "bundle_name"])
        # One that follows the dial is shown when that rests, see `follow_window`.
        state.param.watch(
            lambda *_: None if state.window_follows else self.follow_window(), ["window", "window_follows"]
        )
        self.refresh()

    # Settings -------------------------------------------------------------------------------------------------------

    def _window_edited(self) -> None:
        low, high = self.low.value, self.high.value
        if self._following or low is None or high is None or (low, high) == self.state.window:
            return
        try:
            self.state.set_window(low, high)
        except ValueError as error:
            self._show_status(f"The window: {error}.", "error")

    def refresh(self) -> None:
        """Follow the state."""
        state = self.state
        self.follow_window()
        self.download.disabled = self.store.disabled = self._own is None
        if self.job is None or self.job.state.over:
            current = state.current
            if current:
                self._show_summary(current)
            else:
                words = "No fine-tuning is shown." if state.adapted else "Nothing was trained from it yet."
                self._show_status(words)
            self.curves.paint(current.curves if current else {})

    def follow_window(self) -> None:
        """Show the window as it is; not at every move of the dial, which would have to wait for it."""
        if (self.low.value, self.high.value) != self.state.window:
            # A window half changed would look like one that the visitor edited.
            self._following = True
            self.low.value, self.high.value = self.state.window
            self._following = False

    # Running --------------------------------------------------------------------------------------------------------

    def start(self) -> None:
        """Run a fine-tuning with the settings as they are."""
        if self.job is not None and not self.job.state.over:
            self._show_status("A training of this page runs already: wait until it is done, or cancel it.", "error")
            return
        state = self.state
        try:
            settings, load = state.settings(), state.loader()
            LIMITS.check(settings)
        except ValueError as error:
            self._show_status(str(error), "error")
            return
        owner = (state.system_name, state.bundle_name)
        self.run.disabled, self.cancel.disabled = True, False
        self.job = AdaptJob(load, settings, partial(self._published, owner))
        self.job.start()

    def again(self, settings: AdaptSettings) -> None:
        """Train what settings ask for, where this page offers it."""
        state = self.state
        try:
            LIMITS.check(settings)
            state.examples = EQUATION if settings.physics else settings.examples
            state.set_window(settings.task.low, settings.task.high)
            state.param.update(steps=settings.steps, learning_rate=settings.learning_rate or GRID)
        except ValueError as error:
            self._show_status(str(error), "error")
        else:
            self.start()

    @property
    def _own(self) -> Operator | None:
        """The fine-tuned operator shown, if it was trained live: those that ship are there already."""
        found = self.state.current.operators.get("fine_tuned") if self.state.current else None
        return found if isinstance(found, Operator) else None

    def _keep(self, give: Callable[[File], None]) -> None:
        operator, state = self._own, self.state
        if operator is None:  # a browser can press what is disabled
            return
        try:
            give(as_bundle(operator, file_name(state.current, state.bundle_name)))
        except (OSError, ValueError) as error:
            self._show_status(f"Not saved: {error}", "error")

    def _store(self, file: File) -> None:
        if PUBLIC_SERVER:
            return
        path = user_folder() / file.name
        if path.exists() and path.read_bytes() != file.content:
            path = path.with_name(f"{path.stem}-{time.strftime('%Y%m%d-%H%M%S')}.safetensors")
        path.parent.mkdir(parents=True, exist_ok=True)
        with atomic_path(path) as unfinished:
            unfinished.write_bytes(file.content)
        self._show_status(f"Saved as {path}; the menu Model has it when the page is loaded again.")

    def stop(self) -> None:
        """Cancel what runs."""
        if self.job is not None:
            self.job.cancel()

    def _published(self, owner: tuple[str, str], job: JobState) -> None:
        """Called in the training thread: the page shows the latest state, however fast they come."""
        self._latest = owner, job
        if not self._pending:
            self._pending = True
            self._on_loop(self._show_latest)

    def _show_latest(self) -> None:
        self._pending = False
        self._follow(*self._latest)

    def _follow(self, owner: tuple[str, str], job: JobState) -> None:
        self._show_progress(job.fraction)
        self.curves.paint(job.curves)
        elsewhere = owner != (self.state.system_name, self.state.bundle_name)
        if job.over:
            self.run.disabled, self.cancel.disabled = False, True
            self._show_progress(1.0 if job.stage == "done" else 0.0)
            if job.result is not None:
                self.state.keep(owner, job.result)
        self.state.live = {} if job.over or elsewhere else job.operators
        if job.result is not None and not elsewhere:
            self._show_summary(job.result)
            return
        words = STAGES.get(job.stage, job.stage.capitalize())
        if job.stage == "waiting":
            words += f": {job.ahead} before this one in the queue"
        if job.seconds_left is not None and not job.over:
            words += f", about {math.ceil(job.seconds_left)} s left"
        if job.message:
            words += f": {job.message}"
        if elsewhere:
            words = f"{SYSTEMS[owner[0]].title}, {owner[1]}: {words}"
        self._show_status(words, "error" if job.stage == "failed" else "info")

    def _show_progress(self, fraction: float) -> None:
        look = f"width:100%;accent-color:{COLOURS['pretrained']}"
        self.bar.object = f"<progress aria-label='Progress of the fine-tuning' value='{fraction:.2f}' style='{look}'>"

    def _show_status(self, words: str, kind: str = "info") -> None:
        if kind == "error":
            self.status.object = text.message(words, "error", "adapt-status")
        else:
            self._show_html(escape(words))

    def _show_summary(self, adapted: Adapted) -> None:
        self._show_html(_summary(adapted))

    def _show_html(self, html: str) -> None:
        self.status.object = f"<div role='status' data-test='adapt-status' style='font-size:13px'>{html}</div>"

    # Layout ---------------------------------------------------------------------------------------------------------

    def layout(self) -> pn.viewable.Viewable:
        """The sheet, which is closed at first."""
        close = pmui.IconButton(icon="close", label="Close", description="Close", size="small", margin=0)
        close.on_click(lambda _: self.state.param.update(training=False))
        return pn.Column(
            pn.Row(Html(text.title("Fine-tune on few examples, or none")), close, **WIDE),
            pn.FlexBox(
                self.examples,
                self.low,
                self.high,
                self.follows,
                self.rate,
                self.steps,
                align_items="center",
                margin=0,
            ),
            pn.FlexBox(self.run, self.cancel, self.download, self.store, margin=0),
            self.bar,
            self.status,
            self.curves.pane,
            visible=False,
            stylesheets=[SHEET],
        )


def _summary(adapted: Adapted) -> str:
    """Write the errors of a fine-tuning as HTML."""
    settings, rates = adapted.settings, adapted.learning_rates
    errors = " and ".join(
        f"<b data-test='kept-{key}'>{text.percent(error)}</b> {PREDICTIONS[key].name.lower()}"
        for key, error in adapted.errors.items()
    )
    rate = ", learning rate " + " and ".join(dict.fromkeys(f"{rate:g}" for rate in rates.values())) if rates else ""
    task = escape(settings.task.label)
    return (
        f"The mean error on held-out examples of {task} is {errors}, after training on {settings.given}, "
        f"{settings.steps} steps{rate}."
    )


def _empty() -> ColumnDataSource:
    return ColumnDataSource({"x": [], "y": []})


class LearningCurves:
    """Training loss and validation error by step, of the operators that a fine-tuning trains."""

    def __init__(self) -> None:
        fig = figure(
            height=190, sizing_mode="stretch_width", y_axis_type="log", tools="", toolbar_location=None, min_border=2
        )
        plain(fig)
        fig.yaxis.formatter = NumeralTickFormatter(format="0.[000]a")
        fig.name = "Learning curves"
        fig.xaxis.axis_label, fig.yaxis.axis_label = "step", "loss, error"
        self._loss, self._validation = {}, {}
        for key, predictor in PREDICTIONS.items():
            if predictor.train:
                loss, validation = self._loss[key], self._validation[key] = _empty(), _empty()
                fig.line("x", "y", source=loss, color=predictor.color, line_alpha=0.5)
                fig.line("x", "y", source=validation, color=predictor.color, line_width=2)
                fig.scatter("x", "y", source=validation, color=predictor.color, size=5)
        self._figure = fig
        self.pane = pn.pane.Bokeh(None, height=190, **WIDE)  # an empty logarithmic axis would be complained of

    def paint(self, curves: dict[str, tuple[tuple[int, float, float | None], ...]]) -> None:
        """Show rows (step, loss, validation error or None)."""
        for name, loss in self._loss.items():
            rows = curves.get(name, ())
            loss.data = {"x": [row[0] for row in rows], "y": [row[1] for row in rows]}
            validated = [row for row in rows if row[2] is not None]
            self._validation[name].data = {"x": [row[0] for row in validated], "y": [row[2] for row in validated]}
        if self.pane.object is None and any(curves.values()):
            self.pane.object = self._figure
