"""What operators predict: several with networks of equal shape together, in batches, checked on the way in and out."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from sciml_fm_core.eager import graph_where_needed, known_values
from sciml_fm_core.physics.spectral import as_batch, is_finite, largest_size
from sciml_fm_core.physics.symmetries import inverse
from sciml_fm_core.physics.system import System

from .base import apply_together
from .normalization import Encoded

if TYPE_CHECKING:
    from .operator import Operator

BATCH_POINTS = 2**20
"""Predictions are made in batches of about this many grid points, so that memory stays flat in their number."""

SMALLEST, LARGEST = 1e-30, 1e30
"""Size of the sources, coefficients and solutions that are predicted in float32."""


def predict_together(
    operators: Sequence[Operator],
    source: Tensor,
    coefficients: Tensor,
    system: System | str | None = None,
    *,
    symmetries: bool = False,
) -> Tensor:
    """Predictions of several operators with networks of equal shape, shape (operators, ..., n, n).

    Arguments and errors as in `Operator.predict`; the operators may differ in their weights and normalisations.
    """
    system = operators[0].normalization.resolve(system)
    system.check(source, coefficients)
    system.check_mean(source)
    if symmetries and len(system.symmetries) > 1:
        return _averaged(operators, source, coefficients, system)
    device, dtype = operators[0].device, next(operators[0].model.parameters()).dtype
    _check_size(largest_size(source), "source")
    if coefficients.shape[-1]:
        _check_size(coefficients.abs().amax(dim=-1), "coefficients")
    sources, rows, leading = as_batch(source, coefficients, system.input_axes)
    grid = source.shape[-2:]
    batch = max(1, BATCH_POINTS // (grid.numel() * len(operators)))
    shape = (*([len(system.outputs)] if system.output_axes > 2 else []), *grid)

    def solutions(part: slice) -> Tensor:
        inputs = sources[part].to(device, dtype), rows[part].to(device, dtype)
        found = apply_operators(operators, system, *inputs)
        solution = found.to(source.device, source.dtype)
        if is_finite(solution) or not is_finite(found):  # what blew up is for the caller to see
            return solution
        raise ValueError(f"solution: too large for {source.dtype}; scale the source, or pass it as float32")

    parts = [slice(start, start + batch) for start in range(0, len(sources), batch)]
    with graph_where_needed(source, coefficients):
        if torch.is_grad_enabled():
            found = [solutions(part) for part in parts] or [source.new_empty(len(operators), 0, *shape)]
            solved = torch.cat(found, dim=1)
        else:  # into one array: twice its memory would be the most that a prediction takes
            solved = source.new_empty(len(operators), len(sources), *shape)
            for part in parts:
                solved[:, part] = solutions(part)
    return solved.reshape(len(operators), *leading, *shape)


def apply_operators(operators: Sequence[Operator], system: System, source: Tensor, coefficients: Tensor) -> Tensor:
    """`predict_together` of one batch, without checks of what is given, so that `torch.export` can follow it.

    Args:
        source, coefficients: (batch, [p,] ny, nx) and (batch, c), in the precision and on the device of the weights.
    """
    encoded = encode_together(operators, [(system, source, coefficients)])
    for each in encoded:
        _check_size(each.scale.masked_fill(each.scale == 0, torch.nan), "solution")
    outputs = apply_together([operator.model for operator in operators], [each.inputs for each in encoded])
    return torch.stack([each.decode(output) for each, output in zip(encoded, outputs, strict=True)])


def _check_size(values: Tensor, name: str) -> None:
    """Raise ValueError when numbers are so large or small that float32 loses them on the way."""
    known = known_values(values)
    if known is None:
        return
    size = known.double().abs()
    if ((size > 0) & (size < SMALLEST) | (size > LARGEST) | size.isnan()).any():
        raise ValueError(
            f"{name}: expected numbers of size {SMALLEST:g} to {LARGEST:g}, or 0, got {size.max():.3g}; choose other "
            "units: the equation is linear"
        )


def _averaged(operators: Sequence[Operator], source: Tensor, coefficients: Tensor, system: System) -> Tensor:
    """Mean of the predictions for all turned inputs, each turned back."""
    solutions = []
    for element in system.symmetries:
        turned = system.turned_fields(source, element.to(source.device), system.inputs)
        predictions = predict_together(operators, turned, system.turned(coefficients, element), system)
        solutions.append(system.turned_fields(predictions, inverse(element).to(source.device), system.outputs))
    return torch.stack(solutions).mean(dim=0)


def encode_together(
    operators: Sequence[Operator],
    parts: Sequence[tuple[System, Tensor, Tensor]],
    variation: Tensor | None = None,
) -> list[Encoded]:
    """Network inputs of a batch, given in parts of (system, source, coefficients), for each of several operators.

    Those of one normalisation share what is computed once. The variation, of all parts together, is as in
    `Normalization.encode`.
    """
    points = operators[0].model.mode_points
    sizes = [source.shape[0] for _, source, _ in parts]
    variations = [None] * len(parts) if variation is None else variation.split(sizes)
    encoded = {
        normalization: Encoded.joined(
            [
                normalization.encode(source, coefficients, system, mode_points=points, variation=own)
                for (system, source, coefficients), own in zip(parts, variations, strict=True)
            ]
        )
        for normalization in {operator.normalization for operator in operators}
    }
    return [encoded[operator.normalization] for operator in operators]
