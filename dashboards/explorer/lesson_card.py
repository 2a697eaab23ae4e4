"""The lesson that is open: which step, what the stage shows of it and covers, and the answer with its numbers."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from concurrent.futures import Executor
from typing import Any
from urllib.parse import urlencode

from . import text
from .exports import File
from .lessons import NONE, Lesson, find_lessons, markdown, open_at, sheet, told
from .state import ExploreState


class LessonCard:
    """Walks a visitor through a lesson; each step sets the page, and covers what would give its answer away.

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
        self.guesses: dict[int, int] = {}
        """The first choice at each step that was answered, both counted from 0."""
        self._missing = ""

    @property
    def lesson(self) -> Lesson | None:
        """The one that is open."""
        return self.lessons.get(self.name)

    @property
    def offered(self) -> list[dict[str, str]]:
        """The lessons that the menu of the stage offers."""
        titles = {NONE: "no lesson"} | {name: lesson.title for name, lesson in self.lessons.items()}
        return [{"value": name, "label": title} for name, title in titles.items()]

    @property
    def query(self) -> str:
        """What an address says of the lesson that is open, nothing where none is."""
        return urlencode({"lesson": self.name, "step": self.number + 1}) if self.lesson else ""

    def restore(self, query: Mapping[str, str]) -> list[str]:
        """Be where an address says, as ``lesson=1-leaving-home&step=3``, or in no lesson; gives what is wrong."""
        name, step = query.get("lesson", NONE), query.get("step", "1")
        number, known = int(step) - 1 if step.isdecimal() and len(step) < 4 else 0, name in (NONE, *self.lessons)
        if name != self.name:
            self.open(name if known else NONE, number)
        elif number != self.number:
            self.show(number)
        return [] if known else [f"lesson={name[:60]} in the address is left out: there is no such lesson here"]

    def open(self, name: str, number: int = 0) -> None:
        """Begin a lesson at a step, or leave it by the name `NONE`.

        Raises:
            KeyError: if there is none of this name.
        """
        if name != NONE:
            _ = self.lessons[name]
        self.name, self.guesses = name, {}
        self.show(number)

    def show(self, number: int) -> None:
        """Go to a step of the lesson, and set the page to it."""
        if lesson := self.lesson:
            self.number = max(0, min(int(number), len(lesson.steps) - 1))
            self._missing = self._open_at(lesson.steps[self.number].at)
        self.tell()

    def tell(self) -> None:
        """Tell the stage the step of the lesson, and what it covers until the step is answered."""
        lesson = self.lesson
        if lesson is None:
            self._tell("lesson", name=NONE, title="", covers=())
            return
        step, guess = lesson.steps[self.number], self.guesses.get(self.number)
        self._tell(
            "lesson", name=self.name, title=lesson.title, number=self.number, count=len(lesson.steps),
            text=markdown(step.text) + self._missing, ask=markdown(step.ask), choices=step.choices,
            guess=guess, covers=step.covers if guess is None else (),
        )  # fmt: skip

    def _open_at(self, query: str) -> str:
        """Set the page to a step; what of it is not here, as HTML."""
        return "".join(text.message(problem, name="lesson-notice") for problem in open_at(self.state, query))

    async def check(self, guess: int) -> None:
        """Answer a guess, the number of a choice from 0; the page goes where the step's answer is seen."""
        lesson = self.lesson
        if lesson is None:
            return
        step, number = lesson.steps[self.number], self.number
        self.guesses.setdefault(number, guess)
        missing = self._open_at(step.then) if step.then else ""
        query = self.state.query()  # as it is now: the dial may be turned while the numbers are computed
        words = await asyncio.get_running_loop().run_in_executor(self._executor, told, step.answer, query)
        verdict = "Right." if guess == step.right - 1 else f"Not so: {step.choices[step.right - 1]}."
        if lesson is self.lesson and number == self.number:
            ended = self._ended(lesson) if number == len(lesson.steps) - 1 else {}
            self._tell("answer", text=markdown(f"**{verdict}** {words}") + missing, **ended)

    def _ended(self, lesson: Lesson) -> dict[str, Any]:
        """What is said behind the last answer: how many first choices were right, and which lesson comes next."""
        right = sum(lesson.steps[number].right - 1 == guess for number, guess in self.guesses.items())
        names = [*self.lessons, None]
        after = names[names.index(self.name) + 1]
        return {
            "score": text.SCORE.format(right=right, count=len(lesson.steps)),
            "next": after and {"value": after, "label": self.lessons[after].title},
        }

    def sheet(self) -> Callable[[], File]:
        """A function that makes the lesson to print, as HTML."""
        own, lesson = ExploreState(self.state.bundles, self.state.load, kept=dict(self.state.kept)), self.lesson
        name = f"{self.name}.html"
        return lambda: File(name, "text/html", sheet(lesson, own).encode(errors="replace") if lesson else b"")
