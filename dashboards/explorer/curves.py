"""Line charts: the error along the dial, and the progress of a fine-tuning."""

from __future__ import annotations

from collections.abc import Callable

import panel as pn
from bokeh.events import Tap
from bokeh.models import BoxAnnotation, ColumnDataSource, HoverTool, NumeralTickFormatter, Span
from bokeh.plotting import figure

from sciml_fm_core.physics.parameter import Parameter

from .parts import WIDE, plain
from .predictions import PREDICTIONS


def _empty() -> ColumnDataSource:
    return ColumnDataSource({"x": [], "y": []})


class DialErrors:
    """Relative error of every prediction over the whole dial; a click goes there.

    Args:
        on_pick: called with the dial value that was clicked.
    """

    def __init__(self, on_pick: Callable[[float], None]):
        self._on_pick = on_pick
        self.pane = pn.pane.Bokeh(height=300, **WIDE)

    def set_scale(self, dial: Parameter, trained: tuple[float, float] | None) -> None:
        """Start a new chart for a dial, with the pre-training band where there is one."""
        fig = figure(
            height=300, sizing_mode="stretch_width", y_axis_type="log", x_range=(dial.low, dial.high),
            x_axis_type="log" if dial.logarithmic else "linear", tools="xwheel_zoom,xpan,reset,save",
            toolbar_location="right",
        )  # fmt: skip
        fig.name = "Error along the dial"
        fig.xaxis.axis_label, fig.yaxis.axis_label = dial.title, "relative error"
        fig.yaxis.formatter = NumeralTickFormatter(format="0.[0000]%")
        if trained:
            left, right = trained
            fig.add_layout(
                BoxAnnotation(left=left, right=right, fill_color="#0072B2", fill_alpha=0.14, line_color=None)
            )
        self._value = Span(location=dial.low, dimension="height", line_color="#D55E00", line_width=2)
        fig.add_layout(self._value)
        self._curves, self._marks, renderers = {}, {}, []
        for key, predictor in PREDICTIONS.items():
            curve, mark = self._curves[key], self._marks[key] = _empty(), _empty()
            color = predictor.color
            fig.line("x", "y", source=curve, color=color, line_width=2, legend_label=predictor.name)
            renderers.append(fig.scatter("x", "y", source=curve, color=color, size=4))
            fig.scatter(
                "x", "y", source=mark, color=color, size=12, marker="diamond", line_color="white",
                legend_label="the example above",
            )  # fmt: skip
        fig.add_tools(HoverTool(renderers=renderers, tooltips=[(dial.title, "@x"), ("relative error", "@y{0.00%}")]))
        plain(fig)
        fig.legend.orientation = "horizontal"
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
    """Training loss and validation error by step, of the operators that a fine-tuning trains."""

    def __init__(self) -> None:
        fig = figure(
            height=190, sizing_mode="stretch_width", y_axis_type="log", tools="", toolbar_location=None, min_border=2
        )
        plain(fig)
        fig.yaxis.formatter = NumeralTickFormatter(format="0.[000]a")
        fig.name = "Learning curves"
        fig.xaxis.axis_label, fig.yaxis.axis_label = "step", "loss, error"
        self._loss, self._validation = {}, {}
        for key, predictor in PREDICTIONS.items():
            if predictor.train:
                loss, validation = self._loss[key], self._validation[key] = _empty(), _empty()
                fig.line("x", "y", source=loss, color=predictor.color, line_alpha=0.5)
                fig.line("x", "y", source=validation, color=predictor.color, line_width=2)
                fig.scatter("x", "y", source=validation, color=predictor.color, size=5)
        self.pane = pn.pane.Bokeh(fig, height=190, **WIDE)

    def paint(self, curves: dict[str, tuple[tuple[int, float, float | None], ...]]) -> None:
        """Show rows (step, loss, validation error or None)."""
        for name, loss in self._loss.items():
            rows = curves.get(name, ())
            loss.data = {"x": [row[0] for row in rows], "y": [row[1] for row in rows]}
            validated = [row for row in rows if row[2] is not None]
            self._validation[name].data = {"x": [row[0] for row in validated], "y": [row[2] for row in validated]}
