"""Text, formulas and small drawings as HTML: MathML and SVG need no library and no network, and follow the theme."""

from __future__ import annotations

import math
from collections.abc import Sequence
from html import escape

from sciml_fm_core.physics.system import System
from sciml_fm_core.physics.tasks import PAPER_TASKS, Task

from .state import Dial

SHIFTS = {
    "inside": ("Inside the pre-training range", "#00795c"),
    "between": ("Inside, between the whole numbers trained on", "#9a6a00"),
    "mild": ("Mild shift", "#9a6a00"),
    "medium": ("Medium shift", "#c04a00"),
    "large": ("Large shift", "#b3261e"),
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


def _mn(value: float) -> str:
    text = f"{abs(value):.3g}" if abs(value) < 100 else f"{abs(value):.0f}"
    return f"<mo>−</mo><mn>{text}</mn>" if value < 0 else f"<mn>{text}</mn>"


_NABLA = "<mi mathvariant='normal'>∇</mi>"
_DIFFUSION = f"<mo>−</mo>{_NABLA}<mo>·</mo><mo>(</mo><mi>K</mi>{_NABLA}<mi>u</mi><mo>)</mo>"


def _tensor(c: dict[str, float]) -> str:
    rows = ((c["k11"], c["k12"]), (c["k12"], c["k22"]))
    body = "".join("<mtr>" + "".join(f"<mtd>{_mn(v)}</mtd>" for v in row) + "</mtr>" for row in rows)
    return f"<mi>K</mi><mo>=</mo><mo>(</mo><mtable>{body}</mtable><mo>)</mo>"


def _vector(values: tuple[float, float]) -> str:
    body = "".join(f"<mtr><mtd>{_mn(v)}</mtd></mtr>" for v in values)
    return f"<mi>v</mi><mo>=</mo><mo>(</mo><mtable>{body}</mtable><mo>)</mo>"


def equation(system: System, coefficients: dict[str, float] | None) -> str:
    """The equation of a system with the coefficients now dialled, as MathML."""
    parts: list[str]
    if system.name == "poisson":
        parts = [f"{_DIFFUSION}<mo>=</mo><mi>f</mi>"]
        parts += [_tensor(coefficients)] if coefficients else []
    elif system.name == "advection_diffusion":
        parts = [f"{_DIFFUSION}<mo>+</mo><mi>v</mi><mo>·</mo>{_NABLA}<mi>u</mi><mo>=</mo><mi>f</mi>"]
        if coefficients:
            parts += [
                _tensor(coefficients) + "<mspace width='0.8em'/>" + _vector((coefficients["v1"], coefficients["v2"]))
            ]
    elif system.name == "helmholtz":
        d, omega = (
            (_mn(coefficients["diffusivity"]), _mn(coefficients["omega"]))
            if coefficients
            else ("<mi>d</mi>", "<mi>ω</mi>")
        )
        parts = [
            f"<mo>−</mo>{d}<mspace width='0.2em'/><mi mathvariant='normal'>Δ</mi><mi>u</mi><mo>−</mo>{omega}"
            "<mspace width='0.2em'/><mi>u</mi><mo>=</mo><mi>f</mi>"
        ]
    else:
        values = ", ".join(f"{name} = {number(v)}" for name, v in (coefficients or {}).items())
        return f"<code>{escape(system.equation)}</code><br>{escape(values)}"
    lines = "".join(f"<div><math display='block'>{part}</math></div>" for part in parts)
    return f"<div class='equation' data-test='equation'>{lines}</div>"


def badge(shift: str) -> str:
    """The name of the shift as a coloured label."""
    text, color = SHIFTS[shift]
    return (
        f"<span data-test='shift' role='status' style='background:{color};color:#fff;border-radius:12px;"
        f"padding:3px 12px;font-size:13px;font-weight:600;white-space:nowrap'>{text}</span>"
    )


def strip(system: System, dial: Dial, value: float, trained: tuple[float, float]) -> str:
    """The range under a dial: band of the pre-training range, the paper's downstream ranges, the present value."""
    width, top = 300.0, 12.0

    def x(v: float) -> float:
        return width * dial.position(v)

    low, high = trained
    shapes = [
        f"<rect x='{x(low):.1f}' y='0' width='{max(2.0, x(high) - x(low)):.1f}' height='{top}' rx='2' fill='#0072B2' "
        "fill-opacity='0.35'/>",
        f"<line x1='0' x2='{width}' y1='{top}' y2='{top}' stroke='currentColor' stroke-opacity='0.35'/>",
        _label((x(low) + x(high)) / 2, top - 2.5, "pre-trained here", width, 9),
    ]
    shifts = {name: label for name, label in PAPER_TASKS.get(system.name, {}).items() if name != "pre-training"}
    for row, (name, label) in enumerate(shifts.items()):
        task = Task.parse(label)
        left, right, y = x(task.low), x(task.high), top + 10 + 10 * row
        text = f"{name}: {task.low:g}–{task.high:g}"
        shapes.append(
            f"<line x1='{left:.1f}' x2='{right:.1f}' y1='{y}' y2='{y}' stroke='currentColor' stroke-width='3' "
            "stroke-opacity='0.45'/>"
        )
        # The text stands beside its line, on the side where there is room.
        if right < width - 70:
            shapes.append(f"<text x='{right + 4:.1f}' y='{y + 3}' font-size='9' fill='currentColor'>{text}</text>")
        else:
            shapes.append(
                f"<text x='{left - 4:.1f}' y='{y + 3}' font-size='9' text-anchor='end' "
                f"fill='currentColor'>{text}</text>"
            )
    height = top + 6 + 10 * max(1, len(shifts)) + 2
    shapes.append(
        f"<line x1='{x(value):.1f}' x2='{x(value):.1f}' y1='0' y2='{height}' stroke='#D55E00' stroke-width='2'/>"
    )
    description = (
        f"{system.dial_name} {value:g}; pre-trained on {low:g} to {high:g}; downstream ranges of the paper: "
        + ", ".join(f"{name} {label}" for name, label in shifts.items())
    )
    return (
        f"<svg viewBox='0 0 {width} {height}' width='100%' role='img' aria-label='{escape(description)}' "
        f"style='overflow:visible;display:block'><title>{escape(description)}</title>{''.join(shapes)}</svg>"
    )


def _label(x: float, y: float, text: str, width: float, size: int) -> str:
    half = 0.25 * size * len(text)
    x = min(max(x, half), width - half)
    return f"<text x='{x:.1f}' y='{y}' font-size='{size}' text-anchor='middle' fill='currentColor'>{text}</text>"


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
    """Numbers under a field: rows of (label, value, name for tests)."""
    lines = "".join(
        f"<div style='display:flex;justify-content:space-between;gap:6px;{_emphasis(i)}'>"
        f"<span style='opacity:.8'>{label}</span><span data-test='{name}'>{value}</span></div>"
        for i, (label, value, name) in enumerate(rows)
    )
    return f"<div style='font-size:12px;line-height:1.45;font-variant-numeric:tabular-nums'>{lines}</div>"


def _emphasis(index: int) -> str:
    return "font-weight:700;font-size:13px" if index == 0 else ""


def message(text: str, kind: str = "warning") -> str:
    """A short notice."""
    color = {"warning": "#c04a00", "error": "#b3261e", "info": "#0072B2"}[kind]
    return (
        f"<div role='alert' data-test='notice' style='border-left:4px solid {color};padding:4px 10px;font-size:13px'>"
        f"{escape(text)}</div>"
    )


def page_link(label: str, address: str) -> str:
    """A link to another page of the dashboard, for the header."""
    return (
        f"<a href='{address}' data-test='link-{address}' style='color:#fff;font-size:15px;font-weight:500;"
        f"text-decoration:none;border:1px solid currentColor;border-radius:4px;padding:4px 12px'>{label}</a>"
    )
