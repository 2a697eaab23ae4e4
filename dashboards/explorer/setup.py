"""What the controls of the stage offer, and what is chosen: all that the browser is told before a frame."""

from __future__ import annotations

import math
from typing import Any

from sciml_fm_core.physics.evolution import Evolution
from sciml_fm_core.physics.parameter import Parameter
from sciml_fm_core.physics.spectral_system import is_spectral
from sciml_fm_core.physics.system import SYSTEMS, System

from . import text
from .compute import drawn_field, further_fields, painted_fields
from .films import STEPS
from .predictions import PREDICTIONS
from .settings import Adapted
from .state import ExploreState

DASHES = {"solid": "none", "dashed": "8 4", "dotted": "2 4", "dotdash": "2 4 8 4"}
"""Lines of a cut, as SVG names them."""


def setup_message(state: ExploreState) -> dict[str, Any]:
    """List what the controls offer, and what is chosen; it does not change as the dial moves."""
    dial, system = state.scale, state.system
    results = [{"value": "none", "label": "0", "title": "the operator as it was pre-trained"}]
    results += [
        {
            "value": str(number),
            "label": _button(adapted, len({one.settings.task for one in state.adapted.values()}) > 1),
            "title": f"{adapted.settings.given} of {adapted.settings.task.label}, {adapted.settings.training}",
        }
        for number, adapted in enumerate(state.adapted.values())
    ]
    models = [{"value": one.name, "label": one.label} for one in state.bundles_of(system)]
    if state.bundle is None:
        models.insert(
            0, {"value": "", "label": f"{state.gone['model']}: not here" if "model" in state.gone else "none"}
        )
    keys = list(state.adapted)
    current = state.current
    return {
        "systems": [
            {"value": name, "label": one.title or name, "title": one.label, "in_time": isinstance(one, Evolution)}
            for name, one in SYSTEMS.items()
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
        "resonances": system.resonances if is_spectral(system) else (),
        "training": state.window if state.training else None,
        "window": (current.settings.task.low, current.settings.task.high) if current else None,
        "names": names_of(system),
        "steps": STEPS if isinstance(system, Evolution) else 0,
        "further": [{"key": name, "name": name[:1].upper() + name[1:]} for name in further_fields(system)],
        "predictors": [
            {"key": one.key, "name": one.name, "color": one.color, "dash": DASHES[one.dash],
             "adapted": one.adapted, "about": one.about}
            for one in PREDICTIONS.values()
        ],
        "results": results,
        "shown": str(keys.index(state.shown)) if state.shown in keys else "" if "result" in state.gone else "none",
        "drawn": state.drawn,
        "gaussians": state.gaussians,
        "coefficients": {name: state.painted.get(name) for name in painted_fields(system)},
    }  # fmt: skip


def names_of(system: System) -> tuple[str, str]:
    """Headings of the field that is given and of the one that is sought; each ends with its symbol."""
    if not isinstance(system, Evolution):
        return "Source f", "Exact u"
    symbol = system.inputs[drawn_field(system)] if len(system.inputs) > 1 else "u"
    return f"Initial {symbol}(0)", f"Solver {symbol}"


def _button(adapted: Adapted, with_window: bool) -> str:
    """On how many examples; the window is said where there are several, and stands on the dial."""
    settings = adapted.settings
    name = settings.short if with_window else "no labels" if settings.physics else f"{settings.examples}"
    return name + ("" if adapted.names else f", {settings.training}")


def ticks(dial: Parameter) -> list[float]:
    """Choose about ten round values along a dial."""
    if dial.logarithmic:
        powers = range(math.floor(math.log10(dial.low)), math.ceil(math.log10(dial.high)) + 1)
        found = [float(f"{digit}e{power}") for power in powers for digit in (1, 2, 5)]
    else:
        rough = (dial.high - dial.low) / 10
        step = min((digit * 10.0**power for power in range(-3, 4) for digit in (1, 2, 5)), key=lambda s: abs(s - rough))
        first = math.ceil(dial.low / step)
        found = [round((first + i) * step, 10) for i in range(20)]
    return sorted({dial.low, *(value for value in found if dial.low <= value <= dial.high)})
