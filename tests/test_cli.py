"""The command line: every command once at tiny size; bad input is one clear line, exit code 2, nothing overwritten."""

import errno
import inspect
import itertools
import json
import os
import signal
import subprocess
import sys
import warnings
from pathlib import Path

import h5py
import numpy as np
import pytest
import torch
from released_files import write_released
from safetensors.torch import save_file

from sciml_fm_core import (
    DatasetFile,
    FreshBatches,
    Task,
    cli,
    cpu,
    draw_split,
    generate,
    load_operator,
    mean_relative_error,
    shipped_operators,
)
from sciml_fm_core.data import generation
from sciml_fm_core.experiments.paper import EXPERIMENTS
from sciml_fm_core.files import results_folder
from sciml_fm_core.models.operator import read_header
from sciml_fm_core.study.records import read_table
from sciml_fm_core.study.runs import AdaptationRun, identity

ROOT = Path(__file__).resolve().parent.parent


@pytest.fixture(scope="module")
def bundle(small_operator, tmp_path_factory):
    """A bundle to read from."""
    return small_operator().save(tmp_path_factory.mktemp("bundle") / "tiny.safetensors")


def contents(folder):
    return {path.name: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


# Every command --------------------------------------------------------------------------------------------------------


def test_generate_writes_the_dataset_and_info_shows_it(run, tmp_path):
    code, out, _ = run("generate", "SYS-3(1,10)", "--count", 12, "--output", "data.h5", "--resolution", 16, "--seed", 3)
    assert code == 0
    assert "data.h5: 12 examples of SYS-3(1,10), 16 x 16, train, seed 3" in out
    with DatasetFile(tmp_path / "data.h5") as file:
        expected = draw_split(Task.parse("SYS-3(1,10)"), "train", 12, seed=3, resolution=16)
        assert torch.equal(file.take(slice(None)).solution, expected.solution)
    code, out, err = run("info", "data.h5")
    assert (code, err) == (0, "")
    for text in ("12", "16 x 16", "SYS-3 helmholtz", "SYS-3(1,10)", "acceptance_rate", "dimensionless"):
        assert text in out


def test_info_shows_released_datasets(run, tmp_path):
    write_released(draw_split(Task.parse("SYS-2(0.2,1)"), "train", 3, resolution=8), tmp_path / "released.h5")
    code, out, _ = run("info", "released.h5")
    assert code == 0
    assert "SYS-2 advection_diffusion" in out


def test_pretrain_adapt_evaluate_and_info(run, tmp_path):
    code, out, _ = run(
        "pretrain", "SYS-1(1,5)", "--output", "own.safetensors", "--size", "tiny", "--steps", 3, "--batch-size", 4,
        "--resolution", "0:16,0.5:32", "--test-count", 2, "--device", "cpu", "--checkpoint", "state",
    )  # fmt: skip
    assert code == 0
    assert "SYS-1(1,5)" in out
    operator = load_operator(tmp_path / "own.safetensors")
    assert operator.card["command"].startswith("sciml-fm pretrain 'SYS-1(1,5)' --output own.safetensors")
    assert set(operator.card["errors"]) > {"SYS-1(1,5)", "SYS-1(5,10)"}
    assert (tmp_path / "state").is_file()

    before = (tmp_path / "own.safetensors").read_bytes()
    options = ("--steps", 2, "--resolution", 16, "--validation-count", 4, "--test-count", 2)
    code, out, _ = run(
        "adapt", "own.safetensors", "SYS-1(5,10)", "--examples", 4, "--output", "tuned.safetensors", "--json", *options
    )
    result = json.loads(out)
    assert code == 0
    assert (result["start"], result["examples"], result["task"]) == ("fine-tuned", 4, "SYS-1(5,10)")
    assert result["zero_shot_error"] > 0
    assert result["error"] > 0
    assert (tmp_path / "own.safetensors").read_bytes() == before
    assert load_operator(tmp_path / "tuned.safetensors").card["downstream_task"] == "SYS-1(5,10)"
    code, out, _ = run(
        "adapt", "own.safetensors", "SYS-1(5,10)", "--examples", 4, "--no-symmetries", "--json", *options
    )
    assert code == 0
    assert json.loads(out)["error"] != result["error"]
    code, out, _ = run("adapt", "own.safetensors", "SYS-1(5,10)", "--scratch", "--grid", *options)
    assert code == 0
    assert "scratch" in out
    code, out, _ = run(
        "adapt", "own.safetensors", "SYS-1(5,10)", "--physics", "--output", "blind.safetensors", "--json", *options
    )
    assert code == 0
    blind = json.loads(out)
    assert (blind["examples"], blind["loss"], blind["start"]) == (0, "physics", "fine-tuned")
    card = load_operator(tmp_path / "blind.safetensors").card
    assert (card["labels"], card["loss"], card["downstream_examples"]) == ("none", "physics", 0)
    code, out, _ = run("adapt", "own.safetensors", "SYS-1(5,10)", "--physics", "--loss", "residual", *options)
    assert code == 0
    assert "0 labels, residual loss: zero-shot" in out.replace("\n", " ")

    code, out, err = run("evaluate", "tuned.safetensors", "SYS-1(5,10)", "--count", 2, "--json")
    assert (code, err) == (0, "")
    measured = json.loads(out)
    assert measured["error"] == pytest.approx(result["error"], rel=1e-5)
    assert (measured["examples"], measured["resolution"], measured["operator"]) == (2, 128, "tuned.safetensors")
    code, out, err = run("evaluate", "tuned.safetensors", "SYS-1(5,10)", "--count", 2, "--json", "--symmetries")
    assert (code, err) == (0, "")
    assert json.loads(out)["error"] != measured["error"]
    code, out, _ = run("evaluate", "own.safetensors", "SYS-1(5,10)", "--count", 2, "--resolution", 32)
    assert code == 0
    assert "mean relative error" in out

    code, out, err = run("info", "own.safetensors")
    assert (code, err) == (0, "")
    for text in ("pre-trained", "dimensionless", "SYS-1(10,20)"):
        assert text in out


def test_pretrain_a_mixture_on_files(run, tmp_path):
    for name, label in (("a.h5", "SYS-1(1,5)"), ("b.h5", "SYS-3(1,10)")):
        generate(Task.parse(label), tmp_path / name, 6, resolution=16)
    code, _, _ = run(
        "pretrain", "SYS-1(1,5)", "SYS-3(1,10)", "--data", "a.h5", "--data", "b.h5", "--size", "tiny", "--steps", 2,
        "--recipe", "paper", "--test-count", 0, "--output", "mixed.safetensors",
    )  # fmt: skip
    assert code == 0
    operator = load_operator(tmp_path / "mixed.safetensors")
    assert [system.name for system in operator.systems] == ["poisson", "helmholtz"]
    assert [(one["file"], one["task"], one["examples"]) for one in operator.card["data"]] == [
        ("a.h5", "SYS-1(1,5)", 5), ("b.h5", "SYS-3(1,10)", 5),
    ]  # fmt: skip


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """Files of two tasks and two splits, and one that says nothing."""
    folder, far = tmp_path_factory.mktemp("files"), Task.parse("SYS-1(5,10)")
    for name, task, split in (
        ("near", Task.parse("SYS-1(1,5)"), "train"),
        ("far", far, "train"),
        ("test", far, "test"),
    ):
        generate(task, folder / f"{name}.h5", 10, split=split, resolution=16)
    write_released(draw_split(far, "train", 10, resolution=16), folder / "released.h5")
    return {path.stem: path for path in folder.iterdir()}


NEAR_BY = ("pretrain", "SYS-1(1,5)", "--size", "tiny", "--steps", 1, "--data")
UNSAID = "could be of poisson, biharmonic_advection, and the file does not say; name it by --system"


@pytest.mark.parametrize(("command", "message"), [
    ((*NEAR_BY, "far"), "expected examples of SYS-1(1,5), got SYS-1(5,10)"),
    ((*NEAR_BY, "near", "--validation", "far"), "expected examples of SYS-1(1,5), got SYS-1(5,10)"),
    ((*NEAR_BY, "test"), "expected the split train for data, got test"),
    ((*NEAR_BY, "near", "--validation", "test"), "expected the split validation or train for validation, got test"),
    ((*NEAR_BY, "released"), UNSAID),
    ((*NEAR_BY, "released", "--system", "SYS-1"), "expected values of eigenvalue within SYS-1(1,5), got 5."),
    ((*NEAR_BY, "near", "--system", "SYS-3"), "says that it is of poisson, not of helmholtz"),
    (("evaluate", "--data", "released"), UNSAID),
    (("evaluate", "SYS-1(1,5)", "--data", "far"), "expected examples of SYS-1(1,5), got SYS-1(5,10)"),
    (("evaluate", "--data", "far", "--count", 11), "count: expected 1 to 10 given examples, got 11"),
    (("evaluate",), "expected a task to draw examples of, or data"),
    (("adapt",), "expected a TASK to draw examples of, or --data FILE"),
    (("adapt", "SYS-1(1,5)", "--data", "far"), "expected examples of SYS-1(1,5), got SYS-1(5,10)"),
    (("adapt", "--data", "released"), UNSAID),
    (("adapt", "--data", "test"), "expected the split train for data, got test"),
    (("adapt", "--data", "far", "--test", "far"), "expected the split test for test, got train"),
    (("adapt", "--data", "far", "--examples", 7), "expected 7 examples beside those held out, got 6"),
    (("adapt", "SYS-1(1,5)", "--test", "test"), "belong to --data FILE"),
    (("adapt", "--data", "far", "--physics"), "--physics draws fresh sources and takes no --data"),
])  # fmt: skip
def test_given_files_have_to_be_what_is_said_of_them(run, bundle, files, command, message):
    """Like reports that a file of another range, split or equation was used, and the result named by what was asked."""
    name, *arguments = [files.get(part, part) for part in command]
    refused(run(name, *([] if name == "pretrain" else [bundle]), *arguments), message)


def test_evaluate_and_adapt_on_given_files(run, bundle, files, tmp_path):
    code, out, _ = run("evaluate", bundle, "--data", files["test"], "--json")
    measured = json.loads(out)
    with DatasetFile(files["test"]) as file:
        examples = file.take(slice(None))
    operator = load_operator(bundle)
    expected = mean_relative_error(operator.predict(examples.source, examples.coefficients), examples.solution)
    assert (code, measured["task"], measured["examples"], measured["resolution"]) == (0, "SYS-1(5,10)", 10, 16)
    assert measured["error"] == pytest.approx(expected)
    assert measured["data"]["split"] == "test"
    code, out, _ = run(
        "adapt", bundle, "--data", files["far"], "--test", files["test"], "--examples", 4, "--steps", 2,
        "--output", "own.safetensors", "--json",
    )  # fmt: skip
    result, card = json.loads(out), load_operator(tmp_path / "own.safetensors").card
    assert (code, result["examples"], result["task"]) == (0, 4, "SYS-1(5,10)")
    assert result["zero_shot_error"] == pytest.approx(expected)
    assert (card["downstream_data"]["file"], card["downstream_data"]["examples"]) == ("far.h5", 4)
    assert (card["validation"]["file"], card["validation"]["examples"]) == ("far.h5", 2)


def test_operators_lists_what_ships(run):
    code, out, err = run("operators")
    assert (code, err) == (0, "")
    for name in shipped_operators():
        assert name in out


def test_help_and_no_arguments(run):
    code, out, _ = run("--help")
    assert code == 0
    for command in ("generate", "pretrain", "adapt", "evaluate", "info", "operators", "batch", "bench"):
        assert command in out
    assert run("generate", "--help")[0] == 0


def test_module_runs_as_a_program_without_a_traceback(tmp_path):
    """As the installed script does: the exit code and the streams of a real process."""
    process = subprocess.run(
        [sys.executable, "-m", "sciml_fm_core.cli", "generate", "SYS-1(5,1)", "--output", "data.h5"],
        capture_output=True, text=True, cwd=tmp_path, env=os.environ | {"PYTHONPATH": str(ROOT)}, check=False,
    )  # fmt: skip
    assert process.returncode == 2
    assert process.stdout == ""
    assert process.stderr == "error: task SYS-1(5,1): expected low <= high, got 5 > 1; swap them\n"
    assert not list(tmp_path.iterdir())


# Batches and benchmarks -----------------------------------------------------------------------------------------------


@pytest.fixture
def notebooks(tmp_path):
    """A batch of two notebooks, of which the second fails unless there is a file 'mended'."""
    nbformat, yaml = pytest.importorskip("nbformat"), pytest.importorskip("yaml")
    pytest.importorskip("papermill")
    work = (
        "from pathlib import Path\n"
        "with open('log', 'a') as log:\n    log.write(f'{number}\\n')\n"
        "if number and not Path('mended').exists():\n    raise RuntimeError('broken as asked')"
    )
    cells = [
        nbformat.v4.new_code_cell("number = 0", metadata={"tags": ["parameters"]}, id="one"),
        nbformat.v4.new_code_cell(work, id="two"),
    ]
    kernel = {"name": "python3", "display_name": "Python 3", "language": "python"}
    nbformat.write(nbformat.v4.new_notebook(cells=cells, metadata={"kernelspec": kernel}), tmp_path / "tiny.ipynb")
    runs = [{"notebook": "tiny.ipynb", "grid": {"number": [0, 1]}}]
    (tmp_path / "batch.yaml").write_text(yaml.safe_dump(runs), encoding="utf-8")


def test_batch_does_what_is_missing_and_tells_failures_by_its_exit_code(run, notebooks, tmp_path):
    def executed():
        return sorted((tmp_path / "log").read_text().split())

    code, out, _ = run("batch", "batch.yaml", "--output", "out", "--processes", 2)
    assert code == 1
    assert "1 of 2 done" in out
    assert "RuntimeError: broken as asked" in out
    assert executed() == ["0", "1"]
    assert len(list((tmp_path / "out").glob("tiny-*.ipynb"))) == 2

    code, out, _ = run("batch", "batch.yaml", "--output", "out")
    assert code == 1
    assert "failures run again only with --retry-failed" in out
    assert executed() == ["0", "1"]

    (tmp_path / "mended").touch()
    code, out, _ = run("batch", "batch.yaml", "--output", "out", "--retry-failed")
    assert (code, executed()) == (0, ["0", "1", "1"])
    assert "2 of 2 done" in out


def test_a_batch_that_is_interrupted_says_how_to_go_on(run, notebooks, monkeypatch):
    def interrupted(runs, **_):
        raise KeyboardInterrupt(f"stopped: 1 of {len(runs)} runs are finished")

    monkeypatch.setattr(cli, "run_batch", interrupted)
    code, _, err = run("batch", "batch.yaml", "--output", "out")
    assert code == 130
    assert "stopped: 1 of 2 runs are finished" in err


@pytest.mark.parametrize(
    ("options", "variable", "threads"),
    [
        ((), "", [7]),
        (("--threads", 3), "2", [3]),
        (("--threads", "all"), "", [8]),
        (("--threads", 9), "", [8]),
        ((), "2", []),
    ],
)
def test_commands_leave_a_core_to_others(run, bundle, monkeypatch, options, variable, threads):
    """Like reports on PyTorch being many times slower as soon as another program takes a core."""
    used = []
    monkeypatch.setattr(cpu, "available_cores", lambda: 8)
    monkeypatch.setattr(torch, "set_num_threads", used.append)
    monkeypatch.setenv("OMP_NUM_THREADS", variable) if variable else monkeypatch.delenv("OMP_NUM_THREADS")
    assert run("evaluate", bundle, "SYS-1(5,10)", "--count", 1, "--resolution", 16, *options)[0] == 0
    assert used == threads
    computing = (cli.generate, cli.pretrain, cli.adapt, cli.evaluate, cli.study, cli.explore)
    assert all("threads" in inspect.signature(command).parameters for command in computing)


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_commands_that_are_stopped_keep_their_work_and_say_so(run, tmp_path, monkeypatch, number, code):
    """Like reports that Ctrl-C or a cluster's SIGTERM ends hours of work without a word."""

    def stopping_at(step, function):
        def called(*arguments, **options):
            if next(calls) == step:
                signal.raise_signal(number)
            return function(*arguments, **options)

        calls = itertools.count()
        return called

    train = ["pretrain", "SYS-1(1,5)", "--size", "tiny", "--steps", 4, "--batch-size", 2, "--resolution", 8]
    train += ["--test-count", 0, "--output", "own.safetensors"]
    with monkeypatch.context() as patch:
        patch.setattr(FreshBatches, "batch", stopping_at(2, FreshBatches.batch))
        assert run(*train) == (
            code,
            "",
            "stopped: 3 of 4 steps are taken and are lost, as no checkpoint was asked for\n",
        )
        patch.setattr(FreshBatches, "batch", stopping_at(2, FreshBatches.batch))
        stopped = run(*train, "--checkpoint", "state")  # which looks at the first batch once more
    kept = "stopped: 2 of 4 steps are taken and are kept in state, from which the same command goes on\n"
    assert stopped == (code, "", kept)
    with monkeypatch.context() as patch:
        patch.setattr(cli, "command_line", stopping_at(0, cli.command_line))  # asked for by the card
        (then, _, err), kept = (
            run(*train, "--checkpoint", "state"),
            "what is in state is kept; the same command goes on",
        )
    assert (then, err.splitlines()[-1]) == (code, f"stopped: {kept} from there")
    assert run(*train, "--checkpoint", "state")[0] == 0

    write = ("generate", "SYS-1(1,5)", "--count", 300, "--resolution", 8, "--output", "some.h5")
    with monkeypatch.context() as patch:
        patch.setattr(generation, "draw_accepted", stopping_at(0, generation.draw_accepted))
        said = "stopped: 256 of 300 examples are kept; the same command goes on with the rest\n"
        assert run(*write) == (code, "", said)
    assert run(*write)[0] == 0


def test_bad_batches(run, notebooks, tmp_path):
    before = contents(tmp_path)
    refused(run("batch", "none.yaml"), "none.yaml: no such file; expected a YAML file with a list of runs")
    (tmp_path / "batch.yaml").write_text("- {notebook: tiny.ipynb, parameters: {other: 1}}\n- {notebook: no.ipynb}\n")
    code, out, err = run("batch", "batch.yaml", "--output", "out")
    assert (code, out) == (2, "")
    for problem in ("nothing was started", "run 1: other: unknown in tiny.ipynb", "no.ipynb: no such notebook"):
        assert problem in err
    assert contents(tmp_path).keys() == before.keys()


def test_study_runs_what_is_missing_and_writes_its_table(run, tmp_path):
    command = ("study", "q2_model_size", "--budget", "smoke", "--folder", "runs/records", "--device", "cpu")
    code, out, _ = run(*command, "--output", "table.csv")
    assert code == 0
    runs = EXPERIMENTS["q2_model_size"]("smoke")
    assert f"{len(runs)} records: {len(runs)} in runs/records, 0 that ship with the package" in out
    assert [record["identity"] for record in read_table(tmp_path / "table.csv")] == [identity(each) for each in runs]
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "runs" / "records").iterdir()}
    assert run(*command)[0] == 0
    assert {path: path.stat().st_mtime_ns for path in (tmp_path / "runs" / "records").iterdir()} == before
    refused(run(*command, "--output", "table.csv"), "exists already and is left as it is")
    refused(run("study", "q9"), "experiment: expected one of ")
    refused(run("study", "q9"), "q1_downstream_data, q2_model_size")
    code, out, _ = run("study", "q1_downstream_data", "--output", "shipped.csv", "--folder", "runs/none")
    assert code == 0, "nothing is computed that ships"
    runs = EXPERIMENTS["q1_downstream_data"]("laptop")
    assert f"{len(runs)} records: 0 in runs/none, {len(runs)} that ship with the package" in out
    assert len(read_table(tmp_path / "shipped.csv")) == len(runs)


