"""Examples in files and streams.

A dataset file is HDF5 in the layout of the paper's released code, so files interchange both ways: ``fields`` float32
(N, 2, n, n) is source and solution, ``tensor`` float32 (N, c) the coefficients in the system's order. Files written
here add ``dial`` float32 (N,) and named attributes (see `ATTRIBUTES`). Each split has its own random stream, drawn in
chunks of `CHUNK` examples: a split's size changes no other split, and a longer file starts with the shorter one.

Files written here also have ``checksum`` uint32 (N,), the CRC-32 of each example, which is compared when it is first
read, and a digest of all that is not an example, see `tables`.
"""

from __future__ import annotations

import json
import math
import os
import zlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import h5py
import numpy as np
import torch

from sciml_fm_core import schema
from sciml_fm_core._version import __version__
from sciml_fm_core.digests import check_digest, with_digest
from sciml_fm_core.files import check_output, reserve, user_path, write_json
from sciml_fm_core.locks import hold
from sciml_fm_core.physics.examples import Examples
from sciml_fm_core.physics.sampling import check_resolution
from sciml_fm_core.physics.spectral import FINEST_GRID, SMALLEST_GRID
from sciml_fm_core.physics.system import SYSTEMS, System, find_system
from sciml_fm_core.physics.tasks import Task
from sciml_fm_core.schema import takes_numpy

from . import tables
from .splits import CHUNK, check_split, stream

FORMAT = "sciml-fm dataset"
FORMAT_VERSION = 1
FOUND_OUT = ("acceptance_rate", "checksum")
"""Attributes that are known at the end."""
HEADER_BYTES = 2**16
"""More than what HDF5 adds to the numbers of a file."""

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
    "resolution": "points n in each direction",
    "units": "all quantities are dimensionless, on the unit square",
    "checksum": "CRC-32 of all these as JSON",
}

COMPRESSION = 1100
"""A declared size is at most as many times that of the file: deflate does not reach it."""


@dataclass(frozen=True)
class Attributes:
    """What others read of the attributes of a file that was written here."""

    version: int
    system: str
    resolution: int
    task: str | None = None
    checksum: int | None = None

    def __post_init__(self):
        if not 1 <= self.version <= FORMAT_VERSION:
            raise ValueError(
                f"layout version {self.version}, this package reads up to {FORMAT_VERSION}; upgrade sciml-fm"
            )


@dataclass(frozen=True)
class GenerationProgress:
    """How far an interrupted `generate` came, and whether its tables are still as they were sealed."""

    settings: dict
    done: int
    draws: int
    sealed: bool

    def __post_init__(self):
        if not 0 <= self.done <= self.draws:
            raise ValueError(f"expected 0 <= done <= draws, got {self.done} and {self.draws}")


@takes_numpy
def generate(
    task: Task,
    path: str | Path,
    count: int,
    *,
    split: str = "train",
    seed: int = 0,
    resolution: int = 128,
    device: torch.device | str | None = None,
    callback: Callable[[int, int], None] | None = None,
    wait: bool = False,
) -> Path:
    """Write a dataset file, streaming, with memory flat in its size.

    The file appears under its name only when it is complete. An interrupted call leaves ``NAME.partial`` and its
    progress; the same call again resumes there, and the finished file has the same bytes (on the same kind of
    device).

    Args:
        task: what to draw.
        path: file to write; must not exist.
        count: number of examples.
        split: random stream, ``train``, ``validation`` or ``test``.
        seed: seed of the streams.
        resolution: points n in each direction, even.
        device: where examples are made; the CPU by default.
        callback: called with (examples written, count).
        wait: where another process writes this file, wait for it, and go on should it die; if it finished the file as
            it is asked for here, there is nothing left to do.

    Raises:
        ValueError: if the file exists, the folder does not, another process writes it, or the partial file was written
            with other settings.
        OSError: if the disk has no room for the file, before anything is drawn.
    """
    path = user_path(path)
    check_split(split, count)
    check_resolution(resolution)
    check_output(path)
    attributes = {
        "format": FORMAT,
        "version": FORMAT_VERSION,
        "package_version": __version__,
        "system": task.system.name,
        "task": task.label,
        "low": float(task.low),
        "high": float(task.high),
        "dial_name": task.system.dial_name,
        "coefficient_names": list(task.system.coefficient_names),
        "sparsities": list(task.sparsities),
        "reject": task.reject,
        "acceptance_rate": 0.0,
        "split": split,
        "seed": seed,
        "resolution": resolution,
        "units": ATTRIBUTES["units"],
        "checksum": 0,
    }
    with hold(path, wait=wait) as before:
        if before is None or not _is_as_asked(path, attributes, count):
            check_output(path)
            _write(task, path, count, attributes, device, callback)
    return path


