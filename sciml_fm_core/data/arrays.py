"""Arrays in files of other programs: HDF5 of any layout, MATLAB 7.3, NPZ, NPY, PyTorch, or a folder of such files.

Nothing in them is executed, and no other file is opened because one says so: an array of objects, a link to another
file or values kept elsewhere are listed with what is wrong, and are an error where they are asked for.
"""

from __future__ import annotations

import difflib
import zipfile
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import torch

from sciml_fm_core.files import user_path
from sciml_fm_core.messages import printable, reason

from .hdf5 import COMPRESSION, FORMAT, _stored_bytes, plain_attribute

MOST_ARRAYS = 10_000
"""Arrays of a file; more are an error."""
SUFFIXES = (".h5", ".hdf5", ".mat", ".nc", ".npy", ".npz", ".pt", ".pth")
"""Files that belong to a folder of arrays."""


def with_gaps(values: np.ndarray) -> np.ndarray:
    """Numbers of the entries of the first axis in which there are values that are not finite."""
    return np.flatnonzero(~np.isfinite(values).reshape(len(values), -1).all(axis=1))


@dataclass(frozen=True)
class FileArray:
    """An array of a file, of which parts are read.

    Args:
        name: name in the file, with those of its groups: ``t0_fields/density``.
        shape: entries along each axis; of MATLAB's arrays as MATLAB shows it, which is reversed in the file.
        dtype: kind of its numbers.
        open: gives what can be indexed; called once, by the first read.
        where: the file and the name: errors begin with them.
        problem: why it cannot be read, if so.
        of_matlab: whether MATLAB wrote it, whose vectors may be rows (1, N).
    """

    name: str
    shape: tuple[int, ...]
    dtype: str
    open: Callable[[], Any]
    where: str
    problem: str | None = None
    of_matlab: bool = False

    @property
    def last(self) -> str:
        """The last part of the name."""
        return self.name.split("/")[-1]

    @property
    def group(self) -> str:
        """The part of the name before the last, or the name itself where it has one part only."""
        return self.name.split("/")[-2:][0]

    def shape_of(self, count: int) -> tuple[int, ...]:
        """Its shape as that of numbers of so many examples, which MATLAB may hold as a row."""
        return self.shape[::-1] if self.of_matlab and self.shape == (1, count) else self.shape

    @cached_property
    def _values(self) -> Any:
        return self.open()

    def as_series(self) -> FileArray:
        """The array with an axis of examples before that of times, for a file of one trajectory."""
        return replace(self, shape=(1, *self.shape), open=partial(_Series, self.open))

    def rows(self, rows: np.ndarray, kind: str = "f4") -> np.ndarray:
        """Entries of the first axis, by ascending numbers, as float32, or another kind; ValueError as `at`."""
        if rows[-1] - rows[0] + 1 == len(rows):  # a run is read far faster than one after the other
            return self.at([slice(int(rows[0]), int(rows[-1]) + 1)], kind)[0]
        return self.at([(int(row),) for row in rows], kind)

    def at(self, places: list, kind: str = "f4") -> np.ndarray:
        """What several indices give, stacked, as float32, or another kind.

        Raises:
            ValueError: if the file is damaged there, or the array is not of numbers.
        """
        if self.problem:
            raise ValueError(f"{self.where}: {self.problem}")
        try:
            with np.errstate(over="ignore"):  # what float32 cannot hold becomes infinite: readers look for that
                return np.stack([np.asarray(self._values[place]).astype(kind) for place in places])
        except Exception as error:  # what damage leads HDF5, zlib and others to is not foreseen
            raise ValueError(f"{self.where}: not readable, the file is damaged there ({reason(error)})") from error


class _Series:
    """An array of one trajectory, (T, ...), as the only one of many, (1, T, ...)."""

    def __init__(self, open: Callable[[], Any]):
        self._times = open()

    def __getitem__(self, place: Any) -> np.ndarray:
        return np.asarray(self._times)[None][place] if isinstance(place, slice) else self._times[tuple(place[1:])]


