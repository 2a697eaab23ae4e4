"""Studies: a run is known by its configuration, done once, resumed when killed, and its record holds what it claims."""

import contextlib
import functools
import json
import math
import os
import signal
import subprocess
import sys
import time
from dataclasses import fields, replace
from pathlib import Path

import pytest
import torch

from sciml_fm_core import Task, TrainConfig, draw_split, evaluate, fine_tune, load_operator, train_from_scratch
from sciml_fm_core.study import runs as study_module
from sciml_fm_core.study.analysis import examples_to_reach, savings
from sciml_fm_core.study.engine import GridProgress
from sciml_fm_core.study.records import read_record, read_table, write_record, write_table
from sciml_fm_core.study.runs import AdaptationRun, PretrainingRun, identity, run_study
from sciml_fm_core.training.recipes import PAPER_LEARNING_RATES

ROOT = Path(__file__).resolve().parent.parent
FAR = Task.parse("SYS-1(5,10)")
PRETRAINING = PretrainingRun("SYS-1(1,5)", size="64K", steps=2, batch_size=4, resolution=((0.0, 16),))
TIMINGS = ("seconds", "total_seconds", "pretraining_seconds")
ERRORS = ("error", "median", "percentile_90")


@pytest.fixture(scope="module")
def bundle(small_operator, tmp_path_factory):
    """Path of a small operator that stands for a pre-trained one."""
    return str(small_operator().save(tmp_path_factory.mktemp("parent") / "tiny.safetensors"))


@pytest.fixture(scope="module")
def quick(bundle):
    """Function making a run of a fraction of a second."""
    settings = {
        "parent": bundle, "task": FAR.label, "start": "fine-tuned", "examples": 4, "steps": 6, "batch_size": 4,
        "learning_rates": (1e-9, 1e-2), "resolution": ((0.0, 16),), "validation": 4, "test": 8,
        "test_resolution": 16,
    }  # fmt: skip
    return lambda **changes: AdaptationRun(**{**settings, **changes})


@pytest.fixture
def executed(monkeypatch):
    """What was trained or measured from now on, in order."""
    calls = []
    measure, pretrain = study_module.adapt_and_measure, study_module.pretrain
    monkeypatch.setattr(study_module, "adapt_and_measure", lambda run, *a: calls.append(run) or measure(run, *a))
    monkeypatch.setattr(study_module, "pretrain", lambda *a, **k: calls.append("pretraining") or pretrain(*a, **k))
    return calls


def contents(folder):
    """Bytes and time of change of every file."""
    return {path.name: (path.read_bytes(), path.stat().st_mtime_ns) for path in Path(folder).iterdir()}


def timeless(records):
    return [{key: value for key, value in record.items() if key not in TIMINGS} for record in records]


def errors_of(operator, examples):
    prediction = operator.predict(examples.source, examples.coefficients).double()
    difference, solution = prediction - examples.solution.double(), examples.solution.double()
    return difference.square().sum(dim=(1, 2)).sqrt() / solution.square().sum(dim=(1, 2)).sqrt()


class Killed(Exception):
    """The end of a process, as far as a test in the same one can have it."""


# Identity -------------------------------------------------------------------------------------------------------------

CHANGES = {
    PretrainingRun: {
        "tasks": "SYS-1(1,6)", "recipe": "paper", "size": "256K", "seed": 1, "steps": 3, "batch_size": 5,
        "resolution": ((0.0, 32),), "architecture": "unet", "inputs_for": "SYS-2(0.2,1)", "fixed_examples": 8,
    },
    AdaptationRun: {
        "parent": PRETRAINING, "task": "SYS-1(2,3)", "start": "from scratch", "examples": 5, "seed": 1, "steps": 7,
        "batch_size": 5, "learning_rates": (1e-9, 2e-2), "resolution": ((0.0, 16), (0.5, 32)),
        "validation": 5, "test": 9, "test_resolution": 32, "symmetries": True,
    },
}  # fmt: skip


@pytest.mark.parametrize("kind", CHANGES)
def test_identity_changes_with_every_field(quick, kind):
    run = PRETRAINING if kind is PretrainingRun else quick()
    assert set(CHANGES[kind]) == {field.name for field in fields(kind) if field.init}, (
        "give the new field another value here"
    )
    changed = [identity(replace(run, **{name: value})) for name, value in CHANGES[kind].items()]
    assert len({identity(run), *changed}) == 1 + len(changed)
    assert all(len(name) == 16 and int(name, 16) >= 0 for name in changed)
    assert identity(replace(run)) == identity(run)