def test_bench_hands_its_options_to_the_benchmarks_of_the_checkout(run, tmp_path, monkeypatch):
    script = tmp_path / "checkout" / "benchmarks" / "run.py"
    script.parent.mkdir(parents=True)
    script.write_text("import sys\nprint(__name__, sys.argv)\nsys.exit(3 if '--fail' in sys.argv else 0)\n")
    monkeypatch.setattr(cli, "__file__", str(tmp_path / "checkout" / "sciml_fm_core" / "cli.py"))
    for options in ([], ["--budget", "smoke", "--only", "inference,memory", "--help"], ["--fail"]):
        code, out, _ = run("bench", *options)
        assert out == f"__main__ {[str(script), *options]}\n"
        assert code == (3 if options == ["--fail"] else 0)
    script.unlink()
    refused(run("bench"), "bench: the benchmarks are part of a checkout, not of the installed package")


def test_bench_finds_the_benchmarks(run, monkeypatch):
    monkeypatch.setattr(sys, "path", [*sys.path])  # which the script extends
    code, out, _ = run("bench", "--help")
    assert code == 0
    assert "--equal-seconds" in out
    code, out, err = run("bench", "--budget", "huge")
    assert (code, out) == (2, "")
    assert "invalid choice: 'huge'" in err


# Bad input ------------------------------------------------------------------------------------------------------------


