"""The studies page in a real browser: a figure is drawn, and a point that is clicked opens its run."""

import json

import pytest
from playwright.sync_api import expect
from test_dashboard_browser import browser, choose, served, shown, watched
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
    """Made-up records of every experiment."""
    return records_of("q1_downstream_data", "q3_physics_shift")


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


def point(page, records, **values):
    """The record with these values, once its point is drawn, and where that is."""
    (record,) = (r for r in records if all(r[key] == value for key, value in values.items()))
    page.wait_for_function(f"identity => ({POINT})(identity) !== null", arg=record["identity"])
    page.wait_for_timeout(1000)  # the page grows while it loads
    return record, page.evaluate(POINT, record["identity"])


def test_a_clicked_point_opens_its_run(browser, address, folder, records):
    with watched(browser, address) as page:
        page.goto(f"{address}/studies")
        expect(shown(page, "details")).to_contain_text("Click a point")
        choose(page, 0, f"{folder}, laptop")
        wanted = {"task": "SYS-1(5,10)", "start": "fine-tuned", "examples": 64, "recipe": "ours"}
        record, at = point(page, records, **wanted)
        page.mouse.click(at["x"], at["y"])
        expect(shown(page, "details")).to_contain_text("SYS-1(5,10), fine-tuned, 64 examples")
        expect(page.get_by_text(record["identity"], exact=True)).to_be_visible()
        expect(shown(page, "notebook")).to_have_text("notebooks/q1_downstream_data.ipynb")
        choose(page, 1, "Question 3: shifted physics")
        expect(shown(page, "details")).to_contain_text("Click a point")
        record, at = point(page, records, **wanted | {"task": "SYS-1(10,20)"})
        page.mouse.click(at["x"], at["y"])
        expect(shown(page, "details")).to_contain_text("SYS-1(10,20), fine-tuned, 64 examples")
        expect(shown(page, "notebook")).to_have_text("notebooks/q3_physics_shift.ipynb")
        expect(shown(page, "link-explore")).to_have_attribute("href", "explore")
