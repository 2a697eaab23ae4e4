"""Which results of studies there are: the tables that ship, and the user's own records; without any display."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path

from sciml_fm_core.experiments.paper import BUDGETS, Budget
from sciml_fm_core.files import user_path
from sciml_fm_core.physics.tasks import Task
from sciml_fm_core.study.records import read_record, read_table, shipped_tables
from sciml_fm_core.study.runs import STARTS

RECORDS_VARIABLE = "SCIML_FM_RECORDS"
"""Environment variable that names the folder of the user's own records."""
DEFAULT_RECORDS = Path("runs") / "study"
TABLES = "*/records.csv"
"""Where under ``runs`` the notebooks leave their tables."""

OPERATOR = ("parent", "recipe", "architecture", "size", "pretraining_examples", "pretraining_seed", "shipped_parent")
"""Keys of a record that tell one pre-trained operator from another."""
SETTINGS = (
    "batch_size", "learning_rates", "resolution", "validation", "test", "test_resolution",
    "symmetries",
)  # fmt: skip
"""Keys that are the same in all runs of a budget: errors are compared only where these agree."""
KINDS = {"identity": str, "parent": str, "task": str, "start": str, "examples": int, "seed": int, "error": (int, float)}
"""Keys without which a record cannot be drawn."""


@dataclass(frozen=True)
class Source:
    """Records that may be compared: of one table or folder, run with the same settings.

    Attributes:
        name: for a menu.
        budget: key of `BUDGETS` that has these settings, None where none has.
        records: one for each point, by identity.
        superseded: records left out, because the same points were computed again by a newer version or with more steps.
    """

    name: str
    budget: str | None
    records: tuple[dict, ...]
    superseded: int = 0


def records_folder() -> Path:
    """Folder of the user's records."""
    return user_path(os.environ.get(RECORDS_VARIABLE) or DEFAULT_RECORDS)


def find_sources(runs: str | Path = "runs") -> tuple[dict[str, Source], list[str]]:
    """Results by name, shipped ones first, and what is wrong with files and records that were left out."""
    sources: dict[str, Source] = {}
    problems: list[str] = []

    shipped: dict[str | None, Source] = {}

    def add(place: str, records: list[dict]) -> None:
        found = split_by_settings(place, records)
        sources.update((source.name, _over(source, shipped.get(source.budget))) for source in found)

    for name, path in shipped_tables().items():
        add(f"Shipped, {name}", _drawable(path, problems))
    shipped.update((source.budget, source) for source in sources.values() if source.budget)
    folder = records_folder()
    own = [record for path in sorted(folder.glob("*.json")) for record in _drawable(path, problems)]
    add(str(folder), own)
    known = {record["identity"] for record in own}
    for path in sorted(Path(runs).glob(TABLES)):
        records = _drawable(path, problems)
        # A notebook's table repeats what its folder holds: it is listed where it has more than that.
        if any(record["identity"] not in known for record in records):
            add(str(path), records)
    return sources, problems


def _over(own: Source, shipped: Source | None) -> Source:
    """A source of one's own, with what ships on the same tasks and settings beside it, told apart by ``own``."""
    if shipped is None:
        return own
    tasks, known = {record["task"] for record in own.records}, {record["identity"] for record in own.records}
    beside = [record for record in shipped.records if record["task"] in tasks]
    named = [r | {"identity": f"{r['identity']}, shipped"} if r["identity"] in known else r for r in beside]
    return replace(own, records=(*named, *(record | {"own": True} for record in own.records)))