class ArrayFile(AbstractContextManager):
    """The arrays of a file, or of the files of a folder, by name; a context manager.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     np.savez(Path(folder) / "own.npz", a=np.ones((5, 8, 8), bool))
    ...     with ArrayFile(Path(folder) / "own.npz") as file:
    ...         file.kind, file["a"].shape, file["a"].rows(np.array([0, 3])).dtype
    ('NPZ', (5, 8, 8), dtype('float32'))

    Args:
        path: the file or folder. An array without a name has that of its file.

    Raises:
        ValueError: if it is missing, damaged or of an unknown kind.
    """

    def __init__(self, path: str | Path):
        self.path = user_path(path)
        self.where, self.kind = f"file {self.path}", ""
        self.arrays: dict[str, FileArray] = {}
        self.attributes: dict[str, Any] = {}
        self._opened: list[Any] = []
        try:
            self._read_folder() if self.path.is_dir() else self._read_file()
        except Exception as error:  # as above
            self.close()
            if isinstance(error, ValueError) and str(error).startswith("file "):
                raise
            raise ValueError(f"{self.where}: not readable, damaged or cut short ({reason(error)})") from error

    def __getitem__(self, name: str) -> FileArray:
        """An array by its name, or by the last part of it where that is of one array only; else ValueError."""
        fitting = [full for full in self.arrays if full == name or full.endswith(f"/{name}")]
        if name in self.arrays or len(fitting) == 1:
            return self.arrays[name if name in self.arrays else fitting[0]]
        if fitting:
            raise ValueError(f"{self.where}: {name} may be {' or '.join(fitting[:5])}; write one of these")
        near = difflib.get_close_matches(name, self.arrays, 1)
        raise ValueError(
            f"{self.where}: expected an array {name}, got {', '.join(list(self.arrays)[:20]) or 'none'}"
            + (f"; did you mean {near[0]}?" if near else "")
        )

    def has(self, name: str) -> bool:
        """Whether there is an array of that name, or one whose name has that last part."""
        return any(f"/{full}".endswith(f"/{name}") for full in self.arrays)

    @property
    def is_dataset(self) -> bool:
        """Whether `generate` wrote it: such a file says all of itself, and is read by `DatasetFile`."""
        return self.attributes.get("format") == FORMAT

    def close(self) -> None:
        """Close what is open."""
        for each in self._opened:
            each.close()

    def __exit__(self, *_) -> None:
        self.close()

    def _add(self, name: str, shape: Any, dtype: Any, open: Callable[[], Any], problem: Any = None, **more) -> None:
        """Add an array, with what is wrong with it."""
        if len(self.arrays) == MOST_ARRAYS:
            raise ValueError(f"{self.where}: expected at most {MOST_ARRAYS} arrays, got more")
        problem = problem or _not_numbers(dtype) or ("it holds nothing" if shape is None or 0 in shape else None)
        name, kind, problem = printable(name), printable(dtype), problem and printable(problem)
        self._check_new(name)
        self.arrays[name] = FileArray(name, shape or (), kind, open, f"{self.where}: {name}", problem, **more)

    def _check_new(self, name: str) -> None:
        if name in self.arrays:
            raise ValueError(f"{self.where}: expected one array of each name, got {name} twice; rename one of them")

    def _read_folder(self) -> None:
        self.kind = "folder"
        for path in sorted(self.path.iterdir()):
            if path.suffix.lower() in SUFFIXES and path.is_file():
                self._opened.append(inner := ArrayFile(path))
                for name, array in inner.arrays.items():
                    full = name if name == path.stem else f"{path.stem}/{name}"
                    self._check_new(full)
                    self.arrays[full] = replace(array, name=full)
        if not self.arrays:
            raise ValueError(f"{self.where}: a folder without a file of arrays ({', '.join(SUFFIXES)})")

    def _read_file(self) -> None:
        if not self.path.is_file():
            raise ValueError(f"{self.where}: no such file")
        with open(self.path, "rb") as content:
            head = content.read(32)
        if head.startswith(b"MATLAB 5.0"):
            raise ValueError(
                f"{self.where}: a MAT-file of version 7 or older, expected 7.3; load it in MATLAB and save it by "
                "save(FILE, '-v7.3'), or in Python read it by scipy.io.loadmat and save its arrays by numpy.savez"
            )
        if head.startswith((b"CDF\x01", b"CDF\x02", b"CDF\x05")):
            raise ValueError(
                f"{self.where}: NetCDF of the classic kind, expected NetCDF 4; convert it by nccopy -k nc4 FILE NEW.nc "
                "or in Python by xarray.open_dataset(FILE).to_netcdf(NEW, format='NETCDF4')"
            )
        if h5py.is_hdf5(self.path):
            self._read_hdf5(of_matlab=head.startswith(b"MATLAB"))
        elif head.startswith(b"\x93NUMPY"):
            self.kind = "NPY"
            with open(self.path, "rb") as content:
                shape, dtype = _header(content)
            self._add(self.path.stem, shape, dtype, partial(np.lib.format.open_memmap, self.path, mode="r"))
        elif zipfile.is_zipfile(self.path):
            with zipfile.ZipFile(self.path) as archive:
                members = [each for each in archive.infolist() if each.filename.endswith(".npy")]
                for member in members:
                    self._add_member(archive, member)
            if not members:
                self._read_torch(mapped=True)
        elif head.startswith(b"\x80"):
            self._read_torch(mapped=False)
        else:
            raise ValueError(
                f"{self.where}: expected HDF5, MATLAB 7.3, NPZ, NPY or a file of torch.save, got one that begins with "
                f"{head[:20]!r}; save its arrays by numpy.savez"
            )

    def _add_member(self, archive: zipfile.ZipFile, member: zipfile.ZipInfo) -> None:
        """Add an array of an NPZ file, which is loaded as a whole when it is first read."""
        self.kind, path, name = "NPZ", self.path, member.filename
        with archive.open(member) as content:
            shape, dtype = _header(content)
            size = content.tell() + dtype.itemsize * int(np.prod(shape, dtype=object))
        wrong = not dtype.hasobject and (member.file_size != size or size > COMPRESSION * member.compress_size)

        def load() -> np.ndarray:
            with zipfile.ZipFile(path) as archive, archive.open(name) as content:
                return np.lib.format.read_array(content, allow_pickle=False)

        self._add(
            name.removesuffix(".npy"), shape, dtype, load, f"it declares {shape} and holds other" if wrong else None
        )

    def _read_torch(self, mapped: bool) -> None:
        self.kind = "PyTorch"
        try:
            content = torch.load(self.path, map_location="cpu", weights_only=True, mmap=mapped)
        except Exception as error:
            raise ValueError(
                f"{self.where}: expected tensors, or a dictionary of them, saved by torch.save, got what is damaged or "
                f"would run code ({reason(error)[:120]})"
            ) from error
        for name, value in _flat(content, ""):
            problem = None
            if isinstance(value, int | float):
                value = np.asarray(value)
            elif not isinstance(value, torch.Tensor):
                problem = f"expected a tensor, got {type(value).__name__}"
                value = torch.empty(0)
            elif value.layout != torch.strided or value.is_quantized or value.is_meta:
                problem = "expected a dense tensor; save tensor.to_dense()"
            elif value.numel() * value.element_size() > value.untyped_storage().nbytes():
                problem = f"it declares {tuple(value.shape)}, more than it holds; save tensor.clone()"
            else:
                value = value.detach().resolve_conj().resolve_neg()
                value = (value.float() if value.dtype == torch.bfloat16 else value).numpy()
            self._add(name or self.path.stem, tuple(value.shape), value.dtype, partial(np.asarray, value), problem)

    def _read_hdf5(self, of_matlab: bool) -> None:
        self.kind = "MATLAB 7.3" if of_matlab else "HDF5"
        file = h5py.File(self.path, "r")
        self._opened.append(file)
        self.attributes = {key: plain_attribute(value) for key, value in file.attrs.items()}
        for name, one in _datasets(file, "", set()):
            if isinstance(one, str):
                self._add(name, (), "link", lambda: None, f"a link to {one}; name that itself, or save the values here")
            else:
                reverse = of_matlab or "MATLAB_class" in one.attrs
                shape = one.shape[::-1] if reverse and one.shape else one.shape
                problem = _hdf5_problem(one, f"{self.where}: {name}")
                self._add(name, shape, one.dtype, partial(_opened, one, reverse), problem, of_matlab=reverse)


