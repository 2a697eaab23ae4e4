"""Generate dataset files, resumably.

Each split has its own random stream, drawn in chunks of `CHUNK` examples: a split's size changes no other split, and a
longer file starts with the shorter one.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import torch

from sciml_fm_core import schema
from sciml_fm_core._version import __version__
from sciml_fm_core.digests import check_digest, with_digest
from sciml_fm_core.files import check_output, reserve, user_path, write_json
from sciml_fm_core.locks import lock_output
from sciml_fm_core.messages import reason
from sciml_fm_core.physics.sampling import check_resolution, draw_accepted
from sciml_fm_core.physics.spectral import Resolution, grid_shape, resolution_of
from sciml_fm_core.physics.tasks import Task
from sciml_fm_core.schema import takes_numpy

from .hdf5 import ATTRIBUTES, FORMAT, FORMAT_VERSION, DatasetFile, plain_attribute
from .splits import CHUNK, check_split, stream

LIBRARY = ("v110", "v110")
"""Files that HDF5 reads since 1.10, in which its metadata carry checksums."""
SUPERBLOCK = 48
"""Bytes at the beginning of such a file: while it is open for writing they say so, and of a killed process for ever."""
FILE_BYTES, EXAMPLE_BYTES = 2**17, 128
"""More than what HDF5 adds to the numbers of a file, and of each example."""


@dataclass(frozen=True)
class GenerationProgress:
    """How far an interrupted `generate` came, and the `SUPERBLOCK` of its closed file in hexadecimal digits."""

    settings: dict
    done: int
    draws: int
    superblock: str

    def __post_init__(self):
        if not 0 <= self.done <= self.draws:
            raise ValueError(f"expected 0 <= done <= draws, got {self.done} and {self.draws}")
        if len(bytes.fromhex(self.superblock)) != SUPERBLOCK:
            raise ValueError(f"expected {SUPERBLOCK} bytes of a superblock")


@takes_numpy
def generate(
    task: Task,
    path: str | Path,
    count: int,
    *,
    split: str = "train",
    seed: int = 0,
    resolution: Resolution = 128,
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
        resolution: points in each direction, even; of a system without a symbol also (ny, nx), of any size.
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
    check_resolution(resolution, task.system)
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
        "acceptance_rate": 0.0,  # known at the end
        "split": split,
        "seed": seed,
        "resolution": list(resolution) if isinstance(resolution, tuple) else resolution,
        "units": ATTRIBUTES["units"],
    }
    with lock_output(path, wait=wait) as before:
        if before is None or not _is_as_asked(path, attributes, count):
            check_output(path)
            _write(task, path, count, attributes, device, callback)
    return path


def _is_as_asked(path: Path, attributes: Mapping, count: int) -> bool:
    if not path.exists():
        return False
    with DatasetFile(path) as dataset:
        return dataset.size == count and _same(dataset.attributes, attributes)


def _same(attributes: Mapping, others: Mapping) -> bool:
    return {**attributes, "acceptance_rate": 0} == {**others, "acceptance_rate": 0}


def _write(task: Task, path: Path, count: int, attributes: dict, device, callback) -> None:
    partial, progress = path.with_name(path.name + ".partial"), path.with_name(path.name + ".progress")
    known: dict[str, Any] = {"settings": {**attributes, "count": count}, "done": 0, "draws": 0}
    if partial.exists() and progress.exists():
        known = _resume(partial, progress, known["settings"])
    else:
        known["superblock"] = _begin(partial, count, attributes, len(task.system.inputs) + len(task.system.outputs))
    grid = grid_shape(attributes["resolution"])
    p, q = len(task.system.inputs), len(task.system.outputs)
    fields = np.empty((CHUNK, p + q, *grid), "<f4")
    with _open_partial(partial, progress, attributes) as file:
        for start in range(known["done"], count, CHUNK):
            generator = stream(attributes["seed"], task.label, attributes["split"], start // CHUNK)
            examples, drawn = draw_accepted(task, CHUNK, resolution_of(grid), generator, device=device)
            stop = min(start + CHUNK, count)
            kept = examples.take(slice(0, stop - start)).to("cpu")
            fields[: kept.size, :p] = kept.source.numpy().reshape(kept.size, p, *grid)
            fields[: kept.size, p:] = kept.solution.numpy().reshape(kept.size, q, *grid)
            file["fields"][start:stop] = fields[: kept.size]
            file["tensor"][start:stop] = kept.coefficients.numpy()
            file["dial"][start:stop] = kept.dial.numpy()
            file.flush()
            known |= {"done": stop, "draws": known["draws"] + drawn}
            write_json(progress, with_digest(known))
            if callback is not None:
                callback(stop, count)
        file.attrs.modify("acceptance_rate", CHUNK * -(-count // CHUNK) / known["draws"])
    os.replace(partial, path)
    progress.unlink()


def _begin(partial: Path, count: int, attributes: Mapping, number: int) -> str:
    """Make a file with room for all examples, so that its bytes do not depend on where its generation is interrupted.

    Returns:
        Its superblock.

    Raises:
        OSError: if there is no room.
    """
    (ny, nx), columns = grid_shape(attributes["resolution"]), len(attributes["coefficient_names"])
    partial.unlink(missing_ok=True)
    try:
        # HDF5 does not survive a full disk: it never meets one.
        reserve(partial, FILE_BYTES + count * (4 * (number * ny * nx + columns + 1) + EXAMPLE_BYTES))
        with h5py.File(partial, "w", libver=LIBRARY) as file:
            rows = min(count, CHUNK)  # a number by itself would cost more than what it says
            for name, shape, chunk in (
                ("fields", (number, ny, nx), 1),
                ("tensor", (columns,), rows),
                ("dial", (), rows),
            ):
                layout = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
                if 0 not in shape:  # else there are no coefficients
                    layout.set_chunk((chunk, *shape))
                    layout.set_fletcher32()
                layout.set_alloc_time(h5py.h5d.ALLOC_TIME_EARLY)
                layout.set_fill_time(h5py.h5d.FILL_TIME_NEVER)
                layout.set_obj_track_times(False)
                space = h5py.h5s.create_simple((count, *shape))
                h5py.h5d.create(file.id, name.encode(), h5py.h5t.IEEE_F32LE, space, layout)
            for key, value in attributes.items():
                # Not texts of any length: HDF5 has no checksum of those, and hangs where they are damaged.
                texts = isinstance(value, str) or (isinstance(value, list) and all(isinstance(v, str) for v in value))
                file.attrs[key] = np.char.encode(np.asarray(value, str), "utf-8") if texts else value
        reserve(partial, partial.stat().st_size)
    except OSError:
        partial.unlink(missing_ok=True)
        raise
    with open(partial, "rb") as closed:
        return closed.read(SUPERBLOCK).hex()


def _resume(partial: Path, progress: Path, settings: dict) -> dict[str, Any]:
    """What the progress of an interrupted generation says; its file can be opened again.

    Raises:
        ValueError: if it is damaged, or of other settings.
    """
    try:
        values = schema.parse(schema.read_text(progress), progress.name)
        known = vars(schema.read(GenerationProgress, values, progress.name))
        check_digest(values, {}, progress.name)
    except (OSError, ValueError) as error:
        raise ValueError(f"{progress}: not readable ({error}); remove it and {partial.name}") from error
    if known["settings"] != settings:
        raise ValueError(
            f"{partial}: written with other settings; finish it with those, or remove it and {progress.name}"
        )
    with open(partial, "r+b") as file:
        file.write(bytes.fromhex(known["superblock"]))
    reserve(partial, partial.stat().st_size)
    return known


def _open_partial(partial: Path, progress: Path, attributes: Mapping) -> h5py.File:
    try:
        file = h5py.File(partial, "r+")
        for name in ("fields", "tensor", "dial"):
            if file[name].chunks:
                file[name].id.get_num_chunks()  # reads all metadata before anything is written
        _ = file["tensor"][:], file["dial"][:]  # whose last chunks are read again to be written in part
        if not _same({key: plain_attribute(value) for key, value in file.attrs.items()}, attributes):
            file.close()
            raise ValueError("its attributes are not what was written")
        return file
    except Exception as error:  # what damaged metadata lead HDF5 to is not foreseen
        raise ValueError(f"{partial}: not readable ({reason(error)}); remove it and {progress.name}") from error
