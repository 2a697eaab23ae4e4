"""Insert the numbers of the README and of the pages of docs from recorded runs and from cards.

python docs/fill_numbers.py            # insert
python docs/fill_numbers.py --check    # only tell whether they are there
python docs/fill_numbers.py --record   # run what the README shows, about two minutes, keep what is printed, insert
"""

import json
import re
import shlex
import subprocess
import sys
import tempfile
from collections.abc import Callable
from dataclasses import fields
from functools import partial
from pathlib import Path

import torch

from sciml_fm_core.experiments import evolutions, forecasting, import_all, step_losses, variable_coefficients
from sciml_fm_core.experiments.convergence import runs as convergence
from sciml_fm_core.experiments.darcy import runs as darcy
from sciml_fm_core.experiments.low_precision import runs as low_precision
from sciml_fm_core.experiments.reports import (
    architectures,
    headline,
    q1_downstream_data,
    q2_model_size,
    q3_physics_shift,
    q4_mixed_operators,
    unseen,
    weight_spectra,
)
from sciml_fm_core.experiments.training_range import runs as training_range
from sciml_fm_core.experiments.uncertainty import runs as uncertainty
from sciml_fm_core.experiments.unsupervised import runs as unsupervised
from sciml_fm_core.files import write_json
from sciml_fm_core.models.operator import read_header, shipped_adaptations, shipped_operators
from sciml_fm_core.study.analysis import percent, select, table
from sciml_fm_core.study.records import read_table, shipped_tables
from sciml_fm_core.study.registry import REGISTRY
from sciml_fm_core.study.runs import identity
from sciml_fm_core.training.cards import hardware

import_all()

FOLDER = Path(__file__).parent
README, PRINTED = FOLDER.parent / "README.md", FOLDER / "readme.json"
NUMBER = re.compile(r"(zero-shot|fine-tuned|mean relative error) [\d.]+%")
"""A number of the README: it is that of the same name among what the command or the snippet printed."""
REACH, NORMALIZATIONS, REPEATED, PAGE, VISITORS, FIELDS, EXPORTED = (
    json.loads((FOLDER.parent / "benchmarks" / "results" / f"{name}.json").read_text(encoding="utf-8"))
    for name in ("reach", "normalizations", "repeat", "page", "visitors", "fields", "exported")
)
CARDS = {name: read_header(path).card for name, path in shipped_operators().items()}


def recorded(experiment: str) -> list[dict]:
    """The records of an experiment that ship, in the order of its runs."""
    ships = read_table(shipped_tables()[REGISTRY[experiment].table_for("laptop")])
    known = {record["identity"]: {"architecture": "fno"} | record for record in ships}
    return [known[name] for name in dict.fromkeys(map(identity, REGISTRY[experiment].runs("laptop"))) if name in known]


def shown(experiment: str, *tables: Callable[[list[dict]], str], about: str = "") -> Callable[[], str]:
    """Section on an experiment: what its tables are about, where the records come from, the tables."""

    def section() -> str:
        records = recorded(experiment)
        hours, one = sum(record["total_seconds"] for record in records) / 3600, records[0]
        tested = ""
        if {"test", "test_resolution"} <= set(one):
            tested = "; errors on {test} test examples at {test_resolution} x {test_resolution}"
        origin = (
            f"{len(records)} runs, {hours:.1f} process hours on {one['hardware']}, torch {one['versions']['torch']}, "
            f"seed 0 unless said{tested.format(**one)}. "
            f"Made by `sciml-fm study {experiment} --budget laptop --rerun`."
        )
        return "\n\n".join([f"{about.format(**one)} {origin}".strip(), *(table(records) for table in tables)])

    return section


def harmed(_: list[dict]) -> str:
    """How often fine-tuning harmed, and the highest learning rate was chosen, in all records of fine-tunings."""
    records = read_table(shipped_tables()["laptop"])
    tuned = select(records, start="fine-tuned")
    zero = {_operator_and_task(record): record["error"] for record in tuned if not record["examples"]}
    tried = [r for r in tuned if r["examples"] and _operator_and_task(r) in zero]
    worse = [r["error"] / zero[_operator_and_task(r)] for r in tried if r["error"] > zero[_operator_and_task(r)]]
    rates = [record["learning_rate"] for record in select(records, start="from scratch") if record["examples"]]
    return (
        f"Of all {len(tried)} fine-tunings recorded, {len(worse)} ended with a larger test error than the untouched "
        "start, which is among the candidates on validation"
        + (f", at most {max(worse):.2f} times" if worse else "")
        + f". From scratch the highest rate, 1e-2, was chosen in {rates.count(0.01)} of {len(rates)} trainings."
    )


