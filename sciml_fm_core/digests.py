"""Digests of what is written, so that a flipped bit in a file is an error and no other result.

A header in JSON carries, as ``digest``, a BLAKE2b hash of all its other values and of the tensors beside it. Files of
earlier versions have none. Those that ship are known by the digests of whole files in ``weights/digests.json``, which
``make digests`` writes.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from functools import cache
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from . import schema
from .files import file_digest

DIGEST = "digest"
WEIGHTS = Path(__file__).parent / "weights"
SHIPPED = WEIGHTS / "digests.json"


def with_digest(header: dict, tensors: Mapping[str, Tensor] | None = None) -> dict:
    """The header and its digest.

    >>> with_digest({"step": 3})["digest"]
    'dfa87db76da023259ae4b903a2c63a2b'
    """
    plain = {key: value for key, value in json.loads(json.dumps(header)).items() if key != DIGEST}
    return header | {DIGEST: _digest(plain, tensors or {})}


def check_digest(header: dict, tensors: Mapping[str, Tensor], where: str) -> None:
    """Raise ValueError when a header has a digest, and it is not that of its values and tensors."""
    if DIGEST not in header:
        return
    plain = {key: value for key, value in header.items() if key != DIGEST}
    if header[DIGEST] != _digest(plain, tensors):
        raise ValueError(f"{where}: damaged: its digest is not that of its contents; take a copy or write it again")


def _digest(plain: dict, tensors: Mapping[str, Tensor]) -> str:
    found = hashlib.blake2b(json.dumps(plain, sort_keys=True).encode(), digest_size=16)
    for key in sorted(tensors):
        tensor = tensors[key].detach().cpu().contiguous()
        found.update(f"{key} {tensor.dtype} {tuple(tensor.shape)}".encode())
        found.update(tensor.reshape(-1).view(torch.uint8).numpy().data)
    return found.hexdigest()


# Files of tensors with a header ---------------------------------------------------------------------------------------


def stored_format(path: Path) -> str | None:
    """What the header of a safetensors file says that it is; None where there is none that can be read."""
    try:
        found = _raw_header(path, str(path)).get("format")
    except ValueError:
        return None
    return found if isinstance(found, str) else None


def read_stored_header(path: Path, what: str, kind: str, writer: str) -> dict:
    """The header of a safetensors file, checked to be of a format.

    Args:
        path: the file.
        what: such as ``operator``, with which errors begin.
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


def _raw_header(path: Path, where: str) -> dict:
    try:
        with safe_open(path, framework="pt") as file:
            text = (file.metadata() or {}).get("header", "{}")
    except (SafetensorError, OSError, ValueError, MemoryError) as error:
        reason = " ".join(str(error).split())
        raise ValueError(f"{where}: not a readable safetensors file, or a truncated one ({reason})") from error
    header = schema.parse(text, where)
    return header if isinstance(header, dict) else {}


def read_tensors(path: Path, what: str, header: dict) -> dict[str, Tensor]:
    """The tensors beside a header, checked against its digest and, where the file ships, against that of the file.

    Raises:
        ValueError: if the file is not readable or damaged.
    """
    where = f"{what} {path}"
    known = _shipped().get(_shipped_name(path))
    try:
        if known is not None and file_digest(path) != known:
            raise ValueError(f"{where}: damaged: not the file that ships; install sciml-fm again")
        with safe_open(path, framework="pt") as file:
            tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
    except (SafetensorError, OSError, RuntimeError, TypeError) as error:
        reason = " ".join(str(error).split())
        raise ValueError(f"{where}: not a readable safetensors file, or a truncated one ({reason})") from error
    check_digest(header, tensors, where)
    return tensors


# What ships -----------------------------------------------------------------------------------------------------------


@cache
def _shipped() -> dict[str, str]:
    return schema.parse(schema.read_text(SHIPPED), str(SHIPPED)) if SHIPPED.is_file() else {}


def _shipped_name(path: Path) -> str:
    path = path.absolute()
    return path.relative_to(WEIGHTS).as_posix() if path.is_relative_to(WEIGHTS) else ""


def shipped_digests() -> dict[str, str]:
    """Digests of the weight files in the package, by their names in its folder."""
    return {_shipped_name(path): file_digest(path) for path in sorted(WEIGHTS.rglob("*.safetensors"))}
