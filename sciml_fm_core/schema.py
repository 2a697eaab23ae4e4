"""Checks of what comes out of files: plain values within limits, and dataclasses that declare the types of theirs.

`parse` reads JSON, `read` makes a dataclass of it: the types of its fields say what is expected, and its
``__post_init__`` may say more. Whatever does not fit is one `ValueError` in one line that names the file and the field,
what was expected and what came.

>>> @dataclasses.dataclass(frozen=True)
... class Header:
...     version: int
...     tasks: list[str] = dataclasses.field(default_factory=list)
>>> read(Header, parse('{"version": 3, "tasks": ["SYS-1(1,5)"]}', "own.json"), "own.json")
Header(version=3, tasks=['SYS-1(1,5)'])
>>> read(Header, {"version": "3"}, "own.json")
Traceback (most recent call last):
ValueError: own.json: version: expected a whole number, got '3'
"""

from __future__ import annotations

import dataclasses
import json
import math
import os
import reprlib
import types
from collections.abc import Callable, Iterable, Mapping
from functools import cache, wraps
from pathlib import Path
from typing import Any, ParamSpec, TypeVar, Union, get_args, get_origin, get_type_hints

import numpy as np
from torch import Tensor

LONGEST_TEXT = 2**24
"""Characters of a text that is parsed."""
DEEPEST = 32
"""Lists and mappings inside of each other."""
MOST_VALUES = 2**20
"""Values in all lists and mappings together."""
LARGEST_WHOLE = 2**64
"""Whole numbers are smaller in size: seeds have up to 64 bits."""

T = TypeVar("T")
P = ParamSpec("P")
_NAMES = {str: "a text", bool: "true or false", int: "a whole number", float: "a number", dict: "names and values"}


def read_text(path: str | Path, longest: int = 4 * LONGEST_TEXT) -> str:
    """Text of a file.

    Raises:
        OSError: if it cannot be opened.
        ValueError: if it has more bytes than the longest, or is not in UTF-8.
    """
    with open(path, encoding="utf-8", newline="") as file:
        if (size := os.fstat(file.fileno()).st_size) > longest:
            raise ValueError(f"expected at most {longest} bytes, got {size}")
        return file.read()


def parse(text: str, where: str) -> Any:
    """Values of a JSON text, within the limits above.

    Args:
        text: the JSON.
        where: the file and the kind: errors begin with them.

    Raises:
        ValueError: if it is no JSON or exceeds a limit.
    """
    if len(text) > LONGEST_TEXT:
        raise ValueError(f"{where}: expected at most {LONGEST_TEXT} characters of JSON, got {len(text)}")
    try:
        values = json.loads(text, parse_int=_whole)
    except RecursionError:
        raise ValueError(f"{where}: expected JSON of at most {DEEPEST} levels, got deeper ones") from None
    except ValueError as error:
        raise ValueError(f"{where}: not readable as JSON ({error})") from error
    check_limits(values, where)
    return values


def check_limits(values: Any, where: str) -> None:
    """Raise ValueError when values are nested too deeply, too many, too large, or keys are no texts."""
    stack, count = [(values, 0)], 0
    while stack:
        value, depth = stack.pop()
        count += 1
        if depth > DEEPEST:
            raise ValueError(f"{where}: expected at most {DEEPEST} levels of lists and names, got deeper ones")
        if count + len(stack) > MOST_VALUES:
            raise ValueError(f"{where}: expected at most {MOST_VALUES} values, got more")
        if isinstance(value, dict):
            if wrong := [key for key in value if not isinstance(key, str)]:
                raise ValueError(f"{where}: expected texts as names, got {reprlib.repr(wrong[0])}")
            stack += [(item, depth + 1) for item in value.values()]
        elif isinstance(value, list):
            stack += [(item, depth + 1) for item in value]
        elif isinstance(value, int) and abs(value) >= LARGEST_WHOLE:
            raise ValueError(f"{where}: expected whole numbers below 2^64, got one of {value.bit_length()} bits")


def _whole(digits: str) -> int:
    if len(digits) > 21:  # before it is converted: the time that takes grows with the square
        raise ValueError(f"expected whole numbers of at most 20 digits, got {len(digits)}")
    return int(digits)


def read(kind: type[T], values: Any, where: str, *, finite: bool = True, strict: bool = False) -> T:
    """A dataclass from a mapping of its fields.

    Args:
        kind: the dataclass; its fields may be of plain types, lists, tuples, unions or dataclasses.
        values: what a file holds; names that the dataclass does not have are left out.
        where: the file and the kind: errors begin with them.
        finite: whether NaN and infinity are refused.
        strict: whether other names are refused.

    Raises:
        ValueError: on a value of another type, a missing or, where strict, an unknown name.
    """
    if not isinstance(values, dict):
        raise _wrong(dict, values, where)
    known = {field.name: field for field in dataclasses.fields(kind) if field.init}  # type: ignore[arg-type]
    missing = [name for name, field in known.items() if name not in values and _is_needed(field)]
    if missing:
        raise ValueError(f"{where}: lacks {', '.join(missing)}; write it again")
    hints = _hints(kind)  # type: ignore[arg-type]
    found = {name: _checked(hints[name], values[name], f"{where}: {name}", finite) for name in known if name in values}
    try:
        made = kind(**found)
    except ValueError as error:
        raise ValueError(f"{where}: {error}") from error
    if strict and (unknown := [name for name in values if name not in known]):
        raise ValueError(f"{where}: expected the names {', '.join(known)}, got {reprlib.repr(unknown[0])} too")
    return made


def _is_needed(field: dataclasses.Field) -> bool:
    return field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING


