"""Insert the numbers of the README and of the pages of docs from recorded runs and from cards.

python docs/fill_numbers.py            # insert
python docs/fill_numbers.py --check    # only tell whether they are there
python docs/fill_numbers.py --record   # run what the README shows, about two minutes, keep what is printed, insert
"""

import json
import re
import shlex
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable
from dataclasses import fields
from pathlib import Path

import torch

from sciml_fm_core.evaluation.ranks import area_under_roc, rank_correlation
from sciml_fm_core.evaluation.training_range import LEVEL
from sciml_fm_core.files import write_json
from sciml_fm_core.models.operator import read_header, shipped_adaptations, shipped_operators
from sciml_fm_core.physics.system import SYSTEMS
from sciml_fm_core.study.analysis import error_of, examples_to_reach, median_errors, select, table
from sciml_fm_core.study.experiments import PATIENCE, find_experiment
from sciml_fm_core.study.records import read_table, shipped_tables
from sciml_fm_core.study.runs import identity
from sciml_fm_core.study.unsupervised import CHOSEN, SETTINGS, WAYS
from sciml_fm_core.study.weight_spectra import FURTHEST
from sciml_fm_core.training.cards import hardware

FOLDER = Path(__file__).parent
README, PRINTED = FOLDER.parent / "README.md", FOLDER / "readme.json"
NUMBER = re.compile(r"(zero-shot|fine-tuned|mean relative error) [\d.]+%")
"""A number of the README: it is that of the same name among what the command or the snippet printed."""
REACH, NORMALIZATIONS, REPEATED, PAGE, VISITORS = (
    json.loads((FOLDER.parent / "benchmarks" / "results" / f"{name}.json").read_text(encoding="utf-8"))
    for name in ("reach", "normalizations", "repeat", "page", "visitors")
)
RECORDS = [{"architecture": "fno"} | record for record in read_table(shipped_tables()["laptop"])]
CARDS = {name: read_header(path).card for name, path in shipped_operators().items()}


def percent(value: float) -> str:
    """Two significant digits."""
    return f"{100 * value:.2g} %" if value < 0.995 else f"{100 * value:.0f} %"


def spread(values: list[float], form: Callable[[float], str] = percent) -> str:
    """The median, with the lowest and the highest where they look different; empty where there is none."""
    if not values:
        return ""
    low, high = form(min(values)), form(max(values))
    return form(statistics.median(values)) + (f" ({low} to {high})" if low != high else "")


def origin(records: list[dict], experiments: str) -> str:
    """Where records come from: number, cost, hardware, command."""
    hours, one = sum(record["total_seconds"] for record in records) / 3600, records[0]
    return (
        f"{len(records)} runs, {hours:.1f} process hours on {one['hardware']}, torch {one['versions']['torch']}, seed "
        f"0 unless said; errors on {one['test']} test examples at {one['test_resolution']} x {one['test_resolution']}. "
        f"Made by `sciml-fm study {experiments}--budget laptop --rerun`."
    )


def _operator_and_task(record: dict) -> tuple:
    return tuple(record[key] for key in ("parent", "recipe", "size", "pretraining_examples", "task"))


def headline() -> str:
    """Error against labelled examples on SYS-1(5,10), every learning rate trained to its end."""
    found = [record for record in _recorded("headline") if record["recipe"] != "symbol"]
    ways = {
        "the paper's recipe, fine-tuned": ("paper", "fine-tuned", False),
        "`dimensionless`, fine-tuned": ("dimensionless", "fine-tuned", False),
        "`dimensionless`, fine-tuned, symmetries": ("dimensionless", "fine-tuned", True),
        "`dimensionless`, from scratch, symmetries": ("dimensionless", "from scratch", True),
    }
    counts, rows = sorted({record["examples"] for record in found}), []
    usual = {record["examples"]: record["steps"] for record in select(found, start="fine-tuned")}
    curves = {
        name: [r for r in found if (r["recipe"], r["start"], bool(r.get("symmetries"))) == way]
        for name, way in ways.items()
    }
    last = list(ways)[-1]
    curves[f"{last}, {PATIENCE} times the steps"] = [r for r in found if r["steps"] > usual[r["examples"]]]
    curves[last] = [r for r in curves[last] if r["steps"] == usual[r["examples"]]]
    reached = []
    for name, own in curves.items():
        rows.append([name, *(spread([record["error"] for record in select(own, examples=count)]) for count in counts)])
        enough = examples_to_reach(own, 0.01)
        reached.append(f"{name} {'not reached' if enough is None else f'about {enough:,.0f}'}")
    notes = f"Labelled examples for 1 %, interpolated on medians: {'; '.join(reached)}."
    return f"{origin(found, 'headline ')}\n\n{table(['', *(f'{c:,} examples' for c in counts)], rows)}\n\n{notes}"


