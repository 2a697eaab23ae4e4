"""The controls beside the fields: system, model, dial, other parameters, source."""

from __future__ import annotations

import math
from functools import partial

import panel as pn
import panel_material_ui as pmui

from sciml_fm_core.physics.sources import PRESETS
from sciml_fm_core.physics.system import SYSTEMS

from . import text
from .state import ExploreState, is_angle

NO_PRESET = ""
SYSTEM_LABELS = {"poisson": "Poisson", "advection_diffusion": "Advection–diffusion", "helmholtz": "Helmholtz"}
DIAL_LABELS = {
    "eigenvalue": "Eigenvalue e of the diffusion tensor",
    "advection ratio": "Advection ratio Ψ",
    "wavenumber": "Wavenumber ω",
}
DIAL_HELP = {
    "eigenvalue": "Ratio of the eigenvalues of K: how much faster diffusion is along its principal axis.",
    "advection ratio": "Ψ = ‖v·∇u‖ / ‖∇·K∇u‖: how strongly the flow carries u, compared with its diffusion.",
    "wavenumber": "The ω of the equation: the larger, the shorter the waves; the solution grows near a resonance. "
    "Tasks draw whole numbers only.",
}
PARAMETER_HELP = {
    "principal axis": "Turns the diffusion tensor.",
    "flow direction": "Direction of v.",
    "eigenvalue": "Ratio of the eigenvalues of K.",
}


def dial_label(name: str) -> str:
    """Name of a dial in full."""
    return DIAL_LABELS.get(name, name.capitalize())


class SystemControls:
    """System, equation and model."""

    def __init__(self, state: ExploreState):
        self.state = state
        self.system = pmui.Select(
            label="Equation (system)",
            options={SYSTEM_LABELS.get(name, name): name for name in SYSTEMS},
            value=state.system_name,
            sizing_mode="stretch_width",
            description="The PDE to solve on the periodic unit square.",
        )
        self.model = pmui.Select(
            label="Pre-trained model",
            sizing_mode="stretch_width",
            description="A specialist knows this system only, a mixed model several.",
        )
        self.equation = pn.pane.HTML(sizing_mode="stretch_width", margin=(0, 10))
        self.card = pn.pane.HTML(sizing_mode="stretch_width", margin=(0, 10))
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
        tasks = ", ".join(task.label for task in bundle.tasks) or "unknown tasks"
        seen = f"{bundle.examples_seen:,} examples seen"
        return f"<div style='font-size:12px;opacity:.85'>Pre-trained on {tasks}, {seen}</div>"

    def layout(self) -> list:
        """Its parts, from top to bottom."""
        return [self.system, self.equation, self.model, self.card]


class DialControls:
    """The dial over its strip of ranges, the badge, and the other parameters."""

    def __init__(self, state: ExploreState):
        self.state = state
        self.strip = pn.pane.HTML(sizing_mode="stretch_width", margin=(0, 18, 6, 18))
        self.badge = pn.pane.HTML(sizing_mode="stretch_width", margin=(2, 10, 4, 10))
        self.box = pn.Column(sizing_mode="stretch_width", margin=0)
        self.slider: pn.widgets.Widget | None = None
        self.parameters: dict[str, pmui.FloatSlider] = {}
        state.param.watch(lambda *_: self.rebuild(), "system_name")
        state.param.watch(lambda *_: self.refresh(), ["dial", "parameters", "bundle_name"])
        self.rebuild()

    def rebuild(self) -> None:
        """New sliders for another system."""
        state, scale = self.state, self.state.scale
        name = state.system.dial_name
        common = {
            "label": dial_label(name),
            "description": DIAL_HELP.get(name, ""),
            "sizing_mode": "stretch_width",
            "margin": (8, 18, 0, 18),
        }
        if scale.logarithmic:
            options = {f"{value:g}": value for value in scale.values()}
            self.slider = pmui.DiscreteSlider(options=options, value=scale.snap(state.dial), **common)
        else:
            self.slider = pmui.FloatSlider(
                start=scale.low, end=scale.high, step=scale.step, value=state.dial, format="0.0", **common
            )
        self.slider.param.watch(lambda event: self._dial_moved(event.new), "value")
        self.parameters = {}
        for parameter in state.system.parameters:
            angle = is_angle(parameter)
            # Half a turn gives the same tensor: K has an axis, not a direction.
            end = (180 if parameter.name == "principal axis" else 360) if angle else parameter.high
            factor = math.degrees(1) if angle else 1.0
            slider = pmui.FloatSlider(
                label=f"{parameter.name.capitalize()} (°)" if angle else f"Diffusion {parameter.name}",
                start=0 if angle else parameter.low,
                end=end,
                step=5 if angle else 0.1,
                value=round(state.parameters[parameter.name] * factor, 6),
                format="0" if angle else "0.0",
                description=PARAMETER_HELP.get(parameter.name, ""),
                sizing_mode="stretch_width",
                margin=(2, 18, 0, 18),
                size="small",
            )
            slider.param.watch(partial(self._parameter_moved, parameter.name, factor), "value")
            self.parameters[parameter.name] = slider
        sliders = list(self.parameters.values())
        more = sliders[1:]
        self.box[:] = [self.slider, self.strip, self.badge, *sliders[:1]] + (
            [
                pmui.Accordion(
                    ("More: diffusion tensor", pn.Column(*more, sizing_mode="stretch_width")),
                    active=[],
                    title_variant="body1",
                    sizing_mode="stretch_width",
                )
            ]
            if more
            else []
        )
        self.refresh()

    def _dial_moved(self, value: float) -> None:
        if value is not None and value != self.state.dial:
            self.state.set_dial(value)

    def _parameter_moved(self, name: str, factor: float, event) -> None:
        value = event.new / factor
        if not math.isclose(value, self.state.parameters.get(name, math.inf), abs_tol=1e-9):
            self.state.set_parameter(name, value)

    def refresh(self) -> None:
        """Follow the state."""
        state = self.state
        if self.slider is not None and self.slider.value != state.dial:
            self.slider.value = state.dial
        self.strip.object = text.strip(state.system, state.scale, state.dial, state.trained_range)
        badge = text.badge(state.shift)
        if self.badge.object != badge:
            self.badge.object = badge


class SourceControls:
    """The source: drawn at random, or Gaussians placed by hand."""

    def __init__(self, state: ExploreState):
        self.state = state
        self.seed = pmui.IntInput(
            label="Seed",
            value=state.seed,
            start=0,
            end=2**31 - 1,
            width=110,
            size="small",
            description="Of the random source.",
        )
        self.draw = pmui.Button(label="New draw", variant="outlined", icon="casino", margin=(10, 10))
        self.sparsity = pmui.FloatSlider(
            label="Sparsity",
            start=0,
            end=0.95,
            step=0.05,
            value=state.sparsity,
            format="0.00",
            size="small",
            sizing_mode="stretch_width",
            margin=(0, 18),
            description="Probability that a Gaussian of the 12 × 12 lattice is absent.",
        )
        self.preset = pmui.Select(
            label="Draw by hand",
            options={"choose a preset": NO_PRESET} | {name.capitalize(): name for name in PRESETS},
            value=NO_PRESET,
            size="small",
            sizing_mode="stretch_width",
            description="Or click on the source field to place Gaussians; drag to move them; "
            "select one and press backspace to remove it.",
        )
        self.sign = pmui.RadioButtonGroup(
            label="Sign of new Gaussians",
            options={"+": 1.0, "−": -1.0},
            value=1.0,
            size="small",
            description="Sign of the Gaussians placed next.",
        )
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
