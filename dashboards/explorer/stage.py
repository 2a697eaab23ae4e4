"""The stage: one component of the browser that shows a frame, turns the dial and draws the source; see ``browser``.

It is told of a frame by one binary message: the length of a header, the header as JSON, and an int16 array for each
field, whose middle and step are in the header: half the size of float32. Predictions are sent as their signed errors,
so that small errors are not lost in rounding. All that it says is in `MESSAGES`.
"""

from __future__ import annotations

import asyncio
import json
import logging
import math
import struct
from collections.abc import Callable
from concurrent.futures import Executor
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple
from urllib.parse import parse_qsl

import numpy as np
import param
from bokeh.palettes import Viridis256, interp_palette
from panel.custom import JSComponent

from .colours import COLOURS, coloured
from .exports import SAVES, File
from .link import query_of
from .serving import LIMITS, Allowance, TooMuch
from .text import STAGE
from .workers import FRAMES, INSIGHTS

if TYPE_CHECKING:
    from .app import Explorer

BROWSER = Path(__file__).parent / "browser"
SCRIPTS = ("parts", "dial", "fields", "drawing", "player", "lesson", "insight", "keep", "stage")
LEVELS = 32766
ERRORS = ("#06123d", "#2166ac", "#9fd4ea", "#f7f7f7", "#fbd678", "#d6451f", "#4d0010")
"""Colours of signed errors at -100 %, -10 %, -1 %, 0.1 % and less, 1 %, 10 % and 100 %: another hue for each decade."""

log = logging.getLogger(__name__)


def pack(header: dict[str, Any], arrays: dict[str, np.ndarray], file: bytes = b"") -> bytes:
    """A message; each value of an array is off by at most a part in 65,000 of the array's range."""
    fields, numbers = [], []
    for name, values in arrays.items():
        low, high = float(values.min()), float(values.max())
        middle, step = (low + high) / 2, (high - low) / (2 * LEVELS) or 1.0
        fields.append({"name": name, "middle": middle, "step": step})
        numbers.append(np.round((values - middle) / step).astype("<i2").tobytes())
    told = json.dumps(header | {"fields": fields}, allow_nan=False).encode()
    return b"".join([struct.pack("<I", len(told)), told, *numbers, file])


class Stage(JSComponent):
    """The component.

    Args:
        on_message: called with each message of the browser, a dictionary of which nothing is checked yet. What comes
            beyond the server's bound is dropped without a word: an answer to each message of a flood would be another.
    """

    _esm = "\n".join((BROWSER / f"{name}.js").read_text(encoding="utf-8") for name in SCRIPTS)

    style = param.String(default=coloured((BROWSER / "stage.css").read_text(encoding="utf-8")))
    colours = param.Dict(default=COLOURS)
    scales = param.Dict(
        default={"solution": list(Viridis256), "error": list(interp_palette(ERRORS, 256))},
        doc="colours of the values of a field, from the lowest to the highest",
    )
    texts = param.Dict(default=STAGE)

    def __init__(self, on_message: Callable[[dict[str, Any]], None], **options: Any):
        super().__init__(**options)
        self._on_message = on_message
        self._allowance = Allowance(LIMITS.messages_per_second)

    def _handle_msg(self, data: Any) -> None:
        if isinstance(data, dict) and self._allowance.take():
            self._on_message(data)

    def tell(self, kind: str, arrays: dict[str, np.ndarray] | None = None, file: bytes = b"", **header: Any) -> None:
        """Send a message to every browser that shows the component."""
        self._send_msg(pack({"kind": kind} | header, arrays or {}, file))

    def send_file(self, file: File) -> None:
        """Give a file to the browser, which saves it."""
        self.tell("file", file=file.content, name=file.name, type=file.type)


# What the browser says ------------------------------------------------------------------------------------------------


def hear(page: Explorer, message: dict[str, Any]) -> None:
    """Act on a message; anybody can send anything to a server, and what makes no sense is left alone."""
    for name, (read, act, is_choice) in MESSAGES.items():
        if name not in message or (is_choice and not page.choices.take()):
            continue
        try:
            act(page, read(message[name]))
        except TooMuch as refusal:
            page.notice(str(refusal))
        except (TypeError, ValueError, LookupError, ArithmeticError):
            log.warning("the stage sent %s = %.80r, which is left alone", name, message[name])


