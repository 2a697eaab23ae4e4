"""The operator bundle: a trained network, its normalisation and its card, in one safetensors file.

A bundle predicts in physical units and needs no other file. The file holds the weights as tensors and, in its
metadata, JSON: the format version, the network's shape, the normalisation, the card (task, recipe, examples seen,
seed, command, hardware, errors) and a digest of all of it. Nothing is ever unpickled, and nothing is believed:
`OperatorHeader` says what is expected, and the weights are compared with the network before that is built.
"""

from __future__ import annotations

import reprlib
from copy import deepcopy
from dataclasses import MISSING, dataclass, field, fields, replace
from importlib import resources
from pathlib import Path

import torch
from torch import Tensor

from sciml_fm_core import schema
from sciml_fm_core.digests import digest_of, read_stored_header, read_tensors, write_tensors
from sciml_fm_core.files import find_file
from sciml_fm_core.physics.spectral import Resolution
from sciml_fm_core.physics.system import System

from .base import MODELS, Model, find_model
from .export import Exported, export_operator
from .normalization import Normalization, normalization_from_dict
from .packed import BLOCK, State, check_block, halved_names, pack, unpack
from .predict import predict_together

FORMAT = "sciml-fm operator"
FORMAT_VERSION = 5
"""Version of packed bundles; plain ones are still written as `PLAIN_VERSION`, which earlier releases read."""
PLAIN_VERSION = 2


@dataclass(frozen=True)
class Card:
    """What the library reads of a card; it may say more. That of an adapted operator holds that of its origin."""

    kind: str | None = None
    tasks: list[str] = field(default_factory=list)
    recipe: str | None = None
    architecture: str | None = None
    size: str | None = None
    examples_seen: int | None = None
    seconds: float | None = None
    parameters: int | None = None
    errors: dict[str, float] = field(default_factory=dict)
    downstream_task: str | None = None
    downstream_examples: int | None = None
    parent: Card | None = None
    twin_of: Card | None = None


@dataclass(frozen=True)
class Packed:
    """How the weights of a bundle are packed: the operator they are the difference to, its digest, and the block."""

    parent: str | None = None
    digest: str | None = None
    block: int = BLOCK

    def __post_init__(self):
        check_block(self.block)


@dataclass(frozen=True)
class OperatorHeader:
    """What the header of a bundle holds."""

    format: str
    version: int
    config: dict
    normalization: dict
    card: dict
    architecture: str = "fno"  # the only one of the first format
    packed: Packed | None = None
    digest: str | None = None

    def __post_init__(self):
        check_version(self.version, FORMAT_VERSION)
        schema.read(Card, self.card, "card", finite=False)


def check_version(version: int, newest: int) -> None:
    """Raise ValueError on a format that this package does not read."""
    if not 1 <= version <= newest:
        raise ValueError(f"format version {version}, this package reads up to {newest}; upgrade sciml-fm")


_MADE_FOR = {
    "in_channels": "input channels",
    "mode_channels": "values on each mode",
    "out_channels": "output channels",
    "point_channels": "fields that scale the blocks at each point",
}
"""What a network and its normalisation have to agree in, and what it is called."""


