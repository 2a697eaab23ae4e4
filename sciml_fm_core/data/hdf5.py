"""Dataset files: HDF5 in the layout of the paper's released code, so that files interchange both ways.

``fields`` float32 (N, 2, n, n) is source and solution, ``tensor`` float32 (N, c) the coefficients in the system's
order; of a system with p input and q output fields ``fields`` is (N, p + q, ny, nx), in the order of its names. Files
written here add ``dial`` float32 (N,) and named attributes (see `ATTRIBUTES`). They carry checksums, of each example
and of all that is not an example, which HDF5 compares whenever it reads them.
"""

from __future__ import annotations

import math
import os
from contextlib import AbstractContextManager, suppress
from dataclasses import dataclass
from pathlib import Path

import h5py
import numpy as np
import torch

from sciml_fm_core import schema
from sciml_fm_core.files import user_path
from sciml_fm_core.messages import reason
from sciml_fm_core.physics.evolution import Evolution
from sciml_fm_core.physics.examples import Examples
from sciml_fm_core.physics.spectral import FINEST_GRID, SMALLEST_GRID, resolution_of
from sciml_fm_core.physics.spectral_system import SpectralSystem
from sciml_fm_core.physics.system import SYSTEMS, System, find_system

FORMAT = "sciml-fm dataset"
FORMAT_VERSION = 1
ATTRIBUTES: dict[str, str] = {
    "format": "always 'sciml-fm dataset'",
    "version": "version of this layout",
    "package_version": "version of sciml-fm that wrote the file",
    "system": "name of the system",
    "task": "label, such as SYS-1(1,5)",
    "low": "lower end of the dial's range",
    "high": "upper end of the dial's range",
    "dial_name": "what the dial is",
    "coefficient_names": "columns of 'tensor'",
    "sparsities": "probabilities that a Gaussian is absent; example i has number i mod their count",
    "reject": "whether the sampler's rule on max |u| was applied",
    "acceptance_rate": "share of the draws that the rule kept, over whole chunks",
    "split": "random stream: train, validation or test",
    "seed": "seed of the streams",
    "resolution": "points n in each direction, or ny and nx",
    "units": "all quantities are dimensionless, on the unit square",
}
COMPRESSION = 1100
"""A declared size is at most as many times that of the file: deflate does not reach it."""


@dataclass(frozen=True)
class Attributes:
    """What others read of the attributes of a file that was written here."""

    version: int
    system: str
    task: str | None = None

    def __post_init__(self):
        if not 1 <= self.version <= FORMAT_VERSION:
            raise ValueError(
                f"layout version {self.version}, this package reads up to {FORMAT_VERSION}; upgrade sciml-fm"
            )


class OutOfRange(IndexError, ValueError):
    """Examples are asked for that are not there; as IndexError, it ends a loop over a `DatasetFile`."""


def chosen_numbers(index, size: int, where: str) -> np.ndarray:
    """Numbers of the examples that an index chooses among so many: one number, or an array of them.

    Raises:
        OutOfRange: on numbers that are not there, or what is no index.
    """
    try:
        chosen = np.arange(size)[index.cpu().numpy() if isinstance(index, torch.Tensor) else index]
        if chosen.ndim > 1:
            raise IndexError("expected one dimension")
        return chosen
    except (IndexError, TypeError, ValueError) as error:
        raise OutOfRange(
            f"{where}: expected a slice, whole numbers from {-size} to {size - 1} or a mask of {size} to choose "
            f"examples, got others ({reason(error)})"
        ) from None


