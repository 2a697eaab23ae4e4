"""A batch of notebooks: read from YAML, and checked whole before anything starts.

A batch is a YAML file. Paths in it are relative to it, and its folder is the notebooks' working directory::

    defaults:                          # optional; what every entry begins with
      notebook: 02_adapt.ipynb
      parameters: {budget: laptop, output: "results/{run}"}
    runs:                              # the file may also be this list alone
      - parameters: {examples: "0,64"} # fixed; a list here is a list-valued parameter
        grid:                          # swept; the runs are the product of these lists
          task: ["SYS-1(5,10)", "SYS-1(10,15)"]
          seed: [0, 1, 2]
      - notebook: 01_pretrain.ipynb
        gpus: 1                        # 0 or 1; a run sees the GPU it asked for, or none

``{run}`` in a parameter stands for the name of the run, ``<notebook>-<hash>``, so that runs write to different places;
two runs with one ``output`` are refused, and so is a value that readers of YAML take for different things.
The hash is of the notebook without outputs, all parameters with their defaults, and the version of this package. A run
leaves ``<name>.ipynb`` and then the marker ``<name>.json``.
"""

from __future__ import annotations

import ast
import hashlib
import itertools
import json
import math
import os
import reprlib
import unicodedata
import warnings
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from sciml_fm_core import schema
from sciml_fm_core._version import NUMBERS
from sciml_fm_core.files import results_folder, user_path
from sciml_fm_core.messages import reason
from sciml_fm_core.physics.tasks import is_label

from .engine import need

LARGEST_FILE = 2**20
"""Bytes of a batch file."""
MOST_RUNS = 100_000
"""Runs that one entry may ask for."""
MOST_PROBLEMS = 20
"""Problems that one error lists."""
ENTRY_KEYS = ("notebook", "parameters", "grid", "gpus")


@dataclass(frozen=True)
class Run:
    """One notebook with one set of parameters.

    Attributes:
        notebook: file to execute.
        parameters: what the batch sets, without the notebook's own defaults.
        identity: hash of everything that decides the result.
        output: executed notebook.
        marker: record of the finished run.
        folder: working directory.
        source: text of the notebook when it was planned, which is what is executed.
        gpus: 0 or 1.
        results: where the notebook's own parameter ``output`` leads, in one spelling; None where it has none.
    """

    notebook: Path
    parameters: dict[str, Any]
    identity: str
    output: Path
    marker: Path
    folder: Path
    source: str = field(repr=False)
    gpus: int = 0
    results: str | None = None


def plan(path: str | Path, output: str | Path) -> list[Run]:
    """Read a batch and check all of it, before anything starts.

    Args:
        path: YAML file, see the module's text.
        output: folder of the executed notebooks and markers.

    Raises:
        ValueError: naming every problem: what is missing, unknown, of a wrong type or there twice.
    """
    path, output = user_path(path).resolve(), user_path(output).resolve()
    problems: list[str] = []
    runs: dict[str, Run] = {}
    outputs: dict[str, str] = {}
    entries = _read_entries(path, problems)
    need("papermill", "notebooks")  # now, rather than in every run
    for number, entry in enumerate(entries, 1):
        found: list[str] = []
        for run in _plan_entry(entry, path.parent, output, found):
            if run.identity in runs:
                found.append(f"the run {run.parameters} is there twice; remove one")
            elif run.results is not None and (other := outputs.setdefault(run.results, run.identity)) != run.identity:
                found.append(
                    f"its results go to the output of another run, {reprlib.repr(runs[other].parameters)}; write "
                    "output: 'results/{run}', which differs"
                )
            runs[run.identity] = run
        problems += [f"run {number}: {problem}" for problem in dict.fromkeys(found)]
    if problems:
        more = f"; and {len(problems) - MOST_PROBLEMS} more" if len(problems) > MOST_PROBLEMS else ""
        raise ValueError(f"batch {path}: nothing was started: " + "; ".join(problems[:MOST_PROBLEMS]) + more)
    return list(runs.values())


