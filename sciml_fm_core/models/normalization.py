"""What a network sees of an example, and how its output becomes a solution. Part of the operator, never a side file."""

from __future__ import annotations

import dataclasses
import reprlib
from abc import ABC, abstractmethod
from collections.abc import Sequence
from functools import cache
from typing import Any, ClassVar, NamedTuple

import torch
from torch import Tensor

from sciml_fm_core import schema
from sciml_fm_core.physics.evolution import INCREMENTS, Evolution, stages
from sciml_fm_core.physics.examples import Examples
from sciml_fm_core.physics.spectral import (
    filter_modes,
    inverse_transform,
    largest_size,
    on_shells,
    parseval_weights,
    power_of_two,
    root_mean_square,
    shell_sizes,
    transform,
    translation_symbol,
    wavenumbers,
)
from sciml_fm_core.physics.spectral_system import is_spectral, spectral
from sciml_fm_core.physics.system import System, find_system
from sciml_fm_core.physics.tasks import Task
from sciml_fm_core.physics.unknown import UnknownSystem
from sciml_fm_core.physics.variable_system import VariableSystem

from .conditioning import MULTIPLIER_CHANNELS, SYMBOL_CHANNELS, Conditioning, multiplier_features, symbol_features


class Encoded(NamedTuple):
    """Network inputs of a batch, and what turns its output v into a solution: ``u = scale * v``.

    ``field`` (batch, p, ny, nx); ``scalars`` and ``modes`` as in `Conditioning`; ``scale`` (batch,), or (batch, q)
    of several output fields; ``zero_mean`` (batch,) marks the examples whose output has its mean subtracted;
    ``mean`` (batch,), where it is known, is that of the solution, and added. An ``offset``, of the shape of the scale,
    is added too, and says that the solution need not be zero where the field is. Where there is a ``first`` iterate, of
    the shape of the solution, the network corrects it, in the ``waves`` of a mask (batch, n, n // 2 + 1), with an axis
    for the output fields where there are several; its output is cut, on waves of each length, to a root mean square of
    ``largest`` (batch,), where that is said.
    """

    field: Tensor
    scalars: Tensor
    scale: Tensor
    zero_mean: Tensor
    modes: Tensor | None = None
    mean: Tensor | None = None
    offset: Tensor | None = None
    first: Tensor | None = None
    waves: Tensor | None = None
    largest: Tensor | None = None

    @property
    def inputs(self) -> tuple[Tensor, Conditioning]:
        """What the network takes: the field, and what it is told of the equations."""
        return self.field, Conditioning(self.scalars, self.modes)

    @property
    def used_scale(self) -> Tensor:
        """``scale``, and 0 where the field is 0 everywhere: so is the solution, whatever the network says."""
        if self.offset is not None:
            return self.scale
        return self.scale.masked_fill(~self.field[:, 0].flatten(-2).any(dim=-1), 0)

    def decode(self, output: Tensor) -> Tensor:
        """Solutions (..., batch, n, n) from network outputs (..., batch, 1, n, n): zero where the field is.

        Those of q > 1 output fields keep the shape (..., batch, q, ny, nx) of the outputs.
        """
        if output.shape[-3] == 1:  # a file of ONNX squeezes no other axis
            output = output.squeeze(-3)
        if self.first is not None and self.waves is not None:
            scale, n = self.used_scale.view(-1, *[1] * (self.first.ndim - 1)), output.shape[-1]
            output_hat = transform(output)
            if self.largest is not None:
                size = shell_sizes(output_hat) / (n * self.largest.view(-1, *[1] * (self.first.ndim - 2)))
                output_hat = output_hat / on_shells(size.clamp(min=1), n)
            return self.first + inverse_transform(output_hat * self.waves, n).to(output.dtype) * scale
        if self.offset is not None:
            return output * self.scale[..., None, None] + self.offset[..., None, None]
        mean = output.mean(dim=(-2, -1)) * self.zero_mean
        solution = (output - mean[..., None, None]) * self.used_scale[..., None, None]
        return solution if self.mean is None else solution + self.mean[..., None, None]

    @staticmethod
    def joined(parts: Sequence[Encoded]) -> Encoded:
        """Parts of one batch concatenated, tensor by tensor; what none of them has stays None."""
        columns = zip(*parts, strict=True)
        made = [None if column[0] is None else torch.cat(list(column)) for column in columns]
        return Encoded(*made)  # type: ignore[arg-type] # only the last six may be None


def long_waves(n: int, modes: int, device: torch.device) -> Tensor:
    """Mask (n, n // 2 + 1) of the waves of wavenumber below ``modes`` in both directions, but not the mean."""
    kx, ky = wavenumbers(n, device=device)
    return (kx < modes) & (ky.abs() < modes) & ((kx != 0) | (ky != 0))


