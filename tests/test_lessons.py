"""Lessons: files that a teacher can write, numbers that are computed, and each of those that ship to its end.

`test_stage_browser` goes through one in a browser.
"""

import asyncio
import os
import re
import sys
from concurrent.futures import ThreadPoolExecutor
from html import unescape
from pathlib import Path
from urllib.parse import parse_qsl

import pytest

pytest.importorskip("panel_material_ui", reason="the dashboard extra is not installed")
sys.path.insert(0, str(Path(__file__).parent.parent / "dashboards"))

from explorer.bundles import find_bundles
from explorer.lesson_card import LessonCard
from explorer.lessons import FOLDER, VARIABLE, filled, find_lessons, open_at, read_lesson, sheet
from explorer.shared import shared_operator, shipped_results
from explorer.state import ExploreState
from explorer.teach import Teach, answer_at, as_html, read_sheet
from explorer.workers import INSIGHTS

LESSONS = sorted(FOLDER.glob("*.yaml"))
OWN = """
title: Own
steps:
  - text: Look.
    at: system=poisson&dial=3
    ask: Is it?
    choices: [yes, no]
    right: 1
    answer: It is {zero_shot}.
"""


@pytest.fixture
def state():
    """The page on what ships."""
    bundles = {name: bundle for name, bundle in find_bundles()[0].items() if bundle.shipped}
    return ExploreState(bundles, shared_operator, kept=shipped_results())


def percents(words):
    return [float(value.replace(",", "")) for value in re.findall(r"([\d.,]+) %", words)]


@pytest.mark.parametrize("path", LESSONS, ids=lambda path: path.stem)
def test_a_lesson_that_ships_is_of_4_to_8_steps_and_goes_to_its_end(path, state):
    """All that its steps name is here, every answer has its numbers, and the page goes where they are seen."""
    lesson, said = read_lesson(path), []
    assert 4 <= len(lesson.steps) <= 8
    assert lesson.about
    card = LessonCard(state, lambda kind, **header: said.append(header["text"]), ThreadPoolExecutor(1))
    card.open(path.stem)
    for number, step in enumerate(lesson.steps, 1):
        asyncio.run(card.check(step.right - 1))
        assert "Right." in said[-1]
        assert not re.search("[{–]", said[-1]), "every number is there"
        assert state.dial == float(re.search(r"dial=([\d.]+)", step.then or step.at)[1])
        card.show(number)
    assert not any("lesson-notice" in text for text in said)


def test_a_question_is_covered_until_it_is_answered_and_the_first_choices_count(state):
    """An address opens a lesson at a step; going back to what was answered covers nothing."""
    told = []
    card = LessonCard(state, lambda kind, **header: told.append(header), ThreadPoolExecutor(1))
    assert card.restore({"lesson": "1-leaving-home", "step": "4"}) == []
    assert (told[-1]["number"], told[-1]["covers"], state.dial) == (3, ("errors",), 20)
    card.open("1-leaving-home")
    last = len(card.lesson.steps) - 1
    for number, step in enumerate(card.lesson.steps):
        card.show(number)
        assert told[-1]["covers"]
        wrong = [guess for guess in range(len(step.choices)) if guess != step.right - 1]
        for guess in (wrong[0], step.right - 1) if number == 0 else (step.right - 1,):
            asyncio.run(card.check(guess))
            assert ("score" in told[-1]) == (number == last)
    assert told[-1]["score"] == f"You answered {last} of {last + 1} questions right at the first try."
    assert told[-1]["next"]["value"] == "2-a-few-examples"
    card.show(0)
    assert (told[-1]["covers"], told[-1]["guess"]) == ((), wrong[0])
    card.open("1-leaving-home")
    assert told[-1]["covers"], "it begins anew"
    assert "lesson=x in the address is left out" in card.restore({"lesson": "x"})[0]


def test_what_the_lessons_claim_is_what_comes_out(state):
    """Leaving home: the numbers of the answers are those that the questions have as choices."""
    lesson = read_lesson(FOLDER / "1-leaving-home.yaml")
    found = []
    for step in lesson.steps[:3]:
        open_at(state, step.then or step.at)
        found.append(percents(filled(step.answer, state.query()))[0])
    inside, end, outside = found
    assert 0.1 < inside < 0.4
    assert end < 4 * inside
    assert 10 * end < outside < 40 * end


def test_a_sheet_has_the_questions_before_the_answers(state):
    lesson = read_lesson(LESSONS[0])
    page = sheet(lesson, state)
    questions, answers = page.split("<h1>Answers</h1>")
    assert all(step.ask in questions for step in lesson.steps)
    assert percents(answers)
    assert not percents(re.sub("<li>.*?</li>", "", questions))