def _is_as_asked(path: Path, attributes: Mapping, count: int) -> bool:
    if not path.exists():
        return False
    with DatasetFile(path) as dataset:
        known = (dataset.attributes.get(key) == attributes[key] for key in attributes if key not in FOUND_OUT)
        return dataset.size == count and all(known)


def _write(task: Task, path: Path, count: int, attributes: dict, device, callback) -> None:
    partial, progress = path.with_name(path.name + ".partial"), path.with_name(path.name + ".progress")
    split, seed, resolution = attributes["split"], attributes["seed"], attributes["resolution"]
    settings = {**attributes, "count": count}
    size = 4 * count * (2 * resolution**2 + len(task.system.coefficient_names) + 2) + HEADER_BYTES
    done, draws, sealed = 0, 0, True
    if partial.exists() and progress.exists():
        began = _read_progress(progress, partial)
        if began.settings != settings:
            raise ValueError(
                f"{partial}: written with other settings; finish it with those, or remove it and {progress.name}"
            )
        done, draws, sealed = began.done, began.draws, began.sealed
        reserve(partial, partial.stat().st_size)
    else:
        partial.unlink(missing_ok=True)
        try:
            reserve(partial, size)  # HDF5 does not survive a full disk: it never meets one
            _create(partial, count, resolution, task.system, attributes)
            reserve(partial, partial.stat().st_size)
            tables.seal(partial)
        except OSError:
            partial.unlink(missing_ok=True)
            raise

    def note(done: int, *, sealed: bool) -> None:
        write_json(progress, with_digest({"settings": settings, "done": done, "draws": draws, "sealed": sealed}))

    with _open_partial(partial, progress, count, resolution, attributes, sealed) as file:
        for start in range(done, count, CHUNK):
            generator = stream(seed, task.label, split, start // CHUNK)
            examples, drawn = task.sample_counted(CHUNK, resolution, generator, device=device)
            stop = min(start + CHUNK, count)
            kept = examples.take(slice(0, stop - start)).to("cpu")
            file["fields"][start:stop, 0] = kept.source.numpy()
            file["fields"][start:stop, 1] = kept.solution.numpy()
            file["tensor"][start:stop] = kept.coefficients.numpy()
            file["dial"][start:stop] = kept.dial.numpy()
            parts = kept.source.numpy(), kept.solution.numpy(), kept.coefficients.numpy(), kept.dial.numpy()
            file["checksum"][start:stop] = _checksums(parts)
            draws += drawn
            file.flush()
            note(stop, sealed=True)
            if callback is not None:
                callback(stop, count)
        note(count, sealed=False)  # the last attributes change the tables
        file.attrs.modify("acceptance_rate", CHUNK * -(-count // CHUNK) / draws)
        file.attrs.modify("checksum", _checksum_of({key: _plain(value) for key, value in file.attrs.items()}))
    tables.seal(partial)
    os.replace(partial, path)
    progress.unlink()


def _create(path: Path, count: int, n: int, system: System, attributes: Mapping) -> None:
    """Preallocate every dataset, so that the bytes do not depend on where a generation was interrupted."""
    with h5py.File(path, "w", userblock_size=tables.BLOCK) as file:
        for name, shape in (
            ("fields", (count, 2, n, n)),
            ("tensor", (count, len(system.coefficient_names))),
            ("dial", (count,)),
            ("checksum", (count,)),
        ):
            layout = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
            layout.set_alloc_time(h5py.h5d.ALLOC_TIME_EARLY)
            layout.set_fill_time(h5py.h5d.FILL_TIME_NEVER)
            layout.set_obj_track_times(False)
            kind = h5py.h5t.STD_U32LE if name == "checksum" else h5py.h5t.IEEE_F32LE
            h5py.h5d.create(file.id, name.encode(), kind, h5py.h5s.create_simple(shape), layout)
        for key, value in attributes.items():
            file.attrs[key] = value


def _read_progress(progress: Path, partial: Path) -> GenerationProgress:
    try:
        values = schema.parse(schema.read_text(progress), progress.name)
        found = schema.read(GenerationProgress, values, progress.name)
        check_digest(values, {}, progress.name)
        return found
    except (OSError, ValueError) as error:
        raise ValueError(f"{progress}: not readable ({error}); remove it and {partial.name}") from error


def _open_partial(partial: Path, progress: Path, count: int, n: int, attributes: Mapping, sealed: bool) -> h5py.File:
    try:
        if sealed:
            tables.check(partial, unfinished=True)
        file = h5py.File(partial, "r+")
        known = {key: _plain(value) for key, value in file.attrs.items()}
        shapes = {name: file[name].shape for name in ("fields", "dial", "checksum", "tensor")}
    except Exception as error:  # what the tables of a damaged file lead HDF5 to is not foreseen
        raise ValueError(f"{partial}: not readable ({_one_line(error)}); remove it and {progress.name}") from error
    if (shapes["fields"], shapes["dial"], shapes["checksum"]) != ((count, 2, n, n), (count,), (count,)):
        file.close()
        raise ValueError(f"{partial}: expected {count} examples on {n} x {n} points, got {shapes}; remove it")
    if {**attributes, "acceptance_rate": 0, "checksum": 0} != {**known, "acceptance_rate": 0, "checksum": 0}:
        file.close()
        raise ValueError(f"{partial}: damaged: its attributes are not what was written; remove it and {progress.name}")
    return file


def _checksums(parts: Sequence[np.ndarray]) -> list[int]:
    """CRC-32 of each row of arrays, as float32 in the order of bytes of the file, one array after the other."""
    found = []
    for row in zip(*parts, strict=True):
        checksum = 0
        for part in row:
            checksum = zlib.crc32(np.ascontiguousarray(part, "<f4").data, checksum)
        found.append(checksum)
    return found


def _checksum_of(attributes: Mapping) -> int:
    known = {key: attributes.get(key) for key in ATTRIBUTES if key != "checksum"}
    return zlib.crc32(json.dumps(known, sort_keys=True).encode())


def _one_line(error: BaseException) -> str:
    return " ".join(str(error).split())[:300] or type(error).__name__


class OutOfRange(IndexError, ValueError):
    """Examples are asked for that are not there; as IndexError, it ends a loop over a `DatasetFile`."""


class DatasetFile:
    """A dataset file, read in parts; a context manager, and a sequence of examples that other processes may read too.

    >>> import tempfile
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
        self._known = np.zeros(self.size, bool)
        """Examples that have been checked."""

    def _open(self) -> None:
        path, system, self._process = self.path, self._asked, os.getpid()
        if not self.path.is_file():
            raise ValueError(f"dataset {path}: no such file; `sciml-fm generate` writes one")
        try:
            tables.check(self.path)
        except ValueError as error:
            raise ValueError(f"dataset {path}: {error}") from None
        try:
            self._file = h5py.File(self.path, "r")
        except Exception as error:  # as below
            raise ValueError(
                f"dataset {path}: not a readable HDF5 file, or a truncated one ({_one_line(error)})"
            ) from error
        try:
            self._check_layout()
            self.attributes = {key: _plain(value) for key, value in self._file.attrs.items()}
            self._ours = self.attributes.get("format") == FORMAT
            if self._ours:
                self._check_attributes()
            self._system = self._find_system(system)
        except Exception as error:  # what the tables of a damaged file lead HDF5 to is not foreseen
            self._file.close()
            if isinstance(error, ValueError) and str(error).startswith("dataset "):
                raise
            about = _one_line(error)
            raise ValueError(f"dataset {path}: not readable, its tables are damaged ({about})") from error
        self.size: int = self._fields.shape[0]
        self.resolution: int = self._fields.shape[-1]

    def __reduce__(self):
        return type(self), (self.path.absolute(), self._asked)

    def _check_layout(self) -> None:
        found = {name: self._file.get(name) for name in ("fields", "tensor", "dial", "checksum")}
        fields, tensor, dial, checksum = found.values()
        if not (isinstance(fields, h5py.Dataset) and isinstance(tensor, h5py.Dataset)):
            found_names = [f"{name}{'' if one else ' (a link to nothing)'}" for name, one in self._file.items()]
            raise ValueError(f"dataset {self.path}: expected datasets 'fields' and 'tensor', got {found_names}")
        shape = fields.shape
        if (
            len(shape) != 4
            or shape[1] != 2
            or shape[2] != shape[3]
            or tensor.shape[:1] != shape[:1]
            or tensor.ndim != 2
        ):
            raise ValueError(
                f"dataset {self.path}: expected fields (N, 2, n, n) and tensor (N, c), got {shape} and {tensor.shape}"
                + ("; MATLAB reverses dimensions: save permute(fields, 4:-1:1) and tensor.'" if self._matlab else "")
            )
        if shape[0] < 1 or shape[2] % 2 or not SMALLEST_GRID <= shape[2] <= FINEST_GRID:
            raise ValueError(
                f"dataset {self.path}: expected at least one example on an even number of {SMALLEST_GRID} to "
                f"{FINEST_GRID} points, got {shape}"
            )
        kinds = {"fields": "f", "tensor": "f", "dial": "f", "checksum": "u"}
        for name, dataset in found.items():
            if dataset is None:
                continue
            if not isinstance(dataset, h5py.Dataset) or dataset.shape[:1] != shape[:1]:
                raise ValueError(f"dataset {self.path}: expected {name!r} to have {shape[0]} rows")
            if name in ("dial", "checksum") and dataset.shape != shape[:1]:
                raise ValueError(f"dataset {self.path}: expected {name} ({shape[0]},), got {dataset.shape}")
            if dataset.dtype.kind != kinds[name]:
                raise ValueError(f"dataset {self.path}: expected numbers of kind {kinds[name]} in {name}, got another")
            if dataset.nbytes > COMPRESSION * _held(dataset, f"dataset {self.path}: {name}"):
                raise ValueError(f"dataset {self.path}: declares {dataset.shape} for {name}, more than a file can hold")
        self._fields, self._tensor, self._dial = fields, tensor, dial
        self._checksums: np.ndarray | None = None if checksum is None else checksum[:]

    @property
    def _matlab(self) -> bool:
        with open(self.path, "rb") as file:
            return file.read(6) == b"MATLAB"

    def _check_attributes(self) -> None:
        """Those of a file that was written here; others mean what their programs wanted."""
        where = f"dataset {self.path}"
        found = schema.read(Attributes, self.attributes, where)
        if found.checksum is None:
            return
        if found.checksum != _checksum_of(self.attributes):
            raise ValueError(f"{where}: damaged: its attributes are not what was written; take a copy or make it again")
        if self._checksums is None or self._dial is None or found.resolution != self._fields.shape[-1]:
            raise ValueError(f"{where}: damaged: not the tables that were written; take a copy or make it again")

    def _find_system(self, system: System | str | None) -> System | None:
        system = find_system(system) if isinstance(system, str) else system
        name, columns = self.attributes.get("system"), self._tensor.shape[1]
        name = name.decode() if isinstance(name, bytes) else name
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
        return [each for each in SYSTEMS.values() if len(each.coefficient_names) == self._tensor.shape[1]]

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
        try:
            chosen = np.arange(self.size)[index.cpu().numpy() if isinstance(index, torch.Tensor) else index]
            if chosen.ndim > 1:
                raise IndexError("expected one dimension")
        except (IndexError, TypeError, ValueError) as error:
            raise OutOfRange(
                f"dataset {self.path}: expected a slice, whole numbers from {-self.size} to {self.size - 1} or a mask "
                f"of {self.size} to choose examples, got others ({_one_line(error)})"
            ) from None
        rows, place = np.unique(chosen, return_inverse=True)
        order = slice(None) if np.array_equal(chosen, rows) else place.reshape(chosen.shape)
        try:
            fields, tensor = _read(self._fields, rows), _read(self._tensor, rows)
            dials = None if self._dial is None else _read(self._dial, rows)
        except (OSError, RuntimeError, MemoryError, ValueError) as error:
            raise ValueError(f"dataset {self.path}: not readable ({_one_line(error)})") from error
        self._check(rows, fields, tensor, dials)
        source, solution, coefficients = (
            torch.from_numpy(np.ascontiguousarray(values[order])) for values in (fields[:, 0], fields[:, 1], tensor)
        )
        dial = self.system.dial(source, coefficients) if dials is None else torch.from_numpy(np.asarray(dials[order]))
        return Examples(source, coefficients, solution, dial)

    def _check(self, rows: np.ndarray, fields: np.ndarray, tensor: np.ndarray, dials: np.ndarray | None) -> None:
        """Compare examples that are read for the first time with their checksums; they have to be finite numbers."""
        new = ~self._known[rows]
        if not new.any():
            return
        numbers = rows[new]
        parts = [part[new] if not new.all() else part for part in (fields, tensor, dials) if part is not None]
        if self._checksums is not None and len(parts) == 3:
            wrong = np.asarray(_checksums(parts), self._checksums.dtype) != self._checksums[numbers]
            if wrong.any():
                raise ValueError(
                    f"dataset {self.path}: damaged: example {numbers[wrong][0]} is not what was written; take a copy "
                    "or make it again"
                )
        for part in parts:
            finite = np.isfinite(part).reshape(len(part), -1).all(axis=1)
            if not finite.all():
                raise ValueError(
                    f"dataset {self.path}: expected finite values, got NaN or infinity in example {numbers[~finite][0]}"
                )
        if bad := self.system.bad_row(torch.from_numpy(parts[1])):
            raise ValueError(
                f"dataset {self.path}: example {numbers[bad[0]]} has the coefficients {parts[1][bad[0]].tolist()}: "
                f"{bad[1]}"
            )
        self._known[numbers] = True

    def subset(self, count: int) -> Examples:
        """Nested subset: the examples of a smaller power of two are contained in those of a larger one.

        Files written here cycle through the sparsities, so that a prefix is balanced; in files of the released code
        they are in blocks, and the subset is spread evenly over the file (by the van der Corput sequence).

        Raises:
            ValueError: if the file does not hold that many.
        """
        if not 1 <= count <= self.size:
            raise ValueError(f"subset: expected 1 to {self.size} examples of {self.path}, got {count}")
        if self._ours:
            return self.take(slice(0, count))
        return self.take(_spread_evenly(self.size)[:count])

    def close(self) -> None:
        """Close the file."""
        self._file.close()

    def __enter__(self) -> DatasetFile:
        return self

    def __exit__(self, *_) -> None:
        self.close()


def _read(dataset: h5py.Dataset, rows: np.ndarray) -> np.ndarray:
    """Rows, in ascending order, as float32; HDF5 reads one run far faster than a list of rows."""
    run = len(rows) and rows[-1] - rows[0] + 1 == len(rows)
    return dataset.astype("f4")[rows[0] : rows[-1] + 1] if run else dataset.astype("f4")[rows]


def _held(dataset: h5py.Dataset, where: str) -> int:
    """Bytes that hold an array, in whichever files they are.

    Raises:
        ValueError: if parts of it are missing or were never written: HDF5 reads zeros there without a word.
    """
    path, held = Path(dataset.file.filename), dataset.id.get_storage_size()
    if dataset.is_virtual:
        parts = dataset.virtual_sources()
        if sum(part.vspace.get_select_npoints() for part in parts) < dataset.size:
            raise ValueError(f"{where}: parts of it are mapped to no file")
        for part in parts:
            places = [path] if part.file_name == "." else [path.parent / part.file_name, Path(part.file_name)]
            try:
                with h5py.File(next(filter(Path.is_file, places))) as file:
                    source = file[part.dset_name]
                    if source.size < part.vspace.get_select_npoints():
                        raise KeyError
                    held += _held(source, f"{where}: {part.file_name}")
            except (StopIteration, OSError, KeyError):
                raise ValueError(f"{where}: its part {part.dset_name} of {part.file_name} is missing") from None
        return held
    if dataset.external:
        missing = dataset.nbytes
        for name, offset, size in dataset.external:
            there = os.path.getsize(name) - offset if os.path.isfile(name) else 0
            missing -= max(0, min(there, size))
        if missing > 0:
            raise ValueError(f"{where}: {missing} bytes of it are missing in {[name for name, *_ in dataset.external]}")
        return dataset.nbytes
    if dataset.chunks:
        parts = math.prod(-(-size // chunk) for size, chunk in zip(dataset.shape, dataset.chunks, strict=True))
        if dataset.id.get_num_chunks() < parts:
            raise ValueError(f"{where}: {parts - dataset.id.get_num_chunks()} of its {parts} chunks were never written")
    elif held < dataset.nbytes:
        raise ValueError(f"{where}: was never written")
    return min(held, path.stat().st_size)


def _spread_evenly(size: int) -> np.ndarray:
    """Order of `size` rows in which every power of two of first ones is spread evenly: 0, N / 2, N / 4, 3 N / 4, ..."""
    bits = max(size - 1, 0).bit_length()
    steps = np.arange(2**bits)
    mirrored = np.zeros_like(steps)
    for bit in range(bits):
        mirrored |= ((steps >> bit) & 1) << (bits - 1 - bit)
    rows = mirrored * size >> bits
    _, first = np.unique(rows, return_index=True)
    return rows[np.sort(first)]


def _plain(value):
    if isinstance(value, np.ndarray):
        return [item.decode() if isinstance(item, bytes) else item for item in value.tolist()]
    return value.item() if isinstance(value, np.generic) else value


def write_released(examples: Examples, path: str | Path) -> Path:
    """Write examples exactly as the paper's released code does: ``fields`` and ``tensor``, no attributes."""
    from sciml_fm_core.files import atomic_path

    with atomic_path(path) as partial, h5py.File(partial, "w") as file:
        fields = torch.stack([examples.source, examples.solution], dim=1).cpu().numpy()
        file.create_dataset("fields", data=fields.astype("<f4"))
        file.create_dataset("tensor", data=examples.coefficients.cpu().numpy().astype("<f4"))
    return user_path(path)