def _operator_and_task(record: dict) -> tuple:
    return tuple(record[key] for key in ("parent", "recipe", "size", "pretraining_examples", "task"))


def operators() -> str:
    """What the cards of the shipped operators say."""
    header, rows = ["name", "trained on", "recipe", "examples", "time", "mean relative errors"], []
    for name, card in CARDS.items():
        errors = ", ".join(f"{label} {percent(error)}" for label, error in card["errors"].items())
        cost = [f"{card['examples_seen']:,}", f"{card['seconds'] / 60:.0f} min"]
        rows.append([f"`{name}`", " + ".join(card["tasks"]), card["recipe"], *cost, errors])
    measured = (
        f"Mean relative errors on {CARDS['symbol']['errors_measured_on']}, of SYS-4 and SYS-5 at 64 x 64, of one "
    )
    measured += "step of evolutions from 128 initial states at 64 x 64"
    trained = " or ".join(dict.fromkeys(card["hardware"] for card in CARDS.values()))
    return f"{measured}; trained on {trained}, seed {card['seed']}.\n\n{table(header, rows)}"


def reach() -> str:
    """Zero-shot errors of the operators that are conditioned on the symbol, and of those that are told coefficients."""
    names = [name for name, card in CARDS.items() if card["recipe"] not in ("paper", "correction", "step")]
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


def parts() -> str:
    """What each part of the recipe `correction` gives, from benchmarks/results/fields.json."""
    first = FIELDS["shipped"]
    rows = {words: errors for name, one in FIELDS.items() if "steps" in one for words, errors in one["rows"].items()}
    labels = list(next(iter(rows.values())))
    origin = (
        f"One change at a time; each variant {first['steps']} steps on {first['examples']:,} fresh examples of "
        f"SYS-4(0,0.3) at 32 x 32, seed {first['seed']}; zero-shot errors on {first['count']} test examples at "
        "64 x 64. "
        f"{first['hardware']}, torch {first['torch']}; `python benchmarks/fields.py`."
    )
    columns = [[words, *map(percent, errors.values())] for words, errors in rows.items()]
    return f"{origin}\n\n{table(['variant', *labels], columns)}"


def corrected() -> str:
    """Zero-shot errors of the operators of the recipe `correction`, from their cards."""
    rows = [
        [f"`{name}`", label, percent(error), f"{card['examples_seen']:,}", f"{card['seconds'] / 60:.0f} min"]
        for name, card in CARDS.items()
        if card["recipe"] == "correction"
        for label, error in card["errors"].items()
    ]
    header = ["operator", "task", "error", "examples seen", "training"]
    card = CARDS["sys-4"]
    return f"Mean relative errors on {card['errors_measured_on']}; `{card['command']}`.\n\n{table(header, rows)}"


def varied() -> str:
    """Errors of `sys-4` against contrast, resolution and roughness."""
    one = FIELDS["reach"]
    rows = [
        [label, f"{row['contrast']:.3g}", *(percent(row[name]) for name in row if name != "contrast")]
        for label, row in one["rows"].items()
    ]
    header = ["task", "median contrast", "32 x 32", "64 x 64", "128 x 128", "rougher a (2)", "smoother a (3.5)"]
    return f"{one['count']} test examples each; roughness at 64 x 64.\n\n{table(header, rows)}"


def inside() -> str:
    """The solver alone, and with `sys-4` inside."""
    one = FIELDS["solver"]
    rows = [
        [
            label, percent(row["error"]), f"{row['prediction ms']:.1f}",
            f"{row['same error']:.1f}, {row['same error ms']:.1f}", f"{row['alone']:.1f}, {row['alone ms']:.1f}",
            f"{row['started']:.1f}, {row['started ms']:.1f}",
            (f"{row['inside']:.1f}" if row["inside"] else "none") + f" ({row['converged']}), {row['inside ms']:.0f}",
        ]
        for label, row in one["rows"].items()
    ]  # fmt: skip
    header = ["task", "error of `sys-4`", "its prediction, ms", "solver to that error", "solver to 1e-8",
              "from the prediction", "preconditioned by the network"]  # fmt: skip
    return (
        f"Iterations, and milliseconds of one core for each example, at 64 x 64; {one['count']} test examples; with "
        f"the network as a preconditioner 4 of them, and at most 60 iterations.\n\n{table(header, rows)}"
    )


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


