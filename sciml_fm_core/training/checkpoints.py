"""States of unfinished trainings in files."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from safetensors.torch import load
from torch import Tensor

from sciml_fm_core import schema
from sciml_fm_core.digests import read_stored_header, read_tensors, with_digest
from sciml_fm_core.files import atomic_path, save_tensors

from .config import History
from .description import describe, differences
from .distributed import ALONE, Processes
from .member import STATUSES, Member

CHECKPOINT_FORMAT = "sciml-fm checkpoint"
SHOWN = 4
"""Differences between two trainings that an error tells of."""


class CheckpointError(ValueError):
    """A checkpoint that a training cannot resume from: damaged, or of another training."""


@dataclass(frozen=True)
class Row:
    """Fields of a row of a `History` that others read."""

    step: int
    validation_error: float | None = None


@dataclass(frozen=True)
class MemberState:
    """State of a member in the header of a checkpoint."""

    learning_rate: float
    status: str
    history: History
    pending: float | None = None  # of the last validation, until it is reported

    def __post_init__(self):
        schema.check_choice("status", self.status, STATUSES)
        for row in self.history.rows:
            schema.read(Row, row, "history: rows", finite=False)


@dataclass(frozen=True)
class CheckpointHeader:
    """Header of a checkpoint; ``training`` is what `describe_training` made."""

    training: dict
    members: list[MemberState]
    step: int

    def __post_init__(self):
        if self.step < 0:
            raise ValueError(f"step: expected at least 0, got {self.step}")


def save_checkpoint(path: Path, members: Sequence[Member], optimizer, training: dict, step: int) -> None:
    """Write weights, best weights, histories and the optimiser's state of all members, atomically."""
    tensors: dict[str, Tensor] = {}
    states = []
    for number, member in enumerate(members):
        weights = {"model": member.operator.model.state_dict(), "best": member.best or {}}
        tensors |= {f"{number}.{kind}.{key}": value for kind, state in weights.items() for key, value in state.items()}
        history = asdict(member.history) | {"stopped": False}
        own = {"learning_rate": member.learning_rate, "status": member.status, "history": history}
        states.append(own | {"pending": member.unreported})
    for index, state in optimizer.state_dict()["state"].items():
        tensors |= {f"optimizer.{index}.{key}": torch.as_tensor(value) for key, value in state.items()}
    tensors = {key: value.detach().cpu() for key, value in tensors.items()}
    header = {"format": CHECKPOINT_FORMAT, "training": training, "members": states, "step": step}
    with atomic_path(path) as partial:
        save_tensors(tensors, partial, with_digest(header, tensors))


def load_checkpoint(
    path: Path, members: Sequence[Member], optimizer, training: dict, processes: Processes = ALONE
) -> int:
    """Put members and optimiser back to where they were; returns the number of steps taken.

    Rank 0 reads and checks the file, and the others get what it read. Nothing is changed before all of it is checked;
    where there is no file, nothing is changed at all.

    Raises:
        CheckpointError: if the file is damaged, or belongs to another training.
    """

    def read() -> bytes:
        if not path.exists():
            return b""
        _check(path, members, optimizer, training)
        return path.read_bytes()

    if not (stored := processes.from_first(read)):
        return 0
    size = int.from_bytes(stored[:8], "little")
    about = json.loads(json.loads(stored[8 : 8 + size])["__metadata__"]["header"])
    header, tensors = schema.read(CheckpointHeader, about, "", finite=False), load(stored)
    for number, (member, state) in enumerate(zip(members, header.members, strict=True)):
        member.operator.model.load_state_dict(_below(f"{number}.model.", tensors))
        best = {key: value.to(member.operator.device) for key, value in _below(f"{number}.best.", tensors).items()}
        member.best, member.history, member.status = best or None, state.history, state.status
        member.unreported = state.pending
    moments: dict[int, dict[str, Tensor]] = {}
    for key, value in _below("optimizer.", tensors).items():
        index, name = key.split(".")
        moments.setdefault(int(index), {})[name] = value
    optimizer.load_state_dict({"state": moments, "param_groups": optimizer.state_dict()["param_groups"]})
    return header.step


def _below(prefix: str, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    return {key.removeprefix(prefix): value for key, value in tensors.items() if key.startswith(prefix)}


def _check(path: Path, members: Sequence[Member], optimizer, training: dict) -> None:
    """Raise CheckpointError where a training cannot resume from a file."""
    where = f"checkpoint {path}"
    try:
        stored = read_stored_header(path, "checkpoint", CHECKPOINT_FORMAT, "a training")
        if "training" not in stored and "config" in stored:
            raise ValueError(f"{where}: an earlier version wrote it, and not what training it belongs to")
        header = schema.read(CheckpointHeader, stored, where, finite=False)
        tensors = read_tensors(path, "checkpoint", stored)
    except ValueError as error:
        raise CheckpointError(f"{error}; remove it to start again") from error
    if found := _differences(header, training, tensors):
        shown = "; ".join(found[:SHOWN]) + (f"; and {len(found) - SHOWN} more" if len(found) > SHOWN else "")
        longer = any(line.startswith(("config.steps", "config.time_limit")) for line in found)
        reason = " (the learning rate falls to 0 at the end: the same training cannot be made longer)" if longer else ""
        raise CheckpointError(f"{where}: belongs to another training: {shown}{reason}; remove it or use another name")
    if wrong := _wrong_tensor(members, optimizer, header, tensors):
        raise CheckpointError(
            f"{where}: expected the tensors of this training, {wrong[:80]!r} is missing, another one or "
            "not finite; remove it to start again"
        )


def _differences(header: CheckpointHeader, training: dict, tensors: dict[str, Tensor]) -> list[str]:
    """List what is not of this training. One that was stopped may also go on with the operator that it left."""
    found = differences(header.training, training)
    config = training["config"]  # that of the file too, where only weights differ
    unfinished = config["time_limit"] is None and header.step < config["steps"]
    if found and unfinished and all(line.startswith("weights") for line in found):
        for kind in ("model", "best"):
            states = [_below(f"{number}.{kind}.", tensors) for number in range(len(header.members))]
            if not differences(describe(states), training["weights"]):
                return []
    follows = ("first_batch", "weights")  # from what else differs
    return [line for line in found if not line.startswith(follows)] or found


def _wrong_tensor(members: Sequence[Member], optimizer, header: CheckpointHeader, tensors: dict) -> str | None:
    """Name of a tensor that is missing, of another shape or type than expected, or not finite where it has to be."""
    expected: dict[str, tuple[Tensor, bool]] = {}  # such a tensor, and whether it has to be finite
    for number, (member, state) in enumerate(zip(members, header.members, strict=True)):
        weights, finite = member.operator.model.state_dict(), state.status != "diverged"
        expected |= {f"{number}.model.{key}": (value, finite) for key, value in weights.items()}
        if _below(f"{number}.best.", tensors):
            expected |= {f"{number}.best.{key}": (value, True) for key, value in weights.items()}
    parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    for index, parameter in enumerate(parameters if header.step else []):
        if _below(f"optimizer.{index}.", tensors):  # who has had a gradient
            expected[f"optimizer.{index}.step"] = (torch.zeros(()), True)
            expected |= {f"optimizer.{index}.{name}": (parameter, False) for name in ("exp_avg", "exp_avg_sq")}
    for key in {**expected, **tensors}:
        if key not in expected or key not in tensors:
            return key
        (like, finite), found = expected[key], tensors[key]
        if found.shape != like.shape or found.dtype != like.dtype or (finite and not torch.isfinite(found).all()):
            return key
    return None
