"""The paper's released data generators, called from a checkout of its code; nothing of it is copied here."""

from __future__ import annotations

import contextlib
import importlib
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import numpy as np

from benchmarks.networks import importing_from
from sciml_fm_core import Task
from sciml_fm_core.physics.diffusion import DIFFUSIVITY
from sciml_fm_core.physics.sources import LATTICE, SIGMA, SPACING
from sciml_fm_core.physics.tasks import SPARSITIES

FUNCTIONS = {"SYS-1": ("poisson", "poisson"), "SYS-2": ("advdiff", "advdiff"), "SYS-3": ("helmholtz", "helmholtz")}
"""By system: the module ``utils.gen_data_*`` and its function that makes one example."""

RANGES = {"SYS-1": ("e1", "e2"), "SYS-2": ("ad1", "ad2"), "SYS-3": ("o1", "o2")}


def released_generator(folder: Path, task: Task, n: int, count: int, seed: int = 0) -> Callable[[], None]:
    """A step that makes `count` examples of a task, as the released scripts do: one after the other, in NumPy.

    Raises:
        ImportError: where a package that the scripts import is missing.
    """
    module, function = FUNCTIONS[task.system.label]
    with importing_from(folder):
        make = getattr(importlib.import_module(f"utils.gen_data_{module}"), function)
    whole = task.system.dialled.whole
    ends = (int(task.low), int(task.high)) if whole else (task.low, task.high)
    settings = SimpleNamespace(
        Lx=1,
        Ly=1,
        ng=LATTICE**2,
        sparse=True,
        diff_coef_scale=DIFFUSIVITY,
        adv_coef_scale=1,
        diff_coef_freq=0,
        dc=0,
        **dict(zip(RANGES[task.system.label], ends, strict=True)),
    )
    points = np.arange(0, 1, 1 / n)
    np.random.seed(seed)  # noqa: NPY002 - the released code draws from the global generator

    def step() -> None:
        # It reads its tables from "utils/", and divides by the zero of the mean before it replaces the result.
        with contextlib.chdir(folder), np.errstate(divide="ignore", invalid="ignore"):
            for i in range(count):
                make(points, points, SIGMA, SPACING, SPARSITIES[i % len(SPARSITIES)], settings)

    return step
