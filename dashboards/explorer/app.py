"""One visitor's page: the state, the views over it, and what each tells the others."""

from __future__ import annotations

from concurrent.futures import Future
from functools import partial
from threading import Event
from typing import Any, TypeGuard

import numpy as np
import panel as pn
import panel_material_ui as pmui

from . import text
from .adapt import AdaptView
from .bundles import find_bundles, opened
from .compute import Frame, attempt, compute, frame_message, sentence_of, spread_message
from .controls import ParameterControls, SourceControls
from .error_curves import ErrorCurves, mean_of
from .films import Film
from .frame_loop import FrameLoop
from .gone import GoneView
from .lesson_card import LessonCard
from .link import choices_of, query_of, restore, revisit
from .pages import address_of, dashboard_page, own_query
from .serving import Allowance
from .session_loop import SessionLoop
from .settings import AdaptSettings
from .setup import setup_message
from .shared import shared_ensemble, shared_operator, shipped_results
from .stage import Stage, hear
from .state import ExploreState
from .tabs import Tabs
from .workers import FRAMES, SPREADS, Background

TITLE = "Explore pre-trained neural operators"
POINT = ["system_name", "bundle_name", "dial", "parameters", "drawn", "seed", "sparsity", "gaussians", "painted"]
"""What a frame is of, by the names of `ExploreState`."""
CHOICES_PER_SECOND = 10
"""Messages of a stage that change the whole page and are heard in a second, on average."""
NO_ROOM = {"teach": ["@media (max-width: 700px) { :host { display: none } }"]}
"""Links of the bar that a phone has no room for."""
AS_HIGH_AS_IT_IS = {"max-height": "none"}
"""Bokeh allows no more than the window has, and what is higher would lie over what follows it."""


def opening_state() -> tuple[ExploreState, list[str]]:
    """A fresh page on the operators that there are, and what is wrong with those that could not be read."""
    bundles, problems = find_bundles()
    state, own = ExploreState(bundles, shared_operator, kept=shipped_results()), opened(bundles)
    if own is not None and own.is_known:  # of given fields the page of own data shows the examples
        state.choose_system(own.downstream.system.name if own.downstream else own.systems[0])
        state.choose_bundle(own.name)
    return state, problems


