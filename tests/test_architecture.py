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
MODULES = sorted(path.stem for path in PACKAGE.glob("*.py") if path.stem != "__init__")

FLOW = (
    "spectral", "systems", "sources", "tasks", "datasets", "normalization", "blocks", "fused", "fno", "operator",
    "metrics", "distributed", "training", "transfer", "study", "experiments", "batch", "cli", "figures",
)  # fmt: skip
"""A module may import what stands before it, except where `NARROWER` says less."""

NARROWER = {
    "files": set(),
    "spectral": set(),
    "systems": {"spectral"},
    "sources": set(),
    "tasks": {"systems", "sources", "spectral"},
    "datasets": {"tasks", "systems", "sources"},
    "normalization": {"tasks", "systems"},
    "blocks": set(),
    "fused": {"blocks"},
    "fno": {"blocks", "fused", "spectral"},
    "operator": {"fno", "normalization", "systems", "spectral"},
    "metrics": {"spectral"},
    "distributed": {"fno"},
    "experiments": {"study", "tasks", "transfer"},
    "batch": set(),
    "figures": {"datasets", "study", "tasks"},
}
HELPERS = {"files"}
"""Leaves that any module but the first may import."""

THIRD_PARTY = {
    "files": {"torch", "safetensors"},
    "datasets": {"torch", "numpy", "h5py"},
    "operator": {"torch", "safetensors"},
    "training": {"torch", "safetensors"},
    "cli": {"torch", "h5py", "typer", "rich"},
    "figures": {"holoviews", "matplotlib", "numpy"},
}
DISPLAY = ("panel", "holoviews", "bokeh", "papermill", "pandas", "dask", "matplotlib", "param", "IPython", "jupyter")


def tree_of(module):
    return ast.parse((PACKAGE / f"{module}.py").read_text(encoding="utf-8"))


def imports_of(module):
    """Modules of the package, and other top-level packages, imported anywhere in a module."""
    inside, outside = set(), set()
    for node in ast.walk(tree_of(module)):
        if isinstance(node, ast.ImportFrom) and node.level:
            names = [node.module] if node.module else [alias.name for alias in node.names]
            inside |= {name.split(".")[0] for name in names}
        elif isinstance(node, ast.ImportFrom):
            outside.add(node.module.split(".")[0])
        elif isinstance(node, ast.Import):
            outside |= {alias.name.split(".")[0] for alias in node.names}
    assert "sciml_fm_core" not in outside, f"{module}: import modules of the package relatively"
    return inside, outside - set(sys.stdlib_module_names)


def allowed(module):
    before = set(FLOW[: FLOW.index(module)]) if module in FLOW else set()
    helpers = set() if module in ("spectral", "systems", "sources", "blocks", "fused", "fno", *HELPERS) else HELPERS
    return NARROWER.get(module, before) | helpers | {"__version__"}


def test_every_module_has_its_place():
    assert set(MODULES) == set(FLOW) | HELPERS


@pytest.mark.parametrize("module", MODULES)
def test_data_flows_one_way(module):
    extra = imports_of(module)[0] - allowed(module)
    assert not extra, f"{module} must not import {', '.join(sorted(extra))}"


@pytest.mark.parametrize("module", MODULES)
def test_third_party_imports(module):
    extra = imports_of(module)[1] - THIRD_PARTY.get(module, {"torch"})
    assert not extra, f"{module} must not import {', '.join(sorted(extra))}"


@pytest.mark.parametrize("module", [*MODULES, "__init__"])
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
    """In a process of its own, command line included."""
    code = "import json, sys, sciml_fm_core.cli; print(json.dumps(sorted({m.split('.')[0] for m in sys.modules})))"
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-c", code]
    output = subprocess.run(command, capture_output=True, text=True, check=True, env=environment).stdout
    loaded = set(json.loads(output.splitlines()[-1]))
    assert "torch" in loaded
    assert not loaded & set(DISPLAY)


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
