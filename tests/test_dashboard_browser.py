"""The explore page in a real browser: what a visitor does, and what is seen to follow."""

import itertools
import os
import re
import shutil
import socket
import subprocess
import sys
import time
import urllib.request
from contextlib import contextmanager
from functools import partial
from operator import not_
from pathlib import Path

import pytest
from playwright.sync_api import expect, sync_playwright

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

# The stage, which is in a shadow root; and what a canvas of it shows, as a number that changes with it.
STAGE = """() => {
  const search = root => { for (const element of root.querySelectorAll('*')) {
    if (element.classList.contains('operator-stage')) return element
    const inner = element.shadowRoot && search(element.shadowRoot)
    if (inner) return inner } return null }
  return search(document) }"""
FIELD = f"""name => {{
  const canvas = ({STAGE})().querySelector(`canvas[aria-label="${{name}}"]`)
  if (!canvas?.width || canvas.style.visibility === 'hidden') return null
  const {{data}} = canvas.getContext('2d').getImageData(0, 0, canvas.width, canvas.height)
  return data.reduce((sum, value, i) => (31 * sum + value) % 1000003, 7) }}"""

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
    # Where a callback fails the page only stays as it was. What a stopped server did not finish is no failure.
    failed = (folder / "server.log").read_text().partition("Received signal")[0]
    assert "dashboards/explorer" not in failed, failed


@contextmanager
def watched(browser, url, size=(1500, 1150), **options):
    """A page that remembers nothing; it fails the test if anything went wrong in it or was asked of another host.

    Pages that need no context with ``options`` of its own share one, and with it the scripts that are compiled already.
    """
    spare = [] if options else [context for context in browser.contexts if not context.pages]
    context = spare[0] if spare else browser.new_context(**options)
    context.set_default_timeout(TIMEOUT)
    expect.set_options(timeout=TIMEOUT)
    page = context.new_page()
    page.set_viewport_size({"width": size[0], "height": size[1]})
    forget = {"origin": url, "storageTypes": "local_storage,cookies"}
    context.new_cdp_session(page).send("Storage.clearDataForOrigin", forget)
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
        context.close() if options else page.close()
    assert not problems


@pytest.fixture
def page(browser, address):
    """A fresh explore page, ready."""
    with watched(browser, address.removesuffix("/explore")) as page:
        page.goto(f"{address}?system=poisson&model=symbol&dial=3&result=none")
        expect(shown(page, "zero_shot-error")).to_have_text(re.compile(r"%$"))
        expect(page.locator("[data-curve=zero_shot]")).to_have_attribute("data-points", re.compile(r"^(2[0-9])$"))
        yield page


def shown(page, name):
    """An element by its name for tests."""
    return page.locator(f"[data-test={name}]")


def field(page, name):
    """What a field shows; None where there is nothing."""
    return page.evaluate(FIELD, name)


def until(page, found, holds, problem="in vain"):
    """Wait until what is ``found()`` on a page ``holds``, and return it."""
    deadline = time.monotonic() + TIMEOUT / 1000
    while not holds(seen := found()):
        assert time.monotonic() < deadline, f"{problem}: {seen}"
        page.wait_for_timeout(50)
    return seen


def wait_for(page, name, condition):
    """Wait until a field meets a condition; returns what it shows."""
    return until(page, lambda: field(page, name), condition, f"{name} stayed")


def drag(page, element, *path):
    """Press the mouse at the first of some points (x, y) of an element, and let it go at the last.

    Wherever the page has the element at the time of each.
    """
    for number, (x, y) in enumerate(path):
        element.hover(position={"x": x, "y": y}, force=number > 0)
        if not number:
            page.mouse.down()
    page.mouse.up()


def dial(page):
    """The slider under the error curve."""
    return page.locator(".dial > input[type=range]")


def open_training(page):
    """Open the sheet of the training, where it is not open, and give the button that starts one."""
    run = page.get_by_role("button", name="Fine-tune", exact=True)
    if not run.is_visible():
        page.locator(".keep").get_by_text("Train live").click()
        expect(run).to_be_visible()  # a second click would close it
    return run


def train(page, *, steps, examples=None):
    """Open the sheet of the training, set it, and start."""
    run = open_training(page)
    if examples is not None:
        page.get_by_label("Examples", exact=True).select_option(examples)
    box = page.get_by_role("textbox", name="Steps")
    box.fill(str(steps))
    box.press("Enter")
    run.click()


