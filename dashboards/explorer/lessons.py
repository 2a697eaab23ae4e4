"""Lessons: files of steps, each a state of the page, a question, and an answer whose numbers are computed.

A lesson is a YAML file in the folder ``lessons`` beside the pages, or in the one that ``SCIML_FM_LESSONS`` names:

    title: Leaving home
    about: One sentence.
    steps:
      - text: What is to be seen.
        at: system=poisson&model=sys-1&dial=3     # the page's state, as in its address
        ask: How large is the error?
        choices: [about 20 %, about 0.2 %]
        right: 2                                  # number of the right choice
        covers: [numbers, curves, errors]         # what the page hides until one has chosen; these where it is left out
        then: system=poisson&model=sys-1&dial=10  # the state when the answer is shown; `at` where it is left out
        answer: "It is {zero_shot}, and was {zero_shot@3} at 3."

In an answer ``{zero_shot}``, ``{fine_tuned}`` and ``{from_scratch}`` are errors of the example on the page, with
``mean_`` before them those over eight random sources (``{mean}`` is that of zero-shot), ``{largest}`` is the largest
|u|, and ``@3`` asks for another value of the dial. Of an evolution ``{zero_shot_after_10}`` is the error of a roll-out
after ten steps. What a question can cover is in `COVERS`.
"""

from __future__ import annotations

import logging
import os
import re
import reprlib
from dataclasses import dataclass, replace
from html import escape
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl

import numpy as np
from markdown_it import MarkdownIt

from sciml_fm_core import schema
from sciml_fm_core.files import user_path
from sciml_fm_core.yaml_values import parse_yaml

from . import text
from .compute import Query, compute
from .error_curves import mean_errors
from .films import Film
from .link import restore
from .state import ExploreState

markdown = MarkdownIt(options_update={"html": False}).render
"""Text of a lesson as HTML; what is HTML in the text itself is shown as it is written."""

FOLDER = Path(__file__).resolve().parent.parent / "lessons"
VARIABLE = "SCIML_FM_LESSONS"
"""Environment variable that names a folder of further lessons."""
NONE = "none"
"""What stands in place of the name of a lesson where none is open."""
LARGEST_FILE = 2**16
"""Bytes of a lesson."""
LONGEST_LINE = 300
COVERS = ("numbers", "curves", "errors", "predictions")
"""What can be covered while a question is open: errors as numbers, curves of errors, fields of errors with the cut and
the tabs, and the fields of predictions."""
ERRORS = "(?:mean_)?(?:zero_shot|fine_tuned|from_scratch)"
PLACEHOLDER = re.compile(rf"\{{(mean|largest|{ERRORS})(?:_after_(\d+))?(?:@(\d+\.?\d*|\.\d+))?\}}")

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Step:
    """One step of a lesson; see the module."""

    text: str
    at: str
    ask: str
    choices: tuple[str | int | float, ...]
    right: int
    answer: str
    then: str = ""
    covers: tuple[str, ...] = COVERS[:3]

    def __post_init__(self):
        object.__setattr__(self, "choices", tuple(map(str, self.choices)))
        if not 1 <= self.right <= len(self.choices):
            raise ValueError(f"right is {self.right} of {len(self.choices)} choices")
        if unknown := [name for name in self.covers if name not in COVERS]:
            raise ValueError(f"covers has {reprlib.repr(unknown[0])}; expected some of {', '.join(COVERS)}")
        if "{" in PLACEHOLDER.sub("", self.answer):
            raise ValueError(f"{reprlib.repr(self.answer)} asks for a number that is not known")


@dataclass(frozen=True)
class Lesson:
    """A lesson as its file has it."""

    title: str
    steps: tuple[Step, ...]
    about: str = ""


@dataclass(frozen=True)
class _File:
    title: str
    steps: list[dict]
    about: str = ""

    def __post_init__(self):
        if not self.steps:
            raise ValueError("expected at least one step")


def read_lesson(path: Path) -> Lesson:
    """A lesson from its file.

    Raises:
        ValueError: if it is no YAML, lacks something, has what is not known, or names a choice or a number that is not
            there; in one line.
    """
    where = f"lesson {path.name}"
    try:
        found = schema.read(_File, _parsed(path, where), where, strict=True)
        steps = [
            schema.read(Step, step, f"{where}, step {number}", strict=True)
            for number, step in enumerate(found.steps, 1)
        ]
    except ValueError as error:
        line = " ".join(str(error).split())[:LONGEST_LINE]
        raise ValueError(line.encode(errors="backslashreplace").decode()) from error
    return Lesson(found.title, tuple(steps), found.about)


