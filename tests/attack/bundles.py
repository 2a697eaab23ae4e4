"""Operator bundles: headers, tensors and bytes that are not as they were written."""

from __future__ import annotations

import json
import os
import random
import sys
import tempfile
from collections.abc import Callable
from functools import cache
from pathlib import Path

import torch

from sciml_fm_core import FNO, FNOConfig, Operator, Task, load_operator
from sciml_fm_core.digests import with_digest
from sciml_fm_core.models.normalization import fit_normalization

from ._mutate import damaged, mutated_json, mutated_tensors, opened, refused, written

NAME = "bundles"
TASK = Task.parse("SYS-1(1,5)")
sys.path.append(str(Path(__file__).resolve().parents[2] / "dashboards"))


def small_operator(kind: str = "dimensionless", seed: int = 0) -> Operator:
    """An operator of a few hundred weights."""
    normalization = fit_normalization(kind, [TASK], count=16)
    config = FNOConfig(
        in_channels=normalization.in_channels, mode_channels=normalization.channels("modes"), width=4, modes=2, depth=2,
        gate_width=4 if kind == "dimensionless" else 0,
    )  # fmt: skip
    model = FNO.create(config, torch.Generator().manual_seed(seed))
    card = {"tasks": [TASK.label], "recipe": kind, "examples_seen": 96, "errors": {TASK.label: 0.1}}
    return Operator(model, normalization, card | {"kind": "fine-tuned", "parent": dict(card), "curve": [[1, 0.5]]})


@cache
def examples():
    """What is predicted."""
    return TASK.sample(2, 16, torch.Generator().manual_seed(0))


def predicted(operator) -> torch.Tensor:
    """What an operator makes of the examples."""
    return operator.predict(examples().source, examples().coefficients, TASK.system)


@cache
def _operators() -> tuple[Operator, ...]:
    return tuple(small_operator(kind) for kind in ("dimensionless", "paper", "symbol"))


def prepare() -> None:
    """Load and predict once before memory is limited: PyTorch imports much at the first load."""
    with tempfile.TemporaryDirectory() as folder:
        for operator in _operators():
            predicted(load_operator(operator.save(Path(folder) / "own.safetensors")))


def changed(path: Path, rng: random.Random) -> bool:
    """Change a file of tensors, and say whether by its bytes alone, so that only what was written may come out."""
    how = rng.randrange(3)
    if how == 0:
        path.write_bytes(damaged(path.read_bytes(), rng))
        return True
    header, tensors = opened(path)
    text = json.dumps(header)
    if how == 1:
        text = mutated_json(text, rng)
    else:
        tensors = mutated_tensors(tensors, rng)
    signed = rng.randrange(3)
    try:
        values = json.loads(text)
        if signed and isinstance(values, dict):  # by somebody who knows how, or as an earlier version
            values.pop("digest", None)
            text = json.dumps(with_digest(values, tensors) if signed == 1 else values)
    except (ValueError, RecursionError):
        pass
    written(path, text, tensors)
    return False


def compared(predict: Callable[[], torch.Tensor], expected: torch.Tensor, same: bool) -> str | None:
    """What is wrong with loading a changed file and predicting: nothing if it is refused, or may differ."""
    prediction, wrong = refused(predict)
    if prediction is not None and same and not torch.equal(prediction, expected):
        return "damaged bytes load and predict another field"
    return wrong


def attack(seed: int, folder: Path) -> str | None:
    """Load a changed bundle and predict, and list the folder that it is in."""
    from explorer.bundles import FOLDER_VARIABLE, find_bundles

    rng = random.Random(seed)
    operator, path = rng.choice(_operators()), folder / "own.safetensors"
    operator.save(path, half=rng.random() < 0.2, packed=rng.random() < 0.3)
    expected = predicted(load_operator(path))
    same = changed(path, rng)
    os.environ[FOLDER_VARIABLE] = str(folder)
    found, problems = find_bundles()
    for bundle in found.values():
        if not bundle.shipped:
            _ = bundle.label, bundle.history, bundle.ensemble, bundle.history_on(TASK.system)
    if any("\n" in problem for problem in problems):
        return f"a problem of several lines: {problems!r}"
    return compared(lambda: predicted(load_operator(path)), expected, same)
