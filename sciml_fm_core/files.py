"""Writing files so that nothing is lost: complete or absent, never half written."""

from __future__ import annotations

import errno
import glob
import hashlib
import json
import os
import platform
import re
import secrets
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from safetensors.torch import save
from torch import Tensor


def user_path(path: str | os.PathLike[str]) -> Path:
    """A path as people write it: ``~`` at its beginning is the home folder, and ``~name`` that of somebody else.

    >>> user_path("~/own.h5") == Path.home() / "own.h5"
    True

    Raises:
        ValueError: if there is no such home folder.
    """
    found = os.path.expanduser(path)
    if re.match(r"~[^/]*/|~$", found):
        raise ValueError(f"{path}: there is no such home folder; write the whole path")
    # What was written ./~ is meant so: not to be expanded when it is asked again.
    return Path(found).absolute() if str(Path(found)).startswith("~") else Path(found)


def find_file(name_or_path: str | os.PathLike[str], shipped: Mapping[str, Path], what: str) -> Path:
    """The file of a name that ships, or of a path; a `Path` that exists is always the file itself.

    Raises:
        ValueError: if something ships by that name, and a file here has it too.
    """
    path, known = user_path(name_or_path), shipped.get(str(name_or_path))
    if known is None or not path.is_file():
        return known or path
    if isinstance(name_or_path, Path):
        return path
    raise ValueError(
        f"{what} {name_or_path}: one that ships and a file in this folder; write ./{name_or_path} for the file, or "
        f"{known} for what ships"
    )


def results_folder(path: str | os.PathLike[str], folder: str | Path = "") -> Path:
    """Path where a notebook writes, of which a relative one begins beside the folder of this project's notebooks.

    JupyterLab starts a notebook in its own folder, papermill where it is called; the dashboard looks for ``runs`` where
    it was started, beside the notebooks.
    """
    path, folder = user_path(path), Path(folder)
    among_notebooks = (folder / "00_data.ipynb").is_file() and not path.is_absolute() and ".." not in path.parts
    return folder / ".." / path if among_notebooks else folder / path


@contextmanager
def atomic_path(path: str | Path) -> Iterator[Path]:
    """Yield a temporary path beside `path`, moved over it when the block ends well and removed when it does not.

    Raises:
        ValueError: if the folder does not exist.
    """
    path, here = user_path(path), platform.node()
    if not path.parent.is_dir():
        raise ValueError(f"{path}: the folder {path.parent} does not exist; make it first")
    partial = _partial(path, here)
    try:
        yield partial
        os.replace(partial, path)
        _remove_what_killed_writers_left(path, here)
    finally:
        partial.unlink(missing_ok=True)


def _partial(path: Path, host: str) -> Path:
    """Temporary name that no other write has: two threads may write one file, and the last one stays."""
    return path.with_name(f".{path.name}.{host}.{os.getpid()}.{secrets.token_hex(4)}.partial")


def check_output(path: str | Path, *, new: bool = True) -> None:
    """Check before the work that a file can be written, by making one beside it.

    Args:
        path: file to write later.
        new: whether it must not exist yet.

    Raises:
        ValueError: if it exists, its folder does not, or the file system does not let it be written.
    """
    path = user_path(path)
    try:
        if new and path.exists():
            raise ValueError(f"{path}: exists already and is left as it is; remove it or choose another name")
        if path.is_dir():
            raise ValueError(f"{path}: a folder; expected the name of a file")
        if not path.parent.is_dir():
            raise ValueError(f"{path}: the folder {path.parent} does not exist; make it first")
        partial = _partial(path, platform.node())
        partial.touch()
        partial.unlink()
    except OSError as error:
        if is_full(error):
            raise
        raise ValueError(f"{path}: cannot be written ({error.strerror}); choose another name or folder") from None


def check_folder(folder: str | Path) -> None:
    """Check before the work that a folder, which need not exist yet, can be written to.

    Raises:
        ValueError: if not.
    """
    folder = user_path(folder).absolute()
    there = next(each for each in (folder, *folder.parents) if os.path.lexists(each))
    if not there.is_dir():
        raise ValueError(f"{folder}: expected a folder, and {there} is a file; choose another folder")
    check_output(there / "sciml-fm", new=False)


def is_full(error: OSError) -> bool:
    """Whether a file could not grow: the disk is full, or a quota or a limit is reached."""
    return error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


def reserve(path: Path, size: int) -> None:
    """Reserve the bytes of a file on the disk before they are computed; what it holds stays.

    Raises:
        OSError: if there is no room for them.
    """
    if sys.platform != "linux":
        return
    with open(path, "ab") as file:
        try:
            os.posix_fallocate(file.fileno(), 0, min(size, sys.maxsize))
        except OSError as error:
            if is_full(error):
                raise OSError(error.errno, f"{error.strerror}, {size:,} bytes are needed", str(path)) from None


def _remove_what_killed_writers_left(path: Path, here: str) -> None:
    """Remove temporary files of a path whose processes on this machine have ended; others may still write."""
    begins = f".{path.name}.{here}."
    for left in path.parent.glob(f"{glob.escape(begins)}*.partial"):
        process = left.name.removeprefix(begins).split(".")[0]
        if process.isdigit() and not _runs(int(process)):
            left.unlink(missing_ok=True)


def _runs(process: int) -> bool:
    try:
        os.kill(process, 0)
    except OSError as error:
        return error.errno != errno.ESRCH  # else it belongs to somebody else
    return True


def file_digest(path: Path) -> str:
    """Hash of the contents of a file, 16 hexadecimal digits."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, lambda: hashlib.blake2b(digest_size=8)).hexdigest()


def write_json(path: str | Path, values: dict) -> None:
    """Write plain values as JSON, atomically."""
    with atomic_path(path) as partial:
        partial.write_text(json.dumps(values, indent=1) + "\n", encoding="utf-8")


def save_tensors(tensors: Mapping[str, Tensor], path: Path, header: dict) -> None:
    """Write tensors as safetensors with a JSON header in the metadata.

    Raises:
        OSError: naming the file, if there is no room for it.
    """
    contiguous = {key: tensor.contiguous() for key, tensor in tensors.items()}
    content = save(contiguous, metadata={"header": json.dumps(header)})
    try:
        path.write_bytes(content)
    except OSError as error:  # of a write it does not name the file
        raise OSError(error.errno, error.strerror, str(path)) from error
