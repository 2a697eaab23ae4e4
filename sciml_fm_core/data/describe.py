"""What is in a file of fields, and with which names it could be read: what ``sciml-fm info FILE`` says."""

from __future__ import annotations

import json
import re
import shlex
from collections import Counter
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from sciml_fm_core.messages import printable

from .arrays import ArrayFile, FileArray, with_gaps
from .fields import WELL, FieldsFile, has_times
from .layout import Layout, Times

MOST_NUMBERS = 2**24
"""Numbers of an array that are looked at for its range; of larger ones, examples spread evenly."""
GAPS = "NaN or infinity"
MOST_COLUMNS = 16
"""An array (N, c) of more columns is no list of scalars."""
_TARGET = re.compile(
    r"(?i)(u|y|s|p|sol|solution|output|target|label|pressure|result|tensor|velocity)s?(_?(train|test|\d+))*"
)
_COORDINATE = re.compile(r"(?i).*(coord|grid|mesh|index|idx).*|[xyzt]|time|mask|split")
_CLOCK = re.compile(r"(?i)t|times?")
_SPLIT = {
    "train": re.compile(r"(?i)train(ing)?"),
    "validation": re.compile(r"(?i)val(id|idation)?"),
    "test": re.compile(r"(?i)test(ing)?|eval"),
}


@dataclass(frozen=True)
class Described:
    """An array: name, shape, kind, smallest and largest number as a text, and what is to be said of it."""

    name: str
    shape: tuple[int, ...]
    dtype: str
    range: str
    note: str


@dataclass(frozen=True)
class Description:
    """What a file holds and how to read it; as a text, a table of it.

    ``examples`` is the number of examples, 0 where there are no fields; ``layout`` a guess that the file fits, ``yaml``
    how to write it down where names alone do not do, ``command`` what to run, ``note`` what stands in the way.
    """

    path: Path
    kind: str
    arrays: tuple[Described, ...]
    examples: int = 0
    layout: Layout | None = None
    yaml: str = ""
    command: str = ""
    note: str = ""

    def __str__(self) -> str:
        rows = [("array", "shape", "kind", "range", "")]
        rows += [(a.name, " x ".join(map(str, a.shape)) or "one", a.dtype, a.range, a.note) for a in self.arrays]
        widths = [max(len(row[i]) for row in rows) for i in range(4)]
        lines = ["  ".join([*map(str.ljust, row, widths), row[4]]).rstrip() for row in rows]
        found = f"{self.path}: {self.kind}" + (f", {self.examples} examples" if self.examples else "")
        told = [f"Write into {self.path.name}.yaml:", self.yaml] if self.yaml else []
        return "\n".join([found, *lines, *filter(None, [self.note]), *told, *filter(None, [self.command])])


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
        said = Description(file.path, file.kind, tuple(map(_look, file.arrays.values())))
        command = f"Try: sciml-fm pretrain --data {shlex.quote(str(path))}"
        if file.is_dataset:
            kind = f"sciml-fm dataset of {printable(file.attributes.get('task') or file.attributes.get('system'))}"
            return replace(said, kind=kind, command=command, note="It needs no names of arrays.")
        usable = [each for each in file.arrays.values() if not each.problem]
    splits, arrays = _splits(usable)
    count = _examples(arrays)
    fields = [each for each in arrays if len(each.shape) >= 3 and each.shape[0] == count]
    scalars = [_short(each, arrays) for each in arrays if _is_scalar(each, count)]
    if not fields:
        why = "No array of fields was found: expected axes of examples, y and x, (N, ny, nx), and perhaps of channels."
        return replace(said, note=why)
    said = replace(said, examples=count)
    if on_line := [each for each in arrays if _is_on_line(each, fields)]:
        why = f"{on_line[0].name} seems to be a field on a line, (N, nx), with {fields[0].name} at several times; those"
        return replace(said, note=f"{why} are not read.")
    gaps = {one.name for one in said.arrays if one.note.startswith(GAPS)}
    if not (whole := [each for each in fields if not any(name.endswith(each.name) for name in gaps)]):
        why = f"{GAPS} in every array of fields. Where there are no values, as of the sea on land, save "
        return replace(
            said, note=f"{why}numpy.nan_to_num(values), and where they are as an input of its own, (N, ny, nx)."
        )
    fields = whole
    if len(groups := [each.name.rpartition("/")[0] for each in fields if each.name.endswith(f"/{fields[0].last}")]) > 1:
        why = f"Arrays of the same names are in {', '.join(groups[:4])}: stack them into one array each, (N, ...)."
        return replace(said, note=why)
    layout, why = _fitting(path, fields, arrays, scalars, splits)
    if layout is None:
        return replace(said, note=why)
    if layout.time is not None and layout.time.axis == "only":
        said = replace(said, examples=count - 1, note="The first axis is taken for the times of one trajectory.")
    named = {"inputs": layout.inputs, "targets": layout.targets} | (
        {"scalars": layout.scalars} if layout.scalars else {}
    )
    plain = layout.time is None and not splits and not any("," in name for names in named.values() for name in names)
    if plain:
        command += "".join(f" --{role} {shlex.quote(','.join(names))}" for role, names in named.items())
        return replace(said, layout=layout, command=command)
    lines = [f"{role}: {json.dumps(names, ensure_ascii=False)}" for role, names in named.items()]  # JSON is YAML
    if layout.time is not None:
        lines.append(f"time: {{axis: {layout.time.axis}, inputs: 0, targets: 1, slide: true}}")
    lines += [f"splits: {json.dumps(splits, ensure_ascii=False)}"] if splits else []
    return replace(said, layout=layout, yaml="\n".join(lines), command=command)


