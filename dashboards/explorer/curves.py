"""The progress of a fine-tuning as line charts."""

from __future__ import annotations

import panel as pn
from bokeh.models import ColumnDataSource, NumeralTickFormatter
from bokeh.plotting import figure

from .parts import WIDE, plain
from .predictions import PREDICTIONS


def _empty() -> ColumnDataSource:
    return ColumnDataSource({"x": [], "y": []})


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
        self._figure = fig
        self.pane = pn.pane.Bokeh(None, height=190, **WIDE)  # an empty logarithmic axis would be complained of

    def paint(self, curves: dict[str, tuple[tuple[int, float, float | None], ...]]) -> None:
        """Show rows (step, loss, validation error or None)."""
        for name, loss in self._loss.items():
            rows = curves.get(name, ())
            loss.data = {"x": [row[0] for row in rows], "y": [row[1] for row in rows]}
            validated = [row for row in rows if row[2] is not None]
            self._validation[name].data = {"x": [row[0] for row in validated], "y": [row[2] for row in validated]}
        if self.pane.object is None and any(curves.values()):
            self.pane.object = self._figure
