"""What the records of the paper's questions, and of their like, show: the figures of each experiment, and its table.

For notebooks and the docs, as `figures`, which needs Matplotlib. Tables are Markdown, whose numbers `form` writes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

from sciml_fm_core.models.base import MODELS
from sciml_fm_core.physics.system import PRETRAINING
from sciml_fm_core.physics.tasks import PAPER_TASKS, Task

from .analysis import Form, examples_to_reach, median_errors, percent, select, spread, table
from .experiments import PATIENCE, PRINTED, UNSEEN
from .figures import Drawing, error_curves, error_panels, savings_figure, strip

Records = Sequence[dict[str, Any]]
Figures = dict[str, Drawing]
"""Figures by the names of their files."""

LEVELS = (0.05, 0.02, 0.01)
"""Errors that the examples are counted for."""
SHIFTS = ("none", "mild", "medium", "large")
TOLD = {
    "dimensionless": "conditioned on the coefficients",
    "paper": "the paper's recipe",
    "symbol": "conditioned on the symbol",
    "symbol-composed": "conditioned on the symbol, of compositions too",
}
"""Recipes in words."""


def _groups(records: Records, *names: str) -> Iterator[tuple[tuple, list[dict]]]:
    """The values of some fields as they occur together, each with its records."""
    for values in dict.fromkeys(tuple(record[name] for name in names) for record in records):
        yield values, select(records, **dict(zip(names, values, strict=True)))


def _counts(records: Records) -> list[int]:
    """Numbers of examples, but for 0, that all tasks have in common."""
    return sorted(set.intersection(*({r["examples"] for r in own} for _, own in _groups(records, "task"))) - {0})


def _columns(counts: Sequence[int]) -> tuple[list[tuple[str, int]], list[str]]:
    """Fine-tuned with no and with so many examples, from scratch with so many; and what the columns are called."""
    columns = [("fine-tuned", 0), *((start, n) for start in ("fine-tuned", "from scratch") for n in counts)]
    return columns, ["zero-shot", *(f"{start}, {count:,}" for start, count in columns[1:])]


def _cells(own: Records, columns: Sequence[tuple[str, int]], form: Form) -> list[str]:
    """Errors of starts and examples, empty where there is none."""
    return [spread([r["error"] for r in select(own, start=start, examples=count)], form) for start, count in columns]


# Question 1 -----------------------------------------------------------------------------------------------------------


def downstream_figures(records: Records) -> Figures:
    """Error against examples at the medium shifts of SYS-1 and of SYS-2, and how their dials are distributed."""
    figures: Figures = {}
    for name, system in (("sys-1", "poisson"), ("sys-2", "advection_diffusion")):
        trained, task = PAPER_TASKS[system][PRETRAINING], PAPER_TASKS[system]["medium"]
        own = select(records, task=task)
        figures[name] = error_curves(
            own, lambda r: f"{r['start']}, {TOLD[r['recipe']]}", f"{trained} to {task}", printed=PRINTED.get(task, {})
        )
        figures[f"{name}_dial"] = strip(trained, [task])
    return figures


def downstream_table(records: Records, form: Form = percent) -> str:
    """Errors by examples, and the examples that `LEVELS` take, empty where they are not reached."""
    counts, rows = sorted({record["examples"] for record in records}), []
    for (task, recipe, parent), both in _groups(records, "task", "recipe", "shipped_parent"):
        for start in ("fine-tuned", "from scratch"):
            own = select(both, start=start)
            enough = [examples_to_reach(own, level) for level in LEVELS]
            cells = _cells(own, [(start, count) for count in counts], form)
            name = f"`{parent or recipe}`"
            rows.append([task, name, start, *cells, *("" if e is None else f"{e:,.0f}" for e in enough)])
    header = ["task", "operator", "start", *(f"{count:,} examples" for count in counts)]
    return table([*header, *(f"for {100 * level:g} %" for level in LEVELS)], rows)


# Question 2 -----------------------------------------------------------------------------------------------------------


def size_figures(records: Records) -> Figures:
    """Error against examples for networks of several sizes."""

    def parameters(record: dict) -> str:
        return f"{record['parameters'] / 1000:,.0f} thousand"

    drawn = error_panels(
        records,
        lambda r: f"{r['parent']} to {r['task']}",
        lambda r: f"{parameters(r)}, {r['start']}",
        colour=parameters,
    )
    return {"curves": drawn}


def size_table(records: Records, form: Form = percent) -> str:
    """Errors of each size, before and after fine-tuning, and from scratch."""
    columns, names = _columns(_counts(records))
    rows = [
        [task, size, f"{own[0]['parameters']:,}", *_cells(own, columns, form)]
        for (task, size), own in _groups(records, "task", "size")
    ]
    return table(["task", "size", "parameters", *names], rows)


# Question 3 -----------------------------------------------------------------------------------------------------------


def shift_figures(records: Records) -> Figures:
    """For SYS-1 and SYS-2: error against examples at each shift, the examples saved, and how dials are distributed."""
    figures: Figures = {}
    for name, system in (("sys-1", "poisson"), ("sys-2", "advection_diffusion")):
        trained, shifts = PAPER_TASKS[system][PRETRAINING], {PAPER_TASKS[system][shift]: shift for shift in SHIFTS}
        own = [r for r in select(records, recipe="dimensionless") if r["task"] in shifts]

        def titled(record: dict, shifts: dict[str, str] = shifts) -> str:
            return f"{shifts[record['task']]} {record['task']}"

        figures[name] = error_panels(own, titled, lambda r: r["start"])
        figures[f"{name}_saved"] = savings_figure(own, titled, trained)
        figures[f"{name}_dial"] = strip(trained, list(shifts))
    return figures


def shift_table(records: Records, form: Form = percent) -> str:
    """Errors at each shift; zero-shot alone for the paper's recipe and the mixture conditioned on the symbol."""
    columns, names = _columns(_counts(select(records, recipe="dimensionless")))
    rows = []
    for (task,), of_task in _groups(records, "task"):
        own, *others = (select(of_task, recipe=recipe) for recipe in ("dimensionless", "paper", "symbol"))
        rows.append([task, *_cells(own, columns, form), *(_cells(other, columns[:1], form)[0] for other in others)])
    return table(["task", *names, "`sys-1-paper`, zero-shot", "`symbol`, zero-shot"], rows)


