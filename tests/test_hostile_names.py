"""A name, a card, a record or a link that is HTML is shown as text, wherever it is shown."""

import ast
import json
import sys
from html.parser import HTMLParser
from pathlib import Path

import pytest

pytest.importorskip("panel_material_ui", reason="the dashboard extra is not installed")
sys.path.insert(0, str(Path(__file__).parent.parent / "dashboards"))

import panel as pn
from explorer.app import Explorer
from explorer.bundles import FOLDER_VARIABLE
from explorer.exports import program
from explorer.jobs import JobState
from explorer.lessons import VARIABLE, markdown
from explorer.studies.page import Studies
from explorer.studies.records import RECORDS_VARIABLE
from test_studies_state import places, records_of

__all__ = ["places"]  # a fixture

HOSTILE = "<img src=x onerror=alert(1)>"


class Tags(HTMLParser):
    """Names of the elements of a text, with what would run."""

    def __init__(self, html):
        super().__init__()
        self.found = []
        self.feed(html)

    def handle_starttag(self, tag, attrs):
        self.found += [tag, *(name for name, _ in attrs if name.startswith("on"))]


def shown(page):
    """Everything that a page shows as HTML."""
    return [pane.object for pane in page.select(pn.pane.HTML) if isinstance(pane.object, str)]


def assert_harmless(texts):
    """None has an element that no page of ours has, and somewhere the hostile words stand as text."""
    assert not {"img", "script", "onerror"} & {found for text in texts for found in Tags(text).found}
    assert any("&lt;img" in text for text in texts)


@pytest.fixture
def hostile(small_operator, tmp_path, monkeypatch):
    """The explore page with an operator whose name and card are HTML, chosen."""
    operator = small_operator("SYS-1(1,5)", recipe=HOSTILE, size=HOSTILE, architecture=HOSTILE)
    operator.card["kind"] = HOSTILE
    operator.save(tmp_path / f"{HOSTILE}.safetensors")
    (tmp_path / f"{HOSTILE} broken.safetensors").write_bytes(b"no weights")
    (tmp_path / "lessons").mkdir()
    (tmp_path / "lessons" / "x.yaml").write_text(f"title: '{HOSTILE}'\nsteps: {HOSTILE}\n")
    monkeypatch.setenv(FOLDER_VARIABLE, str(tmp_path))
    monkeypatch.setenv(VARIABLE, str(tmp_path / "lessons"))
    explorer = Explorer()
    explorer.request_frame = lambda: None
    explorer.state.choose_bundle(HOSTILE)
    return explorer


def test_an_operator_whose_name_and_card_are_html(hostile):
    owner = hostile.state.system_name, HOSTILE
    page = hostile.page()
    assert_harmless(shown(page))
    hostile.state.choose_bundle("sys-1")
    hostile.adapt._follow(owner, JobState(stage="fine-tuning"))
    assert HOSTILE not in hostile.adapt.status.object
    assert_harmless([hostile.adapt.status.object])
    hostile.adapt._follow(owner, JobState(stage="failed", message=HOSTILE))
    assert_harmless([hostile.adapt.status.object])


def test_a_link_that_is_html():
    values = [(name, [HOSTILE.encode()]) for name in ("system", "model", "dial", "seed", "sparsity", "draw", "result")]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(type(pn.state), "session_args", dict(values))
        explorer, studies = Explorer(), Studies()
    assert_harmless([explorer.gone.notice.object])
    for tags in map(Tags, shown(studies.page())):
        assert not {"img", "onerror"} & set(tags.found)


def test_a_program_to_keep_is_no_other_program_by_the_name_of_a_file(small_operator, tmp_path, monkeypatch):
    name = "x\nraise SystemExit(3)\n"
    small_operator("SYS-1(1,5)").save(tmp_path / f"{name}.safetensors")
    monkeypatch.setenv(FOLDER_VARIABLE, str(tmp_path))
    explorer = Explorer()
    explorer.request_frame = lambda: None
    explorer.state.choose_bundle(name)
    tree = ast.parse(program(explorer.state, "").content)
    assert not any(isinstance(node, ast.Raise) for node in ast.walk(tree))


def test_records_that_are_html(places, monkeypatch):
    folder, _ = places
    for record in records_of("q1_downstream_data"):
        record |= {name: HOSTILE for name in ("architecture", "size", "git", "note")}
        record["versions"] = {HOSTILE: HOSTILE}
        record[HOSTILE] = HOSTILE
        (folder / f"{record['identity']}.json").write_text(json.dumps(record))
    (folder / f"{HOSTILE.replace('/', '')}.json").write_text("{")
    monkeypatch.setenv(RECORDS_VARIABLE, str(folder))
    monkeypatch.setattr("explorer.studies.records.shipped_tables", dict)
    studies = Studies()
    state = studies.state
    assert state.picture is not None
    state.open(next(iter(state.picture.records)))
    assert state.details is not None
    assert_harmless(shown(studies.page()))
    assert_harmless([studies.details.body.object])


def test_html_in_a_lesson_is_text():
    assert Tags(markdown(f"**Look** {HOSTILE}")).found == ["p", "strong"]
    assert Tags(markdown("[here](javascript:alert(1))")).found == ["p"]


def test_the_stage_writes_html_of_its_own_alone():
    """All that comes from names is set as text: what is set as HTML is an equation, or a lesson's Markdown."""
    folder = Path(__file__).parent.parent / "dashboards" / "explorer" / "browser"
    lines = [line.strip() for path in sorted(folder.glob("*.js")) for line in path.read_text().splitlines()]
    html = [line for line in lines if "HTML" in line or "document.write" in line]
    assert len(html) == 4
    assert all(any(own in line for own in ("setup.equation", "lesson.text", "lesson.ask")) for line in html)