def _fitting(
    path: str | Path, fields: list[FileArray], arrays: list[FileArray], scalars: list[str], splits: dict[str, str]
) -> tuple[Layout | None, str]:
    """A layout that the file fits, or why there is none or more than one."""
    fitting: list[tuple[Layout, tuple[int, ...]]] = []
    notes: list[str] = []
    only = any(_is_clock(each, fields) for each in arrays)
    for time in (None, Times("first", slide=True), Times("last", slide=True))[: 0 if only else 3]:
        inputs, targets = _by_role(fields, arrays, time)
        try:
            layout = Layout(inputs, targets, scalars, time=time, splits=dict(splits))
            with FieldsFile(path, layout, splits.get("train", "")) as file:
                fitting.append((layout, file.shape))
        except ValueError as error:
            notes.append(str(error).removeprefix(f"file {path}: "))
        of_well = any(each.group in WELL for each in fields)
        if (fitting and (time is None or of_well)) or "expected other targets" in notes[0]:
            break
    if only or (not fitting and len(fields) == 1 and len(fields[0].shape) == 3):
        names = [_short(each, arrays) for each in fields]
        layout = Layout(names, names, time=Times("only", slide=True))
        with FieldsFile(path, layout) as file:
            return layout, ""
    if len(fitting) > 1:  # times first or last: planes are square more often than not
        fitting = [(layout, shape) for layout, shape in fitting if shape[0] == shape[1]]
    return (fitting[0][0], "") if len(fitting) == 1 else (None, notes[0])


def _splits(arrays: list[FileArray]) -> tuple[dict[str, str], list[FileArray]]:
    """Groups or endings that are called like splits, and the arrays of the training's by their names without them."""
    found: dict[str, str] = {}
    for array in arrays:
        for said in (array.name.split("/")[0], array.name.rpartition("_")[2]):
            found |= {split: said for split, called in _SPLIT.items() if said != array.name and called.fullmatch(said)}
    if len(found) < 2 or "train" not in found:
        return {}, arrays
    start, end = f"{found['train']}/", f"_{found['train']}"
    own = [each for each in arrays if each.name.startswith(start) or each.name.endswith(end)]
    found = {split: found[split] for split in _SPLIT if split in found}
    return found, [replace(each, name=each.name.removeprefix(start).removesuffix(end)) for each in own]


def _look(array: FileArray) -> Described:
    note, found = array.problem or "", ""
    if not note:
        count = array.shape[0] if array.shape else 1
        some = min(count, max(1, MOST_NUMBERS * count // max(1, int(np.prod(array.shape, dtype=object)))))
        rows = np.unique(np.linspace(0, count - 1, some).round().astype(int))
        try:
            values = array.rows(rows) if array.shape else array.at([()])
            bad = with_gaps(values)
            note = f"{GAPS} in example {rows[bad[0]]}" if len(bad) else ""
            values = values[np.isfinite(values)]
            found = f"{values.min():.4g} to {values.max():.4g}" if values.size else ""
        except ValueError as error:
            note = str(error).removeprefix(f"{array.where}: ")
        if some < count:
            note = "; ".join(filter(None, [note, f"range of {some} of them"]))
    return Described(array.name, array.shape, array.dtype, found, note)


def _examples(arrays: list[FileArray]) -> int:
    """Number of examples: the first axis that most arrays of fields have, and of these the longest."""
    found = Counter(each.shape[0] for each in arrays if len(each.shape) >= 3)
    return max(found, key=lambda count: (found[count], count), default=0)


def _by_role(fields: list[FileArray], arrays: list[FileArray], time: Times | None) -> tuple[list[str], list[str]]:
    """Guessed names of inputs and targets; of trajectories, all that vary are states, and the next ones targets."""
    targets = [each for each in fields if _TARGET.fullmatch(each.last)]
    if time is not None:
        targets = [each for each in fields if has_times(each, time.axis, fields)]
    elif not targets or len(targets) == len(fields):
        targets = fields[-1:]
    inputs = fields if time is not None else [each for each in fields if each not in targets] or targets
    return [_short(each, arrays) for each in inputs], [_short(each, arrays) for each in targets]


def _short(array: FileArray, arrays: list[FileArray]) -> str:
    """The last part of a name, if it is of one array."""
    return array.last if sum(each.last == array.last for each in arrays) == 1 else array.name


def _is_clock(array: FileArray, fields: list[FileArray]) -> bool:
    """Whether an array numbers the first axis of fields on a plane as times, as in the files of climate models."""
    return _CLOCK.fullmatch(array.last) is not None and all(
        array.shape == each.shape[:1] and len(each.shape) == 3 for each in fields
    )


def _is_on_line(array: FileArray, fields: list[FileArray]) -> bool:
    """Whether an array (N, nx) is what the only array of fields, (N, nt, nx) or (N, nx, nt), begins with."""
    (count, *plane), alone = fields[0].shape, len(fields) == 1
    return alone and len(plane) == 2 and len(array.shape) == 2 and array.shape[1] > 1 and (
        array.shape[0] == count and array.shape[1] in plane
    )  # fmt: skip


def _is_scalar(array: FileArray, count: int) -> bool:
    shape = array.shape_of(count)
    if _COORDINATE.fullmatch(array.last):
        return False
    return shape[:1] == (count,) and (len(shape) == 1 or (len(shape) == 2 and shape[1] <= MOST_COLUMNS))