def test_the_teachers_sheet_is_a_path_of_20_minutes_with_numbers_and_links(state):
    page = as_html([answer_at(state, stop) for stop in read_sheet().path])
    links = [dict(parse_qsl(unescape(query))) for query in re.findall(r"href='.*?[?]([^']*)'", page)]
    expected = re.findall("data-test='expected'>(.*?)</div>", page, flags=re.S)
    assert re.findall(r"Minutes \d+ to (\d+)", page)[-1] == "20"
    assert len(links) == len(expected) == 7
    assert all(map(percents, expected))
    card = LessonCard(state, lambda kind, **header: None, ThreadPoolExecutor(1))
    for link in links:
        assert card.restore(link) == []
        assert card.number == int(link["step"]) - 1
        assert dict(parse_qsl(card.query)).items() <= link.items()
    card.open("none")
    assert card.query == ""


def test_the_teachers_page_shows_the_sheet_when_its_numbers_are_there():
    teach = Teach()
    page = teach.page()
    assert "@media print" in page.sx
    INSIGHTS.submit(int).result()  # what was begun before is done
    assert "are being computed" not in teach.sheet.object
    bundles, kept = find_bundles()[0], shipped_results()
    states = (ExploreState(bundles, shared_operator, kept=kept) for _ in read_sheet().path)
    assert teach.sheet.object == as_html(list(map(answer_at, states, read_sheet().path)))


def test_the_teachers_sheet_shows_each_answer_as_it_comes(state):
    first, *_ = read_sheet().path
    page = as_html([answer_at(state, first)])
    assert len(re.findall("data-test='expected'", page)) == 1
    assert page.count("are being computed") == len(read_sheet().path) - 1


def test_own_lessons_come_beside_those_that_ship_and_broken_ones_are_named(tmp_path, monkeypatch):
    monkeypatch.setenv(VARIABLE, str(tmp_path))
    (tmp_path / "own.yaml").write_text(OWN, encoding="utf-8")
    (tmp_path / "few.yaml").write_text(OWN.replace("right: 1", "right: 3"), encoding="utf-8")
    (tmp_path / "number.yaml").write_text(OWN.replace("{zero_shot}", "{zeroshot}"), encoding="utf-8")
    (tmp_path / "no.yaml").write_text("- nothing", encoding="utf-8")
    (tmp_path / "twice.yaml").write_text(OWN.replace("right: 1", "right: 1\n    right: 2"), encoding="utf-8")
    (tmp_path / "written.yaml").write_text(OWN.replace("[yes, no]", "[on, 5:10, 1e-3, 08]"), encoding="utf-8")
    lessons, problems = find_lessons()
    assert len(lessons) == len(LESSONS) + 2
    assert lessons["written"].steps[0].choices == ("on", "5:10", "1e-3", "08")
    assert lessons["own"].steps[0].choices == ("yes", "no")
    assert [problem.split(":")[0] for problem in problems] == [
        "lesson few.yaml, step 1", "lesson no.yaml", "lesson number.yaml, step 1", "lesson twice.yaml, line 9"
    ]  # fmt: skip


def grown(opening, closing):
    """Names, each of which is ten of the one before it."""
    pairs = zip("abcdefg", "bcdefgh", strict=True)
    return "a: &a {x: 1}\n" + "".join(f"{b}: &{b} {opening}{', '.join(10 * [f'*{a}'])}{closing}\n" for a, b in pairs)


BAD = {
    "empty answer": OWN.replace("It is {zero_shot}.", ""),
    "no number": OWN.replace("right: 1", "right: .inf"),
    "no whole number": OWN.replace("right: 1", "right: 1.0"),
    "long number": OWN.replace("right: 1", "right: " + 5000 * "9"),
    "no text": OWN.replace("Look.", "[Look]"),
    "tag": OWN.replace("Look.", "!!timestamp x"),
    "object": OWN.replace("Look.", "!!python/object/apply:os.getcwd []"),
    "two points": OWN.replace("zero_shot", "zero_shot@1.2.3"),
    "mean of what": OWN.replace("zero_shot", "mean_largest"),
    "no choices": OWN.replace("[yes, no]", "yes"),
    "unknown key": OWN.replace("right: 1", "right: 1\n    hint: no"),
    "key twice": OWN.replace("right: 1", "right: 2\n    right: 1"),
    "no steps": "title: Own\nsteps: []",
    "deep": "a: " + 5000 * "[",
    "deep maps": OWN.replace("Look.", 40 * "{a: " + 40 * "}"),
    "aliases": grown("[", "]"),
    "merged": grown("{<<: [", "]}"),
    "itself": "&a\ntitle: *a\nsteps: [*a]",
    "bytes": bytes(range(256)),
    "another encoding": OWN.replace("Look", "Schön").encode("latin-1"),
    "long": OWN + 70_000 * "#",
    "none": OWN,
    "covers what": OWN.replace("right: 1", "right: 1\n    covers: [answers]"),
}  # fmt: skip


