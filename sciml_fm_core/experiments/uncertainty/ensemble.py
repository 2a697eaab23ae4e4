"""Several operators that predict together: their mean, and as its uncertainty their spread; in one safetensors file.

Lakshminarayanan et al., arXiv:1612.01474: networks that differ in their random weights alone agree where their
training tells them what to do, and differ where it does not.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from importlib import resources
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor

from sciml_fm_core import schema
from sciml_fm_core.digests import read_stored_header, read_tensors, write_tensors
from sciml_fm_core.files import find_file, user_path
from sciml_fm_core.models.base import find_model
from sciml_fm_core.models.normalization import Normalization, normalization_from_dict
from sciml_fm_core.models.operator import Card, Operator, Packed, check_version
from sciml_fm_core.models.packed import COARSE_BLOCK, State, pack, unpack
from sciml_fm_core.models.predict import predict_together
from sciml_fm_core.physics.spectral import relative_size
from sciml_fm_core.physics.system import System
from sciml_fm_core.physics.tasks import Task
from sciml_fm_core.schema import takes_numpy
from sciml_fm_core.training.config import TrainConfig
from sciml_fm_core.training.transfer import pretrain

ENSEMBLE_FORMAT = "sciml-fm ensemble"
ENSEMBLE_VERSION = 2
PACKED_SMALL = 2**12
"""`packed.SMALL` of ensembles, whose networks are smaller."""
SHARED = "shared"
MOST_MEMBERS = 64
"""As many a file may declare: members that share all weights take no room in it."""


@dataclass(frozen=True)
class MemberHeader:
    """Header of one member of an ensemble."""

    normalization: dict
    card: dict

    def __post_init__(self):
        schema.read(Card, self.card, "card", finite=False)


@dataclass(frozen=True)
class EnsembleHeader:
    """Header of an ensemble."""

    format: str
    version: int
    architecture: str
    config: dict
    members: list[MemberHeader]
    card: dict
    packed: Packed | None = None
    digest: str | None = None

    def __post_init__(self):
        check_version(self.version, ENSEMBLE_VERSION)
        schema.read(Card, self.card, "card", finite=False)
        if not 2 <= len(self.members) <= MOST_MEMBERS:
            raise ValueError(f"members: expected 2 to {MOST_MEMBERS}, got {len(self.members)}")


class Prediction(NamedTuple):
    """A prediction and how uncertain it is: ``mean`` and ``spread``, each (..., n, n), in physical units."""

    mean: Tensor
    spread: Tensor

    @property
    def relative_spread(self) -> Tensor:
        """Root mean square of the spread over that of the mean, shape (...)."""
        return relative_size(self.spread, self.mean)


class Ensemble:
    """Operators with networks of equal shape, for the same systems.

    Attributes:
        members: the operators, two or more.
        card: where it comes from, as plain values.

    Raises:
        ValueError: with fewer than two members, or members whose networks or systems differ.
    """

    def __init__(self, members: Sequence[Operator], card: dict | None = None):
        self.members = tuple(members)
        if len(self.members) < 2:
            raise ValueError(f"ensemble: expected two members or more, got {len(self.members)}; one has no spread")
        first, *others = self.members
        for number, other in enumerate(others, 1):
            if type(other.model) is not type(first.model) or other.model.config != first.model.config:
                raise ValueError(
                    f"ensemble: expected networks of equal configuration, member {number} has another one than member 0"
                )
            if [system.name for system in other.systems] != [system.name for system in first.systems]:
                raise ValueError(f"ensemble: expected members of the same systems, member {number} has others")
        self.card = schema.plain(card or {})

    @property
    def systems(self) -> tuple[System, ...]:
        """The systems that its members were trained for."""
        return self.members[0].systems

    @property
    def tasks(self) -> list[str]:
        """Labels of the tasks that its members were trained on."""
        return list(dict.fromkeys(label for member in self.members for label in member.tasks))

    @property
    def normalization(self) -> Normalization:
        """Normalisation of the first member; the others' differ at most in their statistics."""
        return self.members[0].normalization

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return self.members[0].device

    def to(self, device: torch.device | str) -> Ensemble:
        """Move the weights; returns the ensemble itself."""
        for member in self.members:
            member.to(device)
        return self

    def predict_members(self, source: Tensor, coefficients: Tensor, system: System | str | None = None) -> Tensor:
        """Predictions of each member, shape (members, ..., n, n); arguments and errors as in `Operator.predict`."""
        return predict_together(self.members, source, coefficients, system)

    def predict(self, source: Tensor, coefficients: Tensor, system: System | str | None = None) -> Prediction:
        """The members' mean and their sample standard deviation at each point.

        With u_i of M members, ``mean = sum u_i / M`` and ``spread^2 = sum (u_i - mean)^2 / (M - 1)``. The spread is
        about how far one member is from the others, and not calibrated: see `experiments.uncertainty`.

        Args:
            source: f, shape (..., n, n).
            coefficients: shape (..., c); leading shapes broadcast.
            system: which equation is meant, for members that were trained on several.

        Returns:
            `Prediction` of tensors (..., n, n).

        Raises:
            ValueError: as `Operator.predict`.

        >>> from sciml_fm_core import Task, load_operator
        >>> ensemble = Ensemble([load_operator("sys-1"), load_operator("sys-1")])
        >>> examples = Task.parse("SYS-1(1,5)").sample(2, 32, torch.Generator().manual_seed(0))
        >>> mean, spread = ensemble.predict(examples.source, examples.coefficients)
        >>> tuple(mean.shape), float(spread.max())
        ((2, 32, 32), 0.0)
        """
        found = self.predict_members(source, coefficients, system)
        return Prediction(found.mean(dim=0), found.std(dim=0))

    def save(self, path: str | Path, *, packed: bool = False) -> Path:
        """Write all members into one file, atomically. What members have in common is stored once.

        Args:
            path: file to write, usually ``*.safetensors``.
            packed: store the weights in eight bits (a quarter of the size), see `models.packed`.

        Raises:
            ValueError: if the folder does not exist, weights are not finite, or a card says what cannot be read back.
        """
        states = [member.model.plain().state_dict() for member in self.members]
        tensors = {}
        for name, first in states[0].items():
            if all(torch.equal(state[name], first) for state in states[1:]):
                tensors[f"{SHARED}.{name}"] = first
            else:
                tensors |= {f"{number}.{name}": state[name] for number, state in enumerate(states)}
        # a tensor of its own for each key, as safetensors wants it
        tensors = {key: value.detach().cpu().clone() for key, value in tensors.items()}
        model = self.members[0].model
        header = {
            "format": ENSEMBLE_FORMAT,
            "version": ENSEMBLE_VERSION,
            "architecture": model.architecture,
            "config": model.config.to_dict(),
            "members": [{"normalization": m.normalization.to_dict(), "card": m.card} for m in self.members],
            "card": self.card,
        }
        if packed:
            tensors = pack(tensors, block=COARSE_BLOCK, small=PACKED_SMALL)
            header["packed"] = {"block": COARSE_BLOCK}
        return write_tensors(path, "ensemble", header, tensors, _restored)


