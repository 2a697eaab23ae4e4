"""Figures of the studies: error against downstream examples, the shift of the physics above it, examples saved.

Each function takes records (see `study`) and returns HoloViews objects that draw in Bokeh, where a point shows its run,
and in Matplotlib, for files: `export` writes PNG and SVG. For notebooks and the dashboard: no other module of the
package imports this one, which alone needs HoloViews.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from itertools import pairwise
from pathlib import Path
from types import MappingProxyType

import holoviews as hv
import numpy as np
from torch import Tensor

from sciml_fm_core.data.splits import draw_split
from sciml_fm_core.files import user_path
from sciml_fm_core.physics.tasks import Task

from .analysis import savings
from .colours import MEANING, OTHERS, colours_of, without_examples

HOVER = ("start", "recipe", "size", "task", "seed", "learning_rate", "steps", "seconds", "identity")
"""What a point tells of its record beside examples and error."""
WIDTH = 820
GREY = "#777777"
NAMES = 8.0
"""Size of the names of curves, in points."""
MARKERS = {
    "circle": ("o", 8, 30), "star": ("*", 16, 160), "triangle": ("^", 11, 60), "square": ("s", 12, 60),
    "diamond": ("D", 14, 60),
}  # fmt: skip
"""Marks by name: Matplotlib's symbol, and the sizes in both backends."""
X, Y = hv.Dimension("examples", label="downstream examples"), hv.Dimension("error", label="mean relative error (test)")


@dataclass(frozen=True)
class CurveStyle:
    """How a curve is drawn: its colour, whether it is dashed, and whether it has a line at all, not a star alone."""

    colour: str
    dashed: bool
    joined: bool


def curve_styles(
    records: Sequence[dict], label: Callable[[dict], str], colour: Callable[[dict], str] | None = None
) -> dict[str, CurveStyle]:
    """The style of each curve of `error_curves`, by its label."""
    colours, styles = colours_of(map(colour or label, records)), {}
    for name in dict.fromkeys(label(record) for record in records):
        own = [record for record in records if label(record) == name]
        tint, joined = colours[(colour or label)(own[0])], any(record["examples"] for record in own)
        scratch = all(record["start"] == "from scratch" for record in own)
        styles[name] = CurveStyle(tint if joined else without_examples(tint), scratch, joined)
    return styles


def error_curves(
    records: Sequence[dict],
    label: Callable[[dict], str],
    title: str = "",
    width: int | None = WIDTH,
    *,
    colour: Callable[[dict], str] | None = None,
    ylim: tuple[float, float] | None = None,
    named: bool = True,
    levels: Mapping[str, float] = MappingProxyType({}),
    printed: Mapping[str, tuple[int, float]] = MappingProxyType({}),
) -> hv.Overlay:
    """Error against examples on logarithmic axes, one curve for each label; no examples is a star at the left.

    Several seeds of a point are drawn as their median and the band between their quartiles (between the extremes where
    there are fewer than four). Curves that train from scratch are dashed. Curves share a colour where `colour` says the
    same of them, else each has its own, by `colours_of`. A width of None is that of the page. Levels are errors that no
    examples stand behind: dotted lines with a name. Points that a paper printed are hollow squares, by their start.
    Records that say ``own`` are diamonds.
    """
    styles = curve_styles(records, label, colour)
    counts = sorted({record["examples"] for record in records} | {count for count, _ in printed.values()})
    counts = [count for count in counts if count] or [1]
    origin = counts[0] / 2  # where 0 is drawn on a logarithmic axis
    parts: list = []
    names: list[EndName] = []
    for name, style in styles.items():
        own = [record for record in records if label(record) == name]
        parts += _curve(own, name, style, origin)
        last = max(record["examples"] for record in own)
        error = float(np.median([record["error"] for record in own if record["examples"] == last]))
        names.append(EndName(name, error, style.colour, "dashed" if style.dashed else "solid", style.joined))
    ends = origin / 1.3, counts[-1] * 1.4
    for (name, error), tint in zip(levels.items(), reversed(OTHERS), strict=False):
        parts.append(_line([(end, error) for end in ends], (X, Y), tint, name, dash="dotted"))
        names.append(EndName(name, error, tint, "dotted"))
    for start, point in printed.items():
        parts.append(_dots([point], (X, Y), MEANING[start][0], marker="square"))
    ticks = [(origin, "0"), *((count, f"{count:,}") for count in counts)]
    beside = [*levels.values(), *(error for _, error in printed.values())]
    low, high = ylim or _error_range([*records, *({"error": error} for error in beside)])
    common = dict(logx=True, logy=True, title=title, xticks=ticks, show_legend=False, xlim=ends, ylim=(low, high))
    plain = dict(
        fig_size=200, aspect=1.7, yticks=_percent_ticks(low, high), hooks=[_no_minor_ticks, *_named(names, named)]
    )
    return _overlay(parts, common, dict(_across(width), height=420), plain)


