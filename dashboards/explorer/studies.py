"""The studies page without any display: which records are drawn in which of the paper's figures, and one run's details.

Which records belong to a figure is read from the records themselves (task, pre-training, recipe, size, seed), so that
one's own runs appear beside those that ship.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import param

from sciml_fm_core.models.base import MODELS
from sciml_fm_core.physics.system import PRETRAINING, SYSTEMS
from sciml_fm_core.physics.tasks import PAPER_TASKS, Task, tasks_of
from sciml_fm_core.study.experiments import EXPERIMENTS, MIXTURE
from sciml_fm_core.study.runs import STARTS, AdaptationRun, PretrainingRun

from .records import OPERATOR, SETTINGS, Source, by_architecture, operator_of
from .text import RECIPE_NAMES

Records = Sequence[dict]
SHIFTS = {
    label: (system, shift)
    for system, labels in PAPER_TASKS.items()
    for shift, label in labels.items()
    if shift != "pre-training"
}
"""System and name of the shift of each downstream task of the paper."""
ORDER = ("none", "mild", "medium", "large")
MAIN_SIZE = "1M"
"""Size of the networks where the size is not the question."""
HOW_TO_START = "papermill notebooks/q1_downstream_data.ipynb out.ipynb -p rerun True"
REPEATED = "runs/repeated"
"""Folder of repeated runs: in the folder of the first ones they would not be computed again."""


@dataclass(frozen=True)
class Chart:
    """Error curves on common axes: records, and the name of each one's curve by its identity."""

    title: str
    records: tuple[dict, ...]
    names: dict[str, str]

    def label(self, record: dict) -> str:
        """Name of the curve that a record is on."""
        return self.names[record["identity"]]


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

    @property
    def menu(self) -> dict[str, str]:
        """The runs drawn, by what tells them apart in words."""
        return {
            f"{_full_name(chart, r)}, {_count(r)}, seed {r['seed']}: {_percent(r['error'])}": r["identity"]
            for chart in self.charts
            for r in chart.records
        }


@dataclass(frozen=True)
class Figure:
    """A figure of the paper: its notebook, texts, and the pictures by task that records make of it."""

    notebook: str | None
    title: str
    note: str
    pictures: Callable[[Records], dict[str, Picture]]


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


# Which records belong where -------------------------------------------------------------------------------------------


def _shift(record: dict) -> str | None:
    return SHIFTS.get(record["task"], (None, None))[1]


def _system(record: dict) -> str:
    return Task.parse(record["task"]).system.name


def _pretraining(system: str) -> str:
    return PAPER_TASKS[system]["pre-training"]


def _specialist(record: dict) -> bool:
    return record["parent"] == PAPER_TASKS.get(_system(record), {}).get("pre-training")


def _ours(record: dict) -> bool:
    return record.get("recipe") == "dimensionless"


def _told_the_symbol(record: dict) -> bool:
    """Of the mixture that is told the symbol, which has no specialists."""
    return record.get("recipe") == "symbol" and record["parent"] == MIXTURE


def _zero_shot(record: dict) -> bool:
    return record["start"] == "fine-tuned" and not record["examples"]


def _zero_shot_told(record: dict) -> bool:
    return _told_the_symbol(record) and _zero_shot(record)


def _zero_shot_of_the_paper(record: dict) -> bool:
    return record.get("recipe") == "paper" and _specialist(record) and _zero_shot(record)


def _pretrained_alike(record: dict) -> tuple:
    return tuple(record.get(name) for name in ("parent", "recipe", "pretraining_examples", "pretraining_seed"))


def _families(records: Records) -> set[tuple]:
    """Pre-trainings that are there for several sizes, or for another than the main one."""
    sizes: dict[tuple, set] = {}
    for record in records:
        sizes.setdefault(_pretrained_alike(record), set()).add(record.get("size"))
    return {alike for alike, found in sizes.items() if len(found) > 1 or found != {MAIN_SIZE}}


def _main(records: Records) -> list[dict]:
    """Without the operators of the comparison of sizes, where there are others of that pre-training and recipe."""
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