@cache
def _hints(kind: type) -> dict[str, Any]:
    try:
        return get_type_hints(kind)
    except NameError:  # of a class inside of a function: nothing is known of its types
        return {field.name: Any for field in dataclasses.fields(kind)}


def _checked(hint: Any, value: Any, where: str, finite: bool) -> Any:
    origin, arguments = get_origin(hint), get_args(hint)
    if origin in (Union, types.UnionType):
        if value is None and type(None) in arguments:
            return None
        errors = []
        for option in (option for option in arguments if option is not type(None)):
            try:
                return _checked(option, value, where, finite)
            except ValueError as error:
                errors.append(error)
        raise errors[0]
    if dataclasses.is_dataclass(hint) and isinstance(hint, type):
        return read(hint, value, where, finite=finite)
    if origin in (list, tuple) and (origin is list or arguments[1:] == (...,)):
        if not isinstance(value, list):
            raise ValueError(f"{where}: expected a list, got {reprlib.repr(value)}")
        return origin(_checked(arguments[0], item, f"{where}[{i}]", finite) for i, item in enumerate(value))
    if origin is dict:
        if not isinstance(value, dict):
            raise _wrong(dict, value, where)
        return {key: _checked(arguments[1], item, f"{where}: {key[:40]!r}", finite) for key, item in value.items()}
    if hint in _NAMES:
        fits = isinstance(value, (int, float) if hint is float else hint)
        if not fits or (isinstance(value, bool) and hint is not bool):
            raise _wrong(hint, value, where)
        if finite and isinstance(value, float) and not math.isfinite(value):
            raise ValueError(f"{where}: expected a finite number, got {value}")
    return value


def _wrong(kind: type, value: Any, where: str) -> ValueError:
    return ValueError(f"{where}: expected {_NAMES[kind]}, got {reprlib.repr(value)}")


# Names ----------------------------------------------------------------------------------------------------------------


def check_choice(what: str, value: Any, choices: Iterable[str]) -> None:
    """Raise ValueError where a value is none of the choices.

    >>> check_choice("split", "dev", ("train", "test"))
    Traceback (most recent call last):
    ValueError: split: expected one of train, test, got 'dev'
    """
    choices = list(choices)
    if value not in choices:
        raise ValueError(f"{what}: expected one of {', '.join(choices)}, got {reprlib.repr(value)}")


def look_up(what: str, name: str, known: Mapping[str, T]) -> T:
    """What is known by a name; ValueError as `check_choice`."""
    check_choice(what, name, known)
    return known[name]


# What goes in ---------------------------------------------------------------------------------------------------------


def plain(values: Any) -> Any:
    """Values as JSON gives them back: numbers and arrays of NumPy and PyTorch become numbers and lists, paths texts.

    >>> plain({"rates": np.logspace(-3, -2, 2), "seed": np.int64(3), 0.5: (Path("own.h5"), None)})
    {'rates': [0.001, 0.01], 'seed': 3, '0.5': ['own.h5', None]}

    Raises:
        ValueError: on a value that JSON does not have.
    """
    values = without_numpy(values.tolist() if isinstance(values, Tensor) else values)
    if isinstance(values, Mapping):
        return {key if isinstance(key, str) else json.dumps(plain(key)): plain(value) for key, value in values.items()}
    if isinstance(values, (list, tuple)):
        return [plain(value) for value in values]
    if isinstance(values, os.PathLike):
        return os.fspath(values)
    if values is None or isinstance(values, (str, int, float)):
        return values
    raise ValueError(f"expected numbers, texts, lists and names with them, got {reprlib.repr(values)}")


def without_infinity(value: Any) -> Any:
    """The same plain values with None in place of numbers that are not finite.

    >>> without_infinity({"errors": [0.5, float("inf")]})
    {'errors': [0.5, None]}
    """
    if isinstance(value, Mapping):
        return {key: without_infinity(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [without_infinity(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def without_numpy(value: Any) -> Any:
    """Python's numbers in place of NumPy's, tuples in place of its arrays; also in lists, tuples and dictionaries.

    >>> without_numpy({np.float64(0.5): np.array([32, 64])})
    {0.5: (32, 64)}
    """
    if isinstance(value, np.floating):
        return float(value)
    if isinstance(value, np.generic):
        return value.item()
    if isinstance(value, np.ndarray):
        return tuple(map(without_numpy, value)) if value.ndim else without_numpy(value[()])
    if type(value) in (list, tuple):
        return type(value)(map(without_numpy, value))
    if type(value) is dict:
        return {without_numpy(key): without_numpy(item) for key, item in value.items()}
    return value


def takes_numpy(function: Callable[P, T]) -> Callable[P, T]:
    """Decorate a function that takes NumPy's numbers and arrays, and sees those of Python."""

    @wraps(function)
    def called(*args: P.args, **options: P.kwargs) -> T:
        return function(*map(without_numpy, args), **{name: without_numpy(value) for name, value in options.items()})

    return called


class TakesNumpy:
    """Base of dataclasses that take NumPy's numbers, its arrays and paths, and hold numbers, tuples and texts.

    >>> @dataclasses.dataclass(frozen=True)
    ... class Settings(TakesNumpy):
    ...     rates: tuple[float, ...]
    >>> Settings(np.logspace(-3, -2, 2))
    Settings(rates=(0.001, 0.01))
    """

    def __init_subclass__(cls, **options):
        super().__init_subclass__(**options)
        check = cls.__post_init__

        def __post_init__(self):
            for field in dataclasses.fields(self):
                value = without_numpy(getattr(self, field.name))
                object.__setattr__(self, field.name, os.fspath(value) if isinstance(value, os.PathLike) else value)
            check(self)

        cls.__post_init__ = __post_init__  # type: ignore[method-assign]

    def __post_init__(self):
        """Check the fields."""
