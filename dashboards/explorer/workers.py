"""The threads of a process, which all its sessions share, and how a page has something worked out in them."""

from __future__ import annotations

import logging
import sys
from collections.abc import Callable
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from threading import Event
from typing import Any

from sciml_fm_core.cpu import use_threads

from .serving import lower_priority

sys.setswitchinterval(5e-4)
"""A network is a thousand short operations, and after each its thread waits for the interpreter: with Python's own five
milliseconds the event loop, busy with one message, would hold up the frame of another."""
use_threads()
"""The server needs the core that is left. PyTorch keeps the number for each thread, and one that begins takes the last
that was set anywhere, so this holds for every frame and training of the page."""

log = logging.getLogger(__name__)

FRAMES = ThreadPoolExecutor(1, thread_name_prefix="frames")
"""The thread for the fields of all sessions, which come in the order in which they are asked for."""
SPREADS, SWEEPS, INSIGHTS = (
    ThreadPoolExecutor(1, thread_name_prefix=name, initializer=lower_priority)
    for name in ("spreads", "sweeps", "insights")
)
"""Threads for ensembles, error curves and tabs: work for which no frame waits."""


class Background:
    """What a page has worked out off its event loop.

    Args:
        executor: where it is worked out.
        on_loop: runs a function on the session's event loop, called from any thread.
    """

    def __init__(self, executor: Executor, on_loop: Callable[[Callable[[], None]], None]):
        self._executor, self._on_loop = executor, on_loop
        self._stop = Event()

    def begin(self, work: Callable[..., None], *arguments: Any, beside: bool = False) -> Future:
        """Call ``work(*arguments, stop)`` in the executor, in place of what was begun before or ``beside`` it.

        The event is set when nobody wants the work any more.
        """
        if not beside:
            self.end()
            self._stop = Event()
        return self._executor.submit(self._run, work, *arguments, self._stop)

    def end(self) -> None:
        """End what was begun."""
        self._stop.set()

    def show(self, stop: Event, function: Callable[..., None], *arguments: Any, **options: Any) -> None:
        """Call a function on the event loop, if what it shows is still wanted then."""
        self._on_loop(lambda: None if stop.is_set() else function(*arguments, **options))

    def _run(self, work: Callable[..., None], *arguments: Any) -> None:
        try:
            if not arguments[-1].is_set():  # while it waited
                work(*arguments)
        except Exception:
            log.exception("%s failed", work.__qualname__)
