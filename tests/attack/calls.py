"""Odd calls of the library, and odd command lines."""

from __future__ import annotations

import contextlib
import io
import os
import random
import shlex
import sys
import tempfile
import traceback
from functools import cache
from pathlib import Path
from typing import Any
from unittest import mock

import torch

from sciml_fm_core import FNO, SYSTEMS, Evolution, FNOConfig, Operator, Task, cli, generate
from sciml_fm_core.models.normalization import fit_normalization
from sciml_fm_core.physics.spectral_system import is_spectral
from sciml_fm_core.training.transfer import new_operator

from ._mutate import refused, strange

# The library ----------------------------------------------------------------------------------------------------------


@cache
def _operators() -> tuple[Operator, ...]:
    made = []
    for kind, label in (("dimensionless", "SYS-1(1,5)"), ("symbol", "SYS-2(0.2,1)"), ("dimensionless", "SYS-3(1,10)")):
        normalization = fit_normalization(kind, [Task.parse(label)], count=16)
        channels = {"in_channels": normalization.in_channels, "mode_channels": normalization.mode_channels}
        model = FNO.create(FNOConfig(**channels, width=4, modes=2), torch.Generator().manual_seed(0))
        made.append(Operator(model, normalization))
    return tuple(made)


@cache
def _examples(name: str, n: int):
    system = SYSTEMS[name]
    task = Task(system, *system.shifts.get("pre-training", (system.dialled.low, system.dialled.high)))
    return task.sample(2, n, torch.Generator().manual_seed(0), dtype=torch.float64)


WITH_SYMBOLS = sorted(
    name for name, system in SYSTEMS.items() if is_spectral(system) and not isinstance(system, Evolution)
)
"""Equations of one field whose dial is a coefficient; what is solved by iterations may take its time."""


def library(seed: int, folder: Path) -> str | None:
    """Predict, solve or form a residual of what is odd or scaled, or ask for the gradient of a dial."""
    rng = random.Random(seed)
    how = rng.randrange(4)
    if how == 0:
        return _dial_gradient(rng)
    operator = rng.choice(_operators())
    system = operator.systems[0] if how == 1 else SYSTEMS[rng.choice(WITH_SYMBOLS)]
    source, coefficients, solution, _ = _examples(system.name, rng.choice((8, 16, 32)))
    if rng.random() < 0.5:
        return _scaled(rng, operator.predict if how == 1 else system.solve, source, coefficients)
    dtype = rng.choice((torch.float32, torch.float32, torch.float64, torch.float16, torch.bfloat16))
    given: list[Any] = [source.to(dtype), coefficients.to(dtype), solution.to(dtype)]
    which = rng.randrange(3)
    odd = given[which] = _odd(given[which], rng)
    source, coefficients, solution = given
    call = (
        (lambda: operator.predict(source, coefficients)),
        (lambda: system.solve(source, coefficients)),
        (lambda: system.residual(solution, source, coefficients)),
    )[how - 1]
    found, wrong = refused(call)
    if found is None:
        return wrong
    # of a solution that blew up the residual is no number either
    blown_up = how == 3 and which == 2 and not odd.isfinite().all()
    return None if blown_up or torch.isfinite(found).all() else f"NaN or infinity of {call.__code__.co_names[-1]}"


def _odd(tensor: torch.Tensor, rng: random.Random) -> Any:
    """What is no tensor of real numbers, of another shape, or has values that are no numbers."""
    spoilt = tensor.clone()
    spoilt.view(-1)[rng.randrange(spoilt.numel())] = rng.choice((float("nan"), float("inf"), -float("inf")))
    kinds = (torch.complex64, torch.complex128, torch.bool, torch.int8, torch.int64, torch.float8_e5m2)
    kind = rng.choice(kinds)
    return rng.choice((
        lambda: strange(rng), tensor.tolist, lambda: None if tensor.dtype == torch.bfloat16 else tensor.numpy(),
        lambda: tensor.float().to(kind), lambda: spoilt, lambda: tensor[..., :-1],
        lambda: tensor.unsqueeze(0).expand(3, *tensor.shape), lambda: tensor[:0],
        lambda: torch.cat([tensor, tensor[:1]]), lambda: tensor.float().to_sparse(),
        lambda: torch.zeros_like(tensor), lambda: tensor.reshape(-1),
    ))()  # fmt: skip


