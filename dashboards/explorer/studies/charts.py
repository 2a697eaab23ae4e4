"""What is drawn of records: charts with the names of their curves, and pictures; without any display."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from explorer.text import RECIPE_NAMES
from sciml_fm_core.physics.system import PRETRAINING, SYSTEMS
from sciml_fm_core.physics.tasks import Task, tasks_of
from sciml_fm_core.study.runs import STARTS

from .records import OPERATOR, operator_of

Records = Sequence[dict]


@dataclass(frozen=True)
class Chart:
    """Error curves on common axes: records, and the name of each one's curve by its identity."""

    title: str
    records: tuple[dict, ...]
    names: dict[str, str]

    def label(self, record: dict) -> str:
        """Name of the curve that a record is on."""
        return self.names[record["identity"]]

    def full_name(self, record: dict) -> str:
        """The same, with the start where the chart's title says it; what was tuned on nothing is zero-shot."""
        name, start = self.label(record), record["start"]
        name = name if start in name else f"{name}, {start}"
        return name if record["examples"] else name.replace("fine-tuned", "zero-shot")


@dataclass(frozen=True)
class Picture:
    """What is drawn for one choice: the dial of its tasks, charts, and examples saved where that is a figure."""

    pretraining: str
    downstream: tuple[str, ...]
    charts: tuple[Chart, ...]
    saved: Chart | None = None

    @property
    def records(self) -> dict[str, dict]:
        """The records drawn, by identity."""
        return {record["identity"]: record for chart in self.charts for record in chart.records}


Pictures = dict[str, Picture]
"""Pictures by the task that is chosen from the menu."""


def text_of(key: str, value: Any) -> str:
    """What tells an operator from another, in the name of a curve."""
    if key == "pretraining_examples" and isinstance(value, int):
        return f"{value:,} examples seen"
    if key == "recipe":
        return RECIPE_NAMES.get(value, str(value))
    return {"pretraining_seed": f"pre-training seed {value}", "parent": f"from {value}"}.get(key, str(value))


def _named(records: Records, name: Callable[[dict], str]) -> dict[str, str]:
    """Names of curves; where several operators would share one, it says in what they differ."""
    operators: dict[str, set] = {}
    for record in records:
        operators.setdefault(name(record), set()).add(operator_of(record))
    names: dict[str, str] = {}
    for record in records:
        sharing = operators[name(record)]
        differing = [i for i, key in enumerate(OPERATOR) if len({o[i] for o in sharing}) > 1]
        # Which operator ships says no more where the rest tells them apart.
        shown = [i for i in differing if OPERATOR[i] != "shipped_parent"] or differing
        own = operator_of(record)
        parts = [name(record), *(text_of(OPERATOR[i], own[i]) for i in shown)]
        names[record["identity"]] = ", ".join([*parts, "yours"] if record.get("own") else parts)
    return names


def chart_of(title: str, records: Iterable[dict], name: Callable[[dict], str]) -> Chart:
    """A chart of records whose curves have these names."""

    def order(record: dict) -> tuple:
        mixed, recipe = "+" in record["parent"], str(record.get("recipe"))
        own = bool(record.get("own"))
        return STARTS.index(record["start"]), own, mixed, recipe, record["examples"], record["seed"]

    drawn = tuple(sorted(records, key=order))  # so that curves have the same colours whatever the order of the files
    return Chart(title, drawn, _named(drawn, name))


def charts_by_start(what: str, records: Records, name: Callable[[dict], str]) -> tuple[Chart, ...]:
    """A chart for each start, in the same colours and names."""
    names = _named(records, name)
    charts = [Chart(f"{what}, {s}", tuple(r for r in records if r["start"] == s), names) for s in STARTS]
    return tuple(chart for chart in charts if chart.records)


def by_task(records: Records, picture: Callable[[str, list[dict]], Picture]) -> Pictures:
    """A picture for each task, in the order of the systems."""
    tasks = sorted({record["task"] for record in records}, key=_task_order)
    return {task: picture(task, [record for record in records if record["task"] == task]) for task in tasks}


def _task_order(label: str) -> tuple:
    task = Task.parse(label)
    return list(SYSTEMS).index(task.system.name), task.low, task.high


def _start_and_recipe(records: Records) -> Callable[[dict], str]:
    """Name of a curve: its start, with the recipe where there are several."""
    if len({record.get("recipe") for record in records}) == 1:
        return lambda r: r["start"]
    return lambda r: f"{r['start']}, {text_of('recipe', r.get('recipe'))}"


def simple_picture(task: str, records: Records) -> Picture:
    """A picture of one task in one chart, with a curve for each start and recipe."""
    return Picture(dial_of(task), (task,), (chart_of(f"Error on {task}", records, _start_and_recipe(records)),))


def dial_of(task: str) -> str:
    """The pre-training task of the system, or the task itself where the system names none."""
    return tasks_of(Task.parse(task).system).get(PRETRAINING, task)


def one_chart(name: Callable[[dict], str]) -> Callable[[str, list[dict]], Picture]:
    """A picture of one task in one chart, without a title, whose curves have these names."""
    return lambda task, records: Picture(dial_of(task), (task,), (chart_of(f"Error on {task}", records, name),))
