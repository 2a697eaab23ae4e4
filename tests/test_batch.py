"""Batches of notebooks: all is checked first, nothing is lost or repeated, no process is left behind."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from sciml_fm_core.study.batch_file import plan, status_of
from sciml_fm_core.study.notebooks import run_batch
from sciml_fm_core.yaml_values import parse_yaml

nbformat = pytest.importorskip("nbformat")
pytest.importorskip("papermill")
yaml = pytest.importorskip("yaml")

ROOT = Path(__file__).resolve().parent.parent
PARAMETERS = """
number: int = 0  # of the run
rate: float = 1  # an int is fine
name: str = "a = #1"
flag: bool = False
items: list = [1]
anything = None
"""
# Leaves a line for every execution, so that a repeated one is seen.
WORK = "import os, time\nwith open('log', 'a') as log:\n    log.write(f'{number}\\n')"


@pytest.fixture
def batch(tmp_path):
    """Function writing a notebook and a batch of it, and planning it."""

    def make(runs, work=WORK, parameters=PARAMETERS, tags=("parameters",)):
        cells = [
            nbformat.v4.new_code_cell(parameters, metadata={"tags": list(tags)}, id="one"),
            nbformat.v4.new_code_cell(work, id="two"),
        ]
        kernel = {"name": "python3", "display_name": "Python 3", "language": "python"}
        nbformat.write(nbformat.v4.new_notebook(cells=cells, metadata={"kernelspec": kernel}), tmp_path / "tiny.ipynb")
        (tmp_path / "batch.yaml").write_text(yaml.safe_dump(runs, sort_keys=False), encoding="utf-8")
        return plan(tmp_path / "batch.yaml", tmp_path / "out")

    return make


def numbered(count):
    return [{"notebook": "tiny.ipynb", "grid": {"number": list(range(count))}}]


def executed(tmp_path):
    """Numbers of the runs in the order in which they were executed."""
    log = tmp_path / "log"
    return [int(line) for line in log.read_text().splitlines()] if log.exists() else []


def markers(runs):
    return [json.loads(run.marker.read_text()) for run in runs if run.marker.exists()]


def left_over(tmp_path):
    return [path.name for path in (tmp_path / "out").iterdir() if path.suffix not in (".ipynb", ".json")]


def wait_for(condition, seconds=200):
    limit = time.monotonic() + seconds
    while not (value := condition()):
        assert time.monotonic() < limit, "waited in vain"
        time.sleep(0.05)
    return value


def alive(pid):
    """Whether a process runs; a dead one that nobody waited for does not count."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except FileNotFoundError:
        return False


def test_product_and_defaults(batch):
    runs = batch(
        {
            "defaults": {"notebook": "tiny.ipynb", "parameters": {"name": "{run}", "rate": 2}},
            "runs": [{"grid": {"number": [1, 2], "flag": [True, False]}, "parameters": {"items": [1, 2]}}, {"gpus": 1}],
        }
    )
    assert [(run.parameters.get("number"), run.parameters.get("flag")) for run in runs] == [
        (1, True), (1, False), (2, True), (2, False), (None, None)
    ]  # fmt: skip
    assert runs[0].parameters["items"] == [1, 2]
    assert runs[0].parameters["name"] == f"tiny-{runs[0].identity}" == runs[0].output.stem
    assert [run.gpus for run in runs] == [0, 0, 0, 0, 1]
    assert {status_of(run) for run in runs} == {"pending"}


def test_entries_replace_defaults(batch):
    defaults = {"notebook": "tiny.ipynb", "parameters": {"number": 1}, "grid": {"name": ["a", "b"]}}
    runs = batch({"defaults": defaults, "runs": [{"parameters": {"name": "c"}, "grid": {"number": [2, 3]}}]})
    assert [run.parameters for run in runs] == [{"name": "c", "number": 2}, {"name": "c", "number": 3}]


def test_identity(batch):
    def identity(values, **others):
        return batch([{"notebook": "tiny.ipynb", "parameters": values}], **others)[0].identity

    first = identity({"number": 3})
    assert first == identity({"number": 3}), "stable"
    assert first == identity({"number": 3, "rate": 1}), "a default that is spelled out is no other run"
    assert first != identity({"number": 4})
    assert first != identity({"number": 3}, work=WORK + "\n1")
    assert first != identity({"number": 3}, parameters=PARAMETERS.replace("None", "1"))


