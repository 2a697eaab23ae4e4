"""Sentences, and formulas and headings as HTML: MathML needs no library and no network, and follows the theme."""

from __future__ import annotations

import math
from collections.abc import Sequence
from decimal import Decimal
from html import escape

from latex2mathml.converter import convert

from sciml_fm_core.evaluation.rollouts import CORRELATED
from sciml_fm_core.experiments.training_range.method import LEVEL, ErrorForecast
from sciml_fm_core.physics.system import System

from .colours import COLOURS

RECIPE_NAMES = {
    "dimensionless": "conditioned on the coefficients",
    "paper": "the paper's recipe",
    "symbol": "conditioned on the symbol",
    "symbol-composed": "conditioned on the symbol, of compositions too",
}
STAGE = {
    "bounds": "The error must be between these two numbers. They follow from the residual of the equation and from a "
    "few numbers of the operator. Nothing is solved for them, and the exact solution is not looked at.",
    "spread": "How far four smaller networks with the same training lie apart: their standard deviation at each point, "
    "in the colours of the errors. It needs no exact solution. The number is that of the whole field.",
    "error_scale": "Share of the root mean square of u: white at 0.1 %, full colour at 100 %.",
    "atlas": "Mean error by dial (across) and second parameter (up): white is 0.1 %, full colour 100 %. "
    "Click to go there.",
    "spectrum": "What each network makes of single waves, by their number |k|: its learned symbol and the exact one.",
    "examples": "Error on held-out examples of the window, by the number of examples given. Click a point to show it.",
    "nothing_tuned": "Nothing was fine-tuned from this operator yet. Open “Train live” to do so.",
    "paint": "press to paint",
    "paint_keys": "Enter places a Gaussian, Ctrl and Z take it back",
    "random": "The random field again",
    "curves": "average error",
    "curves_in_time": "one-step error",
    "drag_out": "drag me out of the blue band",
    "drag_in": "drag me into the blue band",
    "next_choose": "This is the network as it was pre-trained. Fine-tuned on a few examples of another range of the "
    "dial, it gets better there. How many examples?",
    "next_train": "This is the network as it was pre-trained; nothing was fine-tuned from it for this equation yet. "
    "Show it a few examples, and watch it learn.",
    "next_model": "Choose another model above to see what it predicts.",
    "next_none": "No trained operator knows this equation. Turn the dial and paint: the solver answers.",
    "choose_first": "Choose first: a prediction that fails teaches more than none.",
}
"""Explanations that the stage shows, by their names there."""
SENTENCE = {
    "error": "The zero-shot error is {error} here{average}.",
    "average": ", and {mean} on average over eight random sources",
    "largest": "The solution reaches {largest}; training had none above {limit}.",
    "drawn": "You drew this source.",
}
"""Parts of `sentence` that follow the dial, for whoever fills them in."""


FILM = {
    "solver": "One step takes the solver {duration}",
    "none": "{solver}.",
    "follows": "{name}: the error is {first} after 1 step{tenth}. The correlation with the solver is below "
    "{correlated} {said}. {solver} and the network {duration}.",
    "tenth": " and {error} after 10",
    "lost": "from step {step}",
    "never": "at no step",
    "yet": "at no step so far",
    "blows": "{when} (no number from step {step} on)",
    "ended": "{said} The solver ends: {reason}.",
}
"""Parts of `film_sentence`."""
SCORE = "You answered {right} of {count} questions right at the first try."


def percent(value: float | None, digits: int = 3) -> str:
    """Write a relative size as percent, with so many significant digits.

    >>> percent(0.0526), percent(0.0526, 2), percent(12.3), percent(6e-7), percent(None)
    ('5.26 %', '5.3 %', '1,230 %', '0.00006 %', '–')
    """
    if value is None or not math.isfinite(value):
        return "–"
    value *= 100
    if value >= 100 - 10 ** (2 - digits) / 2:  # else it would be written as a power of ten
        return f"{value:,.0f} %"
    return f"{value:.{digits}g} %" if value >= 0.01 else f"{Decimal(f'{value:.1g}'):f} %"