def study() -> str:
    """Error against examples at the medium shifts by each recipe, examples for levels, how often fine-tuning harmed."""
    found = _recorded("q1_downstream_data")
    counts, rows = sorted({record["examples"] for record in found}), []
    for task, parent in dict.fromkeys((record["task"], record["shipped_parent"]) for record in found):
        for start in ("fine-tuned", "from scratch"):
            own = select(found, task=task, start=start, shipped_parent=parent)
            enough = [examples_to_reach(own, level) for level in (0.05, 0.02, 0.01)]
            cells = [spread([record["error"] for record in select(own, examples=count)]) for count in counts]
            rows.append([task, f"`{parent}`", start, *cells, *("" if e is None else f"{e:,.0f}" for e in enough)])
    tuned = select(RECORDS, start="fine-tuned")
    zero = {_operator_and_task(record): record["error"] for record in tuned if not record["examples"]}
    tried = [r for r in tuned if r["examples"] and _operator_and_task(r) in zero]
    worse = [r["error"] / zero[_operator_and_task(r)] for r in tried if r["error"] > zero[_operator_and_task(r)]]
    rates = [record["learning_rate"] for record in select(RECORDS, start="from scratch") if record["examples"]]
    notes = (
        f"Of all {len(tried)} fine-tunings recorded, {len(worse)} ended with a larger test error than the untouched "
        "start, which is among the candidates on validation"
        + (f", at most {max(worse):.2f} times" if worse else "")
        + f". From scratch the highest rate, 1e-2, was chosen in {rates.count(0.01)} of {len(rates)} trainings."
    )
    levels = [f"for {level}" for level in ("5 %", "2 %", "1 %")]
    header = ["task", "operator", "start", *(f"{count:,} examples" for count in counts), *levels]
    return f"{origin(found, 'q1_downstream_data ')}\n\n{table(header, rows)}\n\n{notes}"


def _recorded(experiment: str) -> list[dict]:
    """The records of an experiment, in the order of its runs."""
    known = {record["identity"]: record for record in RECORDS}
    return [
        known[name] for name in dict.fromkeys(map(identity, find_experiment(experiment)("laptop"))) if name in known
    ]


def _cells(own: list[dict], columns: list[tuple[str, int]]) -> list[str]:
    """Errors of starts and examples, empty where there is none."""
    return [spread([r["error"] for r in select(own, start=start, examples=count)]) for start, count in columns]


def _columns(*counts: int) -> tuple[list[tuple[str, int]], list[str]]:
    """Fine-tuned with no and with so many examples, from scratch with so many; and what the columns are called."""
    columns = [("fine-tuned", 0), *((start, n) for start in ("fine-tuned", "from scratch") for n in counts)]
    return columns, ["zero-shot", *(f"{start}, {count}" for start, count in columns[1:])]


def sizes() -> str:
    """Networks of several sizes, pre-trained for equal steps."""
    found, rows = _recorded("q2_model_size"), []
    columns, names = _columns(8, 64, 512)
    for task, size in dict.fromkeys((record["task"], record["size"]) for record in found):
        own = select(found, task=task, size=size)
        rows.append([task, size, f"{own[0]['parameters']:,}", *_cells(own, columns)])
    pretraining = f"Each pre-trained on {found[0]['pretraining_examples']:,} examples of its system."
    header = ["task", "size", "parameters", *names]
    return f"{pretraining} {origin(found, 'q2_model_size ')}\n\n{table(header, rows)}"