def _read_entries(path: Path, unsure: list[str]) -> list[dict]:
    """Entries with the defaults filled in; values that readers of YAML differ about are added to the list."""
    need("yaml", "notebooks")
    from sciml_fm_core.yaml_values import parse_yaml  # PyYAML comes with the notebooks

    if not path.is_file():
        raise ValueError(f"batch {path}: no such file; expected a YAML file with a list of runs")
    try:
        text = schema.read_text(path, LARGEST_FILE)
    except (OSError, ValueError) as error:
        raise ValueError(f"batch {path}: not readable as YAML: {error}") from error
    content = parse_yaml(text, f"batch {path}", unsure)
    if isinstance(content, list):
        content = {"runs": content}
    if not isinstance(content, dict) or not set(content) <= {"defaults", "runs"}:
        raise ValueError(f"batch {path}: expected a list of runs, or 'runs:' and 'defaults:'")
    defaults, entries = content.get("defaults"), content.get("runs")
    defaults = {} if defaults is None else defaults
    if not isinstance(entries, list) or not entries:
        raise ValueError(f"batch {path}: expected at least one run in a list, got {reprlib.repr(entries)}")
    for entry in (defaults, *entries):
        _check_entry(entry, path)
    merged = []
    for entry in entries:
        # What an entry sets in one way replaces a default that is set in the other.
        own = {*(entry.get("parameters") or {}), *(entry.get("grid") or {})}
        both = {}
        for key in ("parameters", "grid"):
            kept = {name: value for name, value in (defaults.get(key) or {}).items() if name not in own}
            both[key] = kept | (entry.get(key) or {})
        merged.append({**defaults, **entry, **both})
    return merged


def _check_entry(entry: Any, path: Path) -> None:
    if not isinstance(entry, dict) or not set(entry) <= set(ENTRY_KEYS):
        raise ValueError(f"batch {path}: expected the keys {', '.join(ENTRY_KEYS)} in a run, got {reprlib.repr(entry)}")
    for key in ("parameters", "grid"):
        if not isinstance(entry.get(key), dict | None):
            raise ValueError(f"batch {path}: {key}: expected names and values, got {reprlib.repr(entry[key])}")
    if not isinstance(entry.get("notebook", ""), str):
        raise ValueError(f"batch {path}: notebook: expected the path of one, got {reprlib.repr(entry['notebook'])}")
    if type(entry.get("gpus", 0)) is not int or entry.get("gpus", 0) not in (0, 1):
        raise ValueError(f"batch {path}: gpus: expected 0 or 1, got {reprlib.repr(entry['gpus'])}")


def _plan_entry(entry: Mapping, folder: Path, output: Path, problems: list[str]) -> Iterator[Run]:
    """Runs of an entry; what is wrong is added to the problems."""
    if not entry.get("notebook"):
        problems.append("expected 'notebook: path'")
        return
    notebook = folder / user_path(entry["notebook"])
    try:
        inspected = _inspect(notebook)
    except ValueError as error:
        problems.append(str(error))
        return
    grid = entry["grid"]
    problems += [
        f"grid: {name} is among the parameters too; remove one" for name in entry["parameters"] if name in grid
    ]
    for name, values in grid.items():
        if not isinstance(values, list) or not values:
            problems.append(f"grid: {name}: expected a list of values, got {reprlib.repr(values)}")
    if not problems and (count := math.prod(map(len, grid.values()))) > MOST_RUNS:
        problems.append(f"grid: expected at most {MOST_RUNS} runs, got {count}")
    if problems:
        return
    for values in itertools.product(*grid.values()):
        parameters = {**entry["parameters"], **dict(zip(grid, values, strict=True))}
        wrong = list(_check_parameters(parameters, inspected.defaults, notebook.name))
        problems += wrong
        if not wrong:
            yield _new_run(inspected, parameters, output, folder, entry.get("gpus", 0))


class _Inspected(NamedTuple):
    """A notebook: its file and text, its parameters with their defaults, and the content that decides its results."""

    path: Path
    source: str
    defaults: dict[str, Any]
    content: list


def _inspect(notebook: Path) -> _Inspected:
    nbformat = need("nbformat", "notebooks")
    try:
        if not notebook.is_file():
            raise ValueError(f"{notebook}: no such notebook; paths are relative to the YAML file")
    except OSError as error:  # a name that no file can have
        raise ValueError(f"{str(notebook)[:80]}...: no such notebook ({error.strerror})") from error
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about the form of a notebook that is read all the same
            source = schema.read_text(notebook)
            cells = nbformat.reads(source, as_version=4)
        tagged = [cell.source for cell in cells.cells if "parameters" in cell.metadata.get("tags", [])]
        kernel = cells.metadata.get("kernelspec", {}).get("name")
        content = [kernel, *([cell.cell_type, cell.source] for cell in cells.cells)]
    except Exception as error:  # whatever a file that is no notebook leads nbformat to
        raise ValueError(f"{notebook}: not a readable notebook ({type(error).__name__})") from error
    if not tagged:
        raise ValueError(f"{notebook}: no cell is tagged 'parameters'; tag the one that sets them")
    return _Inspected(notebook, source, _defaults(tagged[0], notebook), content)


class _Expression(str):
    """A default that is not a plain value: it accepts anything."""


