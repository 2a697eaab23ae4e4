"""What the page is set to, without any display: `param` values in, a `Query` out."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import param

from sciml_fm_core.models.operator import Operator, load_operator
from sciml_fm_core.physics.system import SYSTEMS, Parameter, System
from sciml_fm_core.physics.tasks import PAPER_TASKS, Task, shift_of

from .bundles import DEFAULT_FOLDER, FOLDER_VARIABLE, Bundle
from .compute import Query
from .jobs import Adapted, AdaptSettings

EXAMPLE_COUNTS = (0, 8, 16, 32, 64, 128, 256, 512)
LEARNING_RATES = (1e-4, 3e-4, 1e-3, 3e-3)


@dataclass(frozen=True)
class Dial:
    """Scale of a system's dial: its range, whether it is logarithmic, and the values it can take."""

    low: float
    high: float
    step: float
    start: float
    logarithmic: bool = False

    def position(self, value: float) -> float:
        """Where a value lies along the dial, 0 to 1; outside it is clipped."""
        low, high, value = (
            (math.log(self.low), math.log(self.high), math.log(max(value, 1e-12)))
            if self.logarithmic
            else (self.low, self.high, value)
        )
        return min(1.0, max(0.0, (value - low) / (high - low)))

    def snap(self, value: float) -> float:
        """Nearest value that the dial can take."""
        if self.logarithmic:
            return min(self.values(), key=lambda v: abs(math.log(v / max(value, 1e-12))))
        return round(min(self.high, max(self.low, round(value / self.step) * self.step)), 6)

    def values(self) -> list[float]:
        """All values of the dial; two significant digits on a logarithmic one."""
        if self.logarithmic:
            points = np.geomspace(self.low, self.high, 101)
            return sorted({float(f"{v:.2g}") for v in points})
        count = round((self.high - self.low) / self.step)
        return [round(self.low + i * self.step, 6) for i in range(count + 1)]

    def sweep(self, count: int = 29) -> list[float]:
        """Values at which the error along the dial is measured."""
        points = np.geomspace if self.logarithmic else np.linspace
        return [float(f"{v:.4g}") for v in points(self.low, self.high, count)]


DIALS = {
    "poisson": Dial(1, 20, 0.1, start=3),
    "advection_diffusion": Dial(0.05, 5, 0.01, start=0.5, logarithmic=True),
    "helmholtz": Dial(1, 15, 0.1, start=4),
}


def dial_of(system: System) -> Dial:
    """Dial of a system: from `DIALS`, else spanning twice the pre-training range of its tasks."""
    if system.name in DIALS:
        return DIALS[system.name]
    tasks = [Task.parse(label) for label in PAPER_TASKS.get(system.name, {}).values()]
    low, high = min((t.low for t in tasks), default=1.0), max((t.high for t in tasks), default=10.0)
    return Dial(low, high, (high - low) / 100, start=(low + high) / 2)


def is_angle(parameter: Parameter) -> bool:
    """Angles run a full turn."""
    return math.isclose(parameter.high, 2 * math.pi)


DEFAULT_PARAMETERS = {"principal axis": math.radians(30), "flow direction": math.radians(20), "eigenvalue": 2.0}


