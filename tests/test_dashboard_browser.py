"""The explore page in a real browser: what a visitor does, and what is seen to follow."""

import os
import re
import shutil
import socket
import subprocess
import sys
import time
import urllib.request
from contextlib import contextmanager
from pathlib import Path

import pytest
from playwright.sync_api import expect, sync_playwright

from sciml_fm_core import Task, new_operator

ROOT = Path(__file__).parent.parent
TIMEOUT = 120_000  # ms; a shared machine may be slow, and no test here is about speed
ARGUMENTS = [
    "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
    "--disable-component-update", "--disable-sync",
]  # fmt: skip
NO_BROWSER = (
    "the browser tests need Chromium: `apt-get install chromium`, or `.venv/bin/playwright install chromium`, "
    "or its path in CHROMIUM_PATH"
)

# The image of a figure by name: how many points, their range, whether it is shown, and how many Gaussians are on it.
IMAGE = """name => {
  for (const document of Bokeh.documents)
    for (const model of document._all_models.values())
      if (model.type == 'Figure' && model.name == name) {
        const image = model.renderers.find(r => r.glyph.type == 'Image')
        const values = Array.from(image.data_source.data.image[0])
        const points = model.renderers.find(r => r.glyph.type == 'Scatter')
        return {points: values.length, low: Math.min(...values), high: Math.max(...values),
                sum: values.reduce((a, b) => a + Math.abs(b), 0), visible: image.visible,
                gaussians: points ? points.data_source.data.x.length : 0}
      }
  return null
}"""

# Where a figure is on the page.
BOX = """name => {
  const find = views => {
    for (const view of views) {
      if (view.model.type == 'Figure' && view.model.name == name) return view
      const inner = find(view.child_views || [])
      if (inner) return inner
    }
    return null
  }
  const box = find([...(Bokeh.index.roots || Object.values(Bokeh.index))]).el.getBoundingClientRect()
  return {x: box.x, y: box.y, width: box.width, height: box.height}
}"""

# Points of the zero-shot curve along the dial: the last thing that appears when the page opens.
CURVE = """() => {
  for (const document of Bokeh.documents)
    for (const model of document._all_models.values())
      if (model.type == 'Figure' && model.name == 'Error along the dial')
        return Math.max(...model.renderers.map(r => r.data_source.data.x.length))
  return 0
}"""

pytestmark = pytest.mark.browser


def chromium(playwright) -> str:
    """The browser: named, the system's, or Playwright's own."""
    names = ("chromium", "chromium-browser", "google-chrome")
    found = os.environ.get("CHROMIUM_PATH") or next(filter(None, map(shutil.which, names)), None)
    found = found or playwright.chromium.executable_path
    if not Path(found).exists():
        (pytest.fail if os.environ.get("CI") else pytest.skip)(NO_BROWSER)
    return found


@pytest.fixture(scope="module")
def browser():
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium(playwright), args=ARGUMENTS)
        yield browser
        browser.close()