def _scaled(rng: random.Random, call, source, coefficients) -> str | None:
    """A source that is scaled gives a solution that is scaled as much, or is refused."""
    scale, dtype = 10.0 ** rng.uniform(-45, 37), rng.choice((torch.float32, torch.float64))
    coefficients = coefficients.to(dtype)
    expected, scaled = call(source.to(dtype), coefficients).double(), (scale * source).to(dtype)
    if float(scaled.abs().max()) < 1e-33 and dtype == torch.float32:
        return None  # float32 itself holds no such source
    found, wrong = refused(lambda: call(scaled, coefficients))
    if found is None:
        return wrong
    error = float((found.double() / scale - expected).abs().max() / expected.abs().max())
    return None if error < 1e-3 else f"{call.__qualname__} of a source times {scale:.1e} is off by {error:.1e}"


def _dial_gradient(rng: random.Random) -> str | None:
    system = SYSTEMS[rng.choice(WITH_SYMBOLS)]
    source, coefficients, _, _ = _examples(system.name, 8)
    coefficients = coefficients.clone()
    if "k11" in system.coefficient_names and rng.random() < 0.7:
        coefficients[:, :3] = torch.tensor([0.02, 0.02, 0.0]) * 10.0 ** rng.uniform(-6, 6)
    system.dial(source, coefficients.requires_grad_()).sum().backward()
    finite = coefficients.grad is None or coefficients.grad.isfinite().all()
    return None if finite else f"the gradient of the dial of {system.name} is NaN"


# Command lines --------------------------------------------------------------------------------------------------------