class ExploreState(param.Parameterized):
    """Everything a visitor can set, and the results kept for the session.

    Args:
        bundles: trained operators by name.
        load: how weights are loaded; the page passes a cache shared by all sessions.
    """

    system_name = param.Selector(default="poisson", objects=list(SYSTEMS))
    bundle_name = param.String(default=None, allow_None=True)
    dial = param.Number(default=3.0)
    parameters = param.Dict(default={}, doc="values of system.parameters by name, angles in radians")

    drawn = param.Boolean(default=False, doc="the source is drawn by hand")
    seed = param.Integer(default=3, bounds=(0, 2**31 - 1))
    sparsity = param.Number(default=0.6, bounds=(0, 1))
    gaussians = param.List(default=[], doc="rows (x, y, amplitude) of the drawn source")

    examples = param.Selector(default=32, objects=list(EXAMPLE_COUNTS))
    window = param.NumericTuple(default=(1.0, 2.0), length=2, doc="range of the dial to adapt to")
    window_follows = param.Boolean(default=True, doc="the window moves with the dial until it is edited")
    learning_rate = param.Selector(default=1e-3, objects=list(LEARNING_RATES))
    try_grid = param.Boolean(default=False, doc="try every learning rate of the paper's grid, keep the best")
    steps = param.Integer(default=60, bounds=(1, 2000))

    kept = param.Dict(default={}, doc="adapted operators by (system, bundle), then by their key")
    shown = param.Parameter(default=None, doc="key of the adapted operators shown, None for none")

    def __init__(self, bundles: dict[str, Bundle], load: Callable[[Bundle], Operator] | None = None, **values: Any):
        super().__init__()
        self.bundles = bundles
        self._load = load or (lambda bundle: load_operator(bundle.path))
        self._parameters_of: dict[str, dict[str, float]] = {}
        self.choose_system(values.pop("system_name", self.system_name))
        self.param.update(**values)

    # What is chosen -------------------------------------------------------------------------------------------------

    @property
    def system(self) -> System:
        """The PDE chosen."""
        return SYSTEMS[self.system_name]

    @property
    def scale(self) -> Dial:
        """Scale of the dial."""
        return dial_of(self.system)

    @property
    def bundle(self) -> Bundle | None:
        """The pre-trained operator chosen, None where no bundle knows the system."""
        return self.bundles.get(self.bundle_name) if self.bundle_name else None

    def bundles_of(self, system: System) -> list[Bundle]:
        """Bundles that know a system: shipped before one's own, specialists before mixed, ours before the paper's."""
        known = [bundle for bundle in self.bundles.values() if system.name in bundle.systems]
        return sorted(known, key=lambda b: (not b.shipped, len(b.systems) > 1, b.recipe != "ours", b.name))

    def choose_system(self, name: str) -> None:
        """Change the system with its dial, parameters and bundle, in one step."""
        self._parameters_of[self.system_name] = dict(self.parameters)
        system = SYSTEMS[name]
        dial = dial_of(system).start
        parameters = {
            p.name: float(DEFAULT_PARAMETERS.get(p.name, (p.low + p.high) / 2)) for p in system.parameters
        } | self._parameters_of.get(name, {})
        bundles = self.bundles_of(system)
        if self.bundle is not None and self.bundle in bundles and len(self.bundle.systems) > 1:
            chosen = self.bundle.name  # a mixed operator stays chosen
        else:
            chosen = bundles[0].name if bundles else None
        self.param.update(
            system_name=name,
            bundle_name=chosen,
            dial=dial,
            parameters=parameters,
            window_follows=True,
            window=default_window(system, dial),
            shown=self._latest(name, chosen),
        )

    def choose_bundle(self, name: str) -> None:
        """Change the pre-trained operator; its latest adapted results come back with it."""
        self.param.update(bundle_name=name, shown=self._latest(self.system_name, name))

    def set_dial(self, value: float) -> None:
        """Move the dial to the nearest value it can take; the window follows until it was edited."""
        value = self.scale.snap(value)
        updates: dict[str, Any] = {"dial": value}
        if self.window_follows:
            updates["window"] = default_window(self.system, value)
        self.param.update(**updates)

    def set_parameter(self, name: str, value: float) -> None:
        """Set one of ``system.parameters``; angles in radians."""
        self.parameters = {**self.parameters, name: float(value)}

    def place_gaussians(self, rows: list[tuple[float, float, float]]) -> None:
        """Draw the source by hand."""
        self.param.update(drawn=True, gaussians=[tuple(map(float, row)) for row in rows])

    def draw_random(self, seed: int) -> None:
        """Draw the source at random."""
        self.param.update(drawn=False, seed=int(seed))

    # What follows ---------------------------------------------------------------------------------------------------

    @property
    def trained_range(self) -> tuple[float, float]:
        """Range of the dial that the chosen operator was pre-trained on."""
        if self.bundle is not None:
            return self.bundle.trained_range(self.system)
        task = Task.parse(PAPER_TASKS[self.system_name]["pre-training"])
        return task.low, task.high

    @property
    def shift(self) -> str:
        """As `shift_of`."""
        return shift_of(self.system, self.dial, self.trained_range)

    def loader(self) -> Callable[[], Operator]:
        """A function that gives the chosen operator; it is shared and must not be changed.

        Raises:
            ValueError: if no bundle knows the system.
        """
        bundle, load = self.bundle, self._load
        if bundle is None:
            task = PAPER_TASKS[self.system_name]["pre-training"]
            command = f"sciml-fm pretrain '{task}' --output {DEFAULT_FOLDER}/own.safetensors"
            raise ValueError(
                f"No trained operator knows {self.system.label}: `{command}` makes one; "
                f"{FOLDER_VARIABLE} names the folder that is searched"
            )
        return lambda: load(bundle)

    @property
    def adapted(self) -> dict[tuple, Adapted]:
        """What was adapted from the chosen operator for the chosen system."""
        return self.kept.get((self.system_name, self.bundle_name), {})

    @property
    def current(self) -> Adapted | None:
        """The adapted operators shown."""
        return self.adapted.get(self.shown) if self.shown is not None else None

    def keep(self, owner: tuple[str, str], adapted: Adapted) -> None:
        """Keep adapted operators for (system, bundle), and show them where that is what is on the page."""
        results = dict(self.kept.get(owner, {}))
        results[adapted.key] = adapted
        ordered = dict(sorted(results.items()))
        updates: dict[str, Any] = {"kept": {**self.kept, owner: ordered}}
        if owner == (self.system_name, self.bundle_name):
            updates["shown"] = adapted.key
        self.param.update(**updates)

    def _latest(self, system_name: str, bundle_name: str | None) -> tuple | None:
        results = self.kept.get((system_name, bundle_name), {})
        return max(results, key=lambda key: results[key].finished) if results else None

    def query(self) -> Query:
        """The present point of the page."""
        current = self.current
        tuned = current.fine_tuned if current else None
        scratch = current.from_scratch if current else None
        return Query(
            system=self.system,
            dial=self.dial,
            parameters=tuple(self.parameters[p.name] for p in self.system.parameters),
            seed=self.seed,
            sparsity=self.sparsity,
            gaussians=tuple(self.gaussians) if self.drawn else None,
            operators={
                "zero_shot": self.loader() if self.bundle else None,
                "fine_tuned": (lambda: tuned) if tuned else None,
                "from_scratch": (lambda: scratch) if scratch else None,
            },
        )

    def settings(self) -> AdaptSettings:
        """What to adapt, as set now.

        Raises:
            ValueError: if the window is not a range of the dial.
        """
        low, high = self.window
        return AdaptSettings(
            task=Task(self.system, low, high),
            examples=self.examples,
            steps=self.steps,
            learning_rate=None if self.try_grid else self.learning_rate,
        )


def default_window(system: System, dial: float) -> tuple[float, float]:
    """A range about a dial value: a quarter of it to either side, whole numbers where tasks draw them."""
    scale = dial_of(system)
    low, high = max(scale.low, dial / 1.25), min(scale.high, dial * 1.25)
    if system.dialled.whole:
        return float(max(1, math.floor(low))), float(math.ceil(high))
    return float(f"{low:.2g}"), float(f"{high:.2g}")
