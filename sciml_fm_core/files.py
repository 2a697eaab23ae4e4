"""Writing files so that nothing is lost: complete or absent, never half written."""

from __future__ import annotations

import glob
import hashlib
import json
import os
import platform
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from safetensors.torch import save_file
from torch import Tensor


@contextmanager
def atomic_path(path: str | Path) -> Iterator[Path]:
    """Yield a temporary path beside `path`, moved over it when the block ends well and removed when it does not.

    Raises:
        ValueError: if the folder does not exist.
    """
    path = Path(path)
    if not path.parent.is_dir():
        raise ValueError(f"{path}: the folder {path.parent} does not exist; make it first")
    here = platform.node()
    partial = path.with_name(f".{path.name}.{here}.{os.getpid()}.partial")
    try:
        yield partial
        os.replace(partial, path)
        _remove_what_killed_writers_left(path, here)
    finally:
        partial.unlink(missing_ok=True)


def _remove_what_killed_writers_left(path: Path, here: str) -> None:
    """Temporary files of this path by processes of this machine that are no more; those of other machines may live."""
    for left in path.parent.glob(f".{glob.escape(f'{path.name}.{here}')}.*.partial"):
        process = left.name.split(".")[-2]
        if process.isdigit() and not _runs(int(process)):
            left.unlink(missing_ok=True)


def _runs(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except OSError:  # it belongs to somebody else
        return True
    return True


def file_digest(path: Path) -> str:
    """What a file holds, as 16 hexadecimal digits."""
    return hashlib.blake2b(path.read_bytes(), digest_size=8).hexdigest()


def write_json(path: str | Path, values: dict) -> None:
    """Write plain values as JSON, atomically."""
    with atomic_path(path) as partial:
        partial.write_text(json.dumps(values, indent=1) + "\n", encoding="utf-8")


def save_tensors(tensors: dict[str, Tensor], path: Path, header: dict) -> None:
    """Write tensors as safetensors with a JSON header in the metadata."""
    contiguous = {key: tensor.contiguous() for key, tensor in tensors.items()}
    save_file(contiguous, path, metadata={"header": json.dumps(header)})
    # safetensors makes files that only their owner may read; a bundle is shared like any other file.
    umask = os.umask(0)
    os.umask(umask)
    path.chmod(0o666 & ~umask)
