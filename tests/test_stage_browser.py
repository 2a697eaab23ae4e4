"""The stage in a real browser: tabs, what can be kept, a training that is watched, keyboard, touch, both themes."""

import io
import re
import subprocess
import sys
from pathlib import Path

import h5py
import numpy as np
import pytest

pytest.importorskip("panel_material_ui", reason="the dashboard extra is not installed")
sys.path.insert(0, str(Path(__file__).parent.parent / "dashboards"))

from axe import findings_in_both_themes
from explorer.lessons import FOLDER, read_lesson
from playwright.sync_api import expect
from test_dashboard_browser import (
    STAGE,
    browser,
    dial,
    drag,
    percent,
    percentage,
    shown,
    train,
    until,
    wait_for,
    watched,
)

__all__ = ["browser"]  # a fixture

pytestmark = pytest.mark.browser
CONTRAST = "?system=poisson&model=sys-1&dial=10&seed=3&sparsity=0.6&result=32:8:12"


@pytest.fixture
def page(browser, address):
    """The page on its contrast, ready."""
    with watched(browser, address.removesuffix("/explore")) as page:
        page.goto(address + CONTRAST)
        expect(shown(page, "from_scratch-error")).to_have_text(re.compile(r"%$"))
        yield page


def tab(page, name):
    """A tab, once it is opened and has something to show."""
    page.get_by_role("tab", name=name).click()
    expect(page.locator(".panel")).to_have_attribute("data-shown", name.lower())
    return page.locator(".panel")


def kept(page, name) -> bytes:
    """A file of the menu Keep."""
    page.locator(".menu summary").click()
    with page.expect_download() as download:
        page.get_by_role("button", name=name, exact=True).click()
    return Path(download.value.path()).read_bytes()


# Where everything is --------------------------------------------------------------------------------------------------

PLACES = f"""() => Array.from(({STAGE})().querySelectorAll('div, p, section, canvas')).map(each => {{
  const {{x, y, width, height}} = each.getBoundingClientRect()
  return [String(each.className).split(' ')[0], x, y, width, height] }})"""


def test_nothing_moves_by_itself(browser, address):
    """Like reports of a sentence that becomes longer seconds later, and moves the page under the pointer."""
    with watched(browser, address.removesuffix("/explore"), size=(1366, 768)) as page:
        page.goto(address + CONTRAST)
        expect(shown(page, "from_scratch-error")).to_have_text(re.compile(r"%$"))
        before = page.evaluate(PLACES)
        expect(shown(page, "sentence")).to_contain_text("we expected")  # all that comes later has come
        expect(shown(page, "spread")).to_have_text(re.compile(r"%$"))
        expect(page.locator("[data-curve=zero_shot]")).to_have_attribute("data-points", re.compile(r"^2\d$"))
        after = page.evaluate(PLACES)
        assert [each[0] for each in after] == [each[0] for each in before]
        for (name, *was), (_, *now) in zip(before, after, strict=True):
            assert now == pytest.approx(was, abs=1), name


def test_a_tab_has_its_place_while_it_measures(page):
    def height():
        return page.evaluate(f"() => ({STAGE})().offsetHeight")

    errors = height()
    for name in ("Spectrum", "Atlas"):
        page.get_by_role("tab", name=name).click()
        measuring = height()
        assert measuring >= errors - 1
        expect(page.locator(".panel")).to_have_attribute("data-shown", name.lower())
        assert height() == pytest.approx(measuring, abs=1)
    assert page.locator(".panel .cell").count() == 3 * 200, "an atlas that grows has no holes"


def test_back_undoes_a_choice_and_not_a_move(page):
    page.wait_for_url(re.compile("result=32:8:12"))
    dial(page).press("PageUp")
    page.wait_for_url(re.compile("dial=11.9"))
    page.get_by_label("Model").select_option("symbol")
    page.wait_for_url(re.compile("model=symbol"))
    page.get_by_label("Equation", exact=True).select_option("helmholtz")
    page.wait_for_url(re.compile("system=helmholtz"))
    tab(page, "Atlas")
    page.go_back()
    expect(page.get_by_role("tab", name="Errors")).to_have_attribute("aria-selected", "true")
    page.go_back()
    expect(page.get_by_label("Equation", exact=True)).to_have_value("poisson")
    expect(page.get_by_label("Model")).to_have_value("symbol")
    page.go_back()
    expect(page.get_by_label("Model")).to_have_value("sys-1")
    expect(page.locator(".operator-stage")).to_have_attribute("data-dial", "11.9")
    expect(shown(page, "fine_tuned-error")).to_have_text(re.compile(r"%$"))
    page.go_forward()
    expect(page.get_by_label("Model")).to_have_value("symbol")


