"""The notebooks run with papermill, leave what they promise, and refuse bad parameters before they compute anything.

They run one after another in one kernel, so that what they import is imported once, and keep their records in one
folder, so that what two of them ask for is computed once; what `test_docs` and `test_package` execute has a kernel of
its own. What people see is looked at in a browser without network: exported to HTML, and in JupyterLab.
"""

import ast
import json
import re
import subprocess
import sys
from base64 import b64decode
from contextlib import contextmanager
from io import BytesIO
from pathlib import Path

import nbformat
import numpy as np
import papermill
import pytest
import torch
from jupyter_client.asynchronous import AsyncKernelClient
from jupyter_client.blocking import BlockingKernelClient
from jupyter_client.manager import KernelManager
from nbconvert import HTMLExporter
from PIL import Image
from playwright.sync_api import expect, sync_playwright
from test_dashboard_browser import ARGUMENTS, TIMEOUT, chromium, free_port, wait_until_it_answers

from sciml_fm_core import Task, load_operator, relative_error
from sciml_fm_core.files import results_folder
from sciml_fm_core.study.analysis import percent
from sciml_fm_core.study.records import read_table
from sciml_fm_core.study.registry import find_experiment
from sciml_fm_core.study.runs import identity

NOTEBOOKS = Path(__file__).parent.parent / "notebooks"
ALL = sorted(NOTEBOOKS.glob("*.ipynb"))

STUDIES = {
    "q1_downstream_data": "the lowest error that both starts reach",
    "q2_model_size": "each was pre-trained on",
    "q3_physics_shift": "are beyond every operator trained from scratch",
    "q4_mixed_operators": "within 1.5 times its specialist",
    "seeds": "the worst fine-tuned run is better than the best run from scratch",
    "architectures": "Zero-shot, ",
    "unseen": "With 4 examples its error is at most a third of training from scratch's on",
}
"""The notebooks of the study, and what the paragraph on each says."""

pytestmark = [
    pytest.mark.notebook,
    # Jupyter's own libraries, not ours.
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::RuntimeWarning:zmq"),
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
]


@pytest.fixture(scope="module")
def kernel():
    """A kernel, and a function that lets it forget what ran in it and go to a folder."""
    manager = KernelManager(kernel_name="python3", client_factory=AsyncKernelClient)  # as papermill expects it
    manager.start_kernel()
    connect, connections = manager.client, []

    def client():
        connections.append(connect())
        return connections[-1]

    def begin(folder):
        while connections:  # papermill leaves them open where the kernel is not its own
            connections.pop().stop_channels()
        # With its manager it asks whether the process lives; a heartbeat is late where the machine is busy.
        own = BlockingKernelClient(parent=manager, connection_file=manager.connection_file)
        own.load_connection_file()
        own.start_channels()
        own.wait_for_ready(timeout=TIMEOUT / 1000)
        own.execute(f"%reset -f\n%cd -q {folder}", reply=True, timeout=TIMEOUT / 1000)
        own.stop_channels()

    manager.client = client
    yield manager, begin
    begin("/")
    manager.shutdown_kernel(now=True)


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    """Folder of the records of all notebooks."""
    return tmp_path_factory.mktemp("study")


@pytest.fixture
def execute(kernel, tmp_path):
    """Function that executes a notebook with parameters; its results go to `tmp_path / "out"`."""
    manager, begin = kernel

    def run(name, **parameters):
        executed = tmp_path / f"{name}.ipynb"
        defaults = {"output": str(tmp_path / "out")} | (
            {"budget": "smoke", "device": "cpu"} if name != "00_data" else {}
        )
        begin(tmp_path)
        papermill.execute_notebook(
            str(NOTEBOOKS / f"{name}.ipynb"), str(executed), parameters=defaults | parameters, kernel_name="python3",
            cwd=str(tmp_path), progress_bar=False, log_output=False, km=manager,
        )  # fmt: skip
        return nbformat.read(executed, as_version=4)

    return run