def test_identity_is_of_the_parents_weights_not_of_its_name(quick, bundle, small_operator, tmp_path, monkeypatch):
    first = identity(quick())
    copied = tmp_path / "renamed.safetensors"
    copied.write_bytes(Path(bundle).read_bytes())
    assert identity(quick(parent=str(copied))) == first
    monkeypatch.chdir(tmp_path)
    assert identity(quick(parent="renamed.safetensors")) == first
    operator = load_operator(bundle)
    operator.card["command"] = "another one"
    operator.save(copied)
    assert identity(quick(parent=str(copied))) == first, "neither of its file nor of all that its card tells"
    with torch.no_grad():
        operator.model.lift.weight[0, 0] += 1e-3
    operator.save(copied)
    assert identity(quick(parent=str(copied))) != first


def test_identity_is_of_the_parents_configuration_where_the_study_trains_it(quick):
    first = identity(quick(parent=PRETRAINING))
    for name, value in CHANGES[PretrainingRun].items():
        assert identity(quick(parent=replace(PRETRAINING, **{name: value}))) != first, name


def test_identity_is_of_the_numbers_and_not_of_the_version(quick, monkeypatch):
    """Like reports of caches that every release of a library empties, though nothing that it computes has changed."""
    before = identity(PRETRAINING), identity(quick())
    monkeypatch.setattr("sciml_fm_core._version.__version__", "99.0")
    assert (identity(PRETRAINING), identity(quick())) == before
    monkeypatch.setattr(study_module, "NUMBERS", 99)
    assert not {identity(PRETRAINING), identity(quick())} & {*before}


def test_identities_of_recorded_runs_stay(monkeypatch):
    """As they are without fields that came later, where those have their defaults."""
    monkeypatch.setattr(study_module, "_digest", lambda parent: "0" * 16)
    pretraining = PretrainingRun("SYS-1(1,5)")
    assert identity(pretraining) == "614e594c5f3ed073"
    run = AdaptationRun("sys-1", "SYS-1(5,10)", "fine-tuned", 64, learning_rates=PAPER_LEARNING_RATES)
    assert identity(run) == "5e9e6a1f8b7f4ecd"
    assert identity(replace(run, parent=pretraining)) == "e002d5a9e6ccc61f"


# Done once ------------------------------------------------------------------------------------------------------------


def test_a_study_done_twice_runs_nothing_again(quick, executed, tmp_path):
    runs = [quick(parent=PRETRAINING), quick(parent=PRETRAINING, examples=0), quick(start="from scratch")]
    seen = []
    first = run_study(runs, tmp_path / "study", callback=seen.append)
    assert executed == ["pretraining", *runs]
    assert [(progress.done, progress.total) for progress in seen] == [(i, 4) for i in range(5)]
    assert seen[0].seconds_left is None
    assert seen[-1].seconds_left == 0
    assert [record["identity"] for record in first] == [identity(run) for run in runs]
    before = contents(tmp_path / "study")
    assert set(before) == {f"{identity(run)}.json" for run in runs} | {f"{identity(PRETRAINING)}.safetensors"}

    executed.clear()
    seen.clear()
    assert run_study(runs, tmp_path / "study", callback=seen.append) == first
    assert seen == [GridProgress(4, 0, 4, None)]
    more = run_study([quick(test=4), *reversed(runs)], tmp_path / "study")  # a larger study does only what is new
    assert executed == [quick(test=4)]
    assert more[1:] == first[::-1]
    after = contents(tmp_path / "study")
    assert {name: after[name] for name in before} == before

    executed.clear()
    (tmp_path / "study" / f"{identity(PRETRAINING)}.safetensors").unlink()  # nothing that is missing starts from it
    assert run_study(runs, tmp_path / "study") == first
    assert not executed


def test_a_run_asked_for_twice_is_done_once(quick, executed, tmp_path):
    a, b = quick(examples=0), quick(examples=0, start="from scratch")
    records = run_study([a, b, replace(a)], tmp_path / "study")
    assert executed == [a, b]
    assert records[0] == records[2] != records[1]
    assert len(list((tmp_path / "study").glob("*.json"))) == 2


