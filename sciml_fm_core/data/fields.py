"""Fields of anybody's file as examples: inputs, targets and scalars are named, and no equation is asked for.

An array of one field is (N, ny, nx), N the number of examples; of several, (N, C, ny, nx) or (N, ny, nx, C), and
channel 1 of ``u`` is the field ``u_1``. Trajectories have an axis of times besides, and one alone is (T, ny, nx), see
`Times`.
"""

from __future__ import annotations

import os
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from sciml_fm_core.files import user_path
from sciml_fm_core.messages import printable
from sciml_fm_core.physics.examples import Examples
from sciml_fm_core.physics.spectral import Resolution, resolution_of
from sciml_fm_core.physics.unknown import UnknownSystem

from .arrays import ArrayFile, FileArray, with_gaps
from .hdf5 import chosen_numbers
from .layout import SAY_TIMES, Layout, Times, layout_beside

MOST_CHANNELS = 8
"""An axis is taken for one of channels without being asked if it has no more than these."""
WELL = ("t0_fields", "t1_fields", "t2_fields")
"""Groups of scalars, vectors and tensors in the_well's files: (N, T, ny, nx, components)."""


@dataclass(frozen=True)
class _Part:
    """An array, or one channel of it, among inputs or targets: where times, channels, y and x are."""

    name: str
    array: FileArray
    channel: int | None
    channels: int
    """Channels of the array."""
    channels_last: bool
    grid: tuple[int, ...]
    times: int
    """Times of the array, 0 where it has no such axis."""
    times_last: bool

    def read(self, rows: np.ndarray, starts: np.ndarray, steps: list[int]) -> np.ndarray:
        """Fields (count, channels, ny, nx) of examples, those of one time after those of another."""
        if not self.times:
            there, back = np.unique(rows, return_inverse=True)
            return self._channels(self.array.rows(there)[back])
        found = []
        for step in steps:
            places = zip(rows.tolist(), ((starts + step) % self.times).tolist(), strict=True)
            found.append(self.array.at([(row, ..., time) if self.times_last else (row, time) for row, time in places]))
        return np.concatenate([self._channels(one) for one in found], axis=1)

    def some(self, count: int) -> np.ndarray:
        """The first, middle and last of so many examples, in double precision, of times alike; float32 as it is."""
        if np.can_cast(np.dtype(self.array.dtype), "f4"):
            return np.zeros(1)
        rows, times = ([0, number // 2, number - 1] for number in (count, self.times))
        places: list[tuple] = [(row,) for row in rows]
        if self.times:
            places = [
                (row, ..., time) if self.times_last else (row, time) for row, time in zip(rows, times, strict=True)
            ]
        return self.array.at(places, "f8")

    def _channels(self, values: np.ndarray) -> np.ndarray:
        shape = (*self.grid, self.channels) if self.channels_last else (self.channels, *self.grid)
        values = values.reshape(len(values), *shape)
        values = np.moveaxis(values, -1, 1) if self.channels_last else values
        return values if self.channel is None else values[:, self.channel : self.channel + 1]

    def names(self, steps: list[int]) -> list[str]:
        """Names of the channels that `read` gives."""
        alone = self.channel is not None or self.channels == 1
        names = [self.name] if alone else [f"{self.name}_{i}" for i in range(self.channels)]
        if not self.times or len(steps) == 1:
            return names
        return [f"{name} at time {step}" for step in steps for name in names]


def has_times(array: FileArray, axis: str, fields: list[FileArray]) -> bool:
    """Whether an array among those of trajectories has an axis of times: those with most axes do, and their like."""
    longest, place = max(fields, key=lambda each: len(each.shape)), -1 if axis == "last" else 1
    alike = len(array.shape) == len(longest.shape) or array.shape[place] == longest.shape[place]
    return len(array.shape) > 3 and alike


def _part(
    name: str, array: FileArray, channel: int | None, layout: Layout, grid: tuple[int, ...] | None, timed: bool
) -> _Part:
    """Which axes of an array are of times, channels, y and x.

    Raises:
        ValueError: if that is not sure, or it has others.
    """
    time, shape = layout.time, array.shape[1:]
    rank = WELL.index(array.group) if array.group in WELL else None
    timed = timed if rank is None else len(shape) >= 3 + rank
    where, times = f"{array.where}: {array.shape}", 0
    times_last = timed and rank is None and time is not None and time.axis == "last"
    more = len(shape) - 2 - timed
    if (timed and time is None) or (more == 2 and time is None and rank is None):
        raise ValueError(f"{where} seems to be of trajectories; {SAY_TIMES}")
    if more not in ((0, 1) if rank is None else (rank,)):
        raise ValueError(
            f"{where}: expected fields on a plane, (N, ny, nx), and at most an axis of channels and one of times; "
            "fields on a line or in space, and one field for all examples, are not read"
        )
    if timed:
        times, shape = (shape[-1], shape[:-1]) if times_last else (shape[0], shape[1:])
    last = _channels_last(shape, layout.channels, grid, where) if rank is None and more else True
    found = shape[:2] if last else shape[1:]
    channels = int(np.prod(shape)) // int(np.prod(found))
    if channel is not None and channel >= channels:
        raise ValueError(f"{where}: expected a channel below {channels}, got {name}")
    return _Part(name, array, channel, channels, last, found, times, times_last)


def _channels_last(shape: tuple[int, ...], said: str | None, grid: tuple[int, ...] | None, where: str) -> bool:
    """Whether the last one of three axes is that of the channels, and not the first."""
    if said is not None:
        return said == "last"
    fits = []
    for count, others in ((shape[0], shape[1:]), (shape[2], shape[:2])):
        alike = count == 1 or 2 * count <= min(others) if grid is None else others == grid
        fits.append(alike and count <= MOST_CHANNELS)
    if fits[0] == fits[1]:
        raise ValueError(
            f"{where}: which axes are of the plane is not sure; say --channels first or last (in a YAML, channels: "
            "first), or where one is of times, in a YAML, time: {axis: first, inputs: 0, targets: 1}, or axis: last"
        )
    return fits[1]


class FieldsFile(AbstractContextManager):
    """Examples of a file of fields, read in parts; a context manager, which other processes may read too.

    ``size`` is the number of examples, ``shape`` the points (ny, nx), ``input_names``, ``target_names`` and
    ``scalar_names`` what the channels are called; ``windows`` the number of examples that each trajectory gives, which
    stand one after the other, 1 where there are none.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     path = Path(folder) / "own.npz"
    ...     np.savez(path, a=np.ones((5, 8, 10), bool), u=np.zeros((5, 8, 10, 2)), nu=np.ones(5))
    ...     with FieldsFile(path, Layout("a", "u", "nu")) as file:
    ...         found = file.take([4, 0])
    ...         file.size, file.shape, file.target_names, found.solution.shape, found.coefficients.shape
    (5, (8, 10), ['u_0', 'u_1'], torch.Size([2, 2, 8, 10]), torch.Size([2, 1]))

    Args:
        path: the file, see `ArrayFile`. One field alone is (count, ny, nx).
        layout: what its arrays are; where None, as the YAML beside it says.
        group: group of the file to read, such as ``train``: of a name ``u`` the array ``train/u``, or ``u_train``.

    Raises:
        ValueError: if the file, an array or the layout do not fit.
    """

    def __init__(self, path: str | Path, layout: Layout | None = None, group: str = ""):
        self.path, self.layout, self.group = user_path(path), layout or layout_beside(path), group
        self._file, self._process = ArrayFile(self.path), os.getpid()
        self._series: dict[str, FileArray] = {}  # by name, of a file of one trajectory
        self._where = self._file.where
        try:
            self._fit()
        except BaseException:
            self._file.close()
            raise

    def __reduce__(self):
        return FieldsFile, (self.path.absolute(), self.layout, self.group)

    def __len__(self) -> int:
        return self.size

    def _fit(self) -> None:
        """Find the arrays and their axes, and check that they fit each other."""
        if self._file.is_dataset:
            raise ValueError(
                f"{self._where}: a dataset of {printable(self._file.attributes.get('system'))} by `sciml-fm generate`, "
                "which needs no names; leave out --inputs and --targets, or read it by DatasetFile"
            )
        layout, (before, after) = self.layout, (self.layout.time or Times()).steps
        named = [list(map(self._find, names)) for names in (layout.inputs, layout.targets)]
        arrays = [array for part in named for _, array, _ in part]
        plain = {array.shape[1:] for array in arrays if len(array.shape) == 3}
        grid = plain.pop() if len(plain) == 1 else None
        axis = None if layout.time is None else layout.time.axis
        for array in () if axis is None else arrays:
            times = array.shape[-1 if axis == "last" else 1]
            others = len(array.shape) == 4 and array.group not in WELL and any(len(one.shape) == 5 for one in arrays)
            if others and has_times(array, str(axis), arrays) and times <= MOST_CHANNELS:
                raise ValueError(
                    f"{array.where}: {array.shape}: whether {times} is the number of times or of channels is not sure; "
                    "save it with an axis more, of one channel, or each channel as an array (N, ny, nx)"
                )
        self._inputs, self._targets = (
            [_part(*one, layout, grid, axis is not None and has_times(one[1], axis, arrays)) for one in part]
            for part in named
        )
        parts = [*self._inputs, *self._targets]
        self._agree("number of examples, the first axis", {part.array.name: part.array.shape[0] for part in parts})
        self._agree("points (ny, nx)", {part.array.name: part.grid for part in parts})
        self._agree("times", {part.array.name: part.times for part in parts if part.times})
        count, times, steps = parts[0].array.shape[0], max(part.times for part in parts), before + after
        if layout.time is not None and not (times and -times <= min(steps) and max(steps) < times):
            raise ValueError(
                f"{self._where}: expected trajectories on a plane, (N, T, ny, nx), with the times {steps}, got "
                f"{times or 'no'} times"
            )
        self._check_apart(before, after)
        self.windows = times - max(steps) if layout.time is not None and layout.time.slide else 1
        self._scalars = [self._scalar(name, count) for name in layout.scalars]
        self.shape, self.size = parts[0].grid, count * self.windows
        self.input_names = [name for part in self._inputs for name in part.names(before)]
        self.target_names = [name for part in self._targets for name in part.names(after)]
        columns = [(name, i, one.shape[1]) for name, one in self._scalars for i in range(one.shape[1])]
        self.scalar_names = [name if count == 1 else f"{name}_{i}" for name, i, count in columns]
        for names in (self.input_names + self.scalar_names, self.target_names):
            if twice := next((name for name in names if names.count(name) > 1), None):
                raise ValueError(f"{self._where}: expected each field and scalar once, got {twice} twice")
        for part in parts:
            _check_held(part.array, part.some(count))

    def _find(self, said: str) -> tuple[str, FileArray, int | None]:
        """Name, array and channel: ``u_1`` is channel 1 of ``u``, and ``u=temperature`` is called otherwise here."""
        called, _, name = said.rpartition("=") if not self._file.has(said) else ("", "", said)
        names = [f"{self.group}/{name}", f"{name}_{self.group}"] if self.group else [name]
        inside, channel = next((each for each in names if self._file.has(each)), names[0]), None
        base, _, number = inside.rpartition("_")
        if base and number.isdecimal() and not self._file.has(inside):
            inside, channel = base, int(number)
        array = self._file[inside]
        if array.problem:
            raise ValueError(f"{array.where}: {array.problem}")
        if self.layout.time is not None and self.layout.time.axis == "only" and len(array.shape) >= 3:
            array = self._series.setdefault(array.name, array.as_series())
        return called or name, array, channel

    def _check_apart(self, before: list[int], after: list[int]) -> None:
        """Check that no target is an input too, unless at other times."""
        for one in self._inputs:
            for two in self._targets:
                both = one.array is two.array and (None in (one.channel, two.channel) or one.channel == two.channel)
                same = (
                    {time % one.times for time in before} & {time % one.times for time in after} if one.times else {0}
                )
                if both and same:
                    channels = f"name channels, such as {two.name}_0, or " if two.channels > 1 else ""
                    raise ValueError(
                        f"{self._where}: expected other targets than inputs, got {two.name}; {channels}of "
                        f"trajectories {SAY_TIMES}"
                    )

    def _agree(self, what: str, found: dict[str, Any]) -> None:
        if len(set(found.values())) > 1:
            each = ", ".join(f"{value} of {name}" for name, value in found.items())
            raise ValueError(f"{self._where}: expected one {what} in all fields, got {each}")

    def _scalar(self, said: str, count: int) -> tuple[str, np.ndarray]:
        """Name and values (count, c) of a scalar; one number is that of all examples."""
        name, array, channel = self._find(said)
        shape = array.shape_of(count)
        if (len(shape) not in (1, 2) or shape[0] != count) and not (np.prod(shape) == 1 and len(shape) <= 2):
            raise ValueError(f"{array.where}: expected a scalar ({count},) or ({count}, c), or one number, got {shape}")
        values, exact = (array.at([()], kind).reshape(-1, shape[-1] if len(shape) > 1 else 1) for kind in ("f4", "f8"))
        for column in exact.T:
            _check_held(array, column)
        if channel is not None and channel >= values.shape[1]:
            raise ValueError(f"{array.where}: expected a column below {values.shape[1]}, got {name}")
        values = values if channel is None else values[:, channel : channel + 1]
        _check_finite(values, array, np.arange(count))
        return name, np.broadcast_to(values, (count, values.shape[1]))

    @property
    def system(self) -> UnknownSystem:
        """The names of its fields and scalars."""
        return UnknownSystem(self.input_names, self.target_names, self.scalar_names)

    @property
    def resolution(self) -> Resolution:
        """Points in each direction, or (ny, nx)."""
        return resolution_of(self.shape)

    def take(self, index) -> Examples:
        """Examples at a slice, or at numbers in any order, of which -1 is the last; or where a mask is true.

        An integer alone gives one example, with no leading dimension.

        Raises:
            ValueError: if the file is damaged there, or values are not finite.
            OutOfRange: on numbers that it does not have, which is an IndexError and a ValueError.
        """
        if os.getpid() != self._process:  # HDF5's state is not shared by processes
            self.__init__(self.path, self.layout, self.group)  # type: ignore[misc]
        chosen = chosen_numbers(index, self.size, self._where)
        if not chosen.size:
            return self.take(slice(0, 1)).take(slice(0, 0))
        rows, starts = np.divmod(np.atleast_1d(chosen), self.windows)
        before, after = (self.layout.time or Times()).steps
        inputs: list[np.ndarray] = []
        targets: list[np.ndarray] = []
        for parts, steps, found in ((self._inputs, before, inputs), (self._targets, after, targets)):
            for part in parts:
                found.append(part.read(rows, starts, steps))
                _check_finite(found[-1], part.array, rows)
        scalars = [np.empty((len(rows), 0), "f4"), *(values[rows] for _, values in self._scalars)]
        source, coefficients, solution = (
            torch.from_numpy(np.concatenate(one, axis=1)) for one in (inputs, scalars, targets)
        )
        source, solution = (part.squeeze(1) for part in (source, solution))
        read = Examples(source, coefficients, solution, torch.zeros(len(rows)))
        return read if chosen.ndim else read.take(0)

    def close(self) -> None:
        """Close the file."""
        self._file.close()

    def __exit__(self, *_) -> None:
        self.close()


def _check_held(array: FileArray, values: np.ndarray) -> None:
    """Raise ValueError where rounding to float32 loses how values differ: tiny ones, or small changes of large ones."""
    with np.errstate(all="ignore"):
        spread, lost = values.std(), np.abs(values - values.astype("f4")).max()
    if 1e-10 * np.abs(values).max() < spread < 100 * lost < np.inf:  # less than that is rounding of what is constant
        raise ValueError(
            f"{array.where}: expected values that float32 tells apart, got a spread of {spread:.2g} about "
            f"{values.mean():.2g}; save them less their mean, or in other units"
        )


def _check_finite(values: np.ndarray, array: FileArray, rows: np.ndarray) -> None:
    if len(bad := with_gaps(values)):
        raise ValueError(
            f"{array.where}: expected finite values in float32, got NaN or infinity in example {rows[bad[0]]}; leave "
            "it out or mend it"
        )
