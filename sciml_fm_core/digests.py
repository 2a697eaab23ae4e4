"""Digests of what is written, so that a flipped bit in a file is an error and not another result.

A header in JSON carries, as ``digest``, a BLAKE2b hash of all its other values and of the tensors beside it. Files of
earlier versions may have none.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from . import schema
from .files import atomic_path, save_tensors, user_path

DIGEST = "digest"


def with_digest(header: dict, tensors: Mapping[str, Tensor] | None = None) -> dict:
    """The header and its digest.

    >>> with_digest({"step": 3})["digest"]
    'dfa87db76da023259ae4b903a2c63a2b'
    """
    values = {key: value for key, value in schema.plain(header).items() if key != DIGEST}
    return values | {DIGEST: digest_of(values, tensors or {})}


def check_digest(header: dict, tensors: Mapping[str, Tensor], where: str) -> None:
    """Raise ValueError when a header has a digest, and it is not that of its values and tensors."""
    if DIGEST not in header:
        return
    plain = {key: value for key, value in header.items() if key != DIGEST}
    if header[DIGEST] != digest_of(plain, tensors):
        raise ValueError(f"{where}: damaged: its digest is not that of its contents; take a copy or write it again")


def digest_of(plain: dict, tensors: Mapping[str, Tensor]) -> str:
    """Hash of plain values and of tensors with their names, shapes and types; 32 hexadecimal digits."""
    found = hashlib.blake2b(json.dumps(plain, sort_keys=True).encode(), digest_size=16)
    for key in sorted(tensors):
        tensor = tensors[key].detach().cpu().contiguous()
        found.update(f"{key} {tensor.dtype} {tuple(tensor.shape)}".encode())
        found.update(tensor.reshape(-1).view(torch.uint8).numpy().data)
    return found.hexdigest()


# Files of tensors with a header ---------------------------------------------------------------------------------------


def read_stored_header(path: Path, what: str, kind: str, writer: str) -> dict:
    """The header of a safetensors file, checked to be of a format.

    Args:
        path: the file.
        what: the first word of errors, such as ``operator``.
        kind: the format expected.
        writer: what writes such files.

    Raises:
        ValueError: if the file is not readable or another one.
    """
    where = f"{what} {path}"
    header = _raw_header(path, where)
    if header.get("format") != kind:
        raise ValueError(f"{where}: a safetensors file, but not one written by {writer}")
    return header


@contextmanager
def _opened(path: Path, where: str) -> Iterator[Any]:
    """A safetensors file, opened; what goes wrong while it is read is a ValueError."""
    try:
        with safe_open(path, framework="pt") as file:
            yield file
    except (SafetensorError, OSError, RuntimeError, TypeError, ValueError, MemoryError) as error:
        reason = " ".join(str(error).split())
        raise ValueError(f"{where}: not a readable safetensors file, or a truncated one ({reason})") from error


def _raw_header(path: Path, where: str) -> dict:
    with _opened(path, where) as file:
        text = (file.metadata() or {}).get("header", "{}")
    header = schema.parse(text, where)
    if not isinstance(header, dict):
        return {}
    if DIGEST in header and json.dumps(header) != text:  # such as 1E-5 for 1e-5
        raise ValueError(f"{where}: damaged: its header is not as it was written; take a copy or write it again")
    return header


def write_tensors(
    path: str | Path,
    what: str,
    header: dict,
    tensors: Mapping[str, Tensor],
    restore: Callable[[dict, dict, str], object],
) -> Path:
    """Write tensors and a header with its digest, atomically, where they can be read back.

    Args:
        path: the file.
        what: the first word of errors, such as ``operator``.
        header, tensors: what is written.
        restore: a function of header, tensors and the beginning of errors that makes what is stored; where it raises an
            error, nothing is written.

    Raises:
        ValueError: if the folder does not exist, or what is written could not be read back.
    """
    where = f"{what} {path}"
    try:
        header = with_digest(header, tensors)
        restore(header, dict(tensors), where)
    except ValueError as error:
        reason = str(error).removeprefix(f"{where}: ")
        raise ValueError(f"{where}: {reason}; it could not be loaded, and nothing was written") from error
    with atomic_path(path) as partial:
        save_tensors(tensors, partial, header)
    return user_path(path)


def read_tensors(path: Path, what: str, header: dict) -> dict[str, Tensor]:
    """The tensors beside a header, checked against its digest.

    Raises:
        ValueError: if the file is not readable or damaged.
    """
    where = f"{what} {path}"
    with _opened(path, where) as file:
        tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
    check_digest(header, tensors, where)
    return tensors
