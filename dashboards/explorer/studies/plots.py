"""The charts of the studies page with Bokeh: points that can be clicked, the spread over seeds as bands and bars."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache

from bokeh.models import BasicTickFormatter, ColumnDataSource, FixedTicker, HoverTool, NumeralTickFormatter, TapTool
from bokeh.plotting import figure

from explorer.colours import COLOURS
from explorer.parts import plain
from sciml_fm_core.physics.tasks import Task
from sciml_fm_core.study.colours import MEANING
from sciml_fm_core.study.curves import Curve, dial_rows, error_range, example_axis, saved_curves

KEYS = ("start", "recipe", "size", "task", "seed", "learning_rate", "steps", "identity")
HOVER = [
    ("downstream examples", "@number"), ("error", "@error{0.000%}"), ("start", "@start"),
    ("recipe, size", "@recipe, @size"), ("task", "@task"), ("seed", "@seed"),
    ("learning rate", "@learning_rate"), ("steps", "@steps"),
]  # fmt: skip
"""What a point tells of its record."""
DRAG = "pan,box_zoom,wheel_zoom,reset"


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
    fig.yaxis.formatter = NumeralTickFormatter(format="0.[0000]%")
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


@lru_cache(maxsize=64)
def _rows(pretraining: str, downstream: tuple[str, ...]) -> list:
    return dial_rows(pretraining, downstream)


def dial_chart(pretraining: str, downstream: tuple[str, ...]) -> figure:
    """How the dial is distributed in pre-training and downstream, a row for each task."""
    rows = _rows(pretraining, downstream)
    fig = _figure(56 + 24 * len(rows), y_range=(-len(rows) + 0.9, 0.9))
    for number, row in enumerate(rows):
        tops = 0.75 * row.shares - number
        fig.quad(row.edges[:-1], row.edges[1:], tops, -number, fill_color=row.colour, line_color=None)
    _tick(fig.yaxis, {0.35 - number: row.label for number, row in enumerate(rows)})
    fig.grid.visible = False
    fig.xaxis.axis_label = Task.parse(pretraining).system.dial_name
    return fig


def savings_chart(records: Sequence[dict], label: Callable[[dict], str]) -> figure:
    """Examples from scratch for the error of each fine-tuned operator, against its own; on the line none is saved."""
    curves, counts = saved_curves(records, label), {count: f"{count:,}" for count in example_axis(records)}
    ends = [end(value for curve in curves for point in curve.points for value in point) for end in (min, max)]
    fig = _figure(340, DRAG, x_axis_type="log", y_axis_type="log")
    points = [(*point, curve.colour) for curve in curves for point in curve.points]
    x, y, colours = map(list, zip(*points, strict=True))
    fig.scatter(x, y, size=9, color=colours)
    if beyond := [(*point, curve.colour) for curve in curves for point in curve.beyond]:
        x, y, colours = map(list, zip(*beyond, strict=True))
        tops = [1.6 * value for value in y]
        fig.segment(x, y, x, tops, line_color=colours, line_width=2)
        fig.scatter(x, tops, marker="triangle", size=11, color=colours)
    fig.line(ends, ends, line_color=COLOURS["exact"], line_dash="dotted", line_width=2)
    for axis, name in ((fig.xaxis, "fine-tuning examples"), (fig.yaxis, "examples from scratch")):
        _tick(axis, counts)
        axis.axis_label = name
    return fig


def validation_chart(points: Sequence[tuple[int, float]], colour: str) -> figure:
    """Validation error by step."""
    fig = _figure(190, y_axis_type="log")
    steps, errors = zip(*points, strict=True)
    fig.line(steps, errors, line_color=colour, line_width=2)
    fig.scatter(steps, errors, color=colour, size=5)
    fig.xaxis.axis_label, fig.yaxis.axis_label = "step", "validation error"
    fig.xaxis.formatter = BasicTickFormatter(use_scientific=False)
    fig.yaxis.formatter = NumeralTickFormatter(format="0.[000]%")
    return fig