def percent(text: str) -> float:
    return float(text.removesuffix("%").replace(",", ""))


def percentage(page, name, unlike=None):
    """A percentage by its name for tests, once there is one, and another than that."""
    text = until(
        page, shown(page, name).inner_text,
        lambda text: text.endswith("%") and percent(text) != unlike, f"{name}, expected to change from {unlike}",
    )  # fmt: skip
    return percent(text)


def test_fields_are_shown_and_follow_the_model(page):
    for name in ("Source f", "Exact u", "Zero-shot", "Error of Zero-shot"):
        wait_for(page, name, lambda seen: seen is not None)
    assert field(page, "Exact u") != field(page, "Source f")
    assert field(page, "Fine-tuned") is None, "nothing is shown that was not trained"
    expect(shown(page, "sentence")).to_contain_text("inside the training range (1 to 5)")
    expect(shown(page, "fine_tuned-error")).to_have_text("–")
    by_symbol = percentage(page, "zero_shot-error")
    assert by_symbol < 5
    page.get_by_label("Model").select_option("sys-1-paper")
    assert percentage(page, "zero_shot-error", unlike=by_symbol) < 5


def test_the_page_opens_on_a_contrast(browser, address):
    """Outside the range, with a fine-tuning that ships; others answer without any training."""
    with watched(browser, address.removesuffix("/explore")) as page:
        page.goto(address)
        errors = {name: percentage(page, f"{name}-error") for name in ("zero_shot", "fine_tuned", "from_scratch")}
        assert errors["fine_tuned"] < errors["from_scratch"] < errors["zero_shot"]
        expect(shown(page, "sentence")).to_contain_text("end of the training range")
        page.locator(".examples label", has_text="512").click()
        assert percentage(page, "fine_tuned-error", unlike=errors["fine_tuned"]) < errors["fine_tuned"]


def test_dial_turned_by_keyboard(page):
    before, inside = field(page, "Exact u"), percentage(page, "zero_shot-error")
    dial(page).focus()
    page.keyboard.press("End")
    expect(shown(page, "sentence")).to_contain_text("4 times the upper end of the training range")
    wait_for(page, "Exact u", lambda seen: seen != before)
    assert percentage(page, "zero_shot-error", unlike=inside) > inside
    page.keyboard.press("PageDown")  # a tenth of the range
    expect(dial(page)).to_have_attribute("aria-valuetext", "18.1")
    page.keyboard.press("ArrowLeft")
    expect(dial(page)).to_have_attribute("aria-valuetext", "18")
    page.keyboard.press("Home")
    expect(shown(page, "sentence")).to_contain_text("is 1, inside the training range")


def test_dial_dragged_on_the_curve(page):
    """The last value is the one that is painted, and the handle stays where it was let go."""
    curve = page.locator(".dial svg")
    width = curve.bounding_box()["width"]
    drag(page, curve, *((share / 100 * width, 60) for share in range(20, 85, 5)))
    expect(dial(page)).to_have_attribute("aria-valuetext", re.compile(r"^1[567]"))
    value = dial(page).get_attribute("aria-valuetext")
    expect(page.locator(".operator-stage")).to_have_attribute("data-dial", value)
    page.wait_for_url(re.compile(f"dial={value}&"))  # the server has settled
    expect(dial(page)).to_have_attribute("aria-valuetext", value)


def test_a_press_paints_the_source_and_undo_takes_it_back(page):
    """Without a mode: a press places a Gaussian, a stroke a row of them; what was random comes back."""
    before, source = field(page, "Source f"), page.locator("[data-key=source] .field")
    box = source.bounding_box()

    def at(x, y):
        return x * box["width"], (1 - y) * box["height"]

    drag(page, source, at(0.3, 0.7))
    expect(shown(page, "sentence")).to_contain_text("You drew this source.")
    one = wait_for(page, "Source f", lambda seen: seen not in (None, before))
    page.get_by_role("button", name="Sign of the next Gaussian: positive").click()
    drag(page, source, at(0.7, 0.3))
    two = wait_for(page, "Source f", lambda seen: seen != one)
    expect(shown(page, "sentence")).to_contain_text("deeper negative parts")
    drag(page, source, *(at(0.7 - share, 0.3 + share) for share in (0, 0.05, 0.1, 0.15, 0.2)))
    moved = wait_for(page, "Source f", lambda seen: seen != two)
    second = page.get_by_role("button", name=re.compile(r"Gaussian 2, x 0\.(49|50|51)"))
    second.focus()
    page.keyboard.press("ArrowRight")
    shifted = wait_for(page, "Source f", lambda seen: seen != moved)
    page.get_by_role("button", name="Gaussian 2").press("Delete")
    wait_for(page, "Source f", lambda seen: seen == one and seen != shifted)
    drag(page, source, *(at(0.2 + step / 50, 0.2) for step in range(21)))
    until(page, page.locator(".handles circle").count, lambda count: count > 4)
    page.keyboard.press("Control+z")
    wait_for(page, "Source f", lambda seen: seen == one)
    page.get_by_role("button", name="Random").click()
    wait_for(page, "Source f", lambda seen: seen == before)
    for name in ("Undo", "Undo"):  # of what became random, and of the Gaussian that was removed
        page.get_by_role("button", name=name).click()
    expect(page.locator(".handles circle")).to_have_count(2)