def _root_mean_square(field: Tensor) -> Tensor:
    size = power_of_two(largest_size(field))
    square = (field / size[..., None, None]).square().mean(dim=(-2, -1))
    return torch.where(square > 0, square, 1).sqrt() * size  # a zero source stays zero, and its gradient finite


def _check_sizes(where: str, names: Sequence[str], values: Sequence[float], *, divides: bool) -> None:
    """Raise ValueError on a number that float32, in which networks compute, does not hold, or holds as a divisor 0."""
    limits = torch.finfo(torch.float32)
    for name, value in zip(names, values, strict=True):
        if not (limits.tiny if divides else 0) <= abs(value) <= LARGEST:
            raise ValueError(f"{where} of {name}: expected a number of float32 up to {LARGEST:g}, got {value:g}")


def _checked_statistics(
    kind: str, names: Sequence[str], centre: Sequence[float], spread: Sequence[float]
) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """The centres and spreads of numbers with these names; ValueError where they are not as many, or out of range."""
    centre, spread = tuple(map(float, centre)), tuple(map(float, spread))
    if not len(centre) == len(spread) == len(names) or not min(spread, default=1) > 0:
        raise ValueError(
            f"{kind} normalization: expected {len(names)} centres and spreads above 0 for {' '.join(names)}, got "
            f"{reprlib.repr(centre)} and {reprlib.repr(spread)}"
        )
    _check_sizes(f"{kind} normalization: centre", names, centre, divides=False)
    _check_sizes(f"{kind} normalization: spread", names, spread, divides=True)
    return centre, spread


def _fields(system: System) -> tuple:
    return system.inputs, system.outputs, system.coefficient_names


def _union(names_of_systems) -> tuple[str, ...]:
    return tuple(dict.fromkeys(name for names in names_of_systems for name in names))


LARGEST = 1e30
"""Largest of the numbers that inputs are scaled by, so that what is computed with them does not overflow in float32."""


class Normalization(ABC):
    """Encodes examples of one or several systems for a network; a name it does not have is a zero channel."""

    kind: ClassVar[str]
    linear: ClassVar[bool] = True
    """Whether it takes only linear equations with a symbol, whose solution is scaled with the source."""
    is_fitted: ClassVar[bool] = True
    """Whether it has statistics of examples."""
    stored: ClassVar[dict[str, Any]] = {}
    """Names and types of what is stored of it beside its systems: arguments of the constructor."""

    def __init__(self, systems: tuple[System, ...]):
        if not systems:
            raise ValueError("normalization: expected at least one system")
        if self.linear and (other := [each.name for each in systems if not is_spectral(each)]):
            raise ValueError(
                f"{self.kind} normalization: expected systems with a symbol, got {', '.join(other)}; use "
                "recipe 'fields'"
            )
        self.systems = systems

    @classmethod
    def fit(cls, examples: list[tuple[System, Examples]], **options: Any) -> Normalization:
        """A normalisation for the systems of training examples, with their statistics where it has any.

        Args:
            examples: those of each system.
            options: further arguments of the constructor.
        """
        return cls(tuple(dict.fromkeys(system for system, _ in examples)), **options)

    @property
    def channel_names(self) -> tuple[str, ...]:
        """Names of the scalars."""
        return ()

    @property
    def mode_channels(self) -> int:
        """Numbers that the network is told on each mode."""
        return 0

    def encode(
        self,
        source: Tensor,
        coefficients: Tensor,
        system: System,
        *,
        mode_points: int | None = None,
        variation: Tensor | None = None,
    ) -> Encoded:
        """Inputs for sources (batch, n, n), or (batch, p, ny, nx), with coefficients (batch, c) of one of the systems.

        Args:
            source, coefficients, system: the examples.
            mode_points: grid on whose modes the network wants values, see `Model.mode_points`; the source's where None.
            variation: in training, numbers in [0, 1), shape (batch, VARIATIONS), that choose one of many equivalent
                descriptions of each example, where the normalisation has several; and the numbers of
                `second_operator`, where it composes.
        """
        return self._scaled(source, coefficients, system, mode_points or source.shape[-1], variation)

    @abstractmethod
    def _scaled(
        self, source: Tensor, coefficients: Tensor, system: System, mode_points: int, variation: Tensor | None
    ) -> Encoded:
        """`encode`, with the number of points that the network wants values on the modes of."""

    def to_dict(self) -> dict:
        """Plain values from which `normalization_from_dict` builds the same normalisation."""
        values = {"kind": self.kind, "systems": [system.name for system in self.systems]}
        values |= {name: getattr(self, name) for name in self.stored}
        if not (system := self.systems[0]).is_known:
            values |= {"inputs": system.inputs, "outputs": system.outputs, "scalars": system.coefficient_names}
        return {key: list(value) if isinstance(value, tuple) else value for key, value in values.items()}

    @property
    def in_channels(self) -> int:
        """Input channels of the network: input fields and scalars."""
        return len(self.systems[0].inputs) + len(self.channel_names)

    @property
    def point_channels(self) -> int:
        """How many of the last fields say of each point what the equation is there, see `FNOConfig`."""
        return 0

    @property
    def out_channels(self) -> int:
        """Output channels of the network."""
        return len(self.systems[0].outputs)

    def knows(self, system: System) -> bool:
        """Whether examples of a system can be encoded: of those that the operator was trained for."""
        if system.is_known:
            return system.name in [known.name for known in self.systems]
        return _fields(system) in map(_fields, self.systems)

    def resolve(self, system: System | str | None) -> System:
        """The system meant, checked to be one that the operator `knows`.

        Raises:
            ValueError: if it is not, or none is named and there are several.
        """
        if system is None:
            if len(self.systems) > 1:
                raise ValueError(
                    f"system: this operator knows {', '.join(s.name for s in self.systems)}; say which with system=..."
                )
            return self.systems[0]
        found = find_system(system) if isinstance(system, str) else system
        if not isinstance(found, System):
            raise ValueError(f"system: expected a System or its name, got {type(found).__name__}")
        if not self.knows(found):
            raise ValueError(
                f"system: this operator was trained for {', '.join(s.name for s in self.systems)}, got {found.name}"
                + ("" if self.systems[0].is_known or found.is_known else self._other_names(found))
            )
        return found if found.is_known else next(known for known in self.systems if _fields(known) == _fields(found))

    def _other_names(self, found: System) -> str:
        one, other = self.systems[0].inputs[0], found.inputs[0]
        return f"; say which field is which by both names, such as --inputs {one}={other}"

    def _arrange(self, values: Tensor, names: tuple[str, ...]) -> Tensor:
        """Place columns by name among `channel_names`; absent names are zero."""
        if names == self.channel_names:
            return values
        columns = dict(zip(names, values.unbind(-1), strict=True))
        zero = torch.zeros_like(values[..., 0])
        return torch.stack([columns.get(name, zero) for name in self.channel_names], dim=-1)


