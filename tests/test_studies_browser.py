"""The studies page in a real browser: a figure is drawn, and a point that is clicked opens its run."""

import json
import time
from collections import Counter

import pytest
from playwright.sync_api import expect
from test_dashboard_browser import TIMEOUT, browser, choose, served, shown, watched
from test_studies_state import records_of

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
        page.wait_for_timeout(2000)
    assert identity.is_visible()


def test_a_clicked_point_opens_its_run(browser, address, folder, records):
    with watched(browser, address) as page:
        page.goto(f"{address}/studies")
        expect(shown(page, "details")).to_contain_text("Click a point")
        choose(page, 0, f"{folder}, laptop")
        wanted = {"task": "SYS-1(5,10)", "start": "fine-tuned", "examples": 64, "recipe": "dimensionless"}
        open_run(page, records, **wanted)
        expect(shown(page, "details")).to_contain_text("SYS-1(5,10), fine-tuned, 64 examples")
        expect(shown(page, "notebook")).to_have_text("notebooks/q1_downstream_data.ipynb")
        choose(page, 1, "Question 3: shifted physics")
        expect(shown(page, "details")).to_contain_text("Click a point")
        open_run(page, records, **wanted | {"task": "SYS-1(10,20)"})
        expect(shown(page, "details")).to_contain_text("SYS-1(10,20), fine-tuned, 64 examples")
        expect(shown(page, "notebook")).to_have_text("notebooks/q3_physics_shift.ipynb")
        expect(shown(page, "link-explore")).to_have_attribute("href", "explore")
        choose(page, 1, "Question 1: downstream data")
        open_run(page, records, **wanted)
