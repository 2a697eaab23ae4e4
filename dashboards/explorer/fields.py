"""The fields with their signed errors on shared scales, the numbers under each, and the cut through all of them.

Each image is declared once with HoloViews; afterwards only the array of its Bokeh source and the limits of its colour
mapper change, which paints several times faster than any exchange of elements.
"""

from __future__ import annotations

from collections.abc import Callable

import holoviews as hv
import numpy as np
import panel as pn
import panel_material_ui as pmui
from bokeh.events import Tap
from bokeh.models import ColumnDataSource, HoverTool, Label, PointDrawTool, Range1d, Span
from bokeh.palettes import Viridis256
from bokeh.plotting import figure
from bokeh.transform import linear_cmap

from . import text
from .compute import RESOLUTION, Frame, Prediction
from .parts import WIDE, Html, column, plain, show
from .predictions import PREDICTIONS

hv.extension("bokeh")

GREY = "#888888"
"""Colour of what is exact."""
DIVERGING = hv.plotting.util.process_cmap("RdBu_r", 256)
CUT_HEIGHT = 210
GAP = (0, 6)
TOOLS = ["pan", "box_zoom", "wheel_zoom", "reset"]


class FieldImage:
    """One field as an image; `paint` is the only thing that happens on the hot path."""

    def __init__(self, palette: list[str], x_range: Range1d, y_range: Range1d, description: str):
        half = 0.5 / RESOLUTION  # a pixel is centred on its grid point
        element = hv.Image(
            np.zeros((RESOLUTION, RESOLUTION), dtype=np.float32), bounds=(-half, -half, 1 - half, 1 - half)
        ).opts(
            cmap=palette, clim=(0, 1), xaxis=None, yaxis=None, default_tools=[], tools=[], toolbar=None,
            responsive=True, data_aspect=None, framewise=False, axiswise=False,
        )  # fmt: skip
        plot = hv.renderer("bokeh").get_plot(element)
        self.figure, self.source, self.mapper = plot.state, plot.handles["source"], plot.handles["color_mapper"]
        self.glyph = plot.handles["glyph_renderer"]
        fig = self.figure
        fig.name = description
        fig.x_range, fig.y_range = x_range, y_range
        fig.add_tools(*TOOLS)
        fig.add_tools(HoverTool(tooltips=[("(x, y)", "($x{0.000}, $y{0.000})"), ("value", "@image{0.0000}")]))
        fig.toolbar.active_drag = next(tool for tool in fig.tools if type(tool).__name__ == "PanTool")
        fig.toolbar_location, fig.toolbar_inner = "right", True
        fig.sizing_mode, fig.aspect_ratio = "stretch_width", 1
        fig.width = fig.height = None
        fig.min_width = 90
        fig.min_border = 0
        plain(fig)
        fig.outline_line_color, fig.outline_line_alpha = GREY, 0.5
        self.empty = Label(
            x=0.5, y=0.5, text="", text_align="center", text_baseline="middle", text_color="#8a8a8a",
            text_font_size="13px",
        )  # fmt: skip
        fig.add_layout(self.empty)
        self.pane = pn.pane.Bokeh(fig, **WIDE)

    def paint(self, values: np.ndarray | None, low: float, high: float, empty: str = "") -> None:
        """Show values, or say why there are none."""
        if values is None:
            self.glyph.visible = False
            self.empty.text = empty
            return
        self.mapper.update(low=low, high=high)
        self.source.data["image"] = [np.ascontiguousarray(values, dtype=np.float32)]
        self.glyph.visible = True
        self.empty.text = ""