def number(value: Any) -> float:
    """Read a finite number.

    >>> number("2.5")
    2.5

    Raises:
        ValueError: if it is none.
    """
    if not math.isfinite(found := float(value)):
        raise ValueError(f"expected a finite number, got {value}")
    return found


def query(value: Any) -> dict[str, str]:
    """Read the query of an address.

    >>> query("?system=poisson&dial=3")
    {'system': 'poisson', 'dial': '3'}
    """
    return dict(parse_qsl(name(value).removeprefix("?"), keep_blank_values=True))


def numbers(values: Any) -> tuple[float, ...]:
    """Read finite numbers."""
    return tuple(map(number, values))


def name(value: Any) -> str:
    """Read a name.

    Raises:
        TypeError: if it is no text.
    """
    if not isinstance(value, str):
        raise TypeError(f"expected a name, got {type(value).__name__}")
    return value


def _ready(page: Explorer, _: Any) -> None:
    page.set_up()
    page.lesson.tell()
    page.request_frame()
    page.curves.request()


def _across(page: Explorer, value: float) -> None:
    parameters = page.state.system.parameters
    if parameters:
        page.state.set_parameter(parameters[0].name, parameters[0].snap(value))
    else:
        page.state.thin_out(value)


def _result(page: Explorer, value: str) -> None:
    page.state.show(None if value == "none" else dict(enumerate(page.state.adapted))[int(value)])


def _guess(page: Explorer, number: int) -> None:
    page.loop.one_at_a_time("guess", partial(page.lesson.check, number))


def _save(page: Explorer, what: str) -> None:
    # As the page is now. Frames are short, and nobody's waits behind a sheet or a whole trajectory.
    if what == "sheet":
        make, executor = page.lesson.sheet(), INSIGHTS
    else:
        make, executor = SAVES[what](page.state, query_of(page.state)), INSIGHTS if page.state.is_in_time else FRAMES
    page.loop.one_at_a_time("save", partial(_send_file, page, make, executor))


async def _send_file(page: Explorer, make: Callable[[], File], executor: Executor) -> None:
    try:
        file = await asyncio.get_running_loop().run_in_executor(executor, make)
    except (ValueError, ArithmeticError) as error:
        page.notice(str(error))
    else:
        page.stage.send_file(file)


class Message(NamedTuple):
    """A message of the browser: how its value is read, what follows, and whether it changes the whole page.

    A page hears a few of the latter a second. The others come with each move of a hand and are cheap: of many, one
    frame is made.
    """

    read: Callable[[Any], Any]
    act: Callable[[Explorer, Any], None]
    is_choice: bool = False


# In the order in which they are heard: a frame that a move asks for is of the move's own number.
MESSAGES = {
    "turn": Message(int, lambda page, number: setattr(page.frames, "turn", number)),
    "painted": Message(int, lambda page, number: page.frames.acknowledge(number)),
    "dial": Message(number, lambda page, value: page.state.set_dial(value)),
    "across": Message(number, _across),
    "window": Message(numbers, lambda page, ends: page.state.set_window(*ends)),
    "gaussians": Message(list, lambda page, rows: page.state.place_gaussians(rows)),
    "coefficients": Message(dict, lambda page, rows: [page.state.paint(name, each) for name, each in rows.items()]),
    "random": Message(bool, lambda page, _: page.state.draw_random(page.state.seed)),
    "training": Message(bool, lambda page, is_open: setattr(page.state, "training", is_open), is_choice=True),
    "ready": Message(bool, _ready, is_choice=True),
    "address": Message(query, lambda page, query: page.revisit(query), is_choice=True),
    "system": Message(name, lambda page, name: page.state.choose_system(name), is_choice=True),
    "model": Message(name, lambda page, name: page.state.choose_bundle(name), is_choice=True),
    "result": Message(name, _result, is_choice=True),
    "lesson": Message(name, lambda page, name: page.lesson.open(name), is_choice=True),
    "step": Message(int, lambda page, number: page.lesson.show(number), is_choice=True),
    "guess": Message(int, _guess, is_choice=True),
    "insight": Message(name, lambda page, tab: page.tabs.open(tab), is_choice=True),
    "save": Message(name, _save, is_choice=True),
}
"""All that a browser says, by name."""
