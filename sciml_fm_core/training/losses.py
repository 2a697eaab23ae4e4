"""Losses: functions of a prediction and of the batch that it belongs to, by name."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import NamedTuple

import torch
from torch import Tensor

from sciml_fm_core.data.given import Reader
from sciml_fm_core.evaluation.metrics import has_size, relative_error
from sciml_fm_core.evaluation.rollouts import rollout
from sciml_fm_core.models.operator import Operator
from sciml_fm_core.models.predict import predict_together
from sciml_fm_core.physics.examples import Examples
from sciml_fm_core.physics.spectral import check_grid, parseval_weights, relative_size, transform
from sciml_fm_core.physics.spectral_system import spectral
from sciml_fm_core.physics.system import System
from sciml_fm_core.physics.trajectories import Trajectories
from sciml_fm_core.physics.variable_system import VariableSystem
from sciml_fm_core.schema import look_up


class Batch(NamedTuple):
    """Examples of one system: what a loss may use beside the prediction.

    Fields have the shapes of `Examples`.
    """

    system: System
    source: Tensor
    coefficients: Tensor
    solution: Tensor
    dial: Tensor


Loss = Callable[[Tensor, Batch], Tensor]
"""From predictions (..., batch, n, n), or (..., batch, q, ny, nx), to one value for each of them, (..., batch)."""

LOSSES: dict[str, Loss] = {}
"""The known losses by name, see `register_loss`."""
LABEL_FREE: set[str] = set()
"""Names of the losses that read no solution: what is trained by one is validated by it too, unless asked otherwise."""
RELATIVE_TO: dict[str, str] = {}
"""For losses that are relative, the field of the batch that they are relative to."""
CHUNK = 256
"""Examples on which a loss is measured at once, so that memory stays flat in their number."""


def register_loss(function: Loss, *, labels: bool = True, relative_to: str | None = None) -> Loss:
    """Make a function a loss that `TrainConfig` knows by the function's name.

    Args:
        function: the loss.
        labels: whether it reads the solutions of its batch; False for ``@partial(register_loss, labels=False)``.
        relative_to: ``solution`` or ``source`` where values are divided by its size: its means leave out the examples
            where that is zero, see `evaluation.metrics.has_size`.

    >>> @register_loss
    ... def largest_error(prediction, batch):
    ...     return (prediction - batch.solution).abs().amax(dim=(-2, -1))
    >>> del LOSSES["largest_error"]
    """
    name = function.__name__
    LOSSES[name] = function
    (LABEL_FREE.discard if labels else LABEL_FREE.add)(name)
    RELATIVE_TO.pop(name, None)
    if relative_to is not None:
        RELATIVE_TO[name] = relative_to
    return function


@partial(register_loss, relative_to="solution")
def relative(prediction: Tensor, batch: Batch) -> Tensor:
    """Relative error ``||u - u0|| / ||u0||``; of a system with several output fields the mean of theirs."""
    return _of_fields(relative_error(prediction, batch.solution.expand_as(prediction)), batch).mean(dim=-1)


@partial(register_loss, relative_to="solution")
def logarithmic(prediction: Tensor, batch: Batch) -> Tensor:
    """Logarithm of the relative error plus 1e-4, of which a mean counts a halved error alike wherever it is halved.

    For examples that are not alike: of steps the easy ones have a thousandth of the error of the hard ones.
    """
    found = _of_fields(relative_error(prediction, batch.solution.expand_as(prediction)), batch)
    return (found + 1e-4).log().mean(dim=-1)


@register_loss
def squared(prediction: Tensor, batch: Batch) -> Tensor:
    """Squared error summed over the grid and the output fields: the paper's loss."""
    return _of_fields((prediction - batch.solution).square().sum(dim=(-2, -1)), batch).sum(dim=-1)


def _of_fields(values: Tensor, batch: Batch) -> Tensor:
    """Values of each example and output field, shape (..., q), q = 1 where there is one field."""
    return values if len(batch.system.outputs) > 1 else values[..., None]


@partial(register_loss, labels=False, relative_to="source")
def residual(prediction: Tensor, batch: Batch) -> Tensor:
    """Relative residual ``||L u - f|| / ||f||`` over the modes that L does not annihilate; no solution is read.

    The symbol grows with the wavenumber, and with it the weight of an error: see `physics`.
    """
    return _residual(prediction, batch, preconditioned=False)


@partial(register_loss, labels=False, relative_to="source")
def physics(prediction: Tensor, batch: Batch) -> Tensor:
    """Preconditioned residual ``||(L u - f) / P|| / ||f / P||``, as `residual`, mode by mode divided by P.

    P is `System.preconditioner`, whose docstring says what it knows of L. An error e of one mode counts as
    ``|symbol / P| |e|``.
    """
    return _residual(prediction, batch, preconditioned=True)


def _residual(prediction: Tensor, batch: Batch, *, preconditioned: bool) -> Tensor:
    if isinstance(batch.system, VariableSystem):
        return _residual_of_fields(prediction, batch, batch.system, preconditioned)
    system, n = spectral(batch.system), check_grid(prediction, "prediction")
    residual_hat, null = system.residual_modes(prediction, batch.source, batch.coefficients)
    source_hat, coefficients = transform(batch.source), batch.coefficients.double()
    weights = parseval_weights(n, device=prediction.device).sqrt()
    if preconditioned:
        weights = weights / system.preconditioner(coefficients, n)
        weights = weights / weights.amax(dim=(-2, -1), keepdim=True)  # for float32; both norms share the factor
    weights = weights.masked_fill(null, 0).to(source_hat.real.dtype)
    residual, given = (torch.view_as_real(weights * each) for each in (residual_hat, source_hat))
    return relative_size(residual, given, dim=(-3, -2, -1))