# Question 4 -----------------------------------------------------------------------------------------------------------


def pretrained_on(record: dict) -> str:
    """What the operator of a record was pre-trained on, if on anything."""
    if record["start"] == "from scratch":
        return "from scratch"
    if record["recipe"] == "symbol":
        return "mixed, conditioned on the symbol"
    return "mixed" if "+" in record["parent"] else "its own system alone"


def mixture_figures(records: Records) -> Figures:
    """Error against examples of the mixed operator and of the specialists, by task."""
    return {"tasks": error_panels(records, lambda r: r["task"], pretrained_on)}


def mixture_table(records: Records, form: Form = percent) -> str:
    """Errors of the specialist and of the mixed operator, and from scratch."""
    columns, names = _columns(_counts([r for r in records if r["recipe"] != "symbol"]))
    tuned, rows = len(columns) // 2 + 1, []
    for (task,), own in _groups(records, "task"):
        alone, mixed, scratch, told = (
            [r for r in own if pretrained_on(r) == kind]
            for kind in ("its own system alone", "mixed", "from scratch", "mixed, conditioned on the symbol")
        )
        cells = [*_cells(alone, columns[:tuned], form), *_cells(mixed, columns[:tuned], form)]
        rows.append([task, *cells, *_cells(scratch, columns[tuned:], form), *_cells(told, columns[:1], form)])
    both = (f"{kind}, {name}" for kind in ("specialist", "mixed") for name in names[:tuned])
    return table(["task", *both, *names[tuned:], "`symbol`, zero-shot"], rows)


# Beside the questions -------------------------------------------------------------------------------------------------


def seed_figures(records: Records) -> Figures:
    """Error against examples over several seeds, by task."""
    return {"tasks": error_panels(records, lambda r: r["task"], lambda r: r["start"])}


HEADLINE = {
    ("paper", "fine-tuned", False): "fine-tuned, the paper's recipe",
    ("dimensionless", "fine-tuned", False): "fine-tuned",
    ("dimensionless", "fine-tuned", True): "fine-tuned, symmetries",
    ("dimensionless", "from scratch", True): "from scratch, symmetries",
}
"""The curves of the headline by recipe, start and symmetries."""
LONGER = f"from scratch, symmetries, {PATIENCE} times the steps"


def headline_curves(records: Records) -> dict[str, list[dict]]:
    """The records with labels by the name of their curve."""
    labelled = [record for record in records if record["recipe"] != "symbol"]
    usual = {r["examples"]: r["steps"] for r in select(labelled, start="fine-tuned")}
    curves: dict[str, list[dict]] = {name: [] for name in (*HEADLINE.values(), LONGER)}
    for r in labelled:
        longer = r["steps"] > usual[r["examples"]]
        curves[LONGER if longer else HEADLINE[r["recipe"], r["start"], bool(r.get("symmetries"))]].append(r)
    return curves


