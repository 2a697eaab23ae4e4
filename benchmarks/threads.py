"""Speed on a quiet machine and beside a program that keeps one core busy, by how the threads of PyTorch wait.

    python benchmarks/threads.py                           # on an otherwise idle machine; writes results/threads.json
    python benchmarks/threads.py --rounds 1 --seconds 0.5  # only shows that it runs

Three candidates do the same work in turns, in rotating order: one thread; all threads, always spinning; and all threads
that spin or sleep as `sciml_fm_core.threads` chooses. All three go through the public functions, so that what choosing
costs is counted. `docs/fill_numbers.py` puts the table of medians into docs/speed.md.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from itertools import product
from pathlib import Path
from unittest import mock

import torch

from sciml_fm_core import Task, TrainConfig, threads
from sciml_fm_core.data.batches import FreshBatches
from sciml_fm_core.files import write_json
from sciml_fm_core.training.cards import hardware, versions
from sciml_fm_core.training.loop import fit
from sciml_fm_core.training.transfer import new_operator

RESULTS = Path(__file__).resolve().parent / "results" / "threads.json"
CANDIDATES = ("one thread", "spinning", "adapting")


def train(resolution: int, seconds: float) -> float:
    """Examples per second of training the 1M network in batches of 16."""
    task = Task.parse("SYS-1(1,5)")
    operator, batches = new_operator([task], size="1M"), FreshBatches([task], 16, resolution=resolution)
    history = fit(operator, batches, TrainConfig(steps=10**9, time_limit=seconds))
    return history.examples_seen / history.seconds


def sample(seconds: float) -> float:
    """Examples per second of sampling at 128 x 128, 256 at a time."""
    task, generator, count, started = (
        Task.parse("SYS-2(0.2,1)"),
        torch.Generator().manual_seed(0),
        0,
        time.perf_counter(),
    )
    while time.perf_counter() < started + seconds:
        count += task.sample(256, 128, generator).size
    return count / (time.perf_counter() - started)


WORKS: dict[str, Callable[[float], float]] = {
    "training, 64 x 64": partial(train, 64),
    "training, 128 x 128": partial(train, 128),
    "sampling SYS-2, 128 x 128": sample,
}


@contextmanager
def candidate(name: str, count: int) -> Iterator[None]:
    """How threads are used."""
    torch.set_num_threads(1 if name == "one thread" else count)
    if name == "spinning":
        with mock.patch.object(threads, "teams_here", return_value=0):
            yield
    else:
        yield


@contextmanager
def one_core(busy: bool) -> Iterator[None]:
    """A program beside this one that computes all the time, where there is to be one."""
    other = subprocess.Popen([sys.executable, "-c", "while True: pass"]) if busy else None
    try:
        yield
    finally:
        if other is not None:
            other.kill()
            other.wait()


def main() -> None:
    """Measure, print, and write the file."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--seconds", type=float, default=6.0, help="of each candidate in each round")
    parser.add_argument("--json", type=Path, default=RESULTS)
    arguments = parser.parse_args()
    count, load, rows = torch.get_num_threads(), os.getloadavg()[0], []
    if not threads.teams_here():
        parser.error(
            f"expected several threads whose waiting is open, got {count} thread(s); see sciml_fm_core/threads.py"
        )
    for (work, measure), busy in product(WORKS.items(), (False, True)):
        rates: dict[str, list[float]] = {name: [] for name in CANDIDATES}
        with one_core(busy):
            for turn in range(arguments.rounds):
                for i in range(len(CANDIDATES)):
                    name = CANDIDATES[(i + turn) % len(CANDIDATES)]
                    with candidate(name, count):
                        rates[name].append(measure(arguments.seconds))
        medians = {name: statistics.median(values) for name, values in rates.items()}
        rows.append({"work": work, "busy": busy, "examples_per_second": rates, "medians": medians})
        print(
            work,
            "one core busy" if busy else "quiet",
            {name: f"{rate:.4g}" for name, rate in medians.items()},
            flush=True,
        )
    torch.set_num_threads(count)
    about = {"hardware": hardware("cpu"), "cores": len(os.sched_getaffinity(0)), "load_before": load, **versions()}
    command = f"python benchmarks/threads.py --rounds {arguments.rounds} --seconds {arguments.seconds:g}"
    write_json(arguments.json, {**about, "command": command, "rows": rows})


if __name__ == "__main__":
    main()