# Tabs ---------------------------------------------------------------------------------------------------------------


def test_the_spectrum_tells_the_operators_apart_and_follows_the_dial(page):
    panel = tab(page, "Spectrum")
    assert panel.locator("figcaption").all_inner_texts() == [
        "Gain, learned over exact", "Relative error, |learned / exact − 1|", "Leak into other waves",
        "Energy of u (grey) and of the errors",
    ]  # fmt: skip
    off = panel.locator("figure").nth(1)
    assert off.locator(".curve").count() == 3
    first = off.locator(".curve").first.get_attribute("d")
    dial(page).press("Home")
    expect(off.locator(".curve").first).not_to_have_attribute("d", first)


def test_a_click_in_the_atlas_goes_there(page):
    panel = tab(page, "Atlas")
    expect(panel.locator("figure")).to_have_count(3)
    cell, stage = panel.locator("figure").first.locator(".cell").first, page.locator(".operator-stage")
    value = re.search(r"tensor ([\d.]+)", cell.locator("title").text_content())[1]
    # A click comes to nothing where the atlas, which grows, is drawn anew meanwhile.
    until(page, lambda: cell.click(force=True) or stage.get_attribute("data-dial"), lambda dial: dial == value)


def test_a_point_of_the_examples_is_shown(page):
    panel = tab(page, "Examples")
    before = shown(page, "fine_tuned-error").inner_text()
    panel.locator(".choice-of").last.click()
    expect(shown(page, "fine_tuned-error")).not_to_have_text(before)
    expect(page.locator(".examples input:checked + span")).to_have_text("512")


def test_each_error_is_between_the_bounds_under_its_field_and_near_a_resonance_there_is_none_above(page, address):
    for name in ("zero_shot", "fine_tuned", "from_scratch"):
        expect(shown(page, f"{name}-bounds")).to_have_text(re.compile(r"^estimated [\d.]+ to [\d.]+ %$"))
        lower, upper = map(float, re.findall(r"[\d.]+", shown(page, f"{name}-bounds").inner_text()))
        assert lower < percentage(page, f"{name}-error") < upper < 15 * lower
    page.goto(f"{address}?system=helmholtz&model=sys-3&dial=13.4&result=none")
    expect(shown(page, "zero_shot-bounds")).to_have_text(re.compile(r"^estimated above [\d.]+ %, near a resonance$"))


# What is kept -------------------------------------------------------------------------------------------------------


def test_files_hold_what_is_on_the_page(page, tmp_path):
    with h5py.File(io.BytesIO(kept(page, "Fields, HDF5"))) as file:
        fields = {name: values[:] for name, values in file.items()}
        facts = dict(file.attrs)
    assert set(fields) == {"source", "solution", "zero_shot", "fine_tuned", "from_scratch"}
    assert all(values.shape == (128, 128) for values in fields.values())
    assert "dial=10" in facts["address"]
    for name in ("zero_shot", "fine_tuned", "from_scratch"):
        off = np.linalg.norm(fields[name] - fields["solution"]) / np.linalg.norm(fields["solution"])
        assert off == pytest.approx(facts[f"error of {name}"], rel=1e-3)
        assert percentage(page, f"{name}-error") == pytest.approx(100 * off, rel=0.06)
    archive = np.load(io.BytesIO(kept(page, "Fields, NPZ")), allow_pickle=False)
    for name, values in fields.items():
        np.testing.assert_array_equal(archive[name], values)
    drawing = kept(page, "Picture, SVG").decode()
    assert drawing.count("<image") == 8
    assert "end of the training range" in drawing
    assert "+100 %" in drawing, "a bar of colours"
    width = float(re.search(r'<svg [^>]*?width="([\d.]+)"', drawing)[1])
    for image in re.findall("<image [^>]*>", drawing):
        x, across, high = (float(re.search(rf' {name}="([\d.]+)"', image)[1]) for name in ("x", "width", "height"))
        assert across == high
        assert x + across < width
    assert kept(page, "Picture, PNG").startswith(b"\x89PNG")
    page.locator(".menu summary").click()
    page.get_by_role("button", name="Python", exact=True).click()
    text = page.locator(".commands pre").inner_text()
    assert "papermill notebooks/02_adapt.ipynb" in text
    page.get_by_role("button", name="Close").click()
    program = tmp_path / "page.py"
    program.write_text(text, encoding="utf-8")
    done = subprocess.run([sys.executable, program], capture_output=True, text=True, check=False)
    assert not done.returncode, done.stderr
    printed = dict(line.split(" ", 1) for line in done.stdout.splitlines())
    for name in ("zero_shot", "fine_tuned", "from_scratch"):
        assert percent(printed[name]) == pytest.approx(100 * facts[f"error of {name}"], rel=1e-3)


