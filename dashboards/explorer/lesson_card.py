"""The lesson that is open: which step, what the stage shows of it, and the answer with its numbers."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import Executor

from . import text
from .exports import File
from .lessons import NONE, Lesson, find_lessons, markdown, open_at, sheet, told
from .state import ExploreState


class LessonCard:
    """Walks a visitor through a lesson; each step sets the page.

    Args:
        state: of the page.
        tell: sends a message to the stage, as `Stage.tell`.
        executor: where the numbers of answers are computed.
    """

    def __init__(self, state: ExploreState, tell: Callable[..., None], executor: Executor):
        self.state, self._tell, self._executor = state, tell, executor
        self.lessons, self.problems = find_lessons()
        self.name = NONE
        self.number = 0

    @property
    def lesson(self) -> Lesson | None:
        """The one that is open."""
        return self.lessons.get(self.name)

    @property
    def offered(self) -> list[dict[str, str]]:
        """The lessons that the menu of the stage offers."""
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
        if lesson is None:
            self._tell("lesson", title="")
            return
        self.number = max(0, min(int(number), len(lesson.steps) - 1))
        step = lesson.steps[self.number]
        missing = self._open_at(step.at)
        self._tell(
            "lesson", title=lesson.title, number=self.number, count=len(lesson.steps),
            text=markdown(step.text) + missing, ask=markdown(step.ask), choices=step.choices,
        )  # fmt: skip

    def _open_at(self, query: str) -> str:
        """Set the page to a step; what of it is not here, as HTML."""
        return "".join(text.message(problem, name="lesson-notice") for problem in open_at(self.state, query))

    async def check(self, guess: int) -> None:
        """Answer a guess, the number of a choice from 0; the page goes where the step's answer is seen."""
        lesson = self.lesson
        if lesson is None:
            return
        step = lesson.steps[self.number]
        missing = self._open_at(step.then) if step.then else ""
        query = self.state.query()  # as it is now: the dial may be turned while the numbers are computed
        words = await asyncio.get_running_loop().run_in_executor(self._executor, told, step.answer, query)
        verdict = "Right." if guess == step.right - 1 else f"Not so: {step.choices[step.right - 1]}."
        if lesson is self.lesson and step is lesson.steps[self.number]:
            self._tell("answer", text=markdown(f"**{verdict}** {words}") + missing)

    def sheet(self) -> Callable[[], File]:
        """A function that makes the lesson to print, as HTML."""
        own, lesson = ExploreState(self.state.bundles, self.state.load, kept=dict(self.state.kept)), self.lesson
        name = f"{self.name}.html"
        return lambda: File(name, "text/html", sheet(lesson, own).encode(errors="replace") if lesson else b"")
