"""What is in a file of fields, and with which names it could be read: what ``sciml-fm info FILE`` says."""

from __future__ import annotations

import json
import re
import shlex
from collections import Counter
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from .arrays import ArrayFile, FileArray, printable
from .fields import WELL, FieldsFile, has_times
from .layout import Layout, Times

MOST_NUMBERS = 2**24
"""Numbers of an array that are looked at for its range; of larger ones, examples spread evenly."""
MOST_COLUMNS = 16
"""An array (N, c) of more columns is no list of scalars."""
_TARGET = re.compile(
    r"(?i)(u|y|s|p|sol|solution|output|target|label|pressure|result|tensor|velocity)s?(_?(train|test|\d+))*"
)
_COORDINATE = re.compile(r"(?i).*(coord|grid|mesh|index|idx).*|[xyzt]|time|mask|split")


@dataclass(frozen=True)
class Described:
    """An array: name, shape, kind, smallest and largest number, and what is to be said of it."""

    name: str
    shape: tuple[int, ...]
    dtype: str
    low: float
    high: float
    note: str

    @property
    def range(self) -> str:
        """Smallest and largest number, as text."""
        return "" if np.isnan(self.low) else f"{self.low:.4g} to {self.high:.4g}"


@dataclass(frozen=True)
class Description:
    """What a file holds and how to read it; as a text, a table of it.

    ``examples`` is the number of examples, 0 where there are no fields; ``layout`` a guess that the file fits, ``yaml``
    how to write it down where names alone do not do, ``command`` what to run, ``notes`` what stands in the way.
    """

    path: Path
    kind: str
    arrays: tuple[Described, ...]
    examples: int = 0
    layout: Layout | None = None
    yaml: str = ""
    command: str = ""
    notes: tuple[str, ...] = ()

    def __str__(self) -> str:
        rows = [("array", "shape", "kind", "range", "")] + [
            (
                one.name,
                " x ".join(map(str, one.shape)) or "one",
                one.dtype,
                one.range,
                one.note,
            )
            for one in self.arrays
        ]
        widths = [max(len(row[i]) for row in rows) for i in range(4)]
        lines = ["  ".join([*map(str.ljust, row, widths), row[4]]).rstrip() for row in rows]
        found = f"{self.path}: {self.kind}" + (f", {self.examples} examples" if self.examples else "")
        told = [f"Write into {self.path.name}.yaml:", self.yaml] if self.yaml else []
        return "\n".join([found, *lines, *self.notes, *told, *([f"Try: {self.command}"] if self.command else [])])


def describe(path: str | Path) -> Description:
    """What a file holds, and a guess of what is an input, a target and a scalar, which is tried before it is said.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     path = Path(folder) / "own.npz"
    ...     np.savez(path, a=np.ones((5, 8, 8), bool), u=np.zeros((5, 8, 8)), nu=np.linspace(0, 1, 5))
    ...     print(str(describe(path)).replace(folder, "."))
    ./own.npz: NPZ, 5 examples
    array  shape      kind     range
    a      5 x 8 x 8  bool     1 to 1
    u      5 x 8 x 8  float64  0 to 0
    nu     5          float64  0 to 1
    Try: sciml-fm pretrain --data ./own.npz --inputs a --targets u --scalars nu

    Args:
        path: the file, or a folder of such.

    Raises:
        ValueError: if it is missing, damaged or of an unknown kind.
    """
    with ArrayFile(path) as file:
        arrays = tuple(map(_look, file.arrays.values()))
        said = Description(file.path, file.kind, arrays)
        command = f"sciml-fm pretrain --data {shlex.quote(str(path))}"
        if file.is_dataset:
            kind = f"sciml-fm dataset of {printable(file.attributes.get('task') or file.attributes.get('system'))}"
            return replace(said, kind=kind, command=command, notes=("It needs no names of arrays.",))
        usable = [each for each in file.arrays.values() if not each.problem]
        count = _examples(usable)
        fields = [each for each in usable if len(each.shape) >= 3 and each.shape[0] == count]
        scalars = [_short(each, usable) for each in usable if _is_scalar(each, count)]
    if not fields:
        why = "No array of fields was found: expected axes of examples, y and x, (N, ny, nx), and perhaps of channels."
        return replace(said, notes=(why,))
    groups = [
        each.name.rpartition("/")[0] for each in fields if each.name.endswith(f"/{fields[0].name.split('/')[-1]}")
    ]
    if len(groups) > 1:
        why = (
            f"Arrays of the same names are in {', '.join(groups[:4])}: if these are splits, write in a YAML splits: "
            f"{{train: {groups[0]}, test: {groups[-1]}}}; if each is an example, stack them into one array."
        )
        return replace(said, examples=count, notes=(why,))
    fitting, notes = [], []
    for time in (None, Times("first", slide=True), Times("last", slide=True)):
        inputs, targets = _by_role(fields, usable, time)
        try:
            with FieldsFile(path, layout := Layout(inputs, targets, scalars, time=time)) as file:
                fitting.append((layout, file.shape))
        except ValueError as error:
            notes.append(str(error).removeprefix(f"file {said.path}: "))
        of_well = any(each.name.split("/")[-2:][0] in WELL for each in fields)
        if (fitting and (time is None or of_well)) or "expected other targets" in notes[0]:
            break
    if len(fitting) > 1:  # times first or last: planes are square more often than not
        fitting = [(layout, shape) for layout, shape in fitting if shape[0] == shape[1]]
    if len(fitting) != 1:
        return replace(said, examples=count, notes=(notes[0],))
    layout, yaml = fitting[0][0], ""
    named = {"inputs": layout.inputs, "targets": layout.targets} | ({"scalars": scalars} if scalars else {})
    if layout.time is None and not any("," in name for names in named.values() for name in names):
        command += "".join(f" --{role} {shlex.quote(','.join(names))}" for role, names in named.items())
    else:  # JSON is YAML, whatever the names are
        yaml = "\n".join(f"{role}: {json.dumps(names, ensure_ascii=False)}" for role, names in named.items())
        if layout.time is not None:
            yaml += f"\ntime: {{axis: {layout.time.axis}, inputs: 0, targets: 1, slide: true}}"
    return replace(said, examples=count, layout=layout, yaml=yaml, command=command)


