"""The stage: one component of the browser that shows a frame, turns the dial and draws the source; see ``browser``.

A frame is one binary message: the length of a header, the header as JSON, and an int16 array for each field with its
middle and step. Predictions are sent as their signed errors, which keeps the small ones exact, and half the size.
"""

from __future__ import annotations

import json
import logging
import math
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import param
from bokeh.palettes import Viridis256
from holoviews.plotting.util import process_cmap
from panel.custom import JSComponent

from sciml_fm_core.physics.system import SYSTEMS

from . import text
from .predictions import PREDICTIONS
from .serving import LIMITS, Allowance, check_message
from .settings import Adapted
from .state import ExploreState

BROWSER = Path(__file__).parent / "browser"
SCRIPTS = ("parts", "dial", "fields", "drawing", "lesson", "insight", "keep", "stage")
LEVELS = 32766
DASHES = {"solid": "none", "dashed": "8 4", "dotted": "2 4", "dotdash": "2 4 8 4"}

log = logging.getLogger(__name__)


def pack(header: dict[str, Any], arrays: dict[str, np.ndarray], file: bytes = b"") -> bytes:
    """A message; each value of an array is off by at most a part in 65,000 of the array's range."""
    fields, numbers = [], []
    for name, values in arrays.items():
        low, high = float(values.min()), float(values.max())
        middle, step = (low + high) / 2, (high - low) / (2 * LEVELS) or 1.0
        fields.append({"name": name, "middle": middle, "step": step})
        numbers.append(np.round((values - middle) / step).astype("<i2").tobytes())
    told = json.dumps(header | {"fields": fields}, allow_nan=False).encode()
    return b"".join([struct.pack("<I", len(told)), told, *numbers, file])


def unpack(message: bytes) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    """Inverse of `pack`, as the browser does it."""
    (length,) = struct.unpack_from("<I", message)
    header = json.loads(message[4 : 4 + length])
    arrays, at = {}, 4 + length
    for field in header["fields"]:
        count = header["points"] ** 2
        values = np.frombuffer(message, "<i2", count, at).reshape(header["points"], header["points"])
        arrays[field["name"]] = field["middle"] + field["step"] * values
        at += 2 * count
    return header, arrays


class Stage(JSComponent):
    """The component. What the browser says is handed on if it is small and not too often: what it means is not checked.

    Args:
        on_message: called with each message of the browser, a dictionary.
    """

    _esm = "\n".join((BROWSER / f"{name}.js").read_text(encoding="utf-8") for name in SCRIPTS)

    style = param.String(default=(BROWSER / "stage.css").read_text(encoding="utf-8"))
    palettes = param.Dict(default={"solution": list(Viridis256), "error": list(process_cmap("RdBu_r", 256))})

    def __init__(self, on_message: Callable[[dict], None], **options):
        super().__init__(**options)
        self._on_message = on_message
        self._allowance = Allowance(LIMITS.messages_per_second)

    def _handle_msg(self, data: Any) -> None:
        if not self._allowance.take():
            return  # without a word: an answer to each message of a flood would be another one
        try:
            check_message(data)
        except ValueError as error:
            log.warning("the stage sent what is left alone: %s", error)
            return
        self._on_message(data)

    def tell(self, kind: str, arrays: dict[str, np.ndarray] | None = None, file: bytes = b"", **header: Any) -> None:
        """Send a message to every browser that shows the component."""
        self._send_msg(pack({"kind": kind} | header, arrays or {}, file))


def setup_message(state: ExploreState) -> dict[str, Any]:
    """What the controls offer, and what is chosen; nothing of it depends on where the dial stands."""
    dial, system = state.scale, state.system
    results = [{"value": "none", "label": "0", "title": "the operator as it was pre-trained"}]
    results += [
        {
            "value": str(number),
            "label": _button(adapted),
            "title": f"{adapted.settings.given}, {adapted.settings.training}",
        }
        for number, adapted in enumerate(state.adapted.values())
    ]
    models = [{"value": one.name, "label": one.label} for one in state.bundles_of(system)]
    if state.bundle is None:
        models.insert(0, {"value": "", "label": f"{state.gone.get('model', 'none')}: not here"})
    keys = list(state.adapted)
    current = state.current
    return {
        "systems": [
            {"value": name, "label": one.title or name, "title": one.label} for name, one in SYSTEMS.items()
        ],
        "system": state.system_name,
        "models": models,
        "model": state.bundle_name or "",
        "ensemble": state.ensemble is not None,
        "equation": text.plain_equation(system),
        "dial": {
            "low": dial.low, "high": dial.high, "logarithmic": dial.logarithmic, "whole": dial.whole,
            "values": dial.values(), "ticks": ticks(dial), "title": dial.title, "value": state.dial,
        },
        "trained": state.trained_range,
        "resonances": system.resonances,
        "training": state.window if state.training else None,
        "window": (current.settings.task.low, current.settings.task.high) if current else None,
        "predictors": [
            {"key": one.key, "name": one.name, "color": one.color, "dash": DASHES[one.dash], "empty": one.empty,
             "adapted": one.adapted}
            for one in PREDICTIONS.values()
        ],
        "results": results,
        "shown": str(keys.index(state.shown)) if state.shown in keys else "" if "result" in state.gone else "none",
        "drawn": state.drawn,
        "gaussians": state.gaussians,
    }  # fmt: skip


def _button(adapted: Adapted) -> str:
    return adapted.settings.short + ("" if adapted.names else f", {adapted.settings.training}")


def ticks(dial) -> list[float]:
    """Round values along a dial, about ten of them."""
    if dial.logarithmic:
        powers = range(math.floor(math.log10(dial.low)), math.ceil(math.log10(dial.high)) + 1)
        found = [float(f"{digit}e{power}") for power in powers for digit in (1, 2, 5)]
    else:
        rough = (dial.high - dial.low) / 10
        step = min((digit * 10.0**power for power in range(-3, 4) for digit in (1, 2, 5)), key=lambda s: abs(s - rough))
        first = math.ceil(dial.low / step)
        found = [round((first + i) * step, 10) for i in range(20)]
    return sorted({dial.low, *(value for value in found if dial.low <= value <= dial.high)})
