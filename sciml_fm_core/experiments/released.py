"""Operators from weights that the paper's released code has trained, to compare with; docs/released.md maps them."""

from __future__ import annotations

import reprlib
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor

from sciml_fm_core.files import user_path
from sciml_fm_core.models.fno import FNO, FNOConfig
from sciml_fm_core.models.normalization import PaperNormalization
from sciml_fm_core.models.operator import Operator
from sciml_fm_core.physics.system import System, find_system
from sciml_fm_core.physics.tasks import Task


def operator_from_released(
    weights: dict[str, Tensor] | str | Path,
    system: System | str,
    scales: Sequence[float],
    *,
    resolution: int = 128,
    tasks: Sequence[str] = (),
) -> Operator:
    """Make an operator of weights of the paper's released code, for one system.

    Args:
        weights: a checkpoint, read as tensors only and never unpickled, or its state dict.
        system: which equation the weights were trained on.
        scales: the numbers that its code saves beside the data and divides inputs by: the median of ``norm(f) / n^2``
            over the training examples, that of the size of each of the c coefficients, and, not used here, that of
            ``max |u|`` and the lengths of the domain. The first 1 + c are enough. The weights mean nothing without.
        resolution: points n in each direction of the examples that the scales were taken from.
        tasks: labels of the tasks that the weights were trained on, for the card.

    Raises:
        ValueError: on another number of scales or of input channels, a domain that is no unit square, or weights that
            are not those of the released code.
    """
    found, model = find_system(system) if isinstance(system, str) else system, network_from_released(weights)
    names, given = found.coefficient_names, torch.as_tensor(scales, dtype=torch.float64).tolist()
    if len(given) not in (1 + len(names), 4 + len(names)) or not all(isinstance(x, float) and x >= 0 for x in given):
        raise ValueError(
            f"scales: expected the median of norm(f) / n^2 and those of {', '.join(names)}, or what the released code "
            f"saves, which has 3 more numbers; got {reprlib.repr(given)}"
        )
    given = [scale or 1.0 for scale in given]  # as the released code does
    if given[1 + len(names) :][-2:] not in ([], [1.0, 1.0]):
        raise ValueError(f"scales: expected a domain of lengths 1 and 1, got {given[-2]:g} and {given[-1]:g}")
    # norm(f) / n^2 depends on the grid; the root mean square of f, n times as large, does not.
    normalization = PaperNormalization((found,), given[0] * resolution, given[1 : 1 + len(names)])
    card = {
        "kind": "pre-trained",
        "tasks": [Task.parse(label).label for label in tasks],
        "recipe": "paper",
        "architecture": "fno",
        "parameters": model.parameter_count,
        "origin": "weights of the released code of arXiv:2306.00258",
    }
    return Operator(model, normalization, card)


def network_from_released(weights: dict[str, Tensor] | str | Path) -> FNO:
    """Model from weights of the paper's released code.

    Args:
        weights: as of `operator_from_released`.

    Raises:
        ValueError: if the keys or shapes are not those of that code.
    """
    if isinstance(weights, str | Path):
        weights = _read_released(user_path(weights))
    state = {key.removeprefix("module."): torch.as_tensor(value) for key, value in weights.items()}
    try:
        depth = sum(key.endswith(".weights1") for key in state)
        first = state["sp_convs.0.weights1"]
        config = FNOConfig(
            in_channels=state["fc0.weight"].shape[1],
            width=state["fc0.weight"].shape[0],
            modes=first.shape[2],
            depth=depth,
            projection=state["fc1.weight"].shape[0],
        )
        converted = {"lift.weight": state["fc0.weight"], "lift.bias": state["fc0.bias"]}
        for i in range(depth):
            positive, negative = state[f"sp_convs.{i}.weights1"], state[f"sp_convs.{i}.weights2"]
            if positive.is_complex():
                positive, negative = torch.view_as_real(positive), torch.view_as_real(negative)
            both = torch.cat([positive, negative], dim=2)  # (in, out, ky, kx, re/im)
            converted[f"spectral.{i}.weight"] = both.permute(4, 2, 3, 0, 1).flatten(1, 2).contiguous()
            converted[f"pointwise.{i}.weight"] = state[f"ws.{i}.weight"].squeeze(-1)
            converted[f"pointwise.{i}.bias"] = state[f"ws.{i}.bias"]
        for ours, theirs in (("project", "fc1"), ("output", "fc2")):
            converted[f"{ours}.weight"], converted[f"{ours}.bias"] = (
                state[f"{theirs}.weight"],
                state[f"{theirs}.bias"],
            )
        model = FNO(config)
        model.load_state_dict(converted)
    except (KeyError, IndexError, RuntimeError) as error:
        raise ValueError(
            f"released weights: expected fc0, sp_convs.i.weights1/2, ws.i, fc1, fc2 of one width; {error}"
        ) from error
    return model


def _read_released(path: Path) -> dict[str, Tensor]:
    if not path.is_file():
        raise ValueError(f"released checkpoint: no file {path}")
    try:
        checkpoint = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:
        raise ValueError(f"released checkpoint {path}: not a file of tensors only ({type(error).__name__})") from error
    state = checkpoint.get("model_state", checkpoint) if isinstance(checkpoint, dict) else None
    if not isinstance(state, dict):
        raise ValueError(f"released checkpoint {path}: expected a state dict or one under 'model_state'")
    return state
