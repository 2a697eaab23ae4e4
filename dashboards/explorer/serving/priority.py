"""Work that nobody waits for gives the cores to work that somebody waits for."""

from __future__ import annotations

import os
import sys
import threading


def lower_priority() -> None:
    """Let the calling thread, and those that it starts, work only where nobody else wants the core.

    A training beside it then costs a visitor's dial nothing, as measured. Where threads have no priority of their own,
    which is anywhere but on Linux, nothing is changed.
    """
    if sys.platform == "linux":
        os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), 19)