class Explorer:
    """The page of one session."""

    def __init__(self, state: ExploreState | None = None):
        self.state, problems = (state, []) if state else opening_state()
        arguments = {name: values[-1].decode("utf-8", "replace") for name, values in pn.state.session_args.items()}
        left_out = restore(self.state, arguments)
        self.loop = SessionLoop()
        self.frames: FrameLoop[Frame | Film | str] = FrameLoop(self._begin_frame, self._paint, self._rest)
        self.stage = Stage(self._heard, sizing_mode="stretch_width", margin=0, styles=AS_HIGH_AS_IT_IS)
        self.parameters = ParameterControls(self.state)
        self.source = SourceControls(self.state)
        self.adapt = AdaptView(self.state, self.loop.call, self.stage.send_file)
        self._chosen: tuple | None = None
        self.lesson = LessonCard(self.state, self._tell_step, FRAMES)
        left_out += self.lesson.restore(arguments)
        self.curves = ErrorCurves(self.state, self.stage.tell, self.loop.call, self._curves_changed)
        self.tabs = Tabs(self.state, self.stage.tell, self.loop.call)
        self.gone = GoneView(self.state, left_out, [*problems, *self.lesson.problems], self._train_again)
        self.sheet = self.adapt.layout()
        self.trains = False  # where there is a page around the stage, with the sheet beside it
        self.choices = Allowance(CHOICES_PER_SECOND)
        self._spreads = Background(SPREADS, self.loop.call)
        self._steps = Background(FRAMES, self.loop.call)
        self._last: Frame | Film | None = None
        self._revisits = False
        self._drawer_open = False
        self._watch()

    def _watch(self) -> None:
        state = self.state
        state.param.watch(lambda *_: self.request_frame(), [*POINT, "shown", "live"])
        state.param.watch(
            lambda *_: self.set_up(), ["system_name", "bundle_name", "shown", "kept", "drawn", "training", "gone"]
        )
        state.param.watch(lambda *_: self._window_moved(), "window")
        state.param.watch(lambda *_: self._tell_address(), "gone")
        state.param.watch(lambda event: self._training_opened(event.new), "training")
        pn.state.on_session_destroyed(lambda _: self.close())

    def close(self) -> None:
        """The session is over: stop whatever still works for it, and let go of what would keep it in memory."""
        for part in (self.loop, self.curves, self.tabs, self.frames):
            part.close()
        self._spreads.end()
        self._steps.end()
        self.adapt.stop()

    # The stage ------------------------------------------------------------------------------------------------------

    def _heard(self, message: dict[str, Any]) -> None:
        # A kernel of Jupyter may hear in threads of its own; answers of two threads would mix on their way.
        if self.loop.is_here:
            hear(self, message)
        else:
            self.loop.call(partial(hear, self, message))

    def set_up(self) -> None:
        """Tell the stage what its controls offer."""
        lessons = {"lessons": self.lesson.offered, "lesson": self.lesson.name}
        self.stage.tell("setup", **setup_message(self.state), **lessons, trains=self.trains, turn=self.frames.turn)

    def notice(self, reason: str, **header: Any) -> None:
        """Tell the stage why there is none of what was asked for: a message of the core, as a sentence."""
        self.stage.tell("notice", text=reason[:1].upper() + reason[1:].removesuffix(".") + ".", **header)

    def _window_moved(self) -> None:
        if self.state.training:  # with each move of a dial that it follows: alone, not with the whole page
            self.stage.tell("window", ends=self.state.window)

    def _curves_changed(self) -> None:
        if self._here(self._last) and isinstance(self._last, Frame):
            self.stage.tell("sentence", text=sentence_of(self._last, mean_of(self._last.query)))

    def _tell_step(self, kind: str, **header: Any) -> None:
        """What a lesson tells the stage; the address names its step, so that a reload opens it again."""
        self.stage.tell(kind, **header)
        if kind == "lesson" and self._chosen is not None:  # it has an address by then
            self._tell_address()

    def _tell_address(self) -> None:
        if self.loop.document is not None and not self._revisits:  # a notebook keeps its own address
            chosen, before = self._choices(), self._chosen
            query = "&".join(filter(None, [self.lesson.query, query_of(self.state)]))
            self.stage.tell("address", query=own_query(query), push=before not in (None, chosen))
            self._chosen = chosen

    def revisit(self, query: dict[str, str]) -> None:
        """Show what an address says that a browser went back to."""
        self._revisits = True
        try:
            self.lesson.restore(query)
            revisit(self.state, query)
        finally:
            self._revisits = False
        self._chosen = self._choices()

    def _choices(self) -> tuple:
        return *choices_of(self.state), self.lesson.name

    # Frames ---------------------------------------------------------------------------------------------------------

    def request_frame(self) -> None:
        """Compute the fields anew."""
        self._spreads.end()
        self._steps.end()
        self.frames.request()

    def _begin_frame(self) -> Future[Frame | Film | str]:
        return FRAMES.submit(attempt, Film if self.state.is_in_time else compute, self.state.query())

    def _paint(self, outcome: Frame | Film | str, number: int, turn: int) -> None:
        self._last = None if isinstance(outcome, str) else outcome
        if isinstance(outcome, str):
            self.notice(outcome, id=number)
            return
        film = isinstance(outcome, Film)
        header, arrays = outcome.message() if film else frame_message(outcome, mean_of(outcome.query))
        self.stage.tell("frame", arrays, id=number, turn=turn, **header)
        if film:
            self._step_on(outcome, number)

    def _step_on(self, film: Film, number: int) -> None:
        """One step at a time, between the frames of others; none once another frame is asked for."""
        if not film.is_over and self.frames.rests_at(number):
            self._steps.begin(self._take_step, film, number)

    def _take_step(self, film: Film, number: int, stop: Event) -> None:
        film.advance()
        header, arrays = film.message()
        self._steps.show(stop, self._show_step, film, number, header, arrays)

    def _show_step(self, film: Film, number: int, header: dict[str, Any], arrays: dict[str, np.ndarray]) -> None:
        self.stage.tell("step", arrays, film=number, **header)
        self._step_on(film, number)

    def _rest(self, number: int, outcome: Frame | Film | str) -> None:
        self.loop.call(partial(self._settled, number, outcome))

    def _settled(self, number: int, outcome: Frame | Film | str) -> None:
        """The dial rests: do what was put off, and update the drawer and the training sheet if they are open."""
        if not self.frames.rests_at(number):
            return  # another frame is on its way, and will settle
        self._tell_address()
        if not self._here(outcome):
            return
        if self.state.ensemble is not None and isinstance(outcome, Frame):
            self._spreads.begin(self._find_spread, outcome, self.state.ensemble, number)
        if self._drawer_open:
            self.parameters.show_values(outcome.coefficients)
        if self.state.training:
            self.adapt.follow_window()
        self.tabs.settled()
        self.curves.settled()

    def _find_spread(self, frame: Frame, ensemble: str, number: int, stop: Event) -> None:
        header, arrays = spread_message(frame, shared_ensemble(ensemble), number)
        self._spreads.show(stop, self.stage.tell, "spread", arrays, **header)

    def _here(self, outcome: Frame | Film | str | None) -> TypeGuard[Frame | Film]:
        """Whether it is a frame, and of the equation that the page is set to."""
        return isinstance(outcome, Frame | Film) and outcome.query.system is self.state.system

    # Layout ---------------------------------------------------------------------------------------------------------

    @property
    def _has_own_data(self) -> bool:
        return any(not bundle.is_known for bundle in self.state.bundles.values())

    def page(self) -> pmui.Page:
        """The whole page: the stage, beside it the sheet of the training, and a drawer for what is set seldom."""
        self.trains = True
        page = dashboard_page(
            title=TITLE,
            header=[
                pn.pane.HTML(text.page_link(name, address_of(name)), margin=(0, 10), stylesheets=NO_ROOM.get(name, []))
                for name in [*(["data"] if self._has_own_data else []), "studies", "teach"]
            ],
            sidebar=[*self.parameters.layout(), pmui.Divider(), *self.source.layout()],
            sidebar_open=False,
            sidebar_width=320,
            main=[
                pn.Column(
                    self.gone.notice,
                    self.gone.again,
                    pn.Row(self.stage, self.sheet, sizing_mode="stretch_width", margin=0, styles=AS_HIGH_AS_IT_IS),
                    sizing_mode="stretch_width",
                    margin=(0, 10),
                    styles=AS_HIGH_AS_IT_IS,
                )
            ],
        )
        page.param.watch(self._drawer_moved, "sidebar_open")
        return page

    # Training and the drawer ----------------------------------------------------------------------------------------

    def _train_again(self, settings: AdaptSettings) -> None:
        self.state.training = True
        self.adapt.again(settings)

    def _training_opened(self, is_open: bool) -> None:
        self.sheet.visible = is_open
        self.adapt.follow_window()

    def _drawer_moved(self, event) -> None:
        self._drawer_open = event.new
        if event.new and self._here(self._last):
            self.parameters.show_values(self._last.coefficients)
