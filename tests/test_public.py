"""The dashboard among strangers: who is let in, what is granted, and what is not heard."""

import asyncio
import math
import os
import subprocess
import sys
import threading
from dataclasses import fields, replace
from pathlib import Path

import pytest

from sciml_fm_core import SYSTEMS, Task
from sciml_fm_core.companions import serve_dashboard

pytest.importorskip("panel_material_ui", reason="the dashboard extra is not installed")
sys.path.insert(0, str(Path(__file__).parent.parent / "dashboards"))

import panel as pn
from bokeh.document import Document
from explorer import adapt, link
from explorer.adapt import AdaptView
from explorer.app import Explorer
from explorer.jobs import AdaptJob, JobQueue, JobState
from explorer.pages import dashboard_page
from explorer.serving import Allowance, lower_priority
from explorer.serving.limits import PUBLIC, PUBLIC_VARIABLE, Limits, TooMuch
from explorer.serving.sessions import SESSIONS, SessionLimit, session_slot
from explorer.settings import Adapted, AdaptSettings
from explorer.state import ExploreState
from panel.util import edit_readonly
from test_dashboard_state import run_to_end

PATIENCE = 300
SETTINGS = AdaptSettings(Task.parse("SYS-1(5,10)"), 8, 3, 1e-3)


# The bounds ---------------------------------------------------------------------------------------------------------


def test_a_public_server_grants_less_of_everything_that_costs():
    laptop = Limits.read({})
    assert laptop == Limits()
    assert Limits.read({PUBLIC_VARIABLE: "0"}) == laptop
    public = Limits.read({PUBLIC_VARIABLE: "1"})
    assert public == PUBLIC
    same = {field.name for field in fields(Limits) if getattr(public, field.name) == getattr(laptop, field.name)}
    assert same == {"unused_seconds", "nice"}
    assert all(getattr(public, field.name) <= getattr(laptop, field.name) for field in fields(Limits))


def test_one_bound_is_set_by_its_variable():
    environment = {PUBLIC_VARIABLE: "1", "SCIML_FM_LIMIT_STEPS": "50", "SCIML_FM_OPERATORS": "runs"}
    assert Limits.read(environment) == replace(PUBLIC, steps=50)


@pytest.mark.parametrize("text", ["", "0", "-3", "many", "1.5"])
def test_a_bound_that_makes_no_sense_is_named(text):
    with pytest.raises(ValueError, match="SCIML_FM_LIMIT_QUEUE: expected a whole number from 1"):
        Limits.read({"SCIML_FM_LIMIT_QUEUE": text})


def test_a_bound_that_there_is_not_is_named():
    with pytest.raises(ValueError, match=r"SCIML_FM_LIMIT_STEP names no bound; expected one of .*SCIML_FM_LIMIT_STEPS"):
        Limits.read({"SCIML_FM_LIMIT_STEP": "5"})


@pytest.mark.parametrize(
    ("asked", "says"),
    [
        ({"steps": 301}, "at most 300 steps on this server, got 301: ask for fewer"),
        ({"examples": 256}, "at most 128 examples on this server, got 256: ask for fewer"),
        ({"learning_rate": None}, "at most 1 learning rates on this server, got 5: choose one"),
    ],
)
def test_a_training_beyond_the_bounds_is_refused(asked, says):
    PUBLIC.check(SETTINGS)
    with pytest.raises(TooMuch, match=says):
        PUBLIC.check(replace(SETTINGS, **asked))
    Limits().check(replace(SETTINGS, **asked))


def test_the_page_opens_under_any_bound():
    """What the widgets offer, and the values at which they open, are within the bounds, which are read at the start."""
    bounds = {"STEPS": "20", "EXAMPLES": "1", "LEARNING_RATES": "1"}
    code = (
        "from explorer.adapt import AdaptView\nfrom explorer.serving.limits import LIMITS\n"
        "from explorer.state import ExploreState\n"
        "state = ExploreState({})\nview = AdaptView(state, lambda act: act())\n"
        "LIMITS.check(state.settings())\nstate.examples = 'equation'\nLIMITS.check(state.settings())\n"
        "assert max(c for c in view.examples.options.values() if c != 'equation') <= LIMITS.examples\n"
        "assert 'grid' not in view.rate.options.values()\n"
    )
    root = Path(__file__).parent.parent
    environment = os.environ | {f"SCIML_FM_LIMIT_{name}": value for name, value in bounds.items()}
    environment |= {"PYTHONPATH": os.pathsep.join([str(root), str(root / "dashboards")]), "OMP_NUM_THREADS": "1"}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "grid" in AdaptView(ExploreState({}), lambda act: act()).rate.options.values()


