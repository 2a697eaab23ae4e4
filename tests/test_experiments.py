"""Experiments: each has the tasks, starts and examples of the paper, at every budget; what they share is one run."""

from dataclasses import replace

import pytest

from sciml_fm_core import Task, draw_split, load_operator, relative_error, shipped_operators
from sciml_fm_core.experiments.paper import (
    BUDGETS,
    EXPERIMENTS,
    LONGER,
    MIXTURE,
    PATIENCE,
    REPEATS,
    Budget,
    architectures,
    downstream_data,
    headline,
    mixed_operators,
    model_size,
    physics_shift,
    seeds,
    unseen,
)
from sciml_fm_core.experiments.physics_loss import EquationRun, physics_loss
from sciml_fm_core.models.operator import read_header
from sciml_fm_core.study import registry as registry_module
from sciml_fm_core.study.records import read_table, shipped_tables, write_table
from sciml_fm_core.study.registry import find_experiment, results
from sciml_fm_core.study.runs import PretrainingRun, identity, run_study

TRAINED = {1: "SYS-1(1,5)", 2: "SYS-2(0.2,1)", 3: "SYS-3(1,10)"}
ALL_THREE = "SYS-1(1,5) + SYS-2(0.2,1) + SYS-3(1,10)"
SHIFTS = {
    1: {"none": "SYS-1(1,2.5)", "mild": "SYS-1(2.5,7.5)", "medium": "SYS-1(5,10)", "large": "SYS-1(10,20)"},
    2: {"none": "SYS-2(0.2,0.4)", "mild": "SYS-2(0.4,1.6)", "medium": "SYS-2(1,2)", "large": "SYS-2(2,5)"},
    3: {"none": "SYS-3(1,5)", "medium": "SYS-3(5,12)"},
}
PAPER_EXAMPLES = (8, 16, 32, 64, 128, 256, 512, 1024, 2048, 4096, 8192, 16384, 32768)
PAPER_RATES = (1e-5, 5e-5, 1e-4, 5e-4, 1e-3)
COVERED = ("q1_downstream_data", "q2_model_size", "q3_physics_shift", "q4_mixed_operators", "seeds", "architectures")
"""Experiments whose records ship."""
BOTH, TUNED = ("fine-tuned", "from scratch"), ("fine-tuned",)


@pytest.fixture(params=BUDGETS)
def budget(request):
    """Name of each budget."""
    return request.param


def parent_of(run):
    """Tasks, recipe and size of the operator that a run begins with; of one that ships, from its card."""
    if isinstance(run.parent, PretrainingRun):
        return run.parent.tasks, run.parent.recipe, run.parent.size
    card = read_header(shipped_operators()[run.parent]).card
    return " + ".join(card["tasks"]), card["recipe"], card["size"]


def points(runs):
    """What a figure shows, each point of it once."""
    found = [(*parent_of(run), run.task, run.start, run.examples, run.seed) for run in runs]
    assert len(set(found)) == len(found)
    return set(found)


def grid(tasks, task, starts, examples, recipe="dimensionless", size="1M", seed=0):
    """Points of a curve from each start, with zero-shot and untrained."""
    return {(tasks, recipe, size, task, start, count, seed) for start in starts for count in (0, *examples)}


# Grids ----------------------------------------------------------------------------------------------------------------


def test_question_1(budget):
    """Several seeds of the specialists, but for the most examples."""
    chosen, expected = BUDGETS[budget], set()
    for seed in chosen.seeds[:REPEATS]:
        examples = chosen.other_examples if seed else chosen.examples
        expected |= grid(TRAINED[1], "SYS-1(5,10)", BOTH, examples, seed=seed)
        expected |= grid(TRAINED[1], "SYS-1(5,10)", BOTH, examples, recipe="paper", seed=seed)
        expected |= grid(TRAINED[2], "SYS-2(1,2)", BOTH, examples, seed=seed)
    for task in ("SYS-1(5,10)", "SYS-2(1,2)"):
        expected |= grid(ALL_THREE, task, BOTH, BUDGETS[budget].other_examples, recipe="symbol")
    assert points(downstream_data(budget)) == expected