def refused(result, message):
    """Exit code 2, one line on standard error with the message, nothing on standard output, no traceback."""
    code, out, err = result
    assert code == 2
    assert out == ""
    assert "Traceback" not in err
    lines = [line for line in err.splitlines() if line.strip()]
    assert len(lines) == 1, err
    assert lines[0].startswith("error: ")
    assert message in lines[0]


TASK_MISTAKES = [
    ("SYS-9(1,5)", "expected one of poisson (SYS-1), advection_diffusion (SYS-2), helmholtz (SYS-3), "),
    ("heat(1,5)", "got 'heat'"),
    ("SYS-1", "expected SYSTEM(low,high) such as 'SYS-1(1,5)'"),
    ("SYS-1(5,1)", "expected low <= high, got 5 > 1; swap them"),
    ("SYS-1(nan,5)", "expected SYSTEM(low,high)"),
    ("SYS-3(1.5,4)", "is drawn as a whole number"),
]


@pytest.mark.parametrize(("label", "message"), TASK_MISTAKES)
def test_bad_tasks(run, bundle, tmp_path, label, message):
    for command in (
        ("generate", label, "--output", "data.h5"),
        ("pretrain", label, "--output", "own.safetensors"),
        ("adapt", bundle, label, "--output", "own.safetensors"),
        ("evaluate", bundle, label),
    ):
        refused(run(*command), message)
    assert not list(tmp_path.iterdir())


