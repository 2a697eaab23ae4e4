"""The page's state as the query of an address: short, readable, and checked when it is read."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any
from urllib.parse import urlencode

from sciml_fm_core.physics.parameter import Parameter
from sciml_fm_core.physics.system import SYSTEMS
from sciml_fm_core.physics.tasks import Task

from .compute import Rows, painted_fields
from .settings import Adapted, AdaptSettings
from .state import GRID, ExploreState


def query_of(state: ExploreState) -> str:
    """The query that opens the page as it is now.

    Examples: ``system=poisson&model=sys-1&dial=10&seed=3&sparsity=0.6&result=32:8:12`` (fine-tuned on 32 examples of 8
    to 12; what was trained live has its steps and learning rate too); a drawn source is ``draw=x,y,amplitude;...``,
    a painted coefficient ``paint.name=x,y,amplitude;...``,
    other parameters are ``p.name=value``, angles in degrees. What is `ExploreState.gone` stays in it.
    """
    if "system" in state.gone:
        return _encoded(state.gone)
    values: dict[str, Any] = {"system": state.system_name, "model": state.bundle_name, "dial": f"{state.dial:g}"}
    for parameter in state.system.parameters:
        value = state.parameters[parameter.name]
        if not math.isclose(value, parameter.default):
            values[f"p.{parameter.name}"] = f"{math.degrees(value) if parameter.angle else value:.4g}"
    if state.drawn or "draw" in state.gone:
        values["draw"] = _as_text(state.gaussians) or "none"  # a value that is empty would be left out of a query
    else:
        values |= {"seed": state.seed, "sparsity": f"{state.sparsity:g}"}
    values |= {f"paint.{name}": _as_text(state.painted.get(name, [])) or None for name in painted_fields(state.system)}
    values["result"] = result_name(state.current) if state.current else "none"
    return _encoded(values | state.gone)


def _as_text(rows: Rows) -> str:
    return ";".join(",".join(f"{number:.3g}" for number in row) for row in rows)


def _encoded(values: Mapping[str, Any]) -> str:
    return urlencode({key: value for key, value in values.items() if value is not None}, safe=":,;")


class Gone(ValueError):
    """Something that an address names is not here, as it was where the address comes from."""


def restore(state: ExploreState, query: Mapping[str, str]) -> list[str]:
    """Set a state to a query, and say which of its values make no sense; those are left as they were.

    In place of what is gone nothing else is shown: it is `ExploreState.gone` until something is chosen.
    """
    problems: list[str] = []
    gone: dict[str, str] = {}
    own = {name: text for name, text in query.items() if _is_own(name)}
    if own:
        before = {} if "system" in state.gone else state.gone
        state.gone = {name: text for name, text in before.items() if name not in own}

    def attempt(name: str, act: Callable[[str], None]) -> None:
        text = query.get(name)
        if text is not None:
            try:
                act(text)
            except (ValueError, KeyError) as error:
                problems.append(f"{name}={text[:60]} in the address is left out: {error}")
                if isinstance(error, Gone) or name in ("draw", "result"):
                    gone[name] = text

    attempt("system", lambda text: state.choose_system(_system(text)))
    if gone:
        state.gone = own
        return [f"{problems[0]} This is {state.system.title or state.system.name}, and the rest is left out too."]
    attempt("model", lambda text: _choose_model(state, text))
    attempt("dial", lambda text: state.set_dial(_number(text, state.scale.low, state.scale.high)))
    turned = {f"p.{parameter.name}": parameter for parameter in state.system.parameters}
    for name in (name for name in query if name.startswith("p.")):
        attempt(name, partial(_turn, state, turned.get(name)))
    attempt("sparsity", lambda text: state.param.update(sparsity=_number(text, 0, 1)))
    attempt("seed", lambda text: state.draw_random(int(_number(text, 0, 2**31 - 1))))
    attempt("draw", lambda text: state.place_gaussians(_rows(text)))
    for name in (name for name in query if name.startswith("paint.")):
        attempt(name, lambda text, name=name: state.paint(name.removeprefix("paint."), _rows(text)))
    attempt("result", lambda text: _show_result(state, text))
    for name in ELSEWHERE.keys() & query.keys():
        problems.append(f"{name}={query[name][:60]} in the address is left out: {ELSEWHERE[name]}")
    state.gone = state.gone | gone
    return problems


def choices_of(state: ExploreState) -> tuple:
    """What is chosen rather than moved: where it differs, a browser's Back leads from one address to the other."""
    chosen = state.system_name, state.bundle_name, state.shown
    return *chosen, state.drawn, state.seed, bool(state.painted), bool(state.gone)