class DatasetFile(AbstractContextManager):
    """A dataset file, read in parts; a context manager, and a sequence of examples that other processes may read too.

    >>> import tempfile
    >>> from sciml_fm_core import Task, generate
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     with DatasetFile(generate(Task.parse("SYS-1(1,5)"), Path(folder) / "train.h5", 4, resolution=8)) as file:
    ...         len(file), file[-1].source.shape, file[1:3].source.shape
    (4, torch.Size([8, 8]), torch.Size([2, 8, 8]))

    Args:
        path: a file written by `generate`, or by the paper's released code.
        system: of a file that does not say it by an attribute ``system``. Where no one says it, it is the only known
            system with that number of coefficients; with several such systems, whatever needs it is an error.

    Raises:
        ValueError: if the file is missing, truncated, foreign or of a newer layout, says another system, or parts of it
            were never written.
    """

    def __init__(self, path: str | Path, system: System | str | None = None):
        self.path, self._asked = user_path(path), system
        self._open()
        self._checked = np.zeros(self.size, bool)
        """Examples that were read before."""

    def _open(self) -> None:
        where, self._process = f"dataset {self.path}", os.getpid()
        if not self.path.is_file():
            raise ValueError(f"{where}: no such file; `sciml-fm generate` writes one")
        try:
            self._file = h5py.File(self.path, "r")
        except Exception as error:  # what damaged metadata lead HDF5 to is not foreseen, here and below
            raise ValueError(f"{where}: not a readable HDF5 file, or a truncated one ({reason(error)})") from error
        try:
            self.attributes = {key: plain_attribute(value) for key, value in self._file.attrs.items()}
            self._ours = self.attributes.get("format") == FORMAT
            said = None
            if self._ours:  # else they mean what other programs wanted
                said = schema.read(Attributes, self.attributes, where).system
            self._fields, self._tensor, self._dial = _arrays(self._file, where, SYSTEMS.get(str(said)))
            self._system = self._find_system(self._asked)
        except Exception as error:
            self._file.close()
            if isinstance(error, ValueError) and str(error).startswith("dataset "):
                raise
            raise ValueError(f"{where}: not readable, its metadata are damaged ({reason(error)})") from error
        self.size: int = self._fields.shape[0]
        self.resolution = resolution_of(self._fields.shape)

    def __reduce__(self):
        return type(self), (self.path.absolute(), self._asked)

    def _find_system(self, system: System | str | None) -> System | None:
        system = find_system(system) if isinstance(system, str) else system
        name, columns = self.attributes.get("system"), self._tensor.shape[1]
        known = {each for one in SYSTEMS.values() for each in (one.name.lower(), one.label.lower())}
        if self._ours or (isinstance(name, str) and name.strip().lower() in known):  # else another program's word
            said = find_system(str(name))
            if system is not None and system.name != said.name:
                raise ValueError(f"dataset {self.path}: says that it is of {said.name}, not of {system.name}")
            system = system or said
        if system is None:
            fitting = self._fitting()
            return fitting[0] if len(fitting) == 1 else None
        if len(system.coefficient_names) != columns:
            raise ValueError(
                f"dataset {self.path}: {system.name} has {len(system.coefficient_names)} coefficients, "
                f"the file {columns}"
            )
        return system

    def __len__(self) -> int:
        return self.size

    def __getitem__(self, index) -> Examples:
        """See `take`."""
        return self.take(index)

    def _fitting(self) -> list[System]:
        """What a file that does not say it may be of: the released code, whose layout it is, has no evolutions."""
        stationary = [each for each in SYSTEMS.values() if not isinstance(each, Evolution)]
        return [each for each in stationary if len(each.coefficient_names) == self._tensor.shape[1]]

    @property
    def system(self) -> System:
        """The system of its examples.

        Raises:
            ValueError: if neither the file nor the caller said it and several fit.
        """
        if self._system is None:
            names = ", ".join(each.name for each in self._fitting()) or "none that is known"
            raise ValueError(
                f"dataset {self.path}: {self._tensor.shape[1]} coefficients could be of {names}, and the file does not "
                'say; name it by --system, or system="..."'
            )
        return self._system

    def take(self, index) -> Examples:
        """Examples at a slice, or at numbers in any order, of which -1 is the last; or where a mask is true.

        An integer alone gives one example, with no leading dimension.

        Raises:
            ValueError: if the file is damaged there, or a row of coefficients is no equation.
            OutOfRange: on numbers that it does not have, which is an IndexError and a ValueError.
        """
        if os.getpid() != self._process:  # HDF5's state is not shared by processes
            self._open()
        chosen = chosen_numbers(index, self.size, f"dataset {self.path}")
        rows, place = np.unique(chosen, return_inverse=True)
        order = slice(None) if np.array_equal(chosen, rows) else place.reshape(chosen.shape)
        try:
            fields, tensor = _read(self._fields, rows), _read(self._tensor, rows)
            dials = None if self._dial is None else _read(self._dial, rows)
        except (OSError, RuntimeError, MemoryError, ValueError) as error:
            raise ValueError(f"dataset {self.path}: not readable ({reason(error)})") from error
        self._check(rows, fields, tensor, dials)
        p = len(self.system.inputs)
        parts = (fields[:, :p], fields[:, p:], tensor)
        source, solution, coefficients = (torch.from_numpy(np.ascontiguousarray(values[order])) for values in parts)
        source, solution = (part.squeeze(-3) if part.shape[-3] == 1 else part for part in (source, solution))
        dial = self.system.dial(source, coefficients) if dials is None else torch.from_numpy(np.asarray(dials[order]))
        return Examples(source, coefficients, solution, dial)

    def _check(self, rows: np.ndarray, fields: np.ndarray, tensor: np.ndarray, dials: np.ndarray | None) -> None:
        """Check examples that are read for the first time: finite numbers, and coefficients of an equation."""
        new = ~self._checked[rows]
        if not new.any():
            return
        for part in (fields, tensor, dials):
            finite = True if part is None else np.isfinite(part).reshape(len(part), -1).all(axis=1)
            if not np.all(finite):
                raise ValueError(
                    f"dataset {self.path}: expected finite values, got NaN or infinity in example {rows[~finite][0]}"
                )
        if bad := self.system.bad_row(torch.from_numpy(tensor)):
            raise ValueError(
                f"dataset {self.path}: example {rows[bad[0]]} has the coefficients {tensor[bad[0]].tolist()}: {bad[1]}"
            )
        self._checked[rows] = True

    def close(self) -> None:
        """Close the file."""
        self._file.close()

    def __exit__(self, *_) -> None:
        self.close()