def _text_of(key: str, value: Any) -> str:
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
    names = {}
    for record in records:
        sharing = operators[name(record)]
        differing = [i for i, key in enumerate(OPERATOR) if len({o[i] for o in sharing}) > 1]
        # Which operator ships says no more where the rest tells them apart.
        shown = [i for i in differing if OPERATOR[i] != "shipped_parent"] or differing
        own = operator_of(record)
        names[record["identity"]] = ", ".join([name(record), *(_text_of(OPERATOR[i], own[i]) for i in shown)])
    return names


def _chart(title: str, records: Iterable[dict], name: Callable[[dict], str]) -> Chart:
    def order(record: dict) -> tuple:
        return (
            STARTS.index(record["start"]),
            "+" in record["parent"],
            str(record.get("recipe")),
            record["examples"],
            record["seed"],
        )

    # Curves have the same colours whatever the order of the files.
    drawn = tuple(sorted(records, key=order))
    return Chart(title, drawn, _named(drawn, name))


def _by_start(what: str, records: Records, name: Callable[[dict], str]) -> tuple[Chart, ...]:
    """A chart for each start, in the same colours and names."""
    names = _named(records, name)
    charts = [Chart(f"{what}, {s}", tuple(r for r in records if r["start"] == s), names) for s in STARTS]
    return tuple(chart for chart in charts if chart.records)


def _by_task(records: Records, picture: Callable[[str, list[dict]], Picture]) -> dict[str, Picture]:
    tasks = sorted({record["task"] for record in records}, key=_task_order)
    return {task: picture(task, [record for record in records if record["task"] == task]) for task in tasks}


def _task_order(label: str) -> tuple:
    task = Task.parse(label)
    return list(SYSTEMS).index(task.system.name), task.low, task.high


def _start_and_recipe(records: Records) -> Callable[[dict], str]:
    """Name of a curve: its start, with the recipe where there are several."""
    if len({record.get("recipe") for record in records}) == 1:
        return lambda r: r["start"]
    return lambda r: f"{r['start']}, {_text_of('recipe', r.get('recipe'))}"


def _simple(task: str, records: Records) -> Picture:
    title = f"{' and '.join(sorted({record['parent'] for record in records}))} to {task}"
    return Picture(_dial_of(task), (task,), (_chart(title, records, _start_and_recipe(records)),))


def _dial_of(task: str) -> str:
    """The pre-training task of the system, or the task itself where the system names none."""
    return tasks_of(Task.parse(task).system).get(PRETRAINING, task)


def _medium(records: Records) -> list[dict]:
    wanted = {PAPER_TASKS[system]["medium"] for system in ("poisson", "advection_diffusion")}
    return [r for r in records if r["task"] in wanted and (_specialist(r) or _told_the_symbol(r))]


def downstream_data(records: Records) -> dict[str, Picture]:
    """Question 1: the medium shifts, by every recipe."""
    return _by_task(_main(_medium(records)), _simple)


def model_size(records: Records) -> dict[str, Picture]:
    """Question 2: operators of several sizes, pre-trained alike, at the medium shifts."""
    medium = [record for record in _medium(records) if _ours(record)]
    families = _families(medium)
    drawn = [record for record in medium if _pretrained_alike(record) in families]
    drawn.sort(key=lambda r: (r.get("parameters") or 0, r["examples"]))

    def picture(task: str, own: list[dict]) -> Picture:
        charts = _by_start(f"{_dial_of(task)} to {task}", own, lambda r: r.get("size") or "own size")
        return Picture(_dial_of(task), (task,), charts)

    return _by_task(drawn, picture)