# A training that is watched -----------------------------------------------------------------------------------------


def test_fields_mend_while_a_training_runs_and_the_window_is_dragged(page):
    page.locator(".keep").get_by_text("Train live").click()
    grips = page.locator(".grip")
    expect(grips).to_have_count(2)
    grip, curve = (each.bounding_box() for each in (grips.last, page.locator(".dial svg")))
    at = grip["x"] + grip["width"] / 2 - curve["x"]
    drag(page, page.locator(".dial svg"), *((at + far, 20) for far in (0, 20, 40, 60, 80)))
    high = page.get_by_label("to", exact=True)
    expect(high).to_have_value(re.compile(r"^1[3-9]"))
    expect(page.get_by_label("the window follows the dial")).not_to_be_checked()
    train(page, steps=2000, examples="8")
    seen = set()
    for _ in range(3):
        expect(page.locator(".learning [data-test=fine_tuned-error]")).to_have_text(re.compile(r"%$"))
        seen.add(wait_for(page, "Fine-tuned", lambda field: field not in (None, *seen)))
    page.get_by_role("button", name="Cancel").click()
    expect(shown(page, "adapt-status")).to_contain_text("Cancelled")
    expect(page.locator(".learning")).to_have_count(0)
    expect(page.locator("[data-curve=fine_tuned]")).to_have_attribute("data-points", re.compile(r"^2\d$"))


# A lesson -----------------------------------------------------------------------------------------------------------


def test_a_lesson_to_its_end(page):
    """What gives an answer away is seen and read by nobody before one has chosen."""
    error, curve = shown(page, "zero_shot-error"), page.locator("[data-curve=zero_shot]")
    lesson = read_lesson(FOLDER / "1-leaving-home.yaml")
    page.get_by_label("Lesson").select_option("1-leaving-home")
    for number, step in enumerate(lesson.steps, 1):
        card = page.locator(".lesson")
        expect(card).to_contain_text(f"step {number} of {len(lesson.steps)}")
        expect(error).to_be_visible(visible="numbers" not in step.covers)
        expect(curve).to_have_css("visibility", "hidden" if "curves" in step.covers else "visible")
        page.get_by_role("radio", name=step.choices[step.right - 1], exact=True).check()
        page.get_by_role("button", name="Check", exact=True).click()
        expect(card).to_contain_text("Right.")
        expect(error).to_be_visible()
        expect(curve).to_have_css("visibility", "visible")
        there = re.search(r"dial=([\d.]+)", step.then or step.at)[1]
        expect(page.locator(".operator-stage")).to_have_attribute("data-dial", there)
        if number < len(lesson.steps):
            page.get_by_role("button", name="Next", exact=True).click()
            expect(card).to_be_focused()
    page.wait_for_url(re.compile(f"lesson=1-leaving-home&step={len(lesson.steps)}&"))
    with page.expect_download() as download:
        page.get_by_text("Printable sheet").click()
    assert "Answers" in Path(download.value.path()).read_text(encoding="utf-8")
    expect(shown(page, "score")).to_contain_text("5 of 5")
    page.get_by_role("button", name="Next lesson: A few examples").click()
    expect(shown(page, "lesson")).to_have_text("A few examples")
    expect(page.get_by_label("Lesson")).to_have_value("2-a-few-examples")
    expect(error).to_be_hidden()


def test_a_lesson_is_left_by_back_and_by_its_cross(page):
    """Else its card would cover the numbers of whatever the page goes back to."""
    card = page.locator(".lesson")
    expect(shown(page, "spread")).to_have_text(re.compile(r"%$"))  # the page rests, and has an address to go back to
    page.get_by_label("Lesson").select_option("1-leaving-home")
    page.wait_for_url(re.compile("lesson=1-leaving-home&step=1"))
    page.get_by_role("button", name="Skip").click()
    page.wait_for_url(re.compile("lesson=1-leaving-home&step=2"))
    page.go_back()
    expect(card).to_be_hidden()
    expect(shown(page, "from_scratch-error")).to_have_text(re.compile(r"%$"))
    expect(page).to_have_url(re.compile(r"explore\?system=poisson&model=sys-1&dial=10&"))
    page.go_forward()
    expect(card).to_contain_text("step 2 of")
    page.get_by_role("button", name="Close this card").click()
    expect(card).to_be_hidden()
    expect(page).not_to_have_url(re.compile("lesson"))


