"""Timing side by side: all candidates in one process, round after round, in rotating order."""

from __future__ import annotations

import gc
import math
import statistics
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch

Step = Callable[[], object]


@dataclass(frozen=True)
class Rounds:
    """How often to repeat: rounds until `seconds` are spent, but at least `fewest` and at most `most`.

    Attributes:
        fewest, most: rounds.
        seconds: time for all rounds of one comparison.
        shortest: seconds that one timing lasts at least; a faster step is called several times.
    """

    fewest: int
    most: int
    seconds: float
    shortest: float = 0.3


SETTLE_SECONDS = 0.3
"""Rest before each timing: threads of another candidate's linear algebra go on spinning for a while after its work, and
would take the cores from the next (seen: half the speed of what follows NumPy). One step that is not timed follows it,
since a candidate finds the caches as the others left them: what is measured is the speed of one step after another."""


def interleave(
    makers: Mapping[str, Callable[[], Step]], rounds: Rounds, device: torch.device, *, keep: bool = True
) -> dict[str, list[float]]:
    """Seconds per call of each candidate, one number per round.

    A machine drifts: it heats up, and others use it. Candidates that are timed in turns drift together, and with the
    order rotating none always follows the same other.

    Args:
        makers: by candidate, a function that prepares it and returns the step to time.
        rounds: how often.
        device: is waited for before the clock is read.
        keep: prepare each candidate once; otherwise anew in every round, where they do not fit in memory together.
    """
    names = list(makers)
    kept = {name: makers[name]() for name in names} if keep else {}
    calls = {name: _calls(step, rounds.shortest, device) for name, step in kept.items()}
    times: dict[str, list[float]] = {name: [] for name in names}
    started = time.perf_counter()
    for turn in range(rounds.most):
        if turn >= rounds.fewest and time.perf_counter() - started > rounds.seconds:
            break
        first = turn % len(names)
        for name in names[first:] + names[:first]:
            step = kept.get(name) or makers[name]()
            time.sleep(SETTLE_SECONDS)
            step()
            times[name].append(seconds_of(step, device, calls.get(name, 1)))
            del step
            if not keep:
                gc.collect()
    return times


def seconds_of(step: Step, device: torch.device, calls: int = 1) -> float:
    """Seconds per call, waiting for the device before and after."""
    _wait(device)
    started = time.perf_counter()
    for _ in range(calls):
        step()
    _wait(device)
    return (time.perf_counter() - started) / calls


def _calls(step: Step, shortest: float, device: torch.device) -> int:
    step()  # warm-up: the first call allocates, plans and compiles
    return max(1, math.ceil(shortest / max(seconds_of(step, device), 1e-9)))


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def summarize(times: list[float]) -> tuple[float, float]:
    """Median, and the distance between the quartiles as a share of it."""
    median = statistics.median(times)
    if len(times) < 2:
        return median, 0.0
    low, _, high = statistics.quantiles(times, n=4, method="inclusive")
    return median, (high - low) / median