def test_question_2(budget):
    chosen = BUDGETS[budget]
    runs = model_size(budget)
    expected = [
        grid(TRAINED[system], SHIFTS[system]["medium"], BOTH, chosen.other_examples, size=size)
        for system in (1, 2)
        for size in chosen.sizes
    ]
    assert points(runs) == set.union(*expected)
    parents = {run.parent for run in runs}
    assert len(parents) == 2 * len(chosen.sizes)
    assert len({replace(parent, size="") for parent in parents}) == 2  # equal but for system and size
    assert {parent.steps for parent in parents} == {chosen.pretraining_steps}


def test_question_3(budget):
    chosen = BUDGETS[budget]
    expected = [
        grid(TRAINED[system], task, BOTH, chosen.examples if shift == "medium" else chosen.other_examples)
        for system in (1, 2)
        for shift, task in SHIFTS[system].items()
    ]
    expected += [grid(ALL_THREE, task, TUNED, (), "symbol") for system in (1, 2) for task in SHIFTS[system].values()]
    expected += [grid(TRAINED[1], task, TUNED, (), "paper") for task in SHIFTS[1].values()]
    assert len(expected) == 20
    assert points(physics_shift(budget)) == set.union(*expected)


def test_question_4(budget):
    expected = set()
    for system, trained in TRAINED.items():
        for shift in ("none", "medium"):
            task, examples = SHIFTS[system][shift], BUDGETS[budget].few_examples
            expected |= grid(trained, task, BOTH, examples) | grid(ALL_THREE, task, TUNED, examples)
            expected |= grid(ALL_THREE, task, TUNED, (), "symbol")
    runs = mixed_operators(budget)
    assert points(runs) == expected
    assert {run.task for run in runs} == {
        "SYS-1(1,2.5)", "SYS-2(0.2,0.4)", "SYS-3(1,5)", "SYS-1(5,10)", "SYS-2(1,2)", "SYS-3(5,12)",
    }  # fmt: skip
    assert MIXTURE == ALL_THREE


def test_seeds(budget):
    chosen = BUDGETS[budget]
    expected = [
        grid(TRAINED[system], SHIFTS[system]["medium"], BOTH, chosen.few_examples, seed=seed)
        for system in (1, 2)
        for seed in chosen.seeds
    ]
    assert points(seeds(budget)) == set.union(*expected)
    assert len(chosen.seeds) > 1


def test_unseen(budget):
    chosen, expected = BUDGETS[budget], set()
    size = "1M" if "1M" in chosen.sizes else "64K"
    for held_out in TRAINED.values():
        others = " + ".join(tasks for tasks in TRAINED.values() if tasks != held_out)
        for recipe in ("symbol-composed", "symbol", "dimensionless"):
            for seed in chosen.seeds[: REPEATS if recipe == "symbol-composed" else 1]:
                expected |= grid(others, held_out, BOTH, chosen.few_examples, recipe, size, seed)
    for task in ("FRAC(0.5,2)", "SCREENED(0.1,5)", "BIHARM(0,5)"):
        expected |= grid(ALL_THREE, task, BOTH, chosen.few_examples, recipe="symbol")
    everything = unseen(budget)
    longer = [run for run in everything if getattr(run.parent, "steps", 0) > chosen.pretraining_steps]
    runs = [run for run in everything if run not in longer]
    assert points(runs) == expected
    others = f"{TRAINED[1]} + {TRAINED[2]}"
    assert points(longer) == set.union(
        *(
            grid(others, TRAINED[3], TUNED, chosen.few_examples, "symbol-composed", size, seed)
            for seed in chosen.seeds[:REPEATS]
        )
    )
    assert {run.parent.steps for run in longer} == {LONGER * chosen.pretraining_steps}
    own = [run for run in runs if run.task in TRAINED.values()]
    assert {run.parent.steps for run in own} == {chosen.pretraining_steps}
    for run in own:  # told coefficients, it has inputs for those of the third equation
        assert run.parent.inputs_for == (run.task if run.parent.recipe == "dimensionless" else "")


