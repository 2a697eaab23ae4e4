"""The teacher's page: one sheet with a path of 20 minutes through the lessons, to print or to have beside the page.

Its text is in ``teach.yaml``. Questions and answers are those of the lessons, whose numbers are computed with the
operators that are here.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from html import escape
from itertools import zip_longest
from pathlib import Path
from threading import Event
from urllib.parse import urlencode

import panel as pn
import panel_material_ui as pmui

from sciml_fm_core import schema
from sciml_fm_core.yaml_values import parse_yaml

from . import text
from .bundles import find_bundles
from .lessons import find_lessons, markdown, open_at, told
from .pages import address_of, dashboard_page
from .parts import Html, column, show
from .session_loop import SessionLoop
from .shared import shared_operator, shipped_results
from .state import ExploreState
from .workers import INSIGHTS, Background

TITLE = "Teaching with the lessons"
TEXT = Path(__file__).with_name("teach.yaml")
OPENING = 2
"""Minutes before the first step."""
PRINTED = {
    "@media print": {
        "&, & *": {"height": "auto !important", "overflow": "visible !important", "display": "block !important"},
        "& .MuiAppBar-root, & .MuiToolbar-root": {"display": "none !important"},
    }
}
"""On paper the page has no bar, and is as long as it is."""
STYLE = """<style>
.teach { max-width: 52em; margin: auto; font-size: 15px; line-height: 1.5; }
.teach h2 { font-size: 1.1em; margin: 1.2em 0 .3em; border-top: 1px solid #8886; padding-top: .5em; }
.teach p { margin: .3em 0; }
@media print { .teach { font-size: 10pt; line-height: 1.35; } }
.teach a { color: inherit; }
.teach section { break-inside: avoid; }
</style>"""


@dataclass(frozen=True)
class Stop:
    """A step of a lesson, the minutes that it takes, what to say before its question and to discuss after it."""

    minutes: int
    lesson: str
    step: int
    say: str
    discuss: str


@dataclass(frozen=True)
class Sheet:
    """The text of the sheet."""

    opening: str
    path: tuple[Stop, ...]
    closing: str


def read_sheet() -> Sheet:
    """The text as it stands in the file."""
    return schema.read(Sheet, parse_yaml(TEXT.read_text(encoding="utf-8"), TEXT.name, unsure=[]), TEXT.name)


def answer_at(state: ExploreState, stop: Stop) -> str:
    """The answer that a class sees at a stop, with its numbers, computed on a state that is set to it; as HTML."""
    step = find_lessons()[0][stop.lesson].steps[stop.step - 1]
    missing = "".join(map(text.message, open_at(state, step.then or step.at)))
    expected = markdown(f"**Expect** *{step.choices[step.right - 1]}*. {told(step.answer, state.query())}")
    return f"{missing}<div data-test='expected'>{expected}</div>"


def as_html(answers: Sequence[str] = ()) -> str:
    """The sheet as HTML, with the answers at its first stops; at the others it says that they are to come."""
    words, lessons, minute = read_sheet(), find_lessons()[0], OPENING
    parts = [STYLE, "<div class='teach'>", markdown(words.opening)]
    for stop, answer in zip_longest(words.path, answers, fillvalue="<p>The numbers are being computed.</p>"):
        lesson, ends = lessons[stop.lesson], f"{minute} to {minute + stop.minutes}"
        minute, step = minute + stop.minutes, lesson.steps[stop.step - 1]
        address = escape(address_of("explore", urlencode({"lesson": stop.lesson, "step": stop.step})))
        choices = " / ".join(f"*{choice}*" for choice in step.choices)
        parts.append(
            f"<section><h2>Minutes {ends}: <a href='{address}' target='_blank'>{escape(lesson.title)}, step {stop.step}"
            f"</a></h2>{markdown(f'**Say.** {stop.say}')}{markdown(f'**Ask.** {step.ask} ({choices})')}{answer}"
            f"{markdown(f'**Discuss.** {stop.discuss}')}</section>"
        )
    return "".join([*parts, markdown(words.closing), "</div>"])


class Teach:
    """The page of one session."""

    def __init__(self) -> None:
        self.loop, self.sheet = SessionLoop(), Html(as_html())
        work = Background(INSIGHTS, self.loop.call)
        work.begin(self._compute, work)
        pn.state.on_session_destroyed(lambda _: (work.end(), self.loop.close()))

    def _compute(self, work: Background, stop: Event) -> None:
        bundles, kept, answers = find_bundles()[0], shipped_results(), []
        for number, place in enumerate(read_sheet().path):
            if stop.is_set():
                return
            state = ExploreState(bundles, shared_operator, kept=kept)
            answers.append(pn.state.as_cached(f"answer {number} of the sheet", partial(answer_at, state, place)))
            work.show(stop, show, self.sheet, as_html(answers))

    def page(self) -> pmui.Page:
        """The whole page."""
        header = [pn.pane.HTML(text.page_link("explore", address_of("explore")), margin=(0, 10))]
        main = [column(self.sheet, margin=(4, 10))]
        page = dashboard_page(title=TITLE, header=header, sidebar=[], main=main)
        page.sx = page.sx | PRINTED
        return page
