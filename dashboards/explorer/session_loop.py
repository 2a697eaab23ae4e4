"""The event loop of one session: what any thread asks for runs there, while the session lasts."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Coroutine

import panel as pn


class SessionLoop:
    """Made on the event loop of a session; outside a server and a notebook, where there is none, functions run at once.

    Attributes:
        document: of the session, None in a notebook.
        working: the last task of each kind.
    """

    def __init__(self) -> None:
        self.document = pn.state.curdoc
        try:
            self._loop: asyncio.AbstractEventLoop | None = asyncio.get_running_loop()
        except RuntimeError:
            self._loop = None
        self._thread = threading.get_ident()
        self._closed = False
        self.working: dict[str, asyncio.Task] = {}

    @property
    def is_here(self) -> bool:
        """Whether the caller is in the thread of the loop."""
        return self._loop is None or threading.get_ident() == self._thread

    def call(self, function: Callable[[], None]) -> None:
        """Run a function on the event loop, when the document is free; may be called from any thread."""
        if self._loop is None:
            function()
        elif not self._closed:
            self._loop.call_soon_threadsafe(self._when_free, function)

    def _when_free(self, function: Callable[[], None]) -> None:
        if self.document is None:
            function()
        # A document that was destroyed, which comes before the session is closed, takes no more callbacks.
        elif not self._closed and self.document.session_context is not None:
            self.document.add_next_tick_callback(function)

    def one_at_a_time(self, name: str, begin: Callable[[], Coroutine]) -> None:
        """Run what was asked for, unless the last of its kind still runs: else one page would fill the queue of all."""
        if name not in self.working or self.working[name].done():
            self.working[name] = asyncio.get_running_loop().create_task(begin())

    def close(self) -> None:
        """Run nothing more."""
        self._closed = True
        for task in self.working.values():
            task.cancel()
