"""Figures of the studies with Matplotlib, for notebooks and for print: a column is 3.4 inches wide, a page 7.

Each function takes records (see `study`) or fields, and returns a `Drawing`, which a notebook shows and `export` writes
as PNG and SVG; `panels` puts several on one page. Fonts and lines are in ``paper.mplstyle``, colours in `colours`. What
notebooks show is drawn with it, by `questions` and `experiments.reports`; nothing else needs Matplotlib.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any

import matplotlib.style
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from torch import Tensor

from sciml_fm_core.files import user_path
from sciml_fm_core.physics.tasks import Task

from .colours import MEANING, OTHERS, colours_of
from .curves import Curve, curves_of, dial_rows, error_range, example_axis, round_ticks, saved_curves

STYLE = Path(__file__).with_name("paper.mplstyle")
COLUMN, PAGE = 3.4, 7.0
"""Widths of figures, in inches."""
AROUND = 0.75
"""Inches of a panel's height that its title and the labels of its axis take."""
GREY = "#777777"


@dataclass(frozen=True)
class Name:
    """The name of a curve, the value where it ends, and how it is drawn."""

    name: str
    value: float
    colour: str
    line: str = "-"
    marker: str = ""

    def sample(self) -> dict:
        """How a sample of it is drawn."""
        size, face = {"*": 8, "s": 6}.get(self.marker, 4), "none" if self.marker == "s" else self.colour
        return dict(
            color=self.colour, linestyle=self.line, marker=self.marker, markersize=size, markerfacecolor=face
        )  # fmt: skip


@dataclass(frozen=True)
class Panel:
    """What is drawn on one pair of axes, the names of its curves, and its height in inches."""

    draw: Callable[[Axes], None]
    names: tuple[Name, ...]
    height: float