@takes_numpy
def pretrain_ensemble(
    tasks: Sequence[Task] = (),
    config: TrainConfig | None = None,
    *,
    members: int = 4,
    seed: int = 0,
    folder: str | Path | None = None,
    **options,
) -> Ensemble:
    """Train a deep ensemble (arXiv:1612.01474): operators alike, each from its own random weights and examples.

    >>> ensemble = pretrain_ensemble([Task.parse("SYS-1(1,5)")], TrainConfig(steps=1), members=2, size="64K",
    ...                              resolution=32, batch_size=2, validation_count=2)
    >>> ensemble.card["seeds"], ensemble.card["steps"]
    ([0, 1], 1)

    Args:
        tasks, config: as in `pretrain`.
        members: how many, with seeds from ``seed`` on.
        seed: of the first.
        folder: where each member keeps a checkpoint, by its seed, so that the training resumes.
        options: as in `pretrain`, but for ``checkpoint``.

    Raises:
        ValueError: as `pretrain`, or with fewer than two members.
    """
    if members < 2:
        raise ValueError(f"ensemble: expected two members or more, got {members}; use pretrain for one")
    trained = []
    for number in range(seed, seed + members):
        checkpoint = None if folder is None else user_path(folder) / f"{number}.checkpoint"
        trained.append(pretrain(tasks, config, seed=number, checkpoint=checkpoint, **options)[0])
    return ensemble_of(trained)


