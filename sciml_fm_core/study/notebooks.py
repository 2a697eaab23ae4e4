"""Grids of notebook runs, executed with papermill: each in a process of its own, none lost, none repeated.

A batch is a YAML file. Paths in it are relative to it, and its folder is the notebooks' working directory::

    defaults:                          # optional; what every entry begins with
      notebook: 02_adapt.ipynb
      parameters: {budget: laptop, output: "results/{run}"}
    runs:                              # the file may also be this list alone
      - parameters: {examples: "0,64"} # fixed; a list here is a list-valued parameter
        grid:                          # swept; the runs are the product of these lists
          task: ["SYS-1(5,10)", "SYS-1(10,15)"]
          seed: [0, 1, 2]
      - notebook: 01_pretrain.ipynb
        gpus: 1                        # 0 or 1; a run sees the GPU it asked for, or none

``{run}`` in a parameter stands for the name of the run, ``<notebook>-<hash>``, so that runs write to different places.
The hash is of the notebook without outputs, all parameters with their defaults, and the version of this package. A run
leaves ``<name>.ipynb`` and then the marker ``<name>.json``; `engine` runs what has no marker. For clusters, see
``docs/cluster.md``.
"""

from __future__ import annotations

import ast
import hashlib
import importlib.metadata
import itertools
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
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Executor, ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import IO, Any, cast

from sciml_fm_core._version import __version__
from sciml_fm_core.files import atomic_path, write_json

from . import notebook_process
from .engine import GridProgress, Job, connect, need, run_jobs

ENTRY_KEYS = ("notebook", "parameters", "grid", "gpus")
POLL = 0.1
CLUSTER_ATTEMPTS = 3
"""How often a cluster starts a run again whose worker it lost."""
THREAD_VARIABLES = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")

_stopped: set[str] = set()
"""Batches whose runs in this process are to end."""


@dataclass(frozen=True)
class Run:
    """One notebook with one set of parameters.

    Attributes:
        notebook: file to execute.
        parameters: what the batch sets, without the notebook's own defaults.
        identity: hash of everything that decides the result.
        output: executed notebook.
        marker: record of the finished run.
        folder: working directory.
        source: text of the notebook when it was planned, which is what is executed.
        gpus: 0 or 1.
        status: ``pending``, ``done`` or ``failed``.
    """

    notebook: Path
    parameters: dict[str, Any]
    identity: str
    output: Path
    marker: Path
    folder: Path
    source: str = field(repr=False)
    gpus: int = 0
    status: str = "pending"


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


def plan(path: str | Path, output: str | Path) -> list[Run]:
    """Read a batch and check all of it, before anything starts.

    Args:
        path: YAML file, see the module's text.
        output: folder of the executed notebooks and markers.

    Raises:
        ValueError: naming every problem: what is missing, unknown, of a wrong type or there twice.
    """
    path, output = Path(path).resolve(), Path(output).resolve()
    problems: list[str] = []
    runs: dict[str, Run] = {}
    need("papermill", "notebooks")  # now, rather than in every run
    for number, entry in enumerate(_read_entries(path), 1):
        found: list[str] = []
        for run in _plan_entry(entry, path.parent, output, found):
            if run.identity in runs:
                found.append(f"the run {run.parameters} is there twice; remove one")
            runs[run.identity] = run
        problems += [f"run {number}: {problem}" for problem in dict.fromkeys(found)]
    if problems:
        raise ValueError(f"batch {path}: nothing was started\n  " + "\n  ".join(problems))
    return list(runs.values())


def _read_entries(path: Path) -> list[dict]:
    """Entries with the defaults filled in."""
    yaml = need("yaml", "notebooks")
    if not path.is_file():
        raise ValueError(f"batch {path}: no such file; expected a YAML file with a list of runs")
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ValueError(f"batch {path}: not readable as YAML: {' '.join(str(error).split())}") from error
    if isinstance(content, list):
        content = {"runs": content}
    if not isinstance(content, dict) or not set(content) <= {"defaults", "runs"}:
        raise ValueError(f"batch {path}: expected a list of runs, or 'runs:' and 'defaults:'")
    defaults, entries = content.get("defaults") or {}, content.get("runs")
    if not isinstance(entries, list) or not entries:
        raise ValueError(f"batch {path}: expected at least one run in a list, got {entries!r}")
    for entry in (defaults, *entries):
        _check_entry(entry, path)
    merged = []
    for entry in entries:
        # What an entry sets in one way replaces a default that is set in the other.
        own = {*(entry.get("parameters") or {}), *(entry.get("grid") or {})}
        both = {}
        for key in ("parameters", "grid"):
            kept = {name: value for name, value in (defaults.get(key) or {}).items() if name not in own}
            both[key] = kept | (entry.get(key) or {})
        merged.append({**defaults, **entry, **both})
    return merged