@dataclass(frozen=True)
class EndName:
    """The name of a curve, beside the axes where the curve ends: at an error, with a sample of how it is drawn."""

    name: str
    error: float
    colour: str
    dash: str = "solid"
    joined: bool = True


def _named(names: Sequence[EndName], wanted: bool = True) -> list[Callable]:
    """A hook for Matplotlib that writes names at the right of the axes, each as near to its curve as the others let it.

    A legend within the axes would lie over points.
    """

    def write(plot, element) -> None:
        axis = plot.handles["axis"]
        gap = 1.25 * NAMES / 72 / (axis.get_position().height * axis.figure.get_figheight())
        order = sorted(names, key=lambda one: one.error)
        heights: list[float] = []
        for one in order:
            (_, y) = axis.transAxes.inverted().transform(axis.transData.transform((axis.get_xlim()[0], one.error)))
            heights.append(max(float(np.clip(y, 0, 1)), heights[-1] + gap if heights else 0))
        for i in reversed(range(len(heights))):
            heights[i] = min(
                heights[i], heights[i + 1] - gap if i + 1 < len(heights) else max(1, gap * (len(order) - 1))
            )
        for one, y in zip(order, heights, strict=True):
            how = dict(linestyle=one.dash) if one.joined else dict(linestyle="none", marker="*", markersize=9)
            axis.plot([1.02, 1.07] if one.joined else [1.045], [y] * (1 + one.joined), color=one.colour, **how,
                      transform=axis.transAxes, clip_on=False)  # fmt: skip
            axis.text(1.085, y, one.name, transform=axis.transAxes, va="center", fontsize=NAMES)

    return [write] if wanted and names else []


