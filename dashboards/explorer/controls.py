"""The controls of the drawer: the parameters beside the dial, and the random source."""

from __future__ import annotations

import math
from functools import partial
from html import escape

import panel as pn
import panel_material_ui as pmui

from sciml_fm_core.physics.parameter import Parameter
from sciml_fm_core.physics.sources import PRESETS

from . import text
from .parts import Html, WholeInput, show
from .state import ExploreState

NO_PRESET = ""
UNKNOWN = "No trained operator knows this system."
PRESETS_AS_ROWS = {name: [tuple(map(float, row)) for row in rows] for name, rows in PRESETS.items()}


def slider_of(parameter: Parameter, value: float, **look) -> pmui.FloatSlider | pmui.DiscreteSlider:
    """A slider over the values of a parameter; that of an angle is in degrees."""
    look = {"label": parameter.title, "sizing_mode": "stretch_width"} | look
    if parameter.logarithmic:
        options = {f"{value:g}": value for value in parameter.values()}
        return pmui.DiscreteSlider(options=options, value=parameter.snap(value), **look)
    low, high, step = parameter.low, parameter.high, parameter.step or (parameter.high - parameter.low) / 100
    if parameter.angle:
        look["label"] += " (°)"
        high = min(high, low + parameter.period)
        low, high, value = (math.degrees(angle) for angle in (low, high, value))
        step = math.degrees(parameter.step) if parameter.step else 5
    # As many decimals as the step has.
    number = "0." + "0" * len(f"{step:g}".partition(".")[2])
    return pmui.FloatSlider(
        start=low, end=high, step=step, value=round(value, 6), format=number.removesuffix("."), **look
    )


class ParameterControls:
    """What the operator was trained on, the equation with its values, and the parameters beside the dial."""

    def __init__(self, state: ExploreState):
        self.state = state
        self.card, self.equation = Html(), Html()
        self.box = pn.Column(sizing_mode="stretch_width", margin=0)
        self.parameters: dict[str, pmui.FloatSlider] = {}
        state.param.watch(lambda *_: self.rebuild(), "system_name")
        state.param.watch(lambda *_: self.refresh(), ["system_name", "bundle_name"])
        self.rebuild()
        self.refresh()

    def rebuild(self) -> None:
        """New sliders for another system."""
        state = self.state
        self.parameters = {}
        for parameter in state.system.parameters:
            slider = slider_of(parameter, state.parameters[parameter.name], margin=(2, 18, 0, 18), size="small")
            slider.param.watch(partial(self._parameter_moved, parameter), "value")
            self.parameters[parameter.name] = slider
        helps = [Html(f"<small>{escape(p.help)}</small>", margin=(0, 18)) for p in state.system.parameters]
        self.box[:] = [part for pair in zip(self.parameters.values(), helps, strict=True) for part in pair]

    # A slider sends values like 3.3000000000000003: compared to a rounding, they are not sent back to one that moves.
    def _parameter_moved(self, parameter: Parameter, event) -> None:
        value = math.radians(event.new) if parameter.angle else event.new
        if not math.isclose(value, self.state.parameters.get(parameter.name, math.inf), abs_tol=1e-9):
            self.state.set_parameter(parameter.name, value)

    def refresh(self) -> None:
        """Follow the state."""
        bundle = self.state.bundle
        if bundle is None:
            chosen = "No operator is chosen." if self.state.bundles_of(self.state.system) else UNKNOWN
            show(self.card, text.message(chosen, "error"))
            return
        history = escape(bundle.history_on(self.state.system))
        show(self.card, f"<div data-test='card' style='font-size:13px'>{history}</div>")

    def show_values(self, coefficients: dict[str, float]) -> None:
        """The equation with the coefficients of the example on the page."""
        show(self.equation, text.equation(self.state.system, coefficients))

    def layout(self) -> list:
        """The parts, from top to bottom."""
        return [self.card, self.equation, self.box]


class SourceControls:
    """The source: drawn at random, or Gaussians placed by hand."""

    def __init__(self, state: ExploreState):
        self.state = state
        self.seed = WholeInput.from_param(state.param.seed, width=130)
        self.draw = pmui.Button(label="New draw", variant="outlined", icon="casino", margin=(10, 10))
        self.sparsity = pmui.FloatSlider.from_param(
            state.param.sparsity, end=0.95, step=0.05, format="0.00", margin=(0, 18), size="small",
            sizing_mode="stretch_width",
        )  # fmt: skip
        # A native menu, which opens by keyboard too.
        self.preset = pn.widgets.Select(
            label="A source unlike the training data",
            options={"choose a preset": NO_PRESET} | {name.capitalize(): name for name in PRESETS},
            value=NO_PRESET,
            sizing_mode="stretch_width",
        )
        self.draw.on_click(lambda _: state.draw_random((state.seed + 1) % 2**31))
        self.preset.param.watch(lambda event: self._preset_chosen(event.new), "value")
        state.param.watch(lambda *_: self._follow_gaussians(), ["drawn", "gaussians"])

    def _preset_chosen(self, name: str | None) -> None:
        if name != NO_PRESET:
            self.state.place_gaussians(list(PRESETS[name]))

    def _follow_gaussians(self) -> None:
        if self.preset.value != NO_PRESET and self.state.gaussians != PRESETS_AS_ROWS[self.preset.value]:
            self.preset.value = NO_PRESET  # edited since: it can be chosen again

    def layout(self) -> list:
        """The parts, from top to bottom."""
        return [
            pn.Row(self.seed, self.draw, margin=0),
            self.sparsity,
            self.preset,
        ]