class FieldsView:
    """All fields of a `Frame`.

    Args:
        on_gaussians: called with rows (x, y, amplitude or None for a new one) when the drawn source is edited.
    """

    def __init__(self, on_gaussians: Callable[[list[tuple[float, float, float | None]]], None]):
        half = 0.5 / RESOLUTION
        self.x_range, self.y_range = (
            Range1d(-half, 1 - half, bounds=(-half, 1 - half), min_interval=0.05) for _ in range(2)
        )
        names = {"source": "Source f", "solution": "Spectral solution u"}
        names |= {key: predictor.name for key, predictor in PREDICTIONS.items()}
        self.fields = {key: FieldImage(Viridis256, self.x_range, self.y_range, name) for key, name in names.items()}
        self.errors = {
            key: FieldImage(DIVERGING, self.x_range, self.y_range, f"Error of {names[key]}") for key in PREDICTIONS
        }
        self.titles = {key: Html(margin=0) for key in names}
        self.numbers = {key: Html(margin=(4, 0, 6, 0)) for key in names}
        self.solution_bar, self.error_bar, self.cut_title = Html(), Html(), Html(margin=0)
        self.lock = pmui.Switch(
            label="Lock scales", value=False, width=140, margin=(0, 0),
            description="Keep both colour scales as they are, to compare one setting with the next.",
        )  # fmt: skip
        self.frame: Frame | None = None
        self._solution_limits, self._error_limit = (0.0, 1.0), 1.0
        self._on_gaussians = on_gaussians
        self._row = RESOLUTION // 2
        self._build_cut()
        self._build_drawing()
        for image in (*self.fields.values(), *self.errors.values()):
            if image is not self.fields["source"]:
                image.figure.on_event(Tap, lambda event: self.cut_at(event.y))

    # Building -------------------------------------------------------------------------------------------------------

    def _build_cut(self) -> None:
        self.spans = []
        for images, color in ((self.fields, "#ffffff"), (self.errors, "#555555")):
            for image in images.values():
                span = Span(location=0.5, dimension="width", line_color=color, line_dash="dotted", line_width=1.5)
                image.figure.add_layout(span)
                self.spans.append(span)
        fig = figure(
            x_range=self.x_range, height=CUT_HEIGHT, sizing_mode="stretch_width", tools="", toolbar_location=None,
            min_border=4,
        )  # fmt: skip
        plain(fig)
        fig.name = "Cut through the fields"
        fig.xaxis.axis_label, fig.yaxis.axis_label = "x", "u"
        fig.yaxis.axis_label_standoff = 0
        x = np.arange(RESOLUTION, dtype=np.float32) / RESOLUTION
        self.cuts = {key: ColumnDataSource({"x": x} | _cut(None, 0)) for key in ("solution", *PREDICTIONS)}
        fig.line("x", "y", source=self.cuts["solution"], color=GREY, line_width=5, line_alpha=0.45)
        for key, predictor in PREDICTIONS.items():
            source, color = self.cuts[key], predictor.color
            fig.varea("x", "low", "high", source=source, fill_color=color, fill_alpha=0.2)
            fig.line("x", "y", source=source, color=color, line_width=2, line_dash=predictor.dash)
        self.cut_pane = pn.pane.Bokeh(fig, height=CUT_HEIGHT, **WIDE)

    def _build_drawing(self) -> None:
        fig = self.fields["source"].figure
        self.points = ColumnDataSource({"x": [], "y": [], "amplitude": []})
        renderer = fig.scatter(
            "x", "y", source=self.points, size=13, line_color="white", line_width=2, fill_alpha=0.9,
            fill_color=linear_cmap("amplitude", ["#2166ac", "#b2182b"], -1, 1),
        )  # fmt: skip
        tool = PointDrawTool(renderers=[renderer], add=True, drag=True, empty_value=0)
        fig.add_tools(tool)
        fig.toolbar.active_tap = fig.toolbar.active_drag = tool
        self._setting_points = False
        self.points.on_change("data", self._points_edited)

    def _points_edited(self, _name, _old, new) -> None:
        if self._setting_points:
            return
        amplitudes = list(new["amplitude"]) + [0] * (len(new["x"]) - len(new["amplitude"]))
        rows = zip(new["x"], new["y"], amplitudes, strict=False)
        self._on_gaussians([(float(x) % 1, float(y) % 1, float(a) if a else None) for x, y, a in rows])

    def show_points(self, rows: list[tuple[float, float, float]]) -> None:
        """Put the handles of the drawn source where its Gaussians are."""
        columns = {name: [row[i] for row in rows] for i, name in enumerate(("x", "y", "amplitude"))}
        if columns == {name: list(values) for name, values in self.points.data.items()}:
            return  # not sent back to a browser where they are still dragged
        self._setting_points = True
        try:
            self.points.data = columns
        finally:
            self._setting_points = False

    # Painting -------------------------------------------------------------------------------------------------------

    def paint(self, frame: Frame, note: str = "") -> None:
        """Show a frame; ``note`` says on what the adapted operators were trained."""
        self.frame = frame
        if not self.lock.value:
            self._set_limits(frame)
        low, high = self._solution_limits
        source_size = float(np.abs(frame.source).max()) or 1.0
        self.fields["source"].paint(frame.source, float(frame.source.min()), source_size)
        self.fields["solution"].paint(frame.solution, low, high)
        limit = self._error_limit
        for key, predictor in PREDICTIONS.items():
            prediction = frame.predictions.get(key)
            self.fields[key].paint(prediction and prediction.values, low, high, predictor.empty)
            self.errors[key].paint(prediction and prediction.error, -limit, limit)
            suffix = note if predictor.adapted and prediction else ""
            show(self.titles[key], text.title(predictor.name, suffix, predictor.color))
            show(self.numbers[key], _prediction_numbers(key, prediction))
        show(self.titles["source"], text.title("Source f", "click to place, drag to move", GREY))
        show(self.titles["solution"], text.title("Spectral solution", "exact", GREY))
        rows = [
            ("largest", text.number(float(frame.source.max())), "source-max"),
            ("grid", f"{RESOLUTION} × {RESOLUTION}", "grid"),
        ]
        show(self.numbers["source"], text.numbers(rows))
        rows = [
            ("relative error", "0 (exact)", "solution-error"),
            ("PDE residual", text.percent(frame.solution_residual), "solution-residual"),
            ("time", f"{frame.solution_milliseconds:.1f} ms", "solution-time"),
        ]
        show(self.numbers["solution"], text.numbers(rows))
        show(self.solution_bar, text.colour_bar("Solutions u", Viridis256, low, high, "solution-bar"))
        show(self.error_bar, text.colour_bar("Errors", list(DIVERGING), -limit, limit, "error-bar"))
        self._paint_cut()

    def _set_limits(self, frame: Frame) -> None:
        low, high = float(frame.solution.min()), float(frame.solution.max())
        span = high - low or 1.0
        shown = [p for p in frame.predictions.values() if p is not None]
        # A prediction far off would flatten all others: beyond half a span the scale saturates.
        for prediction in shown:
            low = min(low, max(float(prediction.values.min()), float(frame.solution.min()) - span / 2))
            high = max(high, min(float(prediction.values.max()), float(frame.solution.max()) + span / 2))
        self._solution_limits = low, high
        # The twin from scratch is often ten times worse: it saturates, so that the others can be compared.
        compared = [p for key, p in frame.predictions.items() if p is not None and not PREDICTIONS[key].saturates]
        largest = max((float(np.abs(p.error).max()) for p in compared or shown), default=0.0)
        self._error_limit = min(largest, span) or 1.0

    def cut_at(self, y: float) -> None:
        """Move the cut to the row nearest to y."""
        self._row = round(y * RESOLUTION) % RESOLUTION
        for span in self.spans:
            span.location = self._row / RESOLUTION
        self._paint_cut()

    def _paint_cut(self) -> None:
        if self.frame is None:
            return
        row = self._row
        for key, source in self.cuts.items():
            shown = self.frame.predictions.get(key)
            values = self.frame.solution if key == "solution" else shown and shown.values
            source.data.update(_cut(values, row, shown and shown.spread))  # sent at once
        title = f"Cut at y = {row / RESOLUTION:.3f}"
        show(self.cut_title, text.title(title, "click a field to move it; thick grey: exact"))

    # Layout ---------------------------------------------------------------------------------------------------------

    def layout(self) -> pn.viewable.Viewable:
        """The view: source and solution over the cut, then a column for each prediction over its error."""

        exact = [
            column(self.titles[k], self.fields[k].pane, self.numbers[k], margin=GAP) for k in ("source", "solution")
        ]
        # Twice the width of a prediction, and the margins of its own two columns: all five images are of one size.
        left = column(pn.Row(*exact, **WIDE), self.cut_title, self.cut_pane, share="2 1 24px")
        predictions = [
            column(
                self.titles[key],
                self.fields[key].pane,
                self.numbers[key],
                Html(text.title("Error", "prediction − solution"), margin=0),
                self.errors[key].pane,
                margin=GAP,
            )
            for key in self.errors
        ]
        bars = pn.Row(
            self.solution_bar,
            self.error_bar,
            self.lock,
            sizing_mode="stretch_width",
            align="center",
            margin=(4, 0, 2, 0),
        )
        return pn.Column(bars, pn.Row(left, *predictions, **WIDE), **WIDE)


def _cut(values: np.ndarray | None, row: int, spread: np.ndarray | None = None) -> dict[str, np.ndarray]:
    """Columns of the cut through values, with the band of their spread; blank where there are none."""
    blank = np.full(RESOLUTION, np.nan, dtype=np.float32)
    y = blank if values is None else np.ascontiguousarray(values[row], dtype=np.float32)
    low, high = (blank, blank) if spread is None else (y - spread[row], y + spread[row])
    return {"y": y, "low": low, "high": high}


def _prediction_numbers(key: str, prediction: Prediction | None) -> str:
    values = ["–"] * 3
    if prediction is not None:
        sizes = text.percent(prediction.relative_error), text.percent(prediction.residual)
        values = [*sizes, f"{prediction.milliseconds:.0f} ms"]
    labels = ("relative error", "PDE residual", "time")
    return text.numbers([(label, v, f"{key}-{label.split()[-1]}") for label, v in zip(labels, values, strict=True)])