class PaperNormalization(Normalization):
    """The paper's: every channel of an example is divided by norm(f) over its median; then medians by channel.

    With g = rms(f): the source and each coefficient are divided by g / g_ref, then coefficient channel i by the median
    of its absolute value over the training examples (1 where that is 0). The output is u itself. The paper divides by
    ``norm(f) / n^2``, which is g / n; using g itself gives the same inputs at every resolution.
    """

    kind = "paper"
    stored: ClassVar = {"source_rms": float, "coefficient_medians": list[float]}

    def __init__(self, systems, source_rms: float, coefficient_medians: Sequence[float]):
        super().__init__(systems)
        self.source_rms = float(source_rms)
        self.coefficient_medians = tuple(float(m) for m in coefficient_medians)
        if len(self.coefficient_medians) != len(self.channel_names):
            raise ValueError(
                f"paper normalization: expected {len(self.channel_names)} medians for "
                f"{' '.join(self.channel_names)}, got {len(self.coefficient_medians)}"
            )
        if not self.source_rms > 0 or not all(self.coefficient_medians):
            raise ValueError(
                "paper normalization: expected a source_rms above 0 and medians that are not 0, "
                f"got {self.source_rms} and {reprlib.repr(self.coefficient_medians)}"
            )
        names, values = ("source", *self.channel_names), (self.source_rms, *self.coefficient_medians)
        _check_sizes("paper normalization: size", names, values, divides=True)

    @classmethod
    def fit(cls, examples, **options):
        """Medians over training examples of each system."""
        probe = cls.__new__(cls)
        Normalization.__init__(probe, tuple(dict.fromkeys(system for system, _ in examples)))
        rms = torch.cat([_root_mean_square(batch.source).cpu() for _, batch in examples])
        channels = torch.cat([probe._raw(batch.coefficients, system).abs().cpu() for system, batch in examples])
        medians = channels.median(dim=0).values
        medians = torch.where(medians > 0, medians, 1)
        return cls(probe.systems, rms.median().item(), medians.tolist(), **options)

    @property
    def channel_names(self):
        if len(self.systems) == 1:
            return self.systems[0].coefficient_names
        return _union(system.shared_names for system in self.systems)

    def _raw(self, coefficients: Tensor, system: System) -> Tensor:
        if len(self.systems) == 1:
            return coefficients
        return self._arrange(system.shared(coefficients), system.shared_names)

    def _scaled(self, source, coefficients, system, mode_points, variation):
        g = _root_mean_square(source) / self.source_rms
        medians = torch.tensor(self.coefficient_medians, dtype=source.dtype, device=source.device)
        scalars = self._raw(coefficients, system) / g[:, None] / medians
        one = torch.ones_like(g)
        # The paper's network learns the mean as it is: nothing is subtracted.
        return Encoded((source / g[:, None, None])[:, None], scalars, one, torch.zeros_like(g))


