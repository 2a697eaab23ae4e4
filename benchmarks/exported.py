"""Time of one prediction on one core: PyTorch, and ONNX Runtime on the exported file.

python benchmarks/exported.py [operator:system ...]
"""

from __future__ import annotations

import platform
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import onnxruntime
import torch

from sciml_fm_core import Task, load_operator
from sciml_fm_core.models.export import export_solver

RESOLUTION, REPEATS = 64, 30


def milliseconds(function) -> float:
    """Median of repeated calls."""
    times = []
    for _ in range(REPEATS):
        start = time.perf_counter()
        function()
        times.append(time.perf_counter() - start)
    return 1000 * float(np.median(times))


def main() -> None:
    torch.set_num_threads(1)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    print(f"{platform.processor() or platform.machine()}, PyTorch {torch.__version__}, ORT {onnxruntime.__version__}")
    print(f"| what, {RESOLUTION} x {RESOLUTION} | MB | load, ms | ONNX Runtime, ms | PyTorch, ms | difference |")
    print("|---|---|---|---|---|---|")
    wanted = sys.argv[1:] or ["sys-1:SYS-1(1,5)", "symbol:SYS-2(0.2,1)", "solver:SYS-1(1,5)"]
    with tempfile.TemporaryDirectory() as folder:
        for each in wanted:
            name, label = each.split(":")
            task, path = Task.parse(label), Path(folder) / "model.onnx"
            if name == "solver":
                made, predict = export_solver(task.system, path, RESOLUTION), task.system.solve
            else:
                operator = load_operator(name)
                made = operator.export(path, task.system, RESOLUTION)
                predict = lambda f, c, o=operator, s=task.system: o.predict(f, c, s)  # noqa: E731
            example = task.sample(1, RESOLUTION, torch.Generator().manual_seed(0))
            given = example.source, example.coefficients
            start = time.perf_counter()
            session = onnxruntime.InferenceSession(str(path), options)
            loaded = 1000 * (time.perf_counter() - start)
            feeds = {key.name: value.numpy() for key, value in zip(session.get_inputs(), given, strict=False)}
            ours, theirs = milliseconds(lambda: session.run(None, feeds)), milliseconds(lambda: predict(*given))  # noqa: B023
            print(
                f"| {each} | {made.bytes / 1e6:.1f} | {loaded:.0f} | {ours:.1f} | {theirs:.1f} | {made.difference:.0e}|"
            )


if __name__ == "__main__":
    main()
