"""What a network sees of an example, and how its output becomes a solution. Part of the operator, never a side file."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from typing import ClassVar, NamedTuple

import torch
from torch import Tensor

from sciml_fm_core.physics.examples import Examples
from sciml_fm_core.physics.system import System, find_system
from sciml_fm_core.physics.tasks import Task

from .conditioning import CONDITIONERS, Conditioning


class Encoded(NamedTuple):
    """Network inputs of a batch, and what turns its output v into a solution: ``u = scale * v``.

    ``field`` (batch, 1, n, n); ``scalars``, ``modes`` and ``fields`` as in `Conditioning`; ``scale`` (batch,);
    ``zero_mean`` (batch,) marks the examples whose output has its mean subtracted.
    """

    field: Tensor
    scalars: Tensor
    scale: Tensor
    zero_mean: Tensor
    modes: Tensor | None = None
    fields: Tensor | None = None

    @property
    def conditioning(self) -> Conditioning:
        """What the network is told of the equations."""
        return Conditioning(self.scalars, self.modes, self.fields)

    def decode(self, output: Tensor) -> Tensor:
        """Solutions (..., batch, n, n) from network outputs (..., batch, 1, n, n)."""
        output = output.squeeze(-3)
        mean = output.mean(dim=(-2, -1)) * self.zero_mean
        return (output - mean[..., None, None]) * self.scale[..., None, None]

    @staticmethod
    def combine(function: Callable[[list[Tensor]], Tensor], parts: Sequence[Encoded]) -> Encoded:
        """Parts concatenated or stacked, tensor by tensor; what none of them has stays None."""
        columns = zip(*parts, strict=True)
        made = [None if column[0] is None else function(list(column)) for column in columns]
        return Encoded(*made)  # type: ignore[arg-type] # only the last two may be None


def _root_mean_square(field: Tensor) -> Tensor:
    rms = field.square().mean(dim=(-2, -1)).sqrt()
    return torch.where(rms > 0, rms, 1)  # a zero source stays zero


def _union(names_of_systems) -> tuple[str, ...]:
    return tuple(dict.fromkeys(name for names in names_of_systems for name in names))


class Normalization(ABC):
    """Encodes examples of one or several systems for a network; a name it does not have is a zero channel."""

    kind: ClassVar[str]

    def __init__(self, systems: tuple[System, ...], conditioners: Sequence[str] = ()):
        if not systems:
            raise ValueError("normalization: expected at least one system")
        if unknown := [kind for kind in conditioners if kind not in CONDITIONERS]:
            raise ValueError(f"conditioning: expected kinds among {', '.join(CONDITIONERS)}, got {', '.join(unknown)}")
        self.systems = systems
        self.conditioners = tuple(conditioners)

    @property
    @abstractmethod
    def channel_names(self) -> tuple[str, ...]:
        """Names of the scalars."""

    def encode(self, source: Tensor, coefficients: Tensor, system: System) -> Encoded:
        """Inputs for sources (batch, n, n) with coefficients (batch, c) of one of the systems."""
        encoded = self._scaled(source, coefficients, system)
        if not self.conditioners:
            return encoded
        n, axis = source.shape[-1], {"modes": -1, "fields": -3}
        made = [(CONDITIONERS[kind].part, CONDITIONERS[kind].values) for kind in self.conditioners]
        parts = {part: [values(coefficients, system, n) for p, values in made if p == part] for part in axis}
        return encoded._replace(**{part: torch.cat(found, axis[part]) for part, found in parts.items() if found})

    @abstractmethod
    def _scaled(self, source: Tensor, coefficients: Tensor, system: System) -> Encoded:
        """The source, the scalars and the scale, without what the conditioners make."""

    def to_dict(self) -> dict:
        """Plain values from which `normalization_from_dict` builds the same normalisation."""
        values = {"kind": self.kind, "systems": [system.name for system in self.systems], **self._statistics()}
        return values | ({"conditioners": list(self.conditioners)} if self.conditioners else {})

    @abstractmethod
    def _statistics(self) -> dict:
        """What was fitted, as plain values: arguments of the constructor."""

    def channels(self, part: str) -> int:
        """Numbers that the conditioners make on each mode, or fields that they make."""
        made = (CONDITIONERS[kind] for kind in self.conditioners)
        return sum(conditioner.channels for conditioner in made if conditioner.part == part)

    @property
    def in_channels(self) -> int:
        """Input channels of the network: the source, fields and scalars."""
        return 1 + self.channels("fields") + len(self.channel_names)

    def resolve(self, system: System | str | None) -> System:
        """The system meant, checked to be one the operator was trained for.

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
        if found.name not in [s.name for s in self.systems]:
            raise ValueError(
                f"system: this operator was trained for {', '.join(s.name for s in self.systems)}, got {found.name}"
            )
        return found

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

    def __init__(self, systems, source_rms: float, coefficient_medians: Sequence[float], conditioners=()):
        super().__init__(systems, conditioners)
        self.source_rms = float(source_rms)
        self.coefficient_medians = tuple(float(m) for m in coefficient_medians)
        if len(self.coefficient_medians) != len(self.channel_names):
            raise ValueError(
                f"paper normalization: expected {len(self.channel_names)} medians for "
                f"{' '.join(self.channel_names)}, got {len(self.coefficient_medians)}"
            )

    @classmethod
    def fit(cls, examples: list[tuple[System, Examples]], conditioners: Sequence[str] = ()) -> PaperNormalization:
        """Medians over training examples of each system."""
        probe = cls.__new__(cls)
        Normalization.__init__(probe, tuple(dict.fromkeys(system for system, _ in examples)))
        rms = torch.cat([_root_mean_square(batch.source).cpu() for _, batch in examples])
        channels = torch.cat([probe._raw(batch.coefficients, system).abs().cpu() for system, batch in examples])
        medians = channels.median(dim=0).values
        medians = torch.where(medians > 0, medians, 1)
        return cls(probe.systems, rms.median().item(), medians.tolist(), conditioners)

    @property
    def channel_names(self):
        if len(self.systems) == 1:
            return self.systems[0].coefficient_names
        return _union(system.shared_names for system in self.systems)

    def _raw(self, coefficients: Tensor, system: System) -> Tensor:
        if len(self.systems) == 1:
            return coefficients
        return self._arrange(system.shared(coefficients), system.shared_names)

    def _scaled(self, source, coefficients, system):
        g = _root_mean_square(source) / self.source_rms
        medians = torch.tensor(self.coefficient_medians, dtype=source.dtype, device=source.device)
        scalars = self._raw(coefficients, system) / g[:, None] / medians
        one = torch.ones_like(g)
        # The paper's network learns the mean as it is: nothing is subtracted.
        return Encoded((source / g[:, None, None])[:, None], scalars, one, torch.zeros_like(g))

    def _statistics(self):
        return {"source_rms": self.source_rms, "coefficient_medians": list(self.coefficient_medians)}


