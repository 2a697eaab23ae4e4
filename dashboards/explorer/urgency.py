"""One thread for the short work of all sessions: what visitors wait for comes before what can wait."""

from __future__ import annotations

import heapq
import itertools
import threading
from collections.abc import Callable
from concurrent.futures import Executor, Future, ThreadPoolExecutor


class UrgentFirst(Executor):
    """One warm thread that does what it is asked for in that order; `later` comes when nothing else waits.

    >>> thread = UrgentFirst("example")
    >>> thread.submit(max, 1, 2).result(), thread.later(min, 1, 2).result()
    (2, 1)
    >>> thread.shutdown()
    """

    def __init__(self, name: str):
        self._pool = ThreadPoolExecutor(1, thread_name_prefix=name)
        self._lock = threading.Lock()
        self._waiting: list[tuple[bool, int, Future, Callable, tuple]] = []
        self._numbers = itertools.count()

    def submit(self, work: Callable, /, *arguments) -> Future:
        """As of any executor, without keywords."""
        return self._add(work, arguments, later=False)

    def later(self, work: Callable, /, *arguments) -> Future:
        """Do something when nothing else waits; until it begins it can be cancelled."""
        return self._add(work, arguments, later=True)

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """As of any executor."""
        self._pool.shutdown(wait, cancel_futures=cancel_futures)

    def _add(self, work: Callable, arguments: tuple, *, later: bool) -> Future:
        future: Future = Future()
        with self._lock:
            heapq.heappush(self._waiting, (later, next(self._numbers), future, work, arguments))
        self._pool.submit(self._next)  # as many turns as works; which is whose, is seen when it comes
        return future

    def _next(self) -> None:
        with self._lock:
            *_, future, work, arguments = heapq.heappop(self._waiting)
        if future.set_running_or_notify_cancel():
            try:
                future.set_result(work(*arguments))
            except BaseException as error:
                future.set_exception(error)