def shifts() -> str:
    """How far the physics moved, and what it costs."""
    found, rows = _recorded("q3_physics_shift"), []
    columns, names = _columns(8, 64, 512)
    for task in dict.fromkeys(record["task"] for record in found):
        own, *others = (select(found, task=task, recipe=recipe) for recipe in ("dimensionless", "paper", "symbol"))
        rows.append([task, *_cells(own, columns), *(_cells(other, columns[:1])[0] for other in others)])
    header = ["task", *names, "`sys-1-paper`, zero-shot", "`symbol`, zero-shot"]
    return f"{origin(found, 'q3_physics_shift ')}\n\n{table(header, rows)}"


def mixture() -> str:
    """One operator for three systems against an operator for each."""
    found, rows = _recorded("q4_mixed_operators"), []
    columns, names = _columns(8, 64)
    header = ["task", *(f"specialist, {name}" for name in names[:3]), *(f"mixed, {name}" for name in names[:3])]
    for task in dict.fromkeys(record["task"] for record in found):
        own = select(found, task=task)
        specialist, mixed, told = (
            [r for r in own if r["shipped_parent"] in names]
            for names in (("sys-1", "sys-2", "sys-3"), ("mixed",), ("symbol",))
        )
        cells = [*_cells(specialist, columns[:3]), *_cells(mixed, columns[:3]), *_cells(specialist, columns[3:])]
        rows.append([task, *cells, *_cells(told, columns[:1])])
    return f"{origin(found, 'q4_mixed_operators ')}\n\n{table([*header, *names[3:], '`symbol`, zero-shot'], rows)}"


def architectures() -> str:
    """Three networks of about 1M parameters, pre-trained for about equal time."""
    found, rows = _recorded("architectures"), []
    columns = [*(("fine-tuned", count) for count in (0, 8, 64, 512)), ("from scratch", 512)]
    for name in dict.fromkeys(record["architecture"] for record in found):
        own = select(found, architecture=name)
        errors = [percent(error_of(own, start=start, examples=count)) for start, count in columns]
        cost = f"{own[0]['pretraining_examples']:,} in {own[0]['pretraining_seconds']:.0f} s"
        rows.append([f"`{name}`", f"{own[0]['parameters']:,}", cost, *errors])
    header = ["network", "parameters", "pre-training examples", *(f"{start}, {count}" for start, count in columns)]
    return f"SYS-1(1,5) to SYS-1(5,10). {origin(found, 'architectures ')}\n\n{table(header, rows)}"


def operators() -> str:
    """What the cards of the shipped operators say."""
    header, rows = ["name", "trained on", "recipe", "examples", "time", "mean relative errors"], []
    for name, card in CARDS.items():
        errors = ", ".join(f"{label} {percent(error)}" for label, error in card["errors"].items())
        cost = [f"{card['examples_seen']:,}", f"{card['seconds'] / 60:.0f} min"]
        rows.append([f"`{name}`", " + ".join(card["tasks"]), card["recipe"], *cost, errors])
    measured = f"Mean relative errors on {card['errors_measured_on']}"
    return f"{measured}; trained on {card['hardware']}, seed {card['seed']}.\n\n{table(header, rows)}"


def reach() -> str:
    """Zero-shot errors of the operators that are told the symbol, and of those that are told coefficients."""
    names = [name for name, card in CARDS.items() if card["recipe"] != "paper"]
    labels = list(dict.fromkeys(label for name in names for label in CARDS[name]["errors"]))
    rows = [
        [label, *(percent(CARDS[name]["errors"][label]) if label in CARDS[name]["errors"] else "" for name in names)]
        for label in labels
    ]
    between = REACH["operators"]
    rows.append(["SYS-3 between", *(percent(between[name]) if name in between else "" for name in names)])
    told = ["", *(f"{CARDS[name]['examples_seen']:,} examples" for name in names)]
    card = CARDS["symbol"]
    origin = f"Mean relative errors on {card['errors_measured_on']}; `{card['command']}` on {card['hardware']}."
    return f"{origin}\n\n{table(['task', *(f'`{name}`' for name in names)], [told, *rows])}"