def test_grids_that_are_not_periodic(run, bundle, tmp_path):
    refused(run("generate", "SYS-1(1,5)", "--resolution", 129, "--count", 4), "even number of at least 8, got 129")
    refused(
        run("evaluate", bundle, "SYS-1(1,5)", "--resolution", 65, "--count", 2), "even number of at least 8, got 65"
    )
    refused(run("evaluate", bundle, "SYS-1(1,5)", "--count", 0), "count: expected at least 1 example, got 0")
    refused(
        run("pretrain", "SYS-1(1,5)", "--size", "tiny", "--resolution", "65", "--steps", 1),
        "even number of at least 8, got 65",
    )
    refused(run("pretrain", "SYS-1(1,5)", "--resolution", "fine"), "expected points or a schedule such as")
    refused(run("pretrain", "SYS-1(1,5)", "--size", "tiny", "--resolution", "0.5:16"), "a schedule that begins at 0")
    assert not list(tmp_path.iterdir())


def test_missing_files(run, bundle, tmp_path):
    refused(run("info", "none.h5"), "none.h5: no such file")
    refused(run("evaluate", "none.safetensors", "SYS-1(1,5)"), "none.safetensors: no such file")
    refused(run("evaluate", "sys-99", "SYS-1(1,5)"), "or the path of a bundle; got 'sys-99'")
    refused(run("adapt", "none.safetensors", "SYS-1(1,5)"), "none.safetensors: no such file")
    refused(run("pretrain", "SYS-1(1,5)", "--size", "tiny", "--data", "none.h5"), "none.h5: no such file")
    refused(run("generate", "SYS-1(1,5)", "--output", "no/data.h5"), "the folder no does not exist")
    refused(run("pretrain", "SYS-1(1,5)", "--output", "no/own.safetensors"), "the folder no does not exist")
    refused(run("adapt", bundle, "SYS-1(1,5)", "--output", "no/own.safetensors"), "the folder no does not exist")
    assert not list(tmp_path.iterdir())


