"""The studies page in a real browser: by mouse, by keyboard alone, in light and dark, and from page to page."""

import json
import re
import time
from collections import Counter
from contextlib import suppress

import pytest
from axe import SETTLED, findings_in_both_themes
from playwright.sync_api import TimeoutError as PlaywrightTimeout
from playwright.sync_api import expect
from test_dashboard_browser import TIMEOUT, browser, dial, served, shown, until, watched
from test_studies_state import records_of

from sciml_fm_core.study.records import read_table

__all__ = ["browser"]  # a fixture

PAGES = ("dashboards/explore.py", "dashboards/studies.py")

# Where the point of a run is on the page; null while it is not drawn.
POINT = """identity => {
  const search = views => {
    for (const view of views) {
      if (view.model.type == 'Figure')
        for (const renderer of view.model.renderers) {
          const data = renderer.data_source.data
          const index = data.identity ? Array.from(data.identity).indexOf(identity) : -1
          if (index < 0 || !view.frame) continue
          const box = view.el.getBoundingClientRect()
          return {x: box.x + view.frame.x_scale.compute(data.examples[index]),
                  y: box.y + view.frame.y_scale.compute(data.error[index])}
        }
      const inner = search(view.child_views || [])
      if (inner) return inner
    }
    return null
  }
  return search([...(Bokeh.index.roots || Object.values(Bokeh.index))])
}"""

pytestmark = pytest.mark.browser


@pytest.fixture(scope="module")
def records():
    """Made-up records of two experiments, no two of them at the same place: a click there would open either."""
    records, same = records_of("q1_downstream_data", "q3_physics_shift"), Counter()
    for record in records:
        place = record["start"], record["examples"]
        record["error"] *= 1.3 ** same[place]
        same[place] += 1
    return records


@pytest.fixture(scope="module")
def folder(records, tmp_path_factory):
    """Where those records are kept."""
    folder = tmp_path_factory.mktemp("study")
    for record in records:
        (folder / f"{record['identity']}.json").write_text(json.dumps(record))
    return folder


@pytest.fixture(scope="module")
def address(folder, tmp_path_factory):
    """A server of both pages, where those records are the user's own."""
    with served(tmp_path_factory.mktemp("log"), *PAGES, SCIML_FM_RECORDS=str(folder)) as url:
        yield url


def open_run(page, records, **values):
    """Click the point of the record with these values until its run is open."""
    record = next(r for r in records if all(r[key] == value for key, value in values.items()))
    identity, deadline = page.get_by_text(record["identity"], exact=True), time.monotonic() + TIMEOUT / 1000
    page.wait_for_function(f"identity => ({POINT})(identity) !== null", arg=record["identity"])
    while not identity.is_visible() and time.monotonic() < deadline:
        # The page grows while it loads: click where the point is now.
        at = page.evaluate(POINT, record["identity"])
        page.mouse.click(at["x"], at["y"])
        with suppress(PlaywrightTimeout):
            identity.wait_for(timeout=3000)
    expect(identity).to_be_visible()


def test_a_clicked_point_opens_its_run(browser, address, folder, records):
    with watched(browser, address) as page:
        page.goto(f"{address}/studies")
        expect(shown(page, "details")).to_contain_text("Click a point")
        page.get_by_label("Results").select_option(f"{folder}, laptop")
        wanted = {"task": "SYS-1(5,10)", "start": "fine-tuned", "examples": 64, "recipe": "dimensionless"}
        open_run(page, records, **wanted)
        expect(shown(page, "details")).to_contain_text("SYS-1(5,10), fine-tuned, 64 examples")
        expect(shown(page, "notebook")).to_have_text("notebooks/q1_downstream_data.ipynb")
        page.get_by_label("Figure").select_option("Question 3: shifted physics")
        expect(shown(page, "details")).to_contain_text("Click a point")
        open_run(page, records, **wanted | {"task": "SYS-1(10,20)"})
        expect(shown(page, "details")).to_contain_text("SYS-1(10,20), fine-tuned, 64 examples")
        expect(shown(page, "notebook")).to_have_text("notebooks/q3_physics_shift.ipynb")
        expect(shown(page, "link-explore")).to_have_attribute("href", "explore")
        page.get_by_label("Figure").select_option("Question 1: downstream data")
        # The figure before has this run too: its point must be gone before one clicks.
        expect(shown(page, "details")).to_contain_text("Click a point")
        open_run(page, records, **wanted)
        expect(page.locator("tr[aria-selected=true]")).to_have_count(1)
        with page.expect_download() as download:
            page.get_by_text("Download as CSV").click()
        kept = {record["identity"] for record in read_table(download.value.path())}
        shown_runs = page.locator("tbody tr").evaluate_all("rows => rows.map(row => row.dataset.run)")
        assert kept == set(shown_runs)


