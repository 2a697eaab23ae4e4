"""A batching queue for the short work of all sessions: urgent work first, and calls of one function in one batch."""

from __future__ import annotations

import heapq
import itertools
import threading
from collections.abc import Callable
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

LARGEST_BATCH = 4
"""More gain little, and the first of them waits for the last."""


@dataclass(order=True, frozen=True)
class _Asked:
    later: bool
    number: int
    work: Callable[[list], list] = field(compare=False)
    argument: Any = field(compare=False)
    future: Future = field(compare=False, default_factory=Future)


class BatchingQueue(Executor):
    """One warm thread that does what it is asked for in that order; `later` comes when nothing else waits.

    >>> thread = BatchingQueue("example")
    >>> thread.submit(max, 1, 2).result(), thread.later(min, 1, 2).result()
    (2, 1)
    >>> doubled = [thread.together(lambda numbers: [2 * number for number in numbers], number) for number in (3, 4)]
    >>> [future.result() for future in doubled]
    [6, 8]
    >>> thread.shutdown()
    """

    def __init__(self, name: str):
        self._pool = ThreadPoolExecutor(1, thread_name_prefix=name)
        self._lock = threading.Lock()
        self._waiting: list[_Asked] = []
        self._numbers = itertools.count()

    def submit(self, work: Callable, /, *arguments) -> Future:
        """As of any executor, without keywords."""
        return self._add(lambda _: [work(*arguments)])

    def together(self, work: Callable[[list], list], argument: Any) -> Future:
        """Do a work that takes a list of arguments and gives as many results, with what else waits for it then."""
        return self._add(work, argument)

    def later(self, work: Callable, /, *arguments) -> Future:
        """Do something when nothing else waits; until it begins it can be cancelled."""
        return self._add(lambda _: [work(*arguments)], later=True)

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """As of any executor."""
        for one in self._waiting if cancel_futures else ():
            one.future.cancel()
        self._pool.shutdown(wait)

    def _add(self, work: Callable[[list], list], argument: Any = None, *, later: bool = False) -> Future:
        asked = _Asked(later, next(self._numbers), work, argument)
        with self._lock:
            heapq.heappush(self._waiting, asked)
        self._pool.submit(self._next)  # as many turns as works; which is whose, is seen when it comes
        return asked.future

    def _next(self) -> None:
        with self._lock:
            if not self._waiting:
                return  # done together with another
            work = self._waiting[0].work
            chosen = sorted(one for one in self._waiting if one.work == work)[:LARGEST_BATCH]
            self._waiting = [one for one in self._waiting if one not in chosen]
            heapq.heapify(self._waiting)
        running = [one for one in chosen if one.future.set_running_or_notify_cancel()]
        if not running:
            return
        try:
            results = work([one.argument for one in running])
        except BaseException as error:
            for one in running:
                one.future.set_exception(error)
        else:
            for one, result in zip(running, results, strict=True):
                one.future.set_result(result)
