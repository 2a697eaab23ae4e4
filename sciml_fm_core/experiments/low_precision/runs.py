"""Cost of fewer bits: error, size and speed of the operators that ship, inside their range and outside it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import ClassVar

from sciml_fm_core.data.splits import draw_split
from sciml_fm_core.evaluation.metrics import mean_relative_error
from sciml_fm_core.experiments.low_precision.method import WEIGHT_KINDS, predict_in, stored_bytes, with_weights_in
from sciml_fm_core.experiments.shipped import SYSTEMS_OF
from sciml_fm_core.models.operator import load_operator
from sciml_fm_core.physics.system import SYSTEMS
from sciml_fm_core.physics.tasks import Task, tasks_of
from sciml_fm_core.study.analysis import select, table
from sciml_fm_core.study.custom import CustomRun, milliseconds_of
from sciml_fm_core.study.registry import experiment, for_budget

PRODUCTS = "bfloat16 products"
"""Weights in float32, pointwise products of hidden channels in bfloat16."""
KINDS = (*WEIGHT_KINDS, PRODUCTS)


@dataclass(frozen=True)
class LowPrecisionRun(CustomRun):
    """One operator that ships on one task, in all kinds of `KINDS`.

    Attributes:
        parent: shipped operator or bundle.
        task: where it is measured.
        test, test_resolution, seed: of the examples, the same for every kind.
        timed: examples of a batch that is timed, three times; the shortest counts.
    """

    parent: str
    task: str
    test: int = 64
    test_resolution: int = 64
    seed: int = 0
    timed: int = 8
    kind: ClassVar[str] = "low_precision"

    def __post_init__(self):
        Task.parse(self.task)

    def measure(self, device):
        """Lists in the order of ``kinds``: ``error``; ``kilobytes`` of the weights, None where they are not stored
        otherwise; ``milliseconds`` of computing for an example, of weights in float32 and of products in bfloat16 (what
        weights are stored as does not matter once they are loaded)."""
        task, operator = Task.parse(self.task), load_operator(self.parent, device)
        examples = draw_split(task, "test", self.test, seed=self.seed, resolution=self.test_resolution)
        inputs = examples.source, examples.coefficients, task.system
        errors, kilobytes = [], []
        for kind in WEIGHT_KINDS:
            prediction = with_weights_in(operator, kind).predict(*inputs)
            errors.append(mean_relative_error(prediction, examples.solution))
            kilobytes.append(round(stored_bytes(operator, kind) / 1000, 1))
        rounded = predict_in(operator, "bfloat16", *inputs)
        errors.append(mean_relative_error(rounded, examples.solution))
        few = examples.source[: self.timed], examples.coefficients[: self.timed], task.system
        return {
            "recipe": operator.card["recipe"],
            "parameters": operator.model.parameter_count,
            "trained_on": operator.card["tasks"],
            "kinds": list(KINDS),
            "error": [float(f"{error:.6g}") for error in errors],
            "kilobytes": [*kilobytes, None],
            "milliseconds": {
                "float32": milliseconds_of(partial(operator.predict, *few), self.timed),
                PRODUCTS: milliseconds_of(partial(predict_in, operator, "bfloat16", *few), self.timed),
            },
        }


SETTINGS: dict[str, dict[str, int]] = {
    "smoke": {"test": 2, "test_resolution": 32, "timed": 1},
    "laptop": {},
    "gpu": {"test": 4096, "test_resolution": 128},
    "paper": {"test": 4096, "test_resolution": 128},
}
"""How much of the experiment to run, by budget."""


@experiment("low_precision")
def low_precision_runs(budget: str = "laptop") -> list[CustomRun]:
    """Every operator that ships on every named shift of the systems it was trained on; in the smoke budget, two."""
    chosen = for_budget(SETTINGS, budget)
    operators = {name: SYSTEMS_OF[name][:1] for name in ("sys-1", "symbol")} if budget == "smoke" else SYSTEMS_OF
    return [
        LowPrecisionRun(parent, task, **chosen)
        for parent, systems in operators.items()
        for system in systems
        for task in tasks_of(SYSTEMS[system]).values()
    ]


def low_precision_table(records: Sequence[dict]) -> str:
    """The largest relative increase of the error of each operator in each kind, and the size of its weights."""
    rows = []
    for parent in dict.fromkeys(record["parent"] for record in records):
        own, cells = select(records, parent=parent), [f"`{parent}`"]
        for i, size in enumerate(own[0]["kilobytes"]):
            added = max(record["error"][i] / record["error"][0] - 1 for record in own)
            parts = [f"{100 * added:+,.1f} %"] if i else []
            cells.append(", ".join([*parts, f"{size:,.0f} kB"] if size else parts))
        rows.append(cells)
    return table(["operator", *records[0]["kinds"]], rows)