def error_lines(
    records: Sequence[dict],
    x: Callable[[dict], float],
    axis: str,
    label: Callable[[dict], str],
    title: str = "",
    *,
    level: float | None = None,
    ticks: Sequence[tuple[float, str]] | int | None = None,
    legend: str | None = "top_right",
    even: bool = False,
    joined: bool = True,
    ylabel: str = "mean relative error",
) -> hv.Overlay:
    """Error against any number of a record, a line for each label; one point alone is a star.

    The error has a logarithmic axis, and so has the number unless it is `even`. A dotted line marks a level, such as
    the error that a training starts from. Ticks are positions and what they say, or how many there are. Without a
    legend the title says all. Points that are not `joined` have no line.
    """
    low, high = _error_range([*records, *([] if level is None else [{"error": level}])])
    across, parts = hv.Dimension(axis.replace(" ", "_"), label=axis), []
    positions = sorted({x(record) for record in records})
    margin = 0.05 * (positions[-1] - positions[0])
    ends = (positions[0] - margin, positions[-1] + margin) if even else (positions[0] / 1.3, positions[-1] * 1.3)
    if level is not None:
        parts.append(_line([(at, level) for at in ends], (across, Y)))
    for name, colour in colours_of(map(label, records)).items():
        own = sorted((x(record), record["error"]) for record in records if label(record) == name)
        if joined:
            parts.append(_line(own, (across, Y), colour, name, dash="solid"))
        parts.append(_dots(own, (across, Y), colour, name, marker="star" if joined and len(own) == 1 else "circle"))
    common = dict(logx=not even, logy=True, title=title, xlim=ends, ylim=(low, high), ylabel=ylabel)
    common |= dict(show_legend=legend is not None, legend_position=legend or "right")
    common |= dict(xticks=ticks if isinstance(ticks, int) else list(ticks or _round_ticks(*ends)))
    plain = dict(fig_size=170, aspect=0.7 if even else 1.3, yticks=_percent_ticks(low, high), hooks=[_no_minor_ticks])
    return _overlay(parts, common, dict(width=WIDTH // 2 + 40, height=360), plain)


def error_panels(
    records: Sequence[dict],
    panel: Callable[[dict], str],
    label: Callable[[dict], str],
    columns: int = 2,
    *,
    colour: Callable[[dict], str] | None = None,
) -> hv.Layout:
    """`error_curves` on common axes, a panel for each group of records, with its name as the title.

    The legend stands beside the last panel, where it hides no point.
    """
    ylim, names = _error_range(records), list(dict.fromkeys(panel(record) for record in records))
    drawn = [
        error_curves(
            [r for r in records if panel(r) == name],
            label,
            name,
            WIDTH // columns + (300 if name == names[-1] else 40),
            ylim=ylim,
            colour=colour,
            named=name == names[-1],
        )
        for name in names
    ]
    return panels(drawn, columns, fig_size=130, hspace=0.25, vspace=0.4)


def roc_curves(curves: Mapping[str, tuple[Tensor, Tensor]], title: str = "") -> hv.Overlay:
    """Cases found against false alarms, a curve by name of each pair that `experiments.ranks.roc_curve` gives.

    On the dotted line a score tells nothing.
    """
    axes = "share of the others flagged", "share of the large errors flagged"
    parts = [
        _line((false.numpy(), true.numpy()), axes, colour, name, dash="solid")
        for (name, (false, true)), colour in zip(curves.items(), colours_of(curves).values(), strict=True)
    ]
    parts.append(_line(([0, 1], [0, 1]), axes))
    common = dict(title=title, xlim=(-0.02, 1.02), ylim=(-0.02, 1.02), legend_position="bottom_right")
    return _overlay(parts, common, dict(width=WIDTH // 2, height=WIDTH // 2), dict(aspect=1))


def score_points(
    rows: Sequence[tuple[str, str, float]],
    axis: str,
    title: str = "",
    *,
    levels: Sequence[float] = (),
    groups: Sequence[str] = (),
    legend: bool = True,
) -> hv.Overlay:
    """Numbers by name, as (name, group, value): a line of points for each name, coloured by group.

    Dotted lines mark levels. Panels beside each other are given all groups of them together, to have the same colours.
    """
    names, parts = list(dict.fromkeys(name for name, _, _ in rows))[::-1], []
    at = {name: float(number) for number, name in enumerate(names)}
    groups = groups or list(dict.fromkeys(group for _, group, _ in rows))
    for number, (group, colour) in enumerate(colours_of(groups).items()):
        apart = 0.18 * ((len(groups) - 1) / 2 - number)
        own = [(value, at[name] + apart) for name, mine, value in rows if mine == group]
        parts.append(_dots(own, (axis, "name"), colour, group))
    parts += [_line([(level, -0.5), (level, len(names) - 0.5)], (axis, "name")) for level in levels]
    ticks = [(number, name) for name, number in at.items()]
    common = dict(title=title, yticks=ticks, ylabel="", ylim=(-0.6, len(names) - 0.4))
    options = common | dict(legend_position="right", show_legend=legend)
    return _overlay(parts, options, dict(width=WIDTH, height=80 + 34 * len(names)), dict(fig_size=180, aspect=1.4))


def _error_range(records: Sequence[dict]) -> tuple[float, float]:
    errors = [record["error"] for record in records]
    return min(errors) / 1.4, max(errors) * 1.4


def _percent_ticks(low: float, high: float) -> list[tuple[float, str]]:
    """Errors at which a logarithmic axis is labelled: 1, 2 and 5 in each power of ten, or 1 alone on a long axis."""
    return [(value, f"{100 * value:g} %") for value, _ in _round_ticks(low, high)]


def _round_ticks(low: float, high: float) -> list[tuple[float, str]]:
    """Round values at which a logarithmic axis is labelled."""
    digits = (1, 2, 5) if high / low < 1000 else (1,)
    values = [digit * 10.0**power for power in range(-6, 7) for digit in digits]
    inside = [value for value in values if low <= value <= high]
    return [(value, f"{value:g}") for value in inside or [float(f"{(low * high) ** 0.5:.1g}")]]


def _across(width: int | None) -> dict:
    return {"responsive": True} if width is None else {"width": width}


def _styled(element, bokeh: dict, matplotlib: dict):
    """The element with its options; those of Matplotlib only where that is loaded, as the dashboard has none."""
    element = element.opts(**bokeh, backend="bokeh")
    return element.opts(**matplotlib, backend="matplotlib") if "matplotlib" in hv.Store.renderers else element


def _overlay(parts: Sequence, common: dict, bokeh: dict, matplotlib: dict) -> hv.Overlay:
    """The parts on one pair of axes, with options of both backends and those of each."""
    common = dict(show_grid=True) | common
    return _styled(hv.Overlay(parts), common | bokeh, common | matplotlib)


def _line(points, axes: Sequence, colour: str = GREY, label: str = "", *, dash: str = "dotted") -> hv.Curve:
    """A line; where nothing else is said, the dotted grey one of a reference."""
    line = hv.Curve(points, *axes, label=label)
    bokeh = dict(color=colour, line_dash=dash, line_width=2)
    return _styled(line, bokeh, dict(color=colour, linestyle=dash, linewidth=2))


def _dots(rows, axes: Sequence, colour: str, label: str = "", *, marker: str = "circle") -> hv.Scatter:
    """Points that tell their values where the pointer is on them."""
    symbol, size, area = MARKERS[marker]
    bokeh = dict(color=colour, marker=marker, size=size, tools=["hover"])
    plain = dict(color=colour, marker=symbol, s=area)
    if marker == "square":  # hollow
        bokeh, plain = bokeh | dict(fill_alpha=0, line_width=2), plain | dict(color="none", edgecolors=colour)
    if marker == "diamond":  # seen on a curve of the same colour
        bokeh, plain = bokeh | dict(line_color="#ffffff"), plain | dict(edgecolors="white")
    return _styled(hv.Scatter(rows, *axes, label=label), bokeh, plain)


def _no_minor_ticks(plot, element):
    """Leave out the ticks between those that have labels."""
    plot.handles["axis"].minorticks_off()


def _curve(records: list[dict], name: str, style: CurveStyle, origin: float) -> list:
    middle, low, high = _over_seeds(records)
    counts, colour = [count for count in middle if count], style.colour
    parts: list = []
    if any(low[count] < high[count] for count in counts):
        band = hv.Area([(count, low[count], high[count]) for count in counts], X, [Y, "upper"])
        bokeh = dict(fill_color=colour, fill_alpha=0.2, line_alpha=0)
        parts.append(_styled(band, bokeh, dict(color=colour, facecolor=colour, alpha=0.2, linewidth=0)))
    bars = [(count or origin, low[count], count or origin, high[count]) for count in middle if low[count] < high[count]]
    if bars:
        drawn = hv.Segments(bars, [X, Y, "x1", "upper"])
        parts.append(_styled(drawn, dict(color=colour, line_width=2), dict(color=colour, linewidth=1.2)))
    if counts:
        dash = "dashed" if style.dashed else "solid"
        parts.append(_line([(count, middle[count]) for count in counts], (X, Y), colour, name, dash=dash))

    def rows(own: list[dict]) -> list[tuple]:
        return [(r["examples"] or origin, r["error"], r["examples"], *map(r.get, HOVER)) for r in own]

    axes = X, [Y, "number", *HOVER]
    for marker in ("circle", "diamond"):
        if with_examples := [r for r in records if r["examples"] and bool(r.get("own")) == (marker == "diamond")]:
            parts.append(_dots(rows(with_examples), axes, colour, marker=marker))
    if without := [record for record in records if not record["examples"]]:
        star = without_examples(colour) if counts else colour
        parts.append(_dots(rows(without), axes, star, "" if counts else name, marker="star"))
    return parts


def _over_seeds(records: list[dict]) -> tuple[dict, dict, dict]:
    middle, low, high = {}, {}, {}
    for count in sorted({record["examples"] for record in records}):
        errors = np.array([record["error"] for record in records if record["examples"] == count])
        quantiles = (0.25, 0.75) if len(errors) >= 4 else (0, 1)
        middle[count] = float(np.median(errors))
        low[count], high[count] = (float(np.quantile(errors, q)) for q in quantiles)
    return middle, low, high


def strip(pretraining: str, downstream: Sequence[str], count: int = 2000, width: int | None = WIDTH) -> hv.Overlay:
    """How the dial is distributed in pre-training and downstream, as measured on drawn examples: a row for each task.

    The bars of a row are as high as they are frequent in that row; a dial of whole numbers has one for each.
    """
    tasks = [Task.parse(label) for label in (pretraining, *downstream)]
    low, high = min(task.low for task in tasks), max(task.high for task in tasks)
    alone = MEANING["fine-tuned"] if len(downstream) == 1 else OTHERS
    colours, parts = [MEANING["zero-shot"][0], *(alone[n % len(alone)] for n in range(len(downstream)))], []
    for row, (task, colour) in enumerate(zip(tasks, colours, strict=True)):
        dial = draw_split(task, "train", count, resolution=16).dial.double()
        if task.system.dialled.whole:
            edges = np.arange(task.low - 0.5, task.high + 1)
        else:
            edges = np.linspace(task.low, task.high, 2 + round(30 * (task.high - task.low) / ((high - low) or 1)))
        frequent, _ = np.histogram(dial, edges)
        tops = -row + 0.75 * frequent / frequent.max()
        bars = hv.Rectangles(
            [(a, -row, b, top) for (a, b), top in zip(pairwise(edges), tops, strict=True)],
            [hv.Dimension(task.system.dial_name), "row", "end", "top"],
        )
        bokeh = dict(fill_color=colour, line_color=colour, fill_alpha=0.85, line_alpha=0)
        parts.append(_styled(bars, bokeh, dict(facecolor=colour, edgecolor="none")))
    ticks = [(0.35 - row, task.label) for row, task in enumerate(tasks)]
    common = dict(yticks=ticks, ylabel="", show_grid=False, show_legend=False, ylim=(-len(tasks) + 0.9, 0.9))
    size = dict(_across(width), height=60 + 28 * len(tasks))
    return _overlay(parts, common, size, dict(fig_size=200, aspect=24 / (2 + len(tasks))))


def savings_figure(
    records: Sequence[dict], label: Callable[[dict], str], title: str = "", width: int | None = WIDTH
) -> hv.Overlay:
    """Examples that training from scratch takes for the error of each fine-tuned operator, against its own examples.

    On the dotted line nothing is saved. An arrow begins at the most examples that were tried from scratch, all of which
    give a larger error: it takes more. Curves stand a little apart, so that none hides another.
    """
    axes, parts, limits = ("fine-tuning examples", "examples from scratch"), [], []
    colours = colours_of(map(label, records))
    for number, (name, colour) in enumerate(colours.items()):
        apart = 1.15 ** (number + 1 - len(colours))  # to the left: right of the line would be a loss
        own = [s for s in savings([record for record in records if label(record) == name]) if s.examples]
        limits += [value for saving in own for value in (saving.examples, saving.from_scratch)]
        beyond = [(apart * s.examples, s.from_scratch) for s in own if s.beyond]
        stems = hv.Segments([(x, y, x, 1.6 * y) for x, y in beyond], [*axes, "x1", "y1"])
        parts.append(_styled(stems, dict(color=colour, line_width=2), dict(color=colour, linewidth=2)))
        parts.append(_dots([(apart * s.examples, s.from_scratch) for s in own], axes, colour, name))
        parts.append(_dots([(x, 1.6 * y) for x, y in beyond], axes, colour, marker="triangle"))
    ends = [min(limits), max(limits)]
    parts.append(_line((ends, ends), axes))
    ticks = [(count, f"{count:,}") for count in sorted({r["examples"] for r in records} - {0})]
    common = dict(logx=True, logy=True, title=title, legend_position="right", xticks=ticks, yticks=ticks)
    common |= dict(xlabel=axes[0], ylabel=axes[1])
    plain = dict(fig_size=180, aspect=1.6, hooks=[_no_minor_ticks])
    return _overlay(parts, common, dict(_across(width), height=360), plain)


def image(field: Tensor, title: str, limit: float | None = None, name: str = "u") -> hv.Image:
    """A field (ny, nx), of which `name` is the label of the colours; 0 is in the middle of their scale."""
    limit = limit or float(field.abs().max()) or 1.0
    y, x = (np.arange(count) / count for count in field.shape)
    drawn = hv.Image((x, y, field.numpy()), ["x", "y"], name)
    style = dict(clim=(-limit, limit), cmap="RdBu_r", colorbar=True, cbar_ticks=3, xaxis=None, yaxis=None, title=title)
    _quick_colour_bars()
    return drawn.opts(**style, backend="matplotlib")


@cache
def _quick_colour_bars() -> None:
    """Let HoloViews place the colour bar of an image by laying out its axes.

    Else it draws all of the figure, once for each of its images, which is half of the time of a figure with many.
    """
    from holoviews.plotting.mpl import RasterPlot

    class ImagePlot(RasterPlot):
        def _draw_colorbar(self, element=None, dimension=None, redraw=True):
            self.handles["axis"].apply_aspect()
            super()._draw_colorbar(element, dimension, redraw=False)

    hv.Store.registry["matplotlib"][hv.Image] = ImagePlot


def panels(figures: Sequence, columns: int, **spacing) -> hv.Layout:
    """Figures in rows, each with its own axes."""
    layout = hv.Layout(figures).cols(columns)
    plain = dict(sublabel_format="") | (spacing or dict(hspace=0.35, vspace=0.3, fig_size=100))
    return _styled(layout, dict(shared_axes=False), plain)


def export(figures: dict[str, hv.Dimensioned], folder: str | Path) -> list[Path]:
    """Write each figure as PNG and SVG by Matplotlib; returns the files."""
    folder = user_path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    renderer = hv.renderer("matplotlib").instance(dpi=130)
    paths = []
    for name, figure in figures.items():
        drawn = renderer.get_plot(figure)  # once for both: that takes longer than to write it
        for kind in ("png", "svg"):
            renderer.save(drawn, folder / name, fmt=kind)
            paths.append(folder / f"{name}.{kind}")
    return paths
