"""Figures of the studies: error against downstream examples, the shift of the physics above it, examples saved.

Each function takes records (see `study`) and returns HoloViews objects that draw in Bokeh, where a point shows its run,
and in Matplotlib, for files: `export` writes PNG and SVG. For notebooks and the dashboard: no other module of the
package imports this one, which alone needs HoloViews.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import holoviews as hv
import numpy as np

from sciml_fm_core.data.splits import draw_split
from sciml_fm_core.physics.tasks import Task

from .analysis import savings

COLOURS = ("#0072B2", "#E69F00", "#009E73", "#CC79A7", "#56B4E9", "#D55E00", "#000000", "#999999")
HOVER = (
    "examples",
    "error",
    "start",
    "recipe",
    "size",
    "task",
    "seed",
    "learning_rate",
    "steps",
    "seconds",
    "identity",
)
WIDTH = 820
X, Y = hv.Dimension("examples", label="downstream examples"), hv.Dimension("error", label="mean relative error (test)")


def error_curves(
    records: Sequence[dict], label: Callable[[dict], str], title: str = "", width: int | None = WIDTH
) -> hv.Overlay:
    """Error against examples on logarithmic axes, one curve for each label; no examples is a star at the left.

    Several seeds of a point are drawn as their median and the band between their quartiles (between the extremes where
    there are fewer than four). Curves that train from scratch are dashed. A width of None is that of the page.
    """
    parts = []
    counts = sorted({record["examples"] for record in records if record["examples"]}) or [1]
    origin = counts[0] / 2  # where 0 is drawn on a logarithmic axis
    for number, name in enumerate(dict.fromkeys(label(record) for record in records)):
        colour = COLOURS[number % len(COLOURS)]
        own = [record for record in records if label(record) == name]
        dashed = all(record["start"] == "from scratch" for record in own)
        parts += _curve(own, name, colour, dashed, origin)
    ticks = [(origin, "0"), *((count, f"{count:,}") for count in counts)]
    overlay = hv.Overlay(parts)
    common = dict(logx=True, logy=True, show_grid=True, title=title, xticks=ticks, legend_position="right")
    xlim = (origin / 1.3, counts[-1] * 1.4)
    return _styled(
        overlay,
        dict(**common, xlim=xlim, **_across(width), height=420),
        dict(**common, xlim=xlim, fig_size=200, aspect=1.7, hooks=[_no_minor_ticks]),
    )


def _across(width: int | None) -> dict:
    return {"responsive": True} if width is None else {"width": width}


def _styled(element, bokeh: dict, matplotlib: dict):
    """The element with its options; those of Matplotlib only where that is loaded, as the dashboard has none."""
    element = element.opts(**bokeh, backend="bokeh")
    return element.opts(**matplotlib, backend="matplotlib") if "matplotlib" in hv.Store.renderers else element


def _no_minor_ticks(plot, element):
    """Powers of ten between the numbers of examples would only be in the way."""
    from matplotlib.ticker import NullLocator

    plot.handles["axis"].xaxis.set_minor_locator(NullLocator())


def _curve(records: list[dict], name: str, colour: str, dashed: bool, origin: float) -> list:
    middle, low, high = _over_seeds(records)
    counts = [count for count in middle if count]
    parts: list = []
    if any(low[count] < high[count] for count in counts):
        band = hv.Area([(count, low[count], high[count]) for count in counts], X, [Y, "upper"])
        bokeh = dict(fill_color=colour, fill_alpha=0.2, line_alpha=0)
        parts.append(_styled(band, bokeh, dict(facecolor=colour, alpha=0.2, linewidth=0)))
    curve = hv.Curve([(count, middle[count]) for count in counts], X, Y, label=name)
    bokeh = dict(color=colour, line_dash="dashed" if dashed else "solid", line_width=2)
    parts.append(_styled(curve, bokeh, dict(color=colour, linestyle="--" if dashed else "-", linewidth=2)))
    shown = [record for record in records if record["examples"]]
    parts.append(_points(shown, colour, [record["examples"] for record in shown], "circle", "o", 8, 30))
    without = [record for record in records if not record["examples"]]
    if without:
        parts.append(_points(without, colour, [origin] * len(without), "star", "*", 16, 160))
    return parts


def _points(records: list[dict], colour: str, x: list[float], marker: str, symbol: str, size: int, area: int):
    details = [name for name in HOVER if name not in ("examples", "error")]
    rows = [
        (at, r["error"], r["examples"], *(r.get(name) for name in details)) for at, r in zip(x, records, strict=True)
    ]
    points = hv.Scatter(rows, X, [Y, "number", *details])
    bokeh = dict(color=colour, marker=marker, size=size, tools=["hover"])
    return _styled(points, bokeh, dict(color=colour, marker=symbol, s=area))


def _over_seeds(records: list[dict]) -> tuple[dict, dict, dict]:
    middle, low, high = {}, {}, {}
    for count in sorted({record["examples"] for record in records}):
        errors = np.array([record["error"] for record in records if record["examples"] == count])
        quantiles = (0.25, 0.75) if len(errors) >= 4 else (0, 1)
        middle[count] = float(np.median(errors))
        low[count], high[count] = (float(np.quantile(errors, q)) for q in quantiles)
    return middle, low, high


def strip(pretraining: str, downstream: Sequence[str], count: int = 2000, width: int | None = WIDTH) -> hv.Overlay:
    """How the dial is distributed in pre-training and downstream, as measured on drawn examples."""
    tasks = [Task.parse(label) for label in (pretraining, *downstream)]
    dials = [draw_split(task, "train", count, resolution=16).dial.numpy() for task in tasks]
    edges = np.linspace(min(d.min() for d in dials), max(d.max() for d in dials), 61)
    parts = []
    for number, (task, dial) in enumerate(zip(tasks, dials, strict=True)):
        density, _ = np.histogram(dial, edges, density=True)
        colour = "#777777" if number == 0 else COLOURS[(number - 1) % len(COLOURS)]
        histogram = hv.Histogram((edges, density), kdims=task.system.dial_name, label=task.label)
        bokeh = dict(fill_color=colour, fill_alpha=0.45, line_alpha=0)
        parts.append(_styled(histogram, bokeh, dict(facecolor=colour, alpha=0.45, edgecolor="none")))
    common = dict(yaxis=None, legend_position="right")
    return _styled(
        hv.Overlay(parts), dict(**common, **_across(width), height=130), dict(**common, fig_size=200, aspect=7)
    )


def savings_figure(
    records: Sequence[dict], label: Callable[[dict], str], title: str = "", width: int | None = WIDTH
) -> hv.Overlay:
    """Examples that training from scratch takes for the error of each fine-tuned operator, against its own examples.

    On the dotted line nothing is saved. A triangle is beyond every operator trained from scratch: at least so many.
    """
    parts, limits = [], []
    for number, name in enumerate(dict.fromkeys(label(record) for record in records)):
        own = savings([record for record in records if label(record) == name])
        colour = COLOURS[number % len(COLOURS)]
        for beyond, marker, symbol in ((False, "circle", "o"), (True, "triangle", "^")):
            points = [(s.examples, s.from_scratch) for s in own if s.examples and s.beyond == beyond]
            limits += [value for point in points for value in point]
            dots = hv.Scatter(points, "fine-tuning examples", "examples from scratch", label=name)
            bokeh = dict(color=colour, marker=marker, size=11, tools=["hover"])
            parts.append(_styled(dots, bokeh, dict(color=colour, marker=symbol, s=60)))
    ends = [min(limits), max(limits)]
    line = hv.Curve((ends, ends), "fine-tuning examples", "examples from scratch")
    parts.append(_styled(line, dict(color="#777777", line_dash="dotted"), dict(color="#777777", linestyle=":")))
    common = dict(logx=True, logy=True, show_grid=True, title=title, legend_position="right")
    common |= dict(xlabel="fine-tuning examples", ylabel="examples from scratch")
    return _styled(
        hv.Overlay(parts), dict(**common, **_across(width), height=360), dict(**common, fig_size=180, aspect=1.6)
    )


def export(figures: dict[str, hv.Dimensioned], folder: str | Path) -> list[Path]:
    """Write each figure as PNG and SVG by Matplotlib; returns the files."""
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    paths = []
    for name, figure in figures.items():
        for kind in ("png", "svg"):
            hv.save(figure, folder / f"{name}.{kind}", fmt=kind, backend="matplotlib", dpi=130)
            paths.append(folder / f"{name}.{kind}")
    return paths
