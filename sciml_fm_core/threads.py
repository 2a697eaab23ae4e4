"""Threads that wait for each other: by spinning on a quiet machine, by sleeping on a busy one.

PyTorch shares out an operation among threads, which then wait for the slowest. They wait in a loop, ready to go on at
once, which is fastest as long as every thread has a core. Where another program takes one of the cores, such loops keep
the very thread from running that they wait for, and all takes many times as long. Threads that sleep lose little then,
but they are slow to wake on a quiet machine. Long work tries now and then which way is better at the moment.

The number of threads is never changed. It decides in which order numbers are added up, and in a training rounding
grows: after fifty steps of the 1M network on SYS-1(1,5), on one thread and on two, weights differ by up to 4 % of the
largest of their tensor at 32 x 32, 0.7 % at 64 x 64 and 3 % at 128 x 128. (Sampled examples differ where the inverse
transform is of 8, 16 or 32 points, and not at 64 x 64 and 128 x 128.) How threads wait changes no bit, so a training
still resumes to the same weights, and a file to the same bytes.

The OpenMP of GNU, which PyTorch brings along on Linux, has no function to choose how its threads wait. But it lets them
sleep as soon as they are more than the cores: `IdleTeams` are some that do nothing. Those that sleep also keep off the
core that is busy, where the kernel tells which it is, see `sciml_fm_core.cores`. Where the library is another one,
or there is one thread, or the environment sets ``OMP_WAIT_POLICY`` or ``GOMP_SPINCOUNT``, nothing changes.
"""

from __future__ import annotations

import os
import sys
import threading
import time
from collections.abc import Callable, Hashable, Iterator
from contextlib import contextmanager

import torch

from .cores import BusyCore

SHARED_OUT = 2**16
"""Elements for each thread from which an elementwise operation is surely shared out among all of them."""

HELD_UP = 1e-3
"""Seconds from which a small operation was not slow, but one of its threads had no core."""


class IdleTeams:
    """Teams of threads that do nothing: while they are there, and make them more than the cores, all threads of the
    process wait asleep. Those that are left last for `LINGER` seconds, for the next work: to begin takes time."""

    LINGER = 1.0

    def __init__(self):
        self._lock = threading.Lock()
        self._threads: list[threading.Thread] = []
        self._ended = threading.Event()
        self._left: float | None = None

    def begin(self, teams: int) -> None:
        """Have so many; those that are there already serve again."""
        with self._lock:
            self._left = None
            if len(self._threads) == teams and not self._ended.is_set():
                return
        self.end()
        begun, self._ended = threading.Semaphore(0), threading.Event()
        for _ in range(teams):
            thread = threading.Thread(target=self._idle, args=(begun, self._ended), daemon=True, name="idle team")
            thread.start()
            self._threads.append(thread)
        for _ in range(teams):
            begun.acquire()

    def leave(self) -> None:
        """They may end, in a while."""
        self._left = time.monotonic()

    def end(self) -> None:
        """They end now."""
        self._ended.set()
        for thread in self._threads:
            thread.join()
        self._threads = []

    def _idle(self, begun: threading.Semaphore, ended: threading.Event) -> None:
        try:  # the team of a thread is made by its first parallel operation, and ends with the thread
            torch.empty(SHARED_OUT * torch.get_num_threads(), dtype=torch.uint8).fill_(0)
        finally:
            begun.release()
        while not ended.wait(self.LINGER):
            with self._lock:
                if self._left is not None and time.monotonic() > self._left + self.LINGER:
                    ended.set()


def room_to_spin(seconds: float = 0.05, clock: Callable[[], float] = time.perf_counter) -> bool:
    """Whether threads that spin have a core each: small operations, done for so long, are seldom held up.

    Alone, one takes some hundredths of a millisecond. Where a thread has lost its core, it takes many milliseconds.
    """
    values = torch.zeros(SHARED_OUT * torch.get_num_threads())
    began = now = clock()
    held_up = 0.0
    while now < began + seconds:
        values.add_(1)
        before, now = now, clock()
        held_up += now - before if now - before > HELD_UP else 0.0
    return held_up < 0.3 * (now - began)


def teams_needed(threads: int, cores: int) -> int:
    """Idle teams, of so many threads each, with which they are more than the cores; 0 where there is nothing to choose.

    That is so for one thread, and for less than half of the cores: whoever leaves so many to others has room for them.

    >>> teams_needed(2, 2), teams_needed(1, 2), teams_needed(4, 8), teams_needed(2, 64)
    (1, 0, 2, 0)
    """
    return 0 if threads == 1 or 2 * threads < cores else max(0, cores - threads) // (threads - 1) + 1


def teams_here() -> int:
    """`teams_needed` in this process; 0 where threads wait otherwise, or the environment says how they wait."""
    if sys.platform != "linux" or "OMP_WAIT_POLICY" in os.environ or "GOMP_SPINCOUNT" in os.environ:
        return 0
    return teams_needed(torch.get_num_threads(), len(os.sched_getaffinity(0)))


