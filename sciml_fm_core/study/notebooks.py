"""Notebooks executed with papermill: each in a process of its own, by the engine of grids.

What a run is, and how a batch of them is written down, is in `batch_file`; for clusters, see ``docs/cluster.md``.
"""

from __future__ import annotations

import errno
import importlib.metadata
import json
import math
import os
import platform
import queue
import signal
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Executor, ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import IO, Any, cast

from sciml_fm_core._version import __version__
from sciml_fm_core.cpu import available_cores
from sciml_fm_core.files import atomic_path, is_full, write_json
from sciml_fm_core.locks import Held, lock_output

from . import notebook_process
from .batch_file import Run, status_of
from .engine import GridProgress, Job, connect, run_jobs

POLL = 0.1
THREAD_VARIABLES = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")

_stopped: set[str] = set()
"""Batches whose runs in this process are to end."""


@dataclass(frozen=True)
class Summary:
    """What a batch has come to: counts of all its runs, and what this call executed."""

    total: int
    done: int
    failed: int
    executed: int
    seconds: float
    failures: tuple[Run, ...] = ()


class _Stopped(Exception):
    """The batch was stopped while this run was in progress."""


def run_batch(
    runs: Sequence[Run],
    *,
    processes: int | None = None,
    scheduler: str | None = None,
    timeout: float | None = None,
    retry_failed: bool = False,
    callback: Callable[[GridProgress], None] | None = None,
) -> Summary:
    """Execute the runs that have no marker; failures are kept and the rest go on.

    Args:
        runs: from `plan`.
        processes: notebooks at a time, which share the cores; half the cores where not given. With a scheduler its
            workers decide, and this is how many runs share a machine's cores: its environment decides where not given.
        scheduler: address of a Dask scheduler; local processes where not given.
        timeout: seconds after which a run is ended, with all its processes, and counts as failed.
        retry_failed: also repeat runs that failed before.
        callback: called at the start and after each run.

    Raises:
        ValueError: if a run asks for a GPU and there is none.
        KeyboardInterrupt: when interrupted, after every process of the batch has ended.
    """
    if processes is not None and processes < 1:
        raise ValueError(f"processes: expected at least 1, got {processes}")
    if timeout is not None and timeout <= 0:
        raise ValueError(f"timeout: expected seconds above 0, got {timeout:g}")
    began, name = time.monotonic(), uuid.uuid4().hex
    repeated = ("pending", "failed") if retry_failed else ("pending",)
    pending = [run for run in runs if status_of(run) in repeated]
    if scheduler is None:
        processes = processes or max(1, available_cores() // 2)
    settings = {"batch": name, "timeout": timeout, "processes": processes}
    with _executor(pending, processes, scheduler, name) as (executor, gpus, stop):
        for run in pending:  # failed runs lose their markers: from now on a marker means that a run is finished
            run.output.parent.mkdir(parents=True, exist_ok=True)
            with suppress(Held), lock_output(run.marker):  # what another process repeats now is left to it
                if status_of(run) == "failed":
                    run.marker.unlink()
        by_name = {run.output.stem: run for run in runs}

        def on_error(job: Job, error: Exception) -> None:
            if isinstance(error, OSError) and is_full(error):  # no fault of the run, which would be kept as failed
                raise error
            _record(by_name[job.identity], time.time(), f"{type(error).__name__}: {error}")

        executed = run_jobs(
            [_job(run, settings, gpus, on_cluster=scheduler is not None) for run in runs],
            executor, callback=callback, stop=stop,
            failed=lambda job: status_of(by_name[job.identity]) == "failed", on_error=on_error,
        )  # fmt: skip
    failures = tuple(run for run in runs if status_of(run) == "failed")
    done = len(runs) - len(failures)
    return Summary(len(runs), done, len(failures), executed, time.monotonic() - began, failures)


def _job(run: Run, settings: dict, gpus: queue.Queue[str] | None, *, on_cluster: bool) -> Job:
    options: dict[str, Any] = {"key": f"{run.output.stem}-{settings['batch']}"} if on_cluster else {}
    if on_cluster and run.gpus:
        options["resources"] = {"GPU": 1}
    return Job(run.output.stem, run.marker, partial(_run_one, run, settings, gpus), options=options)


@contextmanager
def _executor(
    pending: Sequence[Run], processes: int | None, scheduler: str | None, batch: str
) -> Iterator[tuple[Executor, queue.Queue[str] | None, Callable[[], None]]]:
    """The executor of the runs, the GPUs that they share, and a function that ends the runs in progress.

    Here, threads each look after one process at a time.
    """
    if scheduler is None:
        gpus = _free_gpus(pending)
        with ThreadPoolExecutor(processes) as pool:
            yield pool, gpus, partial(_stop, batch)
        return
    with connect(scheduler) as client:
        wanted = any(run.gpus for run in pending)
        workers = client.scheduler_info(n_workers=-1)["workers"].values()
        if wanted and workers and not any("GPU" in each["resources"] for each in workers):
            raise ValueError("batch: a run asks for a GPU and no worker offers one; start some with --resources GPU=1")
        yield client.get_executor(pure=False), None, lambda: client.run(_stop, batch, on_error="ignore")


def _stop(batch: str) -> None:
    """End the runs of a batch that are in progress in this process."""
    _stopped.add(batch)


def _free_gpus(pending: Sequence[Run]) -> queue.Queue[str]:
    names = os.environ.get("CUDA_VISIBLE_DEVICES")
    if names is None and any(run.gpus for run in pending):
        import torch

        names = ",".join(str(number) for number in range(torch.cuda.device_count()))
    free: queue.Queue[str] = queue.Queue()
    for name in filter(None, (names or "").split(",")):
        free.put(name)
    if free.empty() and any(run.gpus for run in pending):
        raise ValueError("batch: a run asks for a GPU and there is none here; remove 'gpus: 1' or use a cluster")
    return free


@contextmanager
def _environment(run: Run, settings: dict, gpus: queue.Queue[str] | None) -> Iterator[dict[str, str]]:
    """Variables of a run's process: its share of the cores, and the GPU that it holds while it runs."""
    variables = dict(os.environ)
    if settings["processes"]:
        variables |= dict.fromkeys(THREAD_VARIABLES, str(max(1, available_cores() // settings["processes"])))
    if not run.gpus:
        yield {**variables, "CUDA_VISIBLE_DEVICES": ""}
        return
    if gpus is None:  # a cluster's worker was started with its GPU
        yield variables
        return
    while True:
        _check_stopped(settings)
        with suppress(queue.Empty):
            gpu = gpus.get(timeout=POLL)
            break
    try:
        yield {**variables, "CUDA_VISIBLE_DEVICES": gpu}
    finally:
        gpus.put(gpu)


def _check_stopped(settings: dict) -> None:
    if settings["batch"] in _stopped:
        raise _Stopped


def _run_one(run: Run, settings: dict, gpus: queue.Queue[str] | None = None) -> None:
    """Execute a run and write the executed notebook, then the marker; nothing where the batch was stopped."""
    with suppress(_Stopped), _environment(run, settings, gpus) as environment:
        _check_stopped(settings)
        with atomic_path(run.output) as partial_output:
            began = time.time()
            partial_output.write_text(run.source, encoding="utf-8")
            error = _execute(run, partial_output, settings, environment)
            if error and os.strerror(errno.ENOSPC) in error:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(run.output))
        _record(run, began, error)


def _record(run: Run, began: float, error: str | None) -> None:
    """Write the marker of a run that is finished."""
    versions = {name: importlib.metadata.version(name) for name in ("torch", "papermill", "ipykernel")}
    marker = {
        "status": "failed" if error else "done",
        "error": error,
        "notebook": run.notebook.name,
        "parameters": run.parameters,
        "identity": run.identity,
        "start": datetime.fromtimestamp(began, UTC).isoformat(timespec="seconds"),
        "seconds": round(time.time() - began, 3),
        "host": platform.node(),
        "versions": {"python": platform.python_version(), "sciml-fm": __version__, **versions},
    }
    write_json(run.marker, marker)


def _execute(run: Run, notebook: Path, settings: dict, environment: dict[str, str]) -> str | None:
    """Execute a notebook, in place, in a process of its own, and return what went wrong."""
    request = {"notebook": str(notebook), "parameters": run.parameters, "cwd": str(run.folder)}
    mark = uuid.uuid4().hex
    environment = {**environment, notebook_process.VARIABLE: mark}
    command = [sys.executable, "-P", notebook_process.__file__]
    with tempfile.TemporaryFile() as log:
        process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=log, stderr=log, env=environment, start_new_session=True, bufsize=0
        )
        pipe = cast(IO[bytes], process.stdin)
        try:
            # The pipe stays open: its end tells the process that this one is gone, however that came.
            with suppress(BrokenPipeError):
                pipe.write(json.dumps(request).encode() + b"\n")
            in_time = _wait(process, settings)
        finally:
            # Also after it ended well: nothing that a notebook started outlives it.
            notebook_process.end_processes(mark)
            process.wait()
            pipe.close()
        if not in_time:
            return f"ended after the time limit of {settings['timeout']:g} s"
        if process.returncode == 0:
            return None
        log.seek(0)
        lines = log.read().decode(errors="replace").strip().splitlines() or ["no message"]
        if process.returncode < 0:
            return f"ended by {signal.Signals(-process.returncode).name}, as when memory runs out"
        return lines[-1]


def _wait(process: subprocess.Popen, settings: dict) -> bool:
    """Whether a process ends within the time limit."""
    limit = time.monotonic() + (math.inf if settings["timeout"] is None else settings["timeout"])
    while time.monotonic() < limit:
        _check_stopped(settings)
        with suppress(subprocess.TimeoutExpired):
            process.wait(POLL)
            return True
    return False