def test_a_coefficient_is_painted_like_the_source(page):
    page.get_by_label("Equation", exact=True).select_option("variable_diffusion")
    page.wait_for_url(re.compile("system=variable_diffusion"))
    before = wait_for(page, "Diffusivity", lambda seen: seen is not None)
    source, solution = field(page, "Source f"), field(page, "Exact u")
    page.locator("[data-key=diffusivity] .field").click(position={"x": 30, "y": 30})
    page.wait_for_url(re.compile("paint.diffusivity=0"))
    wait_for(page, "Diffusivity", lambda seen: seen != before)
    wait_for(page, "Exact u", lambda seen: seen not in (None, solution))
    assert field(page, "Source f") == source
    page.reload()
    expect(page.locator("[data-key=diffusivity] circle")).to_have_count(1)
    page.locator("[data-key=diffusivity]").get_by_role("button", name="Random").click()
    wait_for(page, "Diffusivity", lambda seen: seen == before)


def test_a_reload_keeps_the_page(page):
    dial(page).focus()
    for _ in range(3):
        page.keyboard.press("PageUp")
    page.get_by_label("Model").select_option("sys-1")
    page.wait_for_url(re.compile(r"model=sys-1&dial=8\.7&"))
    expect(shown(page, "spread")).to_have_text(re.compile(r"%$"))  # it follows the frame, which is painted then
    error = shown(page, "zero_shot-error").inner_text()
    page.reload()
    expect(shown(page, "zero_shot-error")).to_have_text(error)
    expect(dial(page)).to_have_attribute("aria-valuetext", "8.7")
    page.goto(page.url.replace("dial=8.7", "dial=soon"))
    expect(page.get_by_role("alert").first).to_contain_text("dial=soon in the address is left out")


def test_hover_and_cut(page):
    canvas, cut = page.locator("canvas[aria-label='Zero-shot']"), page.locator(".cut .exact")
    at = {side: canvas.bounding_box()[length] / 4 for side, length in (("x", "width"), ("y", "height"))}
    readout = re.compile(r"x 0\.25, y 0\.7\d.*f .*u .*zero-shot ")
    until(page, lambda: canvas.hover(position=at) or page.locator(".readout").inner_text(), readout.search)
    before = cut.get_attribute("d")
    canvas.click(position=at)
    expect(page.locator(".where")).to_contain_text("y = 0.7")
    expect(cut).not_to_have_attribute("d", before)


def test_fine_tuned_to_the_end_and_without_labels_beside_it(page):
    train(page, steps=3, examples="8")
    expect(shown(page, "kept-fine_tuned")).to_have_text(re.compile(r"%$"))
    expect(shown(page, "adapt-status")).to_contain_text("8 examples, 3 steps")
    for name in ("fine_tuned", "from_scratch"):
        expect(shown(page, f"{name}-error")).to_have_text(re.compile(r"%$"))
    wait_for(page, "Fine-tuned", lambda seen: seen is not None)
    tuned, scratch = (percent(shown(page, f"{name}-error").inner_text()) for name in ("fine_tuned", "from_scratch"))
    assert tuned < scratch, "three steps from a pre-trained operator beat three from random weights"
    page.get_by_label("Examples", exact=True).select_option("no labels (equation only)")
    expect(page.get_by_role("textbox", name="Steps")).to_have_value("300")
    train(page, steps=2)
    expect(shown(page, "adapt-status")).to_contain_text("0 labels, physics loss, 2 steps")
    expect(shown(page, "kept-fine_tuned")).to_have_text(re.compile(r"%$"))
    expect(shown(page, "fine_tuned-error")).to_have_text(re.compile(r"%$"))
    expect(shown(page, "from_scratch-error")).to_have_text("–")
    page.locator(".examples label", has_text="8, 3 steps").click()
    expect(shown(page, "adapt-status")).to_contain_text("8 examples, 3 steps")
    expect(shown(page, "from_scratch-error")).to_have_text(re.compile(r"%$"))
    page.locator(".examples").get_by_label("0", exact=True).check(force=True)
    expect(shown(page, "fine_tuned-error")).to_have_text("–")