def unseen() -> str:
    """Each system held out in turn, and the equations beside the paper's: before and after a few examples."""
    found, rows = _recorded("unseen"), []
    names, columns = ("parent", "recipe", "task", "pretraining_examples"), _columns(8, 64)[0]
    for values in dict.fromkeys(tuple(record[name] for name in names) for record in found):
        parent, recipe, task, seen = values
        tuned = select(found, start="fine-tuned", **dict(zip(names, values, strict=True)))
        twin = select(found, start="from scratch", recipe=recipe, task=task)
        ratio = f"{median_errors(tuned)[64] / median_errors(twin)[64]:.2f}"
        cells = [*_cells(tuned, columns[:3]), *_cells(twin, columns[3:])]
        rows.append([f"{seen:,} of {parent}", f"`{recipe}`", task, *cells, ratio])
    header = ["pre-trained on", "recipe", "measured on", "0", "8", "64", "scratch, 8", "scratch, 64", "ratio at 64"]
    return f"{origin(found, 'unseen ')}\n\n{table(header, rows)}"


def ablation() -> str:
    """What each change of the recipe does, from benchmarks/results/reach.json."""
    first = REACH["shipped"]
    labels = list(first["errors"])
    rows = [
        [one["words"], *(percent(one["errors"][label]) if label in one["errors"] else "" for label in labels)]
        for name, one in REACH.items()
        if name != "operators"
    ]
    origin = (
        f"One change at a time; each variant {first['steps']:,} steps on {first['examples']:,} fresh examples of the "
        f"mixture at 32 x 32, seed {first['seed']}; zero-shot errors on {first['count']} test examples at 32 x 32. "
        f"{first['hardware']}, torch {first['torch']}; `python benchmarks/reach.py`."
    )
    return f"{origin}\n\n{table(['variant', *labels], rows)}"


def unsupervised() -> str:
    """Pre-training on sources alone, and solved examples at test time."""
    found = read_table(shipped_tables()["laptop-unsupervised"])
    chosen, shown = {task: SETTINGS[number] for task, number in CHOSEN.items()}, []
    shared = {key: found[0][key] for key in ("examples", "steps", "size", "pretraining_steps", "batch_size")}
    ways = {"from scratch": "from scratch", "unsupervised": "on sources alone", "supervised": "by labels"}
    rows, counts = [], shared["examples"]
    few = select(found, kind="unsupervised")
    for task, start in dict.fromkeys((record["task"], record["start"]) for record in few):
        own = select(few, task=task, start=start)
        if start == "unsupervised":
            own = select(own, **chosen[own[0]["unlabelled"]])
        errors = [[record["points"][i]["error"] for record in own] for i in range(len(counts))]
        rows.append([task, ways[start], len(own), *map(spread, errors)])
    shown.append(table(["task", "pre-trained", "seeds", *(f"{count} examples" for count in counts)], rows))
    beyond, rows = select(found, kind="in_context"), []
    columns = [0, *beyond[0]["examples"]]
    for task in dict.fromkeys(record["task"] for record in beyond):
        points = [point for record in select(beyond, task=task) for point in record["points"]]
        for way in WAYS:
            own = [point for point in points if point["way"] == way]
            cells = (spread([p["error"] for p in own if p["examples"] == n]) for n in columns)
            rows.append([task, way, len(select(beyond, task=task)), *cells])
    shown.append(table(["task", "way", "seeds", *(f"{count} examples" for count in columns)], rows))
    about = (
        f"Networks of {shared['size']}; pre-training takes {shared['pretraining_steps']} steps of "
        f"{shared['batch_size']} examples, each adaptation {' / '.join(map(str, shared['steps']))}, in context half."
    )
    return f"{about} {origin(found, 'unsupervised ')}\n\n" + "\n\n".join(shown)


def uncertain() -> str:
    """How far spreads follow errors, and what bands hold."""
    found = read_table(shipped_tables()["laptop-uncertainty"])
    rows = []
    for system in dict.fromkeys(r["system"] for r in found):
        points = [row for r in select(found, system=system) for row in r["rows"]]
        for method in dict.fromkeys(point["method"] for point in points):
            own = select(points, method=method)
            furthest = list(dict.fromkeys(point["shift"] for point in own))[-1]
            cells = [SYSTEMS[system].label, method]
            for shift in ("pre-training", "medium"):
                cells.append(spread([p["pearson"] for p in select(own, shift=shift)], "{:.2f}".format))
            for shift, key in (
                ("pre-training", "covered_inside"), ("medium", "covered_inside"), (furthest, "covered_inside"),
                (furthest, "covered_target"),
            ):  # fmt: skip
                cells.append(spread([p[key] for p in select(own, shift=shift)], "{:.0%}".format))
            rows.append(cells)
    header = ["system", "spread", "correlation inside", "on medium", "covered inside", "on medium", "on the furthest",
              "there, by 32 of its examples"]  # fmt: skip
    about = "Medians of three ensembles each, with the lowest and the highest."
    return f"{about} {origin(found, 'uncertainty ')}\n\n{table(header, rows)}"


