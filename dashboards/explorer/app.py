"""One visitor's page: wires the state to the views, and keeps heavy work off the event loop."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import math
import sys
import threading
from collections.abc import Callable, Coroutine
from concurrent.futures import Executor, Future
from functools import partial

import numpy as np
import panel as pn
import panel_material_ui as pmui

from sciml_fm_core.cpu import use_threads
from sciml_fm_core.models.ensemble import Ensemble, load_ensemble, shipped_ensembles
from sciml_fm_core.models.operator import Operator, load_operator

from . import text
from .adapt import AdaptView
from .bundles import Bundle, find_bundles
from .compute import Frame, Query, Spread, compute, compute_together, expected, spread_of
from .controls import ParameterControls, SourceControls
from .error_curves import ErrorCurves, mean_of
from .exports import File, as_hdf5, as_npz, program
from .lesson_card import LessonCard
from .link import gaussians, query_of, restore, settings_of
from .page import dashboard_page
from .pages import address_of, own_query
from .parts import Html
from .serving import Allowance, BatchingQueue, TooMuch
from .settings import AdaptSettings
from .shipped import shipped_results
from .stage import Stage, frame_message, setup_message, spread_message
from .state import ExploreState
from .tabs import INSIGHTS, Tabs

TITLE = "Explore pre-trained neural operators"

sys.setswitchinterval(5e-4)
"""A network is a thousand short operations, and after each its thread waits for the interpreter: with Python's own five
milliseconds the event loop, busy with one message, would hold up the frame of another."""
use_threads()
"""The server needs the core that is left. PyTorch keeps the number for each thread, and one that begins takes the last
that was set anywhere, so this holds for every frame and training of the page."""
FRAMES = BatchingQueue("frames")
"""For the fields of all sessions, in the order in which they ask, several at once where several wait."""
POINT = ["system_name", "bundle_name", "dial", "parameters", "drawn", "seed", "sparsity", "gaussians"]
"""What a frame is of, by the names of `ExploreState`."""

OFTEN = ("dial", "turn", "changes", "painted", "window", "across", "gaussians", "random")
"""What a stage says at each move of a hand, and is cheap to hear: of many, one frame is made."""
CHOICES_PER_SECOND = 10
"""Of the other messages of a stage, which change the whole page, in the mean; what comes beyond is not heard."""
PUBLISH_MILLISECONDS = 120
PATIENCE_SECONDS = 0.5
"""How long the next frame waits for a browser to say that it has painted the last one."""
AS_HIGH_AS_IT_IS = {"max-height": "none"}
"""Bokeh allows no more than the window has, and what is higher would lie over what follows it."""
SETTLED_MILLISECONDS = 300
"""After a move that no other follows for so long, what is not on the stage follows too."""

log = logging.getLogger(__name__)


def shared_operator(bundle: Bundle) -> Operator:
    """Weights of a bundle, loaded once for all sessions and never changed."""
    return pn.state.as_cached(f"operator {bundle.version}", load_operator, name_or_path=str(bundle.path))


def shared_ensemble(name: str) -> Ensemble:
    """A shipped ensemble, loaded once for all sessions and never changed."""
    return pn.state.as_cached(f"ensemble {name}", load_ensemble, name_or_path=shipped_ensembles()[name])


def opening_state() -> tuple[ExploreState, list[str]]:
    """A fresh page on the operators that there are, and what is wrong with those that could not be read."""
    bundles, problems = find_bundles()
    return ExploreState(bundles, shared_operator, kept=shipped_results()), problems


class Explorer:
    """The page of one session."""

    def __init__(self, state: ExploreState | None = None):
        self.state, problems = (state, []) if state else opening_state()
        arguments = {name: values[-1].decode("utf-8", "replace") for name, values in pn.state.session_args.items()}
        left_out = restore(self.state, arguments)
        self._document = pn.state.curdoc
        self._closed = False
        try:
            self._loop: asyncio.AbstractEventLoop | None = asyncio.get_running_loop()
        except RuntimeError:
            self._loop = None  # outside a server
        self._thread = threading.get_ident()
        self.stage = Stage(self._heard, sizing_mode="stretch_width", margin=(0, 4), styles=AS_HIGH_AS_IT_IS)
        self.parameters = ParameterControls(self.state)
        self.source = SourceControls(self.state)
        self.adapt = AdaptView(self.state, self.on_loop)
        self.lesson = LessonCard(self.state, self.stage.tell, FRAMES)
        self.curves = ErrorCurves(self.state, self.stage.tell, self.on_loop, self._curves_changed)
        self.tabs = Tabs(self.state, self.stage.tell, self.on_loop)
        problems += self.lesson.problems
        self._problems = problems
        self.problems = Html()
        self._tell_problems(left_out)
        self.again = pmui.Button(label="Train it again", size="small", variant="outlined", icon="replay")
        self.again.on_click(lambda _: self._train_again())
        self.live = pmui.Accordion(
            ("Train live: fine-tune on your own window", self.adapt.layout()), active=[], sizing_mode="stretch_width"
        )
        self.live.param.watch(self._training_opened, "active")
        self._offer_again()
        self._wanted = self._computed = self._sent = self._seen = 0
        self._acknowledged = asyncio.Event()
        self._task: asyncio.Task | None = None
        self._working: set[asyncio.Task] = set()
        self._choices = Allowance(CHOICES_PER_SECOND)
        self._asked: dict[str, asyncio.Task] = {}
        self._turn = self._changes = 0
        self._settling: asyncio.TimerHandle | None = None
        self._spreading: Future[Spread | None] = Future()
        self._last: Frame | None = None
        self._drawer_open = False

        state = self.state
        state.param.watch(lambda *_: self.request_frame(), [*POINT, "shown", "live"])
        state.param.watch(
            lambda *_: self._set_up(), ["system_name", "bundle_name", "shown", "kept", "drawn", "training", "gone"]
        )
        state.param.watch(lambda *_: self._window_moved(), "window")
        state.param.watch(self._gone_changed, "gone")
        pn.state.on_session_destroyed(lambda _: self.close())

    # What the browser says ------------------------------------------------------------------------------------------

    def _heard(self, message: dict) -> None:
        """Act on a message of the stage; what makes no sense is left alone, as anybody can send anything."""
        if self._loop is not None and threading.get_ident() != self._thread:
            # A kernel of Jupyter may hear in threads of its own; answers of two threads would mix on their way.
            self._loop.call_soon_threadsafe(self._heard, message)
            return
        for name, value in message.items():
            act = getattr(self, f"_hear_{name}", None)
            try:
                if act is not None and (name in OFTEN or self._choices.take()):
                    act(value)
            except TooMuch as refusal:
                self.stage.tell("notice", text=str(refusal))
            except (TypeError, ValueError, LookupError, ArithmeticError):
                log.warning("the stage sent %.40s = %.80r, which is left alone", name, value)

    def _later(self, work: Coroutine) -> asyncio.Task:
        """Run what takes a while, on the event loop."""
        task = asyncio.get_running_loop().create_task(work)
        self._working.add(task)  # a task that nobody holds may be collected
        task.add_done_callback(self._working.discard)
        return task

    def _one_at_a_time(self, name: str, begin: Callable[[], Coroutine]) -> None:
        """Run what was asked for, unless the last of its kind still runs: else one page would fill the queue of all."""
        if name not in self._asked or self._asked[name].done():
            self._asked[name] = self._later(begin())

    def _hear_ready(self, _value) -> None:
        self._set_up()
        self.request_frame()
        self.curves.request()

    def _hear_painted(self, number: int) -> None:
        self._seen = max(self._seen, int(number))
        self._acknowledged.set()

    def _hear_dial(self, value: float) -> None:
        if self.state.scale.snap(float(value)) != self.state.dial:
            self.state.set_dial(float(value))

    def _hear_turn(self, number: int) -> None:
        self._turn = int(number)

    def _hear_changes(self, number: int) -> None:
        self._changes = int(number)

    def _hear_system(self, name: str) -> None:
        if name != self.state.system_name:
            self.state.choose_system(name)

    def _hear_model(self, name: str) -> None:
        if name in self.state.bundles and name != self.state.bundle_name:
            self.state.choose_bundle(name)

    def _hear_result(self, value: str) -> None:
        self.state.show(None if value == "none" else dict(enumerate(self.state.adapted))[int(value)])

    def _hear_lesson(self, name: str) -> None:
        self.lesson.open(name)

    def _hear_step(self, number: int) -> None:
        self.lesson.show(number)

    def _hear_guess(self, number: int) -> None:
        self._one_at_a_time("guess", partial(self.lesson.check, int(number)))

    def _hear_window(self, ends: list) -> None:
        low, high = map(float, ends)
        self.state.set_window(low, high)

    def _hear_across(self, value: float) -> None:
        parameters = self.state.system.parameters
        if parameters:
            self.state.set_parameter(parameters[0].name, parameters[0].snap(float(value)))
        else:
            self.state.thin_out(float(value))

    def _hear_insight(self, tab: str) -> None:
        self.tabs.open(tab)

    def _hear_save(self, what: str) -> None:
        # Frames are short, and nobody's waits behind a sheet.
        self._one_at_a_time("save", partial(self._save, SAVES[what](self), INSIGHTS if what == "sheet" else FRAMES))

    def _hear_random(self, _value) -> None:
        self.state.draw_random(self.state.seed)

    def _hear_gaussians(self, rows: list) -> None:
        self.state.place_gaussians(gaussians(rows))

    def _set_up(self) -> None:
        lessons = {"lessons": self.lesson.offered, "lesson": self.lesson.name}
        self.stage.tell("setup", **setup_message(self.state), **lessons, changes=self._changes)

    def _window_moved(self) -> None:
        if self.state.training:  # with each move of a dial that it follows: alone, not with the whole page
            self.stage.tell("window", ends=self.state.window)

    @property
    def _over(self) -> bool:
        """Whether the session has ended; a document that was destroyed, which comes first, takes no more callbacks."""
        return self._closed or (self._document is not None and self._document.session_context is None)

    def on_loop(self, function: Callable[[], None]) -> None:
        """Run a function on the session's event loop, while there is one; may be called from any thread."""
        if self._over:
            return
        if self._loop is None:
            function()
        elif self._document is None:  # in a notebook
            self._loop.call_soon_threadsafe(function)
        elif threading.get_ident() == self._thread:
            self._at_once(function)
        else:
            # From another thread, and not at once: a browser that is still painting the last message gets no burst.
            self._loop.call_soon_threadsafe(self._after_a_pause, function)

    def _at_once(self, function: Callable[[], None]) -> None:
        """Run a function when the session's document is free; on its event loop only."""
        if self._document is None:
            function()
        elif not self._over:
            self._document.add_next_tick_callback(function)

    def _after_a_pause(self, function: Callable[[], None]) -> None:
        if not self._over:
            self._document.add_timeout_callback(function, PUBLISH_MILLISECONDS)

    def _curves_changed(self) -> None:
        if self._last is not None and self._last.query.system is self.state.system:
            self.stage.tell("sentence", text=self._sentence(self._last))

    def close(self) -> None:
        """The session is over: stop whatever still works for it, and let go of what would keep it in memory."""
        self._closed = True
        self.adapt.stop()
        self.curves.close()
        self.tabs.close()
        if self._settling is not None:
            self._settling.cancel()
        for task in [*self._working, *([self._task] if self._task else [])]:
            task.cancel()

    # Fields ---------------------------------------------------------------------------------------------------------

    def request_frame(self) -> None:
        """Compute the fields anew; requests that arrive meanwhile are answered by one further frame, the latest."""
        self._wanted += 1
        self._spreading.cancel()
        if self._task is None or self._task.done():
            self._task = asyncio.get_running_loop().create_task(self._frames(self._begin()))

    def _begin(self) -> tuple[int, Future[Frame | str]]:
        """Turn of the dial and frame of the page as it is; the computing begins before the event loop comes round."""
        self._computed = self._wanted
        return self._turn, FRAMES.together(_attempt_frames, self.state.query())

    async def _frames(self, begun: tuple[int, Future[Frame | str]]) -> None:
        while True:
            turn, frame = begun
            outcome = await asyncio.wrap_future(frame)
            latest = self._computed == self._wanted
            following = None if latest else self._begin()
            if self._seen < self._sent:  # the browser still paints: a frame that waits here may yet be overtaken
                self._acknowledged.clear()
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(self._acknowledged.wait(), PATIENCE_SECONDS)
            self._paint(outcome, latest, turn)
            if following is None and self._computed == self._wanted:
                return
            begun = following or self._begin()

    def _paint(self, outcome: Frame | str, latest: bool, turn: int) -> None:
        self._sent += 1
        if isinstance(outcome, str):
            self._last = None
            self.stage.tell("notice", id=self._sent, text=_kindly(outcome))
            if latest:
                self._tell_address()
            return
        self._last, query = outcome, outcome.query
        header, arrays = frame_message(outcome, self._sentence(outcome), query.given, query.learning)
        self.stage.tell("frame", arrays, id=self._sent, turn=turn, **header)
        if latest:
            if self._settling is not None:
                self._settling.cancel()
            settled = partial(self._settled, self._sent, outcome)
            loop = asyncio.get_running_loop()
            self._settling = loop.call_later(SETTLED_MILLISECONDS / 1000, self._at_once, settled)

    def _settled(self, number: int, frame: Frame) -> None:
        """The dial rests: what would slow it down follows, and what is not on the stage, where it can be seen."""
        if number != self._sent or self._computed != self._wanted:
            return  # another frame is on its way, and will settle
        if frame.query.system is self.state.system:
            if self.state.ensemble is not None:
                self._later(self._spread(number, frame, self.state.ensemble))
            if self._drawer_open:
                self.parameters.show_values(frame.coefficients)
            if self.state.training:
                self.adapt.follow_window()
            self._tell_address()
            self.tabs.settled()
            self.curves.settled()

    def _tell_address(self) -> None:
        if self._document is not None:  # a notebook keeps its own address
            self.stage.tell("address", query=own_query(query_of(self.state)))

    async def _spread(self, number: int, frame: Frame, ensemble: str) -> None:
        self._spreading = FRAMES.later(_attempt_spread, frame, ensemble)
        spread = await asyncio.wrap_future(self._spreading)
        if spread is not None and number == self._sent:
            header, arrays = spread_message(spread, number)
            self.stage.tell("spread", arrays, **header)

    def _sentence(self, frame: Frame) -> str:
        """Of nothing but the frame: the page may be set to something else already."""
        query, zero_shot = frame.query, frame.predictions.get("zero_shot")
        return text.sentence(
            query.system,
            query.dial,
            query.trained,
            zero_shot and zero_shot.relative_error,
            mean_of(query),
            float(np.abs(frame.solution).max()),
            query.gaussians,
            expected(frame),
            zero_shot.bounds if zero_shot else (0.0, math.inf),
        )

    # Files ----------------------------------------------------------------------------------------------------------

    async def _save(self, make: File | Callable[[], File], executor: Executor) -> None:
        try:
            file = make
            if callable(make):
                file = await asyncio.get_running_loop().run_in_executor(executor, make)
        except (ValueError, ArithmeticError) as error:
            self.stage.tell("notice", text=_kindly(str(error)))
            return
        self.stage.tell("file", file=file.content, name=file.name, type=file.type)

    # Layout ---------------------------------------------------------------------------------------------------------

    def page(self) -> pmui.Page:
        """The whole page: the stage, below it the training, and a drawer for what is set seldom."""
        page = dashboard_page(
            title=TITLE,
            header=[pn.pane.HTML(text.page_link("studies", address_of("studies")), margin=(0, 10))],
            sidebar=[*self.parameters.layout(), pmui.Divider(), *self.source.layout()],
            sidebar_open=False,
            sx={
                "& .MuiToolbar-root": {"minHeight": "46px !important", "height": "46px"},
                "& h3": {"fontSize": "1.2rem"},
            },
            sidebar_width=320,
            main=[
                pn.Column(
                    self.problems,
                    self.again,
                    self.stage,
                    self.live,
                    sizing_mode="stretch_width",
                    margin=(2, 10),
                    styles=AS_HIGH_AS_IT_IS,
                )
            ],
        )
        page.param.watch(self._drawer_moved, "sidebar_open")
        return page

    def _tell_problems(self, left_out: list[str]) -> None:
        problems = [*left_out, *self._problems]
        self.problems.object = text.message("; ".join(problems)) if problems else ""

    def _offer_again(self) -> None:
        """Offer to train what the address names and is gone, where it names it well and there is what to train."""
        self.again.visible = self.state.bundle is not None and self._asked_again() is not None

    def _asked_again(self) -> AdaptSettings | None:
        try:
            return settings_of(self.state, self.state.gone["result"])
        except (KeyError, ValueError):
            return None

    def _gone_changed(self, event) -> None:
        if not event.new:
            self._tell_problems([])
        self._offer_again()
        self._tell_address()

    def _train_again(self) -> None:
        if settings := self._asked_again():
            self.live.active = [0]
            self.adapt.again(settings)

    def _training_opened(self, event) -> None:
        self.state.training = bool(event.new)
        self.adapt.follow_window()

    def _drawer_moved(self, event) -> None:
        self._drawer_open = event.new
        if event.new and self._last is not None and self._last.query.system is self.state.system:
            self.parameters.show_values(self._last.coefficients)