def ensemble_of(operators: Sequence[Operator], **card) -> Ensemble:
    """Join operators that were pre-trained apart, with a card made from theirs; their learning curves are left out."""
    cards = [operator.card for operator in operators]
    first = cards[0]
    common = "tasks", "recipe", "architecture", "size", "batch_size", "resolution", "learning_rate", "loss", "hardware"
    seen = first.get("examples_seen", 0)
    made = {key: first[key] for key in common if key in first} | {
        "kind": "deep ensemble",
        "members": len(operators),
        "seeds": [own.get("seed") for own in cards],
        "steps": seen // first["batch_size"] if first.get("batch_size") else None,
        "examples_seen": seen,
        "seconds": round(sum(own.get("seconds", 0) for own in cards), 1),
        "best_validation_errors": [own.get("best_validation_error") for own in cards],
        "versions": first.get("versions"),
    }
    for operator in operators:
        operator.card = {key: value for key, value in operator.card.items() if key not in ("curve", "errors")}
    return Ensemble(operators, made | card)


def shipped_ensembles() -> dict[str, Path]:
    """Names and files of the ensembles that ship with the package."""
    folder = Path(str(resources.files("sciml_fm_core"))) / "weights" / "ensembles"
    return {path.stem: path for path in sorted(folder.glob("*.safetensors"))}


@cache
def ensemble_like(tasks: tuple[str, ...], recipe: str) -> str | None:
    """Name of the shipped ensemble whose members were trained on the same tasks by the same recipe, if there is one.

    >>> ensemble_like(("SYS-1(1,5)",), "dimensionless"), ensemble_like(("SYS-1(1,5)",), "paper")
    ('sys-1', None)
    """
    for name, path in shipped_ensembles().items():
        card = _header_of(_stored_header(path), f"ensemble {path}").card
        if (card.get("tasks"), card.get("recipe")) == (list(tasks), recipe):
            return name
    return None


def load_ensemble(name_or_path: str | Path, device: torch.device | str | None = None) -> Ensemble:
    """Load an ensemble that ships by its name, or any by the path of its file.

    Args:
        name_or_path: such as ``sys-1`` or ``mine.safetensors``.
        device: where its weights go; the CPU by default.

    Raises:
        ValueError: if there is no such ensemble, or the file is damaged, foreign or of a newer format.
    """
    shipped = shipped_ensembles()
    path = find_file(name_or_path, shipped, "ensemble")
    if not path.is_file():
        raise ValueError(
            f"ensemble: expected one of {', '.join(shipped) or 'none shipped'}, or the path of a file that "
            f"Ensemble.save wrote; got {str(name_or_path)!r}"
        )
    stored = _stored_header(path)
    return _restored(stored, read_tensors(path, "ensemble", stored), f"ensemble {path}").to(device or "cpu")


def _restored(stored: dict, tensors: State, where: str) -> Ensemble:
    """The ensemble that the header and the tensors of a file stand for."""
    header = _header_of(stored, where)
    try:
        model_type = find_model(header.architecture)
        config = schema.read(model_type.config_type, header.config, "config", strict=True)
        if header.packed is not None:
            tensors = unpack(tensors, block=header.packed.block)
        owners = {SHARED, *(str(number) for number in range(len(header.members)))}
        if strange := [key for key in tensors if key.partition(".")[0] not in owners]:
            raise ValueError(f"weights and header do not fit each other: no member has {strange[0][:80]!r}")
        members = [
            Operator(
                model_type.with_weights(config, _state_of(number, tensors)),
                normalization_from_dict(about.normalization),
                about.card,
            )
            for number, about in enumerate(header.members)
        ]
        return Ensemble(_with_common_normalizations(members), header.card)
    except ValueError as error:
        raise ValueError(f"{where}: {error}") from error


def _stored_header(path: Path) -> dict:
    return read_stored_header(path, "ensemble", ENSEMBLE_FORMAT, "Ensemble.save")


def _header_of(stored: dict, where: str) -> EnsembleHeader:
    return schema.read(EnsembleHeader, stored, where, strict=True)


def _state_of(number: int, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """Weights of one member: what all share, and its own."""
    prefixes = (f"{SHARED}.", f"{number}.")
    return {key[len(p) :]: value for p in prefixes for key, value in tensors.items() if key.startswith(p)}


def _with_common_normalizations(members: Sequence[Operator]) -> list[Operator]:
    """Members of equal normalisations have the same one: inputs are then encoded once for all of them."""
    known: dict[str, Normalization] = {}
    for member in members:
        text = json.dumps(member.normalization.to_dict(), sort_keys=True)
        member.normalization = known.setdefault(text, member.normalization)
    return list(members)