def _residual_of_fields(prediction: Tensor, batch: Batch, system: VariableSystem, preconditioned: bool) -> Tensor:
    """As `_residual` where coefficients are fields; P is the symbol with the fields frozen at their means."""
    n = check_grid(prediction, "prediction")
    left, given = system.residual(prediction, batch.source, batch.coefficients), batch.source[..., -1, :, :]
    weights = parseval_weights(n, device=prediction.device).sqrt()
    if preconditioned:
        size = system.frozen_symbol(batch.source, n).abs()
        weights = weights * torch.where(size > 0, size[..., 0, 1, None, None] / size, 0)
    weights = weights.to(given.dtype)
    residual, source = (torch.view_as_real(weights * transform(each)) for each in (left, given))
    return relative_size(residual, source, dim=(-3, -2, -1))


def find_loss(name: str) -> Loss:
    """Look up a loss by its name; ValueError if there is none."""
    return look_up("loss", name, LOSSES)


def training_loss(prediction: Tensor, parts: Sequence[tuple[System, Examples]], loss: str) -> Tensor:
    """Mean of a loss over a batch in parts of one system each: predictions (..., batch, n, n) to shape (...).

    What `kept` leaves out does not count; a batch of nothing else has the loss 0, and no gradient.
    """
    function, field = find_loss(loss), RELATIVE_TO.get(loss)
    sizes, axes = [examples.size for _, examples in parts], parts[0][0].output_axes
    predictions = prediction.split(sizes, dim=-1 - axes) if len(parts) > 1 else [prediction]
    values, counted = [], []
    for own, (system, examples) in zip(predictions, parts, strict=True):
        if field is not None:
            target, mask = getattr(examples, field), kept(loss, examples)
            counted.append(mask)
            # What is left out is replaced: a quotient of zeros would make the gradients of all NaN.
            ramp = torch.linspace(-1, 1, target.shape[-1], dtype=target.dtype, device=target.device)
            examples = examples._replace(**{field: torch.where(mask.view(-1, *[1] * (target.ndim - 1)), target, ramp)})
        values.append(function(own, Batch(system, *examples)))
    found = torch.cat(values, dim=-1)
    if field is None:
        return found.mean(dim=-1)
    mask = torch.cat(counted)
    return found.masked_fill(~mask, 0).sum(dim=-1) / mask.sum().clamp(min=1)


def kept(loss: str, examples: Examples) -> Tensor:
    """Mask, shape (count,), of the examples that means of a loss are over: where it is relative, see `RELATIVE_TO`."""
    if loss not in RELATIVE_TO:
        return torch.ones(examples.size, dtype=torch.bool, device=examples.source.device)
    return has_size(getattr(examples, RELATIVE_TO[loss]), batched=True)


def _rolled(operator: Operator, system: System, given: Trajectories, function: Loss) -> Tensor:
    states = rollout(operator, given.states[:, 0], given.coefficients, given.steps, system)
    steps = [
        function(
            torch.nan_to_num(states[None, :, number], nan=1e6),
            Batch(system, given.states[:, 0], given.coefficients, given.states[:, number], given.dial),
        )[0]
        for number in range(1, given.steps + 1)
    ]
    return torch.stack(steps).mean(dim=0)


def check_residual(loss: str | None, system: System) -> None:
    """Raise ValueError where a loss is a residual of an equation of which none is known, before anything is drawn."""
    if loss in (residual.__name__, physics.__name__) and not isinstance(system, VariableSystem):
        spectral(system)


def check_kept(sets: Sequence[tuple[System, Reader]], loss: str, name: str) -> None:
    """Raise ValueError where a loss leaves out every example."""
    if not sets:
        return
    for _, reader in sets:
        for start in range(0, reader.size, CHUNK):
            if kept(loss, reader.take(slice(start, start + CHUNK))).any():
                return
    target = RELATIVE_TO[loss]
    raise ValueError(f"{name}: expected an example whose {target} is not zero: the loss {loss!r} is relative")


@torch.no_grad()
def mean_losses(
    operators: Sequence[Operator], sets: Sequence[tuple[System, Examples | Trajectories]], loss: str
) -> list[float]:
    """Mean of a loss of each operator's predictions over the examples of all sets that are `kept`.

    Of trajectories the mean over all steps of roll-outs from their first states, so that what is chosen by it goes far,
    and does not only take the best single step.

    Raises:
        ValueError: if none is.
    """
    function, values = find_loss(loss), []
    check_kept([(system, each) for system, each in sets if isinstance(each, Examples)], loss, "validation")
    for system, examples in sets:
        if isinstance(examples, Trajectories):
            rolled = [_rolled(operator, system, examples, function) for operator in operators]
            values.append(torch.stack(rolled).cpu())
            continue
        predictions = predict_together(operators, examples.source, examples.coefficients, system)
        for start in range(0, examples.size, CHUNK):
            part = slice(start, start + CHUNK)
            batch = examples.take(part)
            values.append(function(predictions[:, part], Batch(system, *batch))[:, kept(loss, batch)].cpu())
    return torch.cat(values, dim=1).mean(dim=1).tolist()