def is_dataset(path: str | Path) -> bool:
    """Whether an HDF5 file has the two arrays of the paper's layout, or says that it was written here."""
    with suppress(Exception), h5py.File(user_path(path), "r") as file:
        return plain_attribute(file.attrs.get("format")) == FORMAT or {"fields", "tensor"} <= set(file)
    return False


def _arrays(
    file: h5py.File, where: str, system: System | None
) -> tuple[h5py.Dataset, h5py.Dataset, h5py.Dataset | None]:
    """Fields, tensor and dial of a file, of shapes that fit each other, and the system that it says it is of.

    Raises:
        ValueError: if they are missing, do not fit, or parts of them were never written.
    """
    found = {name: file.get(name) for name in ("fields", "tensor", "dial")}
    fields, tensor, dial = found.values()
    if lost := [name for name, one in found.items() if one is None and name in file]:
        raise ValueError(f"{where}: not readable, {lost[0]} is a link to nothing, or damaged")
    if not (isinstance(fields, h5py.Dataset) and isinstance(tensor, h5py.Dataset)):
        raise ValueError(
            f"{where}: expected datasets 'fields' and 'tensor', got {list(file)}; name your own by --inputs and "
            "--targets"
        )
    shape, count = fields.shape, fields.shape[:1]
    several = system is not None and not isinstance(system, SpectralSystem)
    number = len(system.inputs) + len(system.outputs) if system is not None else 2
    fits = len(shape) == 4 and shape[1] == number and (several or shape[2] == shape[3])
    if not fits or tensor.ndim != 2 or tensor.shape[:1] != count:
        with open(file.filename, "rb") as content:
            matlab = content.read(6) == b"MATLAB"
        raise ValueError(
            f"{where}: expected fields {f'(N, {number}, ny, nx)' if several else '(N, 2, n, n)'} and tensor (N, c), "
            f"got {shape} and {tensor.shape}"
            + ("; MATLAB reverses dimensions: save permute(fields, 4:-1:1) and tensor.'" if matlab else "")
        )
    odd = shape[2] % 2 and not several
    if shape[0] < 1 or odd or not SMALLEST_GRID <= min(shape[2:]) <= max(shape[2:]) <= FINEST_GRID:
        raise ValueError(
            f"{where}: expected at least one example on {'a' if several else 'an even'} number of {SMALLEST_GRID} to "
            f"{FINEST_GRID} points, "
            f"got {shape}"
        )
    if dial is not None and not (isinstance(dial, h5py.Dataset) and dial.shape == count):
        raise ValueError(f"{where}: expected dial {count}, got {getattr(dial, 'shape', 'a group')}")
    for name, one in found.items():
        if one is not None and one.dtype.kind != "f":
            raise ValueError(f"{where}: expected numbers of kind f in {name}, got another")
        if one is not None and one.nbytes > COMPRESSION * _stored_bytes(one, f"{where}: {name}"):
            raise ValueError(f"{where}: declares {one.shape} for {name}, more than a file can hold")
    return fields, tensor, dial


def _read(dataset: h5py.Dataset, rows: np.ndarray) -> np.ndarray:
    """Rows, in ascending order, as float32; HDF5 reads a run, or one row after the other, far faster than a list."""
    if len(rows) and rows[-1] - rows[0] + 1 == len(rows):
        return dataset.astype("f4")[rows[0] : rows[-1] + 1]
    found = np.empty((len(rows), *dataset.shape[1:]), "f4")
    for place, row in enumerate(rows):
        found[place] = dataset[row]
    return found


def _stored_bytes(dataset: h5py.Dataset, where: str) -> int:
    """Bytes of a file that hold an array.

    Raises:
        ValueError: if they are in other files, or were never written: HDF5 reads zeros there without a word.
    """
    if dataset.is_virtual or dataset.external:
        raise ValueError(f"{where}: its values are in other files; save them in this one")
    stored = dataset.id.get_storage_size()
    if dataset.chunks:
        parts = math.prod(-(-size // chunk) for size, chunk in zip(dataset.shape, dataset.chunks, strict=True))
        if dataset.id.get_num_chunks() < parts:
            raise ValueError(f"{where}: {parts - dataset.id.get_num_chunks()} of its {parts} chunks were never written")
    elif stored < dataset.nbytes:
        raise ValueError(f"{where}: was never written")
    return min(stored, os.path.getsize(dataset.file.filename))


def plain_attribute(value):
    """An attribute as numbers, texts and lists of Python."""
    if isinstance(value, np.ndarray):
        return [plain_attribute(item) for item in value.tolist()]
    value = value.item() if isinstance(value, np.generic) else value
    return value.decode(errors="replace") if isinstance(value, bytes) else value