class DimensionlessNormalization(Normalization):
    """Scale-free inputs: scaling f and L together, or f alone, costs the network nothing.

    With g = rms(f) and S the system's `scale` (for SYS-1 and SYS-2 ``4 pi^2 kappa + 2 pi |v|``, kappa = (k11 + k22) /
    2), the field is f / g and the scalars are ``asinh((x - centre) / spread)`` of the system's dimensionless
    `features` x, with their mean and standard deviation over training examples: of order one where the operator was
    trained, growing only logarithmically beyond. The output times g / S is u, with the mean subtracted where the system
    has none.
    """

    kind = "dimensionless"
    stored: ClassVar = {"centre": list[float], "spread": list[float]}

    def __init__(self, systems, centre: Sequence[float], spread: Sequence[float]):
        super().__init__(systems)
        self.centre, self.spread = _checked_statistics(self.kind, self.channel_names, centre, spread)
        reach = [abs(centre) / spread for centre, spread in zip(self.centre, self.spread, strict=True)]
        _check_sizes("dimensionless normalization: centre over spread", self.channel_names, reach, divides=False)

    @classmethod
    def fit(cls, examples, **options):
        """Mean and standard deviation of the features over training examples of each system."""
        probe = cls.__new__(cls)
        Normalization.__init__(probe, tuple(dict.fromkeys(system for system, _ in examples)))
        features = torch.cat(
            [
                probe._arrange(system.features(batch.coefficients), system.feature_names).double().cpu()
                for system, batch in examples
            ]
        )
        spread = features.std(dim=0)
        spread = torch.where(spread > 1e-6, spread, 1)  # a feature that never varies
        return cls(probe.systems, features.mean(dim=0).tolist(), spread.tolist(), **options)

    @property
    def channel_names(self):
        return _union(system.feature_names for system in self.systems)

    def _scaled(self, source, coefficients, system, mode_points, variation):
        g = _root_mean_square(source)
        features = self._arrange(system.features(coefficients), system.feature_names).to(source.dtype)
        centre, spread = (
            torch.as_tensor(each, dtype=features.dtype, device=features.device) for each in (self.centre, self.spread)
        )
        return Encoded(
            (source / g[:, None, None])[:, None],
            torch.asinh((features - centre) / spread),
            g / system.scale(coefficients).to(source.dtype),
            torch.full_like(g, float(system.zero_mean)),
        )


VARIATIONS = 2
"""Numbers that choose an equivalent description of an example: the size and the sign of a factor."""
COMPOSITIONS = 5
"""Numbers beside them that choose a second operator, see `second_operator`."""

LARGEST_FACTOR = 4.0
"""An operator is multiplied by up to this, or divided by it, in training; see `SymbolNormalization`."""


SMALLEST_MULTIPLIER = 1e-100
"""What an evolution damps further than this is told as if it were damped by this."""


def symbol_scale(symbol: Tensor) -> Tensor:
    """Size S of an operator on long waves, shape (...), from its symbol on the modes of a grid (..., n, n // 2 + 1).

    The logarithm of S is the mean of ``log(|symbol(k) - symbol(0)| / |k|^2)`` over 0 < |k| <= 4, in which waves of all
    lengths count alike (weights 1 / |k|^2): of ``-div(K grad u)`` it is the size of K, also where K has a direction, or
    a term ``c u`` or a flow is added. Nothing but the symbol is used.

    >>> kx, ky = wavenumbers(32)
    >>> round(symbol_scale(3 * (kx**2 + ky**2) - 7).item(), 12)
    3.0
    """
    n = symbol.shape[-2]
    kx, ky = wavenumbers(n, device=symbol.device)
    length = kx**2 + ky**2
    weights = parseval_weights(n, device=symbol.device) / length.clamp(min=1)
    weights = weights.masked_fill((length == 0) | (length > LONG_WAVES**2), 0)
    size = (symbol - symbol[..., :1, :1]).abs()
    size = torch.maximum(size, 1e-3 * symbol.abs()).clamp(min=1e-300) / length.clamp(min=1)
    return torch.exp((weights * size.log()).sum((-2, -1)) / weights.sum())


LONG_WAVES = 4
"""Wavenumber up to which `symbol_scale` looks."""