def test_damaged_and_foreign_files(run, bundle, tmp_path):
    whole = generate(Task.parse("SYS-1(1,5)"), tmp_path / "whole.h5", 4, resolution=16).read_bytes()
    (tmp_path / "whole.h5").unlink()
    (tmp_path / "short.h5").write_bytes(whole[: len(whole) // 2])
    (tmp_path / "short.safetensors").write_bytes(bundle.read_bytes()[:-10])
    (tmp_path / "text.h5").write_text("temperature, 3\n")
    (tmp_path / "empty.safetensors").write_bytes(b"")
    torch.save({"weight": torch.zeros(2)}, tmp_path / "pickle.pt")
    save_file({"weight": torch.zeros(2)}, tmp_path / "foreign.safetensors")
    with h5py.File(tmp_path / "foreign.h5", "w") as file:
        file["temperature"] = [1.0]
    with h5py.File(tmp_path / "shape.h5", "w") as file:
        file["fields"], file["tensor"] = torch.zeros(4, 2, 8, 9).numpy(), torch.zeros(4, 3).numpy()
    np.savez(tmp_path / "fields.npz", fields=np.zeros(3))
    assert "No array of fields was found" in run("info", "fields.npz")[1]
    before = contents(tmp_path)
    for name, message in (
        ("short.h5", "truncated"),
        ("text.h5", "got one that begins with b'temperature"),
        ("foreign.h5", "expected datasets 'fields' and"),
        ("shape.h5", "expected fields (N, 2, n, n)"), ("short.safetensors", "truncated"),
        ("empty.safetensors", "truncated"), ("pickle.pt", "not a readable safetensors file"),
        ("foreign.safetensors", "not one written by Operator.save"),
    ):  # fmt: skip
        if name not in ("pickle.pt", "foreign.h5"):  # files of arrays, of which it says what they are
            refused(run("info", name), message)
        if name.endswith("h5"):
            if name != "text.h5":
                refused(run("pretrain", "SYS-1(1,5)", "--data", name, "--size", "tiny", "--steps", 1), message)
        else:
            refused(run("evaluate", name, "SYS-1(1,5)", "--count", 2), message)
            refused(run("adapt", name, "SYS-1(1,5)", "--output", "own.safetensors"), message)
    assert contents(tmp_path) == before


def test_newer_formats(run, small_operator, tmp_path):
    from sciml_fm_core.models import operator as operator_module

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(operator_module, "PLAIN_VERSION", 99)
        patch.setattr(operator_module, "FORMAT_VERSION", 99)
        patch.setattr("sciml_fm_core.data.generation.FORMAT_VERSION", 99)
        small_operator().save(tmp_path / "newer.safetensors")
        generate(Task.parse("SYS-1(1,5)"), tmp_path / "newer.h5", 4, resolution=8)
    before = contents(tmp_path)
    refused(run("info", "newer.safetensors"), "format version 99, this package reads up to 5; upgrade sciml-fm")
    refused(run("evaluate", "newer.safetensors", "SYS-1(1,5)"), "format version 99")
    refused(run("info", "newer.h5"), "layout version 99, this package reads up to 1; upgrade sciml-fm")
    assert contents(tmp_path) == before


def test_data_that_is_not_finite(run, tmp_path):
    generate(Task.parse("SYS-1(1,5)"), tmp_path / "data.h5", 4, resolution=16)
    with h5py.File(tmp_path / "data.h5", "r+") as file:
        file["fields"][2, 1, 3, 3] = float("nan")
    before = contents(tmp_path)
    trained = run("pretrain", "SYS-1(1,5)", "--data", "data.h5", "--size", "tiny", "--steps", 2)
    refused(trained, "expected finite values, got NaN or infinity in example 2")
    assert contents(tmp_path) == before


def test_wrong_systems_and_names(run, bundle, tmp_path):
    generate(Task.parse("SYS-3(1,10)"), tmp_path / "data.h5", 4, resolution=8)
    refused(run("evaluate", bundle, "SYS-3(1,10)", "--count", 2), "was trained for poisson, got helmholtz")
    refused(run("adapt", bundle, "SYS-3(1,10)", "--examples", 2), "was trained for poisson, got helmholtz")
    refused(run("adapt", bundle, "SYS-3(1,10)", "--physics"), "was trained for poisson, got helmholtz")
    refused(run("pretrain", "SYS-1(1,5)", "--data", "data.h5", "--size", "tiny"), "examples of poisson, got helmholtz")
    refused(
        run("pretrain", "SYS-1(1,5)", "--recipe", "theirs"),
        "recipe: expected one of dimensionless, symbol, paper, symbol-composed, fields, correction, step, "
        "step-residual, got 'theirs'",
    )
    refused(run("pretrain", "SYS-1(1,5)", "--size", "2M"), "size: expected one of")
    refused(run("pretrain", "SYS-1(1,5)", "--steps", 0), "expected steps and intervals of at least 1")
    refused(run("generate", "SYS-1(1,5)", "--split", "dev"), "split: expected one of train, validation, test")


def test_labels_and_their_absence_contradict_each_other(run, bundle):
    label = "SYS-1(5,10)"
    refused(run("adapt", bundle, label, "--physics", "--examples", 2), "uses no labels and takes no --examples")
    refused(run("adapt", bundle, label, "--physics", "--scratch"), "sciml-fm pretrain 'SYS-1(5,10)' --loss physics")
    refused(
        run("adapt", bundle, label, "--physics", "--loss", "squared", "--test-count", 2),
        "expected a loss that needs no labels, physics or residual, got 'squared'",
    )
    refused(run("adapt", bundle, label, "--physics", "--steps", 0), "expected steps and intervals of at least 1")


CHECKED_FIRST = [
    (("pretrain", "SYS-1(1,5)", "--test-count", -1), "--test-count: expected a number from 0"),
    (("pretrain", "SYS-1(1,5)", "--threads", 0), "--threads: expected a number from 1"),
    (("pretrain", "SYS-1(1,5)", "--batch-size", -3), "--batch-size: expected a number from 1"),
    (("pretrain", "SYS-1(1,5)", "--time-limit", "nan"), "--time-limit: expected a number above 0"),
    (("pretrain", "SYS-1(1,5)", "--seed", 10**30), "--seed: expected a number from"),
    (("pretrain", "SYS-1(1,5)", "--checkpoint", "file/state"), "the folder file does not exist"),
    (("pretrain", "SYS-1(1,5)", "--checkpoint", "."), ".: a folder; expected the name of a file"),
    (("pretrain", "SYS-1(1,5)", "--output", "a", "--checkpoint", "./a"), "are the same file"),
    (("pretrain", "SYS-1(1,5)", "--output", "/proc/own"), "/proc/own: cannot be written"),
    (("pretrain", "SYS-1(1,5)", "--output", "x" * 300), "cannot be written (File name too long)"),
    (("pretrain", "SYS-1(1,5)", "--resolution", "0:64,0.9:8"), "the network needs at least 32 points, got 8"),
    (("pretrain", "SYS-1(1,5)", "--resolution", "0:64,7:64"), "expected points or a schedule such as"),
    (("pretrain", "SYS-1(1,5)", "--device", "meta"), "device: 'meta' cannot compute here"),
    (("generate", "SYS-1(1,5)", "--device", "[/]"), "device: '[/]' cannot compute here"),
    (("generate", "SYS-1(1,5)", "--count", 2**31), "--count: expected a number from 1"),
    (("generate", "SYS-1(1,5)", "--output", "file/data.h5"), "the folder file does not exist"),
    (("adapt", "sys-1", "SYS-1(5,10)", "--test-count", 0), "--test-count: expected a number from 1"),
    (("adapt", "sys-1", "SYS-1(5,10)", "--packed"), "give its name with --output"),
    (("evaluate", "sys-1", "SYS-1(5,10)", "--resolution", 16), "the network needs at least"),
    (("study", "--folder", "file/records"), "is a file; choose another folder"),
    (("study", "--processes", 0), "--processes: expected a number from 1"),
    (("batch", "batch.yaml", "--output", "file/out"), "is a file; choose another folder"),
    (("notebooks", "file/copies"), "is a file; choose another folder"),
]


@pytest.mark.parametrize(("command", "message"), CHECKED_FIRST, ids=lambda value: " ".join(map(str, value))[:40])
def test_what_cannot_end_well_is_not_begun(run, tmp_path, command, message):
    (tmp_path / "file").touch()
    refused(run(*command), message)
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_names_are_shown_as_they_are(run, tmp_path):
    for name in ("[red]x.h5", "[bold].h5", ":smile:.h5", "a{b}.h5"):
        code, out, _ = run("generate", "SYS-1(1,5)", "--count", 1, "--resolution", 8, "--output", name)
        assert (code, out.startswith(f"{name}: 1 examples")) == (0, True)
        code, out, _ = run("info", name)
        assert (code, name in out) == (0, True)
    refused(run("info", "[/red]"), "[/red]: no such file")
    refused(run("evaluate", "[/]", "SYS-1(1,5)"), "got '[/]'")


def test_verbose_shows_where_an_error_comes_from(run):
    code, _, err = run("--verbose", "info", "none.h5")
    assert code == 2
    assert "Traceback" in err
    assert err.endswith("error: operator none.h5: no such file; `sciml-fm operators` lists what ships\n")
    refused(run("info", "none.h5"), "no such file")


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (OSError(errno.ENOSPC, "No space left on device", "x"), "x: No space left on device; make room, then give the"),
        (FileNotFoundError(errno.ENOENT, "No such file or directory", "x"), "bring the folder back"),
        (MemoryError(), "not enough memory; ask for fewer points"),
        # Like reports that running out of memory was shown as an internal error.
        (
            RuntimeError("can't allocate memory: you tried to allocate 8000000000 bytes"),
            "memory: 8.00 GB more were asked",
        ),
        (OSError(errno.ENOMEM, "Cannot allocate memory", "x"), "not enough memory; ask for fewer points"),
        (KeyError("key"), "unexpected KeyError: 'key'; sciml-fm --verbose COMMAND shows where"),
    ],
)
def test_failures_of_the_surroundings_are_one_line_and_another_code(run, monkeypatch, error, message):
    def fails(*_):
        raise error

    monkeypatch.setattr(cli, "read_header", fails)
    code, out, err = run("info", "sys-1")
    assert (code, out, len(err.splitlines())) == (1, "", 1)
    assert message in err