def revisit(state: ExploreState, query: Mapping[str, str]) -> None:
    """Set a state to an address that it had before; parameters that this does not say stood at their defaults."""
    restore(state, {name: text for name, text in query.items() if _is_own(name)})
    for parameter in state.system.parameters:
        if f"p.{parameter.name}" not in query:
            state.set_parameter(parameter.name, parameter.default)
    for name in painted_fields(state.system):
        if f"paint.{name}" not in query:
            state.paint(name, [])


ELSEWHERE = {
    "ensemble": "an ensemble belongs to its model",
    **dict.fromkeys(("results", "figure", "task", "run"), "it belongs to the studies page"),
}
"""What an address of this page does not say, by its name."""


def _is_own(name: str) -> bool:
    names = ("system", "model", "dial", "seed", "sparsity", "draw", "result")
    return name in names or name.startswith(("p.", "paint."))


def _system(text: str) -> str:
    if text not in SYSTEMS:
        known = ", ".join(SYSTEMS)
        raise Gone(f"there is no such equation here; expected one of {known}, or the plug-in that has it.")
    return text


def _choose_model(state: ExploreState, text: str) -> None:
    known = [bundle.name for bundle in state.bundles_of(state.system)]
    if text in known:
        state.choose_bundle(text)
        return
    state.param.update(bundle_name=None, shown=None, live={})
    raise Gone(f"there is no such operator here; choose one of {', '.join(known) or 'those that you train'}")


def _turn(state: ExploreState, parameter: Parameter | None, text: str) -> None:
    if parameter is None:
        raise ValueError(f"{state.system.title or state.system.name} has no such parameter")
    unit = math.pi / 180 if parameter.angle else 1.0
    most = max(parameter.high, parameter.period) if parameter.angle else parameter.high
    state.set_parameter(parameter.name, unit * _number(text, parameter.low / unit, most / unit + 1e-6))


def _rows(text: str) -> list[list[str]]:
    return [] if text == "none" else [row.split(",") for row in text.split(";") if row]


def _number(text: str, low: float, high: float) -> float:
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not low <= value <= high:  # not a number is in no range
        raise ValueError(f"expected a number from {low:.10g} to {high:.10g}")
    return value


def result_name(adapted: Adapted) -> str:
    """Name of a result in a link: of those that ship there is one for each number of examples and window."""
    settings = adapted.settings
    name = f"{'physics' if settings.physics else settings.examples}:{settings.task.low:g}:{settings.task.high:g}"
    rate = GRID if settings.learning_rate is None else f"{settings.learning_rate:g}"
    return name if adapted.names else f"{name}:{settings.steps}:{rate}"


def _show_result(state: ExploreState, text: str) -> None:
    known = {result_name(adapted): key for key, adapted in state.adapted.items()} | {"none": None}
    if text not in known:
        text = next((name for name in known if name.startswith(f"{text}:")), text)  # as links were written before
    state.shown = known.get(text)
    if text in known:
        return
    if state.bundle is None:
        raise Gone("it is one of that operator")
    settings = settings_of(state, text)
    raise Gone(
        f"the operator fine-tuned on {settings.given} of {settings.task.label} is gone, as what a page trains is kept "
        "only there, and only until it is closed; it can be trained again"
    )


def settings_of(state: ExploreState, text: str) -> AdaptSettings:
    """The settings of a fine-tuning that an address names, with those of the page in place of what it does not say.

    Raises:
        ValueError: if it is no name of a fine-tuning of this equation.
    """
    examples, *ends = text.split(":")
    try:
        low, high, *how = ends
        count, physics = (0, True) if examples == "physics" else (int(examples), False)
        steps, rate = how or state.training_with(physics).values()
        return AdaptSettings(
            task=Task(state.system, float(low), float(high)),
            examples=count,
            physics=physics,
            steps=int(steps),
            learning_rate=None if rate == GRID else float(rate),
        )
    except ValueError as error:
        raise ValueError(f"expected none, or examples:low:high of a fine-tuning ({error})") from None
