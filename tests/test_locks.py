"""Locks: one process works, the others know who; a dead one blocks nobody, and nothing is left."""

import json
import os
import signal
import subprocess
import sys
import threading

import pytest

from sciml_fm_core import locks
from sciml_fm_core.locks import Held, lock_output

HOLDER = """
import sys, time
from sciml_fm_core.locks import lock_output
with lock_output("own.h5"):
    print("held", flush=True)
    time.sleep(600)
"""


@pytest.fixture
def other(tmp_path):
    """A process that holds own.h5 until it is killed."""
    process = subprocess.Popen([sys.executable, "-c", HOLDER], cwd=tmp_path, stdout=subprocess.PIPE)
    assert process.stdout.readline() == b"held\n"
    yield process
    process.kill()
    process.communicate()


def test_who_comes_second_is_told_who_works_and_a_killed_holder_blocks_nobody(tmp_path, other):
    with (
        pytest.raises(Held, match=rf"own.h5: process {other.pid} on \S+ works on it since 20.*; wait for it"),
        lock_output(tmp_path / "own.h5"),
    ):
        pass
    other.send_signal(signal.SIGKILL)
    other.wait()
    (left,) = tmp_path.iterdir()
    assert left.name == ".own.h5.lock"
    with lock_output(tmp_path / "own.h5") as before:
        assert before is None
        assert json.loads(left.read_text())["process"] == os.getpid()
    assert not list(tmp_path.iterdir())


def test_who_waits_goes_on_when_the_other_is_gone(tmp_path, other, caplog, monkeypatch):
    monkeypatch.setattr("sciml_fm_core.locks.POLL", 0.01)
    monkeypatch.setattr(locks._log, "filters", [lambda _: other.kill() is None])  # once it is said who is waited for
    with lock_output(tmp_path / "own.h5", wait=True) as before:
        assert before["process"] == other.pid
    assert len(caplog.records) == 1
    assert f"process {other.pid}" in caplog.text


def test_threads_hold_it_one_at_a_time(tmp_path, monkeypatch):
    """Also where each removes the file that others wait for."""
    monkeypatch.setattr("sciml_fm_core.locks.POLL", 0.0)
    inside, most, entered = [], [], []

    def work():
        for _ in range(20):
            with lock_output(tmp_path / "x", wait=True):
                inside.append(1)
                most.append(len(inside))
                entered.append(1)
                inside.pop()

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert (max(most), len(entered)) == (1, 80)
    assert not list(tmp_path.iterdir())