@dataclass(frozen=True)
class Drawing:
    """Panels in rows of so many columns; curves are named at their ends, or below where there are several columns."""

    panels: tuple[Panel, ...]
    width: float = PAGE
    columns: int = 1

    def figure(self) -> Figure:
        """Draw it."""
        count, columns = len(self.panels), self.columns
        heights = [max(p.height for p in self.panels[first : first + columns]) for first in range(0, count, columns)]
        below = list({(one.name, one.colour): one for p in self.panels for one in p.names}.values())
        below = below if columns > 1 else []
        with matplotlib.style.context(STYLE):
            figure = Figure((self.width, sum(heights) + 0.15 * ((len(below) + 1) // 2)), layout="constrained")
            grid = figure.add_gridspec(len(heights), columns, height_ratios=heights)
            for number, panel in enumerate(self.panels):
                axes = figure.add_subplot(grid[divmod(number, columns)])
                panel.draw(axes)
                if columns == 1:
                    _name_ends(axes, panel.names, panel.height)
                elif number % columns and axes.get_ylabel() == figure.axes[0].get_ylabel():
                    axes.set_ylabel("")
            if below:
                samples = [Line2D([], [], label=one.name, **one.sample()) for one in below]
                figure.legend(handles=samples, loc="outside lower center", ncols=min(2, len(below)), handlelength=3)
        return figure

    def write(self, file: io.BytesIO | Path, kind: str, dpi: int = 300) -> None:
        """Write it as a picture of this kind, such as ``png``."""
        figure = self.figure()
        with matplotlib.style.context(STYLE):
            figure.savefig(file, format=kind, dpi=dpi)

    def _repr_png_(self) -> bytes:
        buffer = io.BytesIO()
        self.write(buffer, "png", 150)
        return buffer.getvalue()


def panels(figures: Sequence[Drawing], columns: int) -> Drawing:
    """Figures on one page, in rows of so many columns, each with its own axes."""
    return Drawing(tuple(panel for figure in figures for panel in figure.panels), columns=min(columns, len(figures)))


def export(figures: Mapping[str, Drawing], folder: str | Path) -> list[Path]:
    """Write each figure as PNG and SVG; returns the files."""
    folder = user_path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    paths = [folder / f"{name}.{kind}" for name in figures for kind in ("png", "svg")]
    for path in paths:
        figures[path.stem].write(path, path.suffix[1:])
    return paths


# Parts ----------------------------------------------------------------------------------------------------------------


def _name_ends(axes: Axes, names: Sequence[Name], height: float) -> None:
    """Write names at the right of axes, each as near to its curve as the others let it: a legend would hide points."""
    order = sorted(names, key=lambda one: one.value)
    gap = 0.13 / max(0.5, height - AROUND)
    places: list[float] = []
    for one in order:
        (_, y) = axes.transAxes.inverted().transform(axes.transData.transform((axes.get_xlim()[0], one.value)))
        places.append(max(float(np.clip(y, 0, 1)), places[-1] + gap if places else 0.0))
    top = max(1.0, gap * (len(order) - 1))
    for i in reversed(range(len(places))):
        places[i] = min(places[i], places[i + 1] - gap if i + 1 < len(places) else top)
    for one, y in zip(order, places, strict=True):
        ends = ([1.02, 1.075], [y, y]) if one.line else ([1.0475], [y])
        axes.plot(*ends, clip_on=False, transform=axes.transAxes, **one.sample())
        axes.text(1.09, y, one.name, transform=axes.transAxes, va="center", fontsize=7)


def _percent_axis(axes: Axes, low: float, high: float) -> None:
    ticks = round_ticks(low, high)
    axes.set_yscale("log")
    axes.set_ylim(low, high)
    axes.set_yticks(ticks, [f"{100 * tick:g} %" for tick in ticks], minor=False)
    axes.minorticks_off()


def _draw_curve(axes: Axes, curve: Curve, origin: float) -> None:
    counts, spread = curve.counts, curve.spread
    if counts:
        lows, middles, highs = zip(*(spread[count] for count in counts), strict=True)
        axes.fill_between(counts, lows, highs, color=curve.colour, alpha=0.2, linewidth=0)
        axes.plot(counts, middles, color=curve.colour, linestyle="--" if curve.dashed else "-")
        points = [(record["examples"], record["error"]) for record in curve.records if record["examples"]]
        axes.plot(*zip(*points, strict=True), "o", color=curve.colour)
    for count, (low, _, high) in spread.items():
        if low < high:
            tint = curve.colour if count else curve.star
            axes.plot([count or origin] * 2, [low, high], color=tint, linewidth=1)
    without = [record["error"] for record in curve.records if not record["examples"]]
    axes.plot([origin] * len(without), without, "*", color=curve.star, markersize=9)


# Figures --------------------------------------------------------------------------------------------------------------


def error_curves(
    records: Sequence[dict],
    label: Callable[[dict], str],
    title: str = "",
    *,
    colour: Callable[[dict], str] | None = None,
    among: Sequence[dict] = (),
    ylim: tuple[float, float] | None = None,
    levels: Mapping[str, float] = MappingProxyType({}),
    printed: Mapping[str, tuple[int, float]] = MappingProxyType({}),
    height: float = 3.0,
) -> Drawing:
    """Error against examples on logarithmic axes, one curve for each label; no examples is a star at the left.

    Several seeds of a point are drawn as their median and a band, see `Curve.spread`. Curves that train from scratch
    are dashed. Curves share a colour where `colour` says the same of them. Levels are errors that no examples stand
    behind: dotted lines with a name. Points that a paper printed are hollow squares, by their start.
    """
    curves = curves_of(records, label, colour, among)
    counts = example_axis(records, [count for count, _ in printed.values()])
    origin, beside = counts[0] / 2, [*levels.values(), *(error for _, error in printed.values())]
    low, high = ylim or error_range([*(record["error"] for record in records), *beside])

    names = [
        Name(c.name, c.end, c.colour, "--" if c.dashed else "-") if c.counts else Name(c.name, c.end, c.star, "", "*")
        for c in curves
    ]  # fmt: skip
    lines = dict(zip(levels, reversed(OTHERS), strict=False))
    names += [Name(name, levels[name], tint, ":") for name, tint in lines.items()]
    names += [Name("printed in the paper", low, GREY, "", "s")] if printed else []

    def draw(axes: Axes) -> None:
        for curve in curves:
            _draw_curve(axes, curve, origin)
        for name, tint in lines.items():
            axes.axhline(levels[name], color=tint, linestyle=":")
        for start, point in printed.items():
            axes.plot(*point, "s", markersize=7, markerfacecolor="none", color=MEANING[start][0])
        axes.set_xscale("log")
        axes.set_xlim(origin / 1.3, counts[-1] * 1.4)
        axes.set_xticks([origin, *counts], ["0", *(f"{count:,}" for count in counts)])
        _percent_axis(axes, low, high)
        axes.set(title=title, xlabel="downstream examples", ylabel="mean relative error (test)")

    return Drawing((Panel(draw, tuple(names), height),))


def error_panels(
    records: Sequence[dict],
    panel: Callable[[dict], str],
    label: Callable[[dict], str],
    columns: int = 2,
    *,
    colour: Callable[[dict], str] | None = None,
) -> Drawing:
    """`error_curves` on common axes, a panel for each group of records, with its name as the title."""
    ylim = error_range(record["error"] for record in records)
    names = list(dict.fromkeys(panel(record) for record in records))
    groups = {name: [record for record in records if panel(record) == name] for name in names}
    common: dict[str, Any] = dict(ylim=ylim, colour=colour, among=records, height=2.2)
    return panels([error_curves(own, label, name, **common) for name, own in groups.items()], columns)


def error_lines(
    records: Sequence[dict],
    x: Callable[[dict], float],
    axis: str,
    label: Callable[[dict], str],
    title: str = "",
    *,
    among: Sequence[dict] = (),
    level: float | None = None,
    ticks: Sequence[tuple[float, str]] | None = None,
    even: bool = False,
    joined: bool = True,
    ylabel: str = "mean relative error",
    height: float = 2.5,
) -> Drawing:
    """Error against any number of a record, a line for each label through the medians; one point alone is a star.

    The error has a logarithmic axis, and so has the number unless it is `even`. A dotted line marks a level, such as
    the error that a training starts from. Ticks are positions and what they say. Points that are not `joined` have no
    line. Panels beside each other are given all of their records as `among`, so that colours mean the same in each.
    A label that is empty is not named: the title says all.
    """
    low, high = error_range([*(record["error"] for record in records), *([] if level is None else [level])])
    positions = sorted({x(record) for record in records})
    margin = 0.05 * (positions[-1] - positions[0])
    ends = (positions[0] - margin, positions[-1] + margin) if even else (positions[0] / 1.3, positions[-1] * 1.3)

    lines: list[tuple[Name, list[tuple[float, float]]]] = []
    colours = colours_of(map(label, among or records))
    for name in dict.fromkeys(map(label, records)):
        own = sorted((x(record), record["error"]) for record in records if label(record) == name)
        several = joined and len({at for at, _ in own}) > 1
        marker = "o" if several or not joined else "*"
        lines.append((Name(name, own[-1][1], colours[name], "-" if several else "", marker), own))
    if not ticks and not even and len(positions) <= 6 and all(position == int(position) for position in positions):
        ticks = [(value, f"{value:,g}") for value in positions]

    def draw(axes: Axes) -> None:
        for name, points in lines:
            axes.plot(*zip(*points, strict=True), **name.sample() | {"linestyle": ""})
            if name.line:
                middle = [(at, float(np.median([y for x, y in points if x == at]))) for at in dict(points)]
                axes.plot(*zip(*middle, strict=True), color=name.colour)
        if level is not None:
            axes.axhline(level, color=GREY, linestyle=":")
        axes.set_xscale("linear" if even else "log")
        axes.set_xlim(*ends)
        if ticks or not even:
            axes.set_xticks(*zip(*(ticks or [(value, f"{value:g}") for value in round_ticks(*ends)]), strict=True))
        _percent_axis(axes, low, high)
        axes.set(title=title, xlabel=axis, ylabel=ylabel)

    names = tuple(name for name, _ in lines if name.name)
    return Drawing((Panel(draw, names, height),), PAGE if names else COLUMN)


def strip(pretraining: str, downstream: Sequence[str], count: int = 2000) -> Drawing:
    """How the dial is distributed in pre-training and downstream: a row of `curves.dial_rows` for each task."""
    rows = dial_rows(pretraining, downstream, count)

    def draw(axes: Axes) -> None:
        for number, row in enumerate(rows):
            widths = np.diff(row.edges)
            axes.bar(row.edges[:-1], 0.75 * row.shares, widths, bottom=-number, align="edge", color=row.colour)
        axes.set_yticks([0.35 - number for number in range(len(rows))], [row.label for row in rows])
        axes.tick_params(axis="y", length=0)
        axes.grid(visible=False)
        axes.spines["left"].set_visible(False)
        axes.set_xlabel(Task.parse(pretraining).system.dial_name)

    return Drawing((Panel(draw, (), 0.55 + 0.22 * len(rows)),))


def savings_figure(records: Sequence[dict], label: Callable[[dict], str], title: str = "") -> Drawing:
    """Examples that training from scratch takes for the error of each fine-tuned operator, against its own examples.

    On the dotted line nothing is saved. An arrow begins at the most examples that were tried from scratch, all of which
    give a larger error: it takes more.
    """
    curves = saved_curves(records, label)
    ends = [end([value for curve in curves for point in curve.points for value in point]) for end in (min, max)]
    counts = example_axis(records)

    def draw(axes: Axes) -> None:
        for curve in curves:
            axes.plot(*zip(*curve.points, strict=True), "o", color=curve.colour)
            for x, y in curve.beyond:
                axes.plot([x, x], [y, 1.5 * y], color=curve.colour)
                axes.plot(x, 1.6 * y, "^", color=curve.colour, markersize=6)
        axes.plot(ends, ends, ":", color=GREY)
        axes.set(title=title, xscale="log", yscale="log", xlabel="fine-tuning examples", ylabel="examples from scratch")
        for set_ticks in (axes.set_xticks, axes.set_yticks):
            set_ticks(counts, [f"{count:,}" for count in counts])
        axes.minorticks_off()

    names = tuple(Name(curve.name, curve.points[-1][1], curve.colour, "", "o") for curve in curves)
    return Drawing((Panel(draw, names, 2.8),))


def image(field: Tensor, title: str, limit: float | None = None, name: str = "u") -> Drawing:
    """A field (ny, nx), of which `name` is the label of the colours; 0 is in the middle of their scale."""
    most = limit or float(field.abs().max()) or 1.0

    def draw(axes: Axes) -> None:
        shown = axes.imshow(
            field.numpy(), origin="lower", cmap="RdBu_r", vmin=-most, vmax=most, interpolation="nearest"
        )
        axes.set_axis_off()
        axes.set_title(title, fontsize=7, fontweight="normal")
        bar = axes.figure.colorbar(shown, ax=axes, ticks=[-most, 0, most], shrink=0.8, aspect=14, pad=0.03)
        bar.ax.set_yticklabels([f"{-most:.2g}", f"{name} = 0" if name != "u" else "0", f"{most:.2g}"])
        bar.outline.set_visible(False)

    return Drawing((Panel(draw, (), 1.55),), COLUMN)