def test_a_bad_lesson_is_named_in_one_line_and_all_others_work(tmp_path, monkeypatch, state):
    """Like reports that one malformed file in a folder of content takes a whole server of courses down."""
    monkeypatch.setenv(VARIABLE, str(tmp_path))
    for name, content in BAD.items():
        (tmp_path / f"{name}.yaml").write_bytes(content if isinstance(content, bytes) else content.encode())
    (tmp_path / "folder.yaml").mkdir()
    (tmp_path / "away.yaml").symlink_to(tmp_path / "nowhere")
    if hasattr(os, "mkfifo"):
        os.mkfifo(tmp_path / "pipe.yaml")
    (tmp_path / "own.yaml").write_text(OWN, encoding="utf-8")
    lessons, problems = find_lessons()
    named = [problem.split(".yaml")[0].removeprefix("lesson ") for problem in problems]
    assert sorted(named) == sorted(path.stem for path in tmp_path.iterdir() if path.stem != "own")
    assert not any("\n" in problem or len(problem) > 300 for problem in problems)
    assert lessons.keys() == {"own", *(path.stem for path in LESSONS)}
    monkeypatch.setenv(VARIABLE, str(tmp_path / "nowhere"))
    assert "nowhere is no folder" in find_lessons()[1][0]


@pytest.mark.parametrize(
    ("at", "answer", "says"),
    [
        ("system=poisson&model=sys-1&dial=3&draw=", "It is {zero_shot}.", "The source is empty"),
        ("system=poisson&model=sys-1", "It is {zero_shot@99}.", "@99 is not on the dial, which goes from 1 to 20"),
        ("system=poisson&model=mine&dial=3", "It is {zero_shot}.", "model=mine in the address is left out"),
        ("system=mine&dial=3", "It is {zero_shot}.", "system=mine in the address is left out"),
        ("dial=%FF&p.x=1&result=a:b:c&draw=1", "It is {mean}.", "result=a:b:c in the address is left out"),
    ],
)
def test_a_lesson_that_fails_at_a_step_goes_on_and_says_why(tmp_path, monkeypatch, state, at, answer, says):
    step = OWN.split("steps:\n")[1].replace("dial=3", "dial=3&seed=3")
    failing = step.replace("system=poisson&dial=3&seed=3", at).replace("It is {zero_shot}.", f'"{answer}"')
    (tmp_path / "own.yaml").write_text(f"title: Own\nsteps:\n{failing}{step}", encoding="utf-8")
    monkeypatch.setenv(VARIABLE, str(tmp_path))
    told = []
    card = LessonCard(state, lambda kind, **header: told.append((kind, header["text"])), ThreadPoolExecutor(1))
    card.open("own")
    asyncio.run(card.check(0))
    assert [kind for kind, _ in told] == ["lesson", "answer"]
    assert any(says in text for _, text in told)
    assert "Right." in told[1][1]
    assert says in card.sheet()().content.decode()
    card.show(1)
    asyncio.run(card.check(0))
    assert percents(told[-1][1])


def test_an_answer_has_the_numbers_of_the_state_that_was_asked_about(state):
    """Like reports of results that change when a slider is moved while they are computed."""
    lesson, answers = read_lesson(LESSONS[0]), []
    card = LessonCard(state, lambda kind, **header: answers.append(header["text"]), _Turns(state))
    card.open(LESSONS[0].stem)
    asyncio.run(card.check(0))
    open_at(state, lesson.steps[0].then or lesson.steps[0].at)
    numbers = percents(filled(lesson.steps[0].answer, state.query()))
    assert percents(answers[-1])[-len(numbers) :] == numbers


class _Turns(ThreadPoolExecutor):
    """Where the dial is turned before anything is computed."""

    def __init__(self, state):
        super().__init__(1)
        self.state = state

    def submit(self, work, /, *arguments):
        self.state.set_dial(20)
        return super().submit(work, *arguments)