def _parsed(path: Path, where: str) -> Any:
    if path.stem == NONE or not path.is_file():  # a pipe would be waited for
        raise ValueError(f"{where}: expected a file, of another name than {NONE}")
    try:
        content = schema.read_text(path, LARGEST_FILE)
    except (OSError, ValueError) as error:
        raise ValueError(f"{where}: expected title, about and steps as documented ({error})") from error
    if re.search(r"<<\s*:", content):  # much comes of little before any limit is looked at
        raise ValueError(f"{where}: keys are not merged by << in a lesson; write them out")
    return parse_yaml(content, where, unsure=[])


def find_lessons() -> tuple[dict[str, Lesson], list[str]]:
    """Lessons by the names of their files, and what is wrong with those that cannot be read."""
    folders = [FOLDER, *([user_path(os.environ[VARIABLE])] if os.environ.get(VARIABLE) else [])]
    lessons: dict[str, Lesson] = {}
    problems = [f"{VARIABLE}: {folder} is no folder" for folder in folders if not folder.is_dir()]
    for path in (path for folder in folders for path in sorted(folder.glob("*.yaml"))):
        try:
            lessons[path.stem] = read_lesson(path)
        except ValueError as error:
            problems.append(str(error))
    return lessons, problems


def open_at(state: ExploreState, query: str) -> list[str]:
    """Set the page to a step's state; what is wrong with that, if anything."""
    return restore(state, dict(parse_qsl(query, keep_blank_values=True)))


def filled(answer: str, asked: Query) -> str:
    """An answer with its numbers, computed at a point of the page.

    Raises:
        ValueError: if a number cannot be computed there.
    """

    def number(match: re.Match) -> str:
        name, steps, dial = match.groups()
        query, scale = asked, asked.system.dialled
        if dial:
            query = replace(query, dial=float(dial))
            if not scale.low <= query.dial <= scale.high:
                raise ValueError(f"@{dial} is not on the dial, which goes from {scale.low:g} to {scale.high:g}")
        if steps is not None:
            film = Film(query)
            while film.number < int(steps) and not film.is_over:
                film.advance()
            errors = film.errors.get(name, [])
            return text.percent(errors[int(steps) - 1] if len(errors) >= int(steps) else None)
        if name == "largest":
            return f"{np.abs(compute(query).solution).max():.3g}"
        if not name.startswith("mean"):
            found = compute(query).predictions.get(name)
            return text.percent(found.relative_error if found else None)
        load = query.operators[name.removeprefix("mean_") if name != "mean" else "zero_shot"]
        if load is None:
            return text.percent(None)
        ((error,),) = mean_errors([load()], [query.dial], query.system)
        return text.percent(error)

    return PLACEHOLDER.sub(number, answer)


def told(answer: str, query: Query) -> str:
    """An answer with its numbers, or why it has none; Markdown."""
    try:
        return filled(answer, query)
    except Exception as error:  # whatever it is, the lesson goes on
        if not isinstance(error, (ValueError, ArithmeticError)):
            log.exception("computing the numbers of an answer failed")
        return f"Its numbers cannot be computed here: {error}"


def sheet(lesson: Lesson, state: ExploreState) -> str:
    """A lesson to print, as HTML: the questions, then on a page of their own the answers."""
    questions, answers = [], []
    for number, step in enumerate(lesson.steps, 1):
        choices = "".join(f"<li>{escape(choice)}</li>" for choice in step.choices)
        questions.append(f"<h2>{number}.</h2>{markdown(step.text)}<p><b>{escape(step.ask)}</b></p><ul>{choices}</ul>")
        missing = "".join(map(text.message, open_at(state, step.then or step.at)))
        right = escape(step.choices[step.right - 1])
        answers.append(f"<h2>{number}. {right}</h2>{missing}{markdown(told(step.answer, state.query()))}")
    style = "body{font:12pt/1.4 serif;max-width:45em;margin:2em auto}h2{font-size:1em}.answers{break-before:page}"
    return (
        f"<!doctype html><meta charset='utf-8'><title>{escape(lesson.title)}</title><style>{style}</style>"
        f"<h1>{escape(lesson.title)}</h1><p>{escape(lesson.about)}</p>{''.join(questions)}"
        f"<div class='answers'><h1>Answers</h1>{''.join(answers)}</div>"
    )
