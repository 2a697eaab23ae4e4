"""The process that executes one notebook, and the end of everything that a notebook starts.

It is started as a script, since importing the package would cost every run a second more. A line of JSON on its
standard input says what to execute; then the input stays open, and its end means that the parent is gone.

Processes of a run are known by a variable in their environment, which all that they start inherit: whatever groups or
sessions Jupyter or a notebook put them in, none outlives the run.
"""

from __future__ import annotations

import json
import os
import sys
import threading
import warnings
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

VARIABLE = "SCIML_FM_NOTEBOOK_RUN"
GRACE = 5.0
"""Seconds between asking processes to end and killing them."""
ATTEMPTS = 3
"""Starts of a kernel: notebooks that start together may be given the same port."""


def end_processes(run: str) -> None:
    """End every process of a run but the one that calls."""
    import psutil

    def found() -> Iterator[psutil.Process]:
        for process in psutil.process_iter():
            with suppress(psutil.Error):  # it ended meanwhile, or belongs to somebody else
                if process.pid != os.getpid() and process.environ().get(VARIABLE) == run:
                    yield process

    asked = list(found())
    for process in asked:
        with suppress(psutil.Error):
            process.terminate()
    psutil.wait_procs(asked, timeout=GRACE)
    for process in found():
        with suppress(psutil.Error):
            process.kill()


_ending = threading.Event()


def _end_with_parent(notebook: str) -> None:
    os.read(0, 1)  # returns when the parent is gone
    _ending.set()
    end_processes(os.environ[VARIABLE])
    Path(notebook).unlink(missing_ok=True)  # last: papermill writes it once more when it loses its kernel
    os._exit(1)


def main() -> None:
    """Execute one notebook in place; on failure the last line printed is the error."""
    with open(0, "rb", buffering=0, closefd=False) as pipe:
        request = json.loads(pipe.readline())
    threading.Thread(target=_end_with_parent, args=(request["notebook"],), daemon=True).start()
    warnings.simplefilter("ignore")  # of Jupyter's libraries about each other
    # jsonschema does without this grammar of addresses, which takes a second to build.
    sys.modules["rfc3987_syntax"] = None  # type: ignore[assignment]
    import papermill

    try:
        for attempt in range(1, ATTEMPTS + 1):
            try:
                papermill.execute_notebook(
                    request["notebook"], request["notebook"], request["parameters"], cwd=request["cwd"],
                    progress_bar=False, start_timeout=300,
                )  # fmt: skip
                break
            except RuntimeError as error:
                if "kernel_info" not in str(error) or attempt == ATTEMPTS:
                    raise
    except Exception as error:
        if _ending.is_set():
            threading.Event().wait()  # for the thread that tidies up and ends this process
        text = f"{type(error).__name__}: {error}"
        if isinstance(error, papermill.PapermillExecutionError):
            text = f"In [{error.exec_count}]: {error.ename}: {error.evalue}"
        print("\n" + " ".join(text.split()), flush=True)
        os._exit(1)


if __name__ == "__main__":
    main()