# Trainings ----------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def operator(small_operator):
    return small_operator()


def test_a_training_is_stopped_when_its_time_is_over(operator):
    asked = replace(SETTINGS, steps=2000)
    state = run_to_end(AdaptJob(lambda: operator, asked, lambda _: None, JobQueue(), seconds=0.5))
    assert (state.stage, state.result) == ("failed", None)
    assert "may take 0.5 s on this server" in state.message
    assert "fewer steps" in state.message


def test_waiting_for_its_turn_is_no_part_of_its_time(operator):
    queue, release, begun = JobQueue(), threading.Event(), threading.Event()

    def hold():
        begun.set()
        assert release.wait(PATIENCE)
        return operator

    none = replace(SETTINGS, examples=0)
    first = AdaptJob(hold, none, lambda _: None, queue)
    first.start()
    assert begun.wait(PATIENCE)
    second = AdaptJob(lambda: operator, none, lambda _: None, queue, seconds=PATIENCE)
    second.start()
    assert math.isinf(second._ends)
    release.set()
    second.join(PATIENCE)
    assert second.state.stage == "done", second.state.message


def test_a_full_queue_says_so_and_has_room_again(operator):
    queue, release, begun = JobQueue(most=1), threading.Event(), threading.Event()

    def hold():
        begun.set()
        assert release.wait(PATIENCE)
        return operator

    waits = threading.Event()
    none = replace(SETTINGS, examples=0)
    runs = AdaptJob(hold, none, lambda _: None, queue)
    waiting = AdaptJob(lambda: operator, none, lambda s: waits.set() if s.stage == "waiting" else None, queue)
    runs.start()
    assert begun.wait(PATIENCE)
    waiting.start()
    assert waits.wait(PATIENCE)
    refused = run_to_end(AdaptJob(lambda: pytest.fail("it ran"), none, lambda _: None, queue))
    assert refused.stage == "failed"
    assert refused.message.startswith("1 trainings of other visitors wait already")
    assert "try again later" in refused.message
    release.set()
    waiting.join(PATIENCE)
    assert waiting.state.stage == "done"
    assert run_to_end(AdaptJob(lambda: operator, none, lambda _: None, queue)).stage == "done"


@pytest.mark.skipif(sys.platform != "linux", reason="threads have no priority of their own")
def test_a_training_gives_way_and_the_others_do_not(monkeypatch):
    monkeypatch.setattr("explorer.serving.fairness.LIMITS", Limits())
    seen = []

    def work():
        lower_priority()
        seen.append(os.getpriority(os.PRIO_PROCESS, threading.get_native_id()))

    before = os.getpriority(os.PRIO_PROCESS, 0)
    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert seen == [19]
    assert os.getpriority(os.PRIO_PROCESS, 0) == before


def test_one_training_at_a_time_for_a_session():
    view = AdaptView(ExploreState({}), lambda act: act())
    view.job = job = type("Running", (), {"state": JobState(stage="fine-tuning")})()
    view.start()
    assert view.job is job
    assert "A training of this page runs already" in view.status.object


def test_a_training_that_is_too_much_is_not_started_whatever_the_browser_sent(monkeypatch, operator):
    monkeypatch.setattr(adapt, "LIMITS", PUBLIC)
    state = ExploreState({})
    state.loader = lambda: lambda: operator
    view = AdaptView(state, lambda act: act())
    state.steps = 2000
    view.start()
    assert view.job is None
    assert "Expected at most 300 steps" in view.status.object
    assert not view.run.disabled


def test_the_oldest_results_of_a_session_go(monkeypatch, operator):
    monkeypatch.setattr("explorer.state.LIMITS", PUBLIC)
    state = ExploreState({})
    ships = Adapted(replace(SETTINGS, examples=512), {"fine_tuned": lambda: operator}, {}, {}, 0.0)
    state.kept = {("poisson", "elsewhere"): {ships.key: ships}}
    for number in range(1, 8):
        task = Task(SYSTEMS["poisson"], 5.0, 5.0 + number)
        state.keep(("poisson", f"model {number % 2}"), Adapted(replace(SETTINGS, task=task), {}, {}, {}, float(number)))
    kept = [one.finished for results in state.kept.values() for one in results.values()]
    assert sorted(kept) == [0.0, 4.0, 5.0, 6.0, 7.0]


# Messages -----------------------------------------------------------------------------------------------------------


def test_a_flood_is_not_heard_and_a_quiet_second_ends_it():
    now = [0.0]
    allowance = Allowance(10, lambda: now[0])
    assert sum(allowance.take() for _ in range(100)) == 10
    now[0] = 0.5
    assert sum(allowance.take() for _ in range(100)) == 5
    now[0] = 60.0
    assert sum(allowance.take() for _ in range(100)) == 10