def free_port():
    """A port of this machine that no server has."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def wait_until_it_answers(url, server, log):
    """Wait until a server answers; what it logged is the reason if it does not."""
    deadline = time.monotonic() + TIMEOUT / 1000
    while True:
        try:
            urllib.request.urlopen(url, timeout=5).close()
            return
        except OSError:
            alive = server.poll() is None and time.monotonic() < deadline
            assert alive, log.read_text()
            time.sleep(0.5)


@contextmanager
def served(folder, *pages, **environment):
    """A real server of pages, which logs into a folder; gives its address."""
    port = free_port()
    log = (folder / "server.log").open("w")
    server = subprocess.Popen(
        [sys.executable, "-m", "panel", "serve", *pages, "--port", str(port),
         "--allow-websocket-origin", f"127.0.0.1:{port}"],
        # One thread: on busy cores the threads of a training wait for each other far longer than they work.
        cwd=ROOT, env=os.environ | environment | {"OMP_NUM_THREADS": "1"},
        stdout=log, stderr=subprocess.STDOUT,
    )  # fmt: skip
    url = f"http://127.0.0.1:{port}"
    try:
        wait_until_it_answers(url, server, folder / "server.log")
        yield url
    finally:
        server.terminate()
        try:
            server.wait(timeout=10)
        except subprocess.TimeoutExpired:
            server.kill()
            server.wait(timeout=10)
        log.close()
    # Where a callback fails the page only stays as it was.
    failed = (folder / "server.log").read_text()
    assert "dashboards/explorer" not in failed, failed


@contextmanager
def watched(browser, url):
    """A fresh page; it fails the test if anything went wrong in the browser or was asked of another host."""
    context = browser.new_context(viewport={"width": 1500, "height": 1150})
    context.set_default_timeout(TIMEOUT)
    page = context.new_page()
    expect.set_options(timeout=TIMEOUT)
    problems: list[str] = []
    page.on("console", lambda m: problems.append(m.text) if m.type == "error" else None)
    page.on("pageerror", lambda error: problems.append(str(error)))
    page.on(
        "request",
        lambda r: None if r.url.startswith((f"{url}/", "data:", "blob:", "ws://127.0.0.1"))
        else problems.append(f"request to {r.url}"),
    )  # fmt: skip
    try:
        yield page
    finally:
        context.close()
    assert not problems


@pytest.fixture(scope="module")
def address(tmp_path_factory):
    """The explore page on the shipped operators and small ones of the tests' own, for systems that may not ship."""
    folder = tmp_path_factory.mktemp("operators")
    for label in ("SYS-2(0.2,1)", "SYS-3(1,10)"):
        operator = new_operator([Task.parse(label)], size="64K")
        operator.card |= {"examples_seen": 0, "parameters": operator.model.parameter_count}
        operator.save(folder / f"untrained-{operator.systems[0].name}.safetensors")
    with served(folder, "dashboards/explore.py", SCIML_FM_OPERATORS=str(folder)) as url:
        yield f"{url}/explore"


@pytest.fixture
def page(browser, address):
    """A fresh explore page, ready."""
    with watched(browser, address.removesuffix("/explore")) as page:
        page.goto(address)
        expect(shown(page, "zero_shot-error")).to_have_text(re.compile(r"%$"))
        page.wait_for_function(f"({CURVE})() > 20")
        yield page


def shown(page, name):
    """An element by its name for tests."""
    return page.locator(f"[data-test={name}]")


def wait_for(page, name, condition):
    """Wait until the image of a figure meets a condition; returns it."""
    deadline = time.monotonic() + TIMEOUT / 1000
    while time.monotonic() < deadline:
        image = page.evaluate(IMAGE, name)
        if condition(image):
            return image
        page.wait_for_timeout(100)
    raise AssertionError(f"{name} stayed {image}")


def choose(page, number, text):
    """Choose from the menu with that number, from the top of the page."""
    page.get_by_role("combobox").nth(number).click()
    page.get_by_text(text, exact=True).last.click()


def percent(text: str) -> float:
    return float(text.removesuffix("%").replace(",", ""))


def test_fields_are_shown(page):
    for name in ("Source f", "Spectral solution u", "Zero-shot", "Error of Zero-shot"):
        image = page.evaluate(IMAGE, name)
        assert image["visible"], name
        assert image["points"] == 128**2
        assert image["low"] < image["high"]
    assert not page.evaluate(IMAGE, "Fine-tuned")["visible"], "nothing is shown that was not trained"
    expect(shown(page, "shift")).to_have_text("Inside the pre-training range")
    expect(shown(page, "fine_tuned-error")).to_have_text("–")
    assert percent(shown(page, "zero_shot-error").inner_text()) < 5


def test_dial_moved(page):
    before, inside = page.evaluate(IMAGE, "Spectral solution u"), shown(page, "zero_shot-error").inner_text()
    page.get_by_role("slider").first.focus()
    page.keyboard.press("End")
    expect(shown(page, "shift")).to_have_text("Large shift")
    expect(shown(page, "zero_shot-error")).not_to_have_text(inside)
    wait_for(page, "Spectral solution u", lambda image: image != before)
    assert percent(shown(page, "zero_shot-error").inner_text()) > percent(inside)


def test_source_placed(page):
    before = page.evaluate(IMAGE, "Source f")
    choose(page, 2, "Dipole")
    dipole = wait_for(page, "Source f", lambda image: image["sum"] != before["sum"] and image["gaussians"] == 2)
    box = page.evaluate(BOX, "Source f")
    page.mouse.click(box["x"] + 0.3 * box["width"], box["y"] + 0.2 * box["height"])
    wait_for(page, "Source f", lambda image: image["sum"] != dipole["sum"] and image["gaussians"] == 3)
    page.get_by_role("button", name="Clear").click()
    expect(shown(page, "notice")).to_contain_text("The source is empty")
    wait_for(page, "Source f", lambda image: image["gaussians"] == 0)