def test_every_problem_is_told_at_once(batch, tmp_path):
    wrong = {"number": 1.5, "rate": "1e-3", "name": 3, "flag": 1, "items": "x", "other": 1}
    with pytest.raises(ValueError, match="nothing was started") as caught:
        batch(
            [
                {"notebook": "tiny.ipynb", "parameters": wrong},
                {"notebook": "missing.ipynb"},
                {"notebook": "tiny.ipynb", "grid": {"number": 3}},
                {"notebook": "tiny.ipynb", "grid": {"number": [5, 5]}},
                {"notebook": "tiny.ipynb", "parameters": {"number": True}},
                {"parameters": {"number": 7}},
            ]
        )
    message = str(caught.value)
    for part in (
        "run 1: number: expected int as in tiny.ipynb, got 1.5",
        "run 1: rate: expected float as in tiny.ipynb, got '1e-3'; in YAML, write 1.0e-3 for 1e-3",
        "run 1: name: expected str",
        "run 1: flag: expected bool",
        "run 1: items: expected list",
        "run 1: other: unknown in tiny.ipynb, which has number, rate, name, flag, items, anything",
        "missing.ipynb: no such notebook",
        "run 3: grid: number: expected a list of values, got 3",
        "run 4: the run {'number': 5} is there twice",
        "run 5: number: expected int",
        "run 6: expected 'notebook: path'",
    ):
        assert part in message
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("runs", "message"),
    [
        ([], "expected at least one run"),
        ("text", "expected a list of runs"),
        ([{"notebok": "tiny.ipynb"}], "expected the keys notebook, parameters, grid, gpus"),
        ([{"notebook": "tiny.ipynb", "gpus": 2}], "gpus: expected 0 or 1, got 2"),
        ([{"notebook": "tiny.ipynb", "parameters": [1]}], "parameters: expected names and values"),
    ],
)
def test_bad_files(batch, runs, message):
    with pytest.raises(ValueError, match=message):
        batch(runs)


@pytest.fixture
def planned(batch, tmp_path):
    """Function planning a batch that is given as text, of a notebook with a task and an output."""
    batch(numbered(1), parameters=PARAMETERS + "task: str = 'SYS-1(1,5)'\noutput: str = 'results'")

    def make(text):
        (tmp_path / "batch.yaml").write_text(f"defaults: {{notebook: tiny.ipynb}}\nruns:\n{text}", encoding="utf-8")
        return plan(tmp_path / "batch.yaml", tmp_path / "out")

    return make


TAKEN_OTHERWISE = [
    ("- parameters: {number: 1, number: 2}", "line 3: the key 'number' is there twice (lines 3 and 3); keep one"),
    ("- parameters: {number: 1}\n  parameters: {flag: true}", "the key 'parameters' is there twice (lines 3 and 4)"),
    ("- grid: {name: [a], 'name': [b]}", "the key 'name' is there twice"),
    ("- parameters: {items: [{a: 1, a: 2}]}", "the key 'a' is there twice"),
    ("- {}\nruns: []", "the key 'runs' is there twice (lines 2 and 4)"),
    ("- grid: {task: [SYS-1(5,10)]}", "'SYS-1(5' lacks a parenthesis; quote a text with commas: 'SYS-1(5,10)'"),
    ("- parameters: {task: SYS-1(5,10)}", "'SYS-1(5' lacks a parenthesis"),
    ("- parameters:\n    task: SYS-1(5", "line 4: 'SYS-1(5' lacks a parenthesis"),
    ("- parameters: {task: 'SYS-1(5'}", "task: expected a task or a mixture, such as 'SYS-1(1,5)', got 'SYS-1(5'"),
    ("- parameters: {task: SYS-1}", "task: expected a task or a mixture"),
    ("- parameters: {name: no}", "line 3: no may be a text or true or false; write 'no', or true or false"),
    ("- parameters: {flag: yes}", "yes may be a text or true or false"),
    ("- parameters: {anything: [on, Off]}", "on may be a text or true or false"),
    ("- parameters: {rate: 1e-3}", "1e-3 may be a text or another number; write a number such as 8 or 1.0e-3"),
    ("- parameters: {anything: 1.0e3}", "1.0e3 may be a text or another number"),
    ("- parameters: {number: 010}", "010 may be a text or another number"),
    ("- parameters: {name: 08}", "or quote it: '08'"),
    ("- parameters: {number: 1_000}", "1_000 may be a text or another number"),
    ("- parameters: {number: 5:10}", "5:10 may be a date or a time; quote the text: '5:10'"),
    ("- parameters: {anything: 2026-01-02}", "2026-01-02 may be a date or a time"),
    ("- parameters: {anything: None}", "None is a text in YAML; write null, or 'None'"),
    ("- parameters:\n\tnumber: 1", "line 4: found character a tab (write spaces)"),
    ("- gpus: true", "gpus: expected 0 or 1, got True"),
]


