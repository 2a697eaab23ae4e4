"""Keeping off a core: which threads move, that they come back, and which core is found."""

import os
import sys
import threading

import pytest

from sciml_fm_core import cores
from sciml_fm_core.cores import BusyCore

pytestmark = [
    pytest.mark.skipif(sys.platform != "linux", reason="what is known of threads elsewhere is nothing"),
    pytest.mark.skipif(len(getattr(os, "sched_getaffinity", lambda _: ())(0)) < 2, reason="there is one core"),
]


@pytest.fixture
def busy():
    busy = BusyCore()
    yield busy
    busy.return_to()


@pytest.fixture
def thread():
    """Another thread of the process, which waits; gives its number."""
    ended, begun = threading.Event(), threading.Event()
    other = threading.Thread(target=lambda: (begun.set(), ended.wait()))
    other.start()
    begun.wait()
    yield other.native_id
    ended.set()
    other.join()


def test_all_threads_keep_off_the_core_and_return(busy, thread):
    before = os.sched_getaffinity(0)
    busy.number = min(before)
    for _ in range(2):  # twice is as once
        busy.keep_off()
        assert os.sched_getaffinity(0) == os.sched_getaffinity(thread) == before - {min(before)}
    late = []
    begun = threading.Thread(target=lambda: late.append(os.sched_getaffinity(0)))
    begun.start()
    begun.join()
    assert late == [before - {min(before)}]
    busy.return_to()
    assert os.sched_getaffinity(0) == os.sched_getaffinity(thread) == before


def test_a_thread_that_has_a_core_of_its_own_stays_there(busy, thread):
    mine, before = {max(os.sched_getaffinity(0))}, os.sched_getaffinity(0)
    os.sched_setaffinity(thread, mine)
    busy.number = max(before)
    busy.keep_off()
    assert os.sched_getaffinity(thread) == mine
    busy.return_to()
    assert os.sched_getaffinity(thread) == mine


@pytest.mark.parametrize("number", [None, 10**6])
def test_without_a_core_to_leave_nothing_moves(busy, number):
    before, busy.number = os.sched_getaffinity(0), number
    busy.keep_off()
    assert os.sched_getaffinity(0) == before


@pytest.mark.parametrize(
    ("room", "milliseconds", "core"),
    [(False, 20, 1), (True, 20, None), (False, 1, None)],
    ids=["busy", "room", "short"],
)
def test_the_core_is_that_of_the_thread_that_waited_longest(busy, monkeypatch, room, milliseconds, core):
    times = iter([{1: 5_000, 2: 7_000}, {1: 6_000, 2: 7_000 + milliseconds * 10**6, 3: 10**9}])  # the third is new
    monkeypatch.setattr(cores, "waits", lambda: next(times))
    monkeypatch.setattr(cores, "core_of", lambda thread: {1: 0, 2: 1, 3: 0}[thread])
    assert busy.seen(lambda: room) == room
    assert busy.number == core


def test_what_the_kernel_tells(thread):
    waited = cores.waits()
    assert {threading.get_native_id(), thread} <= set(waited)
    assert all(time >= 0 for time in waited.values())
    assert cores.core_of(thread) in range(os.cpu_count())
    assert cores.core_of(10**9) is None
