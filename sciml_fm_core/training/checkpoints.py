"""States of unfinished trainings in files."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from sciml_fm_core.files import atomic_path, save_tensors

from .config import History
from .member import Member

CHECKPOINT_FORMAT = "sciml-fm checkpoint"


class CheckpointError(ValueError):
    """A checkpoint that a training cannot resume from: damaged, or of another training."""


def _shape(member: Member) -> dict:
    model = member.operator.model
    shape = {"architecture": model.architecture, **model.config.to_dict()}
    return json.loads(json.dumps(shape))  # as it comes back from a file: lists for tuples


def save_checkpoint(path: Path, members: Sequence[Member], optimizer, settings: dict, step: int) -> None:
    """Write weights, best weights, histories and the optimiser's state of all members, atomically."""
    tensors: dict[str, Tensor] = {}
    states = []
    for number, member in enumerate(members):
        weights = {"model": member.operator.model.state_dict(), "best": member.best or {}}
        tensors |= {f"{number}.{kind}.{key}": value for kind, state in weights.items() for key, value in state.items()}
        history = asdict(member.history) | {"stopped": False}
        states.append({"learning_rate": member.learning_rate, "status": member.status, "history": history})
    for index, state in optimizer.state_dict()["state"].items():
        tensors |= {f"optimizer.{index}.{key}": torch.as_tensor(value) for key, value in state.items()}
    header = {
        "format": CHECKPOINT_FORMAT,
        "model": _shape(members[0]),
        **settings,
        "members": states,
        "step": step,
    }
    with atomic_path(path) as partial:
        save_tensors({key: value.detach().cpu() for key, value in tensors.items()}, partial, header)


def load_checkpoint(path: Path, members: Sequence[Member], optimizer, settings: dict) -> int:
    """Put members and optimiser back to where they were, and return the number of steps taken.

    Raises:
        CheckpointError: if the file is damaged, or belongs to a training with other settings.
    """
    try:
        with safe_open(path, framework="pt") as file:
            header = json.loads((file.metadata() or {}).get("header", "{}"))
            tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
    except (SafetensorError, OSError, ValueError) as error:
        raise CheckpointError(f"checkpoint {path}: not readable ({error}); remove it to start again") from error
    same = all(header.get(key) == value for key, value in settings.items())
    same = same and header.get("model") == _shape(members[0])
    rates = [state["learning_rate"] for state in header.get("members", [])]
    if header.get("format") != CHECKPOINT_FORMAT or not same or rates != [m.learning_rate for m in members]:
        raise CheckpointError(
            f"checkpoint {path}: belongs to a training with other settings; remove it or use another name"
        )

    def group(prefix: str) -> dict[str, Tensor]:
        return {key.removeprefix(prefix): value for key, value in tensors.items() if key.startswith(prefix)}

    for number, (member, state) in enumerate(zip(members, header["members"], strict=True)):
        member.operator.model.load_state_dict(group(f"{number}.model."))
        member.best = {key: value.to(member.operator.device) for key, value in group(f"{number}.best.").items()} or None
        member.history, member.status = History(**state["history"]), state["status"]
    moments: dict[int, dict[str, Tensor]] = {}
    for key, value in group("optimizer.").items():
        index, name = key.split(".")
        moments.setdefault(int(index), {})[name] = value
    optimizer.load_state_dict({"state": moments, "param_groups": optimizer.state_dict()["param_groups"]})
    return header["step"]
