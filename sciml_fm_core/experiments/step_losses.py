"""Learning the states within a step from the equation alone, on advection and on reaction as their dial grows.

The failure of Krishnapriyan et al. (2021, arXiv:2109.01050), for an operator: the loss is the residual of the equation
in time, ``D u - T (N(u) - L u)``, with D the derivative of the polynomial through the states at Chebyshev points of the
step. Beside it stand labels, and their remedy, a curriculum: the dial grows in stages.
"""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, ClassVar

import torch
from torch import Tensor

from sciml_fm_core.data.splits import stream
from sciml_fm_core.models.fno import FNO, FNOConfig
from sciml_fm_core.physics.evolution import Evolution
from sciml_fm_core.physics.evolutions.states import shares, smooth_states
from sciml_fm_core.physics.spectral import inverse_transform, relative_size, transform
from sciml_fm_core.physics.system import SYSTEMS
from sciml_fm_core.physics.trajectories import evolution
from sciml_fm_core.study.analysis import percent, select, spread, table
from sciml_fm_core.study.custom import CustomRun, milliseconds_of, minimise
from sciml_fm_core.study.registry import experiment, for_budget

STAGES = 4
"""Parts of a curriculum: the dial is 1/4, 2/4, 3/4 of the last one, then that."""
LOSSES = {"labels": "labels", "residual": "residual", "curriculum": "residual, dial grown"}
"""The losses by name, and what figures call them."""
EQUATIONS = {"advection": "radians that the longest wave travels in a step", "reaction": "rate times the step"}
"""The equations, and what their dial is."""


def equation_of(name: str, dial: float) -> tuple[Evolution, Tensor]:
    """The system and its coefficients for a step of time 1.

    Advection along x, and diffusion of 1e-3, ``u_t + c u_x = nu lap u`` with ``2 pi c`` the dial; or Fisher-KPP's
    reaction, whose rate is the dial, with the same diffusion.
    """
    if name == "advection":
        return evolution(SYSTEMS["advection_diffusion_in_time"]), torch.tensor([1e-3, dial / (2 * math.pi), 0.0, 1.0])
    return evolution(SYSTEMS["fisher_kpp"]), torch.tensor([dial, 1e-3, 1.0])


def states_of(name: str, count: int, n: int, generator: torch.Generator) -> Tensor:
    """Initial states (count, n, n) of waves of length 1 and 2 for advection, of shares between 0 and 1 for reaction."""
    field = smooth_states(count, (n, n), generator, modes=3)
    return (field if name == "advection" else shares(2 * field - 2)).float()


def chebyshev(nodes: int) -> tuple[Tensor, Tensor]:
    """Points 0 = t_0 < ... < t_nodes = 1, and the matrix of the derivative of the polynomial through values there.

    Trefethen, Spectral Methods in MATLAB, ch. 6.

    >>> points, matrix = chebyshev(4)
    >>> torch.allclose(matrix @ points**3, 3 * points**2)
    True
    """
    points = (1 - torch.cos(torch.pi * torch.arange(nodes + 1, dtype=torch.float64) / nodes)) / 2
    weight = torch.ones(nodes + 1, dtype=torch.float64)
    weight[[0, -1]] = 2
    weight[1::2] *= -1
    apart = points[:, None] - points + torch.eye(nodes + 1, dtype=torch.float64)
    matrix = weight[:, None] / weight / apart
    return points, matrix - torch.diag(matrix.sum(1))


def states_at(system: Evolution, coefficients: Tensor, states: Tensor, points: Tensor) -> Tensor:
    """Labels: the states at the points of the step but the first, (count, points - 1, n, n)."""
    found = [states]
    for part in points.diff():
        short = torch.cat([coefficients[:-1], part.float()[None]])
        found.append(system.trajectory(found[-1], short.expand(len(states), -1), 1)[:, 1])
    return torch.stack(found[1:], dim=1)


def residuals(system: Evolution, coefficients: Tensor, states: Tensor, matrix: Tensor) -> Tensor:
    """What is left of the equation at the points but the first, for states (count, points, n, n) at all of them."""
    n, moving = states.shape[-1], states[:, 1:]
    linear = inverse_transform(transform(moving) * system.symbol(coefficients, n), n)
    pushed = system.tendency(moving, coefficients) - linear
    return torch.einsum("ij,bjyx->biyx", matrix[1:].to(states.dtype), states) - pushed