class DimensionlessNormalization(Normalization):
    """Scale-free inputs: scaling f and L together, or f alone, costs the network nothing.

    With g = rms(f) and S the system's `scale` (for SYS-1 and SYS-2 ``4 pi^2 kappa + 2 pi |v|``, kappa = (k11 + k22) /
    2), the field is f / g and the scalars are ``asinh((x - centre) / spread)`` of the system's dimensionless
    `features` x, with their mean and standard deviation over training examples: of order one where the operator was
    trained, growing only logarithmically beyond. The output times g / S is u, with the mean subtracted where the system
    has none.
    """

    kind = "dimensionless"

    def __init__(self, systems, centre: Sequence[float], spread: Sequence[float], conditioners=()):
        super().__init__(systems, conditioners)
        self.centre, self.spread = tuple(map(float, centre)), tuple(map(float, spread))
        if not len(self.centre) == len(self.spread) == len(self.channel_names) or min(self.spread) <= 0:
            raise ValueError(
                f"dimensionless normalization: expected {len(self.channel_names)} centres and spreads above 0 for "
                f"{' '.join(self.channel_names)}, got {self.centre} and {self.spread}"
            )

    @classmethod
    def fit(
        cls, examples: list[tuple[System, Examples]], conditioners: Sequence[str] = ()
    ) -> DimensionlessNormalization:
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
        return cls(probe.systems, features.mean(dim=0).tolist(), spread.tolist(), conditioners)

    @property
    def channel_names(self):
        return _union(system.feature_names for system in self.systems)

    def _scaled(self, source, coefficients, system):
        g = _root_mean_square(source)
        features = self._arrange(system.features(coefficients), system.feature_names)
        centre, spread = features.new_tensor(self.centre), features.new_tensor(self.spread)
        return Encoded(
            (source / g[:, None, None])[:, None],
            torch.asinh((features - centre) / spread),
            g / system.scale(coefficients),
            torch.full_like(g, float(system.zero_mean)),
        )

    def _statistics(self):
        return {"centre": list(self.centre), "spread": list(self.spread)}


def normalization_from_dict(values: dict) -> Normalization:
    """Inverse of `Normalization.to_dict`.

    Raises:
        ValueError: on an unknown kind or system.
    """
    values = dict(values)
    kind, systems = values.pop("kind"), tuple(find_system(name) for name in values.pop("systems"))
    if kind not in KINDS:
        raise ValueError(f"normalization: expected one of {', '.join(KINDS)}, got {kind!r}")
    return KINDS[kind](systems, **values)


KINDS: dict[str, type[PaperNormalization] | type[DimensionlessNormalization]] = {
    cls.kind: cls for cls in (PaperNormalization, DimensionlessNormalization)
}


def fit_normalization(
    kind: str, tasks: list[Task], *, conditioners: Sequence[str] = (), seed: int = 0, count: int = 4096
) -> Normalization:
    """Normalisation of a kind, with its statistics taken over freshly drawn examples of the tasks.

    Raises:
        ValueError: on an unknown kind.
    """
    if kind not in KINDS:
        raise ValueError(f"normalization: expected one of {', '.join(KINDS)}, got {kind!r}")
    generator = torch.Generator().manual_seed(seed)
    return KINDS[kind].fit([(task.system, task.sample(count, 32, generator)) for task in tasks], conditioners)
