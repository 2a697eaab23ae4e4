"""The public dashboard in a real browser: who finds no place is told so kindly, and gets the next that is free."""

import os
import re
import subprocess
import sys
from contextlib import suppress

import pytest
from playwright.sync_api import Error as PlaywrightError
from playwright.sync_api import expect
from test_dashboard_browser import (
    ROOT,
    browser,
    free_port,
    open_training,
    shown,
    train,
    until,
    wait_until_it_answers,
    watched,
)

__all__ = ["browser"]  # a fixture

SESSIONS = 1

pytestmark = pytest.mark.browser


@pytest.fixture(scope="module")
def address(tmp_path_factory):
    """The pages as `make explore-public` serves them below a path, with one place, soon free when it was left."""
    port, log = free_port(), tmp_path_factory.mktemp("public") / "server.log"
    bounds = {"SESSIONS": SESSIONS, "UNUSED_SECONDS": 2, "STEPS": 50, "JOB_SECONDS": 2}
    environment = os.environ | {f"SCIML_FM_LIMIT_{name}": str(value) for name, value in bounds.items()}
    with log.open("w") as output:
        server = subprocess.Popen(
            [sys.executable, "-m", "sciml_fm_core.cli", "explore", "--public", "--port", str(port),
             "--origin", f"127.0.0.1:{port}", "--prefix", "operators"],
            cwd=ROOT, env=environment | {"OMP_NUM_THREADS": "1"}, stdout=output, stderr=subprocess.STDOUT,
        )  # fmt: skip
        url = f"http://127.0.0.1:{port}"
        try:
            wait_until_it_answers(f"{url}/favicon.ico", server, log)
            yield f"{url}/operators/explore"
        finally:
            server.terminate()
            server.wait(timeout=200)
    assert "dashboards/explorer" not in log.read_text(), log.read_text()


def test_beyond_the_cap_the_page_is_kind_and_a_freed_place_is_given_to_the_next(browser, address):
    url = address.removesuffix("/operators/explore")
    with watched(browser, url) as first:
        first.goto(address)
        expect(shown(first, "zero_shot-error")).to_have_text(re.compile(r"%$"))
        with watched(browser, url) as second:
            sockets = []
            second.on("websocket", lambda socket: sockets.append(socket.url))
            second.goto(f"{address}?system=poisson&model=sys-1&dial=4&result=none")
            expect(shown(second, "full")).to_contain_text(f"no more than {SESSIONS} pages at a time")
            expect(second).to_have_title("All places are taken")
            assert second.locator("script").count() == 0
            second.goto(f"{address.removesuffix('explore')}studies")
            expect(shown(second, "full")).to_be_visible()  # one cap for both pages
            second.go_back()
            assert not sockets  # who waits is not connected
            first.close()
            again = second.get_by_role("link", name="Try again")

            def is_let_in():
                with suppress(PlaywrightError):  # the page tries by itself too, and may be gone meanwhile
                    again.click(timeout=5000)
                with suppress(AssertionError):
                    expect(second).not_to_have_title("All places are taken", timeout=1000)
                    return True
                return False

            until(second, is_let_in, bool)
            expect(shown(second, "zero_shot-error")).to_have_text(re.compile(r"%$"))
            expect(second.locator(".dial > input")).to_have_attribute("aria-valuetext", "4")  # the link was kept


def test_a_training_that_is_too_much_is_told_so(browser, address):
    with watched(browser, address.removesuffix("/operators/explore")) as page:
        until(page, lambda: page.goto(address) and page.title(), lambda title: title != "All places are taken")
        expect(shown(page, "zero_shot-error")).to_have_text(re.compile(r"%$"))
        open_training(page)
        options = page.get_by_label("Examples", exact=True).locator("option").all_inner_texts()
        assert options[-1] == "128"
        train(page, steps=51)
        expect(shown(page, "adapt-status")).to_contain_text("Expected at most 50 steps on this server, got 51")
        train(page, steps=50)
        expect(shown(page, "adapt-status")).to_contain_text("may take 2 s on this server")
        expect(page.get_by_role("button", name="Fine-tune", exact=True)).to_be_enabled()