def _look(array: FileArray) -> Described:
    low = high = np.nan
    note = array.problem or ""
    if not note:
        count = array.shape[0] if array.shape else 1
        some = min(count, max(1, MOST_NUMBERS * count // max(1, int(np.prod(array.shape, dtype=object)))))
        rows = np.unique(np.linspace(0, count - 1, some).round().astype(int))
        try:
            values = array.rows(rows) if array.shape else array.at([()])
            bad = np.flatnonzero(~np.isfinite(values).reshape(len(values), -1).all(axis=1))
            note = f"NaN or infinity in example {rows[bad[0]]}" if len(bad) else ""
            values = values[np.isfinite(values)]
            low, high = (float(values.min()), float(values.max())) if values.size else (low, high)
        except ValueError as error:
            note = str(error).removeprefix(f"{array.where}: ")
        if some < count:
            note = "; ".join(filter(None, [note, f"range of {some} of them"]))
    return Described(array.name, array.shape, array.dtype, low, high, note)


def _examples(arrays: list[FileArray]) -> int:
    """Number of examples: the first axis that most arrays of fields have, and of these the longest."""
    found = Counter(each.shape[0] for each in arrays if len(each.shape) >= 3)
    return max(found, key=lambda count: (found[count], count), default=0)


def _by_role(fields: list[FileArray], usable: list[FileArray], time: Times | None) -> tuple[list[str], list[str]]:
    """Guessed names of inputs and targets; of trajectories, all that vary are states, and the next ones targets."""
    targets = [each for each in fields if _TARGET.fullmatch(each.name.split("/")[-1])]
    if time is not None:
        targets = [each for each in fields if has_times(each, time.axis, fields)]
    elif not targets or len(targets) == len(fields):
        targets = fields[-1:]
    inputs = fields if time is not None else [each for each in fields if each not in targets] or targets
    return [_short(each, usable) for each in inputs], [_short(each, usable) for each in targets]


def _short(array: FileArray, usable: list[FileArray]) -> str:
    """The last part of a name, if it is of one array."""
    end = array.name.split("/")[-1]
    return end if sum(each.name.split("/")[-1] == end for each in usable) == 1 else array.name


def _is_scalar(array: FileArray, count: int) -> bool:
    shape = array.shape[::-1] if array.of_matlab and array.shape == (1, count) else array.shape
    if _COORDINATE.fullmatch(array.name.split("/")[-1]):
        return False
    return shape[:1] == (count,) and (len(shape) == 1 or (len(shape) == 2 and shape[1] <= MOST_COLUMNS))