@pytest.mark.parametrize(("text", "message"), TAKEN_OTHERWISE, ids=[text for text, _ in TAKEN_OTHERWISE])
def test_what_yaml_takes_otherwise_than_it_was_meant(planned, text, message):
    """Like reports that a settings file lost a key that was there twice, read a country code as false, or 010 as 8."""
    with pytest.raises(ValueError, match=r"batch\.yaml") as caught:
        planned(text)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_yaml_that_says_what_it_means(planned, tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    text = "- &a\n  parameters: {number: -3, rate: 1.0e-3, name: 'no', anything: [0x, '08', null, 1.5], flag: true}\n"
    text += "  grid:\n    output: ['a/{run}']\n    task:\n      - SYS-1(5,10) + MINE(1,2)\n"
    text += "- {<<: *a, grid: {}, parameters: {output: ~/b}}"
    first, second = planned(text)
    assert first.parameters.pop("output") == f"a/{first.output.stem}"
    assert first.parameters == {
        "number": -3, "rate": 0.001, "name": "no", "anything": ["0x", "08", None, 1.5], "flag": True,
        "task": "SYS-1(5,10) + MINE(1,2)",
    }  # fmt: skip
    assert second.parameters["output"] == str(tmp_path / "b")


SAME_OUTPUT = [
    "- grid: {number: [1, 2, 3]}",
    "- grid: {number: [1, 2]}\n  parameters: {output: 'results/{number}'}",
    "- grid: {output: [a, ./a]}",
    "- grid: {output: [a, A]}",
    "- grid: {output: [a, b/../a/]}",
    '- grid: {output: ["\\u00e9", "e\\u0301"]}',
    "- grid: {output: [a, link]}",
    "- grid: {output: [a, HERE/a]}",
    "- grid: {output: [~/a, HOME/a]}",
    "- parameters: {number: 1, output: a}\n- parameters: {number: 2, output: a}",
    "- parameters: {number: 1}\n- parameters: {number: 2, output: results}",
]


@pytest.mark.parametrize("text", SAME_OUTPUT)
def test_two_runs_with_one_output(planned, tmp_path, monkeypatch, text):
    """Like reports that the runs of a sweep wrote over each other's results, and all were counted as done."""
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    (tmp_path / "link").symlink_to("a")
    with pytest.raises(ValueError, match="its results go to the output of another run") as caught:
        planned(text.replace("HERE", str(tmp_path)).replace("HOME", str(tmp_path / "home")))
    assert str(caught.value).count("run, {") == 1 or "[1, 2, 3]" not in text
    assert "write output: 'results/{run}', which differs" in str(caught.value)
    assert len(planned("- grid: {number: [1, 2, 3]}\n  parameters: {output: '{run}'}")) == 3


def test_untagged_notebook(batch):
    with pytest.raises(ValueError, match="no cell is tagged 'parameters'"):
        batch(numbered(1), tags=())


def test_missing_file(tmp_path):
    with pytest.raises(ValueError, match="no such file"):
        plan(tmp_path / "batch.yaml", tmp_path)


def test_missing_package(batch, monkeypatch):
    monkeypatch.setitem(sys.modules, "papermill", None)
    with pytest.raises(ValueError, match=r"pip install 'sciml-fm\[notebooks\]'"):
        batch(numbered(1))


def test_no_gpu(batch, monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    with pytest.raises(ValueError, match="asks for a GPU"):
        run_batch(batch([{"notebook": "tiny.ipynb", "gpus": 1}]))


@pytest.mark.notebook
def test_failures_are_kept_and_the_rest_go_on(batch, tmp_path, monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "7")
    work = WORK + "\nprint(os.environ['OMP_NUM_THREADS'], 'gpu', os.environ['CUDA_VISIBLE_DEVICES'])"
    work += "\nassert number != 1 or os.path.exists('mended'), 'broken\\nhere'"
    described = [{**numbered(3)[0], "gpus": 1, "parameters": {"anything": "{run}"}}]
    runs, calls = batch(described, work), []
    (tmp_path / "tiny.ipynb").unlink()  # what was planned is executed, whatever becomes of the file
    summary = run_batch(runs, processes=2, callback=calls.append)
    assert (summary.total, summary.done, summary.failed, summary.executed) == (3, 2, 1, 3)
    assert [run.parameters["number"] for run in summary.failures] == [1]
    assert calls[0] == (0, 0, 3, None)
    assert calls[-1] == (2, 1, 3, 0)
    done, failed, _ = markers(runs)
    assert done["status"] == "done"
    assert done["error"] is None
    assert done["parameters"] == {"number": 0, "anything": runs[0].output.stem}
    assert done["seconds"] > 0
    assert {"start", "host", "versions"} <= set(done)
    assert failed["error"].endswith("AssertionError: broken here")
    outputs = nbformat.read(runs[0].output, as_version=4).cells[-1].outputs
    assert outputs[0].text == f"{max(1, len(os.sched_getaffinity(0)) // 2)} gpu 7\n"
    assert "AssertionError" in runs[1].output.read_text(), "papermill's account of the failure"
    assert left_over(tmp_path) == []

    again = batch(described, work)
    assert [status_of(run) for run in again] == ["done", "failed", "done"]
    assert run_batch(again).executed == 0
    (tmp_path / "mended").touch()
    summary = run_batch(again, processes=1, retry_failed=True)
    assert (summary.done, summary.failed, summary.executed) == (3, 0, 1)
    assert sorted(executed(tmp_path)) == [0, 1, 1, 2]


SLEEPER = WORK + (
    "\nimport subprocess\nchild = subprocess.Popen(['sleep', '600'])"
    "\nwith open('pids', 'a') as pids:\n    pids.write(f'{os.getppid()} {os.getpid()} {child.pid}\\n')"
    "\nif not os.path.exists('mended'):\n    time.sleep(600)"
)


def pids(tmp_path):
    """Processes of the notebooks: papermill's, the kernel and its child."""
    file = tmp_path / "pids"
    return [int(pid) for pid in file.read_text().split()] if file.exists() else []


@pytest.mark.notebook
def test_time_limit_ends_every_process(batch, tmp_path):
    for limit in (6, 60):  # the longer one only on a machine where nothing begins in the shorter one
        runs = batch(numbered(1), SLEEPER)
        summary = run_batch(runs, timeout=limit, retry_failed=True)
        assert summary.failed == 1
        assert markers(runs)[0]["error"] == f"ended after the time limit of {limit} s"
        if pids(tmp_path):
            break
    assert runs[0].output.exists()
    assert len(pids(tmp_path)) == 3
    assert not any(alive(pid) for pid in pids(tmp_path))


def start_batch(tmp_path):
    """A process that runs the batch, as the command line would."""
    code = (
        "import signal\n"  # a background job of a shell inherits that interrupts are ignored
        "signal.signal(signal.SIGINT, signal.default_int_handler)\n"
        "from sciml_fm_core.study.batch_file import plan\n"
        "from sciml_fm_core.study.notebooks import run_batch\n"
        "try:\n    run_batch(plan('batch.yaml', 'out'), processes=2)\n"
        "except KeyboardInterrupt as stop:\n    print(stop)"
    )
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    return subprocess.Popen(
        [sys.executable, "-c", code], cwd=tmp_path, env=environment, stdout=subprocess.PIPE, text=True
    )


@pytest.mark.notebook
@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGKILL], ids=["interrupted", "killed"])
def test_stopped_batch_leaves_no_orphan_and_goes_on(batch, tmp_path, how):
    runs = batch(numbered(2), SLEEPER)
    with start_batch(tmp_path) as process:
        wait_for(lambda: len(pids(tmp_path)) == 6)
        process.send_signal(how)
        try:
            output, _ = process.communicate(timeout=200)
        finally:
            process.kill()
    if how == signal.SIGINT:
        assert output == "stopped: 0 of 2 runs are finished; the same command goes on with the rest\n"
    wait_for(lambda: not any(alive(pid) for pid in pids(tmp_path)))
    assert markers(runs) == []
    assert [name for name in left_over(tmp_path) if not name.endswith(".lock")] == []
    (tmp_path / "mended").touch()
    assert run_batch(runs, processes=2).done == 2
    assert left_over(tmp_path) == [], "nor the locks of the process that was killed"
    assert not any(alive(pid) for pid in pids(tmp_path)), "not even what a finished notebook started"


