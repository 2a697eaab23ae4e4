"""The notebooks run with papermill, leave what they promise, and refuse bad parameters before they compute anything.

What they show is counted in a browser without network: exported to HTML, and in JupyterLab.
"""

import ast
import json
import re
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import nbformat
import papermill
import pytest
import torch
from nbconvert import HTMLExporter
from playwright.sync_api import expect, sync_playwright
from test_dashboard_browser import ARGUMENTS, TIMEOUT, chromium, free_port, wait_until_it_answers

from sciml_fm_core import Task, load_operator, relative_error
from sciml_fm_core.experiments.convergence.runs import convergence_runs
from sciml_fm_core.experiments.low_precision.runs import low_precision_runs
from sciml_fm_core.experiments.physics_loss import physics_loss
from sciml_fm_core.experiments.training_range.runs import training_range
from sciml_fm_core.experiments.uncertainty.runs import uncertainty
from sciml_fm_core.experiments.unsupervised.runs import unsupervised
from sciml_fm_core.experiments.weight_spectra.runs import weight_spectra
from sciml_fm_core.study.display import results_folder
from sciml_fm_core.study.experiments import EXPERIMENTS
from sciml_fm_core.study.records import read_table
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


def execute(name, tmp_path, **parameters):
    executed = tmp_path / "executed.ipynb"
    defaults = {"output": str(tmp_path / "out")}
    if name != "00_data.ipynb":
        defaults |= {"budget": "smoke", "device": "cpu"}
    papermill.execute_notebook(
        str(NOTEBOOKS / name),
        str(executed),
        parameters=defaults | parameters,
        kernel_name="python3",
        cwd=str(tmp_path),
        progress_bar=False,
        log_output=False,
    )
    return nbformat.read(executed, as_version=4)


@pytest.fixture(scope="module")
def figures():
    """Function telling how many pictures an executed notebook shows as HTML, in a browser that has no network."""
    with ThreadPoolExecutor(1) as thread:  # of the browser alone: papermill wants the event loop of this one for itself
        playwright = thread.submit(sync_playwright().start).result()
        browser = thread.submit(
            lambda: playwright.chromium.launch(executable_path=chromium(playwright), args=ARGUMENTS)
        ).result()
        yield lambda notebook, folder: thread.submit(count_figures, browser, notebook, folder).result()
        thread.submit(browser.close).result()
        thread.submit(playwright.stop).result()


def count_figures(browser, notebook, tmp_path):
    page_file = tmp_path / "executed.html"
    page_file.write_text(HTMLExporter().from_notebook_node(notebook)[0], encoding="utf-8")
    made = sum(
        output.get("data", {}).get("text/html", "").count("data:image/png;base64")
        for cell in notebook.cells
        for output in cell.get("outputs", [])
    )
    context = browser.new_context(offline=True)
    page = context.new_page()
    page.goto(page_file.as_uri(), wait_until="domcontentloaded")
    shown = page.evaluate(SHOWN)
    context.close()
    assert shown == made, "no picture is left out or broken"
    return shown


SHOWN = """() => Array.from(document.images).filter(
  image => image.complete && image.naturalWidth > 100 && image.getBoundingClientRect().height > 50).length"""


def predicts(bundle, label):
    operator = load_operator(bundle)
    examples = Task.parse(label).sample(2, 32, torch.Generator().manual_seed(0))
    error = relative_error(operator.predict(examples.source, examples.coefficients), examples.solution)
    return torch.isfinite(error).all()


def test_pretrain(tmp_path, figures):
    notebook = execute("01_pretrain.ipynb", tmp_path, size="64K", seed=5)
    record = json.loads((tmp_path / "out" / "results.json").read_text(encoding="utf-8"))
    assert record["parameters"]["budget"] == "smoke"
    assert record["seed"] == 5
    assert record["examples_seen"] == record["settings"]["steps"] * record["settings"]["batch_size"]
    assert 0 < record["errors"]["SYS-1(1,5)"] < 10
    assert record["hardware"]
    assert record["curve"]
    assert predicts(tmp_path / "out" / "operator.safetensors", "SYS-1(1,5)")
    assert load_operator(tmp_path / "out" / "operator.safetensors").card["errors"] == record["errors"]
    assert figures(notebook, tmp_path) >= 3, "the data, the learning curve and the fields are shown"