def tuned() -> str:
    """Operators for evolutions as they ship, and their fine-tunings, from their cards."""
    cards = {name: read_header(path).card for name, path in (shipped_operators() | shipped_adaptations()).items()}
    steps = {name: card for name, card in cards.items() if card["recipe"] == "step"}
    rows = []
    for name, card in steps.items():
        task = card.get("downstream_task") or next(
            each["downstream_task"] for each in steps.values() if each.get("adapted_from") == name
        )
        measured = {f"`{name}`": card["errors_of_roll_outs"]}
        if cheap := card.get("errors_of_the_cheap_step"):
            measured["the cheap step alone"] = cheap
        for shown_name, found in measured.items():
            errors = (percent(found[each]) for each in ("single_step", "after_1", "after_5", "after_10"))
            rows.append([task, shown_name, str(card.get("downstream_examples", "")), *errors])
    about = "Mean relative errors on 32 test trajectories at 64 x 64, of weights before they were rounded."
    header = ["task", "operator", "trajectories", "one step", "after 1", "after 5", "after 10"]
    return f"{about}\n\n{table(header, sorted(rows))}"


def adapted() -> str:
    """What was fine-tuned beforehand, and its twins from scratch, from their cards."""
    read = (read_header(path).card for path in shipped_adaptations().values())
    cards = [card for card in read if card["recipe"] != "step"]  # those have a page of their own
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
            if own:
                rows.append([f"`{name}`", task, kind, *(percent(own[n]) if n in own else "" for n in counts)])
    header = ["operator", "task", "start", *(f"{count} examples" for count in counts)]
    return (
        f"Mean relative errors on 256 test examples at 128 x 128, of SYS-4 on 512 at 64 x 64, of the weights as "
        f"they ship; {cards[0]['hardware']}, "
        f"seed 0; `make adaptations`.\n\n{table(header, rows)}"
    )


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
        *(
            [
                [
                    f"an evolution played, 64 x 64, {film['predictions']} predictions, 50 steps a second asked for",
                    f"{film['played_per_s']:.0f} steps a second",
                ],
                ["its dial to the first frame of another trajectory", f"{film['first_frame']['median_ms']:.0f} ms"],
            ]
            if (film := PAGE.get("evolution"))
            else []
        ),
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
        "nice": "how far trainings, curves and tabs stand back (on Linux), as of the command `nice`",
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


def exported() -> str:
    """How far files of ONNX are from PyTorch and how fast, from benchmarks/results/exported.json."""
    named: dict[str, list[dict]] = {}
    for row in EXPORTED["rows"]:
        named.setdefault(row["name"], []).append(row)
    rows = []
    for name, ours in named.items():
        worst = {
            key: f"{max(at[key] for row in ours for at in row['points'].values()):.1e}"
            for key in ("difference", "rounding", "rounding_onnx")
        }
        times = [
            f"{sum(row['points'][n]['onnx_ms'] for row in ours) / len(ours):.1f} / "
            f"{sum(row['points'][n]['torch_ms'] for row in ours) / len(ours):.1f}"
            for n in ("64", "128")
        ]
        rows.append([f"`{name}`", ", ".join(row["system"] for row in ours), *worst.values(), *times])
    header = ["file", "systems", "to PyTorch", "PyTorch to float64", "file to float64", "64, ms", "128, ms"]
    odd = sum(bool(row["odd"]) for row in EXPORTED["rows"]) or "none"
    ratios = {
        (row["name"], row["system"], n): at["rounding_onnx"] / at["rounding"]
        for row in EXPORTED["rows"] for n, at in row["points"].items()
    }  # fmt: skip
    (name, system, points), ratio = max(ratios.items(), key=lambda item: item[1])
    where = (
        f"{len(EXPORTED['rows'])} files, each for any even grid and tried on 32, 64, 66 and 128 points with "
        f"{EXPORTED['examples']} random examples; with a transform or a complex number: {odd}. Largest relative "
        f"differences; and the processor time of one prediction on one thread, ONNX Runtime / PyTorch, on average. "
        f"{EXPORTED['hardware']}, shared with other work, PyTorch {EXPORTED['torch'].split('+')[0]}, ONNX Runtime "
        f"{EXPORTED['onnxruntime']}. A file is at most {ratio:.1f} times as far from float64 as PyTorch is, `{name}` "
        f"on {system} at {points} points. Made by `python benchmarks/exported.py`."
    )
    return f"{where}\n\n{table(header, rows)}"