def test_a_name_of_what_ships_that_a_file_has_too(run, bundle, tmp_path):
    """Like reports that a model hub's name won over a folder of that name, or lost to it, without a word."""
    (tmp_path / "sys-1").write_bytes(bundle.read_bytes())
    for command in (
        ("evaluate", "sys-1", "SYS-1(5,10)", "--count", 2),
        ("info", "sys-1"),
        ("adapt", "sys-1", "SYS-1(5,10)"),
    ):
        refused(run(*command), f"write ./sys-1 for the file, or {shipped_operators()['sys-1']} for what ships")
    with pytest.raises(ValueError, match=r"write \./sys-1 for the file"):
        identity(AdaptationRun("sys-1", "SYS-1(5,10)", "fine-tuned", 0))
    for mine in ("./sys-1", Path("sys-1"), tmp_path / "sys-1"):
        assert load_operator(mine).model.parameter_count == load_operator(bundle).model.parameter_count
    (tmp_path / "sys-1").unlink()
    (tmp_path / "sys-1").mkdir()  # a folder is no operator
    assert load_operator("sys-1").card == load_operator(shipped_operators()["sys-1"]).card


def test_a_tilde_is_the_home_folder(run, small_operator, tmp_path, monkeypatch):
    """Like reports that checkpoints went to a folder named ~ in the working directory."""
    home, here = tmp_path / "home", tmp_path / "here"
    home.mkdir(), here.mkdir()
    monkeypatch.chdir(here)
    monkeypatch.setenv("HOME", str(home))
    code, out, _ = run("generate", "SYS-1(1,5)", "--count", 1, "--resolution", 8, "--output", "~/data.h5")
    assert (code, out.startswith(str(home))) == (0, True)
    operator = small_operator()
    assert operator.save("~/own.safetensors") == home / "own.safetensors"
    assert load_operator("~/own.safetensors").card == operator.card
    assert run("info", "~/data.h5")[0] == run("info", "~/own.safetensors")[0] == 0
    with DatasetFile(Path("~/data.h5")) as file:
        assert file.size == 1
    assert run("notebooks", "~/copies")[0] == 0
    assert results_folder("~/runs") == home / "runs"
    refused(run("notebooks", "~nobody-of-this-name/copies"), "there is no such home folder; write the whole path")
    assert sorted(path.name for path in home.iterdir()) == ["copies", "data.h5", "own.safetensors"]
    (here / "~").mkdir()
    operator.save("./~/own.safetensors")  # whoever means it
    assert [path.name for path in here.rglob("*")] == ["~", "own.safetensors"]


