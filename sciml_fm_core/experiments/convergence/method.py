"""Convergence of a trained network, which tells an operator from a table of one grid or of one step of time.

An operator between functions gives the same function whatever grid it is computed on, once the grid resolves what there
is (Bartolucci et al., arXiv:2305.19913), and an evolution over two halves of a time is that over the whole. Both are
asked of a trained network as of a numerical method: by refining, as in Krishnapriyan et al., arXiv:2202.08494.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import NamedTuple

import torch
from torch import Tensor

from sciml_fm_core.models.operator import Operator
from sciml_fm_core.physics.evolution import Evolution
from sciml_fm_core.physics.spectral import check_grid, resample, root_mean_square
from sciml_fm_core.physics.spectral_system import SpectralSystem

SHARE = 0.1
"""Largest distance of an answer to the finest one, over its error, at which the grid counts as of no importance."""
ROUNDING = 1e-5
"""Relative distances below this are rounding of float32, and may rise with the number of points."""


class Convergence(NamedTuple):
    """Result of `convergence`, shape (resolutions, ...) for sources (..., n, n), over the size of the solution.

    ``error`` against the exact solution; ``distance`` to the network's own finest answer; ``aliasing``, what the grid
    adds to the answer among the waves that it resolves.
    """

    resolutions: tuple[int, ...]
    error: Tensor
    distance: Tensor
    aliasing: Tensor

    def passes(self, trained_on: int, share: float = SHARE) -> bool:
        """Whether the network learned an operator, as far as it was looked: at the grid of its training and all finer.

        Two conditions, on means over the sources. First, the distance to the finest answer is at most a share of the
        error. By the triangle inequality the error on the finest grid then differs from that on each of these by no
        more than that share: what is left of the error is the operator's own, and no grid would mend it. A network that
        learned a table compensates in its weights for the aliasing of its grid; on finer ones, where there is none, its
        answer moves by as much as it is accurate, however small both are. So the distance is compared with the error,
        and not with a fixed number. Second, the distance does not rise as the grid is refined, but for rounding:
        refined further, the answers go on to converge, as those of a numerical method do (arXiv:2202.08494).

        Coarser grids than that of the training do not count: there nobody promised anything.

        Args:
            trained_on: points in each direction of the grid on which the training ended.
            share: of the error, see above.

        Raises:
            ValueError: if no grid but the finest is as fine as that of the training.
        """
        distances, errors = (values.flatten(1).mean(dim=1).tolist() for values in (self.distance, self.error))
        kept = [i for i, n in enumerate(self.resolutions[:-1]) if n >= trained_on]
        if not kept:
            raise ValueError(
                f"convergence: expected a grid from {trained_on} points on beside the finest, "
                f"got {self.resolutions}; add finer ones"
            )
        small = all(distances[i] <= share * errors[i] for i in kept)
        falls = all(distances[i + 1] <= max(distances[i], ROUNDING) for i in kept)
        return small and falls


@torch.no_grad()
def convergence(
    operator: Operator,
    system: SpectralSystem,
    source: Tensor,
    coefficients: Tensor,
    resolutions: Sequence[int] = (32, 64, 128, 256, 512),
) -> Convergence:
    """Compare answers to one and the same function on finer and finer grids.

    The source is made band-limited: only waves below the Nyquist wavenumber of the coarsest grid are kept. So every
    grid has exactly the same function, its exact solution too, and what differs between answers is the network's own
    doing. With u the exact solution, u_N the answer on N points and u_M that on the most, the distance is
    ``||u_N - u_M|| / ||u||``, both on the finest grid, and the aliasing ``||u_N - P_N u_M|| / ||u||``, with ``P_N`` the
    restriction to the waves of the coarser grid: what arXiv:2305.19913 calls the aliasing error between two
    discretisations.

    A network of pointwise functions and Fourier multipliers has aliasing, since a nonlinear function of a band-limited
    field has waves that the grid may not resolve. One that resamples its input to a grid of its own has none by
    construction: that it passes says nothing about what it learned.

    >>> from sciml_fm_core import Task, draw_split, load_operator
    >>> task = Task.parse("SYS-1(1,5)")
    >>> examples = draw_split(task, "test", 2, resolution=64)
    >>> found = convergence(load_operator("sys-1"), task.system, examples.source, examples.coefficients, (32, 64, 128))
    >>> found.passes(trained_on=64), found.passes(trained_on=32)
    (True, False)

    Args:
        operator: what is asked.
        system: the equation.
        source: f, shape (..., n, n), on any grid.
        coefficients: shape (..., c).
        resolutions: points in each direction, even and in rising order, two or more; the network takes them all.

    Raises:
        ValueError: on fewer than two grids, or grids that do not rise; else as `Operator.predict`.
    """
    check_grid(source, "source")
    if len(resolutions) < 2 or any(a >= b for a, b in pairwise(resolutions)):
        raise ValueError(
            f"resolutions: expected two or more in rising order, got {tuple(resolutions)}; sort them, each once"
        )
    coarsest, finest = resolutions[0], resolutions[-1]
    kept = resample(resample(source, finest), coarsest)  # once up, so that Nyquist waves of the source go too
    answers, solutions = [], []
    for n in resolutions:
        sampled = resample(kept, n)
        answers.append(operator.predict(sampled, coefficients, system))
        solutions.append(system.solve(sampled, coefficients))
    reference, size = answers[-1], root_mean_square(solutions[-1])
    errors, distances, aliasings = [], [], []
    for n, answer, solution in zip(resolutions, answers, solutions, strict=True):
        errors.append(root_mean_square(answer - solution) / size)
        distances.append(root_mean_square(resample(answer, finest) - reference) / size)
        aliasings.append(root_mean_square(answer - resample(reference, n)) / size)
    return Convergence(tuple(resolutions), *map(torch.stack, (errors, distances, aliasings)))


class FlowConvergence(NamedTuple):
    """Result of `flow_convergence`, shape (numbers, ...) for sources (..., n, n), over the size of the solution.

    ``error`` against the exact solution at the whole time; ``defect``, the distance to the network's own answer in one
    step; ``to_table``, the distance to what a perfect table of one step would answer.
    """

    numbers: tuple[int, ...]
    error: Tensor
    defect: Tensor
    to_table: Tensor


@torch.no_grad()
def flow_convergence(
    operator: Operator,
    system: Evolution,
    source: Tensor,
    coefficients: Tensor,
    numbers: Sequence[int] = (1, 2, 4, 8),
    *,
    table_step: float,
) -> FlowConvergence:
    """Compare a time in one step, in two halves, in four quarters: the flow of an equation gives the same each time.

    With ``S_h`` the operator that is told the time h, ``S_(T/m) ... S_(T/m) f``, m times, is compared with
    ``exp(-L T) f`` (error) and with ``S_T f`` (defect of the semigroup property). Whoever learned one step h0 alone,
    and takes it whatever time it is told, answers ``exp(-L m h0) f``; so an answer nearer to this than to the exact one
    is that of a table (arXiv:2202.08494 finds such networks among those trained on one step).

    >>> from sciml_fm_core import Task, draw_split, new_operator
    >>> from sciml_fm_core.experiments.convergence.runs import HeatForATime
    >>> task = Task(HeatForATime(), 0.4, 0.4)
    >>> examples = draw_split(task, "test", 2, resolution=32)
    >>> operator = new_operator([task], size="64K")  # untrained
    >>> found = flow_convergence(operator, task.system, *examples[:2], numbers=(1, 2), table_step=0.2)
    >>> found.defect[0].tolist(), bool(found.error.min() > 0.1)
    ([0.0, 0.0], True)

    Args:
        operator: what is asked.
        system: an evolution; ``coefficients`` have the whole time T.
        source: f, shape (..., n, n).
        coefficients: shape (..., c).
        numbers: of steps, 1 or more each.
        table_step: the step h0 of the table.

    Raises:
        ValueError: on a system that is no evolution, or numbers below 1; else as `Operator.predict`.
    """
    if not isinstance(system, Evolution) or not system.is_linear:
        raise ValueError(f"flow: expected an evolution without a rest, got {system.name}; use `convergence` for it")
    if not numbers or min(numbers) < 1:
        raise ValueError(f"numbers: expected one or more, of at least 1 step, got {tuple(numbers)}")
    exact, once = system.solve(source, coefficients), operator.predict(source, coefficients, system)
    found: tuple[list[Tensor], ...] = [], [], []
    for number in numbers:
        step = _in_time(system, coefficients, system.time(coefficients) / number)
        state = source
        for _ in range(number):
            state = operator.predict(state, step, system)
        table_time = torch.full_like(system.time(coefficients), number * table_step)
        table = system.solve(source, _in_time(system, coefficients, table_time))
        for values, other in zip(found, (exact, once, table), strict=True):
            values.append(root_mean_square(state - other) / root_mean_square(exact))
    return FlowConvergence(tuple(numbers), *map(torch.stack, found))


def _in_time(system: Evolution, coefficients: Tensor, time: Tensor) -> Tensor:
    changed = coefficients.clone()
    changed[..., system.coefficient_names.index("time")] = time
    return changed
