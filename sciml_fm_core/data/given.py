"""Examples that are given and not drawn: in memory, in a file of ours or of anybody, or some rows of either."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, replace
from functools import lru_cache
from itertools import combinations
from pathlib import Path
from typing import Any, Protocol, TypeAlias, runtime_checkable

import h5py
import torch
from torch import Tensor

from sciml_fm_core import schema
from sciml_fm_core.digests import digest_of, with_digest
from sciml_fm_core.files import file_digest, user_path
from sciml_fm_core.physics.examples import Examples
from sciml_fm_core.physics.spectral import Resolution, check_finite, check_tensor, grid_shape, grid_text
from sciml_fm_core.physics.system import System
from sciml_fm_core.physics.tasks import Task

from .fields import FieldsFile
from .hdf5 import FORMAT, DatasetFile
from .layout import is_explained
from .splits import stream

File: TypeAlias = DatasetFile | FieldsFile
"""A file of examples: of a system and a task, or fields whose equation nobody says."""


def open_file(path: str | Path, system: System | str | None = None) -> File:
    """A file of examples: in the layout of the paper, or in any other that a YAML beside it explains.

    Raises:
        ValueError: if it is not readable, or nothing says what its arrays are.
    """
    if is_explained(path) or (user_path(path).is_file() and not h5py.is_hdf5(user_path(path))):
        return FieldsFile(path)
    return DatasetFile(path, system)


@dataclass(frozen=True)
class Rows:
    """Some examples of a file, by their numbers in it; and the split that they are, if it is known."""

    file: File
    rows: Tensor
    split: str | None = None

    @property
    def size(self) -> int:
        """Number of examples."""
        return len(self.rows)

    @property
    def resolution(self) -> Resolution:
        """Points in each direction."""
        return self.file.resolution

    def take(self, index) -> Examples:
        """Examples at a slice or an index tensor."""
        return self.file.take(self.rows[index])


@runtime_checkable
class Reader(Protocol):
    """Examples of one system that can be read in parts: `Examples` in memory, a `File`, `Rows` of one."""

    @property
    def size(self) -> int: ...

    @property
    def resolution(self) -> Resolution: ...

    def take(self, index) -> Examples: ...


Data: TypeAlias = Reader | str | Path
"""What a training takes; a path is that of a dataset file, or of any file of fields with a YAML beside it."""

SPLITS = {"data": ["train"], "validation": ["validation", "train"], "test": ["test"]}
"""What a file may say that it is the split of, by what it is used for; in memory, examples say nothing."""
TOLERANCE = 1e-3
"""Share by which a value of the dial may lie outside of a task: it is found from float32 numbers."""
SAMPLE = 4096
"""Examples that are looked at to fit a normalisation, and to compare a file that names no task with one."""


def open_data(data: Any, system: System | None = None, name: str = "examples", *, labels: bool = True) -> Reader:
    """Examples to train or measure on, checked, in float32.

    >>> import numpy as np
    >>> wave = np.cos(2 * np.pi * np.arange(8) / 8) * np.ones((3, 8, 8))
    >>> open_data((wave, np.array([0.02, 0.01, 0.0]), wave, 1.5)).coefficients.shape  # one row for all
    torch.Size([3, 3])

    Args:
        data: a path as of `open_file`, a `File`, or `Examples`: source and solution (count, n, n), coefficients
            (count, c) and dial (count,), as tensors or arrays; one row of coefficients is that of all.
        system: which they are of; where None, what a file says, and in memory is not checked.
        name: what they are for; a file that says its split has to be one of `SPLITS`.
        labels: whether solutions have to be finite.

    Raises:
        ValueError: on a file of another system or split, or examples of another shape or system, or not finite.
    """
    if isinstance(data, str | Path):
        data = open_file(data, system)
    if isinstance(data, Examples) or not isinstance(data, Reader):
        data = _in_memory(data, system, name)
        if labels:
            check_finite(data.solution, f"{name}: solution")
    file = file_of(data)
    if file is None:
        return data
    where, split = f"dataset {file.path}", (data.split if isinstance(data, Rows) else None) or _said(file, "split")
    if system is not None and file.system.is_known and file.system.name != system.name:
        raise ValueError(f"{where}: expected examples of {system.name}, got {file.system.name}")
    if split is not None and split not in SPLITS.get(name, [split]):
        raise ValueError(
            f"{where}: expected the split {' or '.join(SPLITS[name])} for {name}, got {split}; read it into memory by "
            "DatasetFile(...).take(slice(None)) where it is meant all the same"
        )
    return data


def _in_memory(data: Any, system: System | None, name: str) -> Examples:
    try:
        parts = Examples(*map(torch.as_tensor, data))
    except (TypeError, ValueError, RuntimeError):
        raise ValueError(
            f"{name}: expected a path, a DatasetFile, or Examples(source, coefficients, solution, dial), "
            f"got {type(data).__name__}"
        ) from None
    for field, part in parts._asdict().items():
        check_tensor(part, f"{name}: {field}")
    source, coefficients, solution, dial = (part.detach().float() for part in parts)
    if not source.numel():
        raise ValueError(f"{name}: expected at least one example, got none")
    fields = (1, 1) if system is None else (len(system.inputs), len(system.outputs))
    found, grid = (source.shape, solution.shape), source.shape[-2:]
    if found != tuple((len(source), *([q] if q > 1 else []), *grid) for q in fields):
        several = f"(count, {fields[0]}, ny, nx), (count, {fields[1]}, ...)"
        raise ValueError(
            f"{name}: expected sources and solutions of {'one shape (count, n, n)' if fields == (1, 1) else several}, "
            f"got {tuple(source.shape)} and {tuple(solution.shape)}; leave out an axis of one channel by "
            "source.squeeze(1)"
        )
    try:
        coefficients, dial = coefficients.expand(len(source), coefficients.shape[-1]), dial.expand(len(source))
    except (RuntimeError, IndexError):
        raise ValueError(
            f"{name}: expected coefficients (count, c) and dial (count,) for {len(source)} sources, got "
            f"{tuple(coefficients.shape)} and {tuple(dial.shape)}"
        ) from None
    if system is not None:
        try:
            system.check(source, coefficients)
            system.check_mean(source)
        except ValueError as error:
            raise ValueError(f"{name}: {error}") from None
        if bad := system.bad_row(coefficients):
            raise ValueError(f"{name}: example {bad[0]}: {bad[1]}; leave it out")
    return Examples(source, coefficients, solution, dial)


def check_task(data: Reader, task: Task) -> None:
    """Raise ValueError when examples are not those of a task: another label in a file, or values outside its range."""
    file = file_of(data)
    about, label = ("examples", None) if file is None else (f"dataset {file.path}", _said(file, "task"))
    if label == task.label:
        return
    if label is not None:
        raise ValueError(f"{about}: expected examples of {task.label}, got {label}; name the task that they are of")
    dial = data.dial if isinstance(data, Examples) else sample(data).dial
    low, high = dial.min().item(), dial.max().item()
    if not (low >= task.low * (1 - TOLERANCE) and high <= task.high * (1 + TOLERANCE)):
        raise ValueError(
            f"{about}: expected values of {task.system.dial_name} within {task.label}, got {low:g} to {high:g}; name a "
            "task that holds them"
        )


def task_of(file: File) -> Task | None:
    """The task that a file written here says it is of."""
    label = _said(file, "task")
    return None if label is None else Task.parse(label)


def _said(file: File, key: str) -> Any:
    """An attribute of a file that was written here; those of other programs mean what these wanted."""
    if not isinstance(file, DatasetFile) or file.attributes.get("format") != FORMAT:
        return None
    return file.attributes.get(key)


def sample(data: Reader) -> Examples:
    """At most `SAMPLE` examples, spread evenly."""
    return data.take(torch.linspace(0, data.size - 1, min(data.size, SAMPLE), dtype=torch.float64).round().long())


def with_system(data: Any, told: System | str | None) -> tuple[Any, System | str | None]:
    """Given examples, a file in place of its path, and the system that the caller or the file says that they are of."""
    if isinstance(data, str | Path):
        data = open_file(data, told)
    file = file_of(data)
    return data, file.system if told is None and file is not None else told


def file_of(data: Any) -> File | None:
    """The file that given examples are read from, if they are."""
    return data.file if isinstance(data, Rows) else data if isinstance(data, DatasetFile | FieldsFile) else None


def rows_of(data: Reader, rows: Tensor) -> Reader:
    """Some of given examples, by their numbers."""
    if isinstance(data, Rows):
        return replace(data, rows=data.rows[rows])
    if isinstance(data, DatasetFile | FieldsFile):
        return Rows(data, rows)
    return data.take(rows)


def check_apart(parts: Mapping[str, Reader]) -> None:
    """Raise ValueError where two parts, such as those to train and to test on, have examples of a file in common."""
    for (name, one), (other, two) in combinations(parts.items(), 2):
        first, second = file_of(one), file_of(two)
        if first is None or second is None or not _same_file(first, second):
            continue
        rows = [part.rows if isinstance(part, Rows) else torch.arange(part.size) for part in (one, two)]
        if torch.isin(*rows).any():
            raise ValueError(
                f"{second.path}: expected other examples for {other} than for {name}, got some in both; give another "
                "file, or none, and some are held out"
            )


def check_resampled(data: Reader, resolutions: Iterable[Resolution]) -> None:
    """Raise ValueError where given fields would be brought to another grid as periodic ones, and nobody says they are.

    Waves that go on beyond the edge would be off near it by as much as the field jumps there.
    """
    file = file_of(data)
    if not isinstance(file, FieldsFile) or file.layout.periodic:
        return
    if other := [each for each in resolutions if grid_shape(each) != file.shape]:
        raise ValueError(
            f"{file.path}: expected its own grid, {grid_text(data.resolution)}, for fields that nobody says are "
            f"periodic, got {grid_text(other[0])}; leave out the resolution, or write periodic: true into a YAML "
            "beside the file"
        )


def _same_file(one: File, two: File) -> bool:
    if getattr(one, "group", "") != getattr(two, "group", ""):
        return False
    sizes = {each.path.stat().st_size for each in (one, two)}
    return one.path == two.path or (len(sizes) == 1 and digest_of_path(one.path) == digest_of_path(two.path))


def hold_out(data: Reader, *counts: int, seed: int = 0) -> list[Reader]:
    """Parts of given examples, chosen by the seed: of each count, but of a fifth of them at most; then the rest.

    >>> examples = Task.parse("SYS-1(1,5)").sample(10, 8, torch.Generator().manual_seed(0))
    >>> [part.size for part in hold_out(examples, 1, 64)]
    [1, 2, 7]

    Raises:
        ValueError: if there are too few for one in each part.
    """
    sizes = [min(count, max(1, data.size // 5)) for count in counts]
    if sum(sizes) >= data.size:
        raise ValueError(
            f"data: expected more than {sum(sizes)} examples, to hold out as many, got {data.size}; give "
            "more, or other ones to validate and test on"
        )
    order = torch.randperm(data.size, generator=stream(seed, "held out"))
    return [rows_of(data, rows.sort().values) for rows in order.split([*sizes, data.size - sum(sizes)])]


def split_file(
    data: DatasetFile,
    task: Task | None = None,
    *,
    count: int | None = None,
    validation: DatasetFile | int,
    test: DatasetFile | int,
    seed: int = 0,
) -> tuple[Reader, Reader, Reader]:
    """Examples of a file to train on, to validate on and to test on.

    Args:
        data: the file.
        task: what they have to be of, where it is said.
        count: examples to train on, chosen by the seed; all that are not held out where None.
        validation, test: other files; or numbers of examples that are held out, see `hold_out`.
        seed: of the choice.

    Raises:
        ValueError: on files of another split, system or task, or too few examples.
    """
    files = {"data": data, "validation": validation, "test": test}
    for name, file in files.items():
        if not isinstance(file, int):
            open_data(file, data.system, name)
            if task is not None:
                check_task(file, task)
    *parts, rest = hold_out(data, *(number for number in (validation, test) if isinstance(number, int)), seed=seed)
    held_out, tested = (parts.pop(0) if isinstance(file, int) else file for file in (validation, test))
    check_apart({"training": rest, "validation": held_out, "test": tested})
    return few_of(rest, count, seed), held_out, tested


def few_of(data: Reader, count: int | None, seed: int) -> Reader:
    """Some of given examples, chosen by the seed; all where None. Fewer ones are among those that are more.

    Raises:
        ValueError: if there are not as many.
    """
    if count is None:
        return data
    if count > data.size:
        file = file_of(data)
        where = "data" if file is None else f"dataset {file.path}"
        raise ValueError(f"{where}: expected {count} examples beside those held out, got {data.size}")
    return rows_of(data, torch.randperm(data.size, generator=stream(seed, "few"))[:count])


def digest_of_path(path: Path) -> str:
    """Hash of the contents of a file, or of all files of a folder."""
    if path.is_dir():
        each = {one.name: digest_of_path(one) for one in sorted(path.iterdir()) if one.is_file()}
        return digest_of(each, {})
    return _digest_of_file(path.absolute(), path.stat().st_mtime_ns, path.stat().st_size)


@lru_cache(maxsize=64)
def _digest_of_file(path: Path, changed: int, size: int) -> str:
    """`file_digest`, which is asked for several times of files that may be large."""
    return file_digest(path)


def described(data: Reader) -> dict[str, Any]:
    """What a card says of given examples: file, task and split, where they have them, number, grid and digest."""
    about: dict[str, Any] = {"examples": data.size, "resolution": data.resolution}
    if isinstance(data, Examples):
        return about | {"digest": with_digest({}, data._asdict())["digest"]}
    file = file_of(data)
    if file is None:
        return about
    said = {key: value for key in ("task", "split", "seed") if (value := _said(file, key)) is not None}
    if isinstance(data, Rows):
        said["of"] = file.size
        said |= {} if data.split is None else {"split": data.split}
    if isinstance(file, FieldsFile):
        about["layout"] = {key: value for key, value in schema.plain(asdict(file.layout)).items() if value}
    return {"file": file.path.name, "system": file.system.name, **said, **about, "digest": digest_of_path(file.path)}
