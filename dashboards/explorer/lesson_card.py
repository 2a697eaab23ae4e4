"""The card of a lesson beside the stage: a text, a prediction to choose, the answer, the next step."""

from __future__ import annotations

import asyncio
import io
from concurrent.futures import Executor

import panel as pn
import panel_material_ui as pmui

from .lessons import Lesson, filled, find_lessons, open_at, sheet
from .parts import Html
from .state import ExploreState

NONE = "none"


class LessonCard:
    """Walks a visitor through a lesson; each step sets the page.

    Args:
        state: of the page.
        executor: where the numbers of answers are computed.
    """

    def __init__(self, state: ExploreState, executor: Executor):
        self.state, self._executor = state, executor
        self.lessons, self.problems = find_lessons()
        self.name = NONE
        self.head, self.text = Html(), pn.pane.Markdown(margin=(0, 10), sizing_mode="stretch_width")
        # A new group for each step: one whose options change while its card appears may be drawn without them.
        self.guess, self.guesses = pn.widgets.RadioBoxGroup(), pn.Column(margin=0)
        self.check = pmui.Button(label="Check", variant="contained", size="small")
        self.back = pmui.Button(label="Back", variant="outlined", size="small")
        self.next = pmui.Button(label="Next", variant="outlined", size="small")
        self.answer = pn.pane.Markdown(margin=(0, 10), sizing_mode="stretch_width")
        self.print = pn.widgets.FileDownload(
            callback=self._sheet, filename="lesson.html", label="Printable sheet", color="light", width=260
        )
        self.card = pn.Column(
            self.head, self.text, self.guesses, pn.Row(self.check, self.back, self.next, margin=0), self.answer,
            self.print, width=290, visible=False, margin=(0, 0, 0, 10), css_classes=["lesson"],
        )  # fmt: skip
        self.number = 0
        self.check.on_click(self._check)
        self.back.on_click(lambda _: self.show(self.number - 1))
        self.next.on_click(lambda _: self.show(self.number + 1))

    @property
    def lesson(self) -> Lesson | None:
        """The one that is open."""
        return self.lessons.get(self.name)

    @property
    def offered(self) -> list[dict[str, str]]:
        """For the menu of the stage."""
        titles = {NONE: "none"} | {name: lesson.title for name, lesson in self.lessons.items()}
        return [{"value": name, "label": title} for name, title in titles.items()]

    def open(self, name: str) -> None:
        """Begin a lesson, or leave it by the name `NONE`.

        Raises:
            KeyError: if there is none of this name.
        """
        if name != NONE:
            _ = self.lessons[name]
        self.name = name
        self.show(0)

    def show(self, number: int) -> None:
        """Go to a step of the lesson, and set the page to it."""
        lesson = self.lesson
        self.card.visible = lesson is not None
        if lesson is None:
            return
        self.number = max(0, min(number, len(lesson.steps) - 1))
        step = lesson.steps[self.number]
        self.head.object = (
            f"<h3 data-test='lesson' style='margin:4px 0'>{lesson.title}</h3>"
            f"<div>step {self.number + 1} of {len(lesson.steps)}</div>"
        )
        self.text.object = f"{step.text}\n\n**{step.ask}**"
        self.guess = pn.widgets.RadioBoxGroup(options=list(step.choices), value=None, margin=(0, 10))
        self.guesses[:] = [self.guess]
        self.answer.object = ""
        self.print.filename = f"{self.name}.html"
        self.back.disabled, self.next.disabled = self.number == 0, self.number == len(lesson.steps) - 1
        open_at(self.state, step.at)

    async def _check(self, _event) -> None:
        lesson = self.lesson
        if lesson is None:
            return
        step = lesson.steps[self.number]
        if self.guess.value is None:
            self.answer.object = "Choose first: a prediction that fails teaches more than none."
            return
        right = self.guess.value == step.choices[step.right - 1]
        if step.then:
            open_at(self.state, step.then)
        words = await asyncio.get_running_loop().run_in_executor(self._executor, filled, step.answer, self.state)
        self.answer.object = f"**{'Right.' if right else f'Not so: {step.choices[step.right - 1]}.'}** {words}"

    def _sheet(self) -> io.StringIO:
        lesson = self.lesson
        own = ExploreState(self.state.bundles, self.state.load, kept=dict(self.state.kept))
        return io.StringIO(sheet(lesson, own) if lesson else "")