def test_adapt(tmp_path, figures):
    notebook = execute("02_adapt.ipynb", tmp_path, examples="0,4,8")
    record = json.loads((tmp_path / "out" / "results.json").read_text(encoding="utf-8"))
    assert [(run["examples"], run["start"]) for run in record["runs"]] == [
        (4, "fine-tuned"), (4, "from scratch"), (8, "fine-tuned"), (8, "from scratch")
    ]  # fmt: skip
    tuned, scratch = (run["error"] for run in record["runs"][-2:])
    assert tuned < scratch, "five steps from a pre-trained operator beat five steps from random weights"
    assert 0 < record["zero_shot_error"] < 0.5
    assert predicts(tmp_path / "out" / "fine_tuned.safetensors", "SYS-1(5,10)")
    assert predicts(tmp_path / "out" / "from_scratch.safetensors", "SYS-1(5,10)")
    assert figures(notebook, tmp_path) >= 2, "the error against examples and the fields are shown"


def text(notebook):
    """All Markdown that the notebook displays, and what it prints."""
    outputs = [output for cell in notebook.cells for output in cell.get("outputs", [])]
    return "\n".join([o.get("data", {}).get("text/markdown", "") + o.get("text", "") for o in outputs])


@pytest.mark.parametrize(("name", "claim"), STUDIES.items(), ids=STUDIES)
def test_studies(tmp_path, name, claim, figures):
    notebook = execute(f"{name}.ipynb", tmp_path, folder=str(tmp_path / "study"), processes=1)
    runs = EXPERIMENTS[name]("smoke")
    records = read_table(tmp_path / "out" / "records.csv")
    assert [record["identity"] for record in records] == [identity(run) for run in runs]
    assert len(list((tmp_path / "study").glob("*.json"))) == len(set(runs))
    shown = text(notebook)
    assert f"{len(runs)} points" in shown
    assert claim in shown, "the paragraph that says what the run shows"
    zero_shot = next(record["error"] for record in records if not record["examples"])
    assert name in ("seeds",) or f"{zero_shot:.2%}" in shown, "computed, not canned"
    exported = {path.suffix for path in (tmp_path / "out").iterdir()}
    assert exported == {".csv", ".png", ".svg"}
    assert figures(notebook, tmp_path), "pictures, which need neither a kernel nor a network"


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


def test_physics_loss(tmp_path, figures):
    notebook, records = computed("physics_loss", physics_loss, tmp_path)
    shown = text(notebook)
    for system in ("SYS-1", "SYS-2"):
        assert f"**{system}.** From {system}(" in shown
    for record in records:
        assert f"{record['error']:.2%}" in shown, "computed, not canned"
    assert f"{records[-1]['error_before']:.2%}" in shown
    assert {path.suffix for path in (tmp_path / "out").iterdir()} == {".csv", ".png", ".svg"}
    assert figures(notebook, tmp_path)


def computed(name, experiment, tmp_path):
    """A notebook that computed the runs of its experiment, and their records in that order."""
    notebook = execute(f"{name}.ipynb", tmp_path, folder=str(tmp_path / "study"), processes=1)
    runs, records = experiment("smoke"), read_table(tmp_path / "out" / "records.csv")
    assert [record["identity"] for record in records] == [identity(run) for run in runs]
    return notebook, records


def test_convergence(tmp_path):
    notebook, records = computed("convergence", convergence_runs, tmp_path)
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


def test_unsupervised(tmp_path, figures):
    notebook, records = computed("unsupervised", unsupervised, tmp_path)
    shown = text(notebook)
    for system in ("SYS-1", "SYS-3"):
        for part in ("degradation", "labels saved", "in context"):
            assert f"**{system}, {part}.**" in shown
    for record in records:
        if record["kind"] == "in_context" or record["start"] == "from scratch":
            for point in record["points"]:
                assert f"{point['error']:.2%}" in shown, "computed, not canned"
    assert "**This run does not bear out**" in shown
    assert {path.suffix for path in (tmp_path / "out").iterdir()} == {".csv", ".png", ".svg"}
    assert figures(notebook, tmp_path) == 2


def test_low_precision(tmp_path, figures):
    notebook, records = computed("low_precision", low_precision_runs, tmp_path)
    shown = text(notebook)
    worst = max(record["error"][3] / record["error"][0] - 1 for record in records)
    assert f"{worst:+.1%} at most" in shown, "computed, not canned"
    assert "**By mode or in blocks.**" in shown
    assert figures(notebook, tmp_path) == 1


def test_weight_spectra(tmp_path, figures):
    notebook, records = computed("weight_spectra", weight_spectra, tmp_path)
    shown = text(notebook)
    for record in records:
        if record["kind"] == "training_spectra":
            low, high = min(record["exponent"]), max(record["exponent"])
            assert f"{low:.2f} to {high:.2f}" in shown, "computed, not canned"
    assert "In the fine-tunings the error falls" in shown
    assert figures(notebook, tmp_path) == 2