def test_fine_tuned_to_the_end(page):
    choose(page, 3, "8")
    steps = page.get_by_role("textbox", name="Steps")
    steps.fill("3")
    steps.press("Enter")
    expect(steps).to_have_value(re.compile(r"^(3|2,000)$"))
    page.get_by_role("button", name="Fine-tune").click()
    expect(shown(page, "kept-fine_tuned")).to_have_text(re.compile(r"%$"))
    expect(shown(page, "adapt-status")).to_contain_text("8 examples, 3 steps")
    expect(shown(page, "fine_tuned-error")).to_have_text(re.compile(r"%$"))
    expect(shown(page, "from_scratch-error")).to_have_text(re.compile(r"%$"))
    wait_for(page, "Fine-tuned", lambda image: image["visible"])
    tuned, scratch = (percent(shown(page, f"{name}-error").inner_text()) for name in ("fine_tuned", "from_scratch"))
    assert tuned < scratch, "three steps from a pre-trained operator beat three from random weights"


def test_fine_tuned_without_labels_beside_a_result_with_them(page):
    steps = page.get_by_role("textbox", name="Steps")
    choose(page, 3, "8")
    steps.fill("2")
    steps.press("Enter")
    page.get_by_role("button", name="Fine-tune").click()
    expect(shown(page, "adapt-status")).to_contain_text("8 examples, 2 steps")
    choose(page, 3, "no labels (equation only)")
    expect(steps).to_have_value("300")
    steps.fill("2")
    steps.press("Enter")
    page.get_by_role("button", name="Fine-tune").click()
    expect(shown(page, "adapt-status")).to_contain_text("0 labels, physics loss, 2 steps")
    expect(shown(page, "kept-fine_tuned")).to_have_text(re.compile(r"%$"))
    expect(shown(page, "fine_tuned-error")).to_have_text(re.compile(r"%$"))
    expect(shown(page, "from_scratch-error")).to_have_text("–")
    page.get_by_role("slider").last.press("ArrowRight")
    expect(shown(page, "adapt-status")).to_contain_text("8 examples, 2 steps")


def test_fine_tuning_cancelled(page):
    steps = page.get_by_role("textbox", name="Steps")
    steps.fill("2000")
    steps.press("Enter")
    expect(steps).to_have_value(re.compile(r"^(3|2,000)$"))
    page.get_by_role("button", name="Fine-tune").click()
    expect(shown(page, "adapt-status")).to_contain_text("Fine-tuning")
    page.get_by_role("button", name="Cancel").click()
    expect(shown(page, "adapt-status")).to_contain_text("Cancelled, nothing kept")
    expect(page.get_by_role("button", name="Fine-tune")).to_be_enabled()
    expect(shown(page, "fine_tuned-error")).to_have_text("–")


def test_system_switched(page):
    before = page.evaluate(IMAGE, "Spectral solution u")
    choose(page, 0, "Helmholtz (SYS-3)")
    expect(shown(page, "equation").locator("math").first).to_contain_text(re.compile(r"−0.01\s*Δu"))
    expect(page.get_by_role("slider", name="Wavenumber")).to_be_visible()
    helmholtz = wait_for(page, "Spectral solution u", lambda image: image != before)
    choose(page, 0, "Advection–diffusion (SYS-2)")
    expect(page.get_by_role("slider", name="Advection ratio")).to_be_visible()
    wait_for(page, "Spectral solution u", lambda image: image != helmholtz)
    expect(shown(page, "zero_shot-error")).to_have_text(re.compile(r"%$"))


def test_click_on_the_error_curve_goes_there(page):
    value = page.get_by_role("slider").first
    before = value.get_attribute("aria-valuenow")
    deadline = time.monotonic() + TIMEOUT / 1000
    while value.get_attribute("aria-valuenow") == before and time.monotonic() < deadline:
        # The page grows while it loads: click where the curve is now.
        box = page.evaluate(BOX, "Error along the dial")
        page.mouse.click(box["x"] + 0.8 * box["width"], box["y"] + 0.5 * box["height"])
        page.wait_for_timeout(2000)
    assert float(value.get_attribute("aria-valuenow")) > 12
    expect(shown(page, "shift")).to_have_text("Large shift")