@pytest.mark.notebook
# Of the cluster that the test starts and damages, not of the batch.
@pytest.mark.filterwarnings("ignore")
def test_eight_runs_on_a_cluster_that_loses_a_worker(batch, tmp_path):
    distributed = pytest.importorskip("distributed")
    runs, killed = batch(numbered(8)), []

    def finished():
        return {marker["parameters"]["number"] for marker in markers(runs)}

    def interrupt(progress):
        if progress.done >= 2:
            raise KeyboardInterrupt

    def kill_a_worker(progress):
        if progress.done >= 5 and not killed:
            os.kill(next(iter(cluster.workers.values())).pid, signal.SIGKILL)
            killed.extend(finished())

    with distributed.LocalCluster(n_workers=2, processes=True, threads_per_worker=1, dashboard_address=None) as cluster:
        with pytest.raises(KeyboardInterrupt, match="of 8 runs are finished; the same command goes on"):
            run_batch(runs, scheduler=cluster.scheduler_address, processes=2, callback=interrupt)
        interrupted = finished()
        halfway = set(executed(tmp_path)) - interrupted  # begun, and stopped before they were finished
        assert 2 <= len(interrupted) <= 5
        assert len(halfway) <= 2
        assert left_over(tmp_path) == []
        summary = run_batch(runs, scheduler=cluster.scheduler_address, processes=2, callback=kill_a_worker)
    # A run whose worker was lost after it had ended, and before it was heard of, is found done and not counted.
    assert (summary.done, summary.failed) == (8, 0)
    assert 8 - len(interrupted) - 1 <= summary.executed <= 8 - len(interrupted)
    times = [executed(tmp_path).count(number) for number in range(8)]
    assert all(times), "nothing is lost"
    assert sum(times) <= 8 + 2 + 1, "only what was in progress is begun again"
    finished_early = (interrupted | set(killed)) - halfway
    assert {times[number] for number in finished_early} == {1}, "nothing finished is repeated"
    assert {marker["status"] for marker in markers(runs)} == {"done"}
    assert left_over(tmp_path) == []


