"""Evolutions on the explore page, in a real browser: played, moved through, drawn, and left again."""

import re
import sys
from pathlib import Path

import pytest

pytest.importorskip("panel_material_ui", reason="the dashboard extra is not installed")
sys.path.insert(0, str(Path(__file__).parent.parent / "dashboards"))

from axe import findings_in_both_themes
from playwright.sync_api import expect
from test_dashboard_browser import browser, field, percentage, shown, wait_for, watched

__all__ = ["browser"]  # a fixture

pytestmark = pytest.mark.browser


@pytest.fixture
def page(browser, address):
    """An evolution that a shipped operator takes steps of, all of whose steps have come."""
    with watched(browser, address.removesuffix("/explore"), size=(1366, 768)) as page:
        page.goto(f"{address}?system=advection_diffusion_in_time&model=symbol&dial=0.001&seed=3")
        expect(page.locator("[data-course=zero_shot]")).to_have_attribute("data-points", "40")
        yield page


def step(page) -> int:
    """The step that is painted."""
    return int(page.locator(".operator-stage").get_attribute("data-step"))


def test_steps_are_shown_and_played_by_space(page):
    assert step(page) == 1, "nothing moves unasked"
    expect(page.locator(".dial svg")).to_contain_text("Viscosity ν")  # nowhere else does the page say what the dial is
    expect(page.locator(".dial svg")).to_contain_text("one-step error")
    assert shown(page, "step").inner_text() == "step 1 of 40, t = 0.5"
    first, error = field(page, "Solver u"), percentage(page, "zero_shot-error")
    expect(shown(page, "sentence")).to_have_text(
        re.compile(
            r"^Zero-shot: the error is \S+ % after 1 step and \S+ % after 10\. "
            r"The correlation with the solver is below 0.8 at no step\."
        )
    )
    expect(shown(page, "sentence")).to_contain_text(re.compile(r"solver \S+ ms and the network \S+ ms\.$"))
    time = page.get_by_role("slider", name="Step in time")
    time.press("End")
    expect(page.locator(".operator-stage")).to_have_attribute("data-step", "40")
    assert field(page, "Solver u") != first
    assert percentage(page, "zero_shot-error") > error
    time.press("Home")
    expect(shown(page, "zero_shot-error")).to_have_text("0 %")
    assert field(page, "Solver u") == field(page, "Initial u(0)") == field(page, "Zero-shot")
    page.keyboard.press(" ")
    expect(page.get_by_role("button", name="Pause")).to_be_visible()
    expect(page.locator(".operator-stage")).to_have_attribute("data-step", re.compile(r"^[1-3]\d$"))
    page.keyboard.press(" ")
    expect(page.get_by_role("button", name="Play")).to_be_visible()
    stopped = step(page)
    page.wait_for_timeout(300)
    assert step(page) == stopped


def test_the_dial_and_a_drawing_keep_the_step(page):
    course = page.locator("[data-course=zero_shot]")
    page.get_by_role("slider", name="Step in time").fill("20")
    before = field(page, "Zero-shot")
    page.get_by_role("slider", name="Viscosity").press("End")
    wait_for(page, "Zero-shot", lambda seen: seen != before)
    expect(shown(page, "step")).to_have_text("step 20 of 40, t = 10")
    expect(course).to_have_attribute("data-points", "40")
    before = field(page, "Initial u(0)")
    page.locator("[data-key=source] .field").click()
    wait_for(page, "Initial u(0)", lambda seen: seen not in (None, before))
    expect(shown(page, "step")).to_have_text("step 20 of 40, t = 10")


def test_the_menu_has_the_evolutions_and_the_steady_equations(page):
    menu = page.get_by_label("Equation", exact=True)
    assert menu.locator("optgroup[label='In time'] option").count() > 12
    menu.select_option("gray_scott")
    expect(page.get_by_role("heading", name="Solver v")).to_be_visible()
    wait_for(page, "Solver v", lambda seen: seen is not None)
    wait_for(page, "Zero-shot", lambda seen: seen is not None)
    expect(page.locator(".card")).not_to_contain_text("No trained operator")
    menu.select_option("poisson")
    expect(page.get_by_role("heading", name="Exact u")).to_be_visible()
    expect(shown(page, "zero_shot-error")).to_have_text(re.compile(r"%$"))
    expect(page.get_by_role("button", name="Play")).to_be_hidden()
    expect(page.get_by_role("img", name="Exact and predicted solutions along the cut")).to_be_visible()


def test_the_player_is_accessible_and_everything_is_in_sight_at_1366(page):
    for name in ("Solver u", "Error of Zero-shot", "Errors over time"):
        box = page.get_by_role("img", name=name).bounding_box()
        assert box["y"] + box["height"] <= 768, name
    assert not findings_in_both_themes(page)
