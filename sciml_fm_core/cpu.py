"""How many CPU threads PyTorch computes with, in the processes of this package: commands, workers and the dashboard."""

from __future__ import annotations

import os
import sys

import torch


def available_cores() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0)) if sys.platform == "linux" else os.cpu_count() or 1


def use_threads(number: int | None = None) -> None:
    """Let PyTorch compute with so many threads, at most one for each core.

    Where no number is given, all cores but one compute, or as many as ``OMP_NUM_THREADS`` says: threads share out every
    operation and wait for the slowest of them, so that a program that takes one of their cores makes all many times
    slower. Library calls leave the number as it is, since rounding depends on it.
    """
    if number is None and "OMP_NUM_THREADS" in os.environ:
        return
    cores = available_cores()
    torch.set_num_threads(max(1, cores - 1 if number is None else min(number, cores)))
