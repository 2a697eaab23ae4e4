"""Examples in files and streams.

A dataset file is HDF5 in the layout of the paper's released code, so files interchange both ways: ``fields`` float32
(N, 2, n, n) is source and solution, ``tensor`` float32 (N, c) the coefficients in the system's order. Files written
here add ``dial`` float32 (N,) and named attributes (see `ATTRIBUTES`). Each split has its own random stream, drawn in
chunks of `CHUNK` examples: a split's size changes no other split, and a longer file starts with the shorter one.

Files written here also have ``checksum`` uint32 (N,), the CRC-32 of each example, which is compared when it is first
read, and a digest of all that is not an example, see `tables`. HDF5's own filter would need chunks, and a file in
chunks cannot be mapped into memory.
"""

from __future__ import annotations

import json
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
from sciml_fm_core.physics.tasks import PAPER_TASKS, Task
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
    progress; the same call again resumes there, and the finished file has the same bytes (on the same device and
    number of threads, which decide the last bit of a sum).

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


class DatasetFile:
    """A dataset file, read in parts; a context manager.

    Args:
        path: a file written by `generate`, or by the paper's released code.
        system: of a file without attributes; where None, the system of the paper with that number of coefficients.

    Raises:
        ValueError: if the file is missing, truncated, foreign or of a newer layout.
    """

    def __init__(self, path: str | Path, system: System | str | None = None):
        self.path = user_path(path)
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
            self.system = self._find_system(system)
        except Exception as error:  # what the tables of a damaged file lead HDF5 to is not foreseen
            self._file.close()
            if isinstance(error, ValueError) and str(error).startswith("dataset "):
                raise
            about = _one_line(error)
            raise ValueError(f"dataset {path}: not readable, its tables are damaged ({about})") from error
        self.size: int = self._fields.shape[0]
        self.resolution: int = self._fields.shape[-1]
        self._known = np.zeros(self.size, bool)
        """Examples that have been checked."""

    def _check_layout(self) -> None:
        found = {name: self._file.get(name) for name in ("fields", "tensor", "dial", "checksum")}
        fields, tensor, dial, checksum = found.values()
        if not (isinstance(fields, h5py.Dataset) and isinstance(tensor, h5py.Dataset)):
            raise ValueError(f"dataset {self.path}: expected datasets 'fields' and 'tensor', got {list(self._file)}")
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
            if dataset.size * dataset.dtype.itemsize > COMPRESSION * self.path.stat().st_size:
                raise ValueError(f"dataset {self.path}: declares {dataset.shape} for {name}, more than a file can hold")
        self._fields, self._tensor, self._dial = _mapped(self.path, fields), tensor, dial
        self._checksums: np.ndarray | None = None if checksum is None else checksum[:]

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

    def _find_system(self, system: System | str | None) -> System:
        if system is None and self._ours:
            system = self.attributes["system"]
        if isinstance(system, str):
            system = find_system(system)
        columns = self._tensor.shape[1]
        if system is None:
            fitting = [SYSTEMS[name] for name in PAPER_TASKS if len(SYSTEMS[name].coefficient_names) == columns]
            if len(fitting) != 1:
                raise ValueError(
                    f"dataset {self.path}: {columns} coefficients could be {[s.name for s in fitting]}; name the system"
                )
            return fitting[0]
        if len(system.coefficient_names) != columns:
            raise ValueError(
                f"dataset {self.path}: {system.name} has {len(system.coefficient_names)} coefficients, "
                f"the file {columns}"
            )
        return system

    def take(self, index) -> Examples:
        """Examples at a slice, or at an index tensor in any order."""
        if isinstance(index, slice):
            rows: slice | np.ndarray = index
            order: slice | np.ndarray = slice(None)
        else:
            unique, order = np.unique(np.asarray(index), return_inverse=True)
            # HDF5 reads one run far faster than a list of rows.
            run = len(unique) and unique[-1] - unique[0] + 1 == len(unique)
            rows = slice(int(unique[0]), int(unique[-1]) + 1) if run else unique
        try:
            fields, tensor = self._fields[rows], self._tensor[rows]
            dials = None if self._dial is None else self._dial[rows]
        except (OSError, RuntimeError, MemoryError) as error:
            raise ValueError(f"dataset {self.path}: not readable ({_one_line(error)})") from error
        self._check(rows, fields, tensor, dials)
        source, solution, coefficients = (
            torch.from_numpy(np.array(values[order], dtype=np.float32))
            for values in (fields[:, 0], fields[:, 1], tensor)
        )
        if dials is None:
            dial = self.system.dial(source, coefficients)
        else:
            dial = torch.from_numpy(np.array(dials[order], dtype=np.float32))
        return Examples(source, coefficients, solution, dial)

    def _check(self, rows, fields: np.ndarray, tensor: np.ndarray, dials: np.ndarray | None) -> None:
        """Compare examples that are read for the first time with their checksums; they have to be finite numbers."""
        new = ~self._known[rows]
        if not new.any():
            return
        numbers = np.arange(self.size)[rows][new]
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


def _mapped(path: Path, dataset: h5py.Dataset) -> np.ndarray | h5py.Dataset:
    """The dataset as a memory map where it is one run of plain numbers; row by row, HDF5 takes ten times as long."""
    offset = None if dataset.external else dataset.id.get_offset()
    return dataset if offset is None else np.memmap(path, dataset.dtype, "r", offset, dataset.shape)


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
