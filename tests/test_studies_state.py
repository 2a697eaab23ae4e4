"""The studies page without its display: which results there are, which figures they make, and one run's details."""

import ast
import json
import sys
from itertools import count
from pathlib import Path
from urllib.parse import parse_qsl

import pytest

from sciml_fm_core.experiments.paper import BUDGETS, EXPERIMENTS, MIXTURE, SYS_1, SYS_2, SYS_3
from sciml_fm_core.study import records as records_module
from sciml_fm_core.study import runs
from sciml_fm_core.study.colours import MEANING
from sciml_fm_core.study.records import write_table
from sciml_fm_core.study.runs import PretrainingRun

pytest.importorskip("param", reason="the dashboard extra is not installed")
sys.path.insert(0, str(Path(__file__).parent.parent / "dashboards"))

from explorer import link
from explorer.bundles import FOLDER_VARIABLE, find_bundles, user_folder
from explorer.lessons import VARIABLE, find_lessons
from explorer.predictions import PREDICTIONS
from explorer.shared import shipped_results
from explorer.state import ExploreState
from explorer.studies.figures import FIGURES, OTHERS
from explorer.studies.link import explore_query, query_of, restore
from explorer.studies.page import Studies
from explorer.studies.records import RECORDS_VARIABLE, checked, find_sources, records_folder, split_by_settings
from explorer.studies.runs import rows_of
from explorer.studies.said import said
from explorer.studies.state import StudiesState

SHIPPED = {
    "sys-1": (SYS_1, "dimensionless", 256_000),
    "sys-1-paper": (SYS_1, "paper", 256_000),
    "sys-2": (SYS_2, "dimensionless", 384_000),
    "sys-3": (SYS_3, "dimensionless", 384_000),
    "mixed": (MIXTURE, "dimensionless", 864_000),
    "symbol": (MIXTURE, "symbol", 1_000_000),
}