# Killed and resumed ---------------------------------------------------------------------------------------------------


def test_stopped_within_a_run_it_goes_on_without_repeating_any(quick, executed, tmp_path, monkeypatch):
    runs = [quick(seed=seed) for seed in range(4)]
    whole = run_study(runs, tmp_path / "whole")
    measured, statistics_of = [], study_module.statistics_of

    def kill_the_third(*arguments):
        measured.append(arguments)
        if len(measured) == 3:
            raise Killed
        return statistics_of(*arguments)

    monkeypatch.setattr(study_module, "statistics_of", kill_the_third)
    with pytest.raises(Killed):
        run_study(runs, tmp_path / "study")
    before = contents(tmp_path / "study")
    finished = {f"{identity(run)}.json" for run in runs[:2]}
    assert {name for name in before if name.endswith(".json")} == finished
    executed.clear()
    assert timeless(run_study(runs, tmp_path / "study")) == timeless(whole)
    assert executed == runs[2:]
    after = contents(tmp_path / "study")
    assert {name: after[name] for name in finished} == {name: before[name] for name in finished}
    assert set(after) == {f"{identity(run)}.json" for run in runs}  # no checkpoint is left behind


def test_an_unfinished_pretraining_goes_on_from_its_checkpoint(quick, tmp_path, monkeypatch):
    parent = replace(PRETRAINING, steps=8)
    run, bundle, steps = quick(parent=parent, examples=0), f"{identity(parent)}.safetensors", []
    often = functools.partial(TrainConfig, checkpoint_every=3, report_every=1)
    monkeypatch.setattr(study_module, "TrainConfig", often)
    pretrain = study_module.pretrain
    whole = run_study([run], tmp_path / "whole")

    def until(last):
        def callback(progress):
            steps.append(progress.step)
            if progress.step == last:
                raise Killed

        return lambda *arguments, **options: pretrain(*arguments, **options, callback=callback)

    monkeypatch.setattr(study_module, "pretrain", until(5))
    with pytest.raises(Killed):
        run_study([run], tmp_path / "study")
    assert steps == [1, 2, 3, 4, 5]
    assert not (tmp_path / "study" / bundle).exists()
    steps.clear()
    monkeypatch.setattr(study_module, "pretrain", until(None))
    assert timeless(run_study([run], tmp_path / "study")) == timeless(whole)
    assert steps == [4, 5, 6, 7, 8]
    weights = [load_operator(tmp_path / name / bundle).model.state_dict() for name in ("whole", "study")]
    assert all(torch.equal(value, weights[1][key]) for key, value in weights[0].items())
    assert set(contents(tmp_path / "study")) == {bundle, f"{identity(run)}.json"}


KILLED = """
import json, os, signal, sys
import torch
torch.set_num_threads(1)
from sciml_fm_core.study import runs as study

folder, *texts = sys.argv[1:]
runs = [study.AdaptationRun(**eval(text)) for text in texts]
print(json.dumps([study.identity(run) for run in runs]), flush=True)
draw, count = study.draw_split, 0
def last_words(task, split, *arguments, **options):
    global count
    count += split == "test"
    if count == 3:
        os.kill(os.getpid(), signal.SIGKILL)
    return draw(task, split, *arguments, **options)
study.draw_split = last_words
study.run_study(runs, folder)
"""


def test_a_killed_process_loses_no_finished_run(quick, executed, tmp_path):
    runs = [quick(examples=0, seed=seed) for seed in range(3)] + [quick(parent=PRETRAINING, examples=0)]
    texts = [f"dict({', '.join(f'{f.name}={getattr(run, f.name)!r}' for f in fields(run) if f.init)})" for run in runs]
    texts = [text.replace("PretrainingRun(", "study.PretrainingRun(") for text in texts]
    process = subprocess.run(
        [sys.executable, "-c", KILLED, str(tmp_path / "study"), *texts], capture_output=True, text=True, check=False,
        env=os.environ | {"PYTHONPATH": str(ROOT), "PYTHONHASHSEED": "7"}, cwd=tmp_path,
    )  # fmt: skip
    assert process.returncode == -signal.SIGKILL, process.stderr
    assert json.loads(process.stdout) == [identity(run) for run in runs]  # the same in every process
    left = contents(tmp_path / "study")
    before = {name: left[name] for name in left if not name.endswith(".lock")}  # that of the dead process blocks nobody
    assert set(before) == {f"{identity(run)}.json" for run in runs[:2]} | {f"{identity(PRETRAINING)}.safetensors"}
    run_study(runs, tmp_path / "study")
    assert executed == runs[2:]
    after = contents(tmp_path / "study")
    assert {name: after[name] for name in before} == before