def _attempt_frames(queries: list[Query]) -> list[Frame | str]:
    """For each a frame, or the reason why there is none."""
    found: list[Frame | str] = []
    for outcome in compute_together(queries):
        if isinstance(outcome, Frame):
            found.append(outcome)
        elif isinstance(outcome, (ValueError, ArithmeticError)):
            found.append(str(outcome))
        else:
            log.error("computing the fields failed", exc_info=outcome)
            found.append("Computing the fields failed; the server's log says why.")
    return found


def _attempt_spread(frame: Frame, ensemble: str) -> Spread | None:
    try:
        return spread_of(frame, shared_ensemble(ensemble))
    except (ValueError, ArithmeticError):
        log.exception("the spread of an ensemble failed")
        return None


SAVES: dict[str, Callable[[Explorer], File | Callable[[], File]]] = {
    "hdf5": lambda page: partial(_fields, as_hdf5, page.state.query(), query_of(page.state)),
    "npz": lambda page: partial(_fields, as_npz, page.state.query(), query_of(page.state)),
    "python": lambda page: program(page.state, query_of(page.state)),
    "sheet": lambda page: page.lesson.sheet(),
}
"""What the stage can ask to save, of the page as it is when it asks; what takes a while is called in another thread."""


def _fields(save: Callable[[Frame, str], File], query: Query, address: str) -> File:
    return save(compute(query), address)


def _kindly(reason: str) -> str:
    """A message of the core, as a sentence."""
    return reason[:1].upper() + reason[1:] + ("" if reason.endswith(".") else ".")