@pytest.fixture
def computed(execute, study, tmp_path):
    """Function that executes the notebook of an experiment: what it shows, and the records of its runs in order."""

    def run(name):
        notebook = execute(name, folder=str(study), processes=1)
        runs, records = find_experiment(name)("smoke"), read_table(tmp_path / "out" / "records.csv")
        assert [record["identity"] for record in records] == [identity(run) for run in runs]
        assert {path.suffix for path in (tmp_path / "out").iterdir()} == {".csv", ".png", ".svg"}
        return notebook, records

    return run


def outputs(notebook):
    return [output for cell in notebook.cells for output in cell.get("outputs", [])]


def text(notebook):
    """All Markdown that the notebook displays, and what it prints."""
    return "\n".join(o.get("data", {}).get("text/markdown", "") + o.get("text", "") for o in outputs(notebook))


def pictures(notebook):
    """How many pictures a notebook shows; they are part of it, and whole."""
    shown = [output["data"]["image/png"] for output in outputs(notebook) if "image/png" in output.get("data", {})]
    found = [Image.open(BytesIO(b64decode(data))) for data in shown]
    for picture in found:
        picture.load()
        assert picture.width > 100
        assert picture.height > 50
    return len(found)


@contextmanager
def browser_page(**settings):
    """A page of a browser; begun after a notebook was executed, since both want the event loop for themselves."""
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium(playwright), args=ARGUMENTS)
        page = browser.new_page(**settings)
        page.set_default_timeout(TIMEOUT)
        yield page
        browser.close()


SHOWN = """() => Array.from(document.images).filter(
  image => image.complete && image.naturalWidth > 100 && image.getBoundingClientRect().height > 50).length"""


def predicts(bundle, label):
    operator = load_operator(bundle)
    examples = Task.parse(label).sample(2, 32, torch.Generator().manual_seed(0))
    error = relative_error(operator.predict(examples.source, examples.coefficients), examples.solution)
    return torch.isfinite(error).all()


def test_pretrain(execute, tmp_path):
    notebook = execute("01_pretrain", size="64K", seed=5)
    record = json.loads((tmp_path / "out" / "results.json").read_text(encoding="utf-8"))
    assert record["parameters"]["budget"] == "smoke"
    assert record["seed"] == 5
    assert record["examples_seen"] == record["settings"]["steps"] * record["settings"]["batch_size"]
    assert 0 < record["errors"]["SYS-1(1,5)"] < 10
    assert record["hardware"]
    assert record["curve"]
    assert predicts(tmp_path / "out" / "operator.safetensors", "SYS-1(1,5)")
    assert load_operator(tmp_path / "out" / "operator.safetensors").card["errors"] == record["errors"]
    assert pictures(notebook) >= 3, "the data, the learning curve and the fields are shown"


def test_adapt(execute, tmp_path):
    """Exported to HTML, its pictures need neither a kernel nor a network."""
    notebook = execute("02_adapt", examples="0,4,8")
    record = json.loads((tmp_path / "out" / "results.json").read_text(encoding="utf-8"))
    assert [(run["examples"], run["start"]) for run in record["runs"]] == [
        (4, "fine-tuned"), (4, "from scratch"), (8, "fine-tuned"), (8, "from scratch")
    ]  # fmt: skip
    tuned, scratch = (run["error"] for run in record["runs"][-2:])
    assert tuned < scratch, "five steps from a pre-trained operator beat five steps from random weights"
    assert 0 < record["zero_shot_error"] < 0.5
    assert predicts(tmp_path / "out" / "fine_tuned.safetensors", "SYS-1(5,10)")
    assert predicts(tmp_path / "out" / "from_scratch.safetensors", "SYS-1(5,10)")
    made = pictures(notebook)
    assert made >= 2, "the error against examples and the fields are shown"
    exported = tmp_path / "exported.html"
    exported.write_text(HTMLExporter().from_notebook_node(notebook)[0], encoding="utf-8")
    with browser_page(offline=True) as page:
        page.goto(exported.as_uri(), wait_until="domcontentloaded")
        page.wait_for_function(f"({SHOWN})() == {made}")