def test_two_processes_make_the_same_records(quick, tmp_path):
    runs = [
        quick(parent=PRETRAINING),
        quick(parent=PRETRAINING, start="from scratch"),
        quick(learning_rates=(1e-4, 1e-3, 3e-3)),
        quick(examples=0),
    ]
    alone = run_study(runs, tmp_path / "one")
    seen = []
    together = run_study(runs, tmp_path / "two", processes=2, callback=seen.append)
    assert timeless(together) == timeless(alone)
    assert [progress.done for progress in seen] == list(range(6))
    assert contents(tmp_path / "two").keys() == contents(tmp_path / "one").keys()


@pytest.mark.skipif(not Path("/proc/self/cmdline").exists(), reason="needs the process list of Linux")
def test_a_killed_study_leaves_no_process_behind(quick, tmp_path):
    runs = [quick(seed=seed, steps=200) for seed in range(50)]
    code = (
        "import sys, json; from sciml_fm_core.study import AdaptationRun, run_study\n"
        "tuples = lambda v: tuple(map(tuples, v)) if isinstance(v, list) else v\n"
        "if __name__ == '__main__':\n"
        "    runs = [AdaptationRun(**{k: tuples(v) for k, v in r.items()}) for r in json.loads(sys.argv[1])]\n"
        "    run_study(runs, sys.argv[2], processes=2)\n"
    )
    (tmp_path / "study.py").write_text(code)
    settings = [{f.name: getattr(run, f.name) for f in fields(run) if f.init} for run in runs]
    arguments = [json.dumps(settings), str(tmp_path / "records")]
    process = subprocess.Popen(
        [sys.executable, str(tmp_path / "study.py"), *arguments], env=os.environ | {"PYTHONPATH": str(ROOT)}
    )

    def workers():
        """Processes that compute for this one."""
        found = []
        for path in Path("/proc").glob("[0-9]*"):
            with contextlib.suppress(OSError):
                parent = (path / "stat").read_text().rsplit(")", 1)[1].split()[1]
                if int(parent) == process.pid and "spawn_main" in (path / "cmdline").read_text():
                    found.append(path)
        return found

    def wait_for(condition):
        deadline = time.monotonic() + 300  # a hang, not slowness, is to end the test
        while not condition() and time.monotonic() < deadline:
            time.sleep(0.1)
        return condition()

    try:
        assert wait_for(lambda: len(workers()) == 2 and any((tmp_path / "records").glob("*.json")))
        spawned = workers()
    finally:
        process.kill()
        process.wait()
    assert wait_for(lambda: not any(path.exists() for path in spawned))
    assert 0 < len(list((tmp_path / "records").glob("*.json"))) < 50


def test_a_checkpoint_of_other_code_is_begun_again(quick, tmp_path):
    run, folder = quick(), tmp_path / "records"
    folder.mkdir()
    (folder / f"{identity(run)}.checkpoint").write_bytes(b"not a checkpoint")
    (record,) = run_study([run], folder)
    assert timeless([record]) == timeless(run_study([run], tmp_path / "clean"))
    assert not list(folder.glob("*.checkpoint"))


def test_a_failure_in_a_process_is_raised_here(quick, tmp_path):
    runs = [quick(examples=0), quick(examples=0, task="SYS-3(1,10)")]
    with pytest.raises(ValueError, match="was trained for poisson, got helmholtz"):
        run_study(runs, tmp_path / "study", processes=2)
    assert not (tmp_path / "study" / f"{identity(runs[1])}.json").exists()


# Records --------------------------------------------------------------------------------------------------------------


