"""Distances of an example to what an operator was trained on, and a forecast of the error of its prediction.

Everything is judged from the source and the coefficients, as the network sees them, before any solution is looked at.
The card of an operator names its tasks: what its training looked like is drawn again from them, so that every bundle
has a `TrainingRange`, and no file changes.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple
from weakref import WeakKeyDictionary

import torch
from torch import Tensor

from sciml_fm_core.data.splits import stream
from sciml_fm_core.evaluation.metrics import relative_error
from sciml_fm_core.models.normalization import Normalization
from sciml_fm_core.models.operator import Operator
from sciml_fm_core.physics.spectral import (
    broadcast_shapes,
    filter_modes,
    inverse_transform,
    parseval_weights,
    resample,
    transform,
    wavenumbers,
)
from sciml_fm_core.physics.spectral_system import spectral
from sciml_fm_core.physics.system import System
from sciml_fm_core.physics.tasks import Task

LEVEL = 0.05
"""Relative error above which a prediction counts as off."""
POINTS = 32
"""Examples are looked at on a grid of so many points in each direction."""
MEASURED_POINTS = 64
"""The operator is measured on a finer one: on the coarsest grid that it takes, the errors of some are larger."""
REFERENCE = 512
"""Training examples that are drawn again."""
INSIDE = 64
"""Others of them that the operator is measured on, for its error inside."""
CASES = 360
"""Cases that the operator itself is measured on, to learn what each distance means for it."""
TAIL = 0.02
"""Share of the training examples beyond which a source counts as outside on one side."""
LONGEST = 4
"""Wavenumber up to which values on modes are compared."""
WHOLE = 1e-3
"""How far from a whole number a dial still is one: coefficients are in single precision."""
KINDS = ("reshaped", "negated", "phases", "noise", "windowed")
"""Kinds of sources that the distances are weighed on, see `other_sources`."""

PARTS = ("above", "below", "equation", "weak", "strong", "peaks", "negative")
"""Names of the distances, see `TrainingRange.distance`."""

KNOWN_RANGES: WeakKeyDictionary[Operator, TrainingRange] = WeakKeyDictionary()
"""Ranges that are known, by operator."""


class ErrorForecast(NamedTuple):
    """Forecast of the error of predictions, before they are made.

    An equation that was never trained on, or a value between the whole numbers that were, may be near to the training
    and yet be predicted wrongly: there the distances can warn, and where they do not, nothing is known.

    Attributes:
        likely: whether the error is not known to be more likely below the level than above, shape (...), boolean.
        probability: of an error above the level, NaN where nothing is known, shape (...), float64.
        error: the error expected, a median, NaN where nothing is known, shape (...), float64.
        parts: by name in `PARTS`, what each distance adds to that error, shape (...), float64.
    """

    likely: Tensor
    probability: Tensor
    error: Tensor
    parts: dict[str, Tensor]


@dataclass(frozen=True)
class _Features:
    """Features of examples: what conditions the network, (count, k), and three numbers of the source, (count,) each."""

    conditioning: Tensor
    response: Tensor
    peaks: Tensor
    negative: Tensor


@dataclass(frozen=True)
class TrainingRange:
    """Distances of examples to the training of one operator, and what they mean for its errors.

    The error expected is ``e = e_0 + sum_j a_j (exp(w_j d_j) - 1)`` over the distances d_j, with a_j, w_j > 0: inside
    it is e_0, the median error on training examples drawn again, and each distance makes it larger. The other numbers
    are fitted by `of` to the logarithms of the errors that the operator makes on `calibration_cases`. The logarithm of
    an error scatters about that of e by `scatter`, so the probability of an error above a level is
    ``Phi(log(e / level) / scatter)`` with the normal distribution Phi.

    >>> from sciml_fm_core import Task, load_operator
    >>> operator = load_operator("sys-1")
    >>> trained = TrainingRange.of(operator)
    >>> near, far = (Task.parse(f"SYS-1({e},{e})").sample(4, 32, torch.Generator().manual_seed(0)) for e in (2, 18))
    >>> trained.forecast(near.source, near.coefficients).likely.any().item()
    False
    >>> trained.forecast(far.source, far.coefficients).likely.all().item()
    True
    """

    normalization: Normalization
    ranges: Mapping[str, tuple[float, float]]
    conditioning: Tensor
    spread: Tensor
    apart: float
    limits: Mapping[str, tuple[float, float]]
    weights: tuple[float, ...] = ()
    scatter: float = 1.0

    @classmethod
    def of(cls, operator: Operator, *, seed: int = 0) -> TrainingRange:
        """Find the range of an operator, kept for the next call; some seconds of one core at first.

        Args:
            operator: its card names the tasks; of one that was adapted, the downstream task counts too.
            seed: of the examples drawn, and of the cases. One other than 0 is not kept.

        Raises:
            ValueError: if its card names no tasks.
        """
        found = KNOWN_RANGES.get(operator) if seed == 0 else None
        if found is None:
            found = _measured(_reference(operator, seed), operator, seed)
            if seed == 0:
                KNOWN_RANGES[operator] = found
        return found

    @classmethod
    def known(cls, operator: Operator) -> TrainingRange | None:
        """The range of an operator where `of` has made it already, at once."""
        return KNOWN_RANGES.get(operator)

    def distance(self, source: Tensor, coefficients: Tensor, system: System | str | None = None) -> dict[str, Tensor]:
        """Distances to the training, by name in `PARTS`; 0 inside, shapes (...), float64.

        ``above`` and ``below``: how far the dial is beyond the ranges of the tasks, as a logarithm of the ratio (where
        a range reaches 0, the share of its length). ``equation``: logarithm of the distance of what conditions the
        network (scalars, values on long waves) to the nearest training example, over what is usual among them. ``weak``
        and ``strong``: logarithm of how much less or more the operator answers to the source than to nearly all
        training sources, by the `System.preconditioner`: it is weak where a source has shorter waves. ``peaks``: the
        same of the kurtosis, large where few places stand out. ``negative``: how far the source falls below what it
        does in training. Like the operator itself they do not change when f and L are scaled, unless it is the paper's.

        Args:
            source: f, shape (..., n, n).
            coefficients: shape (..., c); leading shapes broadcast.
            system: which equation is meant, for an operator of several.

        Raises:
            ValueError: as `Operator.predict`.
        """
        system = self.normalization.resolve(system)
        system.check(source, coefficients)
        leading = broadcast_shapes(source.shape[:-2], coefficients.shape[:-1])
        sources = _on_points(source).expand(*leading, POINTS, POINTS).reshape(-1, POINTS, POINTS)
        rows = coefficients.expand(*leading, coefficients.shape[-1]).reshape(-1, coefficients.shape[-1])
        seen = _features_of(self.normalization, sources, rows.to(sources.dtype), system)
        dial = system.dial(sources, rows).double()
        above, below = _outside(dial, self.ranges.get(system.name))
        nearest = torch.cdist(seen.conditioning / self.spread, self.conditioning).amin(dim=1)
        parts = {
            "above": above,
            "below": below,
            "equation": torch.log(nearest.clamp(min=self.apart) / self.apart),
            "weak": self.limits["response"][0] - seen.response,
            "strong": seen.response - self.limits["response"][1],
            "peaks": seen.peaks - self.limits["peaks"][1],
            "negative": seen.negative - self.limits["negative"][1],
        }
        return {name: parts[name].clamp(min=0).reshape(leading) for name in PARTS}

    def forecast(
        self, source: Tensor, coefficients: Tensor, system: System | str | None = None, *, level: float = LEVEL
    ) -> ErrorForecast:
        """Forecast whether the errors of predictions are above a relative error; arguments and errors as `distance`."""
        if not 0 < level < math.inf:
            raise ValueError(f"level: expected a relative error above 0, got {level}")
        found = self.distance(source, coefficients, system)
        inside, added = _contributions(
            torch.tensor(self.weights, dtype=torch.float64, device="cpu"),
            torch.stack([found[name] for name in PARTS], dim=-1),
        )
        error = inside + added.sum(-1)
        error = torch.where(self._trained_on(source, coefficients, system) | (error > level), error, math.nan)
        probability = torch.special.ndtr(torch.log(error / level) / self.scatter)
        return ErrorForecast(~(probability <= 0.5), probability, error, dict(zip(PARTS, added.unbind(-1), strict=True)))

    def _trained_on(self, source: Tensor, coefficients: Tensor, system: System | str | None) -> Tensor:
        """Whether the tasks have the equation, and draw such values of its dial where they draw whole numbers."""
        system = self.normalization.resolve(system)
        dial = system.dial(source, coefficients) if system.dialled.whole else torch.zeros(())
        return ((dial - dial.round()).abs() < WHOLE) & (system.name in self.ranges)


def other_sources(source: Tensor, kind: str, generator: torch.Generator) -> Tensor:
    """Sources unlike the training data, made from those of a training, or from noise, shape (count, n, n).

    ``reshaped``: the spectrum times a power of |k| between -2.5 and 2.5, and a sign. ``negated``. ``phases``: the same
    spectrum with random phases. ``noise``: Gaussian noise with a spectrum that decays as a power of |k| and ends at a
    random wavenumber, half of it without its longest waves. ``windowed``: seen through a Gaussian window of random
    place and width, some negated.

    >>> waves = torch.cos(2 * torch.pi * torch.arange(8) / 8).expand(1, 8, 8)
    >>> torch.equal(other_sources(waves, "negated", torch.Generator()), -waves)
    True

    Raises:
        ValueError: on an unknown kind.
    """
    count, n = len(source), source.shape[-1]
    drawn: dict[str, Any] = {"generator": generator, "dtype": torch.float32, "device": generator.device}

    def uniform(low: float, high: float) -> Tensor:
        return (low + (high - low) * torch.rand(count, **drawn))[:, None, None]

    length = torch.hypot(*wavenumbers(n, dtype=source.dtype, device=source.device)).clamp(min=1)
    if kind == "negated":
        return -source
    if kind == "reshaped":
        return filter_modes(source, length ** uniform(-2.5, 2.5)) * torch.where(uniform(-1, 1) < 0, -1, 1)
    if kind == "windowed":
        points, width = torch.arange(n, dtype=torch.float32, device=source.device) / n, 0.04 * 8 ** uniform(0, 1)
        off = points - torch.rand(count, 2, 1, **drawn)
        window = torch.exp(-(((off - off.round()) / width) ** 2) / 2)
        return source * window[:, 1, :, None] * window[:, 0, None, :] * torch.where(uniform(0, 1) < 0.3, -1, 1)
    noise = transform(torch.randn(count, n, n, **drawn))
    if kind == "phases":
        return inverse_transform(noise / noise.abs().clamp(min=1e-9) * transform(source).abs(), n)
    if kind == "noise":
        shortest, longest = 2 ** uniform(1, 4), uniform(0, 4) * (uniform(0, 1) < 0.5)
        ends = torch.exp(-((length / shortest) ** 2)) * (1 - torch.exp(-((length / longest.clamp(min=1e-3)) ** 4)))
        return inverse_transform(noise * length ** -uniform(0, 3) * ends, n)
    raise ValueError(f"kind: expected one of {', '.join(KINDS)}, got {kind!r}")


def calibration_cases(
    tasks: Sequence[Task], count: int, generator: torch.Generator
) -> list[tuple[System, Tensor, Tensor]]:
    """Cases to weigh distances on, as (system, sources, coefficients): `other_sources` of every kind in equal shares.

    Half of the coefficients are those of the tasks, half of the whole dial of their systems.
    """
    pairs = [task for task in tasks for _ in KINDS]
    wide = [Task(task.system, task.system.dialled.low, task.system.dialled.high) for task in pairs]
    each, cases = max(1, count // (2 * len(pairs))), []
    for number, task in enumerate((*pairs, *wide)):
        drawn = Task(task.system, task.low, task.high, reject=False).sample(each, MEASURED_POINTS, generator)
        source = other_sources(drawn.source, KINDS[number % len(KINDS)], generator)
        if task.system.zero_mean:
            source = source - source.mean(dim=(-2, -1), keepdim=True)
        cases.append((task.system, source / source.abs().amax(dim=(-2, -1), keepdim=True), drawn.coefficients))
    return cases


def _reference(operator: Operator, seed: int) -> TrainingRange:
    """The range before its distances are weighed."""
    tasks = [Task.parse(label) for label in operator.tasks]
    if not tasks:
        raise ValueError("training range: the card of this operator names no tasks; train it by `pretrain`")
    generator, parts = stream(seed, "training range", "reference"), []
    for task in tasks:
        drawn = task.sample(max(2, REFERENCE // len(tasks)), POINTS, generator)
        parts.append(_features_of(operator.normalization, drawn.source, drawn.coefficients, task.system))
    conditioning = torch.cat([part.conditioning for part in parts])
    spread = conditioning.std(dim=0)
    spread = torch.where(spread > 1e-3, spread, 1)
    conditioning = conditioning / spread
    between = torch.cdist(conditioning, conditioning).fill_diagonal_(math.inf).amin(dim=1)
    limits = {}
    for name in ("response", "peaks", "negative"):
        values = torch.cat([getattr(part, name) for part in parts])
        limits[name] = values.quantile(TAIL).item(), values.quantile(1 - TAIL).item()
    ranges: dict[str, tuple[float, float]] = {}
    for task in tasks:
        low, high = ranges.get(task.system.name, (task.low, task.high))
        ranges[task.system.name] = min(low, task.low), max(high, task.high)
    # Where an equation has few variants, as SYS-3 has, a training example may lie at no distance at all.
    apart = max(between.quantile(1 - TAIL).item(), 0.05)
    return TrainingRange(operator.normalization, ranges, conditioning, spread, apart, limits)


def _measured(reference: TrainingRange, operator: Operator, seed: int) -> TrainingRange:
    """The range with its weights and scatter, from the errors of the operator itself."""
    tasks, generator = [Task.parse(label) for label in operator.tasks], stream(seed, "training range", "cases")

    def errors_of(system: System, source: Tensor, coefficients: Tensor) -> Tensor:
        predicted = operator.predict(source, coefficients, system)
        return relative_error(predicted, system.solve(source, coefficients)).double().cpu()

    drawn = [(task.system, task.sample(max(1, INSIDE // len(tasks)), MEASURED_POINTS, generator)) for task in tasks]
    inside = torch.cat([errors_of(system, each.source, each.coefficients) for system, each in drawn])
    distances, errors = [], []
    for case in calibration_cases(tasks, CASES, generator):
        found = reference.distance(case[1], case[2], case[0])
        distances.append(torch.stack([found[name] for name in PARTS], dim=-1))
        errors.append(errors_of(*case))
    weights, scatter = _fit(torch.cat(distances), torch.cat(errors), inside.median().item())
    values = {name: getattr(reference, name) for name in reference.__dataclass_fields__}
    return TrainingRange(**{**values, "weights": tuple(weights.tolist()), "scatter": scatter})


def _features_of(normalization: Normalization, source: Tensor, coefficients: Tensor, system: System) -> _Features:
    """Features of examples as the network sees them, on `POINTS` x `POINTS` points, in a few numbers."""
    encoded = normalization.encode(source, coefficients, system, mode_points=POINTS)
    conditioning = encoded.scalars
    if encoded.modes is not None:
        length = torch.hypot(*wavenumbers(POINTS, dtype=source.dtype))
        near = (length > 0) & (length <= LONGEST)
        modes = encoded.modes[:, near] / length[near][:, None]
        conditioning = torch.cat([conditioning, modes.flatten(1)], dim=1)
    answer = transform(source).abs() / spectral(system).preconditioner(coefficients, POINTS)
    response = (parseval_weights(POINTS) * answer.square()).sum((-2, -1)).sqrt() / encoded.scale.abs()
    field = encoded.field[:, 0]
    about = field - field.mean(dim=(-2, -1), keepdim=True)
    squares = about.square()
    kurtosis = squares.square().mean((-2, -1)) / squares.mean((-2, -1)).square().clamp(min=1e-30)
    return _Features(
        conditioning.double(),
        response.clamp(min=1e-30).log().double(),
        kurtosis.clamp(min=1e-30).log().double(),
        torch.asinh(-field.amin(dim=(-2, -1))).double(),
    )


def _on_points(source: Tensor) -> Tensor:
    """Sources on `POINTS` points: short waves beyond them are left out."""
    return resample(source, POINTS) if source.is_floating_point() else source


def _outside(dial: Tensor, trained: tuple[float, float] | None) -> tuple[Tensor, Tensor]:
    """Distances of dials above and below a range."""
    if trained is None:
        return torch.zeros_like(dial), torch.zeros_like(dial)
    low, high = trained
    if low > 0:
        known = dial.clamp(min=1e-9 * low)
        return torch.log(known / high), torch.log(low / known)
    length = high - low or 1.0
    return (dial - high) / length, (low - dial) / length


def _contributions(weights: Tensor, distances: Tensor) -> tuple[Tensor, Tensor]:
    """The error inside, and what each distance (..., parts) adds to it."""
    count = distances.shape[-1]
    size, rate = weights[1 : 1 + count].exp(), torch.nn.functional.softplus(weights[1 + count :])
    return weights[0].exp(), size * torch.expm1((rate * distances).clamp(max=8))


def _fit(distances: Tensor, errors: Tensor, inside: float) -> tuple[Tensor, float]:
    """Weights of the model in `TrainingRange`, by a robust regression of the logarithm of the error, and its scatter.

    Errors above one are all as useless, and those below a part in 10,000 all as good. Where no case has a distance, a
    weak pull keeps its weights where they start.
    """
    count, wanted = distances.shape[-1], errors.clamp(1e-4, 1).log()
    start = distances.new_tensor([-4.0] * count + [-0.5] * count, dtype=torch.float64)
    level = torch.tensor([min(max(inside, 1e-4), 1.0)], dtype=torch.float64, device="cpu").log()
    with torch.inference_mode(False), torch.enable_grad():
        distances, wanted = distances.clone(), wanted.clone()
        weights = start.clone().requires_grad_()
        optimiser = torch.optim.LBFGS([weights], max_iter=60, line_search_fn="strong_wolfe")

        def loss() -> Tensor:
            optimiser.zero_grad()
            base, added = _contributions(torch.cat([level, weights]), distances)
            off = torch.nn.functional.smooth_l1_loss((base + added.sum(-1)).log(), wanted, beta=0.5)
            value = off + 3e-3 * (weights - start).square().mean()
            value.backward()
            return value

        optimiser.step(loss)
    weights = torch.cat([level, weights.detach()])
    base, added = _contributions(weights, distances)
    scatter = (wanted - (base + added.sum(-1)).clamp(max=1).log()).abs().median().item() / 0.6745
    return weights, max(scatter, 0.1)