class Operator:
    """A trained solution operator: ``u = predict(f, coefficients)`` in physical units.

    Attributes:
        model: the network.
        normalization: what it sees of an example, and how its output becomes a solution.
        card: where it comes from, as plain values.
    """

    def __init__(self, model: Model, normalization: Normalization, card: dict | None = None):
        for name, what in _MADE_FOR.items():
            takes, makes = getattr(model.config, name, 0), getattr(normalization, name)
            if takes != makes:
                raise ValueError(
                    f"operator: the network has {takes} {what}, the normalisation makes {makes}; build its config with "
                    f"{name}={makes}"
                )
        self.model = model
        self.normalization = normalization
        self.card = schema.plain(card or {})

    @property
    def systems(self) -> tuple[System, ...]:
        """The systems it was trained for."""
        return self.normalization.systems

    @property
    def tasks(self) -> list[str]:
        """Labels of the tasks it was trained on, in pre-training and after it, as its card says."""
        parent, downstream = self.card.get("parent") or {}, self.card.get("downstream_task")
        labels = [*self.card.get("tasks", []), *parent.get("tasks", []), *([downstream] if downstream else [])]
        return list(dict.fromkeys(labels))

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return next(self.model.parameters()).device

    def to(self, device: torch.device | str) -> Operator:
        """Move the weights; returns the operator itself."""
        self.model.to(device)
        return self

    def copy(self) -> Operator:
        """An independent copy, to train further."""
        return Operator(deepcopy(self.model), self.normalization, self.card)

    def __call__(self, *arguments, **options) -> Tensor:
        """The same as `predict`."""
        return self.predict(*arguments, **options)

    def predict(
        self,
        source: Tensor,
        coefficients: Tensor,
        system: System | str | None = None,
        *,
        symmetries: bool = False,
    ) -> Tensor:
        """Predict solutions.

        A gradient flows to the source and the coefficients, and then to the weights too, where one of the former
        requires it or `torch.func` asks for it; else no graph is made, though weights always require one: to train
        them, apply ``model`` to what ``normalization`` encodes.

        Args:
            source: f, shape (..., n, n), n even and at least twice the modes of the network, on any device; of a
                system without a symbol its input fields, on any grid, see `System`.
            coefficients: shape (..., c), in the order of the system; leading shapes broadcast.
            system: which operator is meant, for one trained on several.
            symmetries: average the predictions for the eight turned inputs, turned back, where the system declares its
                symmetries: more accurate, at eight times the cost; what it gives then turns exactly with its input.

        Returns:
            u, shape (..., n, n), or (..., q, ny, nx) of q > 1 output fields, with the dtype and on the device of the
            source.

        Raises:
            ValueError: on a system it was not trained for, wrong shapes, values that are not finite or too large or
                small for the numbers of the network, or too coarse a grid.
        """
        return predict_together([self], source, coefficients, system, symmetries=symmetries)[0]

    def save(self, path: str | Path, *, half: bool = False, packed: bool = False, parent: str | None = None) -> Path:
        """Write the bundle atomically. A parametrized network is written as the plain one that it stands for.

        Whatever could not be loaded again is an error before a file that is there is touched.

        Args:
            path: file to write, usually ``*.safetensors``.
            half: store the weights as float16 (half the size, about three digits of the largest of each tensor), small
                tensors excepted, which matter most and take next to no room.
            packed: store them in at most eight bits (a quarter of the size), see `models.packed`.
            parent: name of the shipped operator that it was tuned from: packed is then the difference to it, which is
                small, and so what a few bits leave of it is exact enough. Without the parent it cannot be loaded.

        Raises:
            ValueError: if the folder does not exist, the parent does not ship or has another network, weights are not
                finite or do not fit into float16, or the card says what cannot be read back.
        """
        if self.model.architecture not in MODELS:
            raise ValueError(
                f"operator {path}: a bundle could not build {self.model.architecture} again; save the state_dict() of "
                "operator.model.module, or write the network as a subclass of Model"
            )
        state = _weights_of(self.model)
        header = {
            "format": FORMAT,
            "version": FORMAT_VERSION if packed else PLAIN_VERSION,
            "architecture": self.model.architecture,
            "config": self.model.config.to_dict(),
            "normalization": self.normalization.to_dict(),
            "card": self.card,
        }
        if packed:
            origin = _parent_of(Packed(parent), f"operator {path}") if parent else None
            if origin is not None and origin.model.config != self.model.config:
                raise ValueError(f"packed: expected a parent with the same network, {parent} has another one")
            state = pack(state, origin.model.state_dict() if origin else None, coarseness=self.model.coarseness())
            header["packed"] = {"parent": parent, "digest": origin and origin.digest, "block": BLOCK}
        elif half:
            state |= {key: state[key].half() for key in halved_names(state, f"operator {path}")}
        return write_tensors(path, "operator", header, state, _restored)

    def export(
        self,
        path: str | Path,
        system: System | str | None = None,
        resolution: Resolution | str | None = None,
        weights: str = "float32",
    ) -> Exported:
        """Write `predict` for one system as a file that runs without this package, see docs/export.md.

        It is checked against PyTorch before it is written.

        Args:
            path: file to write, ``*.onnx`` (needs the extra ``export``) or ``*.pt2``, a program of `torch.export`.
            system: which one, for an operator that takes several.
            resolution: points n in each direction, or (ny, nx); ``"any"`` for a file that takes every square grid of an
                even number of points that the operator takes; 128 where None. The number of examples is free.
            weights: float32, or float16 for a file of half the size; it computes in float32 all the same.

        Returns:
            The path, the largest relative difference to PyTorch, and what rounding the weights changes.

        Raises:
            ValueError: on a name, system or grid that does not fit, missing packages, weights that float16 does not
                hold, or a file that differs from PyTorch by more than 1e-5.
        """
        return export_operator(self, path, system, resolution, weights)

    @property
    def digest(self) -> str:
        """Hash of what it computes with: weights in float32, architecture, configuration, normalisation, tasks, recipe.

        The file that it comes from, how that holds the weights, and what else its card tells do not count.

        >>> operator = load_operator("sys-1")
        >>> operator.card["command"], before = "", operator.digest
        >>> operator.digest == before
        True
        """
        config = self.model.config
        defaults = {each.name: each.default for each in fields(config)}
        about = {
            "architecture": self.model.architecture,
            # a field that comes later counts only where it says something new
            "config": {key: value for key, value in config.to_dict().items() if value != defaults.get(key, MISSING)},
            "normalization": self.normalization.to_dict(),
            "tasks": self.tasks,
            "recipe": self.card.get("recipe"),
        }
        return digest_of(schema.plain(about), {key: value.float() for key, value in _weights_of(self.model).items()})


