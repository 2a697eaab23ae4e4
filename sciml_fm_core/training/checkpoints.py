"""States of unfinished trainings in files."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load
from torch import Tensor

from sciml_fm_core import schema
from sciml_fm_core.digests import read_stored_header, read_tensors, with_digest
from sciml_fm_core.files import atomic_path, save_tensors

from .config import History
from .description import describe, differences
from .distributed import ALONE, Processes
from .member import Member

CHECKPOINT_FORMAT = "sciml-fm checkpoint"
STATUSES = ("training", "finished", "diverged")
"""What a `Member` may be."""
SHOWN = 4
"""Differences between two trainings that an error tells of."""


class CheckpointError(ValueError):
    """A checkpoint that a training cannot resume from: damaged, or of another training."""


@dataclass(frozen=True)
class Row:
    """What others read of a row of a `History`."""

    step: int
    validation_error: float | None = None


@dataclass(frozen=True)
class MemberState:
    """What the header of a checkpoint says of a member."""

    learning_rate: float
    status: str
    history: History
    pending: float | None = None  # of the last validation, until it is reported

    def __post_init__(self):
        if self.status not in STATUSES:
            raise ValueError(f"status: expected one of {', '.join(STATUSES)}, got {self.status[:80]!r}")
        for row in self.history.rows:
            schema.read(Row, row, "history: rows", finite=False)


@dataclass(frozen=True)
class CheckpointHeader:
    """What the header of a checkpoint holds; ``training`` is what `describe_training` made."""

    training: dict
    members: list[MemberState]
    step: int

    def __post_init__(self):
        if self.step < 0:
            raise ValueError(f"step: expected at least 0, got {self.step}")


def save_checkpoint(
    path: Path, members: Sequence[Member], optimizer, training: dict, step: int, pending: Sequence[float | None]
) -> None:
    """Write weights, best weights, histories and the optimiser's state of all members, atomically."""
    tensors: dict[str, Tensor] = {}
    states = []
    for number, (member, error) in enumerate(zip(members, pending, strict=True)):
        weights = {"model": member.operator.model.state_dict(), "best": member.best or {}}
        tensors |= {f"{number}.{kind}.{key}": value for kind, state in weights.items() for key, value in state.items()}
        history = asdict(member.history) | {"stopped": False}
        own = {"learning_rate": member.learning_rate, "status": member.status, "history": history, "pending": error}
        states.append(own)
    for index, state in optimizer.state_dict()["state"].items():
        tensors |= {f"optimizer.{index}.{key}": torch.as_tensor(value) for key, value in state.items()}
    tensors = {key: value.detach().cpu() for key, value in tensors.items()}
    header = {"format": CHECKPOINT_FORMAT, "training": training, "members": states, "step": step}
    with atomic_path(path) as partial:
        save_tensors(tensors, partial, with_digest(header, tensors))


def load_checkpoint(
    path: Path, members: Sequence[Member], optimizer, training: dict, processes: Processes = ALONE
) -> tuple[int, list[float | None]]:
    """Put members and optimiser back to where they were; returns the number of steps taken, and errors to be reported.

    Rank 0 reads and checks the file, and the others get what it read. Nothing is changed before all of it is checked;
    where there is no file, nothing is changed at all.

    Raises:
        CheckpointError: if the file is damaged, or belongs to another training.
    """

    def read() -> bytes | None:
        if not path.exists():
            return None
        _check(path, members, optimizer, training)
        return path.read_bytes()

    if not (stored := processes.from_first(read)):
        return 0, [None] * len(members)
    size = int.from_bytes(stored[:8], "little")
    header = schema.read(
        CheckpointHeader, json.loads(json.loads(stored[8 : 8 + size])["__metadata__"]["header"]), "", finite=False
    )
    tensors = load(stored)

    def group(prefix: str) -> dict[str, Tensor]:
        return {key.removeprefix(prefix): value for key, value in tensors.items() if key.startswith(prefix)}

    for number, (member, state) in enumerate(zip(members, header.members, strict=True)):
        member.operator.model.load_state_dict(group(f"{number}.model."))
        member.best = {key: value.to(member.operator.device) for key, value in group(f"{number}.best.").items()} or None
        member.history, member.status = state.history, state.status
    moments: dict[int, dict[str, Tensor]] = {}
    for key, value in group("optimizer.").items():
        index, name = key.split(".")
        moments.setdefault(int(index), {})[name] = value
    optimizer.load_state_dict({"state": moments, "param_groups": optimizer.state_dict()["param_groups"]})
    return header.step, [state.pending for state in header.members]