def _defaults(source: str, notebook: Path) -> dict[str, Any]:
    """Names and values of the cell of parameters, read by Python's grammar: papermill's inspection stumbles on '#' and
    '=' inside a text."""
    try:
        statements = ast.parse(source).body
    except (SyntaxError, ValueError, TypeError, RecursionError, MemoryError) as error:
        raise ValueError(f"{notebook}: the cell tagged 'parameters' is not valid Python ({reason(error)})") from error
    defaults: dict[str, Any] = {}
    for statement in statements:
        if not isinstance(statement, ast.Assign | ast.AnnAssign) or statement.value is None:
            continue
        try:
            value = ast.literal_eval(statement.value)
            json.dumps(value, sort_keys=True)
        except (ValueError, TypeError, RecursionError):
            value = _Expression(ast.unparse(statement.value))
        if isinstance(statement, ast.AnnAssign) and ast.unparse(statement.annotation) == "float" and type(value) is int:
            value = float(value)
        targets = statement.targets if isinstance(statement, ast.Assign) else [statement.target]
        defaults |= {target.id: value for target in targets if isinstance(target, ast.Name)}
    return defaults


def _check_parameters(parameters: Mapping, defaults: Mapping, notebook: str) -> Iterator[str]:
    for name, value in parameters.items():
        if name not in defaults:
            yield f"{name}: unknown in {notebook}, which has {', '.join(defaults) or 'no parameters'}"
            continue
        try:
            json.dumps(value, sort_keys=True)
        except (TypeError, ValueError):
            got = reprlib.repr(value)
            yield f"{name}: expected numbers, texts, lists of them or names with them, got {got}; quote a text"
            continue
        default = defaults[name]
        if default is None or isinstance(default, _Expression):
            continue
        expected = (int, float) if isinstance(default, float) else list if isinstance(default, tuple) else type(default)
        if not isinstance(value, expected) or isinstance(value, bool) is not isinstance(default, bool):
            hint = "; in YAML, write 1.0e-3 for 1e-3" if isinstance(default, float) and isinstance(value, str) else ""
            yield f"{name}: expected {type(default).__name__} as in {notebook}, got {reprlib.repr(value)}{hint}"
        elif isinstance(value, str) and is_label(default) and not is_label(value):
            yield f"{name}: expected a task or a mixture, such as '{default}', got {reprlib.repr(value)}; quote it"


def _results_of(parameters: Mapping, folder: Path) -> str | None:
    """Folder that a run writes to, in one of all spellings that name the same folder on some file system."""
    output = parameters.get("output")
    if not isinstance(output, str) or not output or (isinstance(output, _Expression) and "(" in output):
        return None
    return unicodedata.normalize("NFC", os.path.realpath(results_folder(output, folder))).casefold()


def _new_run(notebook: _Inspected, parameters: Mapping, output: Path, folder: Path, gpus: int) -> Run:
    """A run with its name, which is the hash of everything that decides the result."""
    defaults = notebook.defaults
    typed = {
        name: float(value) if isinstance(defaults[name], float) and isinstance(value, int) else value
        for name, value in parameters.items()
    }
    text = json.dumps([notebook.content, {**defaults, **typed}, NUMBERS], sort_keys=True)
    identity = hashlib.blake2b(text.encode(), digest_size=5).hexdigest()
    name = f"{notebook.path.stem}-{identity}"
    named = {key: _filled_in(value, name) if isinstance(value, str) else value for key, value in typed.items()}
    files = output / f"{name}.ipynb", output / f"{name}.json"
    results = _results_of({**defaults, **named}, folder)
    return Run(notebook.path, named, identity, *files, folder, notebook.source, gpus, results)


def _filled_in(value: str, name: str) -> str:
    """A text with the name of the run in place of ``{run}``, and a path below the home folder written out."""
    value = value.replace("{run}", name)
    return str(user_path(value)) if value.startswith("~/") else value


@dataclass(frozen=True)
class Marker:
    """The part of the record of a finished run that is read again."""

    status: str
    error: str | None = None

    def __post_init__(self):
        if self.status not in ("done", "failed"):
            raise ValueError(f"status: expected done or failed, got {self.status[:80]!r}")


def read_marker(path: Path) -> Marker:
    """The marker of a finished run.

    Raises:
        FileNotFoundError: if there is none.
        ValueError: if the file is no marker.
    """
    try:
        return schema.read(Marker, schema.parse(schema.read_text(path), path.name), path.name)
    except FileNotFoundError:
        raise
    except (OSError, ValueError) as error:
        raise ValueError(f"{path}: not a marker of a run ({error}); remove it to run again") from error


def status_of(run: Run) -> str:
    """State of a run: ``done`` or ``failed`` by its marker, ``pending`` where there is none."""
    try:
        return read_marker(run.marker).status
    except FileNotFoundError:
        return "pending"
