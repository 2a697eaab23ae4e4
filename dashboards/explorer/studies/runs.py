"""One run of a study, without any display: its numbers in words, and what repeats it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from sciml_fm_core.experiments.paper import EXPERIMENTS
from sciml_fm_core.study.runs import AdaptationRun

from .charts import Picture
from .figures import Figure
from .records import OPERATOR, SETTINGS

REPEATED = "runs/repeated"
"""Folder of repeated runs: in the folder of the first ones they would not be computed again."""


@dataclass(frozen=True)
class Details:
    """All about one run: sections of (name, value), validation errors by step, what makes the figure and repeats it.

    Its start is a key of `MEANING`: that of the record, or zero-shot.
    """

    identity: str
    title: str
    start: str
    sections: dict[str, list[tuple[str, str]]]
    curve: tuple[tuple[int, float], ...]
    notebook: str | None
    command: str


SECTIONS = {
    "Errors": ("error", "median", "percentile_90", "validation_error"),
    "Run": ("task", "start", "examples", "seed", "steps", "learning_rate", *SETTINGS),
    "Pre-trained operator": (*OPERATOR, "parameters"),
    "Time and place": ("seconds", "total_seconds", "hardware", "versions"),
}
SHOWN_APART = ("tried", "curve", "identity", "own")
LABELS = {
    "error": "test, mean",
    "median": "test, median",
    "percentile_90": "test, 90 % are below",
    "validation_error": "validation",
    "task": "downstream task",
    "examples": "downstream examples",
    "learning_rates": "learning rates to try",
    "resolution": "resolution (from, points)",
    "validation": "validation examples",
    "test": "test examples",
    "symmetries": "trained on turned examples",
    "parent": "pre-trained on",
    "pretraining_examples": "examples seen",
    "pretraining_seed": "seed of pre-training",
    "shipped_parent": "ships as",
    "seconds": "training, chosen rate",
    "total_seconds": "all together",
}


def details_of(record: dict, figure: Figure, budget: str | None) -> Details:
    """All about one run of a figure."""
    sections = {
        title: [(LABELS.get(key, key.replace("_", " ")), _value(key, _told(record).get(key))) for key in keys]
        for title, keys in SECTIONS.items()
    }
    tried = record.get("tried") or {}
    chosen = record.get("learning_rate")
    if tried:
        rows = [(f"{rate}{'  (chosen)' if float(rate) == chosen else ''}", _percent(e)) for rate, e in tried.items()]
        sections["Learning rates tried, with validation error"] = rows
    start = _told(record)["start"]
    known = {key for keys in SECTIONS.values() for key in keys} | set(SHOWN_APART)
    if rest := [(key.replace("_", " "), _value(key, value)) for key, value in record.items() if key not in known]:
        sections["More"] = rest
    return Details(
        identity=record["identity"],
        title=f"{record['task']}, {start}, {_count(record)}",
        start=start,
        sections=sections,
        curve=tuple((int(step), float(error)) for step, error in record.get("curve") or () if error),
        notebook=f"notebooks/{figure.notebook}.ipynb" if figure.notebook else None,
        command=repeat_command(record, figure, budget),
    )


def _told(record: dict) -> dict:
    """What is said of a record: one of no examples has the start and steps of its grid, but nothing was trained."""
    zero_shot = {"steps": None} | ({"start": "zero-shot"} if record["start"] == "fine-tuned" else {})
    return record if record["examples"] else record | zero_shot


def _count(record: dict) -> str:
    return f"{record['examples']:,} examples" if record["examples"] else "no examples"


COLUMNS = ("run", "task", "examples", "seed", "learning rate", "steps", "error")
"""What the table of the runs says of each."""


def rows_of(picture: Picture) -> list[list]:
    """The runs that a picture draws, each with its identity and the values of `COLUMNS`."""
    keys = ("task", "examples", "seed", "learning_rate", "steps", "error")
    names = {r["identity"]: chart.full_name(r) for chart in picture.charts for r in chart.records}
    return [[name, names[name], *map(_told(record).get, keys)] for name, record in picture.records.items()]


def repeat_command(record: dict, figure: Figure, budget: str | None) -> str:
    """What repeats a run: its figure's notebook where a budget has it, else a few lines of Python."""
    if budget and figure.notebook and _in_grid(record, figure.notebook, budget):
        return (
            f"papermill notebooks/{figure.notebook}.ipynb out.ipynb -p budget {budget} -p rerun True "
            f"-p folder {REPEATED} -p output {REPEATED}_figures"
        )
    parent = record.get("shipped_parent") or f"path of the operator pre-trained on {record['parent']}"
    keys = ("task", "start", "examples", "seed", "steps", *SETTINGS)
    values = "".join(f"    {key}={_python(record[key])},\n" for key in keys if record.get(key) is not None)
    return (
        "from sciml_fm_core.study import AdaptationRun, run_study\n\n"
        f"run = AdaptationRun(\n    {parent!r},\n{values})\n"
        f'run_study([run], "{REPEATED}")'
    )


def _in_grid(record: dict, experiment: str, budget: str) -> bool:
    """Whether an experiment of the package has this run."""
    keys = ("task", "start", "examples", "seed", "steps")
    parents = record.get("shipped_parent"), (record["parent"], record.get("recipe"), record.get("size"))

    def same(run: AdaptationRun) -> bool:
        own = run.parent if isinstance(run.parent, str) else (run.parent.tasks, run.parent.recipe, run.parent.size)
        return own in parents and all(getattr(run, key) == record.get(key) for key in keys)

    return any(map(same, EXPERIMENTS[experiment](budget)))


def _python(value: Any) -> str:
    """A value of JSON as the configuration takes it: tuples for lists."""
    return repr(_tuples(value))


def _tuples(value: Any) -> Any:
    return tuple(map(_tuples, value)) if isinstance(value, list | tuple) else value


def _percent(value: Any) -> str:
    return f"{value:.3%}".replace("%", " %") if isinstance(value, int | float) else "–"


def _value(key: str, value: Any) -> str:
    """A value of a record as text."""
    if value is None or value == []:
        return "–"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if key in SECTIONS["Errors"]:
        return _percent(value)
    if key in ("seconds", "total_seconds"):
        return f"{value:,.1f} s"
    if key == "resolution":
        return ", ".join(f"{float(start):.0%}: {points}" for start, points in value)
    if isinstance(value, dict):
        return ", ".join(f"{name} {text}" for name, text in value.items())
    if isinstance(value, list | tuple):
        return ", ".join(f"{item:g}" if isinstance(item, float) else str(item) for item in value)
    if isinstance(value, int) and "seed" not in key:
        return f"{value:,}"
    return f"{value:g}" if isinstance(value, float) else str(value)