def headline_figures(records: Records, levels: dict[str, float]) -> Figures:
    """Error against labelled examples of all curves; levels are errors without any."""
    curves = headline_curves(records)
    names = {record["identity"]: name for name, own in curves.items() for record in own}
    labelled = [record for own in curves.values() for record in own]
    title = f"{labelled[0]['parent']} to {labelled[0]['task']}"
    printed = PRINTED.get(labelled[0]["task"], {})
    return {"curves": error_curves(labelled, lambda r: names[r["identity"]], title, levels=levels, printed=printed)}


def headline_table(records: Records, form: Form = percent) -> str:
    """Errors by labelled examples, and the examples that an error of 1 % takes."""
    curves = headline_curves(records)
    counts = sorted({record["examples"] for own in curves.values() for record in own})
    rows, reached = [], []
    for name, own in curves.items():
        rows.append([name, *(spread([r["error"] for r in select(own, examples=count)], form) for count in counts)])
        enough = examples_to_reach(own, 0.01)
        reached.append(f"{name}: {'not reached' if enough is None else f'about {enough:,.0f}'}")
    notes = f"Labelled examples for 1 %, interpolated on medians: {'; '.join(reached)}."
    return f"{table(['', *(f'{count:,} examples' for count in counts)], rows)}\n\n{notes}"


def architecture_figures(records: Records) -> Figures:
    """Error against examples of each architecture."""
    task = f"{records[0]['parent']} to {records[0]['task']}"
    names = {name: model.__name__ for name, model in MODELS.items()}
    drawn = error_curves(
        records, lambda r: f"{names[r['architecture']]}, {r['start']}", task, colour=lambda r: r["architecture"]
    )
    return {"curves": drawn}


def architecture_table(records: Records, form: Form = percent) -> str:
    """Errors of each architecture, and what its pre-training took."""
    counts, rows = _counts(records), []
    columns = [*(("fine-tuned", count) for count in (0, *counts)), ("from scratch", counts[-1])]
    for (name,), own in _groups(records, "architecture"):
        cost = f"{own[0]['pretraining_examples']:,} in {own[0]['pretraining_seconds']:.0f} s"
        rows.append([f"`{name}`", f"{own[0]['parameters']:,}", cost, *_cells(own, columns, form)])
    header = ["network", "parameters", "pre-training examples", *(f"{start}, {count:,}" for start, count in columns)]
    return table(header, rows)


def unseen_figures(records: Records) -> Figures:
    """Error against examples on each of the paper's systems held out, and on the equations beside them."""
    beside = [record for record in records if record["task"] in UNSEEN]
    apart = [record for record in records if record["task"] not in UNSEEN]
    held_out = select(apart, pretraining_examples=min(record["pretraining_examples"] for record in apart))

    def told(record: dict) -> str:
        return TOLD[record["recipe"]]

    def panelled(own: Records, title: Callable[[dict], str]) -> Drawing:
        return error_panels(own, title, lambda r: f"{told(r)}, {r['start']}", columns=2, colour=told)

    return {
        "held_out": panelled(held_out, lambda r: f"{r['task']} after {r['parent']}"),
        "beside": panelled(beside, lambda r: Task.parse(r["task"]).system.title),
    }


def unseen_table(records: Records, form: Form = percent) -> str:
    """Errors before and after fine-tuning, and from scratch, with the ratio of the last two of each."""
    counts, rows = _counts(records), []
    columns, tuned_columns = _columns(counts)[0], len(counts) + 1
    for (parent, recipe, task, seen), own in _groups(records, "parent", "recipe", "task", "pretraining_examples"):
        tuned = select(own, start="fine-tuned")
        twin = select(records, start="from scratch", recipe=recipe, task=task)
        ratio = f"{median_errors(tuned)[counts[-1]] / median_errors(twin)[counts[-1]]:.2f}"
        cells = [*_cells(tuned, columns[:tuned_columns], form), *_cells(twin, columns[tuned_columns:], form)]
        rows.append([f"{seen:,} of {parent}", f"`{recipe}`", task, *cells, ratio])
    header = ["pre-trained on", "recipe", "measured on", "0", *map(str, counts), *(f"scratch, {n}" for n in counts)]
    return table([*header, f"ratio at {counts[-1]}"], rows)
