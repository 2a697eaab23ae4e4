"""The page's state as the query of an address: short, readable, and checked when it is read."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any
from urllib.parse import urlencode

from sciml_fm_core.physics.system import SYSTEMS

from .jobs import AdaptSettings
from .limits import LIMITS, TooMuch
from .state import ExploreState


def query_of(state: ExploreState) -> str:
    """The query that opens the page as it is now.

    Examples: ``system=poisson&model=sys-1&dial=10&seed=3&sparsity=0.6&result=32:8:12`` (fine-tuned on 32 examples of 8
    to 12); a drawn source is ``draw=x,y,amplitude;...``, other parameters are ``p.name=value``, angles in degrees.
    """
    values: dict[str, Any] = {"system": state.system_name, "model": state.bundle_name, "dial": f"{state.dial:g}"}
    for parameter in state.system.parameters:
        value = state.parameters[parameter.name]
        if not math.isclose(value, parameter.default):
            values[f"p.{parameter.name}"] = f"{math.degrees(value) if parameter.angle else value:.4g}"
    if state.drawn:
        values["draw"] = ";".join(",".join(f"{number:.3g}" for number in row) for row in state.gaussians)
    else:
        values |= {"seed": state.seed, "sparsity": f"{state.sparsity:g}"}
    settings = state.current.settings if state.current else None
    values["result"] = _result_name(settings) if settings else "none"
    return urlencode({key: value for key, value in values.items() if value is not None}, safe=":,;")


def restore(state: ExploreState, query: Mapping[str, str]) -> list[str]:
    """Set a state to a query, and say which of its values make no sense; those are left as they were."""
    problems: list[str] = []

    def attempt(name: str, act: Callable[[str], None]) -> None:
        text = query.get(name)
        if text is not None:
            try:
                act(text)
            except (ValueError, KeyError) as error:
                problems.append(f"{name}={text[:60]} in the address is left out: {error}")

    attempt("system", lambda text: state.choose_system(_one_of(text, SYSTEMS)))
    attempt("model", lambda text: state.choose_bundle(_one_of(text, [b.name for b in state.bundles_of(state.system)])))
    attempt("dial", lambda text: state.set_dial(_number(text, state.scale.low, state.scale.high)))
    for parameter in state.system.parameters:
        unit = math.pi / 180 if parameter.angle else 1.0
        most = max(parameter.high, parameter.period) if parameter.angle else parameter.high

        def turn(text: str, parameter=parameter, unit=unit, most=most) -> None:
            state.set_parameter(parameter.name, unit * _number(text, parameter.low / unit, most / unit + 1e-6))

        attempt(f"p.{parameter.name}", turn)
    attempt("sparsity", lambda text: state.param.update(sparsity=_number(text, 0, 1)))
    attempt("seed", lambda text: state.draw_random(int(_number(text, 0, 2**31 - 1))))
    attempt("draw", lambda text: state.place_gaussians(gaussians([row.split(",") for row in text.split(";") if row])))
    attempt("result", lambda text: state.param.update(shown=_result(state, text)))
    return problems


def gaussians(rows: list) -> list[tuple[float, float, float]]:
    """Rows (x, y, amplitude) of a drawn source, on the torus and of at most unit size.

    Raises:
        ValueError: if a row is not three finite numbers, or there are too many.
    """
    if len(rows) > LIMITS.gaussians:
        raise TooMuch(f"Expected at most {LIMITS.gaussians} Gaussians on this server, got {len(rows)}: remove some.")
    placed = [tuple(map(float, row)) for row in rows]
    if not all(len(row) == 3 and all(map(math.isfinite, row)) for row in placed):
        raise ValueError("expected x, y and an amplitude for each Gaussian, all finite")
    return [(x % 1, y % 1, max(-1.0, min(1.0, amplitude))) for x, y, amplitude in placed]


def _one_of(text: str, known) -> str:
    if text not in known:
        raise ValueError(f"expected one of {', '.join(known)}")
    return text


def _number(text: str, low: float, high: float) -> float:
    value = float(text)
    if not low <= value <= high:  # not a number is in no range
        raise ValueError(f"expected a number from {low:g} to {high:g}")
    return value


def _result_name(settings: AdaptSettings) -> str:
    examples = "physics" if settings.physics else settings.examples
    return f"{examples}:{settings.task.low:g}:{settings.task.high:g}"


def _result(state: ExploreState, text: str) -> tuple | None:
    if text == "none":
        return None
    for key, adapted in state.adapted.items():
        if _result_name(adapted.settings) == text:
            return key
    raise ValueError("no such fine-tuning is here; train it live")