def second_operator(numbers: Tensor, n: int) -> Tensor:
    """Symbol of an operator M that follows that of an equation, shape (batch, n, n // 2 + 1).

    ``M(k) = exp(2 pi i k . a) (|k|^2 - c) / (|k|^2 + b)``: a translation, uniform on the torus, after a filter that
    turns the sign of long waves and lets little through of those near ``|k|^2 = c``. It can be inverted: c, about
    log-uniform in [1, 64], is 0.1 or more away from every whole number, as ``|k|^2`` is one. b is log-uniform in
    [1/2, 64].

    Args:
        numbers: shape (batch, `COMPOSITIONS`): 1 where there is such an operator and 0 where the symbol is 1; and what
            chooses a, c and b, uniform in [0, 1).
        n: points in each direction of the grid whose modes it is for.
    """
    chosen, ax, ay, at, damping = numbers.double().unbind(-1)
    zero, b = 64.0**at, 0.5 * 128.0**damping
    zero = zero.floor() + 0.1 + 0.8 * zero.frac()
    kx, ky = wavenumbers(n, device=numbers.device)
    length = kx**2 + ky**2
    filtered = (length - zero[:, None, None]) / (length + b[:, None, None])
    symbol = translation_symbol(torch.stack((ax, ay), dim=-1), n) * filtered
    return torch.where((chosen > 0)[:, None, None], symbol, 1)


class SymbolNormalization(Normalization):
    """The network is told the equation itself: its Fourier symbol, mode by mode, and no list of coefficients.

    The mean is no work of the network: integrated over the torus, the equation says ``symbol(0) mean(u) = mean(f)``.
    For the rest, with f' = f - mean(f), g = rms(f'), S the `symbol_scale` and ``z(k) = symbol(k) / S``, the field is
    f' / g, the values on modes are `symbol_features` of z, of 1 on k = 0, and the output times g / S, without its mean,
    is added. The symbol is that of the solution operator, ``1 / multiplier(k)``: an evolution over a time has one too.

    Since nothing that it is told is particular to a system, an operator takes every system, also those it was never
    trained for. How well depends on the values of z that its training has seen, and an exact symmetry of linear
    equations makes them broader for nothing: ``(a L)(u / a) = f``. A training draws a factor a of either sign,
    log-uniform in [1/4, 4], for each example. Another, ``L (-u) = -f``, is built in: a source is turned to the sign
    in which its largest value is positive, so that -f gives -u to the bit.

    A pre-training may describe some of its examples by an operator that is followed by another, too, which is as exact:
    ``(M L) u = M f``, with M from `second_operator`. A network that is trained on diffusion alone is told every phase,
    as a flow has them, and both signs and small sizes of z, as waves near a resonance have them, for nothing.
    """

    kind = "symbol"
    is_fitted = False
    mode_channels = SYMBOL_CHANNELS

    def knows(self, system):
        return is_spectral(system)

    def _scaled(self, source, coefficients, system, mode_points, variation):
        mean = source.mean(dim=(-2, -1), keepdim=True)
        field, following = source - mean, None
        if variation is not None and variation.shape[1] > VARIATIONS:
            following = variation[:, VARIATIONS:]
            field = filter_modes(field, second_operator(following, field.shape[-1]))
        turned = field.amax(dim=(-2, -1)) + field.amin(dim=(-2, -1)) < 0
        g = _root_mean_square(field) * torch.where(turned, -1, 1)
        multiplier, null = spectral(system).solution_multiplier(coefficients, mode_points)
        vanishing = multiplier.abs() < SMALLEST_MULTIPLIER
        symbol = (1 / multiplier.masked_fill(null, 1).masked_fill(vanishing, SMALLEST_MULTIPLIER)).masked_fill(null, 0)
        if following is not None:
            symbol = symbol * second_operator(following, mode_points)
        scale = symbol_scale(symbol)
        if variation is not None:
            size, sign = variation[:, :VARIATIONS].double().unbind(-1)
            scale = scale * LARGEST_FACTOR ** (2 * size - 1) * torch.where(sign < 0.5, -1, 1)
        z, scale = symbol / scale[:, None, None], scale.to(source.dtype)
        z[:, 0, 0] = 1  # a network that is told what it has no use for may be led astray by it
        return Encoded(
            (field / g[:, None, None])[:, None],
            source.new_empty(source.shape[0], 0),
            g / scale,
            torch.ones_like(g),
            symbol_features(z).to(source.dtype),
            mean=mean[:, 0, 0] * multiplier[:, 0, 0].real.to(source.dtype),
        )


