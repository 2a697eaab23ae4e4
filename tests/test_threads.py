"""How threads wait: the choice by times on a clock that is not real, idle teams, and that no bit depends on it."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from sciml_fm_core.cores import BusyCore
from sciml_fm_core.threads import Chooser, adapting, ignore, teams_here, teams_needed

ROOT = Path(__file__).parents[1]
QUIET, BUSY = {"a": (0.05, 0.08), "b": (0.1, 0.16)}, {"a": (0.9, 0.07), "b": (1.8, 0.14)}
"""Seconds of units of two kinds, spinning and sleeping."""


class Work:
    """A chooser at work whose clock is moved on by the units that are done."""

    def __init__(self):
        self.now, self.used, self.roomy, self.looks = 0.0, [], True, 0
        self.chooser = Chooser(lambda: self.now, self.look)

    def look(self):
        assert self.used[-1] == 0
        self.now, self.looks = self.now + 0.05, self.looks + 1
        return self.roomy

    def use(self, way):
        self.used.append(way)

    def do(self, seconds, costs, kinds="a", hiccup=1):
        """Share of the time that was lost against the better way, and the way used in the end."""
        started, best, done = self.now, 0.0, 0
        while self.now < started + seconds:
            kind = kinds[done % len(kinds)]
            cost = hiccup * costs[kind][self.used[-1]]
            hiccup, done, best = 1, done + 1, best + min(costs[kind])
            self.now += cost
            self.chooser.timed(kind, cost)
        return 1 - best / (self.now - started), self.chooser.way


@pytest.fixture
def work():
    work = Work()
    with work.chooser.using(work.use):
        yield work


@pytest.mark.parametrize("kinds", ["a", "ab"])
def test_the_better_way_is_found_and_trials_cost_little(work, kinds):
    lost, way = work.do(10, QUIET, kinds)
    assert way == 0
    assert lost < 0.03
    lost, way = work.do(200, QUIET, kinds)
    assert way == 0
    assert lost < 0.01  # trials become rare
    lost, way = work.do(10, BUSY, kinds)  # noticed after two units
    assert way == 1
    lost, way = work.do(300, BUSY, kinds)
    assert way == 1
    assert lost < 0.03
    lost, way = work.do(100, QUIET, kinds)  # not noticed at once: a trial may be dear
    assert way == 0
    lost, way = work.do(100, QUIET, kinds)
    assert lost < 0.03
    assert {0, 1} == {*work.used}


def test_a_busy_start(work):
    assert work.do(10, BUSY)[1] == 1


def test_without_room_the_dear_way_is_not_tried():
    work = Work()
    work.roomy = False
    with work.chooser.using(work.use):
        lost, way = work.do(100, BUSY)
        assert (way, lost) == (1, pytest.approx(0.01, abs=0.003))  # what looking costs
        assert 15 < work.looks < 25
        work.roomy = True
        assert work.do(6, QUIET)[1] == 0  # soon, since looking is cheap


def test_a_work_begins_with_a_look_where_there_was_none_for_long(work):
    work.do(10, QUIET)
    for waited, looks in ((0, 0), (70, 1), (0.5, 0)):
        work.now, before, work.roomy = work.now + waited, work.looks, False
        with work.chooser.using(work.use):
            assert work.looks == before + looks
    assert work.chooser.way == 1


def test_units_that_are_slow_now_and_then_count(work):
    """Every other unit waits: on the whole sleeping is better."""
    work.do(10, {"a": (0.05, 0.08), "b": (0.3, 0.08)}, "ab")
    assert work.chooser.way == 1


@pytest.mark.parametrize("hiccup", [3, 20])
def test_one_slow_unit_changes_nothing(work, hiccup):
    work.do(10, QUIET)
    before = len(work.used)
    work.do(0.3, QUIET, hiccup=hiccup)
    assert (work.chooser.way, len(work.used)) == (0, before)


def test_a_clear_gain_is_needed(work):
    assert work.do(100, {"a": (0.05, 0.046)})[1] == 0
    assert work.do(100, {"a": (0.05, 0.04)})[1] == 1


def test_new_kinds_end_a_trial(work):
    """A trial whose units have all become of another kind says nothing."""
    while not work.chooser.trying:
        work.do(0.01, QUIET)
    work.do(0.01, QUIET, "b")
    assert (work.chooser.trying, work.chooser.way, work.used[-1]) == (False, 0, 0)
    for kind in range(3 * Chooser.KINDS):
        work.chooser.timed(kind, 1.0)
    assert len(work.chooser.usual) <= Chooser.KINDS


def test_what_was_found_serves_the_next_work(work):
    work.do(10, BUSY)
    other = []
    with work.chooser.using(other.append):
        assert other == [1]
    with pytest.raises(KeyError), work.chooser.using(other.append):
        raise KeyError
    assert other == [1, 1]


def test_enough_idle_teams_exceed_the_cores():
    for cores in range(1, 20):
        for threads in range(2, cores + 3):
            teams = teams_needed(threads, cores)
            if 2 * threads < cores:
                assert teams == 0
            else:
                assert threads + teams * (threads - 1) > cores
                assert threads + (teams - 1) * (threads - 1) <= max(cores, threads)
    assert teams_needed(1, 1) == teams_needed(1, 2) == 0


@pytest.fixture
def two_threads(monkeypatch):
    """Two threads on two cores, and an environment that leaves open how they wait."""
    before = torch.get_num_threads()
    for name in ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {0, 1}, raising=False)
    monkeypatch.setattr(sys, "platform", "linux")
    monkeypatch.setattr(BusyCore, "keep_off", lambda self: None)  # the cores are made up
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(before)


@pytest.mark.parametrize("name", ["OMP_WAIT_POLICY", "GOMP_SPINCOUNT"])
def test_what_the_user_chose_is_kept(two_threads, monkeypatch, name):
    assert teams_here() == 1
    with adapting(torch.device("cpu")) as timed:
        assert timed is not ignore
        assert torch.get_num_threads() == 2
        with adapting(torch.device("cpu")) as inner:
            assert inner is ignore  # one work decides
    with adapting(torch.device("cuda")) as timed:
        assert timed is ignore
    monkeypatch.setenv(name, "1")
    assert teams_here() == 0
    monkeypatch.delenv(name)
    torch.set_num_threads(1)
    with adapting(torch.device("cpu")) as timed:
        assert timed is ignore


# With real threads ----------------------------------------------------------------------------------------------------


def run(code):
    """What a fresh process with two threads prints."""
    environment = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "2"}
    for name in ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT"):
        environment.pop(name, None)
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    return done.stdout.split()


@pytest.mark.skipif(sys.platform != "linux", reason="threads are counted as Linux shows them")
def test_idle_teams_end_when_they_are_told_to_or_are_left():
    code = (
        "import os, time, torch\n"
        "from sciml_fm_core.threads import IdleTeams\n"
        "torch.set_num_threads(2)\n"
        "count = lambda: len(os.listdir('/proc/self/task'))\n"
        "torch.ones(2**20).add_(1)\n"
        "before = count()\n"
        "def after():\n"
        "    give_up = time.monotonic() + 60\n"  # the system ends threads a little later
        "    while count() > before and time.monotonic() < give_up: time.sleep(0.01)\n"
        "    return count()\n"
        "idle = IdleTeams()\n"
        "idle.begin(3)\n"
        "within = count()\n"
        "idle.leave()\n"
        "idle.begin(3)\n"  # the same serve again
        "print(before, within, count())\n"
        "idle.end()\n"
        "print(after())\n"
        "idle.begin(1)\n"
        "idle.leave()\n"
        "print(count(), after())\n"
    )
    before, within, again, told, one, left = map(int, run(code))
    assert (within, again, told) == (before + 3 * 2, before + 3 * 2, before)
    assert (one, left) == (before + 2, before)


def test_no_bit_depends_on_how_threads_wait():
    """A training and a sampling that change the way with every unit, beside the same in one way."""
    code = (
        "import hashlib, torch\n"
        "from sciml_fm_core import Task, TrainConfig, pretrain, threads\n"
        "from sciml_fm_core.physics import sampling\n"
        "sampling._LONG = 0\n"
        "threads.teams_here = lambda: teams\n"
        "changes = [0]\n"
        "def change(self, kind, seconds):\n"
        "    changes[0] += 1\n"
        "    self.way = 1 - self.way\n"
        "    self.use(self.way)\n"
        "threads.Chooser.timed = change\n"
        "task = Task.parse('SYS-2(0.2,1)')\n"
        "for teams in (0, 1):\n"
        "    parts = [task.sample(16, 32, torch.Generator().manual_seed(3)) for _ in range(2)]\n"
        "    options = {'size': '64K', 'resolution': 32, 'batch_size': 8, 'validation_count': 1}\n"
        "    operator, _ = pretrain([task], TrainConfig(steps=4), **options)\n"
        "    tensors = [*operator.model.parameters(), *parts[0], *parts[1]]\n"
        "    print(hashlib.sha256(b''.join(t.detach().numpy().tobytes() for t in tensors)).hexdigest(), changes[0])\n"
    )
    one, none, other, changes = run(code)
    assert one == other
    assert int(none) == 0
    assert int(changes) > 4