@pytest.fixture
def cluster():
    """A Dask cluster of two workers with a thread each, where a task that ends a worker is tried once more."""
    distributed, dask = pytest.importorskip("distributed"), pytest.importorskip("dask")
    once, workers = dask.config.set({"distributed.scheduler.allowed-failures": 1}), {"threads_per_worker": 1}
    with once, distributed.LocalCluster(n_workers=2, processes=True, dashboard_address=None, **workers) as cluster:
        yield cluster


@pytest.mark.notebook
@pytest.mark.filterwarnings("ignore")
def test_a_run_that_takes_every_worker_down_with_it_is_a_failure(batch, cluster):
    deadly = WORK + "\nimport psutil, signal\nif number:\n    "
    deadly += "os.kill(psutil.Process(os.getpid()).parents()[1].pid, signal.SIGKILL)\n    time.sleep(60)"
    runs = batch(numbered(2), deadly)
    summary = run_batch(runs, scheduler=cluster.scheduler_address)
    assert (summary.done, summary.failed) == (1, 1)
    assert markers(runs)[1]["error"].startswith("KilledWorker: ")


@pytest.mark.notebook
@pytest.mark.filterwarnings("ignore")
def test_a_run_that_asks_for_a_gpu_that_no_worker_offers(batch, cluster):
    with pytest.raises(ValueError, match="no worker offers one; start some with --resources GPU=1"):
        run_batch(batch([{"notebook": "tiny.ipynb", "gpus": 1}]), scheduler=cluster.scheduler_address)


def test_bad_limits_are_refused(batch):
    for limits in ({"timeout": 0}, {"processes": 0}):
        with pytest.raises(ValueError, match="expected"):
            run_batch(batch(numbered(1)), **limits)


def test_merges_of_merges_are_bounded():
    """Like reports on documents of a few lines that occupy a reader for hours."""
    lines = ["a0: &a0 {x: 1}", *(f"a{i}: &a{i} {{<<: [{', '.join([f'*a{i - 1}'] * 9)}]}}" for i in range(1, 30))]
    with pytest.raises(ValueError, match=r"own.yaml, line 5: expected at most 1000 merged keys, got more"):
        parse_yaml("\n".join(lines), "own.yaml")