def record_of(run, identity):
    """A record as `adapt_and_measure` writes it, with made-up results that fall with the examples."""
    own = isinstance(run.parent, PretrainingRun)
    parent, recipe, seen = (
        (run.parent.tasks, run.parent.recipe, run.parent.steps * run.parent.batch_size) if own else SHIPPED[run.parent]
    )
    error = (0.05 if run.start == "fine-tuned" else 0.8) / (1 + run.examples) ** 0.4 * (1 + 0.1 * run.seed)
    rates = run.learning_rates if run.examples else ()
    return {
        "identity": identity,
        "parent": parent,
        "recipe": recipe,
        "architecture": run.parent.architecture if own else "fno",
        "size": run.parent.size if own else "1M",
        "parameters": {"64K": 64_000, "256K": 256_000}.get(run.parent.size if own else "1M", 1_050_000),
        "pretraining_examples": seen,
        "pretraining_seed": 0,
        "task": run.task,
        "start": run.start,
        "examples": run.examples,
        "seed": run.seed,
        "steps": run.steps,
        "batch_size": run.batch_size,
        "learning_rates": list(run.learning_rates),
        "resolution": [list(pair) for pair in run.resolution],
        "validation": run.validation,
        "test": run.test,
        "test_resolution": run.test_resolution,
        "symmetries": run.symmetries,
        "shipped_parent": None if own else run.parent,
        "error": error,
        "median": 0.9 * error,
        "percentile_90": 2 * error,
        "learning_rate": rates[-1] if rates else None,
        "tried": {f"{rate:g}": error + 0.01 * i for i, rate in enumerate(reversed(rates))},
        "curve": [[step, error * (2 - step / run.steps)] for step in (run.steps // 2, run.steps)] if rates else [],
        "validation_error": error if rates else None,
        "seconds": 12.5 if rates else 0.0,
        "total_seconds": 50.0,
        "hardware": "a test machine",
        "versions": {"sciml_fm": "0.1.0", "torch": "2.11.0"},
    }


def records_of(*experiments, budget="laptop"):
    """Made-up records of experiments; a point that two share is there once."""
    runs = dict.fromkeys(run for name in experiments for run in EXPERIMENTS[name](budget))
    numbers = count(1)
    return [record_of(run, f"{budget}{next(numbers):010x}") for run in runs]


def state_over(records, place="table"):
    return StudiesState({source.name: source for source in split_by_settings(place, records)})


@pytest.fixture
def places(tmp_path, monkeypatch):
    """Folder of records and folder of runs, both empty, with no results that ship."""
    folder = tmp_path / "runs" / "study"
    folder.mkdir(parents=True)
    monkeypatch.setenv(RECORDS_VARIABLE, str(folder))
    monkeypatch.setattr("explorer.studies.records.shipped_tables", dict)
    return folder, tmp_path / "runs"


# Which results there are ----------------------------------------------------------------------------------------------


def test_without_any_records_there_is_nothing_to_draw(places):
    sources, problems = find_sources(places[1])
    state = StudiesState(sources)
    assert (sources, problems) == ({}, [])
    assert (state.source, state.figure, state.task, state.picture, state.details) == (None,) * 5
    assert state.summary == ""


def test_records_of_another_kind_are_left_to_their_notebook(places, monkeypatch):
    folder, runs = places
    other = {"identity": "f" * 16, "kind": "equation", "task": "SYS-1(5,10)", "loss": "physics", "error": 0.01}
    table = write_table([other], runs / "laptop-equation.csv")
    monkeypatch.setattr("explorer.studies.records.shipped_tables", lambda: {"laptop-equation": table})
    (folder / f"{other['identity']}.json").write_text(json.dumps(other), encoding="utf-8")
    assert find_sources(runs) == ({}, [])


def test_results_that_ship_come_first_and_own_ones_after(places, monkeypatch):
    folder, runs = places
    shipped = write_table(records_of("q1_downstream_data"), runs / "laptop.csv")
    monkeypatch.setattr("explorer.studies.records.shipped_tables", lambda: {"laptop": shipped})
    for record in records_of("q1_downstream_data", budget="smoke"):
        (folder / f"{record['identity']}.json").write_text(json.dumps(record))
    sources, problems = find_sources(runs)
    assert list(sources) == ["Shipped, laptop", f"{folder}, smoke"]
    assert problems == []
    assert [source.budget for source in sources.values()] == ["laptop", "smoke"]
    assert list(sources["Shipped, laptop"].records) == sorted(
        records_module.read_table(shipped), key=lambda r: (r["steps"], r["identity"])
    )


def test_a_table_is_listed_where_it_has_more_than_the_folder(places):
    folder, runs = places
    records = records_of("q1_downstream_data")
    (runs / "q1").mkdir()
    table = write_table(records, runs / "q1" / "records.csv")
    assert list(find_sources(runs)[0]) == [f"{table}, laptop"]
    for record in records:
        (folder / f"{record['identity']}.json").write_text(json.dumps(record))
    assert list(find_sources(runs)[0]) == [f"{folder}, laptop"]


def test_files_that_cannot_be_read_are_left_out_with_a_message(places):
    folder, runs = places
    good, *bad = records_of("q1_downstream_data")[:6]
    bad[0]["error"] = float("nan")
    bad[1]["task"] = "SYS-9(1,2)"
    del bad[2]["examples"]
    bad[3]["start"] = "from the middle"
    bad[4]["seed"] = None
    for record in (good, *bad):
        (folder / f"{record['identity']}.json").write_text(json.dumps(record))
    (folder / "half.json").write_text('{"identity": "12')
    (folder / "other.json").write_text("[1, 2]")
    (runs / "q2").mkdir()
    (runs / "q2" / "records.csv").write_text("name,value\na,1\n")
    sources, problems = find_sources(runs)
    (source,) = sources.values()
    assert [record["identity"] for record in source.records] == [good["identity"]]
    assert len(problems) == len(bad) + 3
    for part in ("half.json", "other.json", "records.csv", "SYS-9", "examples", "from the middle", "seed", "nan"):
        assert any(part in problem for problem in problems), part


def test_errors_are_compared_only_between_runs_with_the_same_settings():
    own = [record | {"test": 7} for record in records_of("q1_downstream_data") if record["recipe"] != "paper"]
    sources = split_by_settings(
        "runs/study", [*own, *records_of("q1_downstream_data", budget="smoke"), *records_of("seeds")]
    )
    assert [source.name for source in sources] == [
        f"runs/study, {part}" for part in ("smoke", "laptop", "own settings")
    ]
    assert {record["test"] for record in sources[-1].records} == {7}


def test_of_a_point_that_was_computed_again_the_newest_is_drawn():
    (old, *rest) = records_of("q1_downstream_data")
    new = old | {"identity": "new", "versions": {"sciml_fm": "0.10.0"}}
    newer_but_longer_ago = old | {"identity": "middle", "versions": {"sciml_fm": "0.9.0"}}
    state = state_over([new, newer_but_longer_ago, old, *rest])
    drawn = state.picture.records
    assert "new" in drawn
    assert not {"middle", old["identity"]} & set(drawn)
    assert "2 older records" in state.summary


# Which figures they make ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("experiment", EXPERIMENTS)
@pytest.mark.parametrize("budget", BUDGETS)
def test_records_of_an_experiment_make_its_figure_with_every_run(experiment, budget):
    records = records_of(experiment, budget=budget)
    state = state_over(records)
    pictures = state.pictures[experiment]
    drawn = {identity for picture in pictures.values() for identity in picture.records}
    assert drawn == {record["identity"] for record in records}
    assert OTHERS not in state.pictures


@pytest.mark.parametrize("budget", ["laptop", "gpu"])
def test_all_experiments_together_make_the_same_figures(budget):
    """The same curves, perhaps with more points: what belongs to another figure alone is not drawn."""
    together = state_over(records_of(*EXPERIMENTS, budget=budget))
    assert list(together.pictures) == list(EXPERIMENTS)
    for experiment in EXPERIMENTS:
        alone = state_over(records_of(experiment, budget=budget)).pictures[experiment]
        assert list(together.pictures[experiment]) == list(alone), experiment
        for task, picture in alone.items():
            found = together.pictures[experiment][task]
            assert [names(chart) for chart in found.charts] == [names(chart) for chart in picture.charts]
            points, shown = map(points_of, (picture, found))
            assert points <= shown, (experiment, task)


def points_of(picture):
    """What is drawn of a picture, whatever the identities."""
    keys = ("parent", "recipe", "architecture", "size", "pretraining_examples", "task", "start", "examples", "seed")
    return {tuple(record[key] for key in keys) for record in picture.records.values()}


def names(chart):
    """Names of the curves of a chart, in order."""
    return list(dict.fromkeys(chart.label(record) for record in chart.records))


def test_curves_are_named_for_what_the_figure_asks():
    pictures = state_over(records_of(*EXPERIMENTS)).pictures
    coefficients, symbol = "conditioned on the coefficients", "conditioned on the symbol"
    assert names(pictures["q1_downstream_data"]["SYS-1(5,10)"].charts[0]) == [
        f"{start}, {recipe}" for start in runs.STARTS for recipe in (coefficients, "the paper's recipe", symbol)
    ]
    assert names(pictures["q1_downstream_data"]["SYS-2(1,2)"].charts[0]) == [
        f"{start}, {recipe}" for start in runs.STARTS for recipe in (coefficients, symbol)
    ]
    sizes = pictures["q2_model_size"]
    assert list(sizes) == ["SYS-1(5,10)", "SYS-2(1,2)"]
    assert [names(chart) for each in sizes.values() for chart in each.charts] == [["64K", "256K", "1M"]] * 4
    shifts = pictures["q3_physics_shift"]["SYS-1(1,5) to none, mild, medium, large"]
    assert names(shifts.charts[0]) == [
        f"{shift}{told}"
        for told in ("", ", the paper's recipe", ", conditioned on the symbol")
        for shift in (
            "no shift, SYS-1(1,2.5)",
            "mild shift, SYS-1(2.5,7.5)",
            "medium shift, SYS-1(5,10)",
            "large shift, SYS-1(10,20)",
        )
    ]
    assert shifts.pretraining == SYS_1
    assert len(shifts.downstream) == 4
    assert shifts.saved is not None
    mixed = pictures["q4_mixed_operators"]
    assert list(mixed)[-1] == "SYS-3(5,12)"
    assert set(names(mixed["SYS-3(5,12)"].charts[0])) == {
        "mixed", "mixed, conditioned on the symbol", "its own system alone", "from scratch",
    }  # fmt: skip
    assert {record["seed"] for record in pictures["seeds"]["SYS-1(5,10)"].records.values()} == {0, 1, 2, 3, 4}


def test_own_operators_are_further_curves_that_say_how_they_differ():
    records = records_of("q1_downstream_data")
    own = [
        record | {"identity": f"own{i}", "pretraining_examples": 48_000, "shipped_parent": None}
        for i, record in enumerate(records)
        if record["task"] == "SYS-2(1,2)" and record["recipe"] == "dimensionless"
    ]
    records = [record for record in records if record["recipe"] == "dimensionless"]
    chart = state_over(records + own).pictures["q1_downstream_data"]["SYS-2(1,2)"].charts[0]
    assert set(names(chart)) == {
        f"{start}, {seen} examples seen" for start in runs.STARTS for seen in ("384,000", "48,000")
    }


def test_what_no_figure_draws_is_under_other_runs():
    records = records_of("q1_downstream_data")
    own = [record | {"identity": f"own{i}", "task": "SYS-1(6, 9)"} for i, record in enumerate(records[:4])]
    state = state_over(records)
    assert OTHERS not in state.pictures
    sources = split_by_settings("table", [*records, *own, records[0] | {"identity": "parent", "parent": "SYS-1(1,3)"}])
    state = StudiesState({source.name: source for source in sources})
    assert set(state.pictures[OTHERS]) == {"SYS-1(5,10)", "SYS-1(6, 9)"}
    state.choose_figure(OTHERS)
    state.choose_task("SYS-1(6, 9)")
    state.open("own3")
    assert state.details.notebook is None


@pytest.mark.parametrize("shifts", [{}, {"pre-training": (1, 2), "medium": (2, 4)}])
def test_a_system_of_ones_own_is_drawn_too(registry, shifts):
    class Massive(type(registry["helmholtz"])):
        name, label = "massive", "SYS-8"

    Massive.shifts = shifts
    record = records_of("q1_downstream_data")[0]
    own = record | {"identity": "own", "task": "massive(2,4)", "parent": "SYS-8(1,2)"}
    state = state_over([record, checked(own)])
    state.choose_figure(OTHERS)
    assert (state.task, state.picture.downstream) == ("SYS-8(2,4)", ("SYS-8(2,4)",))
    assert state.picture.pretraining == ("SYS-8(1,2)" if shifts else "SYS-8(2,4)")


def test_a_single_shift_is_not_a_figure_of_shifts_nor_one_mixture_alone():
    assert "q3_physics_shift" not in state_over(records_of("q1_downstream_data")).pictures
    specialists = [record for record in records_of("q4_mixed_operators") if "+" not in record["parent"]]
    assert "q4_mixed_operators" not in state_over(specialists).pictures


def test_savings_are_shown_where_both_starts_have_examples():
    tuned = [record for record in records_of("q3_physics_shift") if record["start"] == "fine-tuned"]
    (first, _) = state_over(tuned).pictures["q3_physics_shift"].values()
    assert first.saved is None
    assert len(first.charts) == 1


# What is chosen -------------------------------------------------------------------------------------------------------


@pytest.fixture
def state():
    """All laptop experiments, and Question 1 alone of the smoke budget."""
    return state_over([*records_of(*EXPERIMENTS), *records_of("q1_downstream_data", budget="smoke")])


def test_the_first_figure_is_shown_at_once(state):
    assert state.source == "table, smoke"
    assert (state.figure, state.task) == ("q1_downstream_data", "SYS-1(5,10)")
    assert state.summary.startswith(
        "6 runs" if len(state.picture.records) == 6 else f"{len(state.picture.records)} runs"
    )


def test_choices_stay_where_the_new_ones_have_them(state):
    state.choose_source("table, laptop")
    state.choose_task("SYS-2(1,2)")
    state.choose_figure("seeds")
    assert state.task == "SYS-2(1,2)", "this figure has the task too"
    state.choose_figure("q3_physics_shift")
    assert state.task == "SYS-1(1,5) to none, mild, medium, large"
    state.choose_source("table, smoke")
    assert (state.figure, state.task) == ("q1_downstream_data", "SYS-1(5,10)"), "the only figure of these results"


def test_a_choice_that_is_not_there_changes_nothing(state):
    before = dict(state.param.values())
    state.choose_source("elsewhere")
    state.choose_figure("unseen")
    state.choose_task("SYS-3(5,12)")
    state.choose_figure(None)
    state.open("nobody")
    assert dict(state.param.values()) == before


def test_views_hear_of_a_choice_once(state):
    heard = []
    state.param.watch(
        lambda *events: heard.append(sorted(event.name for event in events)), ["source", "figure", "task"]
    )
    state.choose_source("table, laptop")
    state.choose_figure("q3_physics_shift")
    assert heard == [["source"], ["figure", "task"]]


def test_another_picture_closes_the_run(state):
    state.open(next(iter(state.picture.records)))
    assert state.details is not None
    state.choose_task("SYS-2(1,2)")
    assert state.chosen is None
    assert state.details is None


# Addresses ------------------------------------------------------------------------------------------------------------


def test_an_address_brings_back_what_was_chosen(state):
    state.choose_source("table, laptop")
    state.choose_figure("q3_physics_shift")
    state.open(list(state.picture.records)[-1])
    again = StudiesState(state.sources)
    assert restore(again, dict(parse_qsl(query_of(state)))) == []
    assert query_of(again) == query_of(state)


def test_what_makes_no_sense_in_an_address_is_named_and_left_out(state):
    query = {"results": "elsewhere", "figure": "q9", "task": "SYS-2(1,2)", "run": "nobody", "utm": "x"}
    problems = restore(state, query)
    assert [problem.split(" in the address")[0] for problem in problems] == [
        "results=elsewhere", "figure=q9", "run=nobody",
    ]  # fmt: skip
    assert (state.task, state.chosen) == ("SYS-2(1,2)", None)
    assert "results=elsewhere&figure=q9&task=SYS-2(1,2)&run=nobody" in query_of(state), "the address stays"
    state.open(next(iter(state.picture.records)))
    assert "elsewhere" not in query_of(state)


@pytest.fixture(scope="module")
def offered():
    """What ships for the explore page."""
    return find_bundles()[0], shipped_results()


@pytest.mark.parametrize(
    ("values", "expected", "said"),
    [
        ({"task": "SYS-1(5,10)", "examples": 0}, ("poisson", "sys-1", 7.5, None), "by sys-1."),
        ({"task": "SYS-1(5,10)", "examples": 64}, ("poisson", "sys-1", 7.5, None), "No fine-tuning on 64 examples"),
        ({"task": "SYS-1(8,12)", "examples": 32}, ("poisson", "sys-1", 10, 32), "as many examples of this range"),
        ({"task": "SYS-1(8,12)", "shipped_parent": None}, ("poisson", "sys-1", 10, None), "is not among those"),
        (
            {"task": "FRAC(0.5,2)", "shipped_parent": "symbol"},
            ("fractional_laplacian", "symbol", 1.25, None),
            "by symbol.",
        ),
    ],
)
def test_a_run_leads_to_the_explore_page_at_its_physics(offered, values, expected, said):
    record = next(r for r in records_of("q1_downstream_data") if r["shipped_parent"] == "sys-1")
    query, words = explore_query(record | values, *offered)
    there = ExploreState(offered[0], kept=offered[1])
    assert link.restore(there, dict(parse_qsl(query))) == []
    examples = there.current and there.current.settings.examples
    assert (there.system_name, there.bundle_name, there.dial, examples) == expected
    assert said in words


# What it shows, in words ----------------------------------------------------------------------------------------------


def test_the_sentence_is_computed_from_the_records_that_are_drawn():
    records = [r for r in records_of("seeds") if r["task"] == "SYS-1(5,10)"]
    for record in records:
        record["error"] = (0.01 if record["start"] == "fine-tuned" else 0.03) * (1 + 0.1 * record["seed"])
    state = state_over(records)
    words = said(state.picture)
    assert "in equal steps, training from scratch has 3 times the error of fine-tuning" in words
    assert "it takes at least" in words
    assert "medians of 5 seeds, whose ranges do not overlap" in words
    for record in records:
        record["error"] = 0.02 * (1 + 0.1 * record["seed"])
    assert "has 1 times the error" in said(state_over(records).picture)
    assert "whose ranges overlap in 1" in said(state_over(records).picture)
    untrained = next(row for row in rows_of(state.picture) if not row[3])
    assert (untrained[1], untrained[6]) == ("zero-shot", None), "not fine-tuned, and in no steps"
    alone = [r for r in records if not r["seed"] or r["examples"] < 9][:4]
    assert said(state_over(alone).picture) == "The lowest error is 2 %: zero-shot."


def test_own_runs_lie_over_those_that_ship_and_are_told_apart(places, monkeypatch):
    folder, runs = places
    records = [r for r in records_of("q1_downstream_data") if r["recipe"] == "dimensionless"]
    shipped = write_table(records, runs / "laptop.csv")
    monkeypatch.setattr("explorer.studies.records.shipped_tables", lambda: {"laptop": shipped})
    own = [r | {"error": 2 * r["error"]} for r in records if r["task"] == "SYS-2(1,2)" and r["start"] == "fine-tuned"]
    for record in own:
        (folder / f"{record['identity']}.json").write_text(json.dumps(record))
    state = StudiesState(find_sources(runs)[0])
    state.choose_source(f"{folder}, laptop")
    assert set(state.pictures["q1_downstream_data"]) == {"SYS-2(1,2)"}
    (chart,) = state.picture.charts
    assert names(chart) == ["fine-tuned", "fine-tuned, yours", "from scratch"]
    assert {row[1] for row in rows_of(state.picture) if row[3]} == set(names(chart))
    marks = Studies(state).charts._drawn[0].data
    assert {marks["mark"][marks["identity"].index(r["identity"])] for r in own if r["examples"]} == {"diamond"}


# One run --------------------------------------------------------------------------------------------------------------


def opened(records, **values):
    """Details of the one drawn run of the first seed with these values."""
    state = state_over(records)
    values = {"seed": 0} | values
    (record,) = (r for r in state.picture.records.values() if all(r.get(k) == v for k, v in values.items()))
    state.open(record["identity"])
    return record, state.details


def test_details_have_every_parameter():
    values = {"start": "fine-tuned", "examples": 64, "recipe": "dimensionless"}
    record, details = opened([r | {"note": "beside"} for r in records_of("q1_downstream_data")], **values)
    rows = {name: value for section in details.sections.values() for name, value in section}
    assert details.identity == record["identity"]
    assert details.title == "SYS-1(5,10), fine-tuned, 64 examples"
    assert rows["test, mean"] == f"{record['error']:.3%}".replace("%", " %")
    chosen = BUDGETS["laptop"].of("q1_downstream_data")
    assert rows["steps"] == str(chosen.steps_for(64))
    assert rows["trained on turned examples"] == ("yes" if chosen.symmetries else "no")
    assert rows["examples seen"] == "256,000"
    assert rows["ships as"] == "sys-1"
    assert rows["hardware"] == "a test machine"
    assert rows["versions"] == "sciml_fm 0.1.0, torch 2.11.0"
    assert rows["resolution (from, points)"] == ", ".join(f"{at:.0%}: {n}" for at, n in chosen.resolution)
    assert rows["note"] == "beside"
    tried = dict(details.sections["Learning rates tried, with validation error"])
    assert {float(name.removesuffix("  (chosen)")) for name in tried} == set(chosen.learning_rates)
    assert sum(name.endswith("  (chosen)") for name in tried) == 1
    assert details.curve == tuple(map(tuple, record["curve"]))
    assert len(rows) >= len(record) - len(("tried", "curve", "identity"))


def test_details_name_the_notebook_and_the_command_that_repeats_the_run():
    _, details = opened(records_of("q1_downstream_data"), start="fine-tuned", examples=64, recipe="dimensionless")
    assert details.notebook == "notebooks/q1_downstream_data.ipynb"
    assert (Path(__file__).parent.parent / details.notebook).is_file()
    assert details.command.startswith(
        "papermill notebooks/q1_downstream_data.ipynb out.ipynb -p budget laptop -p rerun"
    )
    assert "-p folder runs/repeated" in details.command, "what is in the first folder would not be computed again"


def test_a_run_without_training_has_no_curve():
    _, details = opened(records_of("q1_downstream_data"), start="fine-tuned", examples=0, recipe="dimensionless")
    assert details.title.endswith("no examples")
    assert details.curve == ()
    assert not any("tried" in name for name in details.sections)


def test_a_run_of_no_budget_is_repeated_in_python():
    records = [record | {"test": 7} for record in records_of("q1_downstream_data")]
    record, details = opened(records, start="from scratch", examples=64, recipe="dimensionless")
    run = next(node for node in ast.walk(ast.parse(details.command)) if getattr(node, "targets", None))
    values = {keyword.arg: ast.literal_eval(keyword.value) for keyword in run.value.keywords}
    repeated = runs.AdaptationRun(ast.literal_eval(run.value.args[0]), **values)
    assert repeated.parent == "sys-1"
    assert (repeated.task, repeated.examples, repeated.test) == (record["task"], 64, 7)
    assert hash(repeated), "lists became tuples"


def test_every_notebook_named_is_there():
    folder = Path(__file__).parent.parent / "notebooks"
    assert all((folder / f"{figure.notebook}.ipynb").is_file() for figure in FIGURES.values() if figure.notebook)
    assert [key for key in FIGURES if key != OTHERS] == list(EXPERIMENTS)


def test_trainings_that_take_other_steps_than_the_budget_stand_apart():
    """As the headline's, from scratch for longer: on one curve with the others they would look like its points."""
    records = records_of("q1_downstream_data")
    longer = [record | {"identity": "longer", "steps": 10_000} for record in records[:1]]
    sources = {source.name: source for source in split_by_settings("table", [*records, *longer])}
    assert [record["identity"] for record in sources["table, own settings"].records] == ["longer"]
    assert {record["identity"] for record in sources["table, laptop"].records} == {r["identity"] for r in records}


# What is drawn --------------------------------------------------------------------------------------------------------


def test_the_validation_curve_is_drawn_by_step():
    record, state = records_of("q1_downstream_data")[1], state_over(records_of("q1_downstream_data"))
    page = Studies(state)
    state.open(record["identity"])
    (line, _) = page.details.curve.object.renderers
    drawn = zip(*(line.data_source.data[name] for name in ("step", "validation error")), strict=True)
    assert list(map(list, drawn)) == record["curve"]


def test_colours_mean_the_same_on_both_pages():
    page = Studies(state_over(records_of("seeds")))
    columns = page.charts._drawn[0].data
    points = zip(columns["start"], columns["number"], columns["colour"], strict=True)
    found = {start if number or start == "from scratch" else "zero-shot": colour for start, number, colour in points}
    shown = {prediction.name.lower(): prediction.color for prediction in PREDICTIONS.values()}
    assert shown == found
    assert shown == {name: shades[0] for name, shades in MEANING.items()}


def test_folders_that_the_environment_names_begin_at_home(tmp_path, monkeypatch):
    """Like reports that a tilde in an environment variable, which no shell expands, named a folder ~."""
    monkeypatch.setenv("HOME", str(tmp_path))
    for variable in (FOLDER_VARIABLE, RECORDS_VARIABLE, VARIABLE):
        monkeypatch.setenv(variable, "~/mine")
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "own.yaml").write_text("- nothing")
    assert user_folder() == records_folder() == tmp_path / "mine"
    assert "lesson own.yaml" in find_lessons()[1][0]
