"""Exported operators and solvers, against PyTorch; with SCIML_FM_EXPORT=all each that ships, on four grids."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from sciml_fm_core import SYSTEMS, Operator, Task, find_system, load_operator, shipped_operators
from sciml_fm_core.cli import app
from sciml_fm_core.models.export import ANY, export_function, export_solver
from sciml_fm_core.models.fno import FNO, FNOConfig
from sciml_fm_core.models.normalization import StepNormalization
from sciml_fm_core.models.real_parts import RealParts, trace

onnx = pytest.importorskip("onnx")
onnxruntime = pytest.importorskip("onnxruntime")
pytest.importorskip("onnxscript")
GUIDE = Path(__file__).parent.parent / "docs" / "export.md"
TOLERANCE = 2e-6
COMPLEX = {onnx.TensorProto.COMPLEX64, onnx.TensorProto.COMPLEX128}


def examples_of(system, resolution, count=5, seed=1):
    low, high = next(iter(system.shifts.values()))
    drawn = Task(system, low, high).sample(count, resolution, torch.Generator().manual_seed(seed))
    return drawn.source, drawn.coefficients


def difference(path, given, expected):
    session = onnxruntime.InferenceSession(str(path))
    feeds = {each.name: value.numpy() for each, value in zip(session.get_inputs(), given, strict=False)}
    found = torch.from_numpy(session.run(None, feeds)[0])
    return ((found - expected).flatten(1).norm(dim=1) / expected.flatten(1).norm(dim=1)).max().item()


def check_graph(path):
    """No transform, no complex number, no word of where it was made; the number of examples is free."""
    model = onnx.load(path)
    assert not [node.op_type for node in model.graph.node if node.op_type in ("DFT", "STFT") or node.domain]
    types = {each.data_type for each in model.graph.initializer}
    types |= {each.type.tensor_type.elem_type for each in model.graph.value_info}
    assert not types & COMPLEX
    assert not any(node.metadata_props for node in model.graph.node)
    assert not model.graph.input[0].type.tensor_type.shape.dim[0].HasField("dim_value")


@pytest.fixture(scope="module")
def sys_1(tmp_path_factory):
    path = tmp_path_factory.mktemp("export") / "sys-1.onnx"
    return load_operator("sys-1").export(path, resolution=32)


def test_an_operator_is_the_same_in_onnx(sys_1):
    given = examples_of(find_system("poisson"), 32)
    assert difference(sys_1.path, given, load_operator("sys-1").predict(*given)) <= TOLERANCE
    assert sys_1.difference == sys_1.rounding <= TOLERANCE
    check_graph(sys_1.path)


def test_the_printed_program_runs_the_file(sys_1, tmp_path):
    program = re.search(r"```python\n(.*?)```", GUIDE.read_text(), re.DOTALL)[1]
    assert len([line for line in program.splitlines() if line.strip()]) <= 20
    (tmp_path / "run.py").write_text(program)
    # isolated, so that this package cannot be what runs it; the environment only says where onnxruntime is
    where = f"import sys; sys.path[:0] = {[p for p in sys.path if p]!r}; sys.argv = sys.argv[1:]; "
    blocked = "sys.modules['sciml_fm_core'] = sys.modules['torch'] = None; exec(open(sys.argv[0]).read())"
    command = [sys.executable, "-I", "-c", where + blocked, str(tmp_path / "run.py"), str(sys_1.path)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    assert "(1, 32, 32)" in done.stdout
    assert "Poisson" in done.stdout


def test_the_metadata_says_what_is_needed(sys_1):
    session = onnxruntime.InferenceSession(str(sys_1.path))
    about = {key: json.loads(value) for key, value in session.get_modelmeta().custom_metadata_map.items()}
    assert (about["coefficients"], about["grid"]) == (["k11", "k22", "k12"], [32, 32])
    assert (about["card"]["tasks"], about["licence"]) == (["SYS-1(1,5)"], "MIT")
    assert about["operator_digest"] == load_operator("sys-1").digest
    assert about["difference"] == sys_1.difference


@pytest.mark.parametrize(("resolution", "tried"), [(16, [16]), (ANY, [16, 50, 128])])
def test_a_solver_is_the_same_in_onnx(resolution, tried, tmp_path):
    system = find_system("screened_poisson")
    made = export_solver(system, tmp_path / "solver.onnx", resolution)
    for points in tried:
        given = examples_of(system, points)
        assert difference(made.path, given, system.solve(*given)) <= TOLERANCE
    check_graph(made.path)


def test_a_step_of_the_integrator_is_the_same_in_onnx(tmp_path):
    system = find_system("burgers")
    made = export_solver(system, tmp_path / "step.onnx", 16)
    source, coefficients = examples_of(system, 16)
    half = coefficients.clone()
    half[:, system.coefficient_names.index("time")] /= 2
    assert system.substeps(coefficients) != system.substeps(half)
    for each in (coefficients, half):
        assert difference(made.path, (source, each), system.solve(source, each)) <= TOLERANCE
    check_graph(made.path)
    with pytest.raises(ValueError, match="is a loop"):
        export_solver(system, tmp_path / "step.onnx", ANY)


def test_a_step_of_an_evolution_as_a_program_with_half_weights(tmp_path):
    normalization = StepNormalization((SYSTEMS["burgers"],))
    config = FNOConfig(normalization.in_channels, width=4, modes=2, depth=1, mode_channels=normalization.mode_channels)
    operator = Operator(FNO.create(config, torch.Generator().manual_seed(0)), normalization)
    made = operator.export(tmp_path / "step.pt2", resolution=8, weights="float16")
    assert made.difference <= min(1e-5, made.rounding)
    program = torch.export.load(made.path)
    assert not any(
        node.meta["val"].is_complex() for node in program.graph.nodes if isinstance(node.meta.get("val"), torch.Tensor)
    )
    given = examples_of(SYSTEMS["burgers"], 8, count=4)
    expected = operator.predict(*given)
    assert (program.module()(*given) - expected).norm() <= 1e-3 * expected.norm()


def test_an_operator_of_two_fields_is_the_same_in_onnx(tmp_path):
    system = SYSTEMS["gray_scott"]
    normalization = StepNormalization((system,), form="residual", stages=1)
    config = FNOConfig(
        normalization.in_channels, width=4, modes=2, depth=1, mode_channels=normalization.mode_channels, out_channels=2
    )
    operator = Operator(FNO.create(config, torch.Generator().manual_seed(0)), normalization)
    given = examples_of(system, 8)
    made = operator.export(tmp_path / "step.onnx", resolution=8)
    assert difference(made.path, given, operator.predict(*given)) <= TOLERANCE


@pytest.mark.parametrize("name", ["advection_diffusion", "fractional_laplacian", "hyper_diffusion", "dispersion"])
def test_complex_numbers_as_pairs(name):
    system = SYSTEMS[name]

    def solve(source, coefficients):
        return system._solved(source, coefficients)

    source, coefficients = examples_of(system, 10)
    graph = trace(solve, [[source[:count], coefficients[:count]] for count in (2, 3)], 0)
    found = RealParts(graph).run(source, coefficients)
    assert torch.allclose(found, solve(source, coefficients), rtol=1e-5, atol=1e-5 * found.abs().max().item())


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ({"path": "a.txt"}, "ends in .onnx or .pt2"),
        ({"path": "no/where.onnx"}, "make it first"),
        ({"path": "a.onnx", "system": "SYS-2"}, "trained for poisson"),
        ({"path": "a.onnx", "resolution": 16}, "at least 32 points"),
        ({"path": "a.onnx", "weights": "int8"}, "float32 or float16"),
    ],
)
def test_what_does_not_fit_is_one_clear_line(arguments, said, tmp_path):
    with pytest.raises(ValueError, match=said) as caught:
        load_operator("sys-1").export(**arguments | {"path": tmp_path / arguments["path"]})
    assert "\n" not in str(caught.value)
    assert not list(tmp_path.iterdir())


def test_a_system_without_a_symbol_has_no_solver_to_export(tmp_path):
    with pytest.raises(ValueError, match="a Fourier symbol solves"):
        export_solver(find_system("SYS-4"), tmp_path / "a.onnx")
    with pytest.raises(ValueError, match="even number of points"):
        export_solver(find_system("SYS-1"), tmp_path / "a.onnx", 9)


def test_the_command_checks_the_name_of_the_file(tmp_path):
    from typer.testing import CliRunner

    result = CliRunner().invoke(app, ["export", "sys-1", "--output", str(tmp_path / "a.onnx"), "--program"])
    assert "ends in .pt2" in str(result.exception)


@pytest.mark.parametrize(
    ("function", "said"),
    [
        (lambda _, x: [x * len(x) ** 0.5], "a number that follows"),
        (lambda _, x: [x * (1.0 if x.shape[-1] % 4 else 2.0)], "a number that follows"),
        (lambda _, x: [x + x if x.shape[-1] % 4 else x * x], "the same operations"),
        (lambda _, x: [x + torch.from_numpy(np.ones(x.shape[-1], "f"))], "has the size of the batch or grid"),
    ],
)
def test_what_is_no_function_of_the_grid_is_said(function, said, tmp_path):
    given = [{"x": torch.ones(3, n, n)} for n in (16, 18, 26)]
    with pytest.raises(ValueError, match=said):
        export_function(function, tmp_path / "a.onnx", given, ["y"])


@pytest.mark.skipif(os.environ.get("SCIML_FM_EXPORT") != "all", reason="an hour: SCIML_FM_EXPORT=all")
@pytest.mark.parametrize("name", list(shipped_operators()))
def test_every_operator_that_ships(name, tmp_path):
    operator = load_operator(name)
    for system in [each for each in SYSTEMS.values() if operator.normalization.knows(each)]:
        made = operator.export(tmp_path / "all.onnx", system, ANY)
        check_graph(made.path)
        for points in (32, 64, 66, 128):
            given = examples_of(system, points, 20)
            assert difference(made.path, given, operator.predict(*given, system)) <= TOLERANCE, (system.name, points)
