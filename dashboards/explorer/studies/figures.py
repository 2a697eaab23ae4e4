"""Which records are drawn in which of the paper's figures, without any display.

The grids of `sciml_fm_core.study` say what a figure is of: pre-training, recipe, task and start. Records of those are
in it whoever made them, so that one's own runs appear beside those that ship.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache

from sciml_fm_core.experiments.paper import EXPERIMENTS
from sciml_fm_core.models.base import MODELS
from sciml_fm_core.physics.system import PRETRAINING
from sciml_fm_core.physics.tasks import PAPER_TASKS, Task
from sciml_fm_core.study.runs import STARTS

from .charts import (
    Chart,
    Picture,
    Pictures,
    Records,
    by_task,
    charts_by_start,
    dial_of,
    one_chart,
    simple_picture,
    text_of,
)
from .records import by_architecture, operator_of

SHIFTS = {label: shift for labels in PAPER_TASKS.values() for shift, label in labels.items() if shift != PRETRAINING}
"""Name of the shift of each downstream task of the paper."""
MAIN_SIZE = "1M"
"""Size of the networks where the size is not the question."""


@dataclass(frozen=True)
class Figure:
    """A figure of the paper: the notebook that draws it, texts, and the pictures by task that records make of it."""

    notebook: str | None
    title: str
    note: str
    pictures: Callable[[Records], Pictures]


OTHERS = "others"
FIGURES: dict[str, Figure] = {}
"""The figures in the order of the menu, by the keys of `EXPERIMENTS`."""


def _figure(key: str, title: str) -> Callable:
    """Register a function of records as a figure; its docstring is what the page says of it."""

    def register(pictures: Callable[[Records], Pictures]) -> Callable[[Records], Pictures]:
        note = " ".join((pictures.__doc__ or "").split())
        FIGURES[key] = Figure(None if key == OTHERS else key, title, note, pictures)
        return pictures

    return register


# Which records belong where -------------------------------------------------------------------------------------------


@cache
def _curves_of(experiment: str) -> frozenset[tuple]:
    """The curves of an experiment of the package, as `_curve_of` names those of records."""
    return frozenset(
        (run.parent.tasks, run.parent.recipe, run.task, run.start, run.examples > 0)
        for run in EXPERIMENTS[experiment]("paper")  # the budget that pre-trains all its operators itself
    )


def _curve_of(record: dict) -> tuple:
    return record["parent"], record.get("recipe"), record["task"], record["start"], record["examples"] > 0


def _of(experiment: str, records: Records) -> list[dict]:
    return [record for record in records if _curve_of(record) in _curves_of(experiment)]


def _pretrained_alike(record: dict) -> tuple:
    return tuple(record.get(name) for name in ("parent", "recipe", "pretraining_examples", "pretraining_seed"))


def _families(records: Records) -> set[tuple]:
    """Pre-trainings that are there for several sizes, or for another than the main one."""
    sizes: dict[tuple, set] = {}
    for record in records:
        sizes.setdefault(_pretrained_alike(record), set()).add(record.get("size"))
    return {alike for alike, found in sizes.items() if len(found) > 1 or found != {MAIN_SIZE}}


def _main(records: Records) -> list[dict]:
    """Leave out the operators of the comparison of sizes, where others have the same pre-training and recipe."""
    families = _families(records)
    kept = []
    for key in dict.fromkeys((record["parent"], record.get("recipe")) for record in records):
        own = [record for record in records if (record["parent"], record.get("recipe")) == key]
        kept += (
            [record for record in own if _pretrained_alike(record) not in families]
            or [record for record in own if record.get("size") == MAIN_SIZE]
            or own
        )
    return kept


@_figure("q1_downstream_data", "Question 1: downstream data")
def downstream_data(records: Records) -> Pictures:
    """How many downstream examples does pre-training save? The curves show the error after fine-tuning and that of the
    same network trained from scratch, at a medium shift (Figure 3).
    """
    return by_task(_main(_of("q1_downstream_data", records)), simple_picture)


@_figure("q2_model_size", "Question 2: model size")
def model_size(records: Records) -> Pictures:
    """Does a larger network transfer better? Networks of several sizes were pre-trained alike (Figure 4)."""
    medium = _of("q2_model_size", records)
    families = _families(medium)
    drawn = [record for record in medium if _pretrained_alike(record) in families]
    drawn.sort(key=lambda r: (r.get("parameters") or 0, r["examples"]))

    def picture(task: str, own: list[dict]) -> Picture:
        charts = charts_by_start(f"{dial_of(task)} to {task}", own, lambda r: r.get("size") or "own size")
        return Picture(dial_of(task), (task,), charts)

    return by_task(drawn, picture)


@_figure("q3_physics_shift", "Question 3: shifted physics")
def physics_shift(records: Records) -> Pictures:
    """How far may the physics move from the pre-training range (Figures 5 and B.1)?"""
    shifted, order = _main(_of("q3_physics_shift", records)), list(SHIFTS)

    def name(record: dict) -> str:
        beside = "" if record["recipe"] == "dimensionless" else f", {text_of('recipe', record['recipe'])}"
        return f"{SHIFTS[record['task']].replace('none', 'no')} shift, {record['task']}{beside}"

    # The shifts first, in the colours that their strip has; beside them what has one point alone.
    shifted.sort(key=lambda r: (r["recipe"] != "dimensionless", r["recipe"], order.index(r["task"]), r["examples"]))
    pictures = {}
    for pretraining in dict.fromkeys(dial_of(task) for task in order):
        own = [record for record in shifted if dial_of(record["task"]) == pretraining]
        tasks = tuple(dict.fromkeys(record["task"] for record in own))
        if len(tasks) > 1:
            charts = charts_by_start(pretraining, own, name)
            picture = Picture(pretraining, tasks, charts, _comparable(own, charts[0].names))
            pictures[f"{pretraining} to {', '.join(SHIFTS[task] for task in tasks)}"] = picture
    return pictures


def _comparable(records: Records, names: dict[str, str]) -> Chart | None:
    """The curves of which both starts have examples: only there is a saving."""
    found = []
    for name in dict.fromkeys(names.values()):
        own = [record for record in records if names[record["identity"]] == name]
        if {record["start"] for record in own if record["examples"]} == set(STARTS):
            found += own
    return Chart("Examples saved", tuple(found), names) if found else None


@_figure("q4_mixed_operators", "Question 4: mixed operators")
def mixed_operators(records: Records) -> Pictures:
    """Can one operator serve several systems? One that was pre-trained on all is beside one for each (Figure 6)."""

    def kind(record: dict) -> str:
        if record["recipe"] == "symbol":
            return "mixed, conditioned on the symbol"
        mixed = "mixed" if "+" in record["parent"] else "its own system alone"
        return record["start"] if record["start"] == "from scratch" else mixed

    own = _main(_of("q4_mixed_operators", records))
    mixed = {record["task"] for record in own if "+" in record["parent"]}
    return by_task([record for record in own if record["task"] in mixed], one_chart(kind))


@_figure("seeds", "Seeds")
def seeds(records: Records) -> Pictures:
    """How much is chance? The same points were computed with several draws of examples and random weights. The line is
    their median, and the band lies between their quartiles, or extremes where there are fewer than four (Figure B.3).
    """
    drawn: dict[tuple, dict[int, dict]] = {}
    for record in _main(_of("seeds", records)):
        key = operator_of(record), record["task"], record["start"], record["examples"]
        drawn.setdefault(key, {})[record["seed"]] = record
    several = [record for by_seed in drawn.values() if len(by_seed) > 1 for record in by_seed.values()]
    return by_task(several, simple_picture)


@_figure("architectures", "Architectures")
def architectures(records: Records) -> Pictures:
    """Does another network transfer better? An FNO, a U-Net and a vision transformer had equal time."""
    titles = {name: model.__name__ for name, model in MODELS.items()}
    name = lambda r: f"{titles.get(r['architecture'], r['architecture'])}, {r['start']}"  # noqa: E731
    return by_task(by_architecture(records), one_chart(name))


@_figure("unseen", "Equations never seen")
def unseen(records: Records) -> Pictures:
    """Can an operator solve an equation that it never saw, if it is told its coefficients or its Fourier symbol?"""

    def never_saw(record: dict) -> bool:
        trained = {label.partition("(")[0].strip() for label in record["parent"].split(" + ")}
        return Task.parse(record["task"]).system.label not in trained

    return by_task([record for record in records if record["parent"] and never_saw(record)], simple_picture)


@_figure(OTHERS, "Other runs")
def others(records: Records) -> Pictures:
    """These runs are in no figure of the paper: they have tasks, pre-trainings or seeds of your own."""
    figures = [figure.pictures(records) for key, figure in FIGURES.items() if key != OTHERS]
    drawn = {identity for pictures in figures for picture in pictures.values() for identity in picture.records}
    return by_task([record for record in records if record["identity"] not in drawn], simple_picture)