def test_headline(budget):
    """Every curve has the same points, and those with symmetries several seeds of all but the most."""
    chosen, task, runs = BUDGETS[budget], "SYS-1(5,10)", headline(budget)
    for recipe, start, symmetries in (
        ("paper", "fine-tuned", False),
        ("dimensionless", "fine-tuned", False),
        ("dimensionless", "fine-tuned", True),
        ("dimensionless", "from scratch", True),
    ):
        found = [
            run for run in runs
            if (parent_of(run)[1], run.start, run.symmetries) == (recipe, start, symmetries)
            if run.steps == chosen.steps_for(run.examples)
        ]  # fmt: skip
        expected = grid(TRAINED[1], task, (start,), chosen.examples, recipe)
        for seed in chosen.seeds[1:REPEATS] if symmetries else ():
            expected |= grid(TRAINED[1], task, (start,), chosen.other_examples, recipe, seed=seed)
        assert points(found) == expected
    assert len({identity(run) for run in runs}) == len(runs)
    told = [run for run in runs if parent_of(run)[1] == "symbol"]
    assert points(told) == grid(ALL_THREE, task, TUNED, (), "symbol")
    longer = [run for run in runs if run.steps > chosen.steps_for(run.examples)]
    assert {(run.start, run.steps) for run in longer} <= {
        ("from scratch", PATIENCE * chosen.steps_for(count)) for count in chosen.examples
    }
    if budget == "laptop":
        assert [(run.examples, run.seed) for run in longer] == [(n, seed) for seed in (0, 1, 2) for n in (64, 512)]


def test_what_ships_covers_the_experiments_of_its_budget():
    tables = shipped_tables()
    assert tables
    for name, path in tables.items():
        known = {record["identity"] for record in read_table(path)}
        budget, _, measured = name.partition("-")
        for experiment in (measured,) if measured else (*COVERED, "headline"):
            missing = [run for run in find_experiment(experiment)(budget) if identity(run) not in known]
            assert not missing, f"{experiment} at budget {budget} lacks {len(missing)} records"


def test_no_shipped_record_of_fine_tuning_is_worse_than_its_start_on_validation():
    """The untouched start is measured again on the validation examples that each run chose on."""
    found = [record for record in read_table(shipped_tables()["laptop"]) if record["shipped_parent"]]
    found = [record for record in found if record["start"] == "fine-tuned" and record["examples"]]
    starts = {}
    for record in found:
        name, label = record["shipped_parent"], record["task"]
        if (name, label) not in starts:
            task, n = Task.parse(label), record["test_resolution"]
            held_out = draw_split(task, "validation", record["validation"], seed=0, resolution=n)
            prediction = load_operator(name).predict(held_out.source, held_out.coefficients, task.system)
            starts[name, label] = relative_error(prediction, held_out.solution).mean().item()
        start = starts[name, label]
        assert record["validation_error"] <= start * (1 + 1e-4), (record["identity"], start)
    assert len(found) > 80
    assert len(starts) > 15


def test_points_that_figures_share_are_one_run(budget):
    names = {name: {identity(run) for run in make(budget)} for name, make in EXPERIMENTS.items()}
    medium = {
        identity(run) for run in downstream_data(budget)
        if not run.seed
        if parent_of(run)[1:] == ("dimensionless", "1M")
        or (parent_of(run)[1] in ("paper", "symbol") and run.start == "fine-tuned" and not run.examples)
    }  # fmt: skip
    assert len(medium) == 4 * (1 + len(BUDGETS[budget].examples)) + 3
    assert names["q1_downstream_data"] & names["q3_physics_shift"] == medium
    in_q4 = {
        identity(run) for run in mixed_operators(budget)
        if run.task in ("SYS-1(5,10)", "SYS-2(1,2)") and parent_of(run)[0] != ALL_THREE
    }  # fmt: skip
    assert len(in_q4) == 4 * (1 + len(BUDGETS[budget].few_examples))
    told = {
        identity(run) for run in mixed_operators(budget)
        if run.task in ("SYS-1(5,10)", "SYS-2(1,2)") and parent_of(run)[1] == "symbol"
    }  # fmt: skip
    assert names["q1_downstream_data"] & names["q4_mixed_operators"] == in_q4 | told
    first = {identity(run) for run in seeds(budget) if run.seed < REPEATS}
    assert names["q1_downstream_data"] & names["seeds"] == first
    assert first


# Budgets --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("experiment", EXPERIMENTS)
def test_unknown_budgets_are_refused(experiment):
    with pytest.raises(ValueError, match="budget: expected one of smoke, laptop, gpu, paper, got 'huge'"):
        EXPERIMENTS[experiment]("huge")


