"""The charts of the studies page: HoloViews draws them, and Bokeh the one whose points can be clicked.

HoloViews' own streams take four times as long there as Bokeh's selection.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache

import holoviews as hv
from bokeh.models import BasicTickFormatter, ColumnDataSource, FixedTicker, HoverTool, NumeralTickFormatter, TapTool
from bokeh.plotting import figure
from holoviews.plotting import bokeh as _backend  # noqa: F401 # HoloViews draws with what has been imported

from explorer.colours import COLOURS
from explorer.parts import plain
from sciml_fm_core.physics.tasks import Task
from sciml_fm_core.study.colours import MEANING
from sciml_fm_core.study.curves import Curve, dial_rows, error_range, example_axis, saved_curves

KEYS = ("start", "recipe", "size", "task", "seed", "learning_rate", "steps", "identity")
HOVER = [
    ("downstream examples", "@number"), ("error", "@error{0.000 %}"), ("start", "@start"),
    ("recipe, size", "@recipe, @size"), ("task", "@task"), ("seed", "@seed"),
    ("learning rate", "@learning_rate"), ("steps", "@steps"),
]  # fmt: skip
"""What a point tells of its record."""
DRAG = "pan,box_zoom,wheel_zoom,reset"
hv.Store.set_current_backend("bokeh")


def _figure(height: int, tools: str = "", **options) -> figure:
    """An empty chart as wide as its column."""
    fig = figure(height=height, sizing_mode="stretch_width", tools=tools, active_drag=None, **options)
    plain(fig)
    fig.xaxis.minor_tick_line_color = fig.yaxis.minor_tick_line_color = None
    return fig


def _tick(axis, ticks: Mapping[float, str]) -> None:
    axis.ticker = FixedTicker(ticks=list(ticks))
    axis.major_label_overrides = dict(ticks)


def curves_chart(
    curves: Sequence[Curve], printed: Mapping[str, tuple[int, float]], picked: Callable[[str], None]
) -> tuple[figure, ColumnDataSource]:
    """Error against examples on logarithmic axes, and the source of its points; no examples is a star at the left.

    Args:
        curves: what is drawn.
        printed: points that a paper printed, by start: hollow squares.
        picked: called with the identity of a run whose point is clicked.
    """
    records = [record for curve in curves for record in curve.records]
    counts = example_axis(records, [count for count, _ in printed.values()])
    origin, errors = counts[0] / 2, [*(r["error"] for r in records), *(error for _, error in printed.values())]
    ends = dict(x_range=(origin / 1.3, counts[-1] * 1.4), y_range=error_range(errors))
    fig = _figure(400, DRAG, x_axis_type="log", y_axis_type="log", **ends)
    _tick(fig.xaxis, {origin: "0"} | {count: f"{count:,}" for count in counts})
    fig.yaxis.formatter = NumeralTickFormatter(format="0.[0000] %")
    fig.xaxis.axis_label, fig.yaxis.axis_label = "downstream examples", "mean relative error (test)"
    # A glyph for all of a kind: a browser and a server take their time for each.
    joined = [
        (curve, list(zip(*(curve.spread[count] for count in curve.counts), strict=True)))
        for curve in curves
        if curve.counts
    ]
    tints, counted = [curve.colour for curve, _ in joined], [curve.counts for curve, _ in joined]
    bands = [[*low, *high[::-1]] for _, (low, _, high) in joined]
    fig.patches([[*own, *own[::-1]] for own in counted], bands, fill_color=tints, fill_alpha=0.2, line_alpha=0)
    lines = dict(xs=counted, ys=[list(middle) for _, (_, middle, _) in joined], colour=tints)
    lines["dash"] = [[6, 4] if curve.dashed else [] for curve, _ in joined]
    fig.multi_line("xs", "ys", source=ColumnDataSource(lines), line_color="colour", line_dash="dash", line_width=2)
    bars = [
        (count or origin, low, high, curve.colour if count else curve.star)
        for curve in curves for count, (low, _, high) in curve.spread.items() if low < high
    ]  # fmt: skip
    if bars:
        at, low, high, colours = map(list, zip(*bars, strict=True))
        fig.segment(at, low, at, high, line_color=colours, line_width=2)
    columns: dict[str, list] = {name: [] for name in ("examples", "error", "number", "colour", "mark", "width", *KEYS)}
    for curve in curves:
        for record in curve.records:
            count, own = record["examples"], record.get("own")
            mark, size = ("diamond", 15) if own and count else ("circle", 8) if count else ("star", 16)
            values = (count or origin, record["error"], count, curve.colour if count else curve.star, mark, size)
            for name, value in zip(columns, [*values, *map(record.get, KEYS)], strict=True):
                columns[name].append(value)
    source = ColumnDataSource(columns)
    points = fig.scatter(
        "examples", "error", source=source, marker="mark", size="width", color="colour", nonselection_alpha=1,
        selection_line_color=COLOURS["exact"], selection_line_width=4,
    )  # fmt: skip
    fig.add_tools(TapTool(renderers=[points]), HoverTool(renderers=[points], tooltips=HOVER))
    source.selected.on_change("indices", lambda _, old, new: picked(columns["identity"][new[0]]) if new else None)
    for start, (count, error) in printed.items():
        fig.scatter(
            [count], [error], marker="square", size=13, fill_alpha=0, line_width=2, line_color=MEANING[start][0]
        )
    return fig, source


def _drawn(element: hv.Overlay | hv.Element, height: int, **options) -> figure:
    """A chart that HoloViews draws, as wide as its column."""
    if isinstance(element, hv.Overlay):
        options["show_legend"] = False
    shown = dict(height=height, responsive=True, default_tools=[], backend="bokeh", **options)
    fig = hv.render(element.opts(**shown), backend="bokeh")
    plain(fig)
    fig.xaxis.minor_tick_line_color = fig.yaxis.minor_tick_line_color = None
    return fig


@lru_cache(maxsize=64)
def _rows(pretraining: str, downstream: tuple[str, ...]) -> list:
    return dial_rows(pretraining, downstream)


def dial_chart(pretraining: str, downstream: tuple[str, ...]) -> figure:
    """How the dial is distributed in pre-training and downstream, a row for each task."""
    rows = _rows(pretraining, downstream)
    bars = [
        (left, -number, right, 0.75 * share - number, row.colour)
        for number, row in enumerate(rows)
        for left, right, share in zip(row.edges[:-1], row.edges[1:], row.shares, strict=True)
    ]
    names = [(0.35 - number, row.label) for number, row in enumerate(rows)]
    across = Task.parse(pretraining).system.dial_name
    chart = hv.Rectangles(bars, vdims="colour").opts(color="colour", line_width=0, tools=[])
    height, ends = 56 + 24 * len(rows), (-len(rows) + 0.9, 0.9)
    fig = _drawn(chart, height, yticks=names, xlabel=across, ylabel="", ylim=ends, show_grid=False)
    fig.grid.visible = False
    return fig


def savings_chart(records: Sequence[dict], label: Callable[[dict], str]) -> figure:
    """Examples from scratch for the error of each fine-tuned operator, against its own; on the line none is saved."""
    curves = saved_curves(records, label)
    counts = [(count, f"{count:,}") for count in example_axis(records)]
    ends = [end(value for curve in curves for point in curve.points for value in point) for end in (min, max)]
    points = [(*point, curve.colour) for curve in curves for point in curve.points]
    beyond = [(x, y, x, 1.6 * y, curve.colour) for curve in curves for x, y in curve.beyond]
    chart = (
        hv.Curve([(end, end) for end in ends]).opts(color=COLOURS["exact"], line_dash="dotted", line_width=2)
        * hv.Segments(beyond, vdims="colour").opts(color="colour", line_width=2)
        * hv.Points([(x, top, colour) for x, _, _, top, colour in beyond], vdims="colour").opts(
            color="colour", marker="triangle", size=11
        )
        * hv.Points(points, vdims="colour").opts(color="colour", size=9)
    )
    names = dict(xlabel="fine-tuning examples", ylabel="examples from scratch")
    return _drawn(chart, 340, logx=True, logy=True, xticks=counts, yticks=counts, **names)


def validation_chart(points: Sequence[tuple[int, float]], colour: str) -> figure:
    """Validation error by step."""
    columns = tuple(zip(*points, strict=True))
    line = hv.Curve(columns, "step", "validation error").opts(color=colour, line_width=2)
    fig = _drawn(line * hv.Scatter(columns, "step", "validation error").opts(color=colour, size=5), 190, logy=True)
    fig.xaxis.formatter = BasicTickFormatter(use_scientific=False)
    fig.yaxis.formatter = NumeralTickFormatter(format="0.[000] %")
    return fig
