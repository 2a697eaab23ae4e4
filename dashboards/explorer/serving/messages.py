"""What a browser says, before anybody acts on it: anybody can send anything to a server."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

MOST_VALUES = 1024
"""Values in a message, with all that is nested in it; a source of 64 Gaussians has 260."""
LONGEST_TEXT = 4096


def check_message(data: Any) -> None:
    """Whether a message is small, and every number in it finite; what it means is for others to judge.

    Raises:
        ValueError: if it is not, or is no dictionary of names.
    """
    if not isinstance(data, dict):
        raise ValueError(f"expected a dictionary of what was done, got {type(data).__name__}")
    seen, left = 0, [data]
    while left:
        value = left.pop()
        seen += 1
        if isinstance(value, dict):
            if not all(isinstance(name, str) and len(name) <= LONGEST_TEXT for name in value):
                raise ValueError("expected names of a reasonable length")
            left += value.values()
        elif isinstance(value, list | tuple):
            left += value
        elif isinstance(value, str):
            if len(value) > LONGEST_TEXT:
                raise ValueError(f"expected texts of at most {LONGEST_TEXT} characters, got {len(value)}")
        elif isinstance(value, int | float):
            if not -1e18 < value < 1e18:  # not a number is in no range
                raise ValueError("expected finite numbers of a reasonable size")
        elif value is not None:
            raise ValueError(f"expected texts and numbers, got {type(value).__name__}")
        if seen + len(left) > MOST_VALUES:
            raise ValueError(f"expected at most {MOST_VALUES} values, got more")


class Allowance:
    """So many a second in the mean, and as many at once after a quiet second.

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