def test_zero_shot_record(quick, bundle, tmp_path):
    run = quick(examples=0, test=12)
    (record,) = run_study([run], tmp_path / "study")
    operator = load_operator(bundle)
    errors = errors_of(operator, draw_split(FAR, "test", 12, resolution=16)).sort().values
    assert record["error"] == pytest.approx(errors.mean().item(), rel=1e-5)
    assert record["error"] == evaluate(operator, FAR, count=12, resolution=16)["error"]
    assert errors[5] * (1 - 1e-5) <= record["median"] <= errors[6] * (1 + 1e-5)
    assert record["percentile_90"] == pytest.approx(torch.quantile(errors, 0.9).item(), rel=1e-5)
    assert (record["learning_rate"], record["tried"], record["curve"]) == (None, {}, [])
    assert record["parameters"] == sum(parameter.numel() for parameter in operator.model.parameters())
    assert (record["parent"], record["recipe"], record["size"]) == ("SYS-1(1,5)", "dimensionless", "tiny")
    assert record["identity"] == identity(run)
    assert read_record(tmp_path / "study" / f"{identity(run)}.json") == record


def test_untrained_record_is_where_training_from_scratch_begins(quick, bundle, tmp_path):
    records = run_study([quick(start="from scratch", examples=0, seed=seed) for seed in (0, 1)], tmp_path / "study")
    test, data = draw_split(FAR, "test", 8, resolution=16), draw_split(FAR, "train", 4, resolution=16)
    for record in records:
        barely = TrainConfig(steps=1, learning_rate=1e-12)
        untrained = train_from_scratch(load_operator(bundle), data, config=barely, seed=record["seed"]).operator
        assert record["error"] == pytest.approx(errors_of(untrained, test).mean().item(), rel=1e-4)
    assert records[0]["error"] != records[1]["error"]
    assert records[0]["error"] != pytest.approx(errors_of(load_operator(bundle), test).mean().item(), rel=1e-3)


@pytest.mark.parametrize("symmetries", [False, True])
@pytest.mark.parametrize("start", study_module.STARTS)
def test_adaptation_record(quick, bundle, tmp_path, start, symmetries):
    run = quick(
        start=start, examples=6, seed=3, steps=30, learning_rates=(1e-9, 1e-2, 1e-8), symmetries=symmetries
    )  # fmt: skip
    (record,) = run_study([run], tmp_path / "study")
    for field in fields(run):
        if field.name != "parent":
            assert record[field.name] == json.loads(json.dumps(getattr(run, field.name))), field.name
    assert record["tried"].keys() == {"1e-09", "0.01", "1e-08"}
    assert record["learning_rate"] == float(min(record["tried"], key=record["tried"].get)) == 1e-2
    assert record["validation_error"] <= record["tried"]["0.01"] == min(error for _, error in record["curve"])
    assert [step for step, _ in record["curve"]] == list(range(2, 31, 2))

    validation = draw_split(FAR, "validation", 4, resolution=16)
    again = (fine_tune if start == "fine-tuned" else train_from_scratch)(
        load_operator(bundle), draw_split(FAR, "train", 6, seed=3, resolution=16), validation=validation,
        config=TrainConfig(steps=30, validate_every=2), learning_rates=[1e-2], batch_size=4, seed=3,
        symmetries=symmetries,
    )  # fmt: skip
    assert (record["chosen_step"], record["interpolation"]) == (again.chosen_step, again.interpolation)
    assert record["validation_error"] == pytest.approx(errors_of(again.operator, validation).mean().item(), rel=1e-3)
    test = draw_split(FAR, "test", 8, resolution=16)
    assert record["error"] == pytest.approx(errors_of(again.operator, test).mean().item(), rel=1e-3)


def test_no_fine_tuned_record_is_worse_than_its_start_on_validation(quick, bundle, tmp_path):
    (record,) = run_study([quick(learning_rates=(1.0, 3.0))], tmp_path / "study")
    validation = draw_split(FAR, "validation", 4, resolution=16)
    untouched = errors_of(load_operator(bundle), validation).mean().item()
    assert min(record["tried"].values()) > untouched  # rates that ruin it
    assert record["validation_error"] == pytest.approx(untouched, rel=1e-5)
    assert (record["chosen_step"], record["interpolation"]) == (0, 0.0)
    (zero_shot,) = run_study([quick(examples=0)], tmp_path / "study")
    assert record["error"] == pytest.approx(zero_shot["error"], rel=1e-6)


