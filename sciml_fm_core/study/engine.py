"""One engine for grids of anything: it runs the jobs that are not finished, on any `concurrent.futures.Executor`.

A job is finished when its marker is there, a file that its function writes at the end. So a grid that is called again
does only what is missing, and what a cluster starts again after it lost a worker returns at once if it was finished.

Each job runs under the lock of its marker. So several processes, also of several machines that share a file system with
locks, may be given one grid: they share it out among them, and none does what another has begun.
"""

from __future__ import annotations

import importlib
import logging
import multiprocessing
import os
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, CancelledError, Executor, Future, ProcessPoolExecutor, wait
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from sciml_fm_core.cpu import use_threads
from sciml_fm_core.locks import Held, lock_output

STOP_SECONDS = 10.0
"""How long an interrupted grid waits for the jobs that it told to stop."""
ASK_SECONDS = 0.5
"""How often a grid asks whether what another process has begun is finished, or left undone."""

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Job:
    """One thing to do.

    Attributes:
        identity: name; jobs of the same name are one job.
        marker: file whose presence means that the job is finished.
        function: what to run, without arguments; picklable where it runs in another process.
        needs: jobs to finish before this one, without needs of their own; they run only for jobs that are missing.
        options: keyword arguments of the executor's `submit`, such as Dask's ``resources``.
    """

    identity: str
    marker: Path
    function: Callable[[], object]
    needs: Sequence[Job] = ()
    options: Mapping[str, Any] = field(default_factory=dict)


class GridProgress(NamedTuple):
    """Where a grid stands: jobs done and failed (now or before) of all, and seconds left at this pace, where known."""

    done: int
    failed: int
    total: int
    seconds_left: float | None


def run_jobs(
    jobs: Sequence[Job],
    executor: Executor,
    *,
    callback: Callable[[GridProgress], None] | None = None,
    failed: Callable[[Job], bool] = lambda job: False,
    on_error: Callable[[Job, Exception], None] | None = None,
    stop: Callable[[], object] | None = None,
) -> int:
    """Run what is missing, each job when those that it needs are finished, and none twice; returns how many it ran.

    What another process runs comes last: it is waited for, and done here if that process ends without it.

    Args:
        jobs: the grid.
        executor: where to run; the caller opens and closes it.
        callback: called at the start and after each job.
        failed: whether the marker of a finished job tells of a failure.
        on_error: called when a job raises, and the others go on; where not given, the first error ends the grid.
        stop: ends the jobs in progress when the grid is interrupted; where not given, they end by themselves.

    Raises:
        KeyboardInterrupt: when interrupted, after `stop`; its text says how to go on.
        OSError: if a cluster is lost.
    """
    every = {each.identity: each for job in jobs for each in (*job.needs, job)}
    missing = {job.identity: job for job in jobs if not job.marker.exists()}
    needs = {need.identity: need for job in missing.values() for need in job.needs if not need.marker.exists()}
    pending = needs | missing
    waiting, running = dict(pending), dict[Future, Job]()
    later: dict[str, float] = {}  # when to ask again for a job that another process runs
    ran, warned = 0, False
    failures = sum(failed(job) for name, job in every.items() if name not in pending)
    began, count = time.monotonic(), len(pending)

    def report() -> None:
        finished = count - len(pending)
        left = (time.monotonic() - began) / finished * len(pending) if finished else None
        if callback is not None:
            callback(GridProgress(len(every) - len(pending) - failures, failures, len(every), left))

    try:
        report()
        while pending:
            now = time.monotonic()
            ready = (
                job
                for job in waiting.values()
                if later.get(job.identity, now) <= now and not any(need.identity in pending for need in job.needs)
            )
            if (job := next(ready, None)) is not None:
                del waiting[job.identity]
                later.pop(job.identity, None)
                future = executor.submit(_run_once, job.marker, job.function, **job.options)
                running[future] = job
                if not future.done():
                    continue
            elif not running:
                time.sleep(ASK_SECONDS)
            for future in wait(running, ASK_SECONDS if later else None, FIRST_COMPLETED).done:
                job = running.pop(future)
                try:
                    outcome = future.result()
                    if isinstance(outcome, str):
                        if not warned:
                            _log.warning("waiting for what others have begun, such as %s", outcome)
                        warned, waiting[job.identity] = True, job
                        later[job.identity] = time.monotonic() + ASK_SECONDS
                        continue
                    ran += bool(outcome)
                except CancelledError:
                    raise OSError("the cluster dropped its runs; the same command goes on with the rest") from None
                except Exception as error:
                    if on_error is None:
                        raise
                    on_error(job, error)
                    ran += 1
                del pending[job.identity]
                failures += failed(job)
                report()
    except BaseException as error:
        if stop is not None:
            stop()
            wait(running, timeout=STOP_SECONDS)
        for future in running:
            future.cancel()
        if not isinstance(error, KeyboardInterrupt):
            raise
        kept = sum(job.marker.exists() for job in every.values())
        error.args = (f"stopped: {kept} of {len(every)} runs are finished; the same command goes on with the rest",)
        raise
    return ran


def _run_once(marker: Path, function: Callable[[], object]) -> bool | str:
    """Run a job under the lock of its marker; returns whether it was missing, or who runs it already.

    A cluster that loses a worker also starts again what that one had finished.
    """
    try:
        with lock_output(marker):
            if marker.exists():
                return False
            function()
            return True
    except Held as held:
        return held.who


# Executors ------------------------------------------------------------------------------------------------------------


class InlineExecutor(Executor):
    """Runs each job at once, in the thread of the caller, which an interrupt reaches."""

    def submit(self, function, /, *args, **kwargs) -> Future:
        future: Future = Future()
        try:
            future.set_result(function(*args, **kwargs))
        except Exception as error:
            future.set_exception(error)
        return future


@contextmanager
def open_executor(processes: int, scheduler: str | None) -> Iterator[Executor]:
    """Executor of jobs that compute: in this process, in spawned ones of one thread each, or on a Dask cluster."""
    if scheduler is not None:
        with connect(scheduler) as client:
            yield client.get_executor(pure=False)
    elif processes == 1:
        yield InlineExecutor()
    else:
        # Forked processes would inherit locks of the parent's threads; spawned ones begin clean.
        context, others = multiprocessing.get_context("spawn"), multiprocessing.active_children()
        with ProcessPoolExecutor(processes, mp_context=context, initializer=_begin_worker) as pool:
            try:
                yield pool
            except KeyboardInterrupt:  # which they may not have heard
                pool.shutdown(wait=False, cancel_futures=True)
                time.sleep(ASK_SECONDS)  # for its thread to forget what was cancelled: Python 3.11 complains of it else
                for worker in set(multiprocessing.active_children()) - set(others):
                    worker.terminate()
                raise


def connect(scheduler: str):
    """Client of a Dask cluster, which the caller closes; an OSError says that the scheduler is not reached."""
    return need("distributed", "cluster").Client(scheduler, set_as_default=False)


def need(module: str, extra: str):
    """Import a module of an optional dependency; where it is missing, a ValueError says how to install it."""
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        raise ValueError(f"{module} is not installed; pip install 'sciml-fm[{extra}]'") from error


def _begin_worker() -> None:
    """Give a worker one thread, and let it end with its parent, however that ends."""
    use_threads(1)
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)