def _check(path: Path, members: Sequence[Member], optimizer, training: dict) -> None:
    """Raise CheckpointError where a training cannot resume from a file."""
    try:
        stored = read_stored_header(path, "checkpoint", CHECKPOINT_FORMAT, "a training")
        if "training" not in stored and "config" in stored:
            raise ValueError(f"checkpoint {path}: an earlier version wrote it, and not what training it belongs to")
        header = schema.read(CheckpointHeader, stored, f"checkpoint {path}", finite=False)
        tensors = read_tensors(path, "checkpoint", stored)
    except ValueError as error:
        raise CheckpointError(f"{error}; remove it to start again") from error
    if found := _differences(header, training, tensors):
        shown = "; ".join(found[:SHOWN]) + (f"; and {len(found) - SHOWN} more" if len(found) > SHOWN else "")
        longer = any(line.startswith(("config.steps", "config.time_limit")) for line in found)
        reason = " (the learning rate falls to 0 at the end: the same training cannot be made longer)" if longer else ""
        raise CheckpointError(
            f"checkpoint {path}: belongs to another training: {shown}{reason}; remove it or use another name"
        )
    expected = _expected(members, optimizer, header, tensors)
    if wrong := [key for key in {**expected, **tensors} if not _fits(tensors.get(key), expected.get(key))]:
        raise CheckpointError(
            f"checkpoint {path}: expected the tensors of this training, {wrong[0][:80]!r} is missing, another one or "
            "not finite; remove it to start again"
        )


def _differences(header: CheckpointHeader, training: dict, tensors: dict[str, Tensor]) -> list[str]:
    """What is not of this training. One that was stopped may also go on with the operator that it left."""
    found = differences(header.training, training)
    config = header.training["config"] if found else {}
    unfinished = bool(found) and config["time_limit"] is None and header.step < config["steps"]
    if unfinished and all(line.startswith("weights") for line in found):
        for kind in ("model", "best"):
            states: list[dict] = [{} for _ in header.members]
            for key, tensor in tensors.items():
                number, of, name = key.split(".", 2)
                if of == kind:
                    states[int(number)][name] = tensor
            if not differences(describe(states), training["weights"]):
                return []
    follows = ("first_batch", "weights")  # from what else differs
    return [line for line in found if not line.startswith(follows)] or found


def _expected(members: Sequence[Member], optimizer, header: CheckpointHeader, tensors: dict) -> dict[str, Any]:
    """By name, a tensor of the shape and type that is expected, and whether it has to be finite."""
    found: dict[str, Any] = {}
    for number, (member, state) in enumerate(zip(members, header.members, strict=True)):
        kinds = ("model", "best") if any(key.startswith(f"{number}.best.") for key in tensors) else ("model",)
        finite = state.status != "diverged"
        for kind in kinds:
            weights = member.operator.model.state_dict()
            found |= {f"{number}.{kind}.{key}": (value, finite or kind == "best") for key, value in weights.items()}
    parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    for index, parameter in enumerate(parameters if header.step else []):
        if any(f"optimizer.{index}.{name}" in tensors for name in ("step", "exp_avg", "exp_avg_sq")):
            found[f"optimizer.{index}.step"] = (torch.zeros(()), True)
            found |= {f"optimizer.{index}.{name}": (parameter, False) for name in ("exp_avg", "exp_avg_sq")}
    return found


def _fits(tensor: Tensor | None, expected: tuple[Tensor, bool] | None) -> bool:
    if tensor is None or expected is None:
        return False
    like, finite = expected
    same = tensor.shape == like.shape and tensor.dtype == like.dtype
    return same and (not finite or bool(torch.isfinite(tensor).all()))