def flagged() -> str:
    """How well an error above 5 % is known beforehand, by operator."""
    found, rows = read_table(shipped_tables()["laptop-training_range"]), []
    scores = {
        "flag": "flag",
        "dial": "dial alone",
        "spread": "spread of an ensemble",
        "residual": "residual, afterwards",
    }
    for cases in dict.fromkeys(r["cases"] for r in found):
        for parent in dict.fromkeys(r["parent"] for r in found):
            own = select(found, cases=cases, parent=parent)
            known = {s: [r[f"area_{s}"] for r in own if r[f"area_{s}"] is not None] for s in scores}
            if known["flag"]:
                off = sum(r["off"] for r in own) / sum(r["number"] for r in own)
                cells = (spread(known[s], "{:.2f}".format) for s in scores)
                rows.append([cases, f"`{parent}`", f"{off:.0%}", *cells])
        own, cells = select(found, cases=cases), []
        for score in scores:
            areas = []
            for seed in dict.fromkeys(r["seed"] for r in own):
                some = select(own, seed=seed)
                values = [torch.tensor([v for r in some for v in r[name]]) for name in (f"{score}s", "errors")]
                if len(values[0]) == len(values[1]):  # not every operator has an ensemble
                    areas.append(area_under_roc(values[0], values[1] > LEVEL))
            cells.append(spread(areas, "{:.3f}".format))
        off = sum(r["off"] for r in own) / sum(r["number"] for r in own)
        rows.append([cases, "all together", f"{off:.0%}", *cells])
    about = (
        "Area under the ROC curve; medians of three draws of the cases, with the lowest and the highest. "
        f"{found[0]['hardware']}, torch {found[0]['versions']['torch']}. "
        "Made by `sciml-fm study training_range --budget laptop --rerun`."
    )
    header = ["cases", "operator", "off", *scores.values()]
    return f"{about}\n\n{table(header, rows)}"


def spectra() -> str:
    """Whether the exponents of weights rank operators, or follow the error of a training."""
    found = read_table(shipped_tables()["laptop-weight_spectra"])
    generator, rows = torch.Generator(), []

    def related(pairs: list[tuple[float, float]]) -> float:
        x, y = torch.tensor(pairs, dtype=torch.float64).unbind(1)
        return rank_correlation(x, y, generator=generator, draws=1)[0]

    for label in FURTHEST.values():
        own = [
            (r["exponent"], error)
            for r in select(found, kind="weight_spectra")
            for task, error in zip(r["tasks"], r["error"], strict=True)
            if task == label
        ]
        ends = [pair[0] for pair in own]
        rows.append([f"{len(own)} operators on {label}", f"{min(ends):.2f} to {max(ends):.2f}", f"{related(own):+.2f}"])
    trainings = select(found, kind="training_spectra")
    for parent, task in dict.fromkeys((r["parent"], r["task"]) for r in trainings):
        own = select(trainings, parent=parent, task=task)
        ends = [value for r in own for value in r["exponent"]]
        each = [related(list(zip(r["exponent"], r["error"], strict=True))) for r in own]
        name = f"fine-tuning of `{parent}` on {task}" if parent else f"pre-training on {task}"
        rows.append([name, f"{min(ends):.2f} to {max(ends):.2f}", ", ".join(f"{value:+.2f}" for value in each)])
    header = ["across or along", "mean exponents", "rank correlation with the error, by seed"]
    return f"{origin(found, 'weight_spectra ')}\n\n{table(header, rows)}"


