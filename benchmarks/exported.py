"""Exported operators and solvers against PyTorch: differences, and processor time of one prediction on one core.

python benchmarks/exported.py [NAME:SYSTEM ...]   # all that ship, hours; results/exported.json keeps each as it is made

Each file is for any even grid. On four grids ONNX Runtime and PyTorch solve the same random examples, drawn from the
range that the system's first shift names; both are also compared with PyTorch in float64. Then they solve one example
at a time, in turns. Time is that of the processor, so other work on the machine counts little. Rows that are recorded
for the same weights are not made again.
"""

from __future__ import annotations

import json
import sys
import tempfile
import time
from pathlib import Path
from statistics import median

import onnx
import onnxruntime
import torch

from sciml_fm_core import SYSTEMS, System, Task, load_operator, shipped_operators
from sciml_fm_core.files import write_json
from sciml_fm_core.models.export import ANY, export_solver, network_of
from sciml_fm_core.physics.spectral_system import is_spectral
from sciml_fm_core.training.cards import hardware

RESULTS = Path(__file__).parent / "results" / "exported.json"
POINTS, EXAMPLES, REPEATS = (32, 64, 66, 128), 20, 20
SOLVER = "solver"
COMPLEX = {onnx.TensorProto.COMPLEX64, onnx.TensorProto.COMPLEX128}


def milliseconds(*functions) -> list[float]:
    """Median processor time of each of some functions, called in turns."""
    times = []
    for _ in range(REPEATS + 1):
        for function in functions:
            start = time.process_time()
            function()
            times.append(1000 * (time.process_time() - start))
    return [round(median(times[i :: len(functions)][1:]), 2) for i in range(len(functions))]


def odd_parts(path: Path) -> list[str]:
    """Transforms, complex numbers and operations of others than ONNX in a file."""
    graph = onnx.load(path).graph
    found = [node.op_type for node in graph.node if node.op_type in ("DFT", "STFT") or node.domain]
    types = [each.data_type for each in graph.initializer]
    types += [each.type.tensor_type.elem_type for each in graph.value_info]
    return found + ["complex"] * len(COMPLEX.intersection(types))


def relative(found: torch.Tensor, expected: torch.Tensor) -> float:
    """Largest relative difference over examples."""
    off = (found.double() - expected.double()).flatten(1).norm(dim=1)
    return float(f"{(off / expected.double().flatten(1).norm(dim=1)).max():.2g}")


def measured(name: str, system: System, folder: Path) -> dict:
    """One row: a file is written, compared and timed."""
    path, start = folder / "model.onnx", time.process_time()
    if name == SOLVER:
        made, predict, digest = export_solver(system, path, ANY), system.solve, ""
        in_double = lambda f, c: system.solve(f.double(), c.double())  # noqa: E731
    else:
        operator = load_operator(name)
        made, digest = operator.export(path, system, ANY), operator.digest
        predict = lambda f, c: operator.predict(f, c, system)  # noqa: E731
        function, weights = network_of(operator, system)
        doubled = {key: value.double() for key, value in weights.items()}
        in_double = lambda f, c: function(doubled, f.double(), c.double())  # noqa: E731
    row = {
        "name": name, "system": system.name, "digest": digest, "bytes": made.bytes, "odd": odd_parts(path),
        "written_s": round(time.process_time() - start, 1), "points": {},
    }  # fmt: skip
    low, high = next(iter(system.shifts.values()), (system.dialled.low, system.dialled.high))
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.log_severity_level = 1, 3
    session = onnxruntime.InferenceSession(str(path), options)

    def run(source, coefficients):
        names = [each.name for each in session.get_inputs()]
        given = {key: each.numpy() for key, each in zip(names, (source, coefficients), strict=False)}
        return torch.from_numpy(session.run(None, given)[0])

    for points in POINTS:
        drawn = Task(system, low, high).sample(EXAMPLES, points, torch.Generator().manual_seed(1))
        given = drawn.source, drawn.coefficients
        one = [each[:1] for each in given]
        with torch.no_grad():
            found, expected, exact = run(*given), predict(*given), in_double(*given)
            ours, theirs = milliseconds(lambda: run(*one), lambda: predict(*one))  # noqa: B023
        row["points"][points] = {
            "difference": relative(found, expected), "rounding": relative(expected, exact),
            "rounding_onnx": relative(found, exact), "onnx_ms": ours, "torch_ms": theirs,
        }  # fmt: skip
    return row


def main() -> None:
    torch.set_num_threads(1)
    pairs = [(SOLVER, each) for each in SYSTEMS.values() if is_spectral(each) and each.mode_by_mode]
    for name in shipped_operators():
        knows = load_operator(name).normalization.knows
        pairs += [(name, system) for system in SYSTEMS.values() if knows(system)]
    first = {name: system for name, system in reversed(pairs)}
    pairs.sort(key=lambda pair: pair[0] != SOLVER and pair[1] is not first[pair[0]])  # one system of each comes first
    if wanted := sys.argv[1:]:
        pairs = [(name, system) for name, system in pairs if f"{name}:{system.name}" in wanted]
    known = json.loads(RESULTS.read_text(encoding="utf-8"))["rows"] if RESULTS.exists() else []
    rows = {(row["name"], row["system"]): row for row in known}
    with tempfile.TemporaryDirectory() as folder:
        for name, system in pairs:
            key, digest = (name, system.name), "" if name == SOLVER else load_operator(name).digest
            if rows.get(key, {}).get("digest") == digest:
                continue
            rows[key] = row = measured(name, system, Path(folder))
            print(json.dumps(row), flush=True)
            about = {"hardware": hardware("cpu"), "torch": torch.__version__, "onnxruntime": onnxruntime.__version__}
            write_json(RESULTS, about | {"examples": EXAMPLES, "rows": list(rows.values())})


if __name__ == "__main__":
    main()