def test_training_resolution_and_measuring_resolution_are_apart(quick, bundle, tmp_path, monkeypatch):
    drawn, draw = {}, draw_split

    def note(task, split, count, *, seed, resolution):
        drawn[split] = (count, seed, resolution)
        return draw(task, split, count, seed=seed, resolution=resolution)

    monkeypatch.setattr(study_module, "draw_split", note)
    run = quick(seed=5, resolution=((0.0, 16), (0.5, 24)), test_resolution=32)
    (record,) = run_study([run], tmp_path / "study")
    assert drawn == {"train": (4, 5, 24), "validation": (4, 0, 32), "test": (8, 0, 32)}
    (zero_shot,) = run_study([replace(run, examples=0)], tmp_path / "study")
    assert zero_shot["error"] == evaluate(load_operator(bundle), FAR, count=8, resolution=32)["error"]
    assert record["error"] != zero_shot["error"]


@pytest.mark.parametrize("start", study_module.STARTS)
def test_test_examples_decide_nothing_but_the_errors(quick, tmp_path, monkeypatch, start):
    run = quick(start=start)
    (record,) = run_study([run], tmp_path / "study")

    def other_test(task, split, count, *, seed, resolution):
        return draw_split(task, split, count, seed=seed + 1000 * (split == "test"), resolution=resolution)

    monkeypatch.setattr(study_module, "draw_split", other_test)
    (other,) = run_study([run], tmp_path / "other")
    assert {key for key in record if record[key] != other[key]} - set(TIMINGS) == set(ERRORS)


def test_record_of_an_operator_that_the_study_trained(quick, tmp_path):
    (record,) = run_study([quick(parent=PRETRAINING, examples=0)], tmp_path / "study")
    operator = load_operator(tmp_path / "study" / f"{identity(PRETRAINING)}.safetensors")
    assert operator.card["tasks"] == ["SYS-1(1,5)"]
    assert (record["size"], record["pretraining_examples"], record["pretraining_seed"]) == ("64K", 8, 0)
    assert record["parameters"] == operator.model.parameter_count
    assert record["shipped_parent"] is None
    test = draw_split(FAR, "test", 8, resolution=16)
    assert record["error"] == pytest.approx(errors_of(operator, test).mean().item(), rel=1e-5)


def test_a_mixed_operator_is_adapted_to_one_of_its_systems(quick, small_operator, tmp_path):
    mixed = str(small_operator("SYS-1(1,5)", "SYS-3(1,10)").save(tmp_path / "mixed.safetensors"))
    records = run_study([quick(parent=mixed, examples=count) for count in (0, 4)], tmp_path / "study")
    assert {record["parent"] for record in records} == {"SYS-1(1,5) + SYS-3(1,10)"}
    assert all(math.isfinite(record["error"]) for record in records)


# What records show ----------------------------------------------------------------------------------------------------


def curve(start, points):
    return [{"start": start, "examples": examples, "error": error} for examples, error in points]


def test_savings_are_read_off_the_curve_from_scratch():
    """From scratch error 1 / examples, so that the examples for an error are known between the points too."""
    scratch = curve("from scratch", [(0, 5.0), (8, 1 / 8), (32, 1 / 32), (64, 1 / 64)])
    tuned = curve("fine-tuned", [(8, 1 / 20), (0, 1 / 10), (64, 1 / 100), (32, 1 / 32), (2, 1 / 4)])
    found = savings([*tuned, *scratch])
    assert [(saving.examples, saving.error, saving.beyond) for saving in found] == [
        (0, 1 / 10, False), (2, 1 / 4, False), (8, 1 / 20, False), (32, 1 / 32, False), (64, 1 / 100, True),
    ]  # fmt: skip
    assert [saving.from_scratch for saving in found] == pytest.approx([10, 8, 20, 32, 64])
    for records in (tuned, scratch, scratch[:1] + tuned):
        with pytest.raises(ValueError, match="expected records of both starts"):
            savings(records)


def test_errors_without_a_logarithm_are_not_interpolated():
    scratch = curve("from scratch", [(8, float("inf")), (32, 0.1), (64, 0.0)])
    for error, count in ((0.2, 32), (0.0, 64)):
        assert savings([*scratch, *curve("fine-tuned", [(8, error)])])[0].from_scratch == count
        assert examples_to_reach(scratch, error) == count


