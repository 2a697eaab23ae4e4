"""Which trained operators there are: the shipped ones, those in the user's folder, and those opened by name."""

from __future__ import annotations

import os
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from sciml_fm_core.digests import read_stored_header
from sciml_fm_core.experiments.uncertainty.ensemble import ENSEMBLE_FORMAT, ensemble_like
from sciml_fm_core.files import user_path
from sciml_fm_core.models.normalization import StepNormalization, normalization_from_dict
from sciml_fm_core.models.operator import read_header, shipped_operators
from sciml_fm_core.physics.evolution import Evolution
from sciml_fm_core.physics.spectral_system import is_spectral
from sciml_fm_core.physics.system import PRETRAINING, System, find_system
from sciml_fm_core.physics.tasks import Task
from sciml_fm_core.training.checkpoints import CHECKPOINT_FORMAT

from .text import RECIPE_NAMES

FOLDER_VARIABLE = "SCIML_FM_OPERATORS"
"""Environment variable that names the folder of the user's own bundles."""
OPENED_VARIABLE = "SCIML_FM_OPENED"
"""Environment variable that names further bundles, as ``sciml-fm explore FILE`` does."""
DATA_VARIABLE = "SCIML_FM_DATA"
"""Environment variable that names files of fields, as ``sciml-fm explore --data FILE`` does."""
DEFAULT_FOLDER = "runs"
SCRATCH = "from scratch"


@dataclass(frozen=True)
class Bundle:
    """A trained operator on disk and what its card says; the weights are not read.

    ``tasks`` and ``examples_seen`` are those of the pre-training. An operator that was adapted (``kind`` is not
    "pre-trained") has the ``downstream`` task too, where its card names it. Where no equation is known (``is_known`` is
    False) the names of the files are ``data`` and ``downstream_data``.
    """

    name: str
    path: Path
    systems: tuple[str, ...]
    tasks: tuple[Task, ...]
    recipe: str
    size: str
    examples_seen: int
    shipped: bool
    kind: str = "pre-trained"
    architecture: str = "fno"
    downstream: Task | None = None
    downstream_examples: int = 0
    normalization: str = "dimensionless"
    is_known: bool = True
    data: str = ""
    downstream_data: str = ""

    def knows(self, system: System) -> bool:
        """Whether it can be applied to a system: it has the inputs for it, or is told the equation itself."""
        if self.normalization == StepNormalization.kind:
            return isinstance(system, Evolution) and len(system.outputs) == len(find_system(self.systems[0]).outputs)
        return system.name in self.systems or (self.normalization == "symbol" and is_spectral(system))

    @property
    def label(self) -> str:
        """Text for a menu: name, kind or adaptation, architecture where it is no FNO, size, recipe."""
        kind = "mixed" if len(self.systems) > 1 else "specialist"
        if self.kind != "pre-trained":
            kind = self._adaptation.replace(" examples of ", " of ")
        architecture = () if self.architecture == "fno" else (self.architecture,)
        recipe = RECIPE_NAMES.get(self.recipe, self.recipe)
        return f"{self.name}: " + ", ".join((kind, *architecture, self.size, recipe))

    @property
    def history(self) -> str:
        """How it was trained, as a sentence without its full stop."""
        if self.kind == SCRATCH:
            return f"Trained {self._adaptation}"
        tasks = ", ".join(task.label for task in self.tasks) or self.data or "unknown tasks"
        history = f"pre-trained on {tasks}, {self.examples_seen:,} examples seen"
        if self.kind != "pre-trained":
            history = f"{self._adaptation}; {history}"
        return history[0].upper() + history[1:]

    @property
    def _adaptation(self) -> str:
        of = self.downstream.label if self.downstream else self.downstream_data
        task = f" of {of}" if of else ""
        return f"{self.kind} on {self.downstream_examples:,} examples{task}"

    @property
    def ensemble(self) -> str | None:
        """Name of the shipped ensemble that was trained as the operator was; none was as an adapted one."""
        tasks = tuple(task.label for task in self.tasks)
        return ensemble_like(tasks, self.recipe) if self.kind == "pre-trained" else None

    @property
    def version(self) -> tuple[str, float]:
        """Changes when the file does: the key under which its weights may be cached."""
        return str(self.path), self.path.stat().st_mtime

    def trained_range(self, system: System) -> tuple[float, float] | None:
        """Range of the dial it was pre-trained on, None where it was never trained on the equation.

        That of the downstream task where it met the equation only there; the system's own where the card names none.
        """
        if not self.tasks and system.name in self.systems:
            return pretraining_range(system)
        tasks = [task for task in self.tasks if task.system.name == system.name] or self._downstream_of(system)
        return (min(task.low for task in tasks), max(task.high for task in tasks)) if tasks else None

    def opening_range(self, system: System) -> tuple[float, float]:
        """Range of the dial that it is shown in at first: of the downstream task, where it was adapted to one."""
        for task in self._downstream_of(system):
            return task.low, task.high
        return self.trained_range(system) or pretraining_range(system)

    def _downstream_of(self, system: System) -> list[Task]:
        return [task for task in (self.downstream,) if task is not None and task.system.name == system.name]

    def history_on(self, system: System) -> str:
        """`history`, and that it was never trained on a system where that is so."""
        return self.history + ("" if self.trained_range(system) else "; never trained on this equation")


