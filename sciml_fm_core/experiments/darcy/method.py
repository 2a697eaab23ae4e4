"""Darcy flow through two materials: the set of neuraloperator, examples of our own like it, solver and networks.

``-div(a grad u) = 1`` on the unit square, u = 0 on its boundary, where a takes two values. The set (`read_darcy`) shows
which of them each point at j / n has, and u up to an unknown factor. So the solver has two numbers to fit, the contrast
of the two values and that factor (`fit_solver`), and what is left of its error is what the coarse grid does not see.

Examples of our own (`draw_own`) are solved on a grid eight times as fine and cost no label. Their statistics are those
of the set's inputs: thresholds of a Gaussian field of the same correlation.
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple, cast

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import pad
from torch.optim.swa_utils import AveragedModel

from sciml_fm_core.data.arrays import ArrayFile
from sciml_fm_core.evaluation.metrics import relative_error
from sciml_fm_core.models.fno import FNO, FNOConfig
from sciml_fm_core.physics.reflection import even, odd

from . import five_point

EXPONENT, INVERSE_LENGTH = 2.75, 9.3
"""Spectrum ``(pi^2 |k|^2 + tau^2)^-alpha`` of the Gaussian field (in cosines), fitted to the correlation of the set."""
SEEN_CONTRAST, SEEN_SCALE = 1.03, 0.945
"""What the solver on 16 points takes a contrast and a factor of 1 for, measured on 256 examples of our own."""
KEPT = 32
"""Intervals of the grid on which own examples are kept, corners included."""


class Flows(NamedTuple):
    """Examples: where a has its larger value, shape (count, n, n), bool; and u, of the same shape."""

    high: Tensor
    solution: Tensor


def read_darcy(folder: Path) -> dict[str, Flows]:
    """Examples of `train_16`, `test_16` and `test_32` in a folder, from ``darcy_train_16.pt`` or ``.npz`` and so on.

    Raises:
        ValueError: if a file is missing; `make darcy` brings them.
    """
    return {name: _read(folder / f"darcy_{name}") for name in ("train_16", "test_16", "test_32")}


def _read(path: Path) -> Flows:
    for file in (path.with_suffix(".pt"), path.with_suffix(".npz")):
        if file.is_file():
            with ArrayFile(file) as held:
                high, solution = (torch.from_numpy(held[name].rows(np.arange(held[name].shape[0]))) for name in "xy")
            return Flows(high.bool(), solution)
    raise ValueError(f"darcy: no file {path.with_suffix('.pt')}; `make darcy` brings it, or name its folder")


def solve(high: Tensor, contrast: float) -> Tensor:
    """Solution (count, n, n) by the five-point solver for a = 1 where it is high and 1 / contrast elsewhere, f = 1."""
    return five_point.solve(torch.where(high, 1.0, 1 / contrast), torch.ones(high.shape), tolerance=1e-4)


def fit_solver(labelled: Flows) -> tuple[float, float]:
    """Contrast and factor with which the solver is nearest to labelled examples, by a ternary search."""

    def scaled(contrast: float) -> tuple[float, float]:
        found = solve(labelled.high, contrast)
        factor = ((found * labelled.solution).sum() / found.square().sum()).item()
        return relative_error(factor * found, labelled.solution).mean().item(), factor

    low, high = 10.0, 40.0
    for _ in range(14):
        first, second = (2 * low + high) / 3, (low + 2 * high) / 3
        low, high = (low, second) if scaled(first)[0] < scaled(second)[0] else (first, high)
    return low, scaled(low)[1]


def draw_own(count: int, fitted: tuple[float, float], generator: torch.Generator, points: int = 128) -> Flows:
    """Examples of our own on (KEPT + 1)^2 points, corners included, solved on a finer grid.

    Args:
        count: examples.
        fitted: contrast and factor by `fit_solver`, from which follow those that it takes for them.
        generator: randomness.
        points: of the grid on which they are solved.
    """
    contrast, factor = fitted[0] / SEEN_CONTRAST, fitted[1] / SEEN_SCALE
    k = torch.pi * torch.arange(points // 2)
    amplitude = (k[:, None] ** 2 + k**2 + INVERSE_LENGTH**2) ** (-EXPONENT / 2)
    amplitude[0] /= math.sqrt(2)
    amplitude[:, 0] /= math.sqrt(2)
    amplitude[0, 0] = 0
    cosines = torch.cos(torch.outer((torch.arange(points) + 0.5) / points, k))
    step, kept = points // KEPT, []
    for begin in range(0, count, 64):
        noise = torch.randn(min(64, count - begin), points // 2, points // 2, generator=generator)
        high = cosines @ (noise * amplitude) @ cosines.T >= 0
        whole = pad(high[:, None].float(), (0, 1, 0, 1), mode="replicate")[:, 0, ::step, ::step] > 0.5
        kept.append(Flows(whole, factor * pad(solve(high, contrast), (0, 1, 0, 1))[:, ::step, ::step]))
    return Flows(*map(torch.cat, zip(*kept, strict=True)))


def turned(flows: Flows, elements: Tensor, n: int) -> Flows:
    """Examples on points that include all corners, turned by symmetries of the square, on the n x n points of the set.

    Args:
        flows: on m n + 1 points in each direction.
        elements: one of `physics.symmetries` for each.
        n: points of what is returned.
    """
    step = (flows.high.shape[-1] - 1) // n
    swap, mirror_x, mirror_y = (((elements // bit) % 2 > 0)[:, None, None] for bit in (1, 2, 4))

    def turn(field: Tensor) -> Tensor:
        field = torch.where(swap, field.mT, field)
        field = torch.where(mirror_x, field.flip(-1), field)
        return torch.where(mirror_y, field.flip(-2), field)[:, ::step, ::step][:, :n, :n]

    return Flows(*map(turn, flows))


def whole(flows: Flows) -> Flows:
    """Examples of the set with the row and column that it leaves out: a as beside them, u = 0."""
    high = pad(flows.high[:, None].float(), (0, 1, 0, 1), mode="replicate")[:, 0] > 0.5
    return Flows(high, pad(flows.solution, (0, 1, 0, 1)))


class DarcyNetwork(nn.Module):
    """This project's FNO from a to u on the square.

    Args:
        boundary: by ``reflection``, on the doubled torus; or by a ``margin`` behind the last points.
        fitted: contrast and factor of `fit_solver`, for the network to be given the solution of the five-point solver
            on the same points and to correct it; None for one that is given a alone.
        width, modes: of the FNO.
    """

    def __init__(self, boundary: str, fitted: tuple[float, float] | None = None, width: int = 24, modes: int = 12):
        super().__init__()
        self.boundary, self.fitted = boundary, fitted
        margin = 0.0 if boundary == "reflection" else 0.25
        channels = 2 if fitted is None else 3
        self.network = FNO(FNOConfig(in_channels=channels, width=width, modes=modes, margin=margin))
        if fitted is not None:  # it begins as the solver
            nn.init.zeros_(self.network.output.weight)
            nn.init.zeros_(self.network.output.bias)

    def forward(self, high: Tensor) -> Tensor:
        """Solutions (count, n, n) on the points of where a is high."""
        n = high.shape[-1]
        a, inside = 2 * high.float() - 1, pad(torch.ones(len(high), n - 1, n - 1), (1, 0, 1, 0))
        coarse = [] if self.fitted is None else [self.fitted[1] * solve(high, self.fitted[0])]
        base = coarse[0] if coarse else 0
        if self.boundary == "reflection":
            fields = torch.stack([even(a, edge="copied"), *map(odd, [inside, *coarse])], dim=1)
            found = _odd_part(self.network(fields)[:, 0])
        else:
            found = inside * self.network(torch.stack([a, inside, *coarse], dim=1))[:, 0]
        return base + 0.3 * found

    @torch.no_grad()
    def predict(self, high: Tensor) -> Tensor:
        """Solutions, the mean over both orders of x and y."""
        parts = [(self(part) + self(part.mT).mT) / 2 for part in high.split(32)]
        return torch.cat(parts)


def _odd_part(field: Tensor) -> Tensor:
    """The quarter (..., n, n) of the odd part of fields on the torus (..., 2 n, 2 n)."""
    for dim in (-1, -2):
        n = field.shape[dim] // 2
        mirrored = field.flip(dim).roll(1, dim)
        field = (field - mirrored).narrow(dim, 0, n) / 2
    return field


def train(
    network: DarcyNetwork, batches: Iterator[Flows], seconds: float, rate: float, *, warmup: int = 30
) -> tuple[DarcyNetwork, int]:
    """Minimise the relative error by Adam for seconds of computing, at a rate that falls to zero by a cosine.

    Returns:
        The network with the running mean of its weights, and the number of steps.
    """
    optimizer = torch.optim.Adam(network.parameters(), lr=rate, betas=(0.9, 0.99))
    mean = AveragedModel(
        network, avg_fn=lambda mean, new, count: mean + (new - mean) * max(0.005, 10 / (10 + float(count)))
    )
    began, steps = time.process_time(), 0
    while (progress := (time.process_time() - began) / seconds) < 1:
        for group in optimizer.param_groups:
            group["lr"] = rate * (1 + math.cos(math.pi * progress)) / 2 * min(1, (steps + 1) / warmup)
        high, solution = next(batches)
        loss = relative_error(network(high), solution).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        mean.update_parameters(network)
        steps += 1
    return cast(DarcyNetwork, mean.module), steps
