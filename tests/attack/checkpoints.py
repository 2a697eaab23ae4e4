"""Checkpoints: a training resumes to what it was, or is refused and left as it is."""

from __future__ import annotations

import random
import tempfile
from functools import cache
from pathlib import Path

import torch

from sciml_fm_core import FreshBatches, TrainConfig, fit

from ._mutate import refused
from .bundles import TASK, changed, small_operator

NAME = "checkpoints"
CONFIG = TrainConfig(steps=2, learning_rate=1e-3)


@cache
def _data() -> FreshBatches:
    return FreshBatches([TASK], 2, resolution=16)


@cache
def _content() -> bytes:
    with tempfile.TemporaryDirectory() as folder:
        fit(small_operator(), _data(), CONFIG, checkpoint=Path(folder) / "state")
        return (Path(folder) / "state").read_bytes()


def prepare() -> None:
    """Train and resume once before memory is limited: PyTorch imports much at the first step and at the first load."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "state"
        path.write_bytes(_content())
        fit(small_operator(), _data(), CONFIG, checkpoint=path)


def attack(seed: int, folder: Path) -> str | None:
    """Resume from a changed checkpoint of a finished training."""
    rng, path = random.Random(seed), folder / "state"
    path.write_bytes(_content())
    expected = small_operator()
    fit(expected, _data(), CONFIG, checkpoint=path)
    same = changed(path, rng)
    operator = small_operator()
    before = {key: value.clone() for key, value in operator.model.state_dict().items()}
    history, wrong = refused(lambda: fit(operator, _data(), CONFIG, checkpoint=path))
    after = operator.model.state_dict()
    if history is None:
        if not all(torch.equal(value, before[key]) for key, value in after.items()):
            return "refused, but the operator in training was changed"
        return wrong
    if same and not all(torch.equal(value, after[key]) for key, value in expected.model.state_dict().items()):
        return "damaged bytes resume to another operator"
    if not all(value.isfinite().all() for value in after.values()):
        return "resumes to NaN"
    return None
