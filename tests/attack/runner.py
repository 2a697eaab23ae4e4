"""Runs many cases of each kind, in processes whose time and memory are limited, and tells what was not refused.

A case is a defect where anything but a clear refusal or the right result comes out, where it hangs, takes too much
memory or ends its process; the others go on.
"""

from __future__ import annotations

import argparse
import multiprocessing
import resource
import shutil
import signal
import sys
import tempfile
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

import torch

from .calls import CALLS
from .files import FILES, attack

KINDS: dict[str, Callable[[int, Path], str | None]] = {
    **{name: partial(attack, kind) for name, kind in FILES.items()}, **CALLS
}  # fmt: skip
SECONDS = 10
"""Time of a processor that one case may take, so that other programs make none too long."""
MEMORY = 2 * 2**30
"""Bytes that a process may ask for beyond what it has when it starts."""


def run_case(case: Callable[[int, Path], str | None], seed: int, root: Path) -> str | None:
    """What is wrong with one case, None where nothing is: an error that is let out is a defect too."""
    folder = root / str(seed)
    folder.mkdir(parents=True)
    signal.signal(signal.SIGPROF, _too_long)
    signal.setitimer(signal.ITIMER_PROF, SECONDS)
    try:
        return case(seed, folder)
    except BaseException as error:
        trace = error.__traceback__
        while trace is not None and trace.tb_next is not None:
            trace = trace.tb_next
        place = "" if trace is None else f" ({Path(trace.tb_frame.f_code.co_filename).name}:{trace.tb_lineno})"
        return f"{type(error).__name__}: {' '.join(str(error).split())[:200]}{place}"
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)
        shutil.rmtree(folder, ignore_errors=True)


def _too_long(*_) -> None:
    raise TimeoutError(f"more than {SECONDS} s")


def _work(name: str, seeds: Sequence[int], root: Path, pipe) -> None:
    torch.set_num_threads(1)
    for seed in range(3):  # what is imported and made once is not limited
        run_case(KINDS[name], seed, root / "first")
    if Path("/proc/self/statm").exists():
        limit = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize() + MEMORY
        resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
    pipe.send(None)
    for seed in seeds:
        pipe.send((seed, run_case(KINDS[name], seed, root)))


def run_kind(name: str, seeds: Sequence[int]) -> list[tuple[int, str]]:
    """Seeds and what is wrong with them; a process that dies or hangs is replaced by another."""
    context, waiting, wrong = multiprocessing.get_context("spawn"), list(seeds), []
    while waiting:
        with tempfile.TemporaryDirectory() as root:
            ours, theirs = context.Pipe(duplex=False)
            process = context.Process(target=_work, args=(name, list(waiting), Path(root), theirs))
            process.start()
            theirs.close()
            _next(ours, 180)  # it imports PyTorch first
            while waiting and (found := _next(ours, 30 * SECONDS)):
                waiting.remove(found[0])
                wrong += [found] if found[1] else []
            if waiting:  # it died, or hangs where no signal reaches it
                process.join(1)
                fate = "hangs" if process.is_alive() else f"ended with {process.exitcode}"
                wrong.append((waiting.pop(0), f"the process {fate}"))
            process.kill()
            process.join()
    return wrong


def _next(pipe, seconds: float):
    try:
        return pipe.recv() if pipe.poll(seconds) else None
    except (EOFError, OSError):
        return None


def main() -> None:
    """Run the attacks that the command line asks for, print a table, and exit 1 if there is a defect."""
    parser = argparse.ArgumentParser(prog="python -m tests.attack", description=main.__doc__)
    parser.add_argument("--cases", type=int, default=1000, help="of each kind")
    parser.add_argument("--kinds", default=",".join(KINDS), help=f"among {', '.join(KINDS)}")
    parser.add_argument("--first", type=int, default=0, help="first seed")
    parser.add_argument("--processes", type=int, default=1, help="kinds at a time")
    options = parser.parse_args()
    chosen, defects = options.kinds.split(","), 0
    if unknown := [name for name in chosen if name not in KINDS]:
        parser.error(f"expected kinds among {', '.join(KINDS)}, got {', '.join(unknown)}")
    print(f"{'kind':16} {'cases':>7} {'defects':>8}")
    seeds = range(options.first, options.first + options.cases)
    with ThreadPoolExecutor(options.processes) as pool:
        for name, wrong in zip(chosen, pool.map(lambda name: run_kind(name, seeds), chosen), strict=True):
            defects += len(wrong)
            print(f"{name:16} {options.cases:7} {len(wrong):8}", flush=True)
            for seed, found in wrong[:20]:
                print(f"    seed {seed}: {found}", flush=True)
    sys.exit(1 if defects else 0)
