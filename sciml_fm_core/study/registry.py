"""Experiments by name, and their records: those that ship, and the rest computed.

A function that gives the runs of a budget registers itself by `experiment`. The command line and the notebooks then
offer it, wherever it was written: in `experiments.paper`, in a plugin, or among the side studies of
`sciml_fm_core.experiments`, which are imported when one of them is asked for.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from sciml_fm_core.schema import look_up

from .records import read_table, shipped_tables
from .runs import Recorded, identity, run_study

Settings = TypeVar("Settings")
Runs = TypeVar("Runs", bound=Callable[..., Sequence[Recorded]])


@dataclass(frozen=True)
class Experiment:
    """What an experiment runs, and where its records ship.

    Attributes:
        runs: function of the name of a budget.
        table: name of its shipped tables; empty where its records are in those that several experiments share.
    """

    runs: Callable[..., Sequence[Recorded]]
    table: str

    def table_for(self, budget: str) -> str:
        """Key of `shipped_tables`, such as ``laptop-physics_loss``."""
        return f"{budget}-{self.table}" if self.table else budget


REGISTRY: dict[str, Experiment] = {}
"""The experiments by their names, which are those of their notebooks."""


def experiment(name: str, *, table: str | None = None) -> Callable[[Runs], Runs]:
    """Decorator that registers a function from the name of a budget to its runs; `table` is the name where not given.

    The function raises a ValueError on a budget that it does not know, see `for_budget`.

    >>> @experiment("nothing")
    ... def nothing(budget):
    ...     return []
    >>> results("nothing", "smoke"), REGISTRY.pop("nothing").table
    ([], 'nothing')
    """

    def register(runs: Runs) -> Runs:
        REGISTRY[name] = Experiment(runs, name if table is None else table)
        return runs

    return register


def find_experiment(name: str) -> Callable[..., Sequence[Recorded]]:
    """The runs of an experiment, as a function of the budget; ValueError if there is no such experiment."""
    if name not in REGISTRY:
        importlib.import_module("sciml_fm_core.experiments").import_all()  # by its name alone: they import this module
    return look_up("experiment", name, REGISTRY).runs


def for_budget(settings: Mapping[str, Settings], budget: str) -> Settings:
    """The settings of a budget; ValueError if there are none."""
    return look_up("budget", budget, settings)


def results(
    experiments: str | Sequence[str],
    budget: str = "laptop",
    *,
    rerun: bool = False,
    folder: str | Path = "runs/study",
    **how: Any,
) -> list[dict]:
    """Records of an experiment, or of several: those that ship with the package, and the rest computed.

    Args:
        experiments: keys of `REGISTRY`.
        budget: its name, one that the experiments know.
        rerun: compute all, even those that ship.
        folder: see `run_study`; what it holds is not computed again.
        how: further arguments of `run_study`, such as ``processes`` or ``device``.

    Raises:
        ValueError: on an unknown experiment or budget.
    """
    names = [experiments] if isinstance(experiments, str) else experiments
    runs = {identity(run): run for name in names for run in find_experiment(name)(budget)}
    shipped = {} if rerun else shipped_tables()
    tables = dict.fromkeys(REGISTRY[name].table_for(budget) for name in names)
    known = {r["identity"]: r for table in tables if table in shipped for r in read_table(shipped[table])}
    missing = [run for name, run in runs.items() if name not in known]
    if missing:
        known |= {record["identity"]: record for record in run_study(missing, folder, **how)}
    return [known[name] for name in runs]
