"""A core that another program keeps busy: which it is, and keeping off it.

Threads that share out every operation are as fast as the slowest of them. Where one shares its core with another
program, it waits for milliseconds until the other's turn ends, and all wait with it: they are faster when they take
turns on the cores that are left. Their number stays as it is, see `sciml_fm_core.threads`. How long a thread has waited
is known on Linux; elsewhere nothing happens.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

TASKS = Path("/proc/self/task")
WAITED = 5_000_000
"""Nanoseconds without a core, within a look of fifty milliseconds, from which another program had it."""


def waits() -> dict[int, int]:
    """Nanoseconds that each thread of the process has waited for a core while it could have worked."""
    found = {}
    with suppress(OSError):
        for task in TASKS.iterdir():
            with suppress(OSError, IndexError, ValueError):  # it has ended, or the kernel does not count
                found[int(task.name)] = int((task / "schedstat").read_text().split()[1])
    return found


def core_of(thread: int) -> int | None:
    """Where a thread of the process worked last."""
    try:
        after_the_name = (TASKS / str(thread) / "stat").read_text().rpartition(")")[2]
        return int(after_the_name.split()[36])
    except (OSError, IndexError, ValueError):
        return None


class BusyCore:
    """The core that another program was last seen on."""

    def __init__(self):
        self.number: int | None = None
        self._others: tuple[set[int], set[int]] | None = None  # all cores of the process, and those it keeps to

    def seen(self, look: Callable[[], bool]) -> bool:
        """Do a `room_to_spin`; where it finds no room, the core is the one that a thread waited for longest."""
        before = waits()
        room = look()
        waited = {thread: total - before[thread] for thread, total in waits().items() if thread in before}
        longest = max(waited, key=lambda thread: waited[thread], default=None)
        known = not room and longest is not None and waited[longest] > WAITED
        self.number = core_of(longest) if known and longest is not None else None
        return room

    def keep_off(self) -> None:
        """The threads of the process work on its other cores, where there are some; not those that have own cores."""
        self.return_to()
        cores = os.sched_getaffinity(0) if self.number is not None else set()
        others = cores - {self.number}
        if others and others != cores:
            self._others = cores, others
            _move(cores, others)

    def return_to(self) -> None:
        """They work on all its cores again."""
        if self._others is not None:
            cores, others = self._others
            self._others = None
            _move(others, cores)


def _move(old: set[int], new: set[int]) -> None:
    for thread in map(int, os.listdir(TASKS)):
        with suppress(OSError):  # it has ended
            if os.sched_getaffinity(thread) == old:
                os.sched_setaffinity(thread, new)