PAGES: dict[str, dict[str, Callable[[], str]]] = {
    "export.md": {"exported": exported},
    "results.md": {
        "headline": shown("headline", headline.numbers),
        "study": shown("q1_downstream_data", q1_downstream_data.numbers, harmed),
        "repeat": repeat,
        "sizes": shown(
            "q2_model_size",
            q2_model_size.numbers,
            about="Each pre-trained on {pretraining_examples:,} examples of its system.",
        ),
        "shifts": shown("q3_physics_shift", q3_physics_shift.numbers),
        "mixture": shown("q4_mixed_operators", q4_mixed_operators.numbers),
        "architectures": shown("architectures", architectures.numbers, about="SYS-1(1,5) to SYS-1(5,10)."),
        "unsupervised": shown(
            "unsupervised",
            unsupervised.few_shot_table,
            unsupervised.in_context_table,
            about="Networks of {size}; pre-training takes {pretraining_steps} steps of {batch_size} examples, each "
            "adaptation {steps[0]} / {steps[1]} / {steps[2]}, in context half.",
        ),
        "uncertain": shown(
            "uncertainty",
            uncertainty.uncertainty_table,
            about="Medians of three ensembles each, with the lowest and the highest; half widths and CRPS, of which "
            "lower is better, are shares of the size of the solution.",
        ),
        "flagged": shown(
            "training_range",
            training_range.training_range_table,
            about="Area under the ROC curve; medians of three draws of the cases, with the lowest and the highest.",
        ),
        "normalizations": normalizations,
        "grids": shown(
            "convergence",
            convergence.convergence_table,
            about="Distance to the answer on {resolutions[4]} x {resolutions[4]} points over the error, on {sources} "
            "band-limited sources; medians of three draws of them, with the lowest and the highest.",
        ),
        "darcy": shown("darcy", partial(darcy.darcy_table, n=16), partial(darcy.darcy_table, n=32)),
        "spectra": shown("weight_spectra", lambda records: "\n\n".join(weight_spectra.findings(records)[:2])),
        "bits": shown(
            "low_precision",
            low_precision.low_precision_table,
            about="Largest relative increase of the error on any named shift of the operator's own systems, and the "
            "size of the weights.",
        ),
        "operators": operators,
        "adapted": adapted,
    },
    "reach.md": {"reach": reach, "unseen": shown("unseen", unseen.numbers), "ablation": ablation},
    "fields.md": {
        "corrected": corrected,
        "parts": parts,
        "varied": varied,
        "inside": inside,
        "labels": shown(
            "variable_coefficients",
            variable_coefficients.few_labels_table,
            variable_coefficients.costs_table,
            lambda records: "\n".join(f"- {said}" for said in variable_coefficients.winners(records)),
            about="Errors on {test} test examples at {resolution} x {resolution}.",
        ),
    },
    "evolutions.md": {
        "told": shown(
            "told",
            evolutions.told_table,
            about="Relative errors on {task} at {resolution} x {resolution}, which none of these small pre-trainings "
            "has seen, of single steps and of roll-outs; {steps} steps of training each.",
        ),
        "rolled": shown(
            "rollout",
            evolutions.rollout_conclusion,
            evolutions.rollout_table,
            evolutions.equal_error_table,
            about="Medians of roll-outs on test trajectories at {resolution} x {resolution}. Steps until the "
            "correlation falls below 0.8; the share of roll-outs whose spectrum, a mean over the last quarter of the "
            "steps, is within a factor of two of the trajectory's, up to half of the resolved waves; waves of less "
            "than 1e-4 of the state count as nothing in both.",
        ),
        "few": shown(
            "evolution_transfer",
            evolutions.transfer_conclusion,
            evolutions.few_trajectories_table,
            evolutions.equal_error_table,
            about="Mean relative errors on {test} test trajectories at {resolution} x {resolution}; from random "
            "weights with twice the steps.",
        ),
        "shared": shown(
            "evolution_transfer",
            evolutions.shared_verdicts,
            partial(evolutions.shared_table, name="single_step"),
            evolutions.shared_table,
            about="Mean relative errors on {test} test trajectories at {resolution} x {resolution}, medians over "
            "seeds, with the lowest and the highest. Where nothing was trained, the last column is tuned from random "
            "weights.",
        ),
        "tuned": tuned,
        "forecasts": shown(
            "forecasting",
            forecasting.forecasting_table,
            about="Mean relative errors on {test} test trajectories at {resolution} x {resolution}, medians of three "
            "seeds, with the lowest and the highest; fitted to {train} trajectories, networks in {steps} steps of "
            "{batch_size} at each of two rates.",
        ),
        "losses": shown(
            "step_losses",
            step_losses.step_losses_table,
            about="Mean relative errors at the end of a step on {test} test states at {resolution} x {resolution}; "
            "{steps} training steps each.",
        ),
    },
    "dashboard.md": {"page": page},
    "public.md": {"bounds": bounds, "visitors": visitors},
}


def filled(text: str, sections: dict[str, Callable[[], str]]) -> str:
    """The page with every section made anew."""
    for name, make in sections.items():
        begin, end = f"<!-- {name} -->", f"<!-- /{name} -->"
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
