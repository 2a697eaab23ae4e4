"""A band around predictions, calibrated on held-out examples by split conformal prediction; no equation is asked for.

The half width at a point is a factor times a spread: that of an ensemble's members, or where there is one operator
alone the root mean square of its prediction, which is the same at all points of an example.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from sciml_fm_core import schema
from sciml_fm_core.data.given import Data, open_data
from sciml_fm_core.models.operator import Operator
from sciml_fm_core.physics.examples import Examples
from sciml_fm_core.physics.spectral import root_mean_square

from .ensemble import Ensemble, Prediction
from .method import conformal_factor, conformal_scores, covered, relative_width

PART = 1024
"""Examples that are predicted at once."""


@dataclass(frozen=True)
class Band:
    """``|u - prediction| <= factor * spread`` at a share ``coverage`` of the points, in a share ``confidence`` of the
    examples that are drawn as the calibration examples were.

    Attributes:
        factor: what the spread is multiplied by.
        coverage: share of the points of an example that the band is to hold.
        confidence: share of the examples of which it is to hold that many.
        examples: number of calibration examples.
    """

    factor: float
    coverage: float = 0.9
    confidence: float = 0.9
    examples: int = 0

    def around(self, predictor: Operator | Ensemble, source: Tensor, coefficients: Tensor) -> Prediction:
        """Prediction and half width of the band, each of the shape of the solution, as mean and spread."""
        mean, spread = _predicted(predictor, source, coefficients)
        return Prediction(mean, (self.factor * spread).expand_as(mean))

    def measure(self, predictor: Operator | Ensemble, data: Data) -> dict[str, float]:
        """Coverage on examples that were not used to calibrate.

        Returns:
            ``held``, the share of the examples of which the band holds enough points in every field, which is to be
            about the confidence; ``points``, the share of all points that it holds; ``width``, its mean half width over
            the root mean square of the solution.
        """
        held, points, width = [], [], []
        for examples in _parts(predictor, data):
            mean, half = self.around(predictor, examples.source, examples.coefficients)
            inside = covered(mean, half, examples.solution).double().reshape(examples.size, -1)
            held.append((inside >= self.coverage - 1e-9).all(dim=1))
            points.append(inside)
            width.append(relative_width(half, examples.solution).flatten())
        found = {"held": torch.cat(held), "points": torch.cat(points), "width": torch.cat(width)}
        return {name: values.double().mean().item() for name, values in found.items()}


def calibrated_band(
    predictor: Operator | Ensemble, data: Data, *, coverage: float = 0.9, confidence: float = 0.9
) -> Band:
    """The narrowest band of its form that holds what it should of held-out examples.

    The factor is the `conformal_factor` of their `conformal_scores`, the largest over the output fields. That the
    weights were chosen on the same examples makes it slightly too narrow; how much is measured on test examples.

    >>> from sciml_fm_core import Task, draw_split, load_operator
    >>> operator, task = load_operator("sys-1"), Task.parse("SYS-1(1,5)")
    >>> band = calibrated_band(operator, draw_split(task, "validation", 32, resolution=32))
    >>> band.measure(operator, draw_split(task, "test", 32, resolution=32))["held"] > 0.75
    True

    Args:
        predictor: an operator, or an ensemble of them.
        data: calibration examples that no weights were fitted to, at least 9 for a confidence of 0.9.
        coverage, confidence: see `Band`.

    Raises:
        ValueError: if there are too few examples, or the spread is zero where the prediction errs.
    """
    scores = []
    for examples in _parts(predictor, data):
        mean, spread = _predicted(predictor, examples.source, examples.coefficients)
        found = conformal_scores(mean, spread.expand_as(mean), examples.solution, coverage)
        scores.append(found.reshape(examples.size, -1).amax(dim=1))
    factor = conformal_factor(torch.cat(scores), confidence)
    if not math.isfinite(factor):
        raise ValueError("calibration: expected a spread above zero, got predictions or members without any")
    return Band(factor, coverage, confidence, sum(map(len, scores)))


def band_of(card: dict[str, Any]) -> Band:
    """The band that the card of an operator or of an ensemble holds.

    Raises:
        ValueError: if there is none.
    """
    if "band" not in card:
        raise ValueError(
            "band: expected one on the card of the operator; `sciml-fm pretrain` and `adapt` calibrate it on the "
            "validation examples of a file of fields, of which they want 9 or more"
        )
    return schema.read(Band, card["band"], "card: band", strict=True)


def _parts(predictor: Operator | Ensemble, data: Data) -> Iterator[Examples]:
    reader = open_data(data, predictor.systems[0])
    for start in range(0, reader.size, PART):
        yield reader.take(slice(start, start + PART))


def _predicted(predictor: Operator | Ensemble, source: Tensor, coefficients: Tensor) -> tuple[Tensor, Tensor]:
    found = predictor.predict(source, coefficients)
    if isinstance(found, Prediction):
        return found
    return found, root_mean_square(found)[..., None, None]