class Chooser:
    """Which of two ways is faster at the moment, told by the times of units of work.

    The way in use is held for a while, then the other is tried for a few units, and taken if it is clearly faster. The
    next trial comes after twice the time, and not before what the last one lost is a small share of the time since;
    within that, it comes at once where units suddenly take much longer than before.

    A unit in way 0 may be very slow, so it is tried only if a quick look says that there is room for it; and with such
    a look begins a work before which there was none for some time.

    Args:
        clock: seconds.
        room: the quick look; called in way 0.
    """

    CLEARLY = 1.15
    """Factor in time from which one way is taken for faster."""
    MUCH = 1.5
    """Factor in time from which a unit is much slower: two in a row begin a trial."""
    FAR = 3.0
    """Factor in time from which one unit ends a trial; below, the next one counts too: kinds wait differently."""
    TRIAL_SECONDS, TRIAL_UNITS = 0.1, 2
    """How long a trial is at least, unless it is much slower."""
    SHORTEST_HOLD, LONGEST_HOLD = 2.0, 60.0
    """Seconds between trials."""
    SHARE = 0.01
    """Of the time, what trials may lose."""
    KNOWN = 3
    """Units of a kind after which its time is known: the first have fresh memory and plans of transforms to make."""
    LAST = 8
    """Units that a usual time is about the mean of."""
    KINDS = 64
    """Kinds that are remembered."""

    def __init__(self, clock: Callable[[], float] = time.perf_counter, room: Callable[[], bool] = room_to_spin):
        self.clock, self.room, self.way, self.use = clock, room, 0, ignore
        self.usual: dict[Hashable, tuple[float, int]] = {}  # seconds of a unit in the way in use, and units they are of
        self.hold, self.due, self.affordable = self.SHORTEST_HOLD, 0.0, 0.0
        self.trying, self.slow = False, 0
        self.units, self.seconds, self.expected = 0, 0.0, 0.0  # of a trial

    @contextmanager
    def using(self, use: Callable[[int], None]) -> Iterator[None]:
        """Work; ``use`` is called with the way, 0 or 1, that the next units are to be done in."""
        self.use, found = use, self.way
        if self._time_to_look():
            use(0)
            found = 0 if self._look() else 1
        if found != self.way:
            self.way, self.usual = found, {}
        use(self.way)
        try:
            yield
        finally:
            self.trying, self.use = False, ignore

    def _time_to_look(self) -> bool:
        return self.clock() >= max(self.due, self.affordable)

    def _look(self) -> bool:
        started = self.clock()
        room = self.room()
        now = self.clock()
        self.due, self.affordable = now + self.SHORTEST_HOLD, now + (now - started) / self.SHARE
        return room

    def timed(self, kind: Hashable, seconds: float) -> None:
        """A unit of the work took so long. Those of a kind take about the same time in the same way."""
        usual, units = self.usual.get(kind, (seconds, 0))
        slower, now = seconds > self.MUCH * usual, self.clock()
        if units < self.KNOWN:
            self._learn(kind, seconds)
            if self.trying:
                self._end_trial(now, taken=False)
        elif self.trying:
            self.units, self.seconds, self.expected = self.units + 1, self.seconds + seconds, self.expected + usual
            if seconds > self.FAR * usual or (self.units >= self.TRIAL_UNITS and self.seconds >= self.TRIAL_SECONDS):
                self._end_trial(now, taken=self.CLEARLY * self.seconds < self.expected)
        else:
            self.slow = self.slow + 1 if slower else 0
            if self.slow < 2:
                self._learn(kind, seconds)
            else:  # not by chance: so it is with all kinds
                self._scale(seconds / usual)
                self.due = now
            if self._time_to_look():
                self._begin_trial()

    def _learn(self, kind: Hashable, seconds: float) -> None:
        """A running mean of the last units, without the first."""
        usual, units = self.usual.get(kind, (seconds, 0))
        if not units and len(self.usual) >= self.KINDS:
            self.usual.clear()
        self.usual[kind] = usual + (seconds - usual) / min(max(units, 1), self.LAST), units + 1

    def _scale(self, factor: float) -> None:
        self.usual = {kind: (factor * usual, units) for kind, (usual, units) in self.usual.items()}

    def _begin_trial(self) -> None:
        self.trying, self.slow = True, 0
        self.units, self.seconds, self.expected = 0, 0.0, 0.0
        self.use(1 - self.way)
        if self.way == 1 and not self._look():
            self.trying = False
            self.use(1)

    def _end_trial(self, now: float, *, taken: bool) -> None:
        if taken:
            self.way, self.hold = 1 - self.way, self.SHORTEST_HOLD
            self._scale(self.seconds / self.expected)
        else:
            self.use(self.way)
            self.hold = min(2 * self.hold, self.LONGEST_HOLD)
        self.trying, self.due = False, now + self.hold
        self.affordable = max(self.affordable, now + (self.seconds - self.expected) / self.SHARE)


def ignore(*_) -> None:
    """What is told of units where there is nothing to choose."""


Timed = Callable[[Hashable, float], None]

_BUSY = BusyCore()
"""That of the process."""
_CHOOSER = Chooser(room=lambda: _BUSY.seen(room_to_spin))
"""What one work found out serves the next."""
_IDLE = IdleTeams()
"""Those of the process."""
_CHOOSING = threading.Lock()
"""How threads wait is a matter of the whole process: one work decides, also for those within it and beside it."""


@contextmanager
def adapting(device: torch.device) -> Iterator[Timed]:
    """Long work on a device; gives `Chooser.timed`, to be told of each of its units, or what does nothing.

    >>> with adapting(torch.device("cpu")) as timed:
    ...     for _ in range(3):
    ...         started = time.perf_counter()
    ...         product = torch.ones(8, 8) @ torch.ones(8, 8)
    ...         timed(product.shape, time.perf_counter() - started)
    """
    teams = teams_here() if device.type == "cpu" else 0
    if not teams or not _CHOOSING.acquire(blocking=False):
        yield ignore
        return

    def use(way: int) -> None:
        if way:
            _IDLE.begin(teams)
            _BUSY.keep_off()
        else:
            _BUSY.return_to()
            _IDLE.end()

    try:
        with _CHOOSER.using(use):
            yield _CHOOSER.timed
    finally:
        _BUSY.return_to()
        _IDLE.leave()
        _CHOOSING.release()