@pytest.mark.parametrize("name", ["two\nlines", "\x1b[31mred", "x" * 5000, "a\u2028b\u202ec", "\udcff"])
def test_what_is_refused_is_one_line_whatever_its_name(run, name):
    """Like reports that names with line breaks or escape codes forged lines of a log."""
    Path("batch.yaml").write_text(f"- {{notebook: {json.dumps(name)}}}\n")
    commands = [
        ("info", name),
        ("evaluate", name, "SYS-1(1,5)"),
        ("generate", name),
        ("batch", name),
        ("batch", "batch.yaml"),
    ]
    for command in commands:
        code, out, err = run(*command)
        assert (code, out, len(err.splitlines()), err.rstrip("\n").isprintable()) == (2, "", 1, True)
        assert len(err) < 1500


def process(arguments, folder, **settings):
    command = f"{sys.executable} -m sciml_fm_core.cli {arguments}"
    environment = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"} | settings.pop("env", {})
    return subprocess.run(
        ["bash", "-o", "pipefail", "-c", command],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )


GENERATE = "generate 'SYS-1(1,5)' --count 2 --resolution 8 --output data.h5"


@pytest.mark.parametrize("how", ["| true", ">&-", "2>&-", ">&- 2>&- <&-", "2>&1 | true"])
def test_output_that_nobody_reads_is_no_error(tmp_path, how):
    """Like reports that a command-line tool died with a traceback, its work done, where its output went to head."""
    command = f"{sys.executable} -m sciml_fm_core.cli generate 'SYS-1(1,5)' --count 2 --resolution 8 --output data.h5"
    environment = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    shell = ["bash", "-o", "pipefail", "-c", f"{command} {how}"]
    done = subprocess.run(shell, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    with DatasetFile(tmp_path / "data.h5") as file:
        assert torch.isfinite(file.take(slice(None)).solution).all()


def test_warnings_that_are_made_errors_end_no_command(run, monkeypatch):
    """Like reports that PYTHONWARNINGS=error broke a tool by what its dependencies deprecate."""

    def deprecated(path):
        warnings.warn("is deprecated", DeprecationWarning, stacklevel=1)
        return read_header(path)

    monkeypatch.setattr(cli, "read_header", deprecated)
    monkeypatch.setattr(sys, "warnoptions", ["ignore::UserWarning", "error::DeprecationWarning"])
    with warnings.catch_warnings(record=True):
        assert run("info", "sys-1")[0] == 0


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_cuda_where_there_is_none(run, bundle):
    refused(run("evaluate", bundle, "SYS-1(1,5)", "--device", "cuda"), "no CUDA GPU here; use --device cpu")


def test_notebooks_are_copied_and_work_of_ones_own_is_left(run, tmp_path):
    for _ in range(2):  # where nothing differs it is no error
        assert run("notebooks", "mine")[0] == 0
    own = tmp_path / "mine" / "00_data.ipynb"
    own.write_text(own.read_text(encoding="utf-8") + "\n", encoding="utf-8")
    refused(run("notebooks", "mine"), "is there and differs")


def test_existing_files_are_not_overwritten(run, tmp_path):
    (tmp_path / "data.h5").write_bytes(b"precious")
    refused(run("generate", "SYS-1(1,5)", "--count", 4, "--output", "data.h5"), "exists already and is left as it is")
    assert contents(tmp_path) == {"data.h5": b"precious"}


def test_mistakes_in_the_command_itself(run):
    for command in (("frobnicate",), ("generate",), ("generate", "SYS-1(1,5)", "--count", "many")):
        code, _, err = run(*command)
        assert code == 2
        assert err
        assert "Traceback" not in err
