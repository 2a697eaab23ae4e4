"""Terminal of the commands: progress, errors in one line, exit codes, Ctrl-C and SIGTERM, and closed streams."""

from __future__ import annotations

import errno
import io
import os
import signal
import sys
import threading
import traceback
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import typer
from rich.console import Console
from rich.progress import BarColumn, ProgressColumn, TextColumn
from rich.progress import Progress as Bar

from .files import is_full
from .messages import memory_problem, one_line
from .training.config import Progress

# Names of files and tasks are shown as they are: [red] and :smile: are no markup here.
console = Console(markup=False, emoji=False)

FOLDER_LOST = (errno.ENOENT, errno.ENOTDIR, errno.ESTALE, errno.EIO, errno.EROFS, errno.ENODEV)
"""What the system says when a folder or a disk is gone while a command works."""


def complain(text: str) -> None:
    """Print one red line on standard error."""
    errors = Console(stderr=True, markup=False, emoji=False)
    errors.print(one_line(text), style="red", soft_wrap=True, highlight=False)


# Progress -------------------------------------------------------------------------------------------------------------


def progress_bar(*columns: ProgressColumn, **options: Any) -> Bar:
    """A bar with its title before it and columns behind it."""
    return Bar(TextColumn("{task.description}", markup=False), BarColumn(), *columns, **options)


def bar_on_errors(*columns: ProgressColumn) -> Bar:
    """A bar on standard error, where that is a terminal."""
    errors = Console(stderr=True)
    return progress_bar(*columns, console=errors, disable=not errors.is_terminal)


@contextmanager
def training_bar(title: str) -> Iterator[Callable[[Progress], None]]:
    """The callback of a training that shows loss, validation error, rate and time left; plain lines in a log file."""
    with bar_on_errors(TextColumn("{task.percentage:3.0f}% {task.fields[numbers]}")) as bar:
        line = bar.add_task(title, total=1.0, numbers="")
        validation = ""

        def callback(progress: Progress) -> None:
            nonlocal validation
            if progress.validation_error is not None:
                validation = f", validation {progress.validation_error:.2%}"
            numbers = f"loss {progress.loss:.4g}{validation}, {progress.examples_per_second:.0f} examples/s"
            numbers += f", {progress.seconds_left:.0f} s left"
            bar.update(line, completed=progress.fraction, numbers=numbers)
            if bar.disable and progress.validation_error is not None:
                print(f"{title}: step {progress.step}, {numbers}", file=sys.stderr, flush=True)

        yield callback


@contextmanager
def measuring_bar(*, lines: bool = False) -> Iterator[Callable[[str, int, int], None]]:
    """The callback of `evaluate` that shows what is measured; in a log file, where asked for, a line for each task."""
    with bar_on_errors(TextColumn("{task.completed} of {task.total} test examples")) as bar:
        line, told = bar.add_task("measuring", total=None), ""

        def callback(label: str, done: int, count: int) -> None:
            nonlocal told
            bar.update(line, description=f"measuring {label}", completed=done, total=count)
            if bar.disable and lines and label != told:
                print(f"measuring {label}: {count} test examples", file=sys.stderr, flush=True)
            told = label

        yield callback


# How a program ends ---------------------------------------------------------------------------------------------------


class Terminated(KeyboardInterrupt):
    """SIGTERM, by which a cluster or a shell ends a command: what Ctrl-C keeps of its work is kept then too."""


def run_program(app: typer.Typer) -> None:
    """Run a program: what goes wrong is one line on standard error, and no traceback unless --verbose asks for it."""
    _open_streams()
    if any("error".startswith(option.partition(":")[0]) for option in sys.warnoptions):
        warnings.simplefilter("default")  # what PyTorch says of its own parts ends no training
    hears = threading.current_thread() is threading.main_thread() and signal.getsignal(signal.SIGTERM) is signal.SIG_DFL
    if hears:
        signal.signal(signal.SIGTERM, _terminate)
    try:
        code = app(standalone_mode=False)  # of a typer.Exit, which it returns
        sys.stdout.flush()
    except typer.Exit as stop:
        code = stop.exit_code
    except (KeyboardInterrupt, typer.Abort):
        complain("stopped")
        code = 130
    except Exception as error:
        if "--verbose" in sys.argv:
            traceback.print_exc()
        code = _show(error)
    finally:
        if hears:
            signal.signal(signal.SIGTERM, signal.SIG_DFL)
    if code:
        sys.exit(code)


@contextmanager
def stopping() -> Iterator[None]:
    """A command that may be interrupted: a line says what is kept of its work.

    Raises:
        typer.Exit: with the exit code of the signal.
    """
    try:
        yield
    except KeyboardInterrupt as stop:
        if os.environ.get("RANK", "0") == "0":  # of several that torchrun started, one speaks
            complain(str(stop) or "stopped: nothing was written")
        raise typer.Exit(143 if isinstance(stop, Terminated) else 130) from None


def _terminate(*_) -> None:
    raise Terminated


def _show(error: Exception) -> int:
    """Say what went wrong, and return the exit code."""
    show = getattr(error, "show", None)  # Click's own usage errors know how to show themselves
    if show is None:
        text, code = _explained(error)
        complain(f"error: {text}")
        return code
    error.__dict__["message"] = one_line(str(getattr(error, "message", "")))
    show()
    return getattr(error, "exit_code", 2)


def _explained(error: Exception) -> tuple[str, int]:
    """One line that says what went wrong and what to do, and the exit code."""
    if problem := memory_problem(error):
        return f"{problem}; ask for fewer points or examples, smaller batches or a smaller network", 1
    if isinstance(error, OSError) and is_full(error):
        where = f"{error.filename}: " if error.filename else ""
        return f"{where}{error.strerror}; make room, then give the same command again: what is finished is kept", 1
    if isinstance(error, OSError) and error.errno in FOLDER_LOST:
        return f"{error}; bring the folder back, then give the same command again: what is finished is kept", 1
    if isinstance(error, ValueError | FloatingPointError | OSError):
        return str(error), 2
    reason = " ".join(f"{type(error).__name__}: {error}".split())
    return f"unexpected {reason}; sciml-fm --verbose COMMAND shows where it comes from; please report it", 1


# Streams --------------------------------------------------------------------------------------------------------------


class _Stream(io.FileIO):
    """Standard output or error whose reader may leave: what is left to say is dropped, and the work goes on."""

    lost = False

    def write(self, data):
        try:
            return len(data) if self.lost else super().write(data)
        except OSError as error:
            self.lost = True
            if isinstance(error, BrokenPipeError):
                return len(data)
            raise


def _open_streams() -> None:
    """Let standard streams that are closed lead nowhere, and the others take characters that they cannot encode."""
    while (free := os.open(os.devnull, os.O_RDWR)) <= 2:  # else the next file that is opened would be written to
        pass
    os.close(free)
    for number, name in ((1, "stdout"), (2, "stderr")):
        stream = getattr(sys, name)
        if stream is None or isinstance(getattr(stream, "buffer", None), io.BufferedWriter | io.FileIO):
            raw = _Stream(number, "w", closefd=False) if stream else _Stream(os.devnull, "w")
            encoding = getattr(stream, "encoding", None)
            wrapper = io.TextIOWrapper(io.BufferedWriter(raw), encoding, "backslashreplace", line_buffering=True)
            setattr(sys, name, wrapper)
