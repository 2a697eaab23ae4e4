"""Which trained operators there are: the shipped ones, and those in the user's folder."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from sciml_fm_core.models.operator import read_header, shipped_operators
from sciml_fm_core.physics.system import System
from sciml_fm_core.physics.tasks import PAPER_TASKS, Task

FOLDER_VARIABLE = "SCIML_FM_OPERATORS"
"""Environment variable that names the folder of the user's own bundles."""
DEFAULT_FOLDER = "runs"


@dataclass(frozen=True)
class Bundle:
    """A trained operator on disk and what its card says; the weights are not read."""

    name: str
    path: Path
    systems: tuple[str, ...]
    tasks: tuple[Task, ...]
    recipe: str
    size: str
    examples_seen: int
    shipped: bool

    @property
    def label(self) -> str:
        """Text for a menu: name, kind, size, recipe."""
        kind = "mixed" if len(self.systems) > 1 else "specialist"
        recipe = {"ours": "our recipe", "paper": "the paper's recipe"}.get(self.recipe, self.recipe)
        return f"{self.name}: {kind}, {self.size}, {recipe}"

    @property
    def version(self) -> tuple[str, float]:
        """Changes when the file does: the key under which its weights may be cached."""
        return str(self.path), self.path.stat().st_mtime

    def trained_range(self, system: System) -> tuple[float, float]:
        """Range of the dial it was pre-trained on; the paper's where the card does not say."""
        tasks = [task for task in self.tasks if task.system.name == system.name]
        if not tasks:
            tasks = [Task.parse(PAPER_TASKS[system.name]["pre-training"])]
        return min(task.low for task in tasks), max(task.high for task in tasks)


def user_folder() -> Path:
    """Folder of the user's bundles."""
    return Path(os.environ.get(FOLDER_VARIABLE) or DEFAULT_FOLDER)


def find_bundles() -> tuple[dict[str, Bundle], list[str]]:
    """Bundles by name, shipped ones first, and what is wrong with files that could not be read."""
    paths = list(shipped_operators().items())
    shipped = {path for _, path in paths}
    folder = user_folder()
    if folder.is_dir():
        # Notebooks leave theirs in folders of their own: those are named by folder and file.
        found = sorted(folder.rglob("*.safetensors"))
        paths += [(path.relative_to(folder).with_suffix("").as_posix(), path) for path in found]
    bundles: dict[str, Bundle] = {}
    problems = []
    for name, path in paths:
        try:
            bundle = _read(name, path, shipped=path in shipped)
        except (ValueError, KeyError) as error:
            problems.append(str(error))
            continue
        while bundle.name in bundles:
            bundle = _read(f"{bundle.name} (yours)", path, shipped=False)
        bundles[bundle.name] = bundle
    return bundles, problems


def _read(name: str, path: Path, *, shipped: bool) -> Bundle:
    header = read_header(path)
    card = header["card"]
    return Bundle(
        name=name,
        path=path,
        systems=tuple(header["normalization"]["systems"]),
        tasks=tuple(Task.parse(label) for label in card.get("tasks", ())),
        recipe=card.get("recipe", "own recipe"),
        size=card.get("size", "own size"),
        examples_seen=card.get("examples_seen", 0),
        shipped=shipped,
    )