def test_more_gaussians_than_are_granted_are_refused_with_a_notice(monkeypatch):
    monkeypatch.setattr("explorer.state.LIMITS", PUBLIC)
    explorer = Explorer(ExploreState({}))
    told = []
    explorer.stage.tell = lambda kind, arrays=None, **header: told.append((kind, header))
    explorer._heard({"gaussians": [[0.5, 0.5, 1.0]] * 33})
    assert told == [("notice", {"text": "Expected at most 32 Gaussians on this server, got 33: remove some."})]
    assert not explorer.state.drawn
    query = ";".join(["0.5,0.5,1"] * 33)
    (problem,) = link.restore(explorer.state, {"draw": query})
    assert "Expected at most 32 Gaussians" in problem


def page_of_its_own():
    """A page outside a server; what it asks to have computed is counted, and not computed."""
    explorer = Explorer(ExploreState({}))
    explorer.asked = []
    explorer.request_frame = lambda: explorer.asked.append("frame")
    return explorer


NONSENSE = [
    None, 3, "dial", [], [{"dial": 1}], {1: 2}, {"close": 1}, {"_heard": 1}, {"__class__": 1}, {"at": None},
    *({"dial": value} for value in ("x", None, math.nan, math.inf, 10**400, 1j)),
    {"across": "up"}, {"across": math.nan}, {"window": 3}, {"window": [3]}, {"window": [5, 4]}, {"window": [1, 1e15]},
    {"gaussians": 3}, {"gaussians": "abc"}, {"gaussians": [[1, 2]]}, {"gaussians": [[0.1, math.nan, 1]]},
    {"gaussians": [[[[[0] * 10]]]]},
    {"system": "x"}, {"system": ["poisson"]}, {"model": "x"}, {"result": "-1"}, {"result": "99"}, {"result": None},
    {"lesson": "x"}, {"lesson": [1]}, {"save": "secrets"}, {"save": {}}, {"insight": ["atlas"]}, {"insight": "x"},
    {"guess": "x"}, {"turn": "x"}, {"painted": [1]}, {"painted": -math.inf}, {"step": "x"},
]  # fmt: skip


def test_what_makes_no_sense_is_left_alone():
    """Anybody can send anything to a server."""
    explorer = page_of_its_own()
    before = dict(explorer.state.param.values())
    explorer.choices = Allowance(1e9)
    for message in NONSENSE:
        explorer.stage._handle_msg(message)
    assert dict(explorer.state.param.values()) == before
    assert not explorer.asked


@pytest.mark.parametrize("system", ["poisson", "advection_diffusion", "helmholtz"])
def test_what_is_too_much_of_a_value_ends_at_its_bounds(system):
    explorer = page_of_its_own()
    explorer.state.choose_system(system)
    for message in (
        *({"dial": value} for value in (1e15, -1e15, 0)), {"across": 1e15}, {"across": -1e15}, {"window": [-1e15, 2]},
        {"gaussians": [[1e15, -1e15, 1e15]]},
    ):  # fmt: skip
        explorer.stage._handle_msg(message)
        check_bounds(explorer.state)
    assert explorer.state.drawn


def check_bounds(state):
    scale = state.scale
    assert state.system_name in SYSTEMS
    assert scale.low <= state.dial <= scale.high
    assert scale.low <= state.window[0] < state.window[1] <= scale.high
    assert 0 <= state.seed < 2**31
    assert 0 <= state.sparsity <= 1
    for each in state.system.parameters:
        assert each.low <= state.parameters[each.name] <= (max(each.high, each.period) if each.angle else each.high)
    assert all(0 <= x <= 1 and 0 <= y <= 1 and abs(size) <= 1 for x, y, size in state.gaussians)
    Limits().check(replace(state.settings(), steps=1))


@pytest.mark.parametrize("value", [1e15, -1e15, math.nan, math.inf, -5, 0, "9999", None, [1], True])
def test_whatever_the_widgets_are_sent_the_state_stays_within_its_bounds(value, caplog):
    """As by a message that patches their models, past what the browser would let anybody enter."""
    explorer = page_of_its_own()
    state = explorer.state
    widgets = [
        *(explorer.adapt.examples, explorer.adapt.low, explorer.adapt.high, explorer.adapt.rate, explorer.adapt.steps),
        *(explorer.source.seed, explorer.source.sparsity, explorer.source.preset),
        *explorer.parameters.parameters.values(),
    ]  # fmt: skip
    for widget in widgets:
        for change in ({"start": -1e18}, {"end": 1e18}, {"value": value}):
            try:
                widget._process_events(change)
            except (ValueError, TypeError):
                continue  # Panel logs what it refuses, and goes on
        check_bounds(state)
    assert state.steps >= 1


