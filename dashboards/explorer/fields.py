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
from .compute import PREDICTIONS, RESOLUTION, Frame

hv.extension("bokeh")

NAMES = {
    "source": "Source f",
    "solution": "Spectral solution u",
    "zero_shot": "Zero-shot",
    "fine_tuned": "Fine-tuned",
    "from_scratch": "From scratch",
}
COLORS = {
    "source": "#888888",
    "solution": "#888888",
    "zero_shot": "#0072B2",
    "fine_tuned": "#009E73",
    "from_scratch": "#D55E00",
}
"""Okabe-Ito: told apart with any colour vision."""

DIVERGING = hv.plotting.util.process_cmap("RdBu_r", 256)
CUT_HEIGHT = 210
TOOLS = ["pan", "box_zoom", "wheel_zoom", "reset"]
EMPTY = {
    "fine_tuned": "Nothing fine-tuned yet",
    "from_scratch": "Nothing trained yet",
    "zero_shot": "No trained operator",
}


class FieldImage:
    """One field as an image; `paint` is the only thing that happens on the hot path."""

    def __init__(self, palette: list[str], x_range: Range1d, y_range: Range1d, description: str):
        half = 0.5 / RESOLUTION  # a pixel is centred on its grid point
        element = hv.Image(
            np.zeros((RESOLUTION, RESOLUTION), dtype=np.float32), bounds=(-half, -half, 1 - half, 1 - half)
        ).opts(
            cmap=palette,
            clim=(0, 1),
            xaxis=None,
            yaxis=None,
            default_tools=[],
            tools=[],
            toolbar=None,
            responsive=True,
            data_aspect=None,
            framewise=False,
            axiswise=False,
        )
        plot = hv.renderer("bokeh").get_plot(element)
        self.figure, self.source, self.mapper = plot.state, plot.handles["source"], plot.handles["color_mapper"]
        self.glyph = plot.handles["glyph_renderer"]
        fig = self.figure
        fig.name = description
        fig.x_range, fig.y_range = x_range, y_range
        fig.add_tools(*TOOLS)
        fig.add_tools(HoverTool(tooltips=[("(x, y)", "($x{0.000}, $y{0.000})"), ("value", "@image{0.0000}")]))
        fig.toolbar.active_drag = next(tool for tool in fig.tools if type(tool).__name__ == "PanTool")
        fig.toolbar_location, fig.toolbar_inner, fig.toolbar.autohide = "right", True, True
        fig.toolbar.logo = None
        fig.sizing_mode, fig.aspect_ratio = "stretch_width", 1
        fig.width = fig.height = None
        fig.min_width = 90
        fig.min_border = 0
        fig.border_fill_alpha = fig.background_fill_alpha = 0
        fig.outline_line_color, fig.outline_line_alpha = "#888888", 0.5
        self.empty = Label(
            x=0.5,
            y=0.5,
            text="",
            text_align="center",
            text_baseline="middle",
            text_color="#8a8a8a",
            text_font_size="13px",
        )
        fig.add_layout(self.empty)
        self.pane = pn.pane.Bokeh(fig, sizing_mode="stretch_width", margin=0)

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
        self.x_range = Range1d(-half, 1 - half, bounds=(-half, 1 - half), min_interval=0.05)
        self.y_range = Range1d(-half, 1 - half, bounds=(-half, 1 - half), min_interval=0.05)
        self.fields = {name: FieldImage(Viridis256, self.x_range, self.y_range, NAMES[name]) for name in NAMES}
        self.errors = {
            name: FieldImage(DIVERGING, self.x_range, self.y_range, f"Error of {NAMES[name]}") for name in PREDICTIONS
        }
        self.titles = {name: pn.pane.HTML(margin=0, sizing_mode="stretch_width") for name in NAMES}
        self.numbers = {name: pn.pane.HTML(margin=(4, 0, 6, 0), sizing_mode="stretch_width") for name in NAMES}
        self.solution_bar = pn.pane.HTML(sizing_mode="stretch_width", margin=(0, 10))
        self.error_bar = pn.pane.HTML(sizing_mode="stretch_width", margin=(0, 10))
        self.lock = pmui.Switch(
            label="Lock scales",
            value=False,
            width=140,
            margin=(0, 0),
            description="Keep both colour scales as they are, to compare one setting with the next.",
        )
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
        for image in (*self.fields.values(), *self.errors.values()):
            span = Span(location=0.5, dimension="width", line_color="#ffffff", line_dash="dotted", line_width=1.5)
            image.figure.add_layout(span)
            self.spans.append(span)
        for image in self.errors.values():
            self.spans[list((*self.fields.values(), *self.errors.values())).index(image)].line_color = "#555555"
        fig = figure(
            x_range=self.x_range,
            height=CUT_HEIGHT,
            sizing_mode="stretch_width",
            tools="",
            toolbar_location=None,
            min_border=4,
        )
        fig.name = "Cut through the fields"
        fig.border_fill_alpha = fig.background_fill_alpha = 0
        fig.xaxis.axis_label, fig.yaxis.axis_label = "x", "u"
        fig.yaxis.axis_label_standoff = 0
        x = np.arange(RESOLUTION, dtype=np.float32) / RESOLUTION
        self._cut_sources = {}
        for name, width, dash in (
            ("solution", 5, "solid"),
            ("zero_shot", 2, "solid"),
            ("fine_tuned", 2, "dashed"),
            ("from_scratch", 2, "dotted"),
        ):
            source = ColumnDataSource({"x": x, "y": np.full(RESOLUTION, np.nan, dtype=np.float32)})
            fig.line(
                "x",
                "y",
                source=source,
                color=COLORS[name],
                line_width=width,
                line_dash=dash,
                line_alpha=0.45 if name == "solution" else 1,
            )
            self._cut_sources[name] = source
        self.cut_pane = pn.pane.Bokeh(fig, sizing_mode="stretch_width", height=CUT_HEIGHT, margin=0)
        self.cut_figure = fig
        self.cut_title = pn.pane.HTML(margin=0, sizing_mode="stretch_width")

    def _build_drawing(self) -> None:
        fig = self.fields["source"].figure
        self.points = ColumnDataSource({"x": [], "y": [], "amplitude": []})
        renderer = fig.scatter(
            "x",
            "y",
            source=self.points,
            size=13,
            line_color="white",
            line_width=2,
            fill_color=linear_cmap("amplitude", ["#2166ac", "#b2182b"], -1, 1),
            fill_alpha=0.9,
        )
        tool = PointDrawTool(renderers=[renderer], add=True, drag=True, empty_value=0)
        fig.add_tools(tool)
        fig.toolbar.active_tap = tool
        fig.toolbar.active_drag = tool
        self._setting_points = False
        self.points.on_change("data", self._points_edited)

    def _points_edited(self, _name, _old, new) -> None:
        if self._setting_points:
            return
        amplitudes = list(new["amplitude"]) + [0] * (len(new["x"]) - len(new["amplitude"]))
        self._on_gaussians(
            [
                (float(x) % 1, float(y) % 1, float(a) if a else None)
                for x, y, a in zip(new["x"], new["y"], amplitudes, strict=False)
            ]
        )

    def show_points(self, rows: list[tuple[float, float, float]]) -> None:
        """Put the handles of the drawn source where its Gaussians are."""
        columns = [list(column) for column in zip(*rows, strict=True)] if rows else [[], [], []]
        self._setting_points = True
        try:
            self.points.data = dict(zip(("x", "y", "amplitude"), columns, strict=True))
        finally:
            self._setting_points = False

    # Painting -------------------------------------------------------------------------------------------------------

    def paint(self, frame: Frame, note: str = "") -> None:
        """Show a frame; ``note`` says on what the adapted operators were trained."""
        self.frame = frame
        predictions = frame.predictions
        if not self.lock.value:
            self._set_limits(frame)
        low, high = self._solution_limits
        source_size = float(np.abs(frame.source).max()) or 1.0
        self.fields["source"].paint(frame.source, float(frame.source.min()), source_size)
        self.fields["solution"].paint(frame.solution, low, high)
        for name in PREDICTIONS:
            prediction = predictions[name]
            self.fields[name].paint(prediction and prediction.values, low, high, EMPTY[name])
            self.errors[name].paint(prediction and prediction.error, -self._error_limit, self._error_limit, "")
            suffix = note if name != "zero_shot" and prediction else ""
            self._set(self.titles[name], text.title(NAMES[name], suffix, COLORS[name]))
            self._set(self.numbers[name], _prediction_numbers(name, prediction))
        self._set(self.titles["source"], text.title("Source f", "click to place, drag to move", COLORS["source"]))
        self._set(self.titles["solution"], text.title("Spectral solution", "exact", COLORS["solution"]))
        self._set(
            self.numbers["source"],
            text.numbers(
                [
                    ("largest", text.number(float(frame.source.max())), "source-max"),
                    ("grid", f"{RESOLUTION} × {RESOLUTION}", "grid"),
                ]
            ),
        )
        self._set(
            self.numbers["solution"],
            text.numbers(
                [
                    ("relative error", "0 (exact)", "solution-error"),
                    ("PDE residual", text.percent(frame.solution_residual), "solution-residual"),
                    ("time", f"{frame.solution_milliseconds:.1f} ms", "solution-time"),
                ]
            ),
        )
        self._set(self.solution_bar, text.colour_bar("Solutions u", Viridis256, low, high, "solution-bar"))
        limit = self._error_limit
        self._set(self.error_bar, text.colour_bar("Errors", list(DIVERGING), -limit, limit, "error-bar"))
        self._paint_cut()

    @staticmethod
    def _set(pane: pn.pane.HTML, html: str) -> None:
        if pane.object != html:
            pane.object = html

    def _set_limits(self, frame: Frame) -> None:
        low, high = float(frame.solution.min()), float(frame.solution.max())
        span = high - low or 1.0
        shown = [p for p in frame.predictions.values() if p is not None]
        # A prediction far off would flatten all others: beyond half a span the scale saturates.
        for prediction in shown:
            low = min(low, max(float(prediction.values.min()), float(frame.solution.min()) - span / 2))
            high = max(high, min(float(prediction.values.max()), float(frame.solution.max()) + span / 2))
        self._solution_limits = low, high
        # The twin from scratch is often ten times worse: it saturates, so that the other two can be compared.
        compared = [p for name, p in frame.predictions.items() if p is not None and name != "from_scratch"]
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
        blank = np.full(RESOLUTION, np.nan, dtype=np.float32)
        for name, source in self._cut_sources.items():
            prediction = self.frame.predictions.get(name)
            values = self.frame.solution if name == "solution" else None if prediction is None else prediction.values
            source.data["y"] = blank if values is None else np.ascontiguousarray(values[row], dtype=np.float32)
        self._set(
            self.cut_title,
            text.title(f"Cut at y = {row / RESOLUTION:.3f}", "click a field to move it; thick grey: exact"),
        )

    # Layout ---------------------------------------------------------------------------------------------------------

    def layout(self) -> pn.viewable.Viewable:
        """The view: source and solution over the cut, then a column for each prediction over its error."""

        def column(*parts) -> pn.Column:
            return pn.Column(
                *parts, sizing_mode="stretch_width", margin=(0, 6), styles={"flex": "1 1 0", "min-width": "0"}
            )

        left = column(
            pn.Row(
                *(
                    column(self.titles[name], self.fields[name].pane, self.numbers[name])
                    for name in ("source", "solution")
                ),
                sizing_mode="stretch_width",
                margin=0,
            ),
            self.cut_title,
            self.cut_pane,
        )
        # Twice the width of a prediction, and the margins of its own two columns: all five images are of one size.
        left.margin, left.styles = 0, {"flex": "2 1 24px", "min-width": "0"}
        predictions = [
            column(
                self.titles[name],
                self.fields[name].pane,
                self.numbers[name],
                pn.pane.HTML(text.title("Error", "prediction − solution"), margin=0, sizing_mode="stretch_width"),
                self.errors[name].pane,
            )
            for name in PREDICTIONS
        ]
        bars = pn.Row(
            self.solution_bar,
            self.error_bar,
            self.lock,
            sizing_mode="stretch_width",
            align="center",
            margin=(4, 0, 2, 0),
        )
        return pn.Column(
            bars,
            pn.Row(left, *predictions, sizing_mode="stretch_width", margin=0),
            sizing_mode="stretch_width",
            margin=0,
        )


def _prediction_numbers(name: str, prediction) -> str:
    values = (
        ("–", "–", "–")
        if prediction is None
        else (
            text.percent(prediction.relative_error),
            text.percent(prediction.residual),
            f"{prediction.milliseconds:.0f} ms",
        )
    )
    labels = ("relative error", "PDE residual", "time")
    return text.numbers(
        [(label, value, f"{name}-{label.split()[-1]}") for label, value in zip(labels, values, strict=True)]
    )