def pretraining_range(system: System) -> tuple[float, float]:
    """Range of the dial to pre-train on; the whole dial where the system names none."""
    return system.shifts.get(PRETRAINING, (system.dialled.low, system.dialled.high))


def user_folder() -> Path:
    """Folder of the user's bundles."""
    return user_path(os.environ.get(FOLDER_VARIABLE) or DEFAULT_FOLDER)


def find_bundles() -> tuple[dict[str, Bundle], list[str]]:
    """Bundles by name, shipped ones first, and what is wrong with files that could not be read.

    Ensembles and checkpoints that lie among them are no operators, and nothing is wrong with them.
    """
    paths = list(shipped_operators().items())
    shipped = {path for _, path in paths}
    folder = user_folder()
    if folder.is_dir():
        # Notebooks leave theirs in folders of their own: those are named by folder and file.
        found = sorted(folder.rglob("*.safetensors"))
        paths += [(path.relative_to(folder).with_suffix("").as_posix(), path) for path in found]
    named = os.environ.get(OPENED_VARIABLE, "").split(os.pathsep)
    there = {path.resolve() for _, path in paths}
    paths += [(path.stem, path) for path in map(user_path, filter(None, named)) if path.resolve() not in there]
    bundles: dict[str, Bundle] = {}
    problems = []
    for name, path in paths:
        while name in bundles:
            name += " (yours)"
        try:
            bundles[name] = _read(name, path, shipped=path in shipped)
        except (ValueError, OSError) as error:
            if not _is_other_file(path):
                problems.append(str(error) if path.name in str(error) else f"{path}: {error}")
    return bundles, problems


def _is_other_file(path: Path) -> bool:
    """Whether a file is an ensemble or a checkpoint."""
    for kind in (ENSEMBLE_FORMAT, CHECKPOINT_FORMAT):
        with suppress(ValueError):
            read_stored_header(path, "file", kind, "another program")
            return True
    return False


def opened(bundles: dict[str, Bundle]) -> Bundle | None:
    """The first that was opened by name, None where none was."""
    first = os.environ.get(OPENED_VARIABLE, "").split(os.pathsep)[0]
    path = user_path(first).resolve() if first else None
    return next((bundle for bundle in bundles.values() if bundle.path.resolve() == path), None)


def _read(name: str, path: Path, *, shipped: bool) -> Bundle:
    header = read_header(path)
    card = origin = header.card
    kind, downstream = card.get("kind") or "pre-trained", card.get("downstream_task")
    # The card of an adapted operator holds that of the operator it comes from.
    while parent := origin.get("parent") or origin.get("twin_of"):
        origin = parent
    # What was trained from scratch knows its downstream task alone.
    tasks = origin.get("tasks", ()) if kind != SCRATCH else [downstream] if downstream else ()
    normalization = normalization_from_dict(header.normalization)
    data = origin["data"] if isinstance(origin.get("data"), list) else []
    return Bundle(
        name=name,
        path=path,
        systems=tuple(system.name for system in normalization.systems),
        normalization=normalization.kind,
        tasks=tuple(map(Task.parse, tasks)),
        recipe=card.get("recipe") or "own recipe",
        size=card.get("size") or "own size",
        examples_seen=origin.get("examples_seen") or 0,
        shipped=shipped,
        kind=kind,
        architecture=card.get("architecture") or header.architecture,
        downstream=Task.parse(downstream) if downstream else None,
        downstream_examples=card.get("downstream_examples") or 0,
        is_known=all(system.is_known for system in normalization.systems),
        data=", ".join(str(one.get("file", "")) for one in data if isinstance(one, dict)),
        downstream_data=str((card.get("downstream_data") or {}).get("file", "")),
    )