@pytest.mark.parametrize(("name", "claim"), STUDIES.items(), ids=STUDIES)
def test_studies(computed, name, claim):
    notebook, records = computed(name)
    shown = text(notebook)
    assert f"{len(records)} points" in shown
    assert claim in shown, "the paragraph that says what the run shows"
    assert all(0 < record["error"] < float("inf") for record in records)
    zero_shot = next(record["error"] for record in records if not record["examples"])
    assert name in ("seeds",) or f"{zero_shot:.2%}" in shown, "computed, not canned"
    assert pictures(notebook)


def test_results_go_beside_the_notebooks_whoever_starts_them(tmp_path, monkeypatch):
    """As JupyterLab does, in their own folder, and as papermill does, where it is called."""
    monkeypatch.chdir(tmp_path)
    assert results_folder("runs/study") == Path("runs/study")
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "00_data.ipynb").write_text("{}", encoding="utf-8")
    monkeypatch.chdir(tmp_path / "mine")
    assert results_folder("runs/study").resolve() == tmp_path / "runs" / "study"
    assert results_folder("../other") == Path("../other")
    assert results_folder(tmp_path / "x") == tmp_path / "x"


def test_physics_loss(computed):
    notebook, records = computed("physics_loss")
    shown = text(notebook)
    for system in ("SYS-1", "SYS-2"):
        assert f"**{system}.** From {system}(" in shown
    for record in records:
        assert f"{record['error']:.2%}" in shown, "computed, not canned"
    assert f"{records[-1]['error_before']:.2%}" in shown
    assert pictures(notebook)


def test_darcy(computed):
    notebook, records = computed("darcy")
    shown = text(notebook)
    for record in records:
        for n in (16, 32):
            for error in record[f"error_{n}"]:
                assert f"{error:.2%}" in shown, "computed, not canned"
    assert "**In this run does not hold**" in shown
    assert pictures(notebook)


def test_convergence(computed):
    notebook, records = computed("convergence")
    shown = text(notebook)
    for record in records:
        if record["kind"] == "flow":
            assert f"{record['error'][-1]:.1%}" in shown, "computed, not canned"
    for claim in (
        "**Operators that ship.**",
        "and never on a finer grid",
        "pass by construction",
        "**Steps of time.**",
    ):
        assert claim in shown


def test_unsupervised(computed):
    notebook, records = computed("unsupervised")
    shown = text(notebook)
    for system in ("SYS-1", "SYS-3"):
        for part in ("degradation", "labels saved", "in context"):
            assert f"**{system}, {part}.**" in shown
    for record in records:
        if record["kind"] == "in_context" or record["start"] == "from scratch":
            for point in record["points"]:
                assert f"{point['error']:.2%}" in shown, "computed, not canned"
    assert "**This run does not bear out**" in shown
    assert pictures(notebook) == 2


def test_low_precision(computed):
    notebook, records = computed("low_precision")
    shown = text(notebook)
    worst = max(record["error"][3] / record["error"][0] - 1 for record in records)
    assert f"{worst:+.1%} at most" in shown, "computed, not canned"
    assert "**By mode or in blocks.**" in shown
    assert pictures(notebook) == 1


def test_weight_spectra(computed):
    notebook, records = computed("weight_spectra")
    shown = text(notebook)
    for record in records:
        if record["kind"] == "training_spectra":
            low, high = min(record["exponent"]), max(record["exponent"])
            assert f"{low:.2f} to {high:.2f}" in shown, "computed, not canned"
    assert "In the fine-tunings the error falls" in shown
    assert pictures(notebook) == 2


