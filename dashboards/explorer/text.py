"""Text, formulas and small drawings as HTML: MathML and SVG need no library and no network, and follow the theme."""

from __future__ import annotations

import math
from collections.abc import Sequence
from html import escape

from latex2mathml.converter import convert

from sciml_fm_core.physics.system import PRETRAINING, System

RECIPE_NAMES = {
    "dimensionless": "told the coefficients",
    "paper": "the paper's recipe",
    "symbol": "told the symbol",
    "symbol-composed": "told the symbol, of compositions too",
}
SHIFTS = {
    "inside": ("Inside the pre-training range", "#00795c"),
    "between": ("Inside, between the whole numbers trained on", "#9a6a00"),
    "mild": ("Mild shift", "#9a6a00"),
    "medium": ("Medium shift", "#c04a00"),
    "large": ("Large shift", "#b3261e"),
    "unseen": ("Never trained on this equation", "#6a3d9a"),
}


def percent(value: float | None) -> str:
    """Relative size as percent, three significant digits."""
    if value is None or not math.isfinite(value):
        return "–"
    value *= 100
    return f"{value:,.0f} %" if value >= 100 else f"{value:.3g} %" if value >= 0.01 else f"{value:.0e} %"


def number(value: float) -> str:
    """Four significant digits with a true minus sign."""
    return f"{value:.4g}".replace("-", "−")


def equation(system: System, coefficients: dict[str, float]) -> str:
    """The equation of a system with the coefficients now dialled, as MathML; each of its parts has a line."""
    parts = system.equation_with(coefficients).split(r",\quad")
    lines = "".join(f"<div style='padding:2px 0'>{convert(part, display='block')}</div>" for part in parts)
    return f"<div class='equation' data-test='equation' style='overflow-x:auto'>{lines}</div>"


def badge(shift: str) -> str:
    """The name of the shift as a coloured label."""
    text, color = SHIFTS[shift]
    return (
        f"<span data-test='shift' role='status' style='background:{color};color:#fff;border-radius:12px;"
        f"padding:3px 12px;font-size:13px;font-weight:600;white-space:nowrap'>{text}</span>"
    )


def strip(system: System, value: float, trained: tuple[float, float] | None) -> str:
    """The range under a dial: band of the pre-training range, the named downstream ranges, the present value.

    There is no band where nothing was trained on the equation.
    """
    width, top = 300.0, 12.0

    def x(v: float) -> float:
        return width * system.dialled.position(v)

    shapes = [f"<line x1='0' x2='{width}' y1='{top}' y2='{top}' stroke='currentColor' stroke-opacity='0.35'/>"]
    if trained:
        left, right = map(x, trained)
        half = 36.0  # of the width of the text
        middle = min(max((left + right) / 2, half), width - half)
        shapes += [
            f"<rect x='{left:.1f}' y='0' width='{max(2.0, right - left):.1f}' height='{top}' rx='2' fill='#0072B2' "
            "fill-opacity='0.35'/>",
            f"<text x='{middle:.1f}' y='{top - 2.5}' font-size='9' text-anchor='middle' fill='currentColor'>"
            "pre-trained here</text>",
        ]
    shifts = {name: f"{ends[0]:g}–{ends[1]:g}" for name, ends in system.shifts.items() if name != PRETRAINING}
    for row, (name, ends) in enumerate(shifts.items()):
        left, right = map(x, system.shifts[name])
        y = top + 10 + 10 * row
        # The text stands beside its line, on the side where there is room.
        place, anchor = (right + 4, "start") if right < width - 70 else (left - 4, "end")
        shapes.append(
            f"<line x1='{left:.1f}' x2='{right:.1f}' y1='{y}' y2='{y}' stroke='currentColor' stroke-width='3' "
            f"stroke-opacity='0.45'/><text x='{place:.1f}' y='{y + 3}' font-size='9' text-anchor='{anchor}' "
            f"fill='currentColor'>{escape(name)}: {ends}</text>"
        )
    height = top + 6 + 10 * max(1, len(shifts)) + 2
    shapes.append(
        f"<line x1='{x(value):.1f}' x2='{x(value):.1f}' y1='0' y2='{height}' stroke='#D55E00' stroke-width='2'/>"
    )
    history = f"pre-trained on {trained[0]:g} to {trained[1]:g}" if trained else "never trained on this equation"
    ranges = ", ".join(f"{name} {ends}" for name, ends in shifts.items()) or "none"
    description = f"{system.dial_name} {value:g}; {history}; downstream ranges: {ranges}"
    return (
        f"<svg viewBox='0 0 {width} {height}' width='100%' role='img' aria-label='{escape(description)}' "
        f"style='overflow:visible;display:block'><title>{escape(description)}</title>{''.join(shapes)}</svg>"
    )


def colour_bar(title: str, palette: Sequence[str], low: float, high: float, name: str) -> str:
    """A horizontal colour scale with its ends and middle."""
    stops = ", ".join([*palette[:: max(1, len(palette) // 24)], palette[-1]])
    ticks = "".join(f"<span>{number(v)}</span>" for v in (low, (low + high) / 2, high))
    return (
        f"<div data-test='{name}' style='display:flex;align-items:center;gap:10px;font-size:12px'>"
        f"<span style='white-space:nowrap;font-weight:600'>{title}</span><div style='flex:1;min-width:120px'>"
        f"<div style='height:10px;border-radius:2px;background:linear-gradient(to right, {stops})'></div>"
        f"<div style='display:flex;justify-content:space-between;font-variant-numeric:tabular-nums'>{ticks}</div>"
        "</div></div>"
    )


def title(text: str, note: str = "", color: str = "currentColor") -> str:
    """Heading of a field."""
    note = f"<span style='opacity:.75;font-weight:400;font-size:12px'> {note}</span>" if note else ""
    return (
        f"<div style='font-size:14px;font-weight:600;white-space:nowrap;overflow:hidden;text-overflow:ellipsis;"
        f"border-top:3px solid {color};padding-top:3px'>{text}{note}</div>"
    )


def numbers(rows: list[tuple[str, str, str]]) -> str:
    """Numbers under a field: rows of (label, value, name for tests), the first one in bold."""
    first = ";font-weight:700;font-size:13px"
    lines = "".join(
        f"<div style='display:flex;justify-content:space-between;gap:6px{first if i == 0 else ''}'>"
        f"<span style='opacity:.8'>{label}</span><span data-test='{name}'>{value}</span></div>"
        for i, (label, value, name) in enumerate(rows)
    )
    return f"<div style='font-size:12px;line-height:1.45;font-variant-numeric:tabular-nums'>{lines}</div>"


def message(text: str, kind: str = "warning", name: str = "notice") -> str:
    """A short notice, with its name for tests."""
    color = {"warning": "#c04a00", "error": "#b3261e", "info": "#0072B2"}[kind]
    return (
        f"<div role='alert' data-test='{name}' style='border-left:4px solid {color};padding:4px 10px;font-size:13px'>"
        f"{escape(text)}</div>"
    )


def page_link(label: str, address: str) -> str:
    """A link to another page of the dashboard, for the header."""
    return (
        f"<a href='{address}' data-test='link-{address}' style='color:#fff;font-size:15px;font-weight:500;"
        f"text-decoration:none;border:1px solid currentColor;border-radius:4px;padding:4px 12px'>{label}</a>"
    )