def equation(system: System, coefficients: dict[str, float]) -> str:
    """Write the equation of a system with the coefficients now set, as MathML; each of its parts has a line."""
    parts = system.equation_with(coefficients).split(r",\quad")
    lines = "".join(f"<div style='padding:2px 0'>{convert(part, display='block')}</div>" for part in parts)
    return f"<div class='equation' data-test='equation' style='overflow-x:auto'>{lines}</div>"


def plain_equation(system: System) -> str:
    """Write the equation of a system with the names of its coefficients, as MathML."""
    return convert(system.equation.replace(r"\quad", r"\;"), display="inline")


def sentence(
    system: System, dial: float, trained: tuple[float, float] | None, error: float | None, mean: float | None,
    largest: float, gaussians: Sequence[tuple[float, float, float]] | None, forecast: ErrorForecast | None = None,
    bounds: tuple[float, float] = (0.0, math.inf),
) -> str:  # fmt: skip
    """Say where the example on the page stands to what the operator was trained on, and how wrong it is.

    Args:
        system, dial: the equation and the value of its dial.
        trained: range of the dial in pre-training, None where the equation is no part of it.
        error: relative error of the example, zero-shot, None where there is no operator.
        mean: the same over several random sources, None where it is not known yet.
        largest: largest |u| of the exact solution.
        gaussians: of a source drawn by hand, None for a random one.
        forecast: what was expected of it before it was solved, None where that is not known yet.
        bounds: between which that error must be.
    """
    stands = "" if error is None and trained is None else _distance(system, dial, trained)
    parts = [f"{system.dialled.title} is {dial:g}{stands}."]
    if error is not None:
        average = "" if mean is None else SENTENCE["average"].format(mean=percent(mean, 2))
        parts.append(SENTENCE["error"].format(error=percent(error, 2), average=average))
    limit = system.max_solution
    if limit is not None and largest > limit and trained is not None:
        parts.append(SENTENCE["largest"].format(largest=f"{largest:.3g}", limit=f"{limit:g}"))
    if gaussians is not None:
        parts.append(SENTENCE["drawn"])
    if forecast is not None:
        parts.append(expectation(system, forecast, bounds))
    return " ".join(filter(None, parts))


def film_sentence(
    errors: dict[str, list[float]], lost: dict[str, int], seconds: dict[str, float], names: dict[str, str], over: bool
) -> str:
    """Say how far roll-outs follow a trajectory, and how long a step takes.

    Args:
        errors: relative errors after 1, 2, ... steps, infinite where there is no number, by key of the prediction.
        lost: the step at which a prediction lost the trajectory, by key; none where it did not yet.
        seconds: that a step takes, of the ``solver`` and by key.
        names: of the predictions, by key, the one that the sentence begins with first.
        over: whether there is no further step.

    >>> said = film_sentence({"a": [0.02] * 40}, {"a": 33}, {"solver": 0.2, "a": 0.008}, {"a": "Zero-shot"}, True)
    >>> said[:59], said[-22:]
    ('Zero-shot: the error is 2 % after 1 step and 2 % after 10. ', ' and the network 8 ms.')
    >>> film_sentence({}, {}, {"solver": 0.2}, {}, True)
    'One step takes the solver 200 ms.'
    """
    solver = FILM["solver"].format(duration=_duration(seconds["solver"]))
    if not errors:
        return FILM["none"].format(solver=solver)
    first, *others = errors
    tenth = FILM["tenth"].format(error=percent(errors[first][9], 2)) if len(errors[first]) >= 10 else ""

    def ends(key: str) -> str:
        when = FILM["lost"].format(step=lost[key]) if key in lost else FILM["never" if over else "yet"]
        finite = [math.isfinite(error) for error in errors[key]]
        return when if all(finite) else FILM["blows"].format(when=when, step=1 + finite.index(False))

    return FILM["follows"].format(
        name=names[first], first=percent(errors[first][0], 2), tenth=tenth, correlated=f"{CORRELATED:g}",
        said=", ".join([ends(first), *(f"{names[key].lower()} {ends(key)}" for key in others)]),
        solver=solver, duration=_duration(seconds[first]),
    )  # fmt: skip


