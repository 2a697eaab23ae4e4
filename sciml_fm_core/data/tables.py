"""The tables of an HDF5 file, checked before HDF5 reads them: damaged ones can hang its library, or end the process.

HDF5 leaves a block at the beginning of a file to whoever writes it. There stands, as JSON, where the arrays of numbers
are and a digest of all other bytes, which are HDF5's own: some thousand, whatever the size of the arrays, which have
checksums of their own. Files of other programs and of earlier versions have no such block and are read unchecked; and
so are files to which HDF5 has added something since.

>>> import tempfile
>>> with tempfile.TemporaryDirectory() as folder:
...     path = Path(folder) / "own.h5"
...     with h5py.File(path, "w", userblock_size=BLOCK) as file:
...         file["numbers"] = [1.0, 2.0, 3.0]
...     seal(path)
...     check(path)
...     damaged = path.read_bytes().replace(b"numbers", b"nummers")
...     _ = path.write_bytes(damaged)
...     check(path)
Traceback (most recent call last):
ValueError: damaged: its tables are not what was written; take a copy or make it again
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path

import h5py

from sciml_fm_core import schema
from sciml_fm_core.digests import check_digest, with_digest

BLOCK = 512
"""Bytes of the block."""
SIGNATURE = b"\x89HDF\r\n\x1a\n"
BEGINS = b"sciml-fm tables "
END = slice(BLOCK + 40, BLOCK + 48)
"""Of the file: where HDF5 says that it ends."""
MOST_BYTES = 2**20
"""Of all tables together."""
WRITTEN = slice(20, 24)
"""Of the tables: not 0 while a program has the file open for writing, or if it was killed then."""
DAMAGED = "damaged: its tables are not what was written; take a copy or make it again"


@dataclass(frozen=True)
class Seal:
    """What the block says: bytes of the file, (first byte, bytes) of each array, and the digest of all others."""

    bytes: int
    arrays: list[list[int]]
    tables: str


def seal(path: Path) -> None:
    """Write the block of a file that was created with one of `BLOCK` bytes."""
    arrays, size = _arrays(path), path.stat().st_size
    values = {"bytes": size, "arrays": arrays, "tables": _digest(path, size, arrays)}
    with open(path, "r+b") as file:
        file.write((BEGINS + json.dumps(with_digest(values)).encode()).ljust(BLOCK))


def check(path: Path, *, unfinished: bool = False) -> None:
    """Compare the tables with the digest in the block; an unfinished file may say that it is being written.

    Raises:
        ValueError: if they are not what was written, or the file has neither the block nor HDF5's signature.
    """
    with open(path, "rb") as file:
        beginning = file.read(END.stop)
    block = beginning[:BLOCK]
    if not block.startswith(BEGINS):
        if b'"tables"' in block or not h5py.is_hdf5(path):
            raise ValueError("not a readable HDF5 file, or a truncated one")
        return
    try:
        values = schema.parse(block.removeprefix(BEGINS).decode(), "tables")
        known = schema.read(Seal, values, "tables")
        check_digest(values, {}, "tables")
    except ValueError:
        raise ValueError(DAMAGED) from None
    size = path.stat().st_size
    if size < known.bytes:
        raise ValueError(f"not a readable HDF5 file, or a truncated one: expected {known.bytes} bytes, got {size}")
    if size > known.bytes and int.from_bytes(beginning[END], "little") == size:
        return  # HDF5 itself has added to it
    if size > known.bytes or _digest(path, size, known.arrays, unfinished) != known.tables:
        raise ValueError(DAMAGED)


def _arrays(path: Path) -> list[list[int]]:
    """First byte and bytes of each array that is a run of plain numbers, in the order of the file."""
    with h5py.File(path) as file:
        found = [one.id for one in file.values() if isinstance(one, h5py.Dataset) and not one.external]
        return sorted(
            [one.get_offset(), size] for one in found if (size := one.get_storage_size()) and one.get_offset()
        )


def _digest(path: Path, size: int, arrays: list[list[int]], unfinished: bool = False) -> str:
    """Of all bytes of a file but the block and the arrays.

    Raises:
        ValueError: if they are more than `MOST_BYTES`, or the arrays are not in the file, one after the other.
    """
    found, place, parts = hashlib.blake2b(digest_size=16), BLOCK, []
    for first, length in [*arrays, [size, 0]]:
        parts.append((place, first - place))
        place = first + length
    if any(length < 0 for _, length in parts) or sum(length for _, length in parts) > MOST_BYTES:
        raise ValueError(DAMAGED)
    with open(path, "rb") as file:
        for first, length in parts:
            file.seek(first)
            table = bytearray(file.read(length))
            if unfinished and first == BLOCK:
                table[WRITTEN] = bytes(4)
            found.update(table)
    return found.hexdigest()