# The name of what has the focus, through shadow roots.
FOCUSED = """() => {
  let element = document.activeElement
  while (element.shadowRoot?.activeElement) element = element.shadowRoot.activeElement
  const label = element.id && element.getRootNode().querySelector(`label[for="${element.id}"]`)
  return (label || element).textContent.trim()
}"""


def tab_to(page, name):
    """Press Tab until what has this name has the focus."""

    def next_one():
        page.keyboard.press("Tab")
        return page.evaluate(FOCUSED)

    until(page, next_one, lambda focused: focused.startswith(name), f"{name} cannot be reached by the keyboard")


def test_everything_can_be_done_by_the_keyboard(browser, address):
    """From an experiment to a run, to the explore page, and back to where one was."""
    with watched(browser, address) as page:
        page.goto(f"{address}/studies?run=nobody")
        expect(page.get_by_role("alert").first).to_contain_text("run=nobody in the address is left out")
        tab_to(page, "Figure")
        page.keyboard.press("ArrowDown")
        expect(page.locator("tbody tr").first).to_contain_text("256K, fine-tuned")
        tab_to(page, "examples")
        page.keyboard.press("Enter")
        expect(page.locator("th[aria-sort=ascending]")).to_contain_text("examples")
        tab_to(page, "64K, fine-tuned")
        page.keyboard.press("Enter")
        expect(shown(page, "details")).to_contain_text("SYS-1(5,10), fine-tuned")
        page.wait_for_url(re.compile("run=[0-9a-f]+"))
        before, title = page.url, shown(page, "details").inner_text()
        tab_to(page, "Open in Explore")
        page.keyboard.press("Enter")
        page.wait_for_url(re.compile("explore.system=poisson&model=.*&dial=7.5&.*result=none"))
        expect(dial(page)).to_have_attribute("aria-valuetext", "7.5")
        page.go_back()
        expect(shown(page, "details")).to_have_text(title, use_inner_text=True)
        expect(page).to_have_url(before)


def test_the_explore_page_comes_back_as_it_was(browser, address):
    with watched(browser, address) as page:
        page.goto(f"{address}/explore?system=poisson&model=sys-1&dial=3&result=none")
        expect(shown(page, "zero_shot-error")).to_have_text(re.compile(r"%$"))
        dial(page).press("PageUp")
        page.wait_for_url(re.compile("dial=4.9"))
        shown(page, "link-studies").click()
        expect(shown(page, "details")).to_contain_text("Click a point")
        page.go_back()
        expect(dial(page)).to_have_attribute("aria-valuetext", "4.9")


def test_nothing_stands_in_the_way_in_either_theme(browser, address):
    """The pages follow the system's theme until a visitor chooses; axe finds nothing grave."""
    with watched(browser, address) as page:
        page.goto(f"{address}/studies")
        page.locator("tbody button").first.click()
        expect(shown(page, "to-explore")).to_be_visible()
        assert not findings_in_both_themes(page)
        page.get_by_label("Toggle theme").click()
        expect(page.locator("html")).to_have_attribute("data-theme", "light")
        page.goto(f"{address}/explore")
        expect(shown(page, "zero_shot-error")).to_have_text(re.compile(r"%$"))
        page.wait_for_function(SETTLED, arg="light")  # what was chosen holds for both pages


def test_the_menus_of_a_phone_are_closed_at_first(browser, address):
    """Like reports of a drawer that lies over the page."""
    with watched(browser, address, size=(390, 844)) as page:
        page.goto(f"{address}/studies")
        expect(page.get_by_text("Click a point").first).to_be_visible()
        expect(page.get_by_label("Figure")).to_be_hidden()
        page.locator(".MuiAppBar-root button").first.click()
        expect(page.get_by_label("Figure")).to_be_visible()
