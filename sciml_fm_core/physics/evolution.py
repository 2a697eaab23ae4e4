"""States in time: ``du/dt + L u = N(u)`` on the periodic unit square, for a step, and step after step.

The linear part L is known by its Fourier symbol and is integrated exactly. The rest N is a function of the state, and
is integrated by the exponential Runge-Kutta method of fourth order, ETDRK4 (Cox and Matthews, 2002).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from functools import lru_cache
from typing import ClassVar, NamedTuple

import torch
from torch import Tensor

from sciml_fm_core.eager import known_values

from .spectral import (
    as_batch,
    check_grid,
    derivative_wavenumbers,
    inverse_transform,
    is_finite,
    on_shells,
    shell_sizes,
    transform,
    wavenumbers,
)
from .spectral_system import SpectralSystem

LARGEST_DOUBT = 4e-3
"""Relative change of a state, between two stages of a substep, above which the substep is too long: the next ones are
about as much smaller again. Those that tasks draw stay below it."""
MOST_SUBSTEPS = 2000
"""Substeps of a step that are made unasked."""
MOST_GROWTH = 10.0
"""Factor by which waves that a grid does not resolve may grow over all steps."""

Rest = Callable[[Tensor], Tensor]
"""From the Fourier coefficients of states to those of N(u)."""


class Evolution(SpectralSystem):
    """A state u that changes by ``du/dt + L u = N(u)``, from ``u(0)`` over a time T, the coefficient named ``time``.

    A subclass declares what a `SpectralSystem` does, and a ``symbol`` of L, shape (..., n, n // 2 + 1), or (..., q, n,
    n // 2 + 1) of a state of q fields. Without a `rest` the solution is exact, ``u_hat(T) = exp(-symbol T) u_hat(0)``,
    and the equation is one like every other with a symbol. With one, it is stepped through, and no symbol solves it.

    Products of fields have waves that the grid takes for others: before and after N, waves of `resolved` times the
    Nyquist wavenumber or more are left out.

    >>> import torch
    >>> from sciml_fm_core import SYSTEMS
    >>> burgers = SYSTEMS["burgers"]
    >>> x = torch.arange(32, dtype=torch.float64) / 32
    >>> state = torch.sin(2 * torch.pi * x).expand(32, 32)
    >>> coefficients = torch.tensor([0.01, 1, 0.05], dtype=torch.float64)
    >>> states = burgers.trajectory(state, coefficients, 3)
    >>> states.shape, torch.allclose(states[1], burgers.step(state, coefficients))
    (torch.Size([4, 32, 32]), True)
    """

    resolved: ClassVar[float] = 2 / 3
    """Share of the waves that N keeps: 2/3 where it is a product of two fields, 1/2 of three."""
    largest_step: ClassVar[float] = 0.025
    """The time that one step of the integrator covers at most."""
    not_negative: ClassVar[tuple[str, ...]] = ("time", "nu", "diffusivity", "hyper_diffusivity", "d_u", "d_v")
    """Names of coefficients below 0 of which short waves would grow without bound."""
    zero_mean: ClassVar[bool] = False
    keeps_mean: ClassVar[bool] = False
    """Whether N has no mean, so that the mean of the state changes by the linear part alone."""

    # What a subclass says --------------------------------------------------------------------------------------------

    def rest(self, state_hat: Tensor, coefficients: Tensor) -> Tensor:
        """N(u) between Fourier coefficients, of the shape of the state's; nothing where there is no rest.

        Args:
            state_hat: (..., n, n // 2 + 1), or (..., q, n, n // 2 + 1), of `resolved` waves.
            coefficients: (..., c), in the precision of the state.
        """
        raise ValueError(f"system {self.name}: it has no rest, only the linear part that its symbol says")

    def time(self, coefficients: Tensor) -> Tensor:
        """The time T of a step, shape (...)."""
        return coefficients[..., self.coefficient_names.index("time")]

    @property
    def is_linear(self) -> bool:
        """Whether there is no rest, so that the symbol solves the equation exactly."""
        return type(self).rest is Evolution.rest

    def substeps(self, coefficients: Tensor) -> int:
        """Steps of the integrator in a step of all these equations; 1 where that is exact."""
        if self.is_linear or not coefficients.numel():
            return 1
        return max(1, int(torch.ceil(self.time(coefficients).double().max() / self.largest_step - 1e-6)))

    # What is computed ------------------------------------------------------------------------------------------------

    def _solved(self, source, coefficients):
        if self.is_linear:
            return super()._solved(source, coefficients)
        return self._trajectory(source, coefficients, 1, None).select(-1 - self.input_axes, 1)

    def step(self, state: Tensor, coefficients: Tensor) -> Tensor:
        """The state after the time T, as `solve`: exact where there is no rest, else by `trajectory`."""
        return self.solve(state, coefficients)

    def check(self, source, coefficients):
        """As `SpectralSystem.check`; what is `not_negative` is not, since what decays cannot be followed backwards."""
        super().check(source, coefficients)
        if (values := known_values(coefficients)) is None:
            return
        for name, column in zip(self.coefficient_names, values.unbind(-1), strict=True):
            if name in self.not_negative and (column < 0).any():
                raise ValueError(f"{name}: {self.name} expects at least 0, got {column.min():g}; correct it")

    def trajectory(self, state: Tensor, coefficients: Tensor, steps: int, *, substeps: int | None = None) -> Tensor:
        """States after 0, 1, ... steps, shape (..., steps + 1, n, n), or (..., steps + 1, q, n, n) of q fields.

        Computed in the precision of the state, at least in float32.

        Args:
            state: u(0), shape (..., n, n) or (..., q, n, n), n even.
            coefficients: shape (..., c), in the order of `coefficient_names`; leading shapes broadcast.
            steps: how many.
            substeps: steps of the integrator in each; `Evolution.substeps` where None, or more where a state changes
                faster than those of the tasks.

        Raises:
            ValueError: as `SpectralSystem.solve`, on a negative time or number of steps, or if a state stops being
                finite; it says after which step.
        """
        self.check(state, coefficients)
        self.check_mean(state)
        return self._trajectory(state, coefficients, steps, substeps)

    def states(
        self, state: Tensor, coefficients: Tensor, steps: int, *, substeps: int | None = None
    ) -> Iterator[Tensor]:
        """The states of `trajectory` after 1, 2, ... steps, each computed when it is asked for."""
        self.check(state, coefficients)
        self.check_mean(state)
        return self._each(state, coefficients, steps, substeps)

    def _trajectory(self, state: Tensor, coefficients: Tensor, steps: int, substeps: int | None) -> Tensor:
        leading = torch.broadcast_shapes(state.shape[: -self.input_axes], coefficients.shape[:-1])
        first = state.expand(*leading, *state.shape[-self.input_axes :])
        return torch.stack([first, *self._each(state, coefficients, steps, substeps)], dim=len(leading))

    def _each(self, state: Tensor, coefficients: Tensor, steps: int, substeps: int | None) -> Iterator[Tensor]:
        if steps < 0 or (substeps is not None and substeps < 1):
            raise ValueError(f"steps: expected at least 0, of 1 substep each or more, got {steps} of {substeps}")
        batch, rows, leading = as_batch(state, coefficients, self.input_axes)
        self._check_resolved(rows.detach(), state.shape[-1], steps)
        if not len(batch):
            yield from [batch.view(*leading, *batch.shape[1:])] * steps
            return
        for number, each in enumerate(self._states(batch, rows, steps, substeps), start=1):
            if not is_finite(each):
                raise ValueError(
                    f"{self.name}: the state is not finite after step {number}; take a shorter time or more substeps"
                )
            yield each.to(batch.dtype).view(*leading, *batch.shape[1:])

    def _check_resolved(self, coefficients: Tensor, n: int, steps: int) -> None:
        """Raise ValueError where waves grow that N leaves out, and so does not hold back."""
        if self.is_linear or known_values(coefficients) is None or not coefficients.numel():
            return
        growth = -self.symbol(coefficients.double(), n).real * ~self.resolved_waves(n, coefficients.device)
        time = self.time(coefficients).double().view(-1, *[1] * self.input_axes)
        if (most := float((growth * time).max()) * steps) > math.log(MOST_GROWTH):
            raise ValueError(
                f"{self.name}: waves that {n} points do not resolve would grow by a factor of "
                f"{math.exp(min(most, 99)):.2g} in {steps} steps; take a finer grid"
            )

    def _states(self, state: Tensor, coefficients: Tensor, steps: int, substeps: int | None):
        n = state.shape[-1]
        if self.is_linear:
            state_hat, multiplier = transform(state.double()), self.linear_multiplier(coefficients, n)
            for _ in range(steps):
                state_hat = state_hat * multiplier
                yield inverse_transform(state_hat, n)
            return
        state_hat, symbol, time = transform(state), self.symbol(coefficients.double(), n), self.time(coefficients)
        rest = self.dealiased_rest(coefficients, n, state_hat.real.dtype)
        of_count = lru_cache(maxsize=2)(lambda count: etdrk4(symbol, time / count, state_hat.dtype))
        least = substeps or self.substeps(coefficients)
        for _ in range(steps):
            needed = least if substeps else _needed(of_count, least, state_hat, rest)
            count = needed if needed <= MOST_SUBSTEPS else least
            for _ in range(count):
                state_hat = of_count(count).advance(state_hat, rest)
            if needed > count and is_finite(torch.view_as_real(state_hat)):
                raise ValueError(
                    f"{self.name}: the state changes so fast that a step needs more than {MOST_SUBSTEPS} substeps; "
                    "take a shorter time, or say how many substeps"
                )
            yield inverse_transform(state_hat, n)

    def cheap_step(self, state: Tensor, coefficients: Tensor) -> CheapStep:
        """`cheap_step` of states (batch, [q,] n, n) over the time T, of an evolution with a rest."""
        n = state.shape[-1]
        rest = self.dealiased_rest(coefficients, n, state.dtype)
        return cheap_step(transform(state), self.symbol(coefficients.double(), n), self.time(coefficients), rest)

    def linear_step(self, state: Tensor, coefficients: Tensor) -> Tensor:
        """What the linear part alone makes of states in a step.

        In double precision: over many steps the rounding of one multiplier would add up.
        """
        n = state.shape[-1]
        changed = transform(state.double()) * self.linear_multiplier(coefficients, n)
        return inverse_transform(changed, n).to(state.dtype)

    def linear_multiplier(self, coefficients: Tensor, n: int) -> Tensor:
        """``exp(-symbol T)``, what the linear part alone makes of each mode in a step, in double precision."""
        coefficients = coefficients.double()
        return self.multiplier(self.symbol(coefficients, n), coefficients)

    def dealiased_rest(self, coefficients: Tensor, n: int, dtype: torch.dtype) -> Rest:
        """N between Fourier coefficients of n points, without the waves that the grid does not resolve."""
        kept = self.resolved_waves(n, coefficients.device).to(dtype)
        coefficients = coefficients.to(dtype)
        return lambda state_hat: self.rest(state_hat * kept, coefficients) * kept

    def resolved_waves(self, n: int, device: torch.device | str | None = None) -> Tensor:
        """Mask (n, n // 2 + 1) of the waves that N keeps."""
        kx, ky = wavenumbers(n, device=device)
        limit = self.resolved * n / 2
        return (kx < limit) & (ky.abs() < limit)

    def tendency(self, state: Tensor, coefficients: Tensor) -> Tensor:
        """The rest N(u) at a state, in the shape of the state; zero where there is none."""
        if self.is_linear:
            return torch.zeros_like(state)
        n = check_grid(state, "state")
        found = self.dealiased_rest(coefficients, n, transform(state[..., :1, :]).real.dtype)(transform(state))
        return inverse_transform(found, n).to(state.dtype)

    # As a system whose symbol solves it, where there is no rest ------------------------------------------------------

    def multiplier(self, symbol, coefficients):
        time = self.time(coefficients)
        return torch.exp(-symbol * time.view(*time.shape, *[1] * self.input_axes))

    def symbol_and_null(self, coefficients, n):
        symbol = self.symbol(coefficients.double(), n)
        return symbol, torch.zeros_like(symbol, dtype=torch.bool)

    @property
    def mode_by_mode(self):
        return self.is_linear and super().mode_by_mode

    def _residual_modes(self, solution, source, coefficients):
        if self.is_linear:
            return super()._residual_modes(solution, source, coefficients)
        residual_hat = transform(solution - self._solved(source, coefficients))
        return residual_hat, torch.zeros_like(residual_hat, dtype=torch.bool)

    def residual_hat(self, solution_hat, source_hat, symbol, coefficients):
        return solution_hat - self.multiplier(symbol, coefficients).to(source_hat.dtype) * source_hat

    def preconditioner(self, coefficients, n):
        """One: the residual of an evolution is formed with its exact propagator, and so is the error itself.

        To train on it is to train on solutions under another name.
        """
        return coefficients.new_ones(*coefficients.shape[:-1], n, n // 2 + 1, dtype=torch.float64)

    def scale(self, coefficients):
        return torch.ones_like(coefficients[..., 0])


def stages(state_hat: Tensor, symbol: Tensor, step: Tensor, rest: Rest, count: int) -> list[Tensor]:
    """Where the rest pushes: what a cheap step h looks at, between Fourier coefficients of the shape of the state's.

    These are ``h phi(z) N`` with ``z = -symbol h``, ``phi(z) = (exp(z) - 1) / z`` and N taken at the state itself, then
    at the stages of ETDRK4 for the whole step: the first is an exponential Euler half step. What the linear part makes
    of the state, and the second of these, together are the exponential midpoint rule.

    Args:
        state_hat: (batch, [q,] n, n // 2 + 1).
        symbol: of L, as the state.
        step: h, shape (batch,).
        rest: N, see `Evolution.dealiased_rest`.
        count: how often N is evaluated, at most 4 times.
    """
    if not count:
        return []
    _, half, inner, weight, *_ = _weights(symbol, step, state_hat.dtype)
    return [weight * each for each in _tendencies(state_hat, half, inner, rest, count)]


INCREMENTS = 3
"""The number of increments of a `CheapStep`."""


class CheapStep(NamedTuple):
    """One step of ETDRK4 for the whole time, see `cheap_step`, with the waves of each length as `shell_sizes` has them.

    ``increments``: three, (batch, [q,] n, n // 2 + 1), which add to what the linear part makes of a state: by N at the
    state; what the exponential midpoint rule adds to it; and ETDRK4 to that. ``length`` (batch, [q,] lengths), how long
    the step is for such waves: T times the rate at which they turn or decay. ``doubt``, of that shape: how large the
    next increment would be, if it were as much smaller than the last as that is than the one before.
    """

    increments: tuple[Tensor, Tensor, Tensor]
    length: Tensor
    doubt: Tensor


def cheap_step(state_hat: Tensor, symbol: Tensor, step: Tensor, rest: Rest) -> CheapStep:
    """One step of ETDRK4 that is held back where it is too long, so that it never blows up; arguments as of `stages`.

    On waves of a length on which N changes by more than itself from one stage to the next, by `shell_sizes`, its change
    is cut to that. Twice the change within half a step, over N, is the ``length`` of the step: where it is above 2, the
    increments are divided by half of it, as the mean over a step of what turns so fast. Both are sharp, so that where
    the step is short it is ETDRK4 of fourth order.
    """
    n = state_hat.shape[-2]
    _, half, inner, whole, first, middle, last = _weights(symbol, step, state_hat.dtype)
    start = rest(state_hat)
    size = shell_sizes(start)

    def near_start(found: Tensor) -> Tensor:
        change = found - start
        return start + change * on_shells(_held(shell_sizes(change) / size), n)

    a = half * state_hat + inner * start
    at_a = rest(a)
    length = 2 * shell_sizes(at_a - start) / size
    at_a = near_start(at_a)
    at_b = near_start(rest(half * state_hat + inner * at_a))
    at_c = near_start(rest(half * a + inner * (2 * at_b - start)))
    euler, midpoint = whole * start, whole * at_a
    best = first * start + 2 * middle * (at_a + at_b) + last * at_c
    damping = on_shells(_held(length / 2), n)
    increments = (damping * euler, damping * (midpoint - euler), damping * (best - midpoint))
    before, last_size = map(shell_sizes, increments[1:])
    smaller = last_size / before
    return CheapStep(increments, length, last_size * (smaller * _held(smaller)) ** 2)


def _held(ratio: Tensor) -> Tensor:
    """Factors that bring ratios down to at most 1, ``(1 + ratio^6)^(-1/6)``; no power of a large one is taken."""
    inverse = 1 / ratio.clamp(min=1)
    return inverse * ((ratio * inverse) ** 6 + inverse**6) ** (-1 / 6)


def phis(z: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """``phi_1 = (exp(z) - 1) / z``, ``phi_2 = (phi_1 - 1) / z`` and ``phi_3 = (phi_2 - 1/2) / z``, in double precision.

    Near 0 by a series, where these differences would leave nothing but rounding.

    >>> [round(phi.item(), 6) for phi in phis(torch.zeros(1, dtype=torch.float64))]
    [1.0, 0.5, 0.166667]
    """
    small = z.abs() < 0.5
    near, away, series = z.masked_fill(~small, 0), z.masked_fill(small, 1), torch.zeros_like(z)
    for power in range(12, -1, -1):
        series = series * near + 1 / math.factorial(power + 3)
    third = torch.where(small, series, (((torch.exp(away) - 1) / away - 1) / away - 0.5) / away)
    second = 0.5 + z * third
    return 1 + z * second, second, third


def _tendencies(state_hat: Tensor, half: Tensor, inner: Tensor, rest: Rest, count: int = 4) -> list[Tensor]:
    """N at the first stages of ETDRK4, with ``half = exp(z / 2)`` and ``inner = h / 2 phi(z / 2)``."""
    found = [start := rest(state_hat)]
    if count > 1:
        a = half * state_hat + inner * start
        found.append(at_a := rest(a))
    if count > 2:
        found.append(at_b := rest(half * state_hat + inner * at_a))
    if count > 3:
        found.append(rest(half * a + inner * (2 * at_b - start)))
    return found


@torch.no_grad()
def _needed(of_count: Callable[[int], Stepper], count: int, state_hat: Tensor, rest: Rest) -> int:
    """Substeps, at least so many, by which no state has more than `LARGEST_DOUBT`, above `MOST_SUBSTEPS` in vain."""
    while (doubt := of_count(count).doubt(state_hat, rest)) > LARGEST_DOUBT and count <= MOST_SUBSTEPS:
        count = math.ceil(count * min(2 * (doubt / LARGEST_DOUBT) ** (1 / 3), 10))
    return count


class Stepper(NamedTuple):
    """Coefficients of ETDRK4 for one step, each of the shape of the symbol."""

    whole: Tensor
    half: Tensor
    inner: Tensor
    first: Tensor
    middle: Tensor
    last: Tensor

    def advance(self, state_hat: Tensor, rest: Rest) -> Tensor:
        """Fourier coefficients of the state after the step."""
        start, at_a, at_b, at_c = _tendencies(state_hat, self.half, self.inner, rest)
        found = self.whole * state_hat + self.first * start + 2 * self.middle * (at_a + at_b) + self.last * at_c
        return of_a_real_field(found)

    def doubt(self, state_hat: Tensor, rest: Rest) -> float:
        """Largest relative change of states from one stage to the next, their means apart; 0 where nobody can look."""
        _, at_a, at_b = _tendencies(state_hat, self.half, self.inner, rest, 3)
        (mean, wave), (means, waves) = (
            [part.abs().reshape(len(part), -1).norm(dim=1) for part in (each[..., :1], each[..., 1:])]
            for each in ((self.inner * (at_b - at_a)).flatten(-2), state_hat.flatten(-2))
        )
        doubt = torch.maximum(wave / (waves + 1e-4 * means), mean / (waves + means))  # beside a mean, rounding
        return 0.0 if (values := known_values(doubt)) is None or not len(values) else float(values.nan_to_num(0).max())


def etdrk4(symbol: Tensor, step: Tensor, dtype: torch.dtype) -> Stepper:
    """Coefficients of a step of ``du/dt = -symbol u + N(u)``; arguments as of `_weights`."""
    whole, half, inner, _, *last_line = _weights(symbol, step, dtype)
    return Stepper(whole, half, inner, *last_line)


def _weights(symbol: Tensor, step: Tensor, dtype: torch.dtype) -> list[Tensor]:
    """What ETDRK4 multiplies by, with z = -symbol h.

    ``exp(z)``, ``exp(z / 2)``, ``h / 2 phi_1(z / 2)``, ``h phi_1(z)``, and the three of its last line, see `phis`.

    Args:
        symbol: (batch, [q,] n, n // 2 + 1), real or complex.
        step: h, shape (batch,).
        dtype: complex type of the states; the weights are computed in double precision.
    """
    h = step.double().view(-1, *[1] * (symbol.ndim - 1))
    z = -symbol.to(torch.complex128 if symbol.is_complex() else torch.float64) * h
    one, two, three = phis(z)
    last_line = one - 3 * two + 4 * three, two - 2 * three, 4 * three - two
    found = torch.exp(z), torch.exp(z / 2), h / 2 * phis(z / 2)[0], h * one, *(h * each for each in last_line)
    return [each.to(dtype if z.is_complex() else dtype.to_real()) for each in found]


def of_a_real_field(state_hat: Tensor) -> Tensor:
    """Fourier coefficients (..., n, n // 2 + 1) without the part of kx = 0 and kx = n / 2 that no real field has.

    Waves k and -k are both stored there. By rounding they are not quite conjugate; no field shows that part, so that no
    rest holds it back, and where the linear part alone grows, it would end as large as the state.
    """
    n = state_hat.shape[-2]
    ends = state_hat[..., :: n // 2]
    ends = (ends + ends.flip(-2).roll(1, -2).conj()) / 2
    return torch.cat([ends[..., :1], state_hat[..., 1 : n // 2], ends[..., 1:]], dim=-1)


def derivatives(state_hat: Tensor) -> tuple[Tensor, Tensor]:
    """Fourier coefficients of the derivatives along x and y of fields, from theirs (..., n, n // 2 + 1)."""
    n = state_hat.shape[-2]
    kx, ky = derivative_wavenumbers(n, dtype=state_hat.real.dtype, device=state_hat.device)
    return 2j * torch.pi * kx * state_hat, 2j * torch.pi * ky * state_hat


def fields_of(*hats: Tensor) -> tuple[Tensor, ...]:
    """Values on the grid of several fields at once, from their Fourier coefficients (..., n, n // 2 + 1)."""
    return torch.fft.irfft2(torch.stack(hats), s=(hats[0].shape[-2],) * 2).unbind(0)
