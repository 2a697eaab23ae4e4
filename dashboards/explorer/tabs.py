"""The tabs below the fields: what the open one shows is worked out in the background."""

from __future__ import annotations

import logging
from collections.abc import Callable
from functools import partial
from threading import Event
from typing import Any

from .compute import Query
from .insight import atlas, examples_curve, spectrum
from .state import ExploreState
from .workers import INSIGHTS

TABS = ("atlas", "spectrum", "examples")
"""What the stage can show in place of the errors."""

log = logging.getLogger(__name__)


class Tabs:
    """The open tab of one session; arguments as those of `ErrorCurves`."""

    def __init__(
        self,
        state: ExploreState,
        tell: Callable[..., None],
        on_loop: Callable[[Callable[[], None]], None],
    ):
        self.state, self._tell, self._on_loop = state, tell, on_loop
        self.name = ""
        self._stop = Event()
        self._atlas: dict[str, Any] = {}
        state.param.watch(lambda *_: self.request(), ["system_name", "bundle_name", "shown", "kept"])

    def open(self, name: str) -> None:
        """Show a tab of `TABS`; none by any other name."""
        self.name = name if name in TABS else ""
        self.request()

    def settled(self) -> None:
        """The dial rests: what depends on it follows."""
        if self.name == "atlas":
            self._show_atlas(self._atlas, self._stop)
        elif self.name == "spectrum":
            self.request()

    def close(self) -> None:
        """Work out no more."""
        self._stop.set()

    def request(self) -> None:
        """Work out what the open tab shows, off the event loop."""
        self._stop.set()
        stop = self._stop = Event()
        if self.name:
            INSIGHTS.submit(self._work, self.name, self.state.query(), stop)

    def _work(self, name: str, query: Query, stop: Event) -> None:
        if stop.is_set():  # while it waited
            return
        try:
            if name == "atlas":
                atlas(query, stop, lambda found: self._on_loop(partial(self._show_atlas, found, stop)))
                return
            found = spectrum(query) if name == "spectrum" else examples_curve(self.state)
        except (ValueError, ArithmeticError) as error:
            self._on_loop(partial(self._tell, "notice", text=str(error)))
        except Exception:
            log.exception("working out the tab %s failed", name)
        else:
            self._on_loop(partial(self._show, name, found, stop))

    def _show(self, name: str, found: dict[str, Any], stop: Event) -> None:
        if not stop.is_set():
            self._tell("insight", tab=name, **found)

    def _show_atlas(self, found: dict[str, Any], stop: Event) -> None:
        if found and not stop.is_set():
            self._atlas, state = found, self.state
            parameters = state.system.parameters
            across = state.parameters[parameters[0].name] if parameters else state.sparsity
            self._tell("insight", tab="atlas", at={"dial": state.dial, "across": across}, **found)