def _datasets(group: h5py.Group, prefix: str, seen: set[int]) -> Iterator[tuple[str, h5py.Dataset | str]]:
    """Data sets under a group, which is entered once; of a link, which is not followed, what it is to."""
    for key in group:
        name, link = f"{prefix}{key}", group.get(key, getlink=True)
        if isinstance(link, h5py.ExternalLink):
            yield name, f"{link.path} in another file, {link.filename}"
        elif isinstance(link, h5py.SoftLink):
            yield name, link.path
        elif not key.startswith("#"):  # there MATLAB keeps the contents of cells
            one = group[key]
            if isinstance(one, h5py.Dataset):
                yield name, one
            elif isinstance(one, h5py.Group) and (address := h5py.h5o.get_info(one.id).addr) not in seen:
                seen.add(address)
                yield from _datasets(one, f"{name}/", seen)


def _opened(one: h5py.Dataset, reverse: bool) -> Any:
    """What can be indexed; MATLAB's examples are not in one piece of the file, so that all are read at once."""
    if reverse:
        return np.ascontiguousarray(one[()].T)
    fills = [_said(one, key) for key in ("_FillValue", "missing_value")]
    if float(one.fillvalue) in UNWRITTEN:
        fills.append(np.array([float(one.fillvalue)]))
    low, high = (np.append(_said(one, "valid_range"), _said(one, f"valid_{end}")) for end in ("min", "max"))
    limits = low.min(initial=np.inf) if len(low) else -np.inf, high.max(initial=-np.inf) if len(high) else np.inf
    return _Filled(one, np.concatenate(fills), *limits) if any(map(len, [*fills, low, high])) else one


