"""Runs many cases of each kind, in processes whose time and memory are limited, and tells what was not refused.

A case that hangs, takes too much memory or ends its process is a defect of its seed; the others go on.
"""

from __future__ import annotations

import argparse
import importlib
import multiprocessing
import pkgutil
import resource
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import ModuleType

import torch

SECONDS = 10
"""Of one case, at most."""
MEMORY = 2 * 2**30
"""Bytes that a process may ask for beyond what it has when it starts."""


def find_kinds() -> dict[str, ModuleType]:
    """Modules of this package that attack something, by name."""
    package = __package__ or "tests.attack"
    names = [module.name for module in pkgutil.iter_modules([str(Path(__file__).parent)])]
    modules = [importlib.import_module(f"{package}.{name}") for name in names if not name.startswith("_")]
    return {module.NAME: module for module in modules if hasattr(module, "attack")}


def run_case(module: ModuleType, seed: int, root: Path) -> str | None:
    """What is wrong with one case, None where nothing is: an error that is let out is a defect too."""
    folder = root / str(seed)
    folder.mkdir(parents=True)
    began = time.monotonic()
    signal.signal(signal.SIGALRM, _too_long)
    signal.alarm(SECONDS)
    try:
        found = module.attack(seed, folder)
    except BaseException as error:
        found = f"{type(error).__name__}: {' '.join(str(error).split())[:200]}{_place(error)}"
    finally:
        signal.alarm(0)
        shutil.rmtree(folder, ignore_errors=True)
    took = time.monotonic() - began
    return found or (f"took {took:.0f} s" if took > SECONDS else None)


def _too_long(*_) -> None:
    raise TimeoutError(f"more than {SECONDS} s")


def _place(error: BaseException) -> str:
    trace = error.__traceback__
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    return "" if trace is None else f" ({Path(trace.tb_frame.f_code.co_filename).name}:{trace.tb_lineno})"


def _work(name: str, seeds: Sequence[int], root: Path, pipe) -> None:
    torch.set_num_threads(1)
    module = find_kinds()[name]
    if hasattr(module, "prepare"):
        module.prepare()
    pages = int(Path("/proc/self/statm").read_text().split()[0]) if Path("/proc/self/statm").exists() else 0
    limit = pages * resource.getpagesize() + MEMORY
    if pages:
        resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
    for seed in seeds:
        pipe.send((seed, None, False))
        pipe.send((seed, run_case(module, seed, root), True))
    pipe.close()


def run_kind(name: str, seeds: Sequence[int], processes: int = 1) -> Iterator[tuple[int, str | None]]:
    """Each seed and what is wrong with it; a process that dies or hangs is replaced by another."""
    context = multiprocessing.get_context("spawn")
    waiting = [list(seeds[start :: max(1, processes)]) for start in range(max(1, processes))]
    with tempfile.TemporaryDirectory() as folder:
        running: dict = {}
        while any(waiting) or running:
            for lane, left in enumerate(waiting):
                if left and lane not in running:
                    ours, theirs = context.Pipe(duplex=False)
                    root = Path(tempfile.mkdtemp(dir=folder))
                    process = context.Process(target=_work, args=(name, left, root, theirs))
                    process.start()
                    theirs.close()
                    running[lane] = (process, ours)
            for lane, (process, pipe) in list(running.items()):
                found = _next(pipe)
                if found is not None:
                    waiting[lane].remove(found[0])
                    yield found
                if not waiting[lane] or found is None:
                    if found is None:  # it died, or hangs where no signal reaches it
                        seed = waiting[lane].pop(0)
                        yield seed, f"the process {_fate(process)}"
                    process.kill()
                    process.join()
                    pipe.close()
                    del running[lane]


def _next(pipe) -> tuple[int, str | None] | None:
    started = False
    while True:
        # A process that starts imports PyTorch before its first case.
        if not pipe.poll(3 * SECONDS if started else 180):
            return None
        try:
            seed, found, done = pipe.recv()
        except (EOFError, OSError):
            return None
        if done:
            return seed, found
        started = True


def _fate(process) -> str:
    process.join(1)
    code = process.exitcode
    return "hangs" if code is None else f"ended by {signal.Signals(-code).name}" if code < 0 else f"ended with {code}"


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the attacks that the command line asks for, print a table, and exit 1 if there is a defect."""
    kinds = find_kinds()
    parser = argparse.ArgumentParser(prog="python -m tests.attack", description=main.__doc__)
    parser.add_argument("--cases", type=int, default=1000, help="of each kind")
    parser.add_argument("--kinds", default=",".join(kinds), help=f"among {', '.join(kinds)}")
    parser.add_argument("--first", type=int, default=0, help="first seed")
    parser.add_argument("--processes", type=int, default=1)
    options = parser.parse_args(arguments)
    chosen = options.kinds.split(",")
    if unknown := [name for name in chosen if name not in kinds]:
        parser.error(f"expected kinds among {', '.join(kinds)}, got {', '.join(unknown)}")
    defects = 0
    print(f"{'kind':16} {'cases':>7} {'defects':>8} {'seconds':>8}")
    for name in chosen:
        began, wrong = time.monotonic(), []
        for seed, found in run_kind(name, range(options.first, options.first + options.cases), options.processes):
            if found:
                wrong.append((seed, found))
        defects += len(wrong)
        print(f"{name:16} {options.cases:7} {len(wrong):8} {time.monotonic() - began:8.0f}", flush=True)
        for seed, found in wrong[:20]:
            print(f"    seed {seed}: {found}", flush=True)
    sys.exit(1 if defects else 0)
