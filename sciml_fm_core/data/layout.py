"""What the arrays of a file of fields are, as it is named or written in a YAML beside the file."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from sciml_fm_core import schema
from sciml_fm_core.files import user_path
from sciml_fm_core.messages import reason

from .arrays import ArrayFile
from .splits import SPLITS

SAY_TIMES = "say in a YAML which times are which, as time: {axis: first, inputs: 0, targets: 1, slide: true}"
"""What to do with trajectories."""


@dataclass(frozen=True)
class Times:
    """Which times of a trajectory are inputs and targets; the arrays with most axes have one of times then.

    Args:
        axis: ``first``, (N, T, ny, nx), or ``last``, (N, ny, nx, T); or ``only``, (T, ny, nx), of one trajectory.
        inputs, targets: number or numbers of times; the first is 0, the last -1.
        slide: whether they count from every time of a trajectory, so that it gives as many examples as fit.

    Raises:
        ValueError: on another axis, no times, or negative ones that slide.
    """

    axis: str = "first"
    inputs: int | list[int] = 0
    targets: int | list[int] = 1
    slide: bool = False

    def __post_init__(self):
        _check_end("axis", self.axis, "only")
        if not all(self.steps):
            raise ValueError("expected at least one time of inputs and one of targets, got none")
        if self.slide and min(self.steps[0] + self.steps[1]) < 0:
            raise ValueError("expected times from 0 on where they slide, got negative ones")

    @property
    def steps(self) -> tuple[list[int], list[int]]:
        """Times of inputs and of targets."""
        inputs, targets = ([one] if isinstance(one, int) else list(one) for one in (self.inputs, self.targets))
        return inputs, targets


@dataclass(frozen=True)
class Layout:
    """What the arrays of a file are; what a YAML beside it says.

    Args:
        inputs, targets: names of arrays, or of one channel of an array (``u_1``); a list, or a text with commas. What
            is called otherwise in this file has both names, ``u=temperature``.
        scalars: names of arrays (N,) or (N, c), or of one number for all examples.
        channels: which axis the channels are, ``first`` or ``last`` after the examples; where None, the one of at most
            `MOST_CHANNELS` that is less than half of the others, or of which the rest is the grid of another array.
        time: which times of trajectories are inputs and targets.
        periodic: whether the fields are, if it is known.
        splits: to each of train, validation and test a share of the examples; or where they are: a group of the file
            (``train/u``) or an ending (``u_train``) of arrays of the same names, or another file.
        seed: seed of the choice by shares.

    Raises:
        ValueError: if no input or target is named, one twice, or on another value.
    """

    inputs: str | list[str]
    targets: str | list[str]
    scalars: str | list[str] = ""
    channels: str | None = None
    time: Times | None = None
    periodic: bool | None = None
    splits: dict[str, str | float] = field(default_factory=dict)
    seed: int = 0

    def __post_init__(self):
        for role in ("inputs", "targets", "scalars"):
            said = getattr(self, role)
            names = [name.strip() for name in (said.split(",") if isinstance(said, str) else said) if name.strip()]
            if not names and role != "scalars":
                raise ValueError(f"expected at least one array as {role}, got none")
            if len(set(names)) < len(names):
                raise ValueError(f"expected each of the {role} once, got {', '.join(names)}")
            object.__setattr__(self, role, names)
        if self.channels is not None:
            _check_end("channels", self.channels)
        if wrong := [name for name in self.splits if name not in SPLITS]:
            raise ValueError(f"splits: expected {', '.join(SPLITS)}, got {wrong[0]!r}")
        shares = [float(share) for share in self.splits.values() if not isinstance(share, str)]
        if shares and not (min(shares) > 0 and sum(shares) <= 1 + 1e-9):
            raise ValueError(f"splits: expected shares above 0, together at most 1, got {shares}")
        splits = {name: share if isinstance(share, str) else float(share) for name, share in self.splits.items()}
        object.__setattr__(self, "splits", splits)


def _check_end(what: str, value: str, *others: str) -> None:
    if value not in (known := ("first", "last", *others)):
        raise ValueError(f"{what}: expected {' or '.join(known)}, got {value!r}")


def _beside(path: str | Path) -> Path | None:
    path = user_path(path)
    names = path.with_name(path.name + ".yaml"), path.with_suffix(".yaml")
    return next((each for each in names if each.is_file() and each != path), None)


def is_explained(path: str | Path) -> bool:
    """Whether there is a YAML beside a file, ``own.npz.yaml`` or ``own.yaml``."""
    return _beside(path) is not None


def layout_beside(path: str | Path) -> Layout:
    """The layout that a YAML beside a file says, ``own.npz.yaml`` or ``own.yaml``.

    Raises:
        ValueError: if there is none, it is no YAML or says something else, or PyYAML is not installed.
    """
    beside = _beside(path)
    if beside is None:
        with ArrayFile(path) as file:
            have = ", ".join(list(file.arrays)[:20])
        raise ValueError(
            f"{file.where}: expected names of inputs and targets, got none; name some of {have} by --inputs and "
            f"--targets, or in {file.path.name}.yaml"
        )
    where = f"layout {beside}"
    try:
        from sciml_fm_core.yaml_values import parse_yaml
    except ImportError:
        raise ValueError(f"{where}: reading YAML needs PyYAML, `pip install 'sciml-fm[fields]'`") from None
    try:
        text = schema.read_text(beside)
    except (OSError, ValueError) as error:
        raise ValueError(f"{where}: not readable ({reason(error)}); expected YAML in UTF-8") from error
    return schema.read(Layout, parse_yaml(text, where), where, strict=True)