def test_a_page_without_storage_opens_and_follows_the_theme(browser, address):
    """As in a frame of another page, or where cookies are refused."""
    with watched(browser, address.removesuffix("/explore"), color_scheme="dark") as page:
        page.add_init_script("Object.defineProperty(window, 'localStorage', {get() { throw new Error('refused') }})")
        page.goto(address)
        expect(page.locator("html")).to_have_attribute("data-theme", "dark")
        expect(shown(page, "zero_shot-error")).to_have_text(re.compile(r"%$"))
        page.locator(".menu summary").click()
        page.locator(".sentence").click()  # a press elsewhere closes a menu
        expect(page.locator(".menu")).not_to_have_attribute("open", re.compile(""))


# Anybody, anywhere --------------------------------------------------------------------------------------------------


def test_everything_is_reached_by_the_keyboard_alone(page):
    names = set()
    for _ in range(45):
        page.keyboard.press("Tab")
        names.add(
            page.evaluate("""() => {
              let e = document.activeElement
              while (e?.shadowRoot?.activeElement) e = e.shadowRoot.activeElement
              const label = e?.labels?.[0]?.textContent.trim().split(' ')[0]
              return e?.ariaLabel || label || e?.textContent.trim() || '' }""")
        )
    wanted = {
        "Equation", "Model", "Lesson", "32", "Train live", "Keep", "Present", "Eigenvalue e of the diffusion tensor",
        "Source f; Enter places a Gaussian, Ctrl and Z take it back", "Errors",
        "Zero-shot; arrows up and down move the cut",
    }  # fmt: skip
    assert wanted <= names, wanted - names
    page.get_by_role("group", name="Source f; Enter places a Gaussian").press("Enter")
    circle = page.get_by_role("button", name="Gaussian 1, x 0.50, y 0.50")
    circle.press("ArrowUp")
    expect(page.get_by_role("button", name="Gaussian 1, x 0.50, y 0.52")).to_be_focused()
    page.get_by_role("tab", name="Errors").press("ArrowRight")
    expect(page.get_by_role("tab", name="Atlas")).to_be_focused()
    expect(page.locator(".panel")).to_have_attribute("data-shown", "atlas")
    page.locator(".menu summary").press("Enter")
    page.keyboard.press("Escape")
    expect(page.locator(".menu summary")).to_be_focused()
    page.get_by_role("tab", name="Atlas").press("ArrowLeft")
    before = page.locator(".where").inner_text()
    page.get_by_role("group", name="Zero-shot; arrows up and down move the cut", exact=True).press("ArrowUp")
    expect(page.locator(".where")).not_to_have_text(before)


def swipe(finger, x, y, right, down):
    """A finger that goes over the screen."""
    finger.send("Input.dispatchTouchEvent", {"type": "touchStart", "touchPoints": [{"x": x, "y": y}]})
    for share in range(1, 11):
        point = {"x": x + right * share / 10, "y": y + down * share / 10}
        finger.send("Input.dispatchTouchEvent", {"type": "touchMove", "touchPoints": [point]})
    finger.send("Input.dispatchTouchEvent", {"type": "touchEnd", "touchPoints": []})


def swiped_to(page, name):
    """Wait until four fifths of a picture's width are on the screen, however far the page has been scrolled."""
    picture, width = page.locator(f"canvas[aria-label='{name}']"), page.viewport_size["width"]

    def is_seen():
        box = picture.bounding_box()
        return min(box["x"] + box["width"], width) - max(box["x"], 0) >= 0.8 * box["width"]

    until(page, is_seen, bool, f"{name} is not on the screen")
    expect(picture).to_be_in_viewport()