def _weights_of(model: Model) -> State:
    return {key: value.detach().cpu() for key, value in model.plain().state_dict().items()}


def shipped_operators() -> dict[str, Path]:
    """Names and files of the operators that ship with the package."""
    folder = Path(str(resources.files("sciml_fm_core"))) / "weights"
    return {path.stem: path for path in sorted(folder.glob("*.safetensors"))}


def shipped_adaptations() -> dict[str, Path]:
    """Names and files of the fine-tuned operators that ship, and of their twins from scratch: each is packed."""
    folder = Path(str(resources.files("sciml_fm_core"))) / "weights" / "adapted"
    return {path.stem: path for path in sorted(folder.glob("*.safetensors"))}


def _parent_of(about: Packed, where: str) -> Operator | None:
    """The shipped operator that a packed one is the difference to, checked to be the one it was packed with."""
    name, shipped = about.parent, shipped_operators()
    if name is None:
        return None
    if name not in shipped:
        raise ValueError(
            f"{where}: it is the difference to {reprlib.repr(name)}, which does not ship; keep it whole instead"
        )
    origin = load_operator(shipped[name])
    if about.digest not in (None, origin.digest):
        raise ValueError(f"{where}: the operator {name} that it is the difference to has changed; make it again")
    return origin


def read_header(path: Path) -> OperatorHeader:
    """Format, configuration, normalisation and card of a bundle, without its weights.

    Raises:
        ValueError: if the file is missing, damaged, foreign or of a newer format.
    """
    return _header_of(_stored_header(path), f"operator {path}")


def _stored_header(path: Path) -> dict:
    if not path.is_file():
        raise ValueError(f"operator {path}: no such file; `sciml-fm operators` lists what ships")
    return read_stored_header(path, "operator", FORMAT, "Operator.save")


def _header_of(stored: dict, where: str) -> OperatorHeader:
    header = schema.read(OperatorHeader, stored, where, strict=True)
    if header.card.get("recipe") == "ours":  # so version 0.1.0 called it
        return replace(header, card=header.card | {"recipe": "dimensionless"})
    return header


def load_operator(name_or_path: str | Path, device: torch.device | str | None = None) -> Operator:
    """Load a shipped operator by name, or any bundle by path.

    >>> load_operator("sys-1").tasks
    ['SYS-1(1,5)']

    Args:
        name_or_path: such as ``sys-1`` or ``my-operator.safetensors``; of a file that is called ``sys-1``, ``./sys-1``.
        device: where its weights go; the CPU by default, whatever device it was trained on.

    Raises:
        ValueError: if there is no such operator, if one ships by that name and a file here has it too, or if the file
            is damaged, foreign or of a newer format.
    """
    shipped = shipped_operators()
    path = find_file(name_or_path, shipped | shipped_adaptations(), "operator")
    if not path.is_file() and not path.suffix:
        raise ValueError(
            f"operator: expected one of {', '.join(shipped) or 'none shipped'}, or the path of a bundle; "
            f"got {str(name_or_path)!r}"
        )
    stored = _stored_header(path)
    return _restored(stored, read_tensors(path, "operator", stored), f"operator {path}").to(device or "cpu")


def _restored(stored: dict, state: State, where: str) -> Operator:
    """The operator that the header and the tensors of a file stand for."""
    header = _header_of(stored, where)
    try:
        model_type = find_model(header.architecture)
        config = schema.read(model_type.config_type, header.config, "config", strict=True)
        normalization = normalization_from_dict(header.normalization)
        if header.packed is not None:
            origin = _parent_of(header.packed, where)
            shapes = model_type.declared_shapes(config, len(state))
            state = unpack(
                state, origin.model.state_dict() if origin else None, block=header.packed.block, shapes=shapes
            )
        return Operator(model_type.with_weights(config, state), normalization, header.card)
    except ValueError as error:
        raise error if where in str(error) else ValueError(f"{where}: {error}") from error