def test_what_is_asked_again_while_it_is_worked_out_fills_no_queue():
    explorer, begun = page_of_its_own(), []

    async def ask():
        release = asyncio.Event()

        async def work():
            begun.append(1)
            await release.wait()

        for _ in range(50):
            explorer.loop.one_at_a_time("save", work)
            await asyncio.sleep(0)
        release.set()
        await asyncio.gather(*explorer.loop.working.values())
        explorer.loop.one_at_a_time("save", work)
        await asyncio.gather(*explorer.loop.working.values())

    asyncio.run(ask())
    assert len(begun) == 2


def test_of_many_choices_a_second_few_are_heard_and_the_dial_always():
    explorer, now, told = page_of_its_own(), [0.0], []
    explorer.choices = Allowance(10, lambda: now[0])
    explorer.stage.tell = lambda kind, arrays=None, **header: told.append(kind)
    names = ["poisson", "helmholtz"]
    for number in range(60):
        explorer._heard({"system": names[number % 2]})
    assert 0 < told.count("setup") <= 10
    explorer._heard({"dial": explorer.state.scale.values()[0]})
    assert explorer.state.dial == explorer.state.scale.values()[0]


@pytest.mark.parametrize(
    "query",
    [
        {"dial": "1e15"}, {"dial": "nan"}, {"seed": "1e15"}, {"seed": "-1"}, {"sparsity": "2"}, {"sparsity": "inf"},
        {"draw": "1,2"}, {"draw": "x,y,z"}, {"draw": "1e400,0,1"}, {"result": "x" * 5000}, {"system": "__class__"},
        {"model": "../../x"}, {"p.principal axis": "1e15"}, {"p.principal axis": "nan"},
    ],
    ids=str,
)  # fmt: skip
def test_every_part_of_a_link_is_bounded(query):
    state = ExploreState({})
    (problem,) = link.restore(state, query)
    assert "in the address is left out" in problem
    check_bounds(state)


# Slots --------------------------------------------------------------------------------------------------------------


def test_slots_are_taken_and_released():
    limit = SessionLimit(2)
    assert limit.take("a")
    assert limit.take("b")
    assert limit.take("b")  # has one
    assert not limit.take("c")
    limit.release("c")
    assert not limit.take("c")
    limit.release("a")
    limit.release("a")
    assert limit.take("c")
    assert len(limit) == 2


class Session:
    """As much of a server's session as a document needs."""

    def __init__(self, name):
        self.id = name
        self.document = Document()
        self.document._session_context = lambda: self

    def end(self):
        for callback in self.document.session_destroyed_callbacks:
            callback(self)


@pytest.fixture
def session(monkeypatch):
    """Function that begins a session, whose document is the current one."""

    def begin(name):
        session = Session(name)
        monkeypatch.setattr(type(pn.state), "curdoc", session.document)
        return session

    return begin


def test_beyond_the_cap_the_document_is_static(session):
    limit = SessionLimit(1)
    first = session("first")
    with session_slot(limit) as free:
        assert free
    second = session("second")
    with session_slot(limit) as free:
        assert not free
    assert not second.document.roots
    page = second.document.template.render(docs_json={}, plot_script="<script>")
    assert "no more than 1 pages at a time" in page
    assert "Try again" in page
    assert "<script" not in page
    first.end()
    session("third")
    with session_slot(limit) as free:
        assert free


def test_a_page_that_fails_while_it_is_built_gives_its_place_back(session):
    limit = SessionLimit(1)
    failing = session("failing")
    with pytest.raises(RuntimeError), session_slot(limit):
        raise RuntimeError("no records")
    assert len(limit) == 0
    failing.end()
    assert len(limit) == 0


def test_outside_a_server_nobody_is_counted():
    with session_slot(SESSIONS) as free:
        assert free
    assert len(SESSIONS) == 0


# The command --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("origins", [(), ("*",), ("example.org", "*:443")])
def test_public_pages_name_their_origin(origins):
    with pytest.raises(ValueError, match="public pages need the host by which browsers know them"):
        serve_dashboard(1, False, origins, public=True)


def test_a_page_does_not_follow_whether_the_server_is_busy():
    """Else every message of one visitor would change the pages of all."""
    page = dashboard_page()
    told = []
    page.param.watch(told.append, "busy")
    with edit_readonly(pn.state):
        pn.state.busy = True
        pn.state.busy = False
    assert not told
