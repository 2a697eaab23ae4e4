"""What all sessions of a process share: its threads, and the operators that are loaded."""

from __future__ import annotations

import sys
from concurrent.futures import ThreadPoolExecutor

import panel as pn

from sciml_fm_core.cpu import use_threads
from sciml_fm_core.models.ensemble import Ensemble, load_ensemble, shipped_ensembles
from sciml_fm_core.models.operator import Operator, load_operator

from .bundles import Bundle
from .serving import lower_priority

sys.setswitchinterval(5e-4)
"""A network is a thousand short operations, and after each its thread waits for the interpreter: with Python's own five
milliseconds the event loop, busy with one message, would hold up the frame of another."""
use_threads()
"""The server needs the core that is left. PyTorch keeps the number for each thread, and one that begins takes the last
that was set anywhere, so this holds for every frame and training of the page."""

FRAMES = ThreadPoolExecutor(1, thread_name_prefix="frames")
"""For the fields of all sessions, in the order in which they ask."""
SPREADS, SWEEPS, INSIGHTS = (
    ThreadPoolExecutor(1, thread_name_prefix=name, initializer=lower_priority)
    for name in ("spreads", "sweeps", "insights")
)
"""For ensembles, error curves and tabs: work for which no frame waits."""


def shared_operator(bundle: Bundle) -> Operator:
    """Load the weights of a bundle, once for all sessions; they are never changed."""
    return pn.state.as_cached(f"operator {bundle.version}", load_operator, name_or_path=str(bundle.path))


def shared_ensemble(name: str) -> Ensemble:
    """Load a shipped ensemble, once for all sessions; it is never changed."""
    return pn.state.as_cached(f"ensemble {name}", load_ensemble, name_or_path=shipped_ensembles()[name])