@pytest.mark.parametrize(
    ("name", "fields", "claims", "drawn"),
    [
        ("variable_coefficients", ["error"], ["no winner is named"], 2),
        ("rollout", ["single_step"], ["The solver wins|The solver loses|slower settings", "2 of 2 roll-outs"], 2),
        (
            "evolution_transfer",
            ["after_10", "each_single_step", "each_after_10"],
            ["from scratch", "the untouched operator is ahead of the cheap step alone", "always ahead"],
            2,
        ),
        ("forecasting", ["errors"], ["This run bears out", "This run contradicts"], 1),
        ("step_losses", ["error"], ["a small residual is no small error"], 1),
    ],
)
def test_side_studies(computed, name, fields, claims, drawn):
    notebook, records = computed(name)
    shown = text(notebook)
    for field in fields:
        found = [record[field] for record in records if field in record]
        assert found
        for number in np.ravel(found):
            assert percent(number) in shown, "computed, not canned"
    for claim in claims:
        assert re.search(claim, shown)
    assert pictures(notebook) == drawn


def test_training_range(computed):
    notebook, records = computed("training_range")
    shown = text(notebook)
    for record in records:
        assert f"{record['area_flag']:.3f}" in shown, "computed, not canned"
    assert "This run bears out" in shown
    assert pictures(notebook) == 3


def test_uncertainty(computed):
    notebook, records = computed("uncertainty")
    shown = text(notebook)
    deep = [row for row in records[0]["rows"] if row["method"] == "deep ensemble" and row["shift"] == "medium"]
    assert f"deep ensemble {deep[0]['pearson']:.2f}" in shown, "computed, not canned"
    assert "This run contradicts" in shown
    assert pictures(notebook) == 2


def test_own_data(execute, tmp_path):
    notebook = execute("own_data", examples="8")
    assert "with 8 examples" in text(notebook)
    assert "The band holds 90 % of the points in" in text(notebook)
    assert pictures(notebook) == 2
    out = tmp_path / "out"
    assert load_operator(out / "operator.safetensors").card["downstream_examples"] == 8
    own = {"data": str(out / "data.npz"), "periodic": True, "output": str(tmp_path / "scratch")}
    assert "From scratch on 8 examples the error is" in text(execute("own_data", examples="8", **own))


def test_data(execute, tmp_path):
    notebook = execute("00_data", count=8, resolution=32)
    assert pictures(notebook) >= 3
    assert "Largest relative residual" in text(notebook)
    assert len(list((tmp_path / "out").glob("*.svg"))) == 5


@pytest.fixture(scope="module")
def jupyterlab(tmp_path_factory):
    """A folder, and the address of the workspaces in which JupyterLab shows its notebooks."""
    folder = tmp_path_factory.mktemp("jupyterlab")
    settings = folder / "settings" / "@jupyterlab" / "notebook-extension" / "tracker.jupyterlab-settings"
    settings.parent.mkdir(parents=True)
    settings.write_text('{"windowingMode": "none"}', encoding="utf-8")  # cells out of sight are drawn too
    port, log = free_port(), folder / "server.log"
    with log.open("w") as written:
        server = subprocess.Popen(
            [sys.executable, "-m", "jupyterlab", "--no-browser", f"--port={port}", "--allow-root",
             "--IdentityProvider.token=", f"--LabApp.user_settings_dir={folder / 'settings'}"],
            cwd=folder, stdout=written, stderr=subprocess.STDOUT,
        )  # fmt: skip
    try:
        wait_until_it_answers(f"http://127.0.0.1:{port}/api", server, log)
        yield folder, f"http://127.0.0.1:{port}/lab/workspaces"
    finally:
        server.kill()  # its kernels notice, and end
        server.wait(timeout=60)


@contextmanager
def lab_page(address):
    """A page of JupyterLab; it reaches no other host."""
    with browser_page(viewport={"width": 1366, "height": 900}) as page:
        page.route(lambda url: "127.0.0.1" not in url, lambda route: route.abort())
        page.goto(address)
        yield page


