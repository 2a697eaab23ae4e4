"""Sentences, and formulas and headings as HTML: MathML needs no library and no network, and follows the theme."""

from __future__ import annotations

import math
from collections.abc import Sequence
from html import escape

from latex2mathml.converter import convert

from sciml_fm_core.experiments.training_range.method import LEVEL, ErrorForecast
from sciml_fm_core.physics.system import System
from sciml_fm_core.physics.tasks import shift_of

RECIPE_NAMES = {
    "dimensionless": "told the coefficients",
    "paper": "the paper's recipe",
    "symbol": "told the symbol",
    "symbol-composed": "told the symbol, of compositions too",
}


def percent(value: float | None) -> str:
    """Relative size as percent, three significant digits."""
    if value is None or not math.isfinite(value):
        return "–"
    value *= 100
    return f"{value:,.0f} %" if value >= 100 else f"{value:.3g} %" if value >= 0.01 else f"{value:.0e} %"


def equation(system: System, coefficients: dict[str, float]) -> str:
    """The equation of a system with the coefficients now dialled, as MathML; each of its parts has a line."""
    parts = system.equation_with(coefficients).split(r",\quad")
    lines = "".join(f"<div style='padding:2px 0'>{convert(part, display='block')}</div>" for part in parts)
    return f"<div class='equation' data-test='equation' style='overflow-x:auto'>{lines}</div>"


def plain_equation(system: System) -> str:
    """The equation of a system with the names of its coefficients, as MathML."""
    return convert(system.equation.replace(r"\quad", r"\;"), display="inline")


def sentence(
    system: System, dial: float, trained: tuple[float, float] | None, error: float | None, mean: float | None,
    largest: float, gaussians: Sequence[tuple[float, float, float]] | None, flag: ErrorForecast | None = None,
    bounds: tuple[float, float] = (0.0, math.inf),
) -> str:  # fmt: skip
    """Where the example on the page stands to what the operator was trained on, and how wrong it is.

    Args:
        system, dial: the equation and the value of its dial.
        trained: range of the dial in pre-training, None where the equation is no part of it.
        error: relative error of the example, zero-shot, None where there is no operator.
        mean: the same over several random sources, None where it is not known yet.
        largest: largest |u| of the exact solution.
        gaussians: of a source drawn by hand, None for a random one.
        flag: what was expected of it before it was solved, None where that is not known yet.
        bounds: between which that error must be.
    """
    name = f"{system.dialled.title} = {dial:g}"
    if trained is None:
        where = "never trained on this equation"
    else:
        low, high = trained
        ends = f"{low:g} to {high:g}"
        factor = dial / high if dial > high else low / dial if 0 < dial < low else 1.0
        shift = shift_of(system, dial, trained)
        where = {
            "inside": f"inside the range of pre-training, {ends}",
            "between": f"between the whole numbers trained on, {ends}",
        }.get(shift, f"{factor:.3g} times beyond the range of pre-training, {ends}")
    parts = [f"{name}, {where}."]
    if error is not None:
        several = "" if mean is None else f", the mean of eight random sources {percent(mean)}"
        parts.append(f"Zero-shot, this example is off by {percent(error)}{several}.")
    limit = system.max_solution
    if limit is not None and largest > limit and trained is not None:
        parts.append(f"Its solution reaches {largest:.3g}: examples above {limit:g} were dropped from training.")
    if gaussians is not None:
        parts.append("Its source has Gaussians at places of your own.")
    if flag is not None:
        parts.append(expectation(system, flag, bounds))
    return " ".join(filter(None, parts))


REASONS = {
    "above": "the {dial} is above the range",
    "below": "the {dial} is below the range",
    "equation": "the equation is unlike those of training",
    "weak": "the equation answers the source more weakly, as it does short waves",
    "strong": "the equation answers the source more strongly",
    "peaks": "the source has fewer, taller peaks",
    "negative": "the source has deeper negative parts",
}
"""What each distance to the training says, see `TrainingRange.distance`."""
LEAST_SHARE = 0.2
"""Least share of the expected error for which a reason has to account to be named."""


def expectation(system: System, flag: ErrorForecast, bounds: tuple[float, float] = (0.0, math.inf)) -> str:
    """What the distance to the training let expect of an example, and why, as a sentence; empty where it cannot tell.

    The bounds, which hold always, are told in its place where they contradict it.
    """
    level, (lower, upper) = percent(LEVEL), bounds
    if math.isnan(flag.probability):
        return ""
    if lower > LEVEL and not flag.likely:
        return f"Without solving, its bound says that it is off by more than {level}."
    if upper <= LEVEL and flag.likely:
        return f"Without solving, its bound says that it is off by at most {level}."
    if not flag.likely:
        return f"From its distance to the training, it was not likely off by more than {level}."
    shares = {name: float(part / flag.error) for name, part in flag.parts.items()}
    named = sorted((name for name in shares if shares[name] > LEAST_SHARE), key=lambda name: -shares[name])
    why = ", ".join(REASONS[name].format(dial=system.dial_name) for name in named)
    return f"From its distance to the training, it was likely off by more than {level}" + (f": {why}." if why else ".")


def title(text: str, note: str = "", color: str = "currentColor") -> str:
    """Heading of a field."""
    note = f"<span style='opacity:.75;font-weight:400;font-size:12px'> {note}</span>" if note else ""
    return (
        f"<div style='font-size:14px;font-weight:600;white-space:nowrap;overflow:hidden;text-overflow:ellipsis;"
        f"border-top:3px solid {color};padding-top:3px'>{text}{note}</div>"
    )


def message(text: str, kind: str = "warning", name: str = "notice") -> str:
    """A short notice, with its name for tests."""
    color = {"warning": "#c04a00", "error": "#b3261e", "info": "#0072B2"}[kind]
    return (
        f"<div role='alert' data-test='{name}' style='border-left:4px solid {color};padding:4px 10px;font-size:13px'>"
        f"{escape(text.encode(errors='backslashreplace').decode())}</div>"  # names of files may be no text
    )


def page_link(name: str, address: str) -> str:
    """A link to another page of the dashboard, for the header."""
    return (
        f"<a href='{escape(address)}' data-test='link-{name}' style='color:#fff;font-size:15px;font-weight:500;"
        "text-decoration:none;border:1px solid currentColor;border-radius:4px;padding:4px 12px'>"
        f"{name.capitalize()}</a>"
    )