def test_training_range(tmp_path, figures):
    notebook, records = computed("training_range", training_range, tmp_path)
    shown = text(notebook)
    for record in records:
        assert f"{record['area_flag']:.3f}" in shown, "computed, not canned"
    assert "This run bears out" in shown
    assert figures(notebook, tmp_path) == 3


def test_uncertainty(tmp_path, figures):
    notebook, records = computed("uncertainty", uncertainty, tmp_path)
    shown = text(notebook)
    deep = [row for row in records[0]["rows"] if row["method"] == "deep ensemble" and row["shift"] == "medium"]
    assert f"deep ensemble {deep[0]['pearson']:.2f}" in shown, "computed, not canned"
    assert "This run contradicts" in shown
    assert figures(notebook, tmp_path) == 2


def test_data(tmp_path, figures):
    notebook = execute("00_data.ipynb", tmp_path, count=8, resolution=32)
    assert figures(notebook, tmp_path) >= 3
    assert "Largest relative residual" in text(notebook)
    assert len(list((tmp_path / "out").glob("*.svg"))) == 5


@contextmanager
def jupyterlab(folder, name):
    """A page of JupyterLab with a notebook of a folder; it reaches no other host."""
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
        with sync_playwright() as playwright:
            browser = playwright.chromium.launch(executable_path=chromium(playwright), args=ARGUMENTS)
            page = browser.new_page(viewport={"width": 1366, "height": 900})
            page.set_default_timeout(TIMEOUT)
            page.route(lambda url: "127.0.0.1" not in url, lambda route: route.abort())
            page.goto(f"http://127.0.0.1:{port}/lab/tree/{name}")
            yield page
            browser.close()
    finally:
        server.kill()  # its kernel notices, and ends
        server.wait(timeout=60)


def test_lab(tmp_path, figures):
    """As a class sees it: in JupyterLab, without network; answers are hidden until they are asked for."""
    notebook = execute("lab.ipynb", tmp_path)
    assert figures(notebook, tmp_path) == 4
    with jupyterlab(tmp_path, "executed.ipynb") as page:
        page.wait_for_function(f"({SHOWN})() == 4", timeout=TIMEOUT)
        answers = page.locator(".jp-OutputArea details")
        expect(answers).to_have_count(5, timeout=TIMEOUT)
        inside = answers.nth(2).locator("table")
        assert not inside.is_visible()
        answers.nth(2).locator("summary").click()
        inside.wait_for(timeout=TIMEOUT)
        assert "omega" in inside.inner_text()


def test_the_stage_in_jupyterlab(tmp_path):
    """A lecture can mix text and dials."""
    code = "from sciml_fm_core.companions import stage\n\nstage('system=poisson&model=sys-1&dial=10')"
    kernel = {"kernelspec": {"name": "python3", "display_name": "Python 3"}}
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(code)], metadata=kernel)
    nbformat.write(notebook, tmp_path / "lecture.ipynb")
    with jupyterlab(tmp_path, "lecture.ipynb") as page:
        page.locator(".jp-Notebook .jp-CodeCell .cm-content").click()
        page.get_by_text("Kernel status: Idle").first.wait_for(state="attached")
        page.keyboard.press("Shift+Enter")
        here = page.locator(".operator-stage")
        expect(here).to_have_attribute("data-dial", "10", timeout=TIMEOUT)
        expect(page.locator("[data-test=zero_shot-error]")).to_have_text(re.compile(r"%$"))
        address = page.url
        page.locator(".dial input[type=range]").press("Home")
        expect(here).to_have_attribute("data-dial", "1", timeout=TIMEOUT)
        expect(page.locator("[data-curve=zero_shot]")).to_have_attribute("data-points", re.compile(r"^2\d$"))
        assert page.url == address


@pytest.mark.parametrize(
    ("name", "parameters", "message"),
    [
        ("q1_downstream_data.ipynb", {"budget": "huge"}, "budget: expected one of smoke, laptop, gpu, paper"),
        ("00_data.ipynb", {"count": 0}, "count, resolution: expected at least 4 and 32"),
        ("01_pretrain.ipynb", {"budget": "huge"}, "budget: expected one of smoke, laptop, paper"),
        ("02_adapt.ipynb", {"task": "SYS-1(10,5)"}, "expected low <= high"),
    ],
)
def test_bad_parameters_stop_at_the_top(tmp_path, name, parameters, message):
    with pytest.raises(papermill.PapermillExecutionError, match="ValueError") as caught:
        execute(name, tmp_path, **parameters)
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