def physics_shift(records: Records) -> dict[str, Picture]:
    """Question 3: the shifts of SYS-1 and of SYS-2, where there are several."""
    pictures = {}
    for system in ("poisson", "advection_diffusion"):
        labels = [PAPER_TASKS[system][shift] for shift in ORDER]
        beside = [r for r in records if _zero_shot_told(r) or _zero_shot_of_the_paper(r)]
        specialists = [r for r in records if _specialist(r) and _ours(r)]
        own = [r for r in [*specialists, *beside] if r["task"] in labels]
        # The shifts first, in the colours that their strip has; beside them what has one point alone.
        own = sorted(
            _main(own),
            key=lambda r: (not _ours(r), str(r.get("recipe")), labels.index(r["task"]), r["examples"]),
        )
        tasks = tuple(dict.fromkeys(record["task"] for record in own))
        if len(tasks) > 1:
            charts = _by_start(_pretraining(system), own, _shift_and_task)
            pictures[f"{_pretraining(system)} to {', '.join(map(_shift_of, tasks))}"] = Picture(
                _pretraining(system), tasks, charts, _comparable(own, charts[0].names)
            )
    return pictures


def _shift_and_task(record: dict) -> str:
    told = "" if _ours(record) else f", {_text_of('recipe', record.get('recipe'))}"
    return f"{_shift(record)} {record['task']}{told}"


def _shift_of(task: str) -> str:
    return SHIFTS[task][1]


def _comparable(records: Records, names: dict[str, str]) -> Chart | None:
    """The curves of which both starts have examples: only there is a saving."""
    found = []
    for name in dict.fromkeys(names.values()):
        own = [record for record in records if names[record["identity"]] == name]
        if {record["start"] for record in own if record["examples"]} == set(STARTS):
            found += own
    return Chart("Examples saved", tuple(found), names) if found else None


def mixed_operators(records: Records) -> dict[str, Picture]:
    """Question 4: an operator pre-trained on several systems against specialists, inside and outside their ranges."""

    def kind(record: dict) -> str:
        if _told_the_symbol(record):
            return "mixed, told the symbol"
        mixed = "mixed" if "+" in record["parent"] else "its own system alone"
        return "from scratch" if record["start"] == "from scratch" else mixed

    shifted = [r for r in records if _shift(r) in ("none", "medium")]
    own = [r for r in shifted if (_ours(r) and ("+" in r["parent"] or _specialist(r))) or _zero_shot_told(r)]
    own = _main(own)
    mixed = {record["task"] for record in own if "+" in record["parent"]}
    return _by_task(
        [record for record in own if record["task"] in mixed],
        lambda task, found: Picture(_dial_of(task), (task,), (_chart(task, found, kind),)),
    )


def seeds(records: Records) -> dict[str, Picture]:
    """Figure B.3: points at the medium shifts that were computed with several seeds."""
    own = _main([record for record in _medium(records) if _ours(record)])
    drawn: dict[tuple, dict[int, dict]] = {}
    for record in own:
        key = operator_of(record), record["task"], record["start"], record["examples"]
        drawn.setdefault(key, {})[record["seed"]] = record
    several = [record for by_seed in drawn.values() if len(by_seed) > 1 for record in by_seed.values()]
    return _by_task(several, _simple)


def architectures(records: Records) -> dict[str, Picture]:
    """Networks of several architectures under the same settings."""
    titles = {name: model.__name__ for name, model in MODELS.items()}
    return _by_task(
        by_architecture(records),
        lambda task, found: Picture(
            _dial_of(task),
            (task,),
            (_chart(task, found, lambda r: f"{titles.get(r['architecture'], r['architecture'])}, {r['start']}"),),
        ),
    )


def unseen(records: Records) -> dict[str, Picture]:
    """Tasks of equations that the pre-training never saw, by every recipe."""

    def never_saw(record: dict) -> bool:
        trained = {label.partition("(")[0].strip() for label in record["parent"].split(" + ")}
        return Task.parse(record["task"]).system.label not in trained

    return _by_task([record for record in records if record["parent"] and never_saw(record)], _simple)


def others(records: Records) -> dict[str, Picture]:
    """What no figure of the paper draws: one's own tasks, pre-trainings and seeds."""
    drawn = {
        identity
        for key, figure in FIGURES.items()
        if key != OTHERS
        for picture in figure.pictures(records).values()
        for identity in picture.records
    }
    return _by_task([record for record in records if record["identity"] not in drawn], _simple)


