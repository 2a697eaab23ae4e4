"""Diffusion that depends on the state, by finite volumes: the generalised porous medium equation.

A point is a cell. What flows through the face between two cells is the difference of the potential K(u), the integral
of k from 0 to u, over their distance: it leaves one cell and enters the other, so that the mean stays to rounding.
The steps are of the third-order Runge-Kutta method that is a mean of forward Euler steps (Shu and Osher, 1988), each
short enough that no new maximum and no negative value arises.

Maddix et al. (2018) and Hansen et al. (2023), arXiv:2302.11002.
"""

from __future__ import annotations

import math
from abc import abstractmethod
from typing import ClassVar

import torch
from torch import Tensor

from sciml_fm_core.physics.evolution import Evolution
from sciml_fm_core.physics.parameter import Parameter
from sciml_fm_core.physics.spectral import inverse_transform, laplacian, transform
from sciml_fm_core.physics.symmetries import Geometry

from .states import shares, smooth_states

MOST_STEPS = 100_000


class _PorousMedium(Evolution):
    """``du/dt = div(k(u) grad u)``; the linear part is diffusion at k of u = 1/2, the rest is what is left of it.

    How many substeps a step takes depends on the grid and on the largest k of the states, not on `largest_step`.
    """

    geometry = Geometry()
    keeps_mean = True
    resolved = math.inf  # differences of neighbours keep all waves

    @abstractmethod
    def potential(self, state: Tensor, coefficients: Tensor) -> Tensor:
        """K(u), the integral of k from 0 to u, of states (..., n, n) and coefficients (..., c)."""

    @abstractmethod
    def largest(self, state: Tensor, coefficients: Tensor) -> Tensor:
        """The largest k(u) between the smallest and the largest value of each state, shape (...)."""

    @abstractmethod
    def typical(self, coefficients: Tensor) -> Tensor:
        """k that the linear part has, shape (...)."""

    def symbol(self, coefficients, n):
        return self.typical(coefficients)[..., None, None] * laplacian(n, like=coefficients)

    def divergence(self, state: Tensor, coefficients: Tensor) -> Tensor:
        """``div(k(u) grad u)`` of finite volumes, of states (..., n, n)."""
        potential, n = self.potential(state, coefficients), state.shape[-1]
        change = torch.zeros_like(potential)
        for axis in (-1, -2):
            flux = potential.roll(-1, axis) - potential  # through the face behind each cell
            change = change + flux - flux.roll(1, axis)
        return n**2 * change

    def rest(self, state_hat, coefficients):
        n = state_hat.shape[-2]
        change = transform(self.divergence(inverse_transform(state_hat, n), coefficients))
        return change + self.symbol(coefficients, n) * state_hat

    def _states(self, state, coefficients, steps, substeps):
        state, coefficients = state.double(), coefficients.double()  # hundreds of steps would add up in float32
        time = self.time(coefficients)
        limit = 1 / (4 * state.shape[-1] ** 2 * self.largest(state, coefficients).clamp(min=1e-30))
        count = substeps or math.ceil((time / (0.8 * limit)).max().item()) if len(state) else 1
        if count > MOST_STEPS:
            raise ValueError(
                f"{self.name}: {count} steps would be needed in each, at most {MOST_STEPS} are made; "
                "take a shorter time, a coarser grid or smaller states"
            )
        step = (time / max(count, 1))[:, None, None]

        def euler(u):
            return u + step * self.divergence(u, coefficients)

        for _ in range(steps):
            for _ in range(max(count, 1)):
                half = 3 / 4 * state + euler(euler(state)) / 4
                state = state / 3 + 2 / 3 * euler(half)
            yield state

    def draw(self, dial, parameters, grid, generator):
        return shares(2 * smooth_states(len(dial), grid, generator, modes=6, exponent=4))


class PorousMedium(_PorousMedium):
    """``du/dt = div(u^m grad u)`` for u >= 0; dial: the exponent m.

    Where a state is negative, k is that of its size.
    """

    name = "porous_medium"
    label = "GPME"
    title = "Porous medium"
    equation = r"\partial_t u = \nabla \cdot (u^m\, \nabla u)"
    coefficient_names = ("exponent", "time")
    dialled = Parameter("exponent", 1, 6, start=2, label="Exponent m", minimum=0)
    constants: ClassVar = {"time": 0.02}
    shifts: ClassVar = {"pre-training": (1, 3), "sharper": (3, 6)}

    def potential(self, state, coefficients):
        m = coefficients[..., 0, None, None]
        return state * state.abs() ** m / (m + 1)

    def largest(self, state, coefficients):
        return state.abs().amax(dim=(-2, -1)) ** coefficients[..., 0]

    def typical(self, coefficients):
        return 0.5 ** coefficients[..., 0]

    def check_coefficients(self, coefficients):
        if not (coefficients[..., 0] >= 0).all():
            raise ValueError(f"exponent: {self.name} expects m >= 0, got {coefficients[..., 0].min():g}; correct it")


class Stefan(_PorousMedium):
    """``du/dt = div(k(u) grad u)`` with k = 1 where u is above a threshold, else 0; dial: the threshold.

    What melts: fronts that are sharp, and a solution that is not smooth.
    """

    name = "stefan"
    label = "STEFAN"
    title = "Stefan"
    equation = (
        r"\partial_t u = \nabla \cdot (k(u)\, \nabla u),\quad k = 1 \;\mathrm{where}\; u > u^*,\; \mathrm{else}\; 0"
    )
    coefficient_names = ("threshold", "time")
    dialled = Parameter("threshold", 0.3, 0.7, start=0.5, label="Threshold u*")
    constants: ClassVar = {"time": 0.02}
    shifts: ClassVar = {"pre-training": (0.35, 0.5), "higher": (0.5, 0.7)}

    def potential(self, state, coefficients):
        return (state - coefficients[..., 0, None, None]).clamp(min=0)

    def largest(self, state, coefficients):
        return torch.ones_like(state[..., 0, 0])

    def typical(self, coefficients):
        return torch.full_like(coefficients[..., 0], 0.5)
