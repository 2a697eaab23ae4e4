"""Losses of a batch of predictions."""

from __future__ import annotations

from torch import Tensor

from sciml_fm_core.evaluation.metrics import relative_error

LOSSES = ("relative", "squared")


def training_loss(prediction: Tensor, solution: Tensor, loss: str) -> Tensor:
    """``relative`` or ``squared`` loss of a batch (..., batch, n, n), shape (...)."""
    if loss == "relative":
        return relative_error(prediction, solution.expand_as(prediction)).mean(dim=-1)
    return (prediction - solution).square().sum(dim=(-2, -1)).mean(dim=-1)