def _check_entry(entry: Any, path: Path) -> None:
    if not isinstance(entry, dict) or not set(entry) <= set(ENTRY_KEYS):
        raise ValueError(f"batch {path}: expected the keys {', '.join(ENTRY_KEYS)} in every run, got {entry!r}")
    for key in ("parameters", "grid"):
        if not isinstance(entry.get(key) or {}, dict):
            raise ValueError(f"batch {path}: {key}: expected names and values, got {entry[key]!r}")
    if entry.get("gpus", 0) not in (0, 1):
        raise ValueError(f"batch {path}: gpus: expected 0 or 1, got {entry['gpus']!r}")


def _plan_entry(entry: Mapping, folder: Path, output: Path, problems: list[str]) -> Iterator[Run]:
    """Runs of an entry; what is wrong is added to the problems."""
    if not entry.get("notebook"):
        problems.append("expected 'notebook: path'")
        return
    notebook = folder / str(entry["notebook"])
    try:
        source, defaults, content = _inspect(notebook)
    except ValueError as error:
        problems.append(str(error))
        return
    grid = entry["grid"]
    problems += [
        f"grid: {name} is among the parameters too; remove one" for name in entry["parameters"] if name in grid
    ]
    for name, values in grid.items():
        if not isinstance(values, list) or not values:
            problems.append(f"grid: {name}: expected a list of values, got {values!r}")
    if problems:
        return
    for values in itertools.product(*grid.values()):
        parameters = {**entry["parameters"], **dict(zip(grid, values, strict=True))}
        wrong = list(_check_parameters(parameters, defaults, notebook.name))
        problems += wrong
        if not wrong:
            parameters, identity = _identify(parameters, defaults, content)
            yield _new_run(notebook, source, parameters, identity, output, folder, entry.get("gpus", 0))


def _inspect(notebook: Path) -> tuple[str, dict[str, Any], list]:
    """Text of a notebook, its parameters with their defaults, and the content that decides its results."""
    nbformat = need("nbformat", "notebooks")
    if not notebook.is_file():
        raise ValueError(f"{notebook}: no such notebook; paths are relative to the YAML file")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about the form of a notebook that is read all the same
            source = notebook.read_text(encoding="utf-8")
            cells = nbformat.reads(source, as_version=4)
    except Exception as error:
        raise ValueError(f"{notebook}: not a readable notebook ({type(error).__name__})") from error
    tagged = [cell for cell in cells.cells if "parameters" in cell.metadata.get("tags", [])]
    if not tagged:
        raise ValueError(f"{notebook}: no cell is tagged 'parameters'; tag the one that sets them")
    kernel = cells.metadata.get("kernelspec", {})
    content = [kernel.get("name"), *([cell.cell_type, cell.source] for cell in cells.cells)]
    if kernel.get("language", "python") == "python":
        return source, _defaults(tagged[0].source, notebook), content
    inspected = need("papermill", "notebooks").inspect_notebook(str(notebook))
    return source, {name: _Expression(about["default"]) for name, about in inspected.items()}, content


class _Expression(str):
    """A default that is not a plain value: it accepts anything."""


def _defaults(source: str, notebook: Path) -> dict[str, Any]:
    """Read by Python's own grammar: papermill's inspection stumbles on '#' and '=' inside a text."""
    try:
        statements = ast.parse(source).body
    except SyntaxError as error:
        raise ValueError(f"{notebook}: the cell tagged 'parameters' is not valid Python ({error})") from error
    defaults: dict[str, Any] = {}
    for statement in statements:
        if not isinstance(statement, ast.Assign | ast.AnnAssign) or statement.value is None:
            continue
        try:
            value = ast.literal_eval(statement.value)
            json.dumps(value, sort_keys=True)
        except (ValueError, TypeError):
            value = _Expression(ast.unparse(statement.value))
        if isinstance(statement, ast.AnnAssign) and ast.unparse(statement.annotation) == "float" and type(value) is int:
            value = float(value)
        targets = statement.targets if isinstance(statement, ast.Assign) else [statement.target]
        defaults |= {target.id: value for target in targets if isinstance(target, ast.Name)}
    return defaults


def _check_parameters(parameters: Mapping, defaults: Mapping, notebook: str) -> Iterator[str]:
    for name, value in parameters.items():
        if name not in defaults:
            yield f"{name}: unknown in {notebook}, which has {', '.join(defaults) or 'no parameters'}"
            continue
        try:
            json.dumps(value, sort_keys=True)
        except (TypeError, ValueError):
            yield f"{name}: expected numbers, texts, lists of them or names with them, got {value!r}; quote a text"
            continue
        default = defaults[name]
        if default is None or isinstance(default, _Expression):
            continue
        expected = (int, float) if isinstance(default, float) else list if isinstance(default, tuple) else type(default)
        if not isinstance(value, expected) or isinstance(value, bool) is not isinstance(default, bool):
            hint = "; in YAML, write 1.0e-3 for 1e-3" if isinstance(default, float) and isinstance(value, str) else ""
            yield f"{name}: expected {type(default).__name__} as in {notebook}, got {value!r}{hint}"