@dataclass(frozen=True)
class StepLossRun(CustomRun):
    """A network for the states within a step of one equation, trained from random weights by one loss.

    Attributes:
        equation, dial: of `EQUATIONS`, see `equation_of`.
        loss: of `LOSSES`.
        seed: of the weights and of the states.
        steps, batch_size, learning_rate: of the training, with Adam and cosine decay.
        states, test: numbers of initial states.
        nodes: Chebyshev points beside the first; more than two for each wave that passes.
        resolution, width, modes: points, and shape of the network.
    """

    equation: str
    dial: float
    loss: str
    seed: int = 0
    steps: int = 1000
    batch_size: int = 8
    learning_rate: float = 3e-3
    states: int = 256
    test: int = 64
    nodes: int = 16
    resolution: int = 32
    width: int = 16
    modes: int = 6
    kind: ClassVar[str] = "step_loss"

    def __post_init__(self):
        if self.equation not in EQUATIONS or self.loss not in LOSSES:
            raise ValueError(
                f"step losses: expected an equation of {', '.join(EQUATIONS)} and a loss of {', '.join(LOSSES)}, got "
                f"{self.equation} and {self.loss}"
            )

    def measure(self, device):
        """Error at the end of the step, residual of network and of labels, and the solver at that error.

        Residuals are relative to the derivative in time.
        """
        system, coefficients = equation_of(self.equation, self.dial)
        points, matrix = chebyshev(self.nodes)
        drawn = [
            states_of(self.equation, count, self.resolution, stream(self.seed, self.equation, split))
            for split, count in (("train", self.states), ("test", self.test))
        ]
        train, test = (each.to(device) for each in drawn)
        truth = states_at(system, coefficients, test, points)
        labels = states_at(system, coefficients, train, points) if self.loss == "labels" else None
        network = FNO.create(
            FNOConfig(1, out_channels=self.nodes, width=self.width, modes=self.modes), stream(self.seed, "weights")
        ).to(device)

        def predict(states: Tensor) -> Tensor:
            return states[:, None] + points[1:, None, None].to(states) * network(states[:, None])

        def left(states: Tensor, found: Tensor, at: float) -> Tensor:
            asked = equation_of(self.equation, at)[1]
            return residuals(system, asked, torch.cat([states[:, None], found], dim=1), matrix)

        def loss(step: int) -> Tensor:
            rows = torch.randint(self.states, (self.batch_size,), generator=stream(self.seed, "batch", step))
            at = self.dial * ((1 + STAGES * step // self.steps) / STAGES if self.loss == "curriculum" else 1)
            found = predict(train[rows])
            return (left(train[rows], found, at) if labels is None else found - labels[rows]).square().mean()

        computing = time.process_time()
        minimise(network, loss, self.steps, self.learning_rate)
        computing = time.process_time() - computing
        with torch.no_grad():
            found = predict(test)
            whole = torch.cat([test[:, None], truth], dim=1)
            change = torch.einsum("ij,bjyx->biyx", matrix[1:].to(whole.dtype), whole).norm()
            error = relative_size(found[:, -1] - truth[:, -1], truth[:, -1]).mean().item()
            took = milliseconds_of(partial(predict, test), self.test)
            return {
                "error": min(error, 1e6),
                "residual": (left(test, found, self.dial).norm() / change).item(),
                "residual_of_labels": (left(test, truth, self.dial).norm() / change).item(),
                "training_seconds": round(computing, 1),
                "milliseconds": took,
                **_solver(system, coefficients, test, truth[:, -1], error),
            }


def _solver(system: Evolution, coefficients: Tensor, states: Tensor, truth: Tensor, error: float) -> dict[str, Any]:
    """Fewest steps of the solver with at most that error, its error and its time; exact where there is no rest."""
    rows = coefficients.expand(len(states), -1)
    for substeps in (1, 2, 4, 8, 16, 32):
        step = partial(system.trajectory, states, rows, 1, substeps=substeps)
        try:
            own = relative_size(step()[:, 1] - truth, truth).mean().item()
        except ValueError:  # it was unstable
            continue
        if own <= error or substeps == 32:
            break
    took = milliseconds_of(step, len(states))
    return {"solver_substeps": substeps, "solver_error": own, "solver_milliseconds": took}


DIALS = {"advection": (1.0, 3.0, 10.0), "reaction": (1.0, 3.0, 8.0)}
BUDGETS: dict[str, dict[str, Any]] = {
    "smoke": {"dials": 1, "seeds": 1, "run": {"steps": 2, "states": 4, "test": 2, "nodes": 6, "batch_size": 2}},
    "laptop": {"dials": 3, "seeds": 1, "run": {}},
    "gpu": {"dials": 3, "seeds": 3, "run": {"steps": 5000, "nodes": 24}},
    "paper": {"dials": 3, "seeds": 5, "run": {"steps": 20000, "nodes": 24}},
}
"""How much of the experiment to run, by budget."""


@experiment("step_losses")
def step_losses(budget: str = "laptop") -> list[StepLossRun]:
    """Training a step by labels, by the residual alone, and with a curriculum, as advection or reaction grows."""
    chosen = for_budget(BUDGETS, budget)
    return [
        StepLossRun(equation, dial, loss, seed, **chosen["run"])
        for equation, dials in DIALS.items()
        for dial in dials[: chosen["dials"]]
        for loss in LOSSES
        for seed in range(chosen["seeds"])
    ]


def step_losses_table(records: Sequence[dict]) -> str:
    """Errors at the end of a step by equation, dial and loss, with the solver's time at the lowest of them."""
    rows = []
    for equation in dict.fromkeys(record["equation"] for record in records):
        for dial in sorted({record["dial"] for record in select(records, equation=equation)}):
            runs = {loss: select(records, equation=equation, dial=dial, loss=loss) for loss in LOSSES}
            best = min((run for own in runs.values() for run in own), key=lambda run: run["error"])
            errors = (spread([run["error"] for run in own]) for own in runs.values())
            solver = f"{best['solver_milliseconds']:.2g} ms for {percent(best['solver_error'])}"
            rows.append([equation, f"{dial:g}", *errors, f"{best['milliseconds']:.2g} ms", solver])
    return table(["equation", "dial", *LOSSES.values(), "network", "solver at the lowest error"], rows)
