"""From a point of the page to what the stage paints: `frame(query)` gives a header and arrays, whoever asks for them.

On a server the frames of all sessions are computed in one thread, see `begin`; another feed of a page needs `frame`
alone.
"""

from __future__ import annotations

import logging
import math
import sys
from concurrent.futures import Future
from typing import Any

import numpy as np
import panel as pn

from sciml_fm_core.cpu import use_threads
from sciml_fm_core.experiments.uncertainty.ensemble import Ensemble, load_ensemble, shipped_ensembles
from sciml_fm_core.models.operator import Operator, load_operator

from . import text
from .bundles import Bundle
from .compute import Frame, Query, Spread, compute, compute_together, expected, finite, spread_of
from .error_curves import mean_of
from .serving import BatchingQueue

sys.setswitchinterval(5e-4)
"""A network is a thousand short operations, and after each its thread waits for the interpreter: with Python's own five
milliseconds the event loop, busy with one message, would hold up the frame of another."""
use_threads()
"""The server needs the core that is left. PyTorch keeps the number for each thread, and one that begins takes the last
that was set anywhere, so this holds for every frame and training of the page."""
FRAMES = BatchingQueue("frames")
"""For the fields of all sessions, in the order in which they ask, several at once where several wait."""

Message = tuple[dict[str, Any], dict[str, np.ndarray]]
"""A header that JSON can hold, and fields by name; row i of a field is at y = i / n."""

log = logging.getLogger(__name__)


def frame(query: Query) -> Message:
    """Header and arrays of what the stage paints at a point of the page.

    Raises:
        ValueError: if the source is empty or the dial cannot be reached with it.
    """
    return frame_message(compute(query))


def frame_message(frame: Frame) -> Message:
    """Header and arrays of a frame: what each predictor is off by, its numbers, and what is said of them."""
    query = frame.query
    shown = {key: prediction for key, prediction in frame.predictions.items() if prediction is not None}
    arrays = {"source": frame.source, "solution": frame.solution} | {key: p.error for key, p in shown.items()}
    header = {
        "system": query.system.name,
        "dial": query.dial,
        "points": frame.source.shape[0],
        "sentence": sentence_of(frame),
        "given": query.given,
        "rms": float(np.sqrt(np.mean(frame.solution**2))) or 1.0,
        "residual": frame.solution_residual,
        "learning": list(query.learning),
        "numbers": {
            key: {
                "error": finite(p.relative_error),
                "residual": finite(p.residual),
                "bounds": [finite(bound) for bound in p.bounds],
            }
            for key, p in shown.items()
        },
    }
    return header, arrays


def sentence_of(frame: Frame) -> str:
    """Where a frame stands to what its operator was trained on; of nothing but the frame: the page may have moved."""
    query, zero_shot = frame.query, frame.predictions.get("zero_shot")
    return text.sentence(
        query.system,
        query.dial,
        query.trained,
        zero_shot and zero_shot.relative_error,
        mean_of(query),
        float(np.abs(frame.solution).max()),
        query.gaussians,
        expected(frame),
        zero_shot.bounds if zero_shot else (0.0, math.inf),
    )


def spread_message(spread: Spread, number: int) -> Message:
    """Header and array of the spread that belongs to a frame, by the frame's number."""
    header = {"frame": number, "points": spread.values.shape[0], "relative": finite(spread.relative)}
    return header, {"spread": spread.values}


# On a server ----------------------------------------------------------------------------------------------------------


def shared_operator(bundle: Bundle) -> Operator:
    """Weights of a bundle, loaded once for all sessions and never changed."""
    return pn.state.as_cached(f"operator {bundle.version}", load_operator, name_or_path=str(bundle.path))


def shared_ensemble(name: str) -> Ensemble:
    """A shipped ensemble, loaded once for all sessions and never changed."""
    return pn.state.as_cached(f"ensemble {name}", load_ensemble, name_or_path=shipped_ensembles()[name])


def begin(query: Query) -> Future[Frame | str]:
    """Begin to compute a frame, beside those of other sessions; it may be the reason why there is none."""
    return FRAMES.together(_attempt_frames, query)


def begin_spread(frame: Frame, ensemble: str) -> Future[Spread | None]:
    """Begin to compute the spread of an ensemble, when no frame waits; until it begins it can be cancelled."""
    return FRAMES.later(_attempt_spread, frame, ensemble)


def _attempt_frames(queries: list[Query]) -> list[Frame | str]:
    found: list[Frame | str] = []
    for outcome in compute_together(queries):
        if isinstance(outcome, Frame):
            found.append(outcome)
        elif isinstance(outcome, (ValueError, ArithmeticError)):
            found.append(str(outcome))
        else:
            log.error("computing the fields failed", exc_info=outcome)
            found.append("Computing the fields failed; the server's log says why.")
    return found


def _attempt_spread(frame: Frame, ensemble: str) -> Spread | None:
    try:
        return spread_of(frame, shared_ensemble(ensemble))
    except (ValueError, ArithmeticError):
        log.exception("the spread of an ensemble failed")
        return None
