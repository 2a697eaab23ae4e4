"""The shape of the package: data flows one way, nothing for display, nothing unpickled, the interface exported."""

import ast
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

import sciml_fm_core

ROOT = Path(__file__).resolve().parent.parent
PACKAGE = ROOT / "sciml_fm_core"
MODULES = sorted(path.relative_to(PACKAGE).as_posix() for path in PACKAGE.rglob("*.py"))

DISPLAY = ("panel", "holoviews", "bokeh", "papermill", "pandas", "dask", "matplotlib", "param", "IPython", "jupyter")


def tree_of(module):
    return ast.parse((PACKAGE / module).read_text(encoding="utf-8"))


@pytest.mark.parametrize("module", MODULES)
def test_nothing_is_unpickled_asserted_or_swallowed(module):
    for node in ast.walk(tree_of(module)):
        if isinstance(node, ast.Import | ast.ImportFrom):
            names = {alias.name for alias in node.names} | {getattr(node, "module", None)}
            assert not names & {"pickle", "dill", "joblib", "shelve"}
        if isinstance(node, ast.Call) and ast.unparse(node.func) in ("torch.load", "np.load", "numpy.load"):
            keywords = {keyword.arg: ast.unparse(keyword.value) for keyword in node.keywords}
            assert keywords.get("weights_only") == "True", f"{module}, line {node.lineno}"
        if isinstance(node, ast.ExceptHandler):
            assert node.type is not None, f"{module}, line {node.lineno}: bare except"
        if isinstance(node, ast.Call):
            assert ast.unparse(node.func) != "hasattr", f"{module}, line {node.lineno}"


def test_package_imports_nothing_for_display():
    """In a process of its own, command line included; nor what a prediction does not need and takes a second."""
    code = (
        "import json, sys, torch, sciml_fm_core.cli\n"
        "operator = sciml_fm_core.load_operator('sys-1')\n"
        "operator.predict(torch.eye(32) - 1 / 32, torch.tensor([1.0, 1.0, 0.0]))\n"
        "studies = [name for name in sys.modules if name.startswith('sciml_fm_core.experiments.')]\n"
        "assert all('.architectures' in name for name in studies), 'networks alone are known by their names'\n"
        "print(json.dumps(sorted({m.split('.')[0] for m in sys.modules})))"
    )
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-c", code]
    output = subprocess.run(command, capture_output=True, text=True, check=True, env=environment).stdout
    loaded = set(json.loads(output.splitlines()[-1]))
    assert "torch" in loaded
    assert not loaded & set(DISPLAY)
    assert "sympy" not in loaded, "by PyTorch's compiler, which some of its functions import"


def test_public_interface():
    for name in sciml_fm_core.__all__:
        assert getattr(sciml_fm_core, name) is not None
    needed = {
        "SYSTEMS", "Task", "FNO", "FNOConfig", "load_operator", "Operator", "fine_tune", "train_from_scratch",
        "relative_error",
    }  # fmt: skip
    assert needed <= set(sciml_fm_core.__all__)


def test_no_machine_paths():
    suffixes = {".py", ".toml", ".md", ".txt", ".yaml", ".yml", ".ipynb", ".json", ""}
    folders = ("sciml_fm_core", "dashboards", "notebooks", "tests", ".ci", "binder", "benchmarks")
    files = [path for path in ROOT.iterdir() if path.is_file()]
    files += [path for folder in folders for path in (ROOT / folder).rglob("*") if path.is_file()]
    machine = ("/" + "work/", "/" + "home/", "/" + "root/", "C:" + "\\")
    for path in files:
        if path.suffix in suffixes and "__pycache__" not in path.parts:
            content = path.read_text(encoding="utf-8")
            assert not any(word in content for word in machine), path