def normalizations() -> str:
    """What normalising is worth, from benchmarks/results/normalizations.json."""
    labels = [label for run in NORMALIZATIONS["paper"]["runs"].values() for label in run["errors"]]
    rows = []
    for one in NORMALIZATIONS.values():
        errors = {label: error for run in one["runs"].values() for label, error in run["errors"].items()}
        rates = ", ".join(f"{run['learning_rate']:g}" for run in one["runs"].values())
        rows.append([one["words"], *(percent(errors[label]) for label in labels), rates])
    first = next(iter(NORMALIZATIONS["paper"]["runs"].values()))
    tried = " and ".join(first["tried"])
    made = (
        f"Each variant {first['steps']:,} steps on {first['examples']:,} fresh examples of SYS-1(1,5), and of "
        f"SYS-2(0.2,1), at 32 x 32, at the learning rates {tried}, each to its end, one chosen on validation; seed "
        f"{first['seed']}; zero-shot errors on {first['count']} test examples at 32 x 32. {first['hardware']}, torch "
        f"{first['torch']}; `python benchmarks/normalizations.py`."
    )
    return f"{made}\n\n{table(['variant', *labels, 'rates chosen'], rows)}"


def repeat() -> str:
    """Random points run again, every rate by itself, from benchmarks/results/repeat.json."""
    rows, beaten = [], []
    for point in REPEATED["points"]:
        best = min(point["tested"], key=point["tested"].get)
        beaten.append(point["tested"][point["chosen"]] / point["tested"][best] - 1)
        about = f"{point['task']}, `{point['recipe']}`, {point['start']}, seed {point['seed']}"
        errors = [f"{100 * point[name]:.3g} %" for name in ("recorded", "repeated")]
        rows.append([about, point["examples"], point["chosen"], *errors, best, f"{100 * point['tested'][best]:.3g} %"])
    header = ["point", "examples", "rate chosen", "recorded", "again", "best on test", "its error"]
    first, worst = REPEATED["points"][0], max(beaten)
    notes = (
        f"{len(rows)} points drawn at random (seed {REPEATED['seed']}) from those whose pre-trained operator ships, "
        f"every rate trained again by itself; {first['hardware']}, torch {first['torch']}; "
        f"`python benchmarks/repeat.py`. On the test examples, which choose nothing, another rate would have been "
        f"better by more than 3 % at {sum(share > 0.03 for share in beaten)} of them, at most by {100 * worst:.1f} %."
    )
    return f"{notes}\n\n{table(header, rows)}"


def adapted() -> str:
    """What was fine-tuned beforehand, and its twins from scratch, from their cards."""
    cards = [read_header(path).card for path in shipped_adaptations().values()]
    tasks = list(dict.fromkeys((card["adapted_from"], card["downstream_task"]) for card in cards))
    counts = sorted({card["downstream_examples"] for card in cards})
    rows = []
    for name, task in tasks:
        for kind in ("fine-tuned", "from scratch"):
            own = {
                card["downstream_examples"]: card["errors"][task]
                for card in cards
                if (card["adapted_from"], card["downstream_task"], card["kind"]) == (name, task, kind)
            }
            rows.append([f"`{name}`", task, kind, *(percent(own[count]) for count in counts)])
    header = ["operator", "task", "start", *(f"{count} examples" for count in counts)]
    return (
        f"Mean relative errors on 256 test examples at 128 x 128, of the weights as they ship; {cards[0]['hardware']}, "
        f"seed 0; `make adaptations`.\n\n{table(header, rows)}"
    )


def grids() -> str:
    """How far the answers of each operator are from its own on the finest grid, over its error."""
    found = [r for r in read_table(shipped_tables()["laptop-convergence"]) if r["kind"] == "convergence"]
    rows = []
    for parent, task in dict.fromkeys((r["parent"], r["task"]) for r in found if r["parent"]):
        own = select(found, parent=parent, task=task)
        points = own[0]["resolutions"]
        shares = [spread([r["distance"][i] / r["error"][i] for r in own]) for i in range(len(points) - 1)]
        rows.append([f"`{parent}`", task, spread([r["error"][-1] for r in own]), *shares])
    sources, seeds = found[0]["sources"], len({r["seed"] for r in found})
    made = (
        f"Distance to the answer on {points[-1]} x {points[-1]} points over the error, on {sources} band-limited "
        f"sources; median of {seeds} draws of them, with the lowest and the highest. {found[0]['hardware']}, torch "
        f"{found[0]['versions']['torch']}. Made by `sciml-fm study convergence --budget laptop --rerun`."
    )
    return f"{made}\n\n{table(['operator', 'task', 'error', *(f'{n} points' for n in points[:-1])], rows)}"