def _identify(parameters: Mapping, defaults: Mapping, content: list) -> tuple[dict[str, Any], str]:
    """Parameters in their own types, and the hash of everything that decides the result."""
    from sciml_fm_core._version import __version__

    parameters = {
        name: float(value) if isinstance(defaults[name], float) and isinstance(value, int) else value
        for name, value in parameters.items()
    }
    text = json.dumps([content, {**defaults, **parameters}, __version__], sort_keys=True)
    return parameters, hashlib.blake2b(text.encode(), digest_size=5).hexdigest()


def _new_run(
    notebook: Path, source: str, parameters: Mapping, identity: str, output: Path, folder: Path, gpus: int
) -> Run:
    name = f"{notebook.stem}-{identity}"
    named = {
        key: value.replace("{run}", name) if isinstance(value, str) else value for key, value in parameters.items()
    }
    run = Run(notebook, named, identity, output / f"{name}.ipynb", output / f"{name}.json", folder, source, gpus)
    return replace(run, status=_status(run))


def _status(run: Run) -> str:
    try:
        return json.loads(run.marker.read_text(encoding="utf-8"))["status"]
    except FileNotFoundError:
        return "pending"
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(f"{run.marker}: not a marker of a run ({error}); remove it to run again") from error


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
    began, name = time.monotonic(), uuid.uuid4().hex
    pending = [run for run in runs if _status(run) == "pending" or (retry_failed and _status(run) == "failed")]
    if scheduler is None:
        processes = processes or max(1, _cores() // 2)
    settings = {"batch": name, "timeout": timeout, "processes": processes}
    with _executor(pending, processes, scheduler, name) as (executor, gpus, stop):
        for run in pending:  # failed runs lose their markers: from now on a marker means that a run is finished
            run.output.parent.mkdir(parents=True, exist_ok=True)
            run.marker.unlink(missing_ok=True)
        jobs = {run.identity: _job(run, settings, gpus, on_cluster=scheduler is not None) for run in runs}
        by_job = {jobs[run.identity].identity: run for run in runs}
        run_jobs(
            jobs.values(), executor, callback=callback, stop=stop,
            failed=lambda job: _status(by_job[job.identity]) == "failed",
            on_error=lambda job, error: _record(by_job[job.identity], time.time(), f"the run was given up: {error}"),
        )  # fmt: skip
    failures = tuple(replace(run, status="failed") for run in runs if _status(run) == "failed")
    done = len(runs) - len(failures)
    return Summary(len(runs), done, len(failures), len(pending), time.monotonic() - began, failures)


def _job(run: Run, settings: dict, gpus: queue.Queue[str] | None, *, on_cluster: bool) -> Job:
    options = {"key": f"{run.output.stem}-{settings['batch']}"} if on_cluster else {}
    return Job(run.output.stem, run.marker, partial(_run_one, run, settings, gpus), options=options)


@contextmanager
def _executor(
    pending: Sequence[Run], processes: int | None, scheduler: str | None, batch: str
) -> Iterator[tuple[Executor, queue.Queue[str] | None, Callable[[], None]]]:
    """Where the runs are executed, the GPUs to deal out, and what ends the runs in progress.

    Here, threads each look after one process at a time.
    """
    if scheduler is None:
        gpus = _free_gpus(pending)
        with ThreadPoolExecutor(processes) as pool:
            yield pool, gpus, partial(_stop, batch)
        return
    with connect(scheduler) as client:
        wanted = {"GPU": 1} if any(run.gpus for run in pending) else None
        workers = client.scheduler_info(n_workers=-1)["workers"].values()
        if wanted and workers and not any("GPU" in each["resources"] for each in workers):
            raise ValueError("batch: a run asks for a GPU and no worker offers one; start some with --resources GPU=1")
        executor = client.get_executor(pure=False, retries=CLUSTER_ATTEMPTS, resources=wanted)
        yield executor, None, lambda: client.run(_stop, batch, on_error="ignore")


def _stop(batch: str) -> None:
    """End the runs of a batch that are in progress in this process."""
    _stopped.add(batch)


def _cores() -> int:
    """Cores that this process may use, which under a batch system are fewer than there are."""
    return len(os.sched_getaffinity(0)) if sys.platform == "linux" else os.cpu_count() or 1


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
        variables |= dict.fromkeys(THREAD_VARIABLES, str(max(1, _cores() // settings["processes"])))
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
    """Execute a run, and leave the executed notebook, then the marker; nothing where the batch was stopped."""
    with suppress(_Stopped), _environment(run, settings, gpus) as environment:
        _check_stopped(settings)
        with atomic_path(run.output) as partial_output:
            began = time.time()
            partial_output.write_text(run.source, encoding="utf-8")
            error = _execute(run, partial_output, settings, environment)
        _record(run, began, error)


def _record(run: Run, began: float, error: str | None) -> None:

    versions = {name: importlib.metadata.version(name) for name in ("torch", "papermill", "ipykernel")}
    status = "failed" if error else "done"
    marker = {
        "status": status,
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
            notebook_process.end_processes(
                mark
            )  # also after it ended well: nothing that a notebook started outlives it
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