def test_fine_tuning_cancelled(page):
    train(page, steps=2000)
    expect(shown(page, "adapt-status")).to_contain_text("Fine-tuning")
    page.get_by_role("button", name="Cancel").click()
    expect(shown(page, "adapt-status")).to_contain_text("Cancelled, nothing kept")
    expect(page.get_by_role("button", name="Fine-tune", exact=True)).to_be_enabled()
    expect(shown(page, "fine_tuned-error")).to_have_text("–")


def test_system_switched(page):
    before = field(page, "Exact u")
    page.get_by_label("Equation", exact=True).select_option("helmholtz")
    expect(page.locator(".bar .equation math").first).to_contain_text("ω")
    expect(dial(page)).to_have_attribute("aria-label", "Wavenumber ω")
    expect(page.locator(".resonance").first).to_be_visible()
    helmholtz = wait_for(page, "Exact u", lambda seen: seen not in (before, None))
    page.get_by_label("Equation", exact=True).press("ArrowUp")
    expect(dial(page)).to_have_attribute("aria-label", "Advection ratio Ψ")
    wait_for(page, "Exact u", lambda seen: seen not in (helmholtz, None))
    expect(shown(page, "zero_shot-error")).to_have_text(re.compile(r"%$"))


BOXES = f"""() => Object.fromEntries([...({STAGE})().querySelectorAll(
    '.bar, .dial svg, .under, .column, .field, .middle, .misfit, .graph, .bars, .scaled, .card, .head h3, .head .big')]
  .filter(each => each.checkVisibility()).map((each, i) => {{
    const {{x, y, width, height}} = each.getBoundingClientRect(), inside = each.querySelector('canvas')
    const name = inside?.ariaLabel ?? each.textContent.slice(0, 9)
    return [`${{each.classList[0] ?? each.tagName}} ${{name}} ${{i}}`, [x, y, x + width, y + height]] }}))"""
SIZES = [  # of the window, ever smaller, a field and an error on the contrast, and the four fields of an operator alone
    ((1920, 1080), 352, 352, 442),
    ((1366, 768), 240, 240, 305),
    ((1366, 650), 188, 188, 240),
]


def overlaps(boxes):
    """Pairs of parts of which neither is inside the other, and which share more than a pixel."""
    found = []
    for (one, a), (other, b) in itertools.combinations(boxes.items(), 2):
        shared = [min(a[2 + i], b[2 + i]) - max(a[i], b[i]) for i in (0, 1)]
        inside = any(all(p[i] >= q[i] - 1 and p[2 + i] <= q[2 + i] + 1 for i in (0, 1)) for p, q in ((a, b), (b, a)))
        if min(shared) > 1 and not inside:
            found.append((one, other))
    return found


def out_of_place(page, size, wanted):
    """What is wrong with the places of a page's parts, and with the sides of a field and of its error."""
    boxes = page.evaluate(BOXES)
    problems = overlaps(boxes)
    for each, side in zip(("Zero-shot", "Error of Zero-shot"), wanted, strict=True):
        box = page.locator(f".field:has(canvas[aria-label='{each}'])").bounding_box()
        if abs(box["width"] - box["height"]) > 1 or (side and abs(box["width"] - side) > 2):
            problems.append(f"{each} is {box['width']:.1f} x {box['height']:.1f}, expected {side or 'a square'}")
    for part, (left, _, right, bottom) in boxes.items():
        if left < 0 or right > size[0] or bottom > size[1] + 1:
            problems.append(f"{part} ends at {left:.0f}, {right:.0f} and {bottom:.0f}")
    if (across := page.evaluate("() => document.documentElement.scrollWidth")) > size[0]:
        problems.append(f"{across} across")
    return problems


