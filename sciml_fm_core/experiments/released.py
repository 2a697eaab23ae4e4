"""Operators from weights that the paper's released code has trained, to compare with; docs/released.md maps them."""

from __future__ import annotations

import reprlib
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor

from sciml_fm_core.models.fno import FNO
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
        weights: as in `FNO.from_released`: a checkpoint, read as tensors only, or its state dict.
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
    found, model = find_system(system) if isinstance(system, str) else system, FNO.from_released(weights)
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
