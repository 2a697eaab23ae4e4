"""Locks on outputs: of several processes that are to write one file, one works, and the others know who.

The locks are the kernel's (flock, by the library filelock): that of a process which died, however it died, is free at
once. They are files beside the output, hidden and removed at the end; one that a killed process left blocks nobody.
"""

from __future__ import annotations

import json
import logging
import os
import platform
import shlex
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import datetime
from pathlib import Path

from filelock import FileLock, Timeout

from .files import user_path

POLL = 0.2
"""Seconds between two tries of a process that waits."""

_log = logging.getLogger(__name__)


class Held(ValueError):
    """Another process works on the same output.

    Attributes:
        holder: what that process wrote of itself: process, host, since, command; empty where this is not known.
        who: the same as a text.
    """

    def __init__(self, path: Path, holder: dict):
        who = "process {process} on {host} works on it since {since}".format_map(holder) if holder else "it is in use"
        self.holder, self.who = holder, f"{path}: {who}"
        super().__init__(f"{self.who}; wait for it (--wait), or choose another output")


@contextmanager
def lock_output(path: str | Path, *, wait: bool = False) -> Iterator[dict | None]:
    """Lock an output, which need not exist yet: one process at a time works on it.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder, lock_output(Path(folder, "own.h5")):
    ...     try:
    ...         with lock_output(Path(folder, "own.h5")):
    ...             pass
    ...     except Held as error:
    ...         error.holder["process"] == os.getpid()
    True

    Args:
        path: the output; its folder exists.
        wait: wait for another process, and say so once in the log, rather than to raise.

    Yields:
        What the process that was waited for wrote of itself, as `Held.holder`; None where there was no waiting.

    Raises:
        Held: if another process holds it.
    """
    path = user_path(path)
    file = path.with_name(f".{path.name}.lock")
    lock, before = FileLock(file), None
    while True:
        try:
            lock.acquire(blocking=False)
            break
        except Timeout:
            held = Held(path, _read(file))
        if not wait:
            raise held from None
        if before is None:
            _log.warning("waiting: %s", held.who)
        before = held.holder or before or {}
        time.sleep(POLL)
    try:
        with suppress(OSError):  # on a full disk the lock holds all the same
            since = datetime.now().astimezone().isoformat(timespec="seconds")
            about = {"process": os.getpid(), "host": platform.node(), "since": since, "command": command_line()}
            file.write_text(json.dumps(about), encoding="utf-8")
        yield before
    finally:
        file.unlink(missing_ok=True)  # before the release: who locks a removed file notices, and starts over
        lock.release()


def command_line() -> str:
    """Command of this process, without the options that do not change what it makes."""
    return "sciml-fm " + shlex.join(word for word in sys.argv[1:] if word not in ("--wait", "--verbose"))


def _read(file: Path) -> dict:
    """What the holder of a lock wrote of itself; empty where it has not written it yet."""
    try:
        holder = json.loads(file.read_text(encoding="utf-8"))
        return holder if {"process", "host", "since", "command"} <= set(holder) else {}
    except (OSError, ValueError, TypeError):
        return {}


hold = lock_output  # its former name
