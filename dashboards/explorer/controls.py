"""The controls beside the fields: system, model, dial, other parameters, source."""

from __future__ import annotations

import math
from dataclasses import replace
from functools import partial
from html import escape

import panel as pn
import panel_material_ui as pmui

from sciml_fm_core.physics.parameter import Parameter
from sciml_fm_core.physics.sources import PRESETS
from sciml_fm_core.physics.system import SYSTEMS

from . import text
from .parts import Html, show
from .state import ExploreState

NO_PRESET = ""


def slider_of(parameter: Parameter, value: float, **look) -> pmui.FloatSlider | pmui.DiscreteSlider:
    """A slider over the values of a parameter; that of an angle is in degrees."""
    look = {"label": parameter.title, "description": parameter.help, "sizing_mode": "stretch_width"} | look
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


class SystemControls:
    """System, equation and model."""

    def __init__(self, state: ExploreState):
        self.state = state
        self.system = pmui.Select(
            label="Equation (system)",
            options={f"{system.title or name} ({system.label})": name for name, system in SYSTEMS.items()},
            value=state.system_name,
            sizing_mode="stretch_width",
            description="The PDE to solve on the periodic unit square.",
        )
        self.model = pmui.Select(
            label="Pre-trained model",
            sizing_mode="stretch_width",
            description="A specialist was trained on one equation, a mixed model on several. Those that are told the "
            "symbol of an equation can be applied to any, also one that they were never trained on.",
        )
        self.equation, self.card = Html(), Html()
        self.system.param.watch(lambda event: self._choose_system(event.new), "value")
        self.model.param.watch(lambda event: self._choose_bundle(event.new), "value")
        state.param.watch(lambda *_: self.refresh(), ["system_name", "bundle_name"])
        self.refresh()

    def _choose_system(self, name: str) -> None:
        if name != self.state.system_name:
            self.state.choose_system(name)

    def _choose_bundle(self, name: str | None) -> None:
        if name and name != self.state.bundle_name:
            self.state.choose_bundle(name)

    def refresh(self) -> None:
        """Follow the state."""
        state = self.state
        options = {bundle.label: bundle.name for bundle in state.bundles_of(state.system)}
        self.system.value = state.system_name
        if self.model.options != options:
            self.model.param.update(options=options, value=state.bundle_name)
        else:
            self.model.value = state.bundle_name
        self.card.object = self._card()

    def _card(self) -> str:
        bundle = self.state.bundle
        if bundle is None:
            return text.message("No trained operator knows this system.", "error")
        history = escape(bundle.history_on(self.state.system))
        return f"<div data-test='card' style='font-size:12px;opacity:.85'>{history}</div>"

    def layout(self) -> list:
        """Its parts, from top to bottom."""
        return [self.system, self.equation, self.model, self.card]


class DialControls:
    """The dial over its strip of ranges, the badge, and the other parameters."""

    def __init__(self, state: ExploreState):
        self.state = state
        self.strip, self.badge = Html(margin=(0, 18, 6, 18)), Html(margin=(2, 10, 4, 10))
        self.box = pn.Column(sizing_mode="stretch_width", margin=0)
        self.slider: pn.widgets.Widget | None = None
        self.parameters: dict[str, pmui.FloatSlider] = {}
        state.param.watch(lambda *_: self.rebuild(), "system_name")
        state.param.watch(lambda *_: self.refresh(), ["dial", "parameters", "bundle_name"])
        self.rebuild()

    def rebuild(self) -> None:
        """New sliders for another system."""
        state = self.state
        # The dial is in the unit of the labels of tasks, whatever it is.
        self.slider = slider_of(replace(state.scale, angle=False), state.dial, margin=(8, 18, 0, 18))
        self.slider.param.watch(lambda event: self._dial_moved(event.new), "value")
        self.parameters = {}
        for parameter in state.system.parameters:
            slider = slider_of(parameter, state.parameters[parameter.name], margin=(2, 18, 0, 18), size="small")
            slider.param.watch(partial(self._parameter_moved, parameter), "value")
            self.parameters[parameter.name] = slider
        first, more = list(self.parameters.values())[:1], list(self.parameters.values())[1:]
        self.box[:] = [self.slider, self.strip, self.badge, *first]
        if more:
            folded = ("More parameters", pn.Column(*more, sizing_mode="stretch_width"))
            self.box.append(pmui.Accordion(folded, active=[], title_variant="body1", sizing_mode="stretch_width"))
        self.refresh()

    # A slider sends values like 3.3000000000000003: rounded, they are compared with what the dial can take. To send one
    # back would make a dial jump that is still moving.

    def _dial_moved(self, value: float) -> None:
        if value is not None and self.state.scale.snap(value) != self.state.dial:
            self.state.set_dial(value)

    def _parameter_moved(self, parameter: Parameter, event) -> None:
        value = math.radians(event.new) if parameter.angle else event.new
        if not math.isclose(value, self.state.parameters.get(parameter.name, math.inf), abs_tol=1e-9):
            self.state.set_parameter(parameter.name, value)

    def refresh(self) -> None:
        """Follow the state."""
        state = self.state
        if self.slider is not None and state.scale.snap(self.slider.value) != state.dial:
            self.slider.value = state.dial
        self.strip.object = text.strip(state.system, state.dial, state.trained_range)
        show(self.badge, text.badge(state.shift))