def bits() -> str:
    """What weights in fewer bits add to the error, and how large they are."""
    found, rows = read_table(shipped_tables()["laptop-low_precision"]), []
    kinds = found[0]["kinds"]
    for parent in dict.fromkeys(r["parent"] for r in found):
        own = select(found, parent=parent)
        cells = [f"`{parent}`"]
        for i, size in enumerate(own[0]["kilobytes"]):
            added = max(r["error"][i] / r["error"][0] - 1 for r in own)
            parts = [f"{100 * added:+,.1f} %"] if i else []
            cells.append(", ".join([*parts, f"{size:,.0f} kB"] if size else parts))
        rows.append(cells)
    made = (
        f"Largest relative increase of the error on any named shift of the operator's own systems, and the size of the "
        f"weights; on {found[0]['test']} examples at {found[0]['test_resolution']} x {found[0]['test_resolution']}. "
        f"{found[0]['hardware']}, torch {found[0]['versions']['torch']}. "
        "Made by `sciml-fm study low_precision --budget laptop --rerun`."
    )
    return f"{made}\n\n{table(['operator', *kinds], rows)}"


def page() -> str:
    """How fast the explore page answers, from benchmarks/results/page.json."""
    dial, held, sessions, memory = (PAGE[name] for name in ("dial", "held_key", "sessions", "memory"))
    rows = [
        ["dial to painted, median of moves", f"{dial['median_ms']:.0f} ms of {dial['moves']}"],
        ["95th percentile", f"{dial['percentile_95_ms']:.0f} ms"],
        [
            "held key",
            f"{held['frames_per_s']:.0f} frames a second, the last one {'right' if held['last_right'] else 'wrong'}",
        ],
        ["first painted page", f"{PAGE['first_page_s']:.1f} s after the server is up"],
        *(
            [
                f"{sessions['at_once']} sessions dialling at once, {words}: median, 95th percentile",
                f"{own['median_ms']:.0f} and {own['percentile_95_ms']:.0f} ms, "
                f"{own['dropped']} of {own['moves']} moves dropped",
            ]
            for words, own in (
                ("about a second between moves", sessions["a_second_apart"]),
                ("0.3 s between moves", sessions["without_rest"]),
            )
        ),
        [
            f"memory of the server, after 20 and after {memory['sessions']} sessions",
            f"{memory['after_20_mb']} and {memory['at_end_mb']} MB",
        ],
    ]
    where = f"{PAGE['hardware']}, {PAGE['cores']} cores, Chromium {PAGE['browser'].split('.')[0]}."
    return f"{where}\n\n{table(['', ''], rows)}"


def bounds() -> str:
    """What a server grants, from the code that grants it."""
    sys.path.insert(0, str(FOLDER.parent / "dashboards"))
    from explorer.serving.limits import PREFIX, PUBLIC, Limits

    words = {
        "sessions": "pages open at a time, of both kinds",
        "steps": "steps of a training",
        "examples": "examples of a training",
        "learning_rates": "learning rates of a training; the grid tries five",
        "job_seconds": "seconds of a training, from its turn on",
        "queue": "trainings that wait while one runs",
        "results": "trainings that are kept for a page; then the oldest goes",
        "gaussians": "Gaussians of a drawn source",
        "message_bytes": "bytes of a message",
        "messages_per_second": "messages of a stage in a second",
        "unused_seconds": "seconds until a page that never connected gives its place back",
    }
    rows = [
        [f"`{PREFIX}{field.name.upper()}`", words[field.name]]
        + [f"{getattr(limits, field.name):,}" for limits in (PUBLIC, Limits())]
        for field in fields(Limits)
    ]
    return table(["variable", "the most that is granted", "public", "`make explore`"], rows)


