"""The engine: what is missing runs, once, in order; failures and interrupts lose nothing that is finished."""

from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack
from functools import partial

import pytest

from sciml_fm_core.locks import lock_output
from sciml_fm_core.study.engine import InlineExecutor, Job, run_jobs


@pytest.fixture
def job(tmp_path):
    """Function making a job, which notes that it ran."""
    ran = []

    def run(name, error=None):
        ran.append(name)
        if error:
            raise error
        (tmp_path / name).touch()

    def make(name, *needs, error=None):
        return Job(name, tmp_path / name, partial(run, name, error), needs)

    make.ran = ran
    return make


class LazyExecutor(InlineExecutor):
    """Runs nothing: what is submitted stays pending, as on a cluster without workers."""

    def __init__(self):
        self.futures = []

    def submit(self, function, /, *args, **kwargs):
        self.futures.append(Future())
        return self.futures[-1]


@pytest.mark.parametrize("executor", [InlineExecutor, partial(ThreadPoolExecutor, 3)])
def test_what_others_need_comes_first_and_nothing_is_repeated(job, executor):
    first, second = job("first"), job("second")
    jobs = [job("a"), job("b", first), job("c", first, second), job("b", first), job("d", job("unneeded"))]
    jobs[-1].marker.touch()
    seen = []
    with executor() as pool:
        run_jobs(jobs, pool, callback=seen.append)
    assert sorted(job.ran) == ["a", "b", "c", "first", "second"]
    assert job.ran.index("first") < job.ran.index("b")
    assert max(job.ran.index("first"), job.ran.index("second")) < job.ran.index("c")
    assert [(now.done, now.failed, now.total) for now in seen] == [(done, 0, 7) for done in range(2, 8)]
    assert seen[0].seconds_left is None
    assert seen[-1].seconds_left == 0
    job.ran.clear()
    run_jobs(jobs, InlineExecutor())
    assert not job.ran


def test_the_first_error_ends_the_grid(job):
    with pytest.raises(ZeroDivisionError):
        run_jobs([job("a"), job("b", error=ZeroDivisionError()), job("c")], InlineExecutor())
    assert job.ran == ["a", "b"]


def test_errors_that_are_recorded_do_not(job):
    jobs, seen = [job("a", error=ZeroDivisionError()), job("b"), job("c")], []
    jobs[2].marker.write_text("failed")

    def failed(job):
        return job.marker.read_text() == "failed"

    def record(job, error):
        job.marker.write_text("failed")

    run_jobs(jobs, InlineExecutor(), callback=seen.append, failed=failed, on_error=record)
    assert [(now.done, now.failed) for now in seen] == [(0, 1), (0, 2), (1, 2)]


def test_what_another_process_runs_comes_last_and_is_not_run_twice(job, monkeypatch, caplog):
    """The other one holds two jobs; it finishes the first, and dies over the second."""
    monkeypatch.setattr("sciml_fm_core.study.engine.ASK_SECONDS", 0.01)
    jobs = [job("finished elsewhere"), job("left undone"), job("mine")]
    with ExitStack() as first, ExitStack() as second:
        first.enter_context(lock_output(jobs[0].marker))
        second.enter_context(lock_output(jobs[1].marker))
        asked = []

        def other_process(done):
            asked.append(done)
            if len(asked) == 2:  # after what was free
                jobs[0].marker.touch()
                first.close()
                second.close()

        assert run_jobs(jobs, InlineExecutor(), callback=other_process) == 2
    assert job.ran == ["mine", "left undone"]
    assert [record.message.startswith("waiting for what others have begun") for record in caplog.records] == [True]
    assert sorted(path.name for path in jobs[0].marker.parent.iterdir()) == sorted(each.identity for each in jobs)


def test_interrupted_it_stops_what_is_in_progress_and_cancels_the_rest(job, monkeypatch):
    executor, stopped = LazyExecutor(), []

    def interrupt():
        raise KeyboardInterrupt

    def stop():
        stopped.append([future.cancelled() for future in executor.futures])
        for future in executor.futures[:2]:
            future.set_result(None)

    executor.submit = lambda *a, submit=executor.submit: interrupt() if len(executor.futures) == 3 else submit(*a)
    jobs = [job(name) for name in "abcd"]
    jobs[1].marker.touch()
    monkeypatch.setattr("sciml_fm_core.study.engine.STOP_SECONDS", 0.1)
    with pytest.raises(KeyboardInterrupt, match="stopped: 1 of 5 runs are finished; the same command goes on"):
        run_jobs([*jobs, job("e")], executor, stop=stop)
    assert stopped == [[False] * 3]
    assert [future.cancelled() for future in executor.futures] == [False, False, True]


def test_a_cluster_that_is_lost_is_told(job):
    executor = LazyExecutor()

    def lose(function, *arguments):
        future = Future()
        future.cancel()
        future.set_running_or_notify_cancel()
        return future

    executor.submit = lose
    with pytest.raises(OSError, match="the cluster dropped its runs"):
        run_jobs([job("a")], executor)
