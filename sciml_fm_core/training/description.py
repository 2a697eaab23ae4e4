"""A training described by plain values: by these a checkpoint knows the training that it belongs to.

Settings stand there as they are, data and weights as numbers that tell them apart (a norm and a random projection).
Rounding, which differs between machines and numbers of threads, does not make another training.
"""

from __future__ import annotations

import json
import math
import reprlib
from collections.abc import Mapping, Sequence
from dataclasses import asdict, is_dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from sciml_fm_core.data.batches import Batches
from sciml_fm_core.data.given import Reader
from sciml_fm_core.data.splits import stream
from sciml_fm_core.physics.examples import Examples
from sciml_fm_core.physics.system import System
from sciml_fm_core.physics.trajectories import Trajectories

from .config import TrainConfig
from .member import Member

SAME = 1e-5
"""Relative difference of two such numbers up to which they stand for the same data. One of a hundred million values
that is off by their standard deviation makes more, the rounding of float32 a hundredth of it."""
CHUNK = 256
"""Examples that are read at a time."""


def describe_training(
    members: Sequence[Member],
    data: Batches,
    config: TrainConfig,
    validation: Sequence[tuple[System, Examples | Trajectories]],
) -> dict[str, Any]:
    """Describe all that decides the result of `fit_together`; causes come before what follows from them."""
    first, models = members[0].operator, [member.operator.model for member in members]
    settings = asdict(config) | {"learning_rate": [member.learning_rate for member in members]}
    named = ("tasks", "recipe", "architecture", "size", "seed")
    described = {
        "operator": {key: first.card[key] for key in named if key in first.card},
        "config": {key: value for key, value in settings.items() if key != "checkpoint_every"},
        "data": data,
        "validation": list(validation),
        "model": {"architecture": first.model.architecture, **first.model.config.to_dict()},
        "normalization": [member.operator.normalization.to_dict() for member in members],
        "frozen": [[name for name, p in model.named_parameters() if not p.requires_grad] for model in models],
        "first_batch": data.batch(0, 0.0),
        "weights": [model.state_dict() for model in models],
    }
    return json.loads(json.dumps(describe(described)))  # as it comes back from a file: lists for tuples


def describe(value: Any) -> Any:
    """Describe settings, examples, weights, or batches with all their public attributes by plain values.

    >>> from sciml_fm_core import FreshBatches, Task
    >>> described = describe(FreshBatches([Task.parse("SYS-1(1,5)")], 4, resolution=16, seed=3))
    >>> described["kind"], described["seed"], described["schedule"], described["tasks"][0]["high"]
    ('FreshBatches', 3, {'0.0': 16}, 5.0)
    """
    if isinstance(value, np.generic):
        value = value.item()
    if value is None or isinstance(value, bool | int | float | str):
        return value
    if isinstance(value, torch.device):
        return value.type
    if isinstance(value, System):
        return value.name
    if isinstance(value, Tensor | np.ndarray):
        return {"shape": list(value.shape), "values": _sketch(_sums(torch.as_tensor(value)))}
    if isinstance(value, Mapping):
        return {str(key): describe(each) for key, each in value.items()}
    if isinstance(value, Reader | Trajectories):
        return _examples(value)
    if isinstance(value, list | tuple):
        return [describe(each) for each in value]
    if isinstance(value, Batches) or (is_dataclass(value) and not isinstance(value, type)):
        own = {key: each for key, each in vars(value).items() if not (key.startswith("_") or callable(each))}
        return {"kind": type(value).__name__, **describe(own)}
    return type(value).__qualname__


def _examples(reader: Reader | Trajectories) -> dict[str, Any]:
    """Numbers of examples and of grid points, and a number for each field."""
    names = Trajectories._fields if isinstance(reader, Trajectories) else Examples._fields
    totals = {name: torch.zeros(2, dtype=torch.float64) for name in names}
    for start in range(0, reader.size, CHUNK):
        part = reader.take(slice(start, start + CHUNK))
        for name, total in totals.items():
            total += _sums(getattr(part, name), start)
    sizes = {"examples": reader.size, "points": reader.resolution}
    return sizes | {name: _sketch(total) for name, total in totals.items()}


def _sums(values: Tensor, start: int = 0) -> Tensor:
    """Sum of squares of values, and of their products with random numbers; ``start`` rows were before them."""
    values = values.detach().cpu()
    values = torch.view_as_real(values) if values.is_complex() else values
    rows = values.double().reshape(len(values) if values.ndim else 1, -1)
    across, along = (
        torch.randn(count, generator=stream(0, "sketch", *names), dtype=torch.float64, device="cpu")
        for count, names in ((rows.shape[1], ()), (len(rows), (start,)))
    )
    return torch.stack([rows.square().sum(), along @ (rows @ across)])


def _sketch(sums: Tensor) -> float | None:
    """A number that nearly all other values would change, and rounding does not; None where they are not finite."""
    squares, projection = sums.tolist()
    found = 4 * math.sqrt(squares) + projection
    return found if math.isfinite(found) else None


def differences(kept: Any, asked: Any, name: str = "", size: float = 0.0) -> list[str]:
    """What two descriptions differ in, such as ``operator.seed: 0 in the file, 1 asked for``.

    Numbers outside of ``config`` are the same to rounding, in a list to that of its largest, the ``size``.
    """
    if isinstance(kept, dict | list) and type(kept) is type(asked):
        largest = 0.0
        if isinstance(kept, list):
            largest = max((abs(each) for each in kept if isinstance(each, float)), default=0.0)
            kept, asked = dict(enumerate(kept)), dict(enumerate(asked))
        found: list[str] = []
        for key in asked | kept:
            both = kept.get(key, _NOTHING), asked.get(key, _NOTHING)
            said = str(key) if str(key).isprintable() else reprlib.repr(key)  # a damaged file may say anything
            found += differences(*both, f"{name}.{said}".lstrip("."), largest)
        return found
    drawn = not name.startswith("config") and isinstance(kept, float) and isinstance(asked, float)
    if math.isclose(kept, asked, rel_tol=SAME, abs_tol=SAME * size) if drawn else kept == asked:
        return []
    shown = ("nothing" if value is _NOTHING else reprlib.repr(value) for value in (kept, asked))
    return ["{}: {} in the file, {} asked for".format(name, *shown)]


_NOTHING = object()