def test_lab(execute, jupyterlab):
    """As a class sees it: in JupyterLab, without network; results and answers are folded until they are asked for."""
    notebook, (folder, address) = execute("lab"), jupyterlab
    assert pictures(notebook) == 4
    nbformat.write(notebook, folder / "lab.ipynb")
    with lab_page(f"{address}/class/tree/lab.ipynb") as page:
        folded = page.locator(".jp-OutputPlaceholder")
        expect(folded).to_have_count(4, timeout=TIMEOUT)
        assert not page.evaluate(SHOWN)
        expect(page.locator(".jp-InputPlaceholder")).to_have_count(5)
        for _ in range(4):
            folded.first.click()
        page.wait_for_function(f"({SHOWN})() == 4")
        answers = page.locator(".jp-OutputArea details")
        expect(answers).to_have_count(5, timeout=TIMEOUT)
        inside = answers.nth(2).locator("table")
        assert not inside.is_visible()
        answers.nth(2).locator("summary").click()
        inside.wait_for()
        assert "omega" in inside.inner_text()


def test_the_stage_in_jupyterlab(jupyterlab):
    """A lecture can mix text and dials."""
    folder, address = jupyterlab
    code = "from sciml_fm_core.companions import stage\n\nstage('system=poisson&model=sys-1&dial=10')"
    python = {"kernelspec": {"name": "python3", "display_name": "Python 3"}}
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(code)], metadata=python)
    nbformat.write(notebook, folder / "lecture.ipynb")
    with lab_page(f"{address}/lecture/tree/lecture.ipynb") as page:
        page.get_by_text("Kernel status: Idle").first.wait_for(state="attached")
        here, begun = (
            page.locator(".operator-stage"),
            page.locator(".jp-InputPrompt", has_text=re.compile(r"\[(\*|\d+)\]")),
        )
        for _ in range(12):  # a notebook that still takes its place loses the focus, and with it the keys
            page.locator(".jp-Notebook .jp-CodeCell .cm-content").first.click()
            page.keyboard.press("Control+Enter")
            try:
                expect(begun).to_be_visible(timeout=10_000)
                break
            except AssertionError:
                continue
        expect(here).to_have_attribute("data-dial", "10", timeout=TIMEOUT)
        expect(page.locator("[data-test=zero_shot-error]")).to_have_text(re.compile(r"%$"), timeout=TIMEOUT)
        address = page.url
        page.locator(".dial > input[type=range]").press("Home")
        expect(here).to_have_attribute("data-dial", "1", timeout=TIMEOUT)
        curve = page.locator("[data-curve=zero_shot]")
        expect(curve).to_have_attribute("data-points", re.compile(r"^2\d$"), timeout=TIMEOUT)
        assert page.url == address


@pytest.mark.parametrize(
    ("name", "parameters", "message"),
    [
        ("q1_downstream_data", {"budget": "huge"}, "budget: expected one of smoke, laptop, gpu, paper"),
        ("00_data", {"count": 0}, "count, resolution: expected at least 4 and 32"),
        ("01_pretrain", {"budget": "huge"}, "budget: expected one of smoke, laptop, paper"),
        ("02_adapt", {"task": "SYS-1(10,5)"}, "expected low <= high"),
        ("own_data", {"budget": "huge"}, "budget: expected one of smoke, laptop, paper"),
    ],
)
def test_bad_parameters_stop_at_the_top(execute, tmp_path, name, parameters, message):
    with pytest.raises(papermill.PapermillExecutionError, match="ValueError") as caught:
        execute(name, **parameters)
    assert message in caught.value.evalue
    assert not list((tmp_path / "out").glob("*")) if (tmp_path / "out").exists() else True


@pytest.mark.parametrize("path", ALL, ids=lambda path: path.stem)
def test_committed_form(path):
    """Typed literal parameters, no outputs, a claim first."""
    notebook = nbformat.read(path, as_version=4)
    assert notebook.cells[0].cell_type == "markdown"
    assert "**Claim.**" in notebook.cells[0].source
    tagged = [cell for cell in notebook.cells if "parameters" in cell.metadata.get("tags", [])]
    assert len(tagged) == 1
    for statement in ast.parse(tagged[0].source).body:
        assert isinstance(statement, ast.AnnAssign), "every parameter has a type"
        ast.literal_eval(statement.value)
    for cell in notebook.cells:
        if cell.cell_type == "code":
            assert not cell.outputs
            assert cell.execution_count is None