def test_a_touch_screen(browser, address):
    """The dial is turned by a finger, the predictions are swiped, and a finger on a picture scrolls the page."""
    with watched(browser, address.removesuffix("/explore"), (390, 844), has_touch=True, is_mobile=True) as page:
        page.goto(address + CONTRAST)
        expect(shown(page, "from_scratch-error")).to_have_text(re.compile(r"%$"))
        expect(page.locator("[data-curve=zero_shot]")).to_have_attribute("data-points", re.compile(r"^2\d$"))
        curve, finger = page.locator(".dial svg"), page.context.new_cdp_session(page)
        curve.tap(position={"x": 0.7 * curve.bounding_box()["width"], "y": 50})
        expect(dial(page)).to_have_attribute("aria-valuetext", re.compile(r"^1[6789]"))
        page.get_by_role("tab", name="Errors").tap()  # unfolds them; else there is nothing to scroll to
        expect(page.get_by_role("button", name="Errors and cut")).to_have_attribute("aria-expanded", "true")
        picture = page.locator("canvas[aria-label='Zero-shot']")
        place = picture.bounding_box()
        swipe(finger, place["x"] + 120, place["y"] + 100, 0, -90)
        until(
            page, picture.bounding_box, lambda box: box["y"] < place["y"] - 50, "a finger on a picture does not scroll"
        )
        place = picture.bounding_box()
        swipe(finger, place["x"] + 120, place["y"] + 100, -110, 0)
        swiped_to(page, "Fine-tuned")
        page.get_by_role("button", name="From scratch", exact=True).tap()
        swiped_to(page, "From scratch")
        source = page.locator("[data-key=source] .field")
        source.scroll_into_view_if_needed()
        place = source.bounding_box()
        swipe(finger, place["x"] + 90, place["y"] + 90, 0, -60)
        expect(page.locator(".handles circle")).to_have_count(0)
        source.tap()
        expect(page.locator(".handles circle")).to_have_count(1)  # a finger that scrolls paints nothing


def test_a_drawing_comes_back_and_what_is_pointed_at_follows_it(page):
    """Like reports of a plot whose tooltip keeps the values from before the last click."""
    source, readout = page.locator("[data-key=source] .field"), page.locator(".readout")
    source.hover(position={"x": 60, "y": 60})
    source.click(position={"x": 60, "y": 60})
    expect(readout).to_contain_text(re.compile(r"f (1\.0|1 |0\.9)"))
    page.wait_for_url(re.compile("draw=0"))
    drawn = page.url
    page.get_by_role("button", name="Random").click()
    page.wait_for_url(re.compile("seed=3"))
    expect(page.locator(".handles circle")).to_have_count(0)
    page.keyboard.press("Control+z")
    page.wait_for_url(drawn)
    expect(page.locator(".handles circle")).to_have_count(1)


def test_a_link_to_what_was_trained_says_that_it_is_gone_and_trains_it_again(page, address):
    link = CONTRAST.replace("result=32:8:12", "result=0:8.2:13:60:0.001")
    page.goto(address + link)
    expect(shown(page, "zero_shot-error")).to_have_text(re.compile(r"%$"))
    expect(page.get_by_text("is gone")).to_be_visible()
    expect(shown(page, "fine_tuned-error")).to_have_text("–")
    expect(page.locator("[data-curve=zero_shot]")).to_have_attribute("data-points", re.compile(r"^2\d$"))
    assert page.url.endswith(link)
    page.get_by_role("button", name="Train it again").click()
    expect(shown(page, "fine_tuned-error")).to_have_text(re.compile(r"%$"))
    expect(page.get_by_text("is gone")).to_be_hidden()
    assert page.url.endswith(link)


def test_the_studies_are_there_where_only_this_page_is_served(page, address):
    shown(page, "link-studies").click()
    expect(shown(page, "details")).to_contain_text("Click a point")
    page.wait_for_url(re.compile("explore.page=studies&results="))
    page.reload()
    page.locator("tbody button").first.click()
    shown(page, "to-explore").click()
    page.wait_for_url(re.compile("explore.*[?&]system=poisson"))
    expect(shown(page, "zero_shot-error")).to_have_text(re.compile(r"%$"))


def test_axe_finds_nothing_serious(browser, address):
    with watched(browser, address.removesuffix("/explore"), (1366, 1400)) as page:
        page.goto(address)
        expect(shown(page, "from_scratch-error")).to_have_text(re.compile(r"%$"))
        page.get_by_label("Lesson").select_option("1-leaving-home")
        expect(shown(page, "lesson")).to_have_text("Leaving home")
        page.locator(".keep").get_by_text("Train live").click()
        page.locator(".MuiAppBar-root button").first.click()
        expect(page.get_by_label("Seed of the source")).to_be_visible()
        page.locator(".menu summary").click()
        assert not findings_in_both_themes(page)
        for name in ("Atlas", "Spectrum", "Examples"):
            tab(page, name)
            assert not findings_in_both_themes(page), name
