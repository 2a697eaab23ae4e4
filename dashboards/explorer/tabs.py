"""The tabs below the fields: what the open one shows is worked out in the background."""

from __future__ import annotations

from collections.abc import Callable
from threading import Event
from typing import Any

from .compute import Query
from .insight import atlas, examples_curve, spectrum
from .state import ExploreState
from .workers import INSIGHTS, Background

TABS = ("atlas", "spectrum", "examples")
"""What the stage can show in place of the errors."""


class Tabs:
    """The open tab of one session; arguments as those of `ErrorCurves`."""

    def __init__(
        self,
        state: ExploreState,
        tell: Callable[..., None],
        on_loop: Callable[[Callable[[], None]], None],
    ):
        self.state, self._tell = state, tell
        self.name = ""
        self._work = Background(INSIGHTS, on_loop)
        self._atlas: dict[str, Any] = {}
        state.param.watch(lambda *_: self.request(), ["system_name", "bundle_name", "shown", "kept"])

    def open(self, name: str) -> None:
        """Show a tab of `TABS`; none by any other name."""
        self.name = name if name in TABS else ""
        self.request()

    def settled(self) -> None:
        """The dial rests: what depends on it follows."""
        if self.name == "atlas" and self._atlas:
            self._show_atlas(self._atlas)
        elif self.name == "spectrum":
            self.request()

    def close(self) -> None:
        """Work out no more."""
        self._work.end()

    def request(self) -> None:
        """Work out what the open tab shows, off the event loop."""
        self._atlas = {}
        if self.name:
            self._work.begin(self._find, self.name, self.state.query())
        else:
            self._work.end()

    def _find(self, name: str, query: Query, stop: Event) -> None:
        try:
            if name == "atlas":
                atlas(query, stop, lambda found: self._work.show(stop, self._show_atlas, found))
                return
            found = spectrum(query) if name == "spectrum" else examples_curve(self.state)
        except (ValueError, ArithmeticError) as error:
            self._work.show(stop, self._tell, "notice", text=str(error))
        else:
            self._work.show(stop, self._tell, "insight", tab=name, **found)

    def _show_atlas(self, found: dict[str, Any]) -> None:
        self._atlas, state = found, self.state
        parameters = state.system.parameters
        across = state.parameters[parameters[0].name] if parameters else state.sparsity
        self._tell("insight", tab="atlas", at={"dial": state.dial, "across": across}, **found)
