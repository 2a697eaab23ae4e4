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
        then: system=poisson&model=sys-1&dial=10  # the state when the answer is shown; `at` where it is left out
        answer: "It is {zero_shot}, and was {zero_shot@3} at 3."

In an answer ``{zero_shot}``, ``{fine_tuned}`` and ``{from_scratch}`` are errors of the example on the page, with
``mean_`` before them those over eight random sources (``{mean}`` is that of zero-shot), ``{largest}`` is the largest
|u|, and ``@3`` asks for another value of the dial.
"""

from __future__ import annotations

import os
import re
from dataclasses import dataclass, replace
from html import escape
from pathlib import Path
from urllib.parse import parse_qsl

import numpy as np
import torch
from markdown_it import MarkdownIt

from sciml_fm_core import schema
from sciml_fm_core.evaluation.errors import error_map
from sciml_fm_core.files import user_path
from sciml_fm_core.yaml_values import parse_yaml

from . import text
from .compute import compute, sweep_sources
from .link import restore
from .state import ExploreState

markdown = MarkdownIt(options_update={"html": False}).render
"""Text of a lesson as HTML; what is HTML in the text itself is shown as it is written."""

FOLDER = Path(__file__).resolve().parent.parent / "lessons"
VARIABLE = "SCIML_FM_LESSONS"
"""Environment variable that names a folder of further lessons."""
PLACEHOLDER = re.compile(r"\{(mean_)?(mean|largest|zero_shot|fine_tuned|from_scratch)(?:@([\d.]+))?\}")


@dataclass(frozen=True)
class Step:
    """One step of a lesson; see the module."""

    text: str
    at: str
    ask: str
    choices: tuple[str, ...]
    right: int
    answer: str
    then: str = ""


@dataclass(frozen=True)
class Lesson:
    """A lesson as its file has it."""

    title: str
    about: str
    steps: tuple[Step, ...]


def read_lesson(path: Path) -> Lesson:
    """A lesson from its file.

    Raises:
        ValueError: if it is no YAML, lacks something, or names a choice or a number that is not there.
    """
    try:
        values = parse_yaml(schema.read_text(path), f"lesson {path.name}", unsure=[])
        steps = tuple(
            Step(**(step | {"choices": tuple(map(str, step["choices"])), "right": int(step["right"])}))
            for step in values["steps"]
        )
        lesson = Lesson(str(values["title"]), str(values.get("about", "")), steps)
    except (OSError, TypeError, KeyError, AttributeError) as error:
        raise ValueError(f"lesson {path.name}: expected title, about and steps as documented ({error})") from error
    for number, step in enumerate(steps, 1):
        if not 1 <= step.right <= len(step.choices):
            raise ValueError(f"lesson {path.name}, step {number}: right is {step.right} of {len(step.choices)} choices")
        if "{" in PLACEHOLDER.sub("", step.answer):
            raise ValueError(f"lesson {path.name}, step {number}: {step.answer!r} asks for a number that is not known")
    return lesson


def find_lessons() -> tuple[dict[str, Lesson], list[str]]:
    """Lessons by the names of their files, and what is wrong with those that cannot be read."""
    folders = [FOLDER, *([user_path(os.environ[VARIABLE])] if os.environ.get(VARIABLE) else [])]
    lessons: dict[str, Lesson] = {}
    problems = []
    for path in (path for folder in folders for path in sorted(folder.glob("*.yaml"))):
        try:
            lessons[path.stem] = read_lesson(path)
        except ValueError as error:
            problems.append(str(error))
    return lessons, problems


def open_at(state: ExploreState, query: str) -> list[str]:
    """Set the page to a step's state; what is wrong with that, if anything."""
    return restore(state, dict(parse_qsl(query)))


def filled(answer: str, state: ExploreState) -> str:
    """An answer with its numbers, computed for the state as it is."""

    def number(match: re.Match) -> str:
        mean, name, dial = match.groups()
        query = state.query()
        if dial:
            query = replace(query, dial=state.scale.snap(float(dial)))
        if name == "largest":
            return f"{np.abs(compute(query).solution).max():.3g}"
        if not mean and name != "mean":
            found = compute(query).predictions.get(name)
            return text.percent(found.relative_error if found else None)
        load = query.operators["zero_shot" if name == "mean" else name]
        if load is None:
            return text.percent(None)
        sources = sweep_sources(query.system)
        value = torch.tensor([query.dial], dtype=torch.float64)
        error = error_map([load()], sources.source, value, sources.parameters, query.system)
        return text.percent(error.item())

    return PLACEHOLDER.sub(number, answer)


def sheet(lesson: Lesson, state: ExploreState) -> str:
    """A lesson to print, as HTML: the questions, then on a page of their own the answers."""
    questions, answers = [], []
    for number, step in enumerate(lesson.steps, 1):
        choices = "".join(f"<li>{escape(choice)}</li>" for choice in step.choices)
        questions.append(f"<h2>{number}.</h2>{markdown(step.text)}<p><b>{escape(step.ask)}</b></p><ul>{choices}</ul>")
        open_at(state, step.then or step.at)
        right = escape(step.choices[step.right - 1])
        answers.append(f"<h2>{number}. {right}</h2>{markdown(filled(step.answer, state))}")
    style = "body{font:12pt/1.4 serif;max-width:45em;margin:2em auto}h2{font-size:1em}.answers{break-before:page}"
    return (
        f"<!doctype html><meta charset='utf-8'><title>{escape(lesson.title)}</title><style>{style}</style>"
        f"<h1>{escape(lesson.title)}</h1><p>{escape(lesson.about)}</p>{''.join(questions)}"
        f"<div class='answers'><h1>Answers</h1>{''.join(answers)}</div>"
    )