def test_savings_count_more_examples_as_no_worse():
    scratch = curve("from scratch", [(8, 0.4), (16, 0.8), (32, 0.1)])
    (saving,) = savings([*scratch, *curve("fine-tuned", [(4, 0.2)])])
    assert saving.from_scratch == pytest.approx(16 * 2**0.5)  # half way between 0.4 at 16 and 0.1 at 32


def test_examples_to_reach_an_error():
    records = curve("fine-tuned", [(64, 1 / 64), (0, 2.0), (8, 1 / 8)])
    expected = {3.0: 0, 1.0: 8, 1 / 8: 8, 1 / 20: 20, 1 / 64: 64}
    assert {error: examples_to_reach(records, error) for error in expected} == pytest.approx(expected)
    assert examples_to_reach(records, 1 / 65) is None


# Bad input ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"start": "warm"}, "start: expected one of fine-tuned, from scratch, got 'warm'"),
        ({"task": "SYS-9(1,2)"}, "got 'SYS-9'"),
        ({"examples": -1}, "expected examples of at least 0"),
        ({"steps": 0}, "of at least 1"),
        ({"batch_size": 0}, "of at least 1"),
        ({"validation": 0}, "of at least 1"),
        ({"test": 0}, "of at least 1"),
    ],
)
def test_runs_that_make_no_sense(quick, changes, message):
    with pytest.raises(ValueError, match=message):
        quick(**changes)


def test_pretraining_that_makes_no_sense():
    with pytest.raises(
        ValueError,
        match=r"recipe: expected one of dimensionless, symbol, .*, correction, step, step-residual, got 'theirs'",
    ):
        PretrainingRun("SYS-1(1,5)", recipe="theirs")
    with pytest.raises(ValueError, match=r"expected SYSTEM\(low,high\)"):
        PretrainingRun("SYS-1")


def test_missing_folders_and_parents_are_told_before_anything_runs(quick, executed, tmp_path):
    with pytest.raises(ValueError, match=r"the folder .*no does not exist; make it first"):
        run_study([quick()], tmp_path / "no" / "study")
    with pytest.raises(ValueError, match="expected a shipped operator or the path of a bundle as parent, got 'sys-99'"):
        run_study([quick(), quick(parent="sys-99")], tmp_path / "study")
    assert executed == []


def test_damaged_and_foreign_records(quick, tmp_path):
    run = quick(examples=0)
    path = tmp_path / "study" / f"{identity(run)}.json"
    (record,) = run_study([run], path.parent)
    path.write_text(path.read_text()[:-20])
    for read in (lambda: read_record(path), lambda: run_study([run], path.parent)):
        with pytest.raises(ValueError, match=rf"{path.name}: not readable .*; remove it and run the study again"):
            read()
    path.unlink()
    with pytest.raises(ValueError, match="not readable"):
        read_record(path)
    assert timeless(run_study([run], path.parent)) == timeless([record])
    for text in ("[1, 2]", '{"temperature": 3}'):
        (path.parent / "foreign.json").write_text(text)
        with pytest.raises(ValueError, match=r"foreign\.json: a JSON file, but not a record of a study; move it"):
            read_record(path.parent / "foreign.json")


@pytest.mark.parametrize(
    ("old", "new", "told"),
    [
        ('"seed": 0', '"seed": 1', "damaged: its digest is not that of its contents"),
        ('"digest": ', '"was": ', "seed: expected a whole number, got '0'"),
        ('"seed": 0', '"seed": ' + "[" * 40 + "]" * 40, "expected at most 32 levels"),
        ('"seed": 0', '"seed": ' + "9" * 30, "expected whole numbers of at most 20 digits, got 30"),
        ('"seed": 0', '"seed": ' + "[" * 10**6, "got deeper ones"),
    ],
)
def test_records_are_not_believed(tmp_path, old, new, told):
    path = tmp_path / "a.json"
    write_record({"identity": "a", "seed": 0, "task": "SYS-1(1,5)"}, path)
    assert read_record(path) == {"identity": "a", "seed": 0, "task": "SYS-1(1,5)"}
    text = path.read_text().replace(old, new)
    path.write_text(text.replace('"seed": 0', '"seed": "0"') if old.startswith('"digest') else text)
    with pytest.raises(ValueError, match=rf"a\.json: .*{told}") as caught:
        read_record(path)
    assert "\n" not in str(caught.value)


