"""Writing files: complete or absent, and nothing left behind by a writer that was killed."""

import json
import os
import signal
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from functools import partial

from sciml_fm_core import load_operator
from sciml_fm_core.files import atomic_path, check_output, write_json
from sciml_fm_core.study.records import write_table

KILLED = """
import os, signal
from sciml_fm_core.files import atomic_path
with atomic_path("x[1].json") as partial:
    partial.write_text("half")
    os.kill(os.getpid(), signal.SIGKILL)
"""


def test_what_a_killed_writer_left_goes_with_the_next_write(tmp_path):
    killed = subprocess.run([sys.executable, "-c", KILLED], cwd=tmp_path)
    assert killed.returncode == -signal.SIGKILL
    (left,) = tmp_path.iterdir()
    assert left.suffix == ".partial"
    alive = left.with_name(left.name.replace(left.name.split(".")[-3], str(os.getppid())))
    alive.touch()  # of a process that still writes
    write_json(tmp_path / "x[1].json", {"a": 1})
    assert set(tmp_path.iterdir()) == {tmp_path / "x[1].json", alive}
    assert json.loads((tmp_path / "x[1].json").read_text(encoding="utf-8")) == {"a": 1}


def test_a_failed_write_leaves_the_file_as_it_was(tmp_path):
    path = tmp_path / "x.json"
    write_json(path, {"a": 1})
    try:
        with atomic_path(path) as partial:
            partial.write_text("half", encoding="utf-8")
            raise RuntimeError("stopped")
    except RuntimeError:
        pass
    assert list(tmp_path.iterdir()) == [path]
    assert json.loads(path.read_text(encoding="utf-8")) == {"a": 1}


def test_threads_of_one_process_write_one_file(tmp_path, small_operator):
    """Like reports of model caches, where threads that save one name remove each other's unfinished file."""
    operator, path = small_operator(), tmp_path / "own.safetensors"
    writes = [
        partial(operator.save, path), partial(write_json, tmp_path / "own.json", {"a": 1}),
        partial(check_output, tmp_path / "new.h5"), partial(write_table, [{"identity": "a"}], tmp_path / "own.csv"),
    ]  # fmt: skip
    with ThreadPoolExecutor(4) as pool:
        for future in [pool.submit(write) for write in writes * 20]:
            future.result()
    assert {each.name for each in tmp_path.iterdir()} == {"own.safetensors", "own.json", "own.csv"}
    assert load_operator(path).digest == operator.digest
    assert path.stat().st_mode == (tmp_path / "own.json").stat().st_mode, "as readable as any other file"
