"""Visitors come and go: what a session held is freed, and what it asked for ends, on a server as it is started."""

import asyncio
import gc
import logging
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

pytest.importorskip("panel_material_ui", reason="the dashboard extra is not installed")
sys.path.insert(0, str(Path(__file__).parent.parent / "dashboards"))
sys.path.insert(0, str(Path(__file__).parent.parent / "benchmarks"))

import panel as pn
from bokeh.util.token import generate_jwt_token
from client import Visitor
from explorer.app import Explorer
from explorer.jobs import AdaptJob
from explorer.serving.limits import Limits
from explorer.state import ExploreState
from explorer.studies.page import Studies
from tornado.httpclient import AsyncHTTPClient, HTTPRequest
from tornado.websocket import websocket_connect

ROOT = Path(__file__).parent.parent
PATIENCE = 180
NAMES_AND_VALUES = Limits().server_options()
OPTIONS = dict(zip(NAMES_AND_VALUES[::2], NAMES_AND_VALUES[1::2], strict=True))


@pytest.fixture(autouse=True)
def unrecorded():
    """What is logged is kept for the test's report, with the event, and so the page, that it tells of."""
    logging.disable(logging.INFO)
    yield
    logging.disable(logging.NOTSET)


@pytest.fixture(autouse=True)
def interruptible():
    """A server takes the signals of its process for itself, and keeps them when it is stopped."""
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


@asynccontextmanager
async def serving(page):
    """A server of one page in this process, and its address; sessions end as on a server that the command starts."""
    server = pn.serve(
        {page: str(ROOT / "dashboards" / f"{page}.py")},
        port=0,
        start=False,
        show=False,
        verbose=False,
        unused_session_lifetime_milliseconds=int(OPTIONS["--unused-session-lifetime"]),
        check_unused_sessions_milliseconds=int(OPTIONS["--check-unused-sessions"]),
    )
    server.start()
    try:
        yield server, f"http://localhost:{server.port}/{page}"
    finally:
        server.stop()


async def comes_true(condition):
    """Whether a condition holds within the patience of the tests."""
    ends = time.monotonic() + PATIENCE
    while not condition() and time.monotonic() < ends:
        await asyncio.sleep(0.1)
    return condition()


def alive(*kinds):
    """How many objects of these kinds there are, of what nothing refers to any more collected."""
    gc.collect()
    return sum(type(one) in kinds for one in gc.get_objects())


def trainings():
    return [thread for thread in threading.enumerate() if isinstance(thread, AdaptJob)]


@pytest.mark.parametrize(("page", "kinds"), [("explore", (Explorer, ExploreState)), ("studies", (Studies,))])
def test_what_a_session_held_is_freed_when_its_page_is_closed(page, kinds):
    async def come_and_go():
        async with serving(page) as (server, url):
            before = alive(*kinds)
            visitors = [Visitor() for _ in range(3)]
            for visitor in visitors:
                await visitor.open(url)
            assert alive(*kinds) - before == len(kinds) * len(visitors)
            for number, visitor in enumerate(visitors):
                if page == "explore":
                    await visitor.move(5.0 + number)
                visitor.close()
            assert await comes_true(lambda: not server.get_sessions())
            assert await comes_true(lambda: alive(*kinds) <= before)

    asyncio.run(come_and_go())


def test_trainings_of_those_who_left_end_and_the_queued_never_begin():
    async def come_and_go():
        async with serving("explore") as (_, url):
            first, second = Visitor(), Visitor()
            await first.open(url)
            await first.train(2000)
            assert await comes_true(lambda: first.status.startswith("Fine-tuning, about"))
            await second.open(url)
            await second.train(2000)
            assert await comes_true(lambda: len(trainings()) == 2)
            jobs = trainings()
            for visitor in (second, first):
                visitor.close()
            assert await comes_true(lambda: not trainings())
            assert [job.state.stage for job in jobs] == ["cancelled", "cancelled"]
            assert sorted(bool(job.state.curves) for job in jobs) == [False, True]

    asyncio.run(come_and_go())


@pytest.fixture(scope="module")
def public(tmp_path_factory):
    """The address of the explore page on a server for strangers, started by the command."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = [sys.executable, "-m", "sciml_fm_core.cli", "explore", "--public", "--port", str(port)]
    log = (tmp_path_factory.mktemp("public") / "server.log").open("w")
    server = subprocess.Popen(
        [*command, "--origin", f"127.0.0.1:{port}"], cwd=ROOT, env=os.environ | {"OMP_NUM_THREADS": "1"},
        stdout=log, stderr=subprocess.STDOUT,
    )  # fmt: skip
    try:
        ends = time.monotonic() + PATIENCE
        while time.monotonic() < ends:
            with socket.socket() as probe:
                if probe.connect_ex(("127.0.0.1", port)) == 0:
                    break
            time.sleep(0.2)
        yield f"http://127.0.0.1:{port}/explore"
    finally:
        server.kill()  # at once, whatever it works out
        server.wait(timeout=PATIENCE)
        log.close()


def test_a_session_that_the_server_has_not_named_is_refused(public):
    async def knock():
        visitor = Visitor()
        await visitor.open(public)  # one that it has
        visitor.close()
        client = AsyncHTTPClient()
        for name in ("chosen", "chosen.signed", "0" * 44):
            answer = await client.fetch(f"{public}?bokeh-session-id={name}", raise_error=False)
            assert answer.code == 403
        for token in (generate_jwt_token("chosen"), generate_jwt_token("chosen", b"another key", signed=True)):
            answer = await client.fetch(f"{public}?bokeh-token={token}", raise_error=False)
            assert answer.code == 403
            request = HTTPRequest(
                public.replace("http", "ws") + "/ws", headers={"Origin": public.removesuffix("/explore")}
            )
            connection = await websocket_connect(request, subprotocols=["bokeh", token])
            assert await asyncio.wait_for(connection.read_message(), PATIENCE) is None  # closed, and not a word
            connection.close()

    asyncio.run(knock())