@pytest.mark.parametrize(
    ("query", "sides"),
    [
        ("?system=poisson&model=sys-1&dial=20&result=32:8:12", (0, 1)),
        ("?system=poisson&model=sys-1&dial=20&result=none", (2, 2)),
        ("?system=advection_diffusion_in_time&model=symbol", ()),
        ("?system=variable_diffusion", ()),
    ],
)
def test_the_fields_have_the_page_and_nothing_is_below_the_fold(browser, address, query, sides):
    with watched(browser, address.removesuffix("/explore")) as page:
        page.goto(address + query)
        expect(shown(page, "zero_shot-error")).to_have_text(re.compile(r"%$"))
        expect(page.locator("[data-curve=zero_shot]")).to_have_attribute("data-points", re.compile(r"^\d\d"))
        for size, *lengths in SIZES:
            page.set_viewport_size({"width": size[0], "height": size[1]})
            wanted = [lengths[side] for side in sides] or (None, None)
            until(page, partial(out_of_place, page, size, wanted), not_, f"{size}")
            if size[0] > 1500:  # on a projector
                small = page.evaluate(f"""() => [...({STAGE})().querySelectorAll('*')].filter(each =>
                  each.checkVisibility() && [...each.childNodes].some(one => one.nodeType === 3 && one.data.trim())
                  && !each.matches('msub > *') && parseFloat(getComputedStyle(each).fontSize) < 18
                  ).map(each => each.outerHTML.slice(0, 90))""")
                assert not [each for each in small if "circle" not in each]


def test_on_a_phone_the_dial_stays_below_and_the_sentence_follows_the_fields(browser, address):
    with watched(browser, address.removesuffix("/explore"), (390, 844)) as page:
        page.goto(f"{address}?dial=20")
        expect(shown(page, "zero_shot-error")).to_have_text(re.compile(r"%$"))
        assert page.evaluate("() => document.documentElement.scrollWidth") <= 390
        parts = ("[data-key=solution]", "[data-key=zero_shot]", "[data-key=source]", ".under", ".dial svg", ".examples")

        def follow(boxes):
            exact, first, source, sentence, dialled, examples = boxes
            return (
                exact["y"] == first["y"]
                and source["y"] > exact["y"] + exact["height"]
                and sentence["y"] > source["y"] + source["height"]
                and examples["y"] < dialled["y"]
                and dialled["y"] + dialled["height"] <= 844
            )

        until(page, lambda: [page.locator(each).bounding_box() for each in parts], follow)


def test_present_hides_the_controls_until_escape_and_train_live_stands_beside_the_stage(page):
    page.get_by_role("button", name="Present", exact=True).click()
    expect(page.get_by_label("Model")).to_be_hidden()
    expect(shown(page, "zero_shot-error")).to_have_css("font-size", "40px")
    page.get_by_role("button", name="Leave", exact=True).click()
    expect(page.get_by_label("Model")).to_be_visible()
    page.get_by_role("button", name="Present", exact=True).click()
    expect(page.get_by_role("button", name="Leave", exact=True)).to_be_visible()
    page.keyboard.press("Escape")
    expect(page.get_by_role("button", name="Present", exact=True)).to_be_visible()
    stage, sheet = page.locator(".operator-stage"), page.locator(":has(> *) >> text=Fine-tune on few examples")
    before = stage.bounding_box()
    page.locator(".keep").get_by_text("Train live").click()
    until(page, stage.bounding_box, lambda box: box["width"] == pytest.approx(before["width"] - 360, abs=12))
    expect(sheet).to_be_visible()
    assert sheet.bounding_box()["x"] >= stage.bounding_box()["x"] + stage.bounding_box()["width"]
    page.get_by_role("button", name="Close").click()
    expect(page.get_by_text("Fine-tune on few examples")).to_be_hidden()


def test_the_spread_follows_when_the_dial_rests(browser, address):
    """As a map and as a band in the cut; it goes with the operator that the ensemble was trained like."""
    with watched(browser, address.removesuffix("/explore"), (1366, 768)) as page:
        page.goto(f"{address}?dial=20")
        far = percentage(page, "spread")
        expect(page.locator(".band")).to_have_attribute("d", re.compile("Z$"))
        dial(page).press("Home")
        expect(shown(page, "spread")).to_have_text(re.compile(r"^[01](\.\d+)? %$"))
        assert percentage(page, "spread") < far
        page.get_by_label("Model").select_option("symbol")
        expect(page.locator(".spread")).to_be_hidden()
        expect(page.locator(".band")).to_have_attribute("d", "")