class FieldsNormalization(Normalization):
    """Every field and coefficient less its mean, over its standard deviation, of one system of any kind.

    The statistics are those of the training examples, of each input and output field over all of their points.
    Nothing is asked of the equation, nor used: neither that it is linear, nor that there is one.
    """

    kind = "fields"
    linear = False
    stored: ClassVar = {"centre": list[float], "spread": list[float]}

    def __init__(self, systems, centre: Sequence[float], spread: Sequence[float]):
        super().__init__(systems)
        if len(systems) > 1:
            raise ValueError(f"fields normalization: expected one system, got {', '.join(s.name for s in systems)}")
        names = (*systems[0].inputs, *systems[0].outputs, *systems[0].coefficient_names)
        self.centre, self.spread = _checked_statistics(self.kind, names, centre, spread)

    @classmethod
    def fit(cls, examples, **options):
        """Means and standard deviations over training examples; a spread of 1 of what never varies."""
        values: list[Tensor] = []
        for system in (systems := tuple(dict.fromkeys(system for system, _ in examples))):
            own = [batch for each, batch in examples if each == system]
            for fields, names in (("source", system.inputs), ("solution", system.outputs)):
                points = torch.cat([getattr(batch, fields).cpu() for batch in own])
                values += points.view(len(points), len(names), -1).double().transpose(0, 1).flatten(1)
            values += torch.cat([batch.coefficients.cpu() for batch in own]).double().unbind(-1)
        centre = [each.mean().item() for each in values]
        spread = [each.std(correction=0).item() for each in values]
        varies = [width > 1e-6 * abs(middle) for middle, width in zip(centre, spread, strict=True)]
        return cls(systems, centre, [width if own else 1 for width, own in zip(spread, varies, strict=True)], **options)

    @property
    def channel_names(self):
        return self.systems[0].coefficient_names

    def _scaled(self, source, coefficients, system, mode_points, variation):
        sizes = len(system.inputs), len(system.outputs), len(system.coefficient_names)
        (field, solution, scalars), (spread, scale, width) = (
            source.new_tensor(values).split(sizes) for values in (self.centre, self.spread)
        )
        fields = source if system.input_axes > 2 else source[:, None]
        batch = source.shape[0]  # not len(), which fixes the size of a batch that is exported
        shape = (batch,) if len(solution) == 1 else (batch, len(solution))
        return Encoded(
            (fields - field[:, None, None]) / spread[:, None, None],
            ((coefficients - scalars) / width).to(source.dtype),
            scale.expand(shape),
            source.new_zeros(batch),
            offset=solution.expand(shape),
        )