OTHERS = "others"
FIGURES = {
    "q1_downstream_data": Figure(
        "q1_downstream_data",
        "Question 1: downstream data",
        "How many downstream examples does pre-training save? Error after fine-tuning, and of the same network from "
        "scratch, at a medium shift (Figure 3).",
        downstream_data,
    ),
    "q2_model_size": Figure(
        "q2_model_size",
        "Question 2: model size",
        "Does a larger network transfer better? Networks of several sizes, pre-trained alike (Figure 4).",
        model_size,
    ),
    "q3_physics_shift": Figure(
        "q3_physics_shift",
        "Question 3: shifted physics",
        "How far may the physics move from the pre-training range (Figures 5 and B.1)?",
        physics_shift,
    ),
    "q4_mixed_operators": Figure(
        "q4_mixed_operators",
        "Question 4: mixed operators",
        "Can one operator serve several systems? One pre-trained on all against one for each (Figure 6).",
        mixed_operators,
    ),
    "seeds": Figure(
        "seeds",
        "Seeds",
        "How much is chance? The same points with several draws of examples and random weights: their median, and the "
        "band between quartiles, or extremes where there are fewer than four (Figure B.3).",
        seeds,
    ),
    "architectures": Figure(
        "architectures",
        "Architectures",
        "Does another network transfer better? An FNO, a U-Net and a vision transformer, pre-trained for equal time.",
        architectures,
    ),
    "unseen": Figure(
        "unseen",
        "Equations never seen",
        "Can an operator solve an equation that it was not trained on? Told its coefficients, or its Fourier symbol.",
        unseen,
    ),
    OTHERS: Figure(
        None,
        "Other runs",
        "Runs that no figure of the paper draws: own tasks, pre-trainings or seeds.",
        others,
    ),
}
"""The figures in the order of the menu, by the keys of `EXPERIMENTS`."""


# One run --------------------------------------------------------------------------------------------------------------

SECTIONS = {
    "Errors": ("error", "median", "percentile_90", "validation_error"),
    "Run": ("task", "start", "examples", "seed", "steps", "learning_rate", *SETTINGS),
    "Pre-trained operator": (*OPERATOR, "parameters"),
    "Time and place": ("seconds", "total_seconds", "hardware", "versions"),
}
SHOWN_APART = ("tried", "curve", "identity")
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
        title: [(LABELS.get(key, key.replace("_", " ")), _value(key, record.get(key))) for key in keys]
        for title, keys in SECTIONS.items()
    }
    tried = record.get("tried") or {}
    chosen = record.get("learning_rate")
    if tried:
        rows = [(f"{rate}{'  (chosen)' if float(rate) == chosen else ''}", _percent(e)) for rate, e in tried.items()]
        sections["Learning rates tried, with validation error"] = rows
    known = {key for keys in SECTIONS.values() for key in keys} | set(SHOWN_APART)
    if rest := [(key.replace("_", " "), _value(key, value)) for key, value in record.items() if key not in known]:
        sections["More"] = rest
    return Details(
        identity=record["identity"],
        title=f"{record['task']}, {record['start']}, {_count(record)}",
        start=record["start"] if record["examples"] or record["start"] != "fine-tuned" else "zero-shot",
        sections=sections,
        curve=tuple((int(step), float(error)) for step, error in record.get("curve") or () if error),
        notebook=f"notebooks/{figure.notebook}.ipynb" if figure.notebook else None,
        command=repeat_command(record, figure, budget),
    )


def _count(record: dict) -> str:
    return f"{record['examples']:,} examples" if record["examples"] else "no examples"


def _full_name(chart: Chart, record: dict) -> str:
    """Name of a curve, with the start where the chart's title says it."""
    name, start = chart.label(record), record["start"]
    return name if start in name else f"{name}, {start}"


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
    return any(
        all(getattr(run, key) == record.get(key) for key in keys) and _same_parent(run, record)
        for run in EXPERIMENTS[experiment](budget)
    )