def test_the_papers_own_budget():
    runs = [run for make in EXPERIMENTS.values() if make is not architectures for run in make("paper")]
    assert sorted({run.examples for run in downstream_data("paper")}) == [0, *PAPER_EXAMPLES]
    assert sorted({run.examples for run in model_size("paper")}) == [0, *PAPER_EXAMPLES]
    assert {run.learning_rates for run in runs} == {PAPER_RATES}
    assert {run.batch_size for run in runs} == {128}
    assert {run.resolution for run in runs} == {((0.0, 128),)}
    assert {(run.validation, run.test, run.test_resolution) for run in runs} == {(4096, 4096, 128)}
    for run in runs:
        if run.examples:
            steps_per_epoch = -(-run.examples // 128)
            assert run.steps == 500 * steps_per_epoch, run.examples
    assert {run.parent.size for run in model_size("paper")} == {"64K", "1M", "16M", "256M"}
    parents = {run.parent for run in runs}
    assert all(isinstance(parent, PretrainingRun) for parent in parents)  # none that ships: trained as the paper's
    steps = 500 * 32768 // 128
    assert {(parent.steps, parent.batch_size) for parent in parents} == {(steps, 128), (LONGER * steps, 128)}
    assert {run.task for run in runs if run.parent.steps > steps} == {TRAINED[3]}
    assert {run.seed for run in seeds("paper")} == {0, 1, 2, 3, 4}


def test_budgets_set_the_runs(budget):
    for name, make in EXPERIMENTS.items():
        chosen = BUDGETS[budget].of(name)
        for run in make(budget):
            assert (run.learning_rates, run.resolution) == (chosen.learning_rates, chosen.resolution)
            # the headline compares with and without; the paper's recipe is as published
            assert run.symmetries == chosen.symmetries or name == "headline" or parent_of(run)[1] == "paper"
            assert (run.validation, run.test, run.test_resolution, run.batch_size) == (
                chosen.validation, chosen.test, chosen.test_resolution, chosen.batch_size,
            )  # fmt: skip
            assert run.steps == min(steps for most, steps in chosen.steps if run.examples <= most)


def test_both_starts_have_equal_trials(budget):
    for make in EXPERIMENTS.values():
        trials = {}
        for run in make(budget):
            trials.setdefault((run.parent, run.task, run.examples, run.seed, run.symmetries), {})[run.start] = (
                run.learning_rates, run.steps,
            )  # fmt: skip
        assert all(len(set(by_start.values())) == 1 for by_start in trials.values())


def test_steps_by_examples():
    chosen = Budget((), (), (), ((8, 100), (64, 200)))
    assert [chosen.steps_for(count) for count in (0, 8, 9, 64, 65, 10**6)] == [100, 100, 200, 200, 200, 200]


# Running --------------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def tiny(small_operator, tmp_path_factory):
    """A budget of small operators and a step or two."""
    folder, parents = tmp_path_factory.mktemp("parents"), {}
    others = (TRAINED[1], "paper"), (ALL_THREE, "symbol")
    for tasks, recipe in (*others, *((tasks, "dimensionless") for tasks in (*TRAINED.values(), ALL_THREE))):
        kind = "dimensionless" if recipe == "dimensionless" else recipe
        operator = small_operator(*tasks.split(" + "), kind=kind, recipe=recipe)
        parents[tasks, recipe] = str(operator.save(folder / f"{len(parents)}.safetensors"))
    return Budget(
        (2, 3), (2,), (2,), ((2, 1), (3, 2)), (1e-3,), ((0.0, 16),), ("64K",), (0, 1), 2, 2, parents, 2, 4, 16, 2
    )  # fmt: skip


def test_smoke_budget_runs_from_what_ships(tmp_path):
    records = run_study([run for run in downstream_data("smoke") if run.task == "SYS-1(5,10)"], tmp_path / "study")
    assert {record["shipped_parent"] for record in records} == {"sys-1", "sys-1-paper", "symbol"}
    zero_shot, untrained = (
        next(
            r["error"] for r in records if r["start"] == start and not r["examples"] and r["recipe"] == "dimensionless"
        )
        for start in BOTH
    )
    assert zero_shot < 0.1 < untrained


def test_results_are_those_that_ship_where_they_cover_the_experiment(tiny, tmp_path, monkeypatch):
    monkeypatch.setitem(BUDGETS, "tiny", tiny)
    monkeypatch.setattr(registry_module, "shipped_tables", dict)
    made = results("seeds", "tiny", folder=tmp_path / "study")
    assert [record["identity"] for record in made] == [identity(run) for run in seeds(tiny)]
    marked = [record | {"error": 7.0} for record in reversed(made)]
    table = write_table(marked, tmp_path / "tiny.csv")
    monkeypatch.setattr(registry_module, "shipped_tables", lambda: {"tiny": table})
    assert results("seeds", "tiny", folder=tmp_path / "none") == marked[::-1]
    assert not (tmp_path / "none").exists()
    assert results("seeds", "tiny", rerun=True, folder=tmp_path / "study") == made
    write_table(marked[1:], table)  # one is missing
    assert results("seeds", "tiny", folder=tmp_path / "study") == [*marked[:0:-1], made[-1]]
    with pytest.raises(ValueError, match=r"experiment: expected one of .*q1_downstream_data, .*, physics_loss.* 'q9'"):
        results("q9", "tiny")
    with pytest.raises(ValueError, match=r"budget: expected one of smoke, .*, got 'huge'"):
        results("seeds", "huge")


# Without labels -------------------------------------------------------------------------------------------------------


def test_learning_from_equations_alone(budget):
    chosen, runs = BUDGETS[budget], physics_loss(budget)
    assert len(set(map(identity, runs))) == len(runs)
    for system, parent in ((1, "sys-1"), (2, "sys-2")):
        windows = [SHIFTS[system][shift] for shift in ("none", "medium", "large")]
        own = [run for run in runs if run.task in SHIFTS[system].values()]
        trained = {(run.task, run.loss, run.easiest) for run in own if not run.parent}
        expected = {(task, loss, "") for task in windows for loss in ("residual", "physics", "relative")}
        assert trained == expected | {(windows[-1], loss, windows[0]) for loss in ("residual", "physics")}
        tuned = {(run.task, run.loss, run.parent, run.steps) for run in own if run.parent}
        assert tuned == {
            (windows[1], loss, parent, steps) for loss in ("residual", "physics") for steps in chosen.tuning_steps
        }
        alike = {(run.steps, run.size, run.resolution, run.learning_rate) for run in own if not run.parent}
        assert alike == {(chosen.equation_steps, chosen.equation_size, ((0.0, 32),), 5e-3)}
    assert {(run.validation, run.test, run.batch_size) for run in runs} == {
        (chosen.validation, chosen.test, chosen.batch_size)
    }


def test_records_of_learning_from_equations_alone(tmp_path):
    shared = {"steps": 3, "batch_size": 2, "validation": 2, "test": 4, "test_resolution": 32}
    runs = [
        EquationRun("SYS-1(5,10)", "physics", size="64K", easiest="SYS-1(1,5)", **shared),
        EquationRun("SYS-1(5,10)", "relative", size="64K", **shared),
        EquationRun("SYS-1(5,10)", "physics", "sys-1", size="", learning_rate=1e-12, **shared),
    ]
    blind, labelled, tuned = records = run_study(runs, tmp_path / "study")
    assert [record["labels"] for record in records] == [0, 6, 0]
    assert [record["identity"] for record in records] == [identity(run) for run in runs]
    assert all(record["kind"] == "equation" and record["cpu_seconds"] > 0 for record in records)
    assert blind["error_before"] is labelled["error_before"] is None
    assert tuned["error"] == pytest.approx(tuned["error_before"], rel=1e-3)
    assert tuned["error"] < 0.1 < blind["error"]
    assert blind["validation_loss"] != pytest.approx(blind["error"], rel=1e-5)
    before = (tmp_path / "study" / f"{identity(runs[0])}.json").read_bytes()
    assert run_study(runs, tmp_path / "study") == records
    assert (tmp_path / "study" / f"{identity(runs[0])}.json").read_bytes() == before
    with pytest.raises(ValueError, match="loss: expected one of"):
        EquationRun("SYS-1(5,10)", "none")
    with pytest.raises(ValueError, match=r"expected a shipped operator or the path of a bundle as parent, got 'none'"):
        run_study([EquationRun("SYS-1(5,10)", "physics", "none")], tmp_path / "study")


def test_results_from_equations_alone_ship_in_a_table_of_their_own(tmp_path, monkeypatch):
    runs = physics_loss("smoke")
    table = write_table([{"identity": identity(run), "error": 0.5} for run in runs], tmp_path / "table.csv")
    monkeypatch.setattr(registry_module, "shipped_tables", lambda: {"smoke-physics_loss": table})
    found = results("physics_loss", "smoke", folder=tmp_path / "none")
    assert [record["identity"] for record in found] == [identity(run) for run in runs]
    assert not (tmp_path / "none").exists()
