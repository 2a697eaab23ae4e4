"""Roll-outs: an operator applied to its own states, step after step, and how far it goes."""

from __future__ import annotations

import torch
from torch import Tensor

from sciml_fm_core.models.operator import Operator
from sciml_fm_core.physics.evolution import Evolution
from sciml_fm_core.physics.spectral import as_batch, parseval_weights, power_of_two, relative_size, shells, transform
from sciml_fm_core.physics.system import System
from sciml_fm_core.physics.trajectories import evolution

SHOWN = (1, 5, 10, 50, 200)
"""Steps at which roll-outs are shown."""
CORRELATED = 0.8
"""Correlation below which a roll-out has lost the trajectory."""
BLOWN_UP = 1e5
"""Growth over the first state, or over 1, from which a roll-out has blown up."""
UNEVEN = 1e-4
"""Size of waves that count as nothing, relative to the exact state: beside its mean, a state that has become uniform
holds rounding alone, which no roll-out can follow."""


@torch.no_grad()
def rollout(
    operator: Operator | Evolution,
    state: Tensor,
    coefficients: Tensor,
    steps: int,
    system: System | str | None = None,
) -> Tensor:
    """States after 0, 1, ... steps that an operator predicts, or an evolution computes, each from the one before.

    A state that stops being finite, or has grown to `BLOWN_UP` times the first, is NaN from there on.

    Args:
        operator: what takes the steps.
        state: the first, shape (..., n, n), or (..., q, n, n) of q fields.
        coefficients: shape (..., c), the time of a step included.
        steps: how many.
        system: which evolution is meant, for an operator of several.

    Returns:
        Shape (..., steps + 1, n, n), or (..., steps + 1, q, n, n).

    >>> from sciml_fm_core import SYSTEMS
    >>> heat = SYSTEMS["advection_diffusion_in_time"]
    >>> rollout(heat, torch.randn(2, 16, 16), torch.tensor([0.01, 0, 0, 0.5]), 3).shape
    torch.Size([2, 4, 16, 16])

    Raises:
        ValueError: as `Operator.predict` and `Evolution.trajectory`.
    """
    if isinstance(operator, Evolution):
        return operator.trajectory(state, coefficients, steps)
    if steps < 0:
        raise ValueError(f"steps: expected at least 0, got {steps}")
    asked = evolution(operator.normalization.resolve(system))
    state, rows, leading = as_batch(state, coefficients, asked.input_axes)
    largest = BLOWN_UP * state.abs().flatten(1).amax(1).clamp(min=1)
    states = state.new_full((len(state), steps + 1, *state.shape[1:]), torch.nan)
    states[:, 0] = state
    going = torch.arange(len(state), device=state.device)
    for number in range(1, steps + 1):
        found = operator.predict(states[going, number - 1], rows[going], asked)
        sound = torch.isfinite(found).flatten(1).all(1) & (found.abs().flatten(1).amax(1) < largest[going])
        going = going[sound]
        states[going, number] = found[sound]
        if not len(going):
            break
    return states.view(*leading, *states.shape[1:])


def rollout_errors(found: Tensor, exact: Tensor, field_axes: int = 2) -> Tensor:
    """Relative errors of states (..., steps + 1, n, n), shape (..., steps + 1); infinite where there is no number."""
    dim = tuple(range(-field_axes, 0))
    return relative_size(torch.nan_to_num(found - exact, nan=torch.inf), exact, dim=dim)  # type: ignore[arg-type]


def correlations(found: Tensor, exact: Tensor, field_axes: int = 2) -> Tensor:
    """Correlation of states of any size less their means, shape (..., steps + 1); 0 where there is no number.

    Both are given the same further wave of `UNEVEN` of the exact state, so that two uniform states are alike.

    >>> uniform, wave = torch.ones(1, 16, 16), 1 + torch.cos(torch.arange(16) / 16 * 2 * torch.pi).expand(1, 16, 16)
    >>> [round(correlations(found, uniform).item(), 3) for found in (uniform + 1e-6 * torch.randn(16, 16), wave)]
    [1.0, 0.0]
    """
    dim = tuple(range(-field_axes, 0))
    unit = power_of_two(exact.abs().amax(dim=dim, keepdim=True))  # no square overflows or vanishes
    found, exact = found / unit, exact / unit
    one, other = (each - each.mean(dim=(-2, -1), keepdim=True) for each in (torch.nan_to_num(found), exact))
    added = UNEVEN**2 * exact.square().sum(dim)
    sizes = [(each.square().sum(dim) + added).sqrt() for each in (one, other)]
    product, both = (one * other).sum(dim) + added, sizes[0] * sizes[1]
    correlation = torch.where(both == 0, (sizes[0] == 0).to(both), product / both.masked_fill(both == 0, 1))
    return torch.where(torch.isfinite(found).flatten(-field_axes).all(-1), correlation, 0)


def steps_correlated(correlation: Tensor) -> Tensor:
    """Steps, shape (...), until the correlation (..., steps + 1) first falls below `CORRELATED`; all where it does not.

    >>> steps_correlated(torch.tensor([1.0, 0.95, 0.7, 0.9])).item()
    2
    """
    lost = correlation < CORRELATED
    return torch.where(lost.any(-1), lost.int().argmax(-1), correlation.shape[-1] - 1)


def spectrum(field: Tensor) -> Tensor:
    """Energy in the waves of each length, shape (..., n // 2): of ``|k|`` from 1/2 to 3/2, from 3/2 to 5/2, ...

    >>> x = torch.arange(16) / 16
    >>> spectrum(torch.cos(2 * torch.pi * 3 * x).expand(16, 16)).argmax().item() + 1
    3
    """
    n = field.shape[-1]
    shell = shells(n, field.device)
    energy = transform(field).abs().double().square() * parseval_weights(n, device=field.device) / n**4
    kept = (shell >= 1) & (shell <= n // 2)
    found = energy.new_zeros(*field.shape[:-2], n // 2 + 1)
    return found.index_add(-1, shell[kept], energy[..., kept])[..., 1:]


def keeps_spectrum(found: Tensor, exact: Tensor, resolved: int, factor: float = 2.0) -> Tensor:
    """Whether the spectrum of states (..., steps, n, n), a mean over their steps, is within a factor of the exact one.

    In the waves up to half of the resolved ones; to both is added the energy of waves of `UNEVEN` of the largest, the
    mean among them. A single state of a chaotic flow differs by more from another one, so the mean is compared; shape
    (...).
    """
    one, other = (spectrum(each).mean(-2)[..., : max(1, resolved // 2)] for each in (torch.nan_to_num(found), exact))
    mean = exact.mean((-2, -1)).double().square().mean(-1, keepdim=True)
    added = UNEVEN**2 * torch.maximum(other.amax(-1, keepdim=True), mean)
    one, other = one + added, other + added
    return ((one <= factor * other) & (one * factor >= other)).all(-1) & torch.isfinite(found).flatten(-3).all(-1)