# Tables ---------------------------------------------------------------------------------------------------------------


def test_tables_are_read_back_as_written(quick, tmp_path):
    records = run_study([quick(examples=count) for count in (0, 4)], tmp_path / "study")
    assert read_table(write_table(records, tmp_path / "table.csv")) == records
    assert [path.name for path in tmp_path.iterdir() if path.is_file()] == ["table.csv"]
    assert len((tmp_path / "table.csv").read_text().splitlines()) == 3
    write_table(records[:1], tmp_path / "table.csv")
    assert read_table(tmp_path / "table.csv") == records[:1]


def test_texts_of_a_table_stay_texts(tmp_path):
    """An identity may have no letters, or one that makes it a number."""
    records = [
        {"identity": name, "note": note, "value": value}
        for name, note, value in (
            ("1234567890123456", "null", None),
            ("12345678901234e5", "", 0.1),
            ("0123456789012345", 'a, "b"\nc', [1, {"d": 1e-300}]),
            ("carriage\rreturn", "a\r\nb", None),
            ("fedcba9876543210", "[1]", True),
        )
    ]
    records.append({"identity": "00000000000000ff", "other": 1})  # not every record has every column
    assert read_table(write_table(records, tmp_path / "table.csv")) == records


def test_tables_that_cannot_be_read(quick, tmp_path):
    with pytest.raises(ValueError, match="expected at least one record"):
        write_table([], tmp_path / "none.csv")
    assert not list(tmp_path.iterdir())
    path = write_table([{"identity": "a", "task": "SYS-1(5,10)", "error": 0.1}] * 2, tmp_path / "table.csv")
    whole = path.read_text()
    for content in (
        b"", b"temperature,pressure\n1,2\n", b"\xff\xfe\x00\x81", whole[: whole.rindex('"')].encode(),
        whole[: whole.rindex(",")].encode(), whole.encode() + b"b,c,d,e\n",
    ):  # fmt: skip
        path.write_bytes(content)
        with pytest.raises(ValueError, match=r"table\.csv: not .*; write it again from its records"):
            read_table(path)
    path.write_text('identity,seed\na,"""0"""\nb,1\n')
    with pytest.raises(ValueError, match=r"table\.csv: record 1: seed: expected a whole number, got '0'"):
        read_table(path)
    path.write_text('identity,seed,error\na,"""0""",0.1\nb,1,0.1\nb,1,0.2\nc,1,NaN\n')
    problems = []
    assert read_table(path, problems) == [{"identity": "b", "seed": 1, "error": 0.1}]
    assert [problem.split(": ", 2)[2] for problem in problems] == [
        "seed: expected a whole number, got '0'", "b is there twice; leave one of them out",
        "error: expected a number, got nan",
    ]  # fmt: skip
    with pytest.raises(ValueError, match=r"missing\.csv: not readable"):
        read_table(tmp_path / "missing.csv")


# A cluster ------------------------------------------------------------------------------------------------------------


@pytest.mark.filterwarnings("ignore")  # of the cluster that the test starts and damages
def test_eight_runs_on_a_cluster_that_loses_a_worker(quick, tmp_path):
    distributed = pytest.importorskip("distributed")
    runs = [quick(seed=seed) for seed in range(8)]
    folder, written, killed = tmp_path / "study", {}, []

    def kill_a_worker(progress):
        if progress.done >= 3 and not killed:
            written.update({path.name: path.stat().st_mtime_ns for path in folder.glob("*.json")})
            killed.append(next(iter(cluster.workers.values())).pid)
            os.kill(killed[0], signal.SIGKILL)

    with distributed.LocalCluster(n_workers=2, processes=True, threads_per_worker=1, dashboard_address=None) as cluster:
        records = run_study(runs, folder, scheduler=cluster.scheduler_address, callback=kill_a_worker)
    assert killed
    assert [record["identity"] for record in records] == [identity(run) for run in runs]
    assert len(list(folder.glob("*.json"))) == 8, "none is lost"
    assert written
    assert all((folder / name).stat().st_mtime_ns == time for name, time in written.items()), "none is repeated"
    alone = run_study(runs[:1], tmp_path / "alone")
    assert alone[0]["error"] == pytest.approx(records[0]["error"], rel=1e-5)
