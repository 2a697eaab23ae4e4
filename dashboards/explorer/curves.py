"""Line charts: the error along the dial, and the progress of a fine-tuning."""

from __future__ import annotations

from collections.abc import Callable

import panel as pn
from bokeh.events import Tap
from bokeh.models import BoxAnnotation, ColumnDataSource, HoverTool, NumeralTickFormatter, Span
from bokeh.plotting import figure

from .compute import PREDICTIONS
from .fields import COLORS, NAMES
from .state import Dial


def _plain(fig: figure) -> figure:
    fig.border_fill_alpha = fig.background_fill_alpha = 0
    fig.toolbar.logo = None
    fig.grid.grid_line_alpha = 0.3
    fig.yaxis.formatter = NumeralTickFormatter(format="0.[0000]%")
    return fig


class DialErrors:
    """Relative error of every prediction over the whole dial; a click goes there.

    Args:
        on_pick: called with the dial value that was clicked.
    """

    def __init__(self, on_pick: Callable[[float], None]):
        self._on_pick = on_pick
        self._curves = {name: ColumnDataSource({"x": [], "y": []}) for name in PREDICTIONS}
        self._marks = {name: ColumnDataSource({"x": [], "y": []}) for name in PREDICTIONS}
        self._value = Span(location=0, dimension="height", line_color="#D55E00", line_width=2)
        self.pane = pn.pane.Bokeh(sizing_mode="stretch_width", height=300, margin=0)

    def set_scale(self, dial: Dial, label: str, trained: tuple[float, float]) -> None:
        """Start a new chart for a dial, with the pre-training band."""
        kind = "log" if dial.logarithmic else "linear"
        fig = figure(
            height=300,
            sizing_mode="stretch_width",
            x_axis_type=kind,
            y_axis_type="log",
            x_range=(dial.low, dial.high),
            tools="xwheel_zoom,xpan,reset,save",
            toolbar_location="right",
        )
        _plain(fig)
        fig.name = "Error along the dial"
        fig.toolbar.autohide = True
        fig.xaxis.axis_label, fig.yaxis.axis_label = label, "relative error"
        band = BoxAnnotation(left=trained[0], right=trained[1], fill_color="#0072B2", fill_alpha=0.14, line_color=None)
        fig.add_layout(band)
        self._value = Span(location=dial.low, dimension="height", line_color="#D55E00", line_width=2)
        fig.add_layout(self._value)
        renderers = []
        for name in PREDICTIONS:
            for table in (self._curves, self._marks):
                table[name] = ColumnDataSource({"x": [], "y": []})
            line = fig.line(
                "x", "y", source=self._curves[name], color=COLORS[name], line_width=2, legend_label=NAMES[name]
            )
            dots = fig.scatter("x", "y", source=self._curves[name], color=COLORS[name], size=4)
            fig.scatter(
                "x",
                "y",
                source=self._marks[name],
                color=COLORS[name],
                size=12,
                marker="diamond",
                line_color="white",
                legend_label="the example above",
            )
            renderers.append(dots)
            del line
        fig.add_tools(HoverTool(renderers=renderers, tooltips=[(label, "@x"), ("relative error", "@y{0.00%}")]))
        fig.legend.orientation = "horizontal"
        fig.legend.background_fill_alpha = 0
        fig.legend.border_line_alpha = 0
        fig.legend.padding = fig.legend.margin = 2
        fig.add_layout(fig.legend[0], "above")
        fig.on_event(Tap, lambda event: self._on_pick(event.x))
        self.figure = fig
        self.pane.object = fig

    def set_curve(self, name: str, points: list[tuple[float, float]]) -> None:
        """Points (dial, mean error) of one prediction, sorted here; NaN are left out."""
        points = sorted(point for point in points if point[1] == point[1] and point[1] > 0)
        self._curves[name].data = {"x": [p[0] for p in points], "y": [p[1] for p in points]}

    def set_present(self, dial: float, errors: dict[str, float | None]) -> None:
        """Where the dial stands, and the errors of the example on the page."""
        self._value.location = dial
        for name, error in errors.items():
            drawn = error is not None and error > 0
            self._marks[name].data = {"x": [dial] if drawn else [], "y": [error] if drawn else []}


class LearningCurves:
    """Training loss and validation error by step, of the fine-tuned operator and its from-scratch twin."""

    def __init__(self) -> None:
        fig = figure(
            height=190,
            sizing_mode="stretch_width",
            y_axis_type="log",
            tools="",
            toolbar_location=None,
            min_border=2,
        )
        _plain(fig)
        fig.yaxis.formatter = NumeralTickFormatter(format="0.[000]a")
        fig.name = "Learning curves"
        fig.xaxis.axis_label, fig.yaxis.axis_label = "step", "loss, error"
        self._loss, self._validation = {}, {}
        for name in ("fine_tuned", "from_scratch"):
            self._loss[name] = ColumnDataSource({"x": [], "y": []})
            self._validation[name] = ColumnDataSource({"x": [], "y": []})
            fig.line(
                "x",
                "y",
                source=self._loss[name],
                color=COLORS[name],
                line_alpha=0.5,
                legend_label=f"{NAMES[name]}: loss",
            )
            fig.line(
                "x", "y", source=self._validation[name], color=COLORS[name], line_width=2, legend_label="validation"
            )
            fig.scatter("x", "y", source=self._validation[name], color=COLORS[name], size=5)
        fig.legend.visible = False
        self.pane = pn.pane.Bokeh(fig, sizing_mode="stretch_width", height=190, margin=0)

    def paint(self, curves: dict[str, tuple[tuple[int, float, float | None], ...]]) -> None:
        """Show rows (step, loss, validation error or None)."""
        for name, loss in self._loss.items():
            rows = curves.get(name, ())
            loss.data = {"x": [row[0] for row in rows], "y": [row[1] for row in rows]}
            validated = [row for row in rows if row[2] is not None]
            self._validation[name].data = {"x": [row[0] for row in validated], "y": [row[2] for row in validated]}
