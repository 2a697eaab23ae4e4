"""Losses: functions of a prediction and of the batch that it belongs to, by name."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from sciml_fm_core.evaluation.metrics import relative_error
from sciml_fm_core.physics.examples import Examples
from sciml_fm_core.physics.system import System


class Batch(NamedTuple):
    """What a loss may use beside the prediction: examples of one system.

    ``source`` and ``solution`` have shape (batch, n, n), ``coefficients`` (batch, c), ``dial`` (batch,).
    """

    system: System
    source: Tensor
    coefficients: Tensor
    solution: Tensor
    dial: Tensor


Loss = Callable[[Tensor, Batch], Tensor]
"""From predictions (..., batch, n, n) to one value for each of them, (..., batch)."""

LOSSES: dict[str, Loss] = {}
"""The known losses by name, see `register_loss`."""


def register_loss(function: Loss) -> Loss:
    """Make a function a loss that `TrainConfig` knows by the function's name.

    >>> @register_loss
    ... def largest_error(prediction, batch):
    ...     return (prediction - batch.solution).abs().amax(dim=(-2, -1))
    >>> del LOSSES["largest_error"]
    """
    LOSSES[function.__name__] = function
    return function


@register_loss
def relative(prediction: Tensor, batch: Batch) -> Tensor:
    """``||u - u0|| / ||u0||``."""
    return relative_error(prediction, batch.solution.expand_as(prediction))


@register_loss
def squared(prediction: Tensor, batch: Batch) -> Tensor:
    """The paper's: the squared error summed over the grid."""
    return (prediction - batch.solution).square().sum(dim=(-2, -1))


def find_loss(name: str) -> Loss:
    """Loss by name.

    Raises:
        ValueError: if there is none.
    """
    if name not in LOSSES:
        raise ValueError(f"loss: expected one of {', '.join(LOSSES)}, got {name!r}")
    return LOSSES[name]


def training_loss(prediction: Tensor, parts: Sequence[tuple[System, Examples]], loss: str) -> Tensor:
    """Mean of a loss over a batch in parts of one system each: predictions (..., batch, n, n) to shape (...)."""
    function = find_loss(loss)
    predictions = prediction.split([examples.size for _, examples in parts], dim=-3) if len(parts) > 1 else [prediction]
    values = [
        function(own, Batch(system, *examples)) for own, (system, examples) in zip(predictions, parts, strict=True)
    ]
    return torch.cat(values, dim=-1).mean(dim=-1)