def _duration(seconds: float) -> str:
    return f"{1000 * seconds:.2g} ms" if seconds < 0.01 else f"{1000 * seconds:.0f} ms"


def shift_of(system: System, value: float, trained: tuple[float, float] | None) -> str:
    """Name of the shift at one value of the dial: ``inside`` the training range, ``mild``, ``medium`` or ``large``.

    ``between`` is inside the range too, but between the whole numbers that an integer dial was trained on; ``unseen``
    is where nothing was trained on the equation. Outside the range, the distance to its nearer end is compared, on a
    logarithmic scale, with the upper ends of the paper's downstream ranges for SYS-1: 1.5 times the end of the range is
    mild, 2 times medium, beyond it large.
    """
    if trained is None:
        return "unseen"
    low, high = trained
    if low <= value <= high:
        between = system.dialled.whole and not float(value).is_integer()
        return "between" if between else "inside"
    factor = value / high if value > high else low / value
    return "mild" if factor <= 1.5 else "medium" if factor <= 2 else "large"


def _distance(system: System, dial: float, trained: tuple[float, float] | None) -> str:
    """Say where a value of the dial stands to the training range, to follow that value."""
    if trained is None:
        return ". The operator was never trained on this equation"
    low, high = trained
    shift, ends = shift_of(system, dial, trained), f"the training range ({low:g} to {high:g})"
    if shift == "between":
        return f", between the whole numbers of {ends}"
    if dial > high > 0 and shift != "inside":
        times = "twice" if dial == 2 * high else f"{dial / high:.3g} times"
        return f", {times} the upper end of {ends}"
    if 0 < dial < low and shift != "inside":
        part = "half" if low == 2 * dial else f"{dial / low:.2g} of"
        return f", {part} the lower end of {ends}"
    return f", {'inside' if shift == 'inside' else 'outside'} {ends}"


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


def expectation(system: System, forecast: ErrorForecast, bounds: tuple[float, float] = (0.0, math.inf)) -> str:
    """Say what the distance to the training let expect of an example, and why; empty where it cannot tell.

    The bounds, which hold always, are told in its place where they contradict it.
    """
    level, (lower, upper) = percent(LEVEL), bounds
    if math.isnan(forecast.probability):
        return ""
    if lower > LEVEL and not forecast.likely:
        return f"The bound, known before solving, says that the error is above {level}."
    if upper <= LEVEL and forecast.likely:
        return f"The bound, known before solving, says that the error is at most {level}."
    if not forecast.likely:
        return f"Before solving, we expected an error below {level}."
    shares = {name: float(part / forecast.error) for name, part in forecast.parts.items()}
    named = sorted((name for name in shares if shares[name] > LEAST_SHARE), key=lambda name: -shares[name])
    why = ", ".join(REASONS[name].format(dial=system.dial_name) for name in named)
    return f"Before solving, we expected an error above {level}" + (f": {why}." if why else ".")


def title(text: str, note: str = "", color: str = "currentColor") -> str:
    """Heading of a field."""
    note = f"<span style='opacity:.75;font-weight:400;font-size:12px'> {note}</span>" if note else ""
    return (
        f"<div style='font-size:14px;font-weight:600;white-space:nowrap;overflow:hidden;text-overflow:ellipsis;"
        f"border-top:3px solid {color};padding-top:3px'>{text}{note}</div>"
    )


def message(text: str, kind: str = "warning", name: str = "notice") -> str:
    """A short notice, with its name for tests."""
    return (
        f"<div role='alert' data-test='{name}' "
        f"style='border-left:4px solid {COLOURS[kind]};padding:4px 10px;font-size:13px'>"
        f"{escape(text.encode(errors='backslashreplace').decode())}</div>"  # names of files may be no text
    )


def page_link(name: str, address: str) -> str:
    """A link to another page of the dashboard, for the header."""
    return (
        f"<a href='{escape(address)}' data-test='link-{name}' style='color:#fff;font-size:15px;font-weight:500;"
        "text-decoration:none;border:1px solid currentColor;border-radius:4px;padding:4px 12px'>"
        f"{name.capitalize()}</a>"
    )