def visitors() -> str:
    """How many visitors one server answers, from benchmarks/results/visitors.json."""
    rows = []
    for count in dict.fromkeys(row["visitors"] for row in VISITORS["rows"]):
        cells = [f"{count}"]
        for training in (False, True):
            (one,) = (r for r in VISITORS["rows"] if (r["visitors"], r["training"]) == (count, training))
            cells += [f"{one['median_ms']:.0f} ms", f"{one['percentile_95_ms']:.0f} ms"]
        rows.append([*cells, f"{sum(r['dropped'] for r in VISITORS['rows'] if r['visitors'] == count)}"])
    header = ["visitors", "median", "95th percentile", "median, a training runs", "95th percentile", "no answer in 5 s"]
    where = (
        f"{VISITORS['hardware']}, {VISITORS['cores']} cores, load {VISITORS['load']:.1f} before; a page opens in "
        f"{VISITORS['opened_median_s']:.1f} s, and the server has {VISITORS['memory_mb']} MB with all of them and a "
        "training."
    )
    once, kept = VISITORS["at_once"], [(key.split("_")[1], value) for key, value in VISITORS["kept"].items()]
    held = " and ".join(f"{megabytes} MB after {opened} pages" for opened, megabytes in kept)
    more = (
        f"{once['visitors']} visitors who turn their dials at the same moment, again and again: {once['moves']} moves, "
        f"{once['dropped']} without an answer in 5 s, median {once['median_ms'] / 1000:.1f} s, the worst answer after "
        f"{once['worst_ms'] / 1000:.1f} s. Opened and closed one after the other, pages leave the server with {held}."
    )
    return f"{where}\n\n{table(header, rows)}\n\n{more}"


PAGES = {
    "results.md": (
        headline,
        study,
        repeat,
        sizes,
        shifts,
        mixture,
        architectures,
        unsupervised,
        uncertain,
        flagged,
        normalizations,
        grids,
        spectra,
        bits,
        operators,
        adapted,
    ),
    "reach.md": (reach, unseen, ablation),
    "dashboard.md": (page,),
    "public.md": (bounds, visitors),
}


def filled(text: str, sections: tuple) -> str:
    """The page with every section made anew."""
    for make in sections:
        begin, end = f"<!-- {make.__name__} -->", f"<!-- /{make.__name__} -->"
        before, _, rest = text.partition(begin)
        text = f"{before}{begin}\n{make()}\n{end}{rest.partition(end)[2]}"
    return text


def shown_in_readme(text: str) -> dict[str, list[str]]:
    """What the README shows with numbers: its snippet, and commands, as arguments for Python by their own words."""
    (snippet,) = re.findall(r"```python\n(.*?)```", text, re.DOTALL)
    lines = [line.split("#")[0].strip() for line in text.splitlines() if line.startswith("sciml-fm") and "%" in line]
    return {"python": ["-c", snippet]} | {line: ["-m", "sciml_fm_core.cli", *shlex.split(line)[1:]] for line in lines}


def record_readme() -> None:
    """Run what the README shows, in an empty folder, and keep what it prints."""
    printed = {}
    with tempfile.TemporaryDirectory() as folder:
        for name, arguments in shown_in_readme(README.read_text(encoding="utf-8")).items():
            done = subprocess.run(
                [sys.executable, *arguments], cwd=folder, capture_output=True, text=True, check=True
            )  # fmt: skip
            printed[name] = " ".join(done.stdout.split())
            print(f"{name}: {printed[name]}", flush=True)
    where = {"hardware": hardware(torch.device("cpu")), "torch": torch.__version__.split("+")[0]}
    write_json(PRINTED, where | {"printed": printed})


def filled_readme(text: str) -> str:
    """The README with each number as it was printed."""
    printed = json.loads(PRINTED.read_text(encoding="utf-8"))["printed"]

    def lines():
        for line in text.splitlines(keepends=True):
            name = "python" if line.startswith("prints `") else line.split("#")[0].strip()
            found = {match[1]: match[0] for match in NUMBER.finditer(printed.get(name, ""))}
            yield NUMBER.sub(lambda match, found=found: found[match[1]], line) if name in printed else line

    return "".join(lines())


def filled_pages() -> dict[Path, str]:
    """The README and the pages, with all numbers."""
    pages = {FOLDER / name: sections for name, sections in PAGES.items()}
    texts = {path: filled(path.read_text(encoding="utf-8"), sections) for path, sections in pages.items()}
    return {README: filled_readme(README.read_text(encoding="utf-8"))} | texts


if __name__ == "__main__":
    if "--record" in sys.argv:
        record_readme()
    for path, after in filled_pages().items():
        if "--check" not in sys.argv:
            path.write_text(after, encoding="utf-8")
        elif after != path.read_text(encoding="utf-8"):
            sys.exit(f"{path.name}: not up to date; run python docs/fill_numbers.py")
