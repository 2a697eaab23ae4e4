"""What the stage in the browser says, one handler for each name; anybody can send anything to a server."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Mapping
from concurrent.futures import Executor
from functools import partial
from typing import Any, Protocol

from .compute import Frame, Query, compute
from .error_curves import ErrorCurves
from .exports import File, as_hdf5, as_npz, program
from .frame_loop import FrameLoop
from .frames import FRAMES
from .lesson_card import LessonCard
from .link import gaussians, query_of
from .serving import Allowance, TooMuch
from .session_loop import SessionLoop
from .stage import Stage
from .state import ExploreState
from .tabs import INSIGHTS, Tabs

log = logging.getLogger(__name__)


class Page(Protocol):
    """The page of a session, as far as the stage can tell it to do something."""

    state: ExploreState
    stage: Stage
    loop: SessionLoop
    frames: FrameLoop
    curves: ErrorCurves
    lesson: LessonCard
    tabs: Tabs
    choices: Allowance
    changes: int

    def set_up(self) -> None: ...
    def request_frame(self) -> None: ...
    def notice(self, reason: str) -> None: ...


def hear(page: Page, message: Mapping[str, Any]) -> None:
    """Act on a message of the stage; what makes no sense is left alone."""
    # A frame that a move asks for is of the move's own number, so numbers are heard first.
    for name, value in sorted(message.items(), key=lambda item: item[0] not in ("turn", "changes")):
        try:
            if name in OFTEN:
                OFTEN[name](page, value)
            elif name in CHOICES and page.choices.take():
                CHOICES[name](page, value)
        except TooMuch as refusal:
            page.stage.tell("notice", text=str(refusal))
        except (TypeError, ValueError, LookupError, ArithmeticError):
            log.warning("the stage sent %.40s = %.80r, which is left alone", name, value)


# What a hand moves ----------------------------------------------------------------------------------------------------


def _turn(page: Page, number: int) -> None:
    page.frames.turn = int(number)


def _changes(page: Page, number: int) -> None:
    page.changes = int(number)


def _across(page: Page, value: float) -> None:
    parameters = page.state.system.parameters
    if parameters:
        page.state.set_parameter(parameters[0].name, parameters[0].snap(float(value)))
    else:
        page.state.thin_out(float(value))


# What is chosen -------------------------------------------------------------------------------------------------------


def _ready(page: Page, _value: Any) -> None:
    page.set_up()
    page.request_frame()
    page.curves.request()


def _system(page: Page, name: str) -> None:
    if name != page.state.system_name:
        page.state.choose_system(name)


def _model(page: Page, name: str) -> None:
    if name in page.state.bundles and name != page.state.bundle_name:
        page.state.choose_bundle(name)


def _result(page: Page, value: str) -> None:
    page.state.show(None if value == "none" else dict(enumerate(page.state.adapted))[int(value)])


def _guess(page: Page, number: int) -> None:
    page.loop.one_at_a_time("guess", partial(page.lesson.check, int(number)))


def _save(page: Page, what: str) -> None:
    # Frames are short, and nobody's waits behind a sheet.
    executor = INSIGHTS if what == "sheet" else FRAMES
    page.loop.one_at_a_time("save", partial(_send_file, page, SAVES[what](page), executor))


OFTEN: dict[str, Callable[[Page, Any], None]] = {
    "dial": lambda page, value: page.state.set_dial(float(value)),
    "turn": _turn,
    "across": _across,
    "window": lambda page, ends: page.state.set_window(*map(float, ends)),
    "changes": _changes,
    "gaussians": lambda page, rows: page.state.place_gaussians(gaussians(rows)),
    "random": lambda page, _: page.state.draw_random(page.state.seed),
    "painted": lambda page, number: page.frames.acknowledge(int(number)),
}
"""What a stage says at each move of a hand, and is cheap to hear: of many, one frame is made."""
CHOICES: dict[str, Callable[[Page, Any], None]] = {
    "ready": _ready,
    "system": _system,
    "model": _model,
    "result": _result,
    "lesson": lambda page, name: page.lesson.open(name),
    "step": lambda page, number: page.lesson.show(number),
    "guess": _guess,
    "insight": lambda page, tab: page.tabs.open(tab),
    "save": _save,
}
"""What changes the whole page: what comes beyond the page's allowance of choices is not heard."""


# Files ----------------------------------------------------------------------------------------------------------------

SAVES: dict[str, Callable[[Page], File | Callable[[], File]]] = {
    "hdf5": lambda page: partial(_fields, as_hdf5, page.state.query(), query_of(page.state)),
    "npz": lambda page: partial(_fields, as_npz, page.state.query(), query_of(page.state)),
    "python": lambda page: program(page.state, query_of(page.state)),
    "sheet": lambda page: page.lesson.sheet(),
}
"""What the stage can ask to save, of the page as it is when it asks; what takes a while is called in another thread."""


def _fields(save: Callable[[Frame, str], File], query: Query, address: str) -> File:
    return save(compute(query), address)


async def _send_file(page: Page, made: File | Callable[[], File], executor: Executor) -> None:
    try:
        file = await asyncio.get_running_loop().run_in_executor(executor, made) if callable(made) else made
    except (ValueError, ArithmeticError) as error:
        page.notice(str(error))
    else:
        page.stage.tell("file", file=file.content, name=file.name, type=file.type)
