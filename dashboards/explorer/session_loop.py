"""The event loop of one session: what any thread asks for runs there, while the session lasts."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Coroutine

import panel as pn

PUBLISH_MILLISECONDS = 120
"""Rest before what another thread asked for: a browser that is still painting the last message gets no burst."""


class SessionLoop:
    """Made on the event loop of a session; outside a server, where there is none, functions run at once."""

    def __init__(self) -> None:
        self.document = pn.state.curdoc
        try:
            self._loop: asyncio.AbstractEventLoop | None = asyncio.get_running_loop()
        except RuntimeError:
            self._loop = None
        self._thread = threading.get_ident()
        self._closed = False
        self.working: set[asyncio.Task] = set()
        self._asked: dict[str, asyncio.Task] = {}

    @property
    def over(self) -> bool:
        """Whether the session has ended; a document that was destroyed, which comes first, takes no more callbacks."""
        return self._closed or (self.document is not None and self.document.session_context is None)

    def call(self, function: Callable[[], None]) -> None:
        """Run a function on the event loop, while there is one; may be called from any thread."""
        if self.over:
            return
        if self._loop is None:
            function()
        elif self.document is None:  # in a notebook
            self._loop.call_soon_threadsafe(function)
        elif threading.get_ident() == self._thread:
            self.at_once(function)
        else:
            self._loop.call_soon_threadsafe(self._after_a_pause, function)

    def at_once(self, function: Callable[[], None]) -> None:
        """Run a function when the session's document is free; on its event loop only."""
        if self.document is None:
            function()
        elif not self.over:
            self.document.add_next_tick_callback(function)

    def moved(self, function: Callable, *arguments) -> bool:
        """Whether the caller is in another thread; then the function is called on the loop."""
        elsewhere = self._loop is not None and threading.get_ident() != self._thread
        if elsewhere:
            self._loop.call_soon_threadsafe(function, *arguments)
        return elsewhere

    def start(self, work: Coroutine) -> asyncio.Task:
        """Run what takes a while, on the event loop."""
        task = asyncio.get_running_loop().create_task(work)
        self.working.add(task)  # a task that nobody holds may be collected
        task.add_done_callback(self.working.discard)
        return task

    def one_at_a_time(self, name: str, begin: Callable[[], Coroutine]) -> None:
        """Run what was asked for, unless the last of its kind still runs: else one page would fill the queue of all."""
        if name not in self._asked or self._asked[name].done():
            self._asked[name] = self.start(begin())

    def close(self) -> None:
        """Run nothing more."""
        self._closed = True
        for task in list(self.working):
            task.cancel()

    def _after_a_pause(self, function: Callable[[], None]) -> None:
        if not self.over:
            self.document.add_timeout_callback(function, PUBLISH_MILLISECONDS)