def split_by_settings(place: str, records: list[dict]) -> list[Source]:
    """The records of a table or folder as sources, one for each set of settings; those of budgets first."""
    known = {  # the paper's recipe is without symmetries at every budget
        (paper, settings_of(vars(each) | ({"symmetries": False} if paper else {}))): name
        for name in BUDGETS
        for each in _variants(name)
        for paper in (False, True)
    }
    groups: dict[str, list[dict]] = {}
    for record in records:
        settings = settings_of(record)
        name = known.get((record.get("recipe") == "paper", settings))
        groups.setdefault(name if name and _has_its_steps(name, record) else settings, []).append(record)
    found, others = [], 0
    for settings in sorted(groups, key=lambda s: list(BUDGETS).index(s) if s in BUDGETS else len(BUDGETS)):
        budget = settings if settings in BUDGETS else None
        if budget is None:
            others += 1
        label = budget or ("own settings" if others == 1 else f"own settings {others}")
        kept = _latest(groups[settings])
        name = place if place.endswith(f", {label}") else f"{place}, {label}"
        found.append(Source(name, budget, tuple(kept), len(groups[settings]) - len(kept)))
    return found


def _variants(budget: str) -> list[Budget]:
    """A budget, and as its single experiments set it."""
    chosen = BUDGETS[budget]
    return [chosen, *(chosen.of(experiment) for experiment in chosen.settings)]


def _has_its_steps(budget: str, record: dict) -> bool:
    """Whether a record has the steps that a budget gives its examples; else it is one's own, or trained longer."""
    return record.get("steps") in {each.steps_for(record["examples"]) for each in _variants(budget)}


def settings_of(values: dict) -> str:
    """The `SETTINGS` of a record or budget, as text that can be compared."""
    return json.dumps([values.get(name) for name in SETTINGS])


def operator_of(record: dict) -> tuple:
    """Which pre-trained operator a run started from, or was a twin of."""
    return tuple(record.get(name) for name in OPERATOR)


def by_architecture(records: Iterable[dict]) -> list[dict]:
    """The records that compare architectures: of the same pre-training, task and settings as others of another one."""
    groups: dict[tuple, list[dict]] = {}
    for record in records:
        groups.setdefault((record["parent"], record["task"], settings_of(record)), []).append(record)
    several = [group for group in groups.values() if len({record["architecture"] for record in group}) > 1]
    return [record for group in several for record in group]


def checked(record: dict) -> dict:
    """The record, with the label of its task as this package writes it.

    Raises:
        ValueError: if it cannot be drawn.
    """
    name = f"record {record.get('identity')}"
    for key, kind in KINDS.items():
        if not isinstance(record.get(key), kind) or isinstance(record[key], bool):
            raise ValueError(f"{name}: no {key} that can be read; remove it and run the study again")
    if record["start"] not in STARTS:
        raise ValueError(f"{name}: an unknown start, {record['start']!r}")
    if not (math.isfinite(record["error"]) and record["error"] > 0 and record["examples"] >= 0):
        raise ValueError(f"{name}: error {record['error']} with {record['examples']} examples cannot be drawn")
    return {"architecture": "fno", "symmetries": False} | record | {"task": Task.parse(record["task"]).label}


def _drawable(path: Path, problems: list[str]) -> list[dict]:
    """The records of a file, a table or a single one, that can be drawn; a problem more for each of the others."""
    try:
        records = [read_record(path)] if path.suffix == ".json" else read_table(path, problems)
    except (ValueError, OSError) as error:
        problems.append(str(error))
        return []
    found = {}
    for record in records:
        if record.get("kind"):  # not an adaptation: its notebook draws it
            continue
        try:
            found[record.get("identity")] = checked(record)
        except ValueError as error:
            problems.append(str(error))
    return list(found.values())


def _latest(records: list[dict]) -> list[dict]:
    """One record for each point and its settings, of the newest version, then of the most steps."""
    points: dict[tuple, dict] = {}
    for record in sorted(records, key=lambda r: (_version(r), r.get("steps") or 0)):
        point = tuple(record[key] for key in ("task", "start", "examples", "seed"))
        points[operator_of(record), point, settings_of(record)] = record
    return list(points.values())


def _version(record: dict) -> tuple[int, ...]:
    versions = record.get("versions")
    text = str(versions.get("sciml_fm", "")) if isinstance(versions, dict) else ""
    return tuple(int(part) for part in text.split(".") if part.isdigit())
