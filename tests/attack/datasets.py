"""Dataset files and the progress of unfinished ones: bytes, tables, attributes and values."""

from __future__ import annotations

import random
import tempfile
from contextlib import suppress
from functools import cache
from pathlib import Path

import h5py
import numpy as np
import torch

from sciml_fm_core import DatasetFile, Examples, Task, generate
from sciml_fm_core.data.hdf5 import ATTRIBUTES
from sciml_fm_core.data.splits import CHUNK

from ._mutate import STRANGE, damaged, mutated_json, refused

NAME = "datasets"
TASK = Task.parse("SYS-1(1,5)")
COUNT = 6


class _Stopped(Exception):
    pass


@cache
def _content() -> tuple[bytes, Examples]:
    with tempfile.TemporaryDirectory() as folder:
        path = generate(TASK, Path(folder) / "own.h5", COUNT, resolution=8)
        with DatasetFile(path) as file:
            return path.read_bytes(), file.subset(COUNT)


def prepare() -> None:
    """Before memory is limited."""
    _content()


def _read(path: Path) -> Examples:
    with DatasetFile(path) as file:
        found = file.subset(min(file.size, COUNT))
        file.take(torch.tensor([file.size - 1, 0]))
        return found


def attack(seed: int, folder: Path) -> str | None:
    """Read a changed file, or go on with an unfinished one."""
    rng, path = random.Random(seed), folder / "own.h5"
    how = rng.randrange(4)
    if how == 3:
        return _unfinished(rng, path)
    content, expected = _content()
    path.write_bytes(damaged(content, rng) if how else content)
    if not how:
        _change(path, rng)
    found, wrong = refused(lambda: _read(path))
    if found is None:
        return wrong
    if not all(part.isfinite().all() for part in found):
        return "read with NaN or infinity"
    if how and not all(torch.equal(ours, theirs) for ours, theirs in zip(found, expected, strict=True)):
        return "damaged bytes are read as other examples"
    return None


def _change(path: Path, rng: random.Random) -> None:
    with h5py.File(path, "r+") as file:
        how = rng.randrange(5)
        name = rng.choice(("fields", "tensor", "dial"))
        shape = file[name].shape
        if how == 0:
            value = rng.choice((np.nan, np.inf, -np.inf, 1e30, 0))
            place = tuple(rng.randrange(size) for size in shape)
            file[name][place] = value
        elif how == 1:
            del file[name]
        elif how == 2:
            del file[name]
            wanted = rng.choice((shape[1:], (*shape, 2), (0, *shape[1:]), tuple(7 for _ in shape), (1,), shape))
            file.create_dataset(name, wanted, rng.choice(("f8", "f2", "i4", "S3", "c8", "?", ">f4", "u8")))
        elif how == 3:
            del file[name]
            huge = tuple(size * rng.choice((1, 1, 10**3, 10**6)) for size in shape)
            file.create_dataset(name, huge, "f4", chunks=tuple(min(size, 8) for size in huge))
        else:
            key, value = rng.choice(sorted(ATTRIBUTES)), rng.choice(STRANGE)()
            try:
                file.attrs[key] = value
            except (TypeError, ValueError, OSError, OverflowError, RuntimeError):
                file.attrs.pop(key, None)  # what HDF5 does not hold at all


def _unfinished(rng: random.Random, path: Path) -> str | None:
    def stop(done: int, _: int) -> None:
        raise _Stopped

    with suppress(_Stopped):
        generate(TASK, path, 2 * CHUNK, resolution=8, callback=stop)
    partial, progress = path.with_name("own.h5.partial"), path.with_name("own.h5.progress")
    if rng.random() < 0.7:
        progress.write_text(mutated_json(progress.read_text(), rng), encoding="utf-8", errors="replace")
    else:
        partial.write_bytes(damaged(partial.read_bytes(), rng))
    made, wrong = refused(lambda: generate(TASK, path, 2 * CHUNK, resolution=8))
    if made is None:
        return wrong
    found, wrong = refused(lambda: _read(made))
    if found is None:
        return wrong
    expected = _content()[1]
    return None if torch.equal(found.solution, expected.solution) else "goes on to other examples"