UNWRITTEN = (15 * 2.0**119, -32767, -2147483647, 65535, 4294967295)
"""What NetCDF writes where nobody wrote anything, if nothing else is said."""


def _said(one: h5py.Dataset, key: str) -> np.ndarray:
    """Numbers of an attribute, none where there is none."""
    try:
        return np.ravel(np.asarray(plain_attribute(one.attrs.get(key, [])), float))
    except (TypeError, ValueError):
        return np.empty(0)


class _Filled:
    """An array of NetCDF, with NaN where a value says that there is none, or is not among those that are valid."""

    def __init__(self, one: h5py.Dataset, fills: np.ndarray, low: float, high: float):
        self._one, self._low, self._high = one, low, high
        self._fills = fills.astype(one.dtype) if one.dtype.kind == "f" else fills

    def __getitem__(self, place: Any) -> np.ndarray:
        values = np.asarray(self._one[place])
        return np.where(np.isin(values, self._fills) | (values < self._low) | (values > self._high), np.nan, values)


def _hdf5_problem(one: h5py.Dataset, where: str) -> str | None:
    if one.shape is None or "MATLAB_empty" in one.attrs:
        return "it holds nothing"
    if plain_attribute(one.attrs.get("MATLAB_class")) == "char":
        return "expected an array of numbers, got text"
    if h5py.check_ref_dtype(one.dtype) is not None:
        return "a cell or struct array of MATLAB; save its fields as one array, permute(cat(3, C{:}), [3 1 2])"
    if {"scale_factor", "add_offset"} & set(one.attrs):
        return "packed by scale_factor and add_offset; save the values themselves"
    if one.dtype.kind == "i" and str(plain_attribute(one.attrs.get("_Unsigned"))).lower() == "true":
        return "numbers with a sign that are meant without (_Unsigned); save them so"
    if _not_numbers(one.dtype) or not one.size:
        return None  # others say so
    try:
        stored = _stored_bytes(one, where)
    except ValueError as error:
        return str(error).removeprefix(f"{where}: ")
    return f"it declares {one.shape}, more than a file can hold" if one.nbytes > COMPRESSION * stored else None


def _not_numbers(dtype: Any) -> str | None:
    kind = getattr(dtype, "kind", "O")
    if kind in "biuf":
        return None
    if kind == "c" or (dtype.names and set(dtype.names) <= {"real", "imag", "r", "i"}):
        return "expected real numbers, got complex ones; save real and imaginary part as two channels"
    names = {"O": "Python objects or texts, which are not loaded", "S": "texts", "U": "texts", "V": "records"}
    return f"expected an array of numbers, got {names.get(kind, dtype)}; save each array of numbers by itself"


def _header(content: Any) -> tuple[tuple[int, ...], np.dtype]:
    """Shape and kind that the beginning of an NPY file declares."""
    first = np.lib.format.read_magic(content) == (1, 0)
    shape, _, dtype = (np.lib.format.read_array_header_1_0 if first else np.lib.format.read_array_header_2_0)(content)
    return shape, dtype


def _flat(value: Any, name: str) -> Iterator[tuple[str, Any]]:
    """What dictionaries, lists and tuples hold, by keys and numbers."""
    if not isinstance(value, dict | list | tuple):
        yield name, value
        return
    for key, item in value.items() if isinstance(value, dict) else enumerate(value):
        yield from _flat(item, f"{name}/{key}" if name else str(key))
