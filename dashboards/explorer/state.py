"""What the page is set to, without any display: `param` values in, a `Query` out."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import param

from sciml_fm_core.models.operator import Operator, load_operator
from sciml_fm_core.physics.evolution import Evolution
from sciml_fm_core.physics.parameter import Parameter
from sciml_fm_core.physics.system import PRETRAINING, SYSTEMS, System
from sciml_fm_core.physics.tasks import Task
from sciml_fm_core.training.recipes import LEARNING_RATES
from sciml_fm_core.training.unlabelled import UNLABELLED

from .bundles import DEFAULT_FOLDER, FOLDER_VARIABLE, Bundle, pretraining_range
from .compute import EVOLUTION_RESOLUTION, RESOLUTION, Query, painted_fields
from .predictions import PREDICTIONS
from .serving import LIMITS, TooMuch
from .settings import Adapted, AdaptSettings
from .text import shift_of

EXAMPLE_COUNTS = tuple(count for count in (0, 8, 16, 32, 64, 128, 256, 512) if count <= LIMITS.examples)
EQUATION, GRID = "equation", "grid"
"""What stands in place of a number of examples (the equation alone) and of a learning rate (try all, keep the best)."""

REPLACES: dict[str, tuple[str, ...]] = {
    "system_name": ("model", "draw", "result"),
    "bundle_name": ("model", "result"),
    "shown": ("result",),
    **dict.fromkeys(("drawn", "gaussians", "seed", "sparsity"), ("draw",)),
    **dict.fromkeys(("dial", "parameters", "painted"), ()),
}
"""Parts of an address that named something missing are forgotten once it is chosen anew: which, by what was chosen."""


class ExploreState(param.Parameterized):
    """Everything a visitor can set, and the results kept for the session.

    Args:
        bundles: trained operators by name.
        load: how weights are loaded; the page passes a cache shared by all sessions.
    """

    system_name = param.String(default="poisson", doc="key of SYSTEMS")
    bundle_name = param.String(default=None, allow_None=True)
    dial = param.Number(default=3.0)
    parameters = param.Dict(default={}, doc="values of system.parameters by name, angles in radians")

    drawn = param.Boolean(default=False, doc="the source is drawn by hand")
    seed = param.Integer(default=3, bounds=(0, 2**31 - 1), label="Seed of the source")
    sparsity = param.Number(
        default=0.6, bounds=(0, 1), label="Sparsity: share of the 12 × 12 Gaussians that are absent"
    )
    gaussians = param.List(default=[], doc="rows (x, y, amplitude) of the drawn source")
    painted = param.Dict(default={}, doc="such rows of the coefficients that are painted, by name")

    examples = param.Selector(
        default=max(count for count in EXAMPLE_COUNTS if count <= 32),
        objects={"no labels (equation only)": EQUATION} | {f"{count}": count for count in EXAMPLE_COUNTS},
        doc="Solved examples of the new physics that the model may see; 0 is the zero-shot model itself. "
        "Without labels it makes the residual of the equation small on fresh sources; no solution is shown to it.",
    )
    learning_rate = param.Selector(
        default=1e-3,
        objects={f"{rate:g}": rate for rate in LEARNING_RATES}
        | ({"try the grid": GRID} if LIMITS.learning_rates >= len(LEARNING_RATES) else {}),
        doc="The grid has five rates, 1e-4 to 1e-2: five times the work; the best on validation is kept.",
    )
    steps = param.Integer(default=min(60, LIMITS.steps), bounds=(1, None))
    window = param.NumericTuple(default=(1.0, 2.0), length=2, doc="range of the dial to adapt to")
    window_follows = param.Boolean(default=True, label="the window follows the dial")

    training = param.Boolean(default=False, doc="the settings of a fine-tuning are open, so its window is shown")
    live = param.Dict(default={}, doc="operators in training now, by key of PREDICTIONS, in place of those shown")
    kept = param.Dict(default={}, doc="adapted operators by (system, bundle), then by their key")
    shown = param.Parameter(default=None, doc="key of the adapted operators shown, None for none")
    gone = param.Dict(default={}, doc="parts of the address, by name, in whose place nothing is shown")

    def __init__(self, bundles: dict[str, Bundle], load: Callable[[Bundle], Operator] | None = None, **values: Any):
        super().__init__()
        self.bundles = bundles
        self.load = load or (lambda bundle: load_operator(bundle.path))
        self._parameters_of: dict[str, dict[str, float]] = {}
        self._preferred: str | None = None  # model that the visitor chose, rather than the page
        self._training_with: dict[bool, dict[str, Any]] = {
            True: {"steps": min(UNLABELLED.steps, LIMITS.steps), "learning_rate": UNLABELLED.learning_rate}
        }
        self.param.watch(self._chosen_again, list(REPLACES))
        self.param.watch(self._labels_changed, "examples")
        self.param.watch(lambda event: self.param.update(**self._at(self.dial)), "window_follows")
        self.param.watch(lambda *_: self.param.update(drawn=False), ["seed", "sparsity"])
        self.kept = values.pop("kept", {})
        self.choose_system(values.pop("system_name", self.system_name))
        self.param.update(**values)

    # What is chosen -------------------------------------------------------------------------------------------------

    @property
    def system(self) -> System:
        """The PDE chosen."""
        return SYSTEMS[self.system_name]

    @property
    def is_in_time(self) -> bool:
        """Whether it is an evolution, which is shown step by step."""
        return isinstance(self.system, Evolution)

    @property
    def scale(self) -> Parameter:
        """Scale of the dial."""
        return self.system.dialled

    @property
    def bundle(self) -> Bundle | None:
        """The trained operator chosen, None where no bundle knows the system."""
        return self.bundles.get(self.bundle_name) if self.bundle_name else None

    def bundles_of(self, system: System) -> list[Bundle]:
        """List the bundles that know a system: shipped, pre-trained, and conditioned on the symbol before the others.

        Of those conditioned on the symbol, and of those that never saw the system, the mixed ones stand first: they saw
        more. Of the others the specialists do, and those conditioned on the coefficients before the paper's.
        """

        def rank(bundle: Bundle) -> tuple:
            adapted, mixed = bundle.kind != "pre-trained", len(bundle.systems) > 1
            told, unseen = bundle.recipe == "symbol", bundle.trained_range(system) is None
            first = not bundle.shipped, adapted, not told, unseen and not told
            return *first, mixed != (told or unseen), bundle.recipe != "dimensionless", bundle.name

        return sorted((bundle for bundle in self.bundles.values() if bundle.knows(system)), key=rank)

    def choose_system(self, name: str) -> None:
        """Change the system with its dial, parameters and bundle, in one step.

        Raises:
            KeyError: if there is none of this name.
        """
        self._parameters_of[self.system_name] = dict(self.parameters)
        system = SYSTEMS[name]
        parameters = {p.name: p.default for p in system.parameters} | self._parameters_of.get(name, {})
        chosen = self._model_for(system)
        if self._preferred in [bundle.name for bundle in self.bundles_of(system)]:
            chosen = self._preferred
        shown = self.latest(name, chosen)
        dial = opening_dial(system, self.bundles.get(chosen))
        if shown is not None:
            dial = midpoint(self.kept[name, chosen][shown].settings.task)
        self.param.update(
            system_name=name,
            bundle_name=chosen,
            dial=dial,
            parameters=parameters,
            window_follows=True,
            window=default_window(system, dial),
            shown=shown,
            live={},
        )

    def _model_for(self, system: System) -> str | None:
        """Choose a model for an equation: with most to show beside it, and trained on it, where there is one."""

        def merit(bundle: Bundle) -> tuple[int, bool]:
            results = self.kept.get((system.name, bundle.name), {}).values()
            beside = max((len(result.operators) for result in results), default=0)
            return beside, bundle.trained_range(system) is not None

        best = max(self.bundles_of(system), key=merit, default=None)  # of several the first
        return best.name if best else None

    def choose_bundle(self, name: str) -> None:
        """Change the pre-trained operator; its latest adapted results come back with it.

        A dial that was not moved yet opens anew, inside the range of this operator.

        Raises:
            KeyError: if there is none of this name.
        """
        bundle = self.bundles[name]
        self._preferred = name if name != self._model_for(self.system) else None
        updates: dict[str, Any] = {"bundle_name": name, "shown": self.latest(self.system_name, name), "live": {}}
        if self.dial == opening_dial(self.system, self.bundle):
            updates |= self._at(opening_dial(self.system, bundle))
        self.param.update(**updates)

    def show(self, key: tuple | None) -> None:
        """Show a result of a fine-tuning, or none."""
        self.param.update(shown=key, gone={name: part for name, part in self.gone.items() if name != "result"})

    def _chosen_again(self, *events) -> None:
        """What was chosen since the address was opened stands in it, in place of what was gone."""
        others = {name for event in events for name in REPLACES[event.name]}
        if "system" in self.gone or others & set(self.gone):
            self.gone = {} if "system" in self.gone else {k: v for k, v in self.gone.items() if k not in others}

    def set_dial(self, value: float) -> None:
        """Move the dial to the nearest value it can take; the window follows until it was edited."""
        self.param.update(**self._at(self.scale.snap(value)))

    def _at(self, dial: float) -> dict[str, Any]:
        """The dial and the window that follows it."""
        return {"dial": dial} | ({"window": default_window(self.system, dial)} if self.window_follows else {})

    def set_window(self, low: float, high: float) -> None:
        """Adapt to a range of the dial, which follows the dial no more.

        Raises:
            ValueError: if it is no range, or reaches beyond the dial.
        """
        scale = self.scale
        if scale.whole:
            low, high = round(low), round(high)
        if not scale.low <= low < high <= scale.high:
            raise ValueError(
                f"expected a window inside {scale.low:g} to {scale.high:g}, lower end first, got {low:g} to {high:g}"
            )
        self.param.update(window=(float(low), float(high)), window_follows=False)

    def set_parameter(self, name: str, value: float) -> None:
        """Set one of ``system.parameters`` to the nearest value in its range; angles in radians.

        Raises:
            ValueError: if it is no number.
        """
        (parameter,) = (each for each in self.system.parameters if each.name == name)
        most = max(parameter.high, parameter.period) if parameter.angle else parameter.high
        self.parameters = {**self.parameters, name: within(value, parameter.low, most)}

    def _labels_changed(self, event) -> None:
        """With labels and without, steps and learning rate differ: each way comes back with what was set for it."""
        without = event.new == EQUATION
        if without != (event.old == EQUATION):
            self._training_with[not without] = {"steps": self.steps, "learning_rate": self.learning_rate}
            self.param.update(**self._training_with[without])

    def training_with(self, physics: bool) -> dict[str, Any]:
        """Steps and learning rate set for trainings with labels, or without."""
        if physics != (self.examples == EQUATION):
            return self._training_with[physics]
        return {"steps": self.steps, "learning_rate": self.learning_rate}

    def place_gaussians(self, rows: Sequence[Sequence[Any]]) -> None:
        """Draw the source by hand: rows (x, y, amplitude), put on the torus, each of at most unit size.

        Raises:
            ValueError: if a row is not three finite numbers, or there are too many.
        """
        self.param.update(drawn=True, gaussians=_placed(rows))

    def paint(self, name: str, rows: Sequence[Sequence[Any]]) -> None:
        """Paint a coefficient by rows as those of `place_gaussians`; by none it is random again.

        Raises:
            ValueError: as there, and if the system has no such coefficient.
        """
        if name not in painted_fields(self.system):
            raise ValueError(f"{self.system.title or self.system.name} has no coefficient {name!r} to paint")
        others = {other: placed for other, placed in self.painted.items() if other != name}
        self.painted = others | ({name: _placed(rows)} if rows else {})

    def draw_random(self, seed: int) -> None:
        """Draw the source at random, by the seed or the nearest that there is."""
        self.param.update(drawn=False, seed=int(within(seed, *self.param.seed.bounds)))

    def thin_out(self, sparsity: float) -> None:
        """Draw the source at random with another share of its Gaussians absent."""
        self.param.update(drawn=False, sparsity=within(sparsity, *self.param.sparsity.bounds))

    # What follows ---------------------------------------------------------------------------------------------------

    @property
    def trained_range(self) -> tuple[float, float] | None:
        """Range of the dial that the chosen operator was pre-trained on, None where it never saw the equation.

        Without an operator, the range that the system names for pre-training.
        """
        if self.bundle is not None:
            return self.bundle.trained_range(self.system)
        return self.system.shifts.get(PRETRAINING)

    @property
    def shift(self) -> str:
        """How far the dial is from the training range, in the words of `shift_of`."""
        return shift_of(self.system, self.dial, self.trained_range)

    def loader(self) -> Callable[[], Operator]:
        """A function that gives the chosen operator; it is shared and must not be changed.

        Raises:
            ValueError: if no bundle knows the system.
        """
        bundle, load = self.bundle, self.load
        if bundle is None and self.bundles_of(self.system):
            raise ValueError("No operator is chosen: choose one from the menu.")
        if bundle is None:
            low, high = pretraining_range(self.system)
            task = f"{self.system.label}({low:g},{high:g})"
            command = f"sciml-fm pretrain '{task}' --output {DEFAULT_FOLDER}/own.safetensors"
            raise ValueError(
                f"No trained operator knows {self.system.label}: `{command}` makes one; "
                f"{FOLDER_VARIABLE} names the folder that is searched"
            )
        return lambda: load(bundle)

    @property
    def ensemble(self) -> str | None:
        """Name of an ensemble trained as the chosen operator was, where there is one: its spread tells how sure."""
        return self.bundle.ensemble if self.bundle else None

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
        kept = {**self.kept, owner: dict(sorted(results.items()))}
        updates: dict[str, Any] = {"kept": _without_the_oldest(kept, LIMITS.results)}
        if owner == (self.system_name, self.bundle_name):
            updates |= {"live": {}}
        self.param.update(**updates)
        if "live" in updates:
            self.show(adapted.key)

    def latest(self, system_name: str, bundle_name: str | None) -> tuple | None:
        """Key of the result that is shown first."""
        results = self.kept.get((system_name, bundle_name), {})
        # Of those that ship, which have no time, that of about thirty examples: few, and yet they help.
        return max(results, key=lambda k: (results[k].finished, -abs(results[k].settings.examples - 32)), default=None)

    def query(self) -> Query:
        """The present point of the page."""
        return Query(
            system=self.system,
            dial=self.dial,
            parameters=tuple(self.parameters[p.name] for p in self.system.parameters),
            seed=self.seed,
            sparsity=self.sparsity,
            gaussians=tuple(self.gaussians) if self.drawn else None,
            operators={key: predictor.loader(self) for key, predictor in PREDICTIONS.items()},
            resolution=EVOLUTION_RESOLUTION if self.is_in_time else RESOLUTION,
            trained=self.trained_range,
            given=self.current.settings.given if self.current and not self.live else "",
            learning=tuple(self.live),
            painted={name: tuple(self.painted[name]) for name in painted_fields(self.system) if name in self.painted},
        )

    def settings(self) -> AdaptSettings:
        """What to adapt, as set now.

        Raises:
            ValueError: if the window is not a range of the dial.
        """
        low, high = self.window
        return AdaptSettings(
            task=Task(self.system, low, high),
            examples=0 if self.examples == EQUATION else self.examples,
            physics=self.examples == EQUATION,
            steps=self.steps,
            learning_rate=None if self.learning_rate == GRID else self.learning_rate,
        )


def _placed(rows: Sequence[Sequence[Any]]) -> list[tuple[float, ...]]:
    if len(rows) > LIMITS.gaussians:
        raise TooMuch(f"Expected at most {LIMITS.gaussians} Gaussians on this server, got {len(rows)}: remove some.")
    try:
        placed = [tuple(map(float, row)) for row in rows]
    except (TypeError, ValueError):
        placed = [()]
    if not all(len(row) == 3 and all(map(math.isfinite, row)) for row in placed):
        raise ValueError("expected x, y and an amplitude for each Gaussian, all finite")
    return [(x % 1, y % 1, within(size, -1, 1)) for x, y, size in placed]


def within(value: float, low: float, high: float) -> float:
    """The nearest value of a range: a browser can send any number.

    >>> within(1e15, 0, 2)
    2.0

    Raises:
        ValueError: if it is not a number.
    """
    if math.isnan(value):
        raise ValueError(f"expected a number from {low:g} to {high:g}, got {value}")
    return float(min(max(value, low), high))


def _without_the_oldest(kept: dict, most: int) -> dict:
    """Results of which at most so many were trained live; those that ship take no memory and have no time."""
    finished = sorted(one.finished for results in kept.values() for one in results.values() if one.finished)
    since = finished[-most] if len(finished) > most else 0.0
    return {
        owner: {key: one for key, one in results.items() if not one.finished or one.finished >= since}
        for owner, results in kept.items()
    }


def opening_dial(system: System, bundle: Bundle | None) -> float:
    """Where the dial stands at first: at its default, or midway in the range of an operator that does not know that."""
    dial = system.dialled
    low, high = bundle.opening_range(system) if bundle else pretraining_range(system)
    if low <= dial.default <= high:
        return dial.snap(dial.default)
    middle = math.sqrt(low * high) if dial.logarithmic else (low + high) / 2
    return dial.snap(round(middle) if dial.whole else middle)


def midpoint(task: Task) -> float:
    """A value of the dial inside a task's range."""
    return task.system.dialled.snap(task.low if task.system.dialled.whole else (task.low + task.high) / 2)


def default_window(system: System, dial: float) -> tuple[float, float]:
    """A range about a dial value: a quarter of it to either side, whole numbers where tasks draw them."""
    scale = system.dialled
    low, high = sorted((dial / 1.25, dial * 1.25 or scale.values()[1]))  # about 0 there is no quarter of it
    if scale.whole:
        return float(max(scale.low, math.floor(low))), float(math.ceil(min(scale.high, high)))
    return max(scale.low, min(dial, float(f"{low:.2g}"))), min(scale.high, max(dial, float(f"{high:.2g}")))
