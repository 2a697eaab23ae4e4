"""What keeps one visitor from slowing all others: an allowance of messages, and a low priority for long work."""

from __future__ import annotations

import os
import sys
import threading
import time
from collections.abc import Callable

from .limits import LIMITS


class Allowance:
    """Grants so many a second on average, and as many at once after a quiet second.

    Args:
        rate: how many a second.
        clock: seconds.
    """

    def __init__(self, rate: float, clock: Callable[[], float] = time.monotonic):
        self._rate, self._clock = rate, clock
        self._left, self._at = rate, clock()

    def take(self) -> bool:
        """Whether one more is granted."""
        now = self._clock()
        self._left = min(self._rate, self._left + self._rate * (now - self._at))
        self._at = now
        granted = self._left >= 1
        self._left -= granted
        return granted


def lower_priority() -> None:
    """Let the calling thread, and those that it starts, stand back by `Limits.nice`: by 19, the default, they work only
    where nobody else wants the core.

    A training beside it then costs a visitor's dial nothing, as measured. Where threads have no priority of their own,
    which is anywhere but on Linux, nothing is changed.
    """
    if sys.platform == "linux":
        os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), LIMITS.nice)