class SourceControls:
    """The source: drawn at random, or Gaussians placed by hand."""

    def __init__(self, state: ExploreState):
        self.state = state
        wide = {"size": "small", "sizing_mode": "stretch_width"}
        self.seed = pmui.IntInput(
            label="Seed", value=state.seed, start=0, end=2**31 - 1, width=110, size="small",
            description="Of the random source.",
        )  # fmt: skip
        self.draw = pmui.Button(label="New draw", variant="outlined", icon="casino", margin=(10, 10))
        self.sparsity = pmui.FloatSlider(
            label="Sparsity", start=0, end=0.95, step=0.05, value=state.sparsity, format="0.00", margin=(0, 18), **wide,
            description="Probability that a Gaussian of the 12 × 12 lattice is absent.",
        )  # fmt: skip
        self.preset = pmui.Select(
            label="Draw by hand",
            options={"choose a preset": NO_PRESET} | {name.capitalize(): name for name in PRESETS},
            value=NO_PRESET,
            description="Or click on the source field to place Gaussians; drag to move them; "
            "select one and press backspace to remove it.",
            **wide,
        )
        self.sign = pmui.RadioButtonGroup(
            label="Sign of new Gaussians", options={"+": 1.0, "−": -1.0}, value=1.0, size="small",
            description="Sign of the Gaussians placed next.",
        )  # fmt: skip
        self.remove = pmui.Button(label="Remove last", variant="outlined", size="small")
        self.clear = pmui.Button(label="Clear", variant="outlined", size="small")
        self.seed.param.watch(lambda event: self._seed_changed(event.new), "value")
        self.draw.on_click(lambda _: state.draw_random(state.seed + 1))
        self.sparsity.param.watch(lambda event: self._sparsity_moved(event.new), "value")
        self.preset.param.watch(lambda event: self._preset_chosen(event.new), "value")
        self.remove.on_click(lambda _: state.place_gaussians(state.gaussians[:-1]) if state.drawn else None)
        self.clear.on_click(lambda _: state.place_gaussians([]))
        state.param.watch(lambda *_: self.refresh(), ["seed", "sparsity", "drawn", "gaussians"])
        self.refresh()

    def _seed_changed(self, seed: int | None) -> None:
        if seed is not None and seed != self.state.seed:
            self.state.draw_random(seed)

    def _sparsity_moved(self, sparsity: float) -> None:
        if sparsity != self.state.sparsity:
            self.state.param.update(sparsity=sparsity, drawn=False)

    def _preset_chosen(self, name: str | None) -> None:
        if name != NO_PRESET:
            self.state.place_gaussians(list(PRESETS[name]))

    def edited(self, rows: list[tuple[float, float, float | None]]) -> None:
        """Take over rows edited on the field; a new one has no amplitude yet and gets the chosen sign."""
        self.state.place_gaussians([(x, y, self.sign.value if a is None else a) for x, y, a in rows])

    def refresh(self) -> None:
        """Follow the state."""
        state = self.state
        self.seed.value, self.sparsity.value = state.seed, state.sparsity
        if not state.drawn:
            self.preset.value = NO_PRESET
        self.remove.disabled = self.clear.disabled = not (state.drawn and state.gaussians)

    def layout(self) -> list:
        """Its parts, from top to bottom."""
        return [
            pn.Row(self.seed, self.draw, margin=0),
            self.sparsity,
            self.preset,
            self.sign,
            pn.Row(self.remove, self.clear, margin=(4, 0, 10, 0)),
        ]
