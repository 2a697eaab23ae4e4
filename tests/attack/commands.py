"""Odd command lines: wrong types, missing files, names with markup, numbers beyond sense, unknown devices and tasks.

``python tests/attack/commands.py --count 1000`` runs so many, and ends with exit code 1 where one is not answered by
its work or by a message.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib
import io
import os
import random
import shlex
import sys
import tempfile
import traceback
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path
from unittest import mock

import torch

from sciml_fm_core import Task, cli, generate
from sciml_fm_core.training.transfer import new_operator

NAME = "command line"

NAMES = (
    "x.h5", "own.safetensors", "[red]x", "[/]", "[bold]", ":smile:", "a{b}c", "%s%n", "naïve 雪 \u202e", "two\nlines",
    "\udcff", "a" * 300, "", " ", ".", "..", "/", "file/x", "file", "folder", "folder/x", "none/x", "/proc/x", "-x",
    "--help", "sub/../x", "\x1b[31m", "text.h5", "data.h5", "empty.safetensors", "tiny.safetensors", "loop",
)  # fmt: skip
"""Outputs, inputs and names of things; none writes outside of the folder."""
TASKS = (
    "SYS-1(1,5)", "SYS-2(0.2,1)", "SYS-3(1,10)", "poisson(2,2)", "FRAC(0.5,2)", "SCREENED(1,2)", "SYS-1(5,1)",
    "SYS-1(-1,5)", "SYS-1(1,inf)", "SYS-1(1e300,1e308)", "SYS-1(1e-320,1)", "SYS-3(1.5,4)", "SYS-3(1000,1000)",
    "SYS-3(0,0)", "SYS-9(1,2)", "SYS-2(1e9,1e9)", "FRAC(100,200)", "SYS-1", "", "[/](1,2)", "[red]", "ſys-1(1,5)",
    "SYS-1(١,٥)", "SYS-1(1,5)\n", "SYS-1(nan,nan)",
)  # fmt: skip
SMALL = ("1", "2", "4", "0", "-1", "-2147483649", "2147483648", str(10**30), "1e3", "nan", "inf", "", "x", "[/]", "２")
"""Numbers of examples and steps: what is accepted of them is soon done."""
STEPS = tuple(number for number in SMALL if number != "2147483648")
"""Of a training; that one is accepted and takes years."""
REALS = ("0.001", "0", "-1", "nan", "inf", "-inf", "1e-320", "1e308", "x", "", "1e400")
POINTS = ("8", "16", "32", "7", "0", "-8", "2147483648", "x", "", "[/]", "16.0")
SCHEDULES = (*POINTS, "0:32", "0:32,0.5:32", "0.5:32", "0:8,0.9:7", "0:x", "0:32,", ":", "0:32:1", "nan:32", "1e9:32")
DEVICES = (
    "cpu",
    "auto",
    "meta",
    "cuda",
    "cuda:99",
    "mps",
    "xla",
    "cpu:7",
    "",
    "[/]",
    "CPU",
    "cpu\n",
    "vulkan",
    "hip:0",
)
SEEDS = ("0", "7", "-1", str(10**30), "x", "1.5", "")


OPTIONS: dict[str, dict[str, tuple[str, ...] | None]] = {
    "generate": {
        "--count": SMALL, "--output": NAMES, "--split": ("train", "test", "dev", "[/]", ""), "--resolution": POINTS,
        "--seed": SEEDS, "--device": DEVICES, "--wait": None,
    },
    "pretrain": {
        "--output": NAMES, "--checkpoint": NAMES, "--recipe": ("paper", "symbol", "none", "[/]", ""),
        "--architecture": ("fno", "none", "[red]"), "--loss": ("relative", "physics", "none", "[/]"), "--steps": STEPS,
        "--batch-size": SMALL, "--learning-rate": REALS, "--resolution": SCHEDULES, "--data": NAMES,
        "--time-limit": REALS, "--precision": ("float32", "bfloat16", "int8", ""), "--seed": SEEDS,
        "--device": DEVICES, "--threads": ("1", "0", "-1", "x", "2147483647", "2147483648"), "--wait": None,
        "--no-compile": None,
    },
    "adapt": {
        "--examples": SMALL, "--output": NAMES, "--scratch": None, "--physics": None, "--packed": None, "--grid": None,
        "--learning-rate": REALS, "--loss": ("relative", "squared", "residual", "physics", "none"),
        "--resolution": SCHEDULES, "--batch-size": SMALL, "--seed": SEEDS, "--device": DEVICES, "--json": None,
        "--no-symmetries": None, "--wait": None,
    },
    "evaluate": {
        "--count": SMALL, "--resolution": POINTS, "--symmetries": None, "--json": None, "--seed": SEEDS,
        "--device": DEVICES,
    },
    "info": {},
    "operators": {"--count": SMALL},
    "study": {
        "--budget": ("laptop", "smoke [/]", "", "paper!"), "--folder": NAMES, "--output": NAMES, "--device": DEVICES,
        "--processes": SMALL, "--scheduler": NAMES, "--wait": None,
    },
    "batch": {
        "--output": NAMES, "--processes": SMALL, "--timeout": REALS, "--retry-failed": None, "--scheduler": NAMES,
    },
    "notebooks": {},
    "explore": {"--port": ("0", "-1", "65536", "x", ""), "--prefix": NAMES},
    "[red]": {}, "--version": {}, "--help": {}, "": {}, "--none": {},
}  # fmt: skip
ALWAYS = {
    "generate": ("--count", "2", "--resolution", "8"),
    "pretrain": ("--steps", "1", "--batch-size", "2", "--size", "64K", "--resolution", "32", "--test-count", "0"),
    "adapt": ("--steps", "1", "--examples", "2", "--validation-count", "2", "--test-count", "1", "--resolution", "32"),
    "evaluate": ("--count", "2", "--resolution", "32"),
    "explore": ("--public", "--port", "0"),  # is refused, whatever follows
}
"""What keeps accepted command lines short; a later option of the same name replaces it."""
BATCHES = (
    "", "[]", "{", "- 1", "runs: 3", "- {notebook: none.ipynb}", "- {notebook: file}", "- {notebook: '[/].ipynb'}",
    "- {gpus: 7}", "a: &a [*a]", "\x00", "- {notebook: folder, grid: {x: 1}}",
)  # fmt: skip
OPERATORS = ("tiny.safetensors", "tiny.safetensors", "tiny.safetensors", "symbol", *NAMES)


def command(chance: random.Random) -> list[str]:
    """A command line that is wrong, odd or right, and never long at work."""
    name = chance.choice(list(OPTIONS))
    task = chance.choice(TASKS[:6] if chance.random() < 0.6 else TASKS)
    given = {
        "generate": [task], "pretrain": [task, *chance.choices(TASKS, k=chance.choice((0, 0, 0, 1)))],
        "adapt": [chance.choice(OPERATORS), task], "evaluate": [chance.choice(OPERATORS), task],
        "info": [chance.choice(NAMES)], "batch": [chance.choice(("batch.yaml", *NAMES))],
        "notebooks": [chance.choice(NAMES)], "study": [chance.choice(("q1_downstream_data", "q9", "[/]", ""))],
    }.get(name, [])  # fmt: skip
    if chance.random() < 0.05:
        given = given[1:] if chance.random() < 0.5 else [*given, chance.choice(NAMES)]
    if name == "study" and "q1_downstream_data" not in given:
        given = ["q9"]  # without a name it would run every experiment
    words = [name, *given, *ALWAYS.get(name, ())]
    known = OPTIONS[name]
    for option in chance.sample(list(known), min(len(known), chance.choice((0, 1, 1, 2, 3)))):
        values = known[option]
        words += [option] if values is None else [option, chance.choice(values)]
    if chance.random() < 0.03:
        words.insert(chance.randrange(len(words)), chance.choice(("--none", "-x", "[/]", "--help")))
    return words


def prepare() -> None:
    """Make what every case reads, and import what takes seconds."""
    importlib.import_module("papermill")
    _bundle()
    _dataset()


@lru_cache(maxsize=1)
def _bundle() -> bytes:
    with tempfile.TemporaryDirectory() as folder:
        operator = new_operator([Task.parse("SYS-1(1,5)")], size="64K")
        return operator.save(Path(folder, "tiny.safetensors")).read_bytes()


@lru_cache(maxsize=1)
def _dataset() -> bytes:
    with tempfile.TemporaryDirectory() as folder:
        return generate(Task.parse("SYS-1(1,5)"), Path(folder, "data.h5"), 4, resolution=32).read_bytes()


def _prepare(folder: Path, chance: random.Random) -> None:
    (folder / "folder").mkdir()
    (folder / "sub").mkdir()
    (folder / "loop").symlink_to("loop")
    (folder / "file").write_text("text")
    (folder / "text.h5").write_text("temperature, 3\n")
    (folder / "empty.safetensors").touch()
    (folder / "tiny.safetensors").write_bytes(_bundle())
    (folder / "data.h5").write_bytes(_dataset())
    (folder / "batch.yaml").write_text(chance.choice(BATCHES))


@contextlib.contextmanager
def _inside(folder: Path, words: list[str]) -> Iterator[io.StringIO]:
    """In the folder, with these arguments; what is said is kept, and what the process shares is put back."""
    said, before, threads = io.StringIO(), Path.cwd(), torch.get_num_threads()
    os.chdir(folder)
    try:
        with (
            mock.patch.object(sys, "argv", ["sciml-fm", *words]),
            mock.patch.dict(os.environ, {"COLUMNS": "200"}),
            contextlib.redirect_stdout(said),
            contextlib.redirect_stderr(said),
        ):
            yield said
    finally:
        os.chdir(before)
        torch.set_num_threads(threads)


def attack(seed: int, folder: Path) -> str | None:
    """Run one command line in a new folder; None if it did its work or said in words why it did not."""
    chance = random.Random(seed)
    with tempfile.TemporaryDirectory(dir=folder) as name:
        _prepare(Path(name), chance)
        words, code = command(chance), 0
        with _inside(Path(name), words) as said:
            try:
                cli.main()
            except SystemExit as stop:
                code = stop.code if isinstance(stop.code, int) else 1
            except BaseException:  # whatever comes through is what is looked for
                return f"{shlex.join(words)}: traceback: {traceback.format_exc()[-800:]}"
        text = said.getvalue()
        if code not in (0, 1, 2):
            return f"{shlex.join(words)}: exit code {code}: {text[-300:]}"
        if "Traceback" in text or "error: unexpected" in text:
            return f"{shlex.join(words)}: {text[-300:]}"
        if code and not text.strip():
            return f"{shlex.join(words)}: exit code {code} without a message"
    return None


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--count", type=int, default=300)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        found = []
        for seed in range(options.seed, options.seed + options.count):
            if seed % 100 == 0:
                print(f"command line {seed}", file=sys.stderr, flush=True)
            if defect := attack(seed, Path(folder)):
                found.append(f"{seed}: {defect}")
                print(found[-1], flush=True)
    print(f"{options.count} command lines, {len(found)} defects")
    sys.exit(bool(found))


if __name__ == "__main__":
    main()