NAMES = (
    "x.h5", "own.safetensors", "[red]x", "[/]", ":smile:", "a{b}c", "%s%n", "naïve 雪 \u202e", "two\nlines",
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
"""Steps of a training; that one is accepted and takes years."""
REALS = ("0.001", "0", "-1", "nan", "inf", "-inf", "1e-320", "1e308", "x", "", "1e400")
POINTS = ("8", "16", "32", "7", "0", "-8", "2147483648", "x", "", "[/]", "16.0")
SCHEDULES = (*POINTS, "0:32", "0:32,0.5:32", "0.5:32", "0:8,0.9:7", "0:x", "0:32,", ":", "0:32:1", "nan:32", "1e9:32")
COMMON = {
    "--seed": ("0", "7", "-1", str(10**30), "x", "1.5", ""),
    "--device": ("cpu", "auto", "meta", "cuda", "cuda:99", "mps", "xla", "cpu:7", "", "[/]", "CPU", "cpu\n", "hip:0"),
}
TRAIN = COMMON | {
    "--output": NAMES, "--loss": ("relative", "squared", "physics", "none", "[/]"), "--batch-size": SMALL,
    "--learning-rate": REALS, "--resolution": SCHEDULES, "--wait": None,
}  # fmt: skip
OPTIONS: dict[str, dict[str, tuple[str, ...] | None]] = {
    "generate": COMMON | {
        "--count": SMALL, "--output": NAMES, "--split": ("train", "dev", "[/]", ""), "--resolution": POINTS,
        "--wait": None,
    },
    "pretrain": TRAIN | {
        "--checkpoint": NAMES, "--recipe": ("paper", "symbol", "none", "[/]", ""), "--data": NAMES, "--steps": STEPS,
        "--architecture": ("fno", "none", "[red]"), "--precision": ("float32", "bfloat16", "int8", ""),
        "--time-limit": REALS, "--threads": ("1", "0", "-1", "x", "2147483647", "2147483648"), "--no-compile": None,
    },
    "adapt": TRAIN | {
        "--examples": SMALL, "--scratch": None, "--physics": None, "--packed": None, "--grid": None, "--json": None,
        "--no-symmetries": None,
    },
    "evaluate": COMMON | {"--count": SMALL, "--resolution": POINTS, "--symmetries": None, "--json": None},
    "info": {},
    "operators": {"--count": SMALL},
    "study": {
        "--budget": ("laptop", "smoke [/]", "", "paper!"), "--folder": NAMES, "--output": NAMES,
        "--device": COMMON["--device"], "--processes": SMALL, "--scheduler": NAMES, "--wait": None,
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


def command(rng: random.Random) -> list[str]:
    """A command line that is wrong, odd or right, and never long at work."""
    name = rng.choice(list(OPTIONS))
    task = rng.choice(TASKS[:6] if rng.random() < 0.6 else TASKS)
    given = {
        "generate": [task], "pretrain": [task, *rng.choices(TASKS, k=rng.choice((0, 0, 0, 1)))],
        "adapt": [rng.choice(OPERATORS), task], "evaluate": [rng.choice(OPERATORS), task],
        "info": [rng.choice(NAMES)], "batch": [rng.choice(("batch.yaml", *NAMES))],
        "notebooks": [rng.choice(NAMES)], "study": [rng.choice(("q1_downstream_data", "q9", "[/]", ""))],
    }.get(name, [])  # fmt: skip
    if rng.random() < 0.05:
        given = given[1:] if rng.random() < 0.5 else [*given, rng.choice(NAMES)]
    if name == "study" and "q1_downstream_data" not in given:
        given = ["q9"]  # without a name it would run every experiment
    words = [name, *given, *ALWAYS.get(name, ())]
    known = OPTIONS[name]
    for option in rng.sample(list(known), min(len(known), rng.choice((0, 1, 1, 2, 3)))):
        values = known[option]
        words += [option] if values is None else [option, rng.choice(values)]
    if rng.random() < 0.03:
        words.insert(rng.randrange(len(words)), rng.choice(("--none", "-x", "[/]", "--help")))
    return words


@cache
def _inputs() -> dict[str, bytes]:
    with tempfile.TemporaryDirectory() as folder:
        task = Task.parse("SYS-1(1,5)")
        bundle = new_operator([task], size="64K").save(Path(folder, "tiny.safetensors"))
        made = bundle, generate(task, Path(folder, "data.h5"), 4, resolution=32)
        return {path.name: path.read_bytes() for path in made} | {
            "file": b"text", "text.h5": b"temperature, 3\n", "empty.safetensors": b"",
        }  # fmt: skip


def command_line(seed: int, folder: Path) -> str | None:
    """Run one command line in a new folder; None if it did its work or said in words why it did not."""
    rng, before, threads = random.Random(seed), Path.cwd(), torch.get_num_threads()
    for name in ("folder", "sub"):
        (folder / name).mkdir()
    (folder / "loop").symlink_to("loop")
    for name, content in _inputs().items():
        (folder / name).write_bytes(content)
    (folder / "batch.yaml").write_text(rng.choice(BATCHES))
    words, code, said = command(rng), 0, io.StringIO()
    os.chdir(folder)
    try:
        with (
            mock.patch.object(sys, "argv", ["sciml-fm", *words]),
            mock.patch.dict(os.environ, {"COLUMNS": "200"}),
            contextlib.redirect_stdout(said),
            contextlib.redirect_stderr(said),
        ):
            cli.main()
    except SystemExit as stop:
        code = stop.code if isinstance(stop.code, int) else 1
    except BaseException:  # whatever comes through is what is looked for
        return f"{shlex.join(words)}: traceback: {traceback.format_exc()[-800:]}"
    finally:
        os.chdir(before)
        torch.set_num_threads(threads)
    text = said.getvalue()
    if code not in (0, 1, 2) or "Traceback" in text or "error: unexpected" in text or (code and not text.strip()):
        return f"{shlex.join(words)}: exit code {code}: {text[-300:]}"
    return None


CALLS = {"library": library, "commands": command_line}