class CorrectionNormalization(Normalization):
    """The network corrects a first iterate of a linear equation ``A u = f`` whose coefficients are fields.

    It is what a solver would do next. With P, the operator with its fields frozen at their means, which is inverted by
    a division in Fourier space; u0, the system's `first_iterate`; its residual ``r = f - A u0``; and g = rms(r), the
    fields are r / g, what ``P^-1 r`` pushes (`VariableSystem.pushed`) over g, and the `told_fields` at each point. The
    values on modes are `symbol_features` of P, as of `SymbolNormalization`, so that an operator that was trained on
    constant coefficients is a start. The output times g / S is added to u0 on the modes that the network has, beyond
    them ``P^-1 r`` is, and -f gives -u.

    Where the first iterate is exact, as it is of constant coefficients, the prediction is, whatever the weights.
    """

    kind = "correction"
    linear = False
    is_fitted = False
    mode_channels = SYMBOL_CHANNELS

    def __init__(self, systems):
        super().__init__(systems)
        other = [system.name for system in systems if not isinstance(system, VariableSystem)]
        if other or len({system.told_channels for system in self._variable}) > 1:
            raise ValueError(
                "correction normalization: expected systems whose coefficients are fields, as many of each, got "
                f"{', '.join(system.name for system in systems)}; use another recipe"
            )

    @property
    def _variable(self) -> list[VariableSystem]:
        return [system for system in self.systems if isinstance(system, VariableSystem)]

    @property
    def in_channels(self):
        return 2 + self.point_channels

    @property
    def point_channels(self):
        return self._variable[0].told_channels

    def _scaled(self, source, coefficients, system, mode_points, variation):
        first = system.first_iterate(source)
        left = -system.residual(first, source, coefficients)
        symbol = system.frozen_symbol(source, source.shape[-1])
        null = symbol == 0
        step = filter_modes(left, (1 / symbol.masked_fill(null, 1)).masked_fill(null, 0))
        turned = left.amax(dim=(-2, -1)) + left.amin(dim=(-2, -1)) < 0
        g = _root_mean_square(left) * torch.where(turned, -1, 1)
        symbol = system.frozen_symbol(source, mode_points)
        scale = symbol_scale(symbol)
        z = symbol / scale[:, None, None]
        z[:, 0, 0] = 1
        waves = long_waves(source.shape[-1], mode_points // 2 - 1, source.device)
        fields = torch.stack([left, system.pushed(source, step)], dim=1) / g[:, None, None, None]
        return Encoded(
            torch.cat([fields, system.told_fields(source)], dim=1),
            source.new_empty(source.shape[0], 0),
            g / scale.to(source.dtype),
            torch.ones_like(g),
            symbol_features(z).to(source.dtype),
            first=first + filter_modes(step, ~waves),
            waves=waves.expand(source.shape[0], -1, -1),
        )


LARGEST_CORRECTION = 2.0
"""How many times the doubt in a cheap step a correction of it is at most, on waves of each length.

Without this bound one of 32 roll-outs of Navier-Stokes, at the smallest viscosity, was 388 % off after ten steps; with
it 27 %. In the others the errors are the same or smaller, by up to a half.
"""


class StepNormalization(Normalization):
    """The network takes a step of an evolution ``du/dt + L u = N(u)``: what it is told is particular to no equation.

    In the ``corrected`` form it corrects one cheap step of the solver, see `physics.evolution.cheap_step`. With
    s = rms(u), the fields are u / s, the state after the linear part alone, ``exp(-L T) u / s``, the three increments
    of that step over s, and these once more with waves of each length divided by their size. The values on modes are
    those of the multiplier ``exp(-symbol T)``, how long the step is for waves of this length, and how much it is in
    doubt there; the time T is in all of these. The output is multiplied by this doubt, wave by wave, held to
    `LARGEST_CORRECTION`, and added to the cheap step. So the network says least where the solver is right: a wave that
    has all but decayed keeps its size, and without a rest the prediction is exact, whatever the weights.

    The ``exponential`` and the ``residual`` form are told another thing of where the equation pushes:
    ``T phi(-L T) N`` over s, with N at the state and at `stages` of a cheap step that nothing holds back, see
    `physics.evolution.stages`; what is large there is bounded, ``x / (1 + |x| / 4)``. Their output is added, times the
    size of these pushes, to the state after the linear part; or, times s, to the state itself.

    Waves that the equation does not resolve get no correction, nor does a mean that the equation keeps. An equation for
    u / s has the tendency N(s u) / s, and is told so: a prediction scales with its state.
    """

    kind = "step"
    linear = False
    is_fitted = False
    stored: ClassVar = {"form": str, "stages": int}

    def __init__(self, systems, form: str = "corrected", stages: int = 4):
        super().__init__(systems)
        if form not in ("corrected", "exponential", "residual") or stages not in range(5):
            raise ValueError(
                "step normalization: expected a form corrected, exponential or residual and 0 to 4 stages, got "
                f"{form} {stages}"
            )
        if form == "corrected" and stages != 4:
            raise ValueError(f"step normalization: the cheap step that is corrected has 4 stages, got {stages}")
        other = [system.name for system in systems if not isinstance(system, Evolution)]
        if other or len({len(system.outputs) for system in systems}) > 1:
            raise ValueError(
                "step normalization: expected evolutions of as many fields each, got "
                f"{', '.join(system.name for system in systems)}; use another recipe"
            )
        self.form, self.stages = form, stages

    def knows(self, system):
        return isinstance(system, Evolution) and len(system.outputs) == self.out_channels

    @property
    def in_channels(self):
        told = 2 * INCREMENTS if self.form == "corrected" else self.stages
        return self.out_channels * (2 + told)

    @property
    def mode_channels(self):
        return (MULTIPLIER_CHANNELS + 2 * (self.form == "corrected")) * self.out_channels

    def _scaled(self, source, coefficients, system, mode_points, variation):
        several, time = system.input_axes > 2, system.time(coefficients)
        size = root_mean_square(source.flatten(1, -2), (-2, -1))
        unit = torch.where(size > 0, size, 1)
        z = -system.symbol(coefficients.double(), mode_points) * time.double().view(-1, *[1] * (source.ndim - 1))
        modes = multiplier_features(z).to(source.dtype)
        known = system.resolved_waves(source.shape[-1], source.device).to(source.dtype)
        if system.keeps_mean:
            known = known * (torch.arange(known.numel(), device=known.device) > 0).view(known.shape)
        if self.form == "corrected":
            told, first, waves, further = self._corrected(source, coefficients, system, unit, mode_points)
            modes = torch.cat([modes, further], dim=-1)
        else:
            told, first, waves = self._pushed(source, coefficients, system, unit)
        return Encoded(
            told.flatten(1, 2) if several else told,
            source.new_empty(source.shape[0], 0),
            unit,
            torch.zeros_like(time),
            modes.movedim(1, -2).flatten(-2) if several else modes,
            first=first,
            waves=waves * known,
            largest=torch.full_like(unit, LARGEST_CORRECTION) if self.form == "corrected" else None,
        )

    def _corrected(self, source, coefficients, system, unit, mode_points):
        """What the network that corrects a cheap step is told, that step, the doubt, and what is told on modes."""
        n, linear = source.shape[-1], system.linear_step(source, coefficients)
        if system.is_linear:
            none = torch.zeros_like(source)
            told = torch.stack([source, linear] + [none] * 2 * INCREMENTS, dim=1)
            further = source.new_zeros(*source.shape[:-2], mode_points, mode_points // 2 + 1, 2)
            return told / unit.view(-1, *[1] * source.ndim), linear, none[..., : n // 2 + 1], further
        made = system.cheap_step(source, coefficients)
        changes = torch.stack(made.increments, dim=1)
        alike = changes / on_shells(shell_sizes(changes), n) * n
        fields = inverse_transform(torch.cat([changes, alike], dim=1), n).to(source.dtype)
        told, alike = fields.split(INCREMENTS, dim=1)
        told = torch.cat([source[:, None], linear[:, None], told], dim=1) / unit.view(-1, *[1] * source.ndim)
        doubt = made.doubt / (n * unit.view(-1, *[1] * (made.doubt.ndim - 1)))
        further = torch.stack([made.length.log(), doubt.log() / 4], dim=-2).clamp(-5, 3)
        return (
            torch.cat([told, alike], dim=1),
            linear + fields[:, :INCREMENTS].sum(dim=1),
            on_shells(doubt, n),
            on_shells(further, mode_points).movedim(-3, -1),
        )

    def _pushed(self, source, coefficients, system, unit):
        """What the forms without a cheap step are told: the fields, what is added to, and in which waves."""
        n, unit = source.shape[-1], unit.view(-1, *[1] * (source.ndim - 1))
        linear, pushes = system.linear_step(source, coefficients), source[:, None][:, :0]
        if self.stages and not system.is_linear:
            rest = system.dealiased_rest(coefficients, n, source.dtype)
            symbol = system.symbol(coefficients.double(), n)
            found = stages(transform(source), symbol, system.time(coefficients), rest, self.stages)
            pushes = inverse_transform(torch.stack(found, dim=1), n).to(source.dtype)
        pushes = pushes / unit[:, None]
        pushes = pushes / (1 + pushes.abs() / 4)
        told = torch.cat([torch.stack([source, linear], dim=1) / unit[:, None], pushes], dim=1)
        missing = self.stages - pushes.shape[1]
        told = torch.nn.functional.pad(told.flatten(2), (0, 0, 0, missing)).unflatten(2, source.shape[1:])
        if self.form == "residual":
            return told, source, torch.ones_like(unit)
        reach = pushes.square().flatten(1).mean(dim=1) if pushes.shape[1] else torch.zeros_like(unit.flatten())
        reach = torch.where(reach > 0, reach, 1).sqrt() * (reach > 0)
        return told, linear, reach.view(unit.shape)


def normalization_from_dict(values: dict) -> Normalization:
    """Inverse of `Normalization.to_dict`.

    Raises:
        ValueError: on an unknown kind or system, or values of another type or number.
    """
    kind: Any = values.get("kind")
    schema.check_choice("normalization", kind, KINDS)
    known = dict(vars(schema.read(_plain(kind), values, "normalization", strict=True)))
    names: list[Any] = [known.get(name) for name in FIELD_NAMES]
    systems = (UnknownSystem(*names),) if any(names) else tuple(find_system(name) for name in known["systems"])
    if len(set(systems)) < len(systems):
        raise ValueError(f"normalization: expected each system once, got {reprlib.repr([s.name for s in systems])}")
    return KINDS[kind](systems, **{name: known[name] for name in KINDS[kind].stored})


FIELD_NAMES = ("inputs", "outputs", "scalars")
"""What is stored of a system that nobody knows an equation of."""


@cache
def _plain(kind: str) -> type:
    """What `Normalization.to_dict` makes, as a dataclass that says its types."""
    names = FIELD_NAMES if kind == FieldsNormalization.kind else ()
    more: list[Any] = [(name, list[str], dataclasses.field(default_factory=list)) for name in names]
    return dataclasses.make_dataclass(
        "Plain", [("kind", str), ("systems", list[str]), *KINDS[kind].stored.items(), *more]
    )


KINDS: dict[str, Any] = {
    cls.kind: cls
    for cls in (
        PaperNormalization,
        DimensionlessNormalization,
        SymbolNormalization,
        FieldsNormalization,
        CorrectionNormalization,
        StepNormalization,
    )
}


def fit_normalization(
    kind: str,
    tasks: Sequence[Task],
    *,
    seed: int = 0,
    count: int = 4096,
    examples: Sequence[tuple[System, Examples]] = (),
    **options: Any,
) -> Normalization:
    """Normalisation of a kind, with its statistics taken over examples, and over freshly drawn ones of the tasks.

    Further options are those of the kind's constructor.

    Raises:
        ValueError: on an unknown kind.
    """
    schema.check_choice("normalization", kind, KINDS)
    generator = torch.Generator().manual_seed(seed)
    count = count if KINDS[kind].is_fitted else 1
    drawn = [(task.system, task.sample(count, 32, generator)) for task in tasks]
    return KINDS[kind].fit([*examples, *drawn], **options)