def _same_parent(run: AdaptationRun, record: dict) -> bool:
    if isinstance(run.parent, PretrainingRun):
        return (run.parent.tasks, run.parent.recipe, run.parent.size) == (
            record["parent"],
            record.get("recipe"),
            record.get("size"),
        )
    return run.parent == record.get("shipped_parent")


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


# The page's state -----------------------------------------------------------------------------------------------------


class StudiesState(param.Parameterized):
    """What the page shows: whose results, which figure, which task, and the run that was chosen.

    Args:
        sources: results by name.
    """

    source = param.String(default=None, allow_None=True, doc="key of the sources")
    figure = param.String(default=None, allow_None=True, doc="key of FIGURES")
    task = param.String(default=None, allow_None=True, doc="key of the figure's pictures")
    chosen = param.String(default=None, allow_None=True, doc="identity of the run that is opened")
    gone = param.Dict(default={}, doc="parts of the address, by name, that are not here")

    def __init__(self, sources: dict[str, Source]):
        super().__init__()
        self.sources = sources
        self._pictures: dict[str, dict[str, Picture]] = {}
        self._set(next(iter(sources), None), None, None)
        self.param.watch(lambda *_: self.param.update(gone={}), ["source", "figure", "task", "chosen"])

    def choose_source(self, name: str) -> bool:
        """Change the results; figure and task stay where these have them. False where there are no such."""
        if found := name in self.sources:
            self._set(name, self.figure, self.task)
        return found

    def choose_figure(self, key: str) -> bool:
        """Change the figure; the task stays where it has it."""
        if found := key in self.pictures:
            self._set(self.source, key, self.task)
        return found

    def choose_task(self, name: str) -> bool:
        """Change the task."""
        if found := name in self.pictures.get(self.figure, {}):
            self._set(self.source, self.figure, name)
        return found

    def open(self, identity: str | None) -> bool:
        """Open a run that is drawn, or none."""
        picture = self.picture
        if found := identity is None or (picture is not None and identity in picture.records):
            self.chosen = identity
        return found

    @property
    def pictures(self) -> dict[str, dict[str, Picture]]:
        """Pictures by figure and task: of the figures for which the chosen results have records."""
        return self._pictures

    @property
    def picture(self) -> Picture | None:
        """What is drawn."""
        return self._pictures.get(self.figure, {}).get(self.task)

    @property
    def details(self) -> Details | None:
        """All about the run that is opened."""
        picture = self.picture
        if picture is None or self.chosen not in picture.records:
            return None
        return details_of(picture.records[self.chosen], FIGURES[self.figure], self.sources[self.source].budget)

    @property
    def summary(self) -> str:
        """What the picture shows, and from what; empty where there is none."""
        picture = self.picture
        if picture is None:
            return ""
        source, records = self.sources[self.source], list(picture.records.values())
        hardware = sorted({str(record["hardware"]) for record in records if record.get("hardware")})
        parts = [f"{len(records)} runs", f"budget {source.budget}" if source.budget else "own settings"]
        test = records[0]
        if test.get("test") and test.get("test_resolution"):
            n = test["test_resolution"]
            parts.append(f"errors on {test['test']:,} test examples at {n} x {n}")
        text = ", ".join(parts) + (f"; {'; '.join(hardware)}." if hardware else ".")
        if source.superseded:
            text += f" {source.superseded} older records of the same points are not drawn."
        return text

    def _set(self, source: str | None, figure: str | None, task: str | None) -> None:
        """Change all in one step, to what there is."""
        if source != self.source:
            records = self.sources[source].records
            compared = by_architecture(records)
            rest = [record for record in records if record not in compared]
            found = {
                key: figure.pictures(compared if key == "architectures" else rest) for key, figure in FIGURES.items()
            }
            self._pictures = {key: pictures for key, pictures in found.items() if pictures}
        figure = figure if figure in self._pictures else next(iter(self._pictures), None)
        tasks = self._pictures.get(figure, {})
        task = task if task in tasks else next(iter(tasks), None)
        moved = (source, figure, task) != (self.source, self.figure, self.task)
        self.param.update(source=source, figure=figure, task=task, **({"chosen": None} if moved else {}))
