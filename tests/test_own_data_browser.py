"""The page of given fields in a real browser: an operator of a file, and its test examples one by one."""

import re
import sys
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("panel_material_ui", reason="the dashboard extra is not installed")
sys.path.insert(0, str(Path(__file__).parent.parent / "dashboards"))

from axe import findings_in_both_themes
from playwright.sync_api import expect
from test_dashboard_browser import browser, percent, served, shown, until, watched  # noqa: F401 # browser is a fixture

from sciml_fm_core import Layout, TrainConfig, fine_tune, open_splits, pretrain, train_from_scratch

pytestmark = pytest.mark.browser
COUNT, N = 40, 16


def write_fields(path, seed, size):
    """Fields a and u = a smoothed, with a scalar that says how much."""
    generator = np.random.default_rng(seed)
    a = size * generator.normal(size=(COUNT, N, N))
    nu = generator.uniform(0.01, 0.1, COUNT)
    waves = (np.fft.fftfreq(N) * N) ** 2
    smoothing = 1 / (1 + nu[:, None, None] * (waves[:, None] + waves))
    np.savez(path, a=a, u=np.fft.ifft2(smoothing * np.fft.fft2(a)).real, nu=nu)


@pytest.fixture(scope="module")
def address(tmp_path_factory):
    """A server beside whose operators their files lie."""
    folder = tmp_path_factory.mktemp("own")
    for name, seed, size in (("own", 0, 1), ("new", 1, 3)):
        write_fields(folder / f"{name}.npz", seed, size)
    layout = Layout("a", "u", "nu")
    parts, other = (open_splits(folder / f"{name}.npz", layout) for name in ("own", "new"))
    options = {"config": TrainConfig(steps=4, validate_every=2)}
    operator, _ = pretrain(data=parts["train"], validation=parts["validation"], size="64K", **options)
    operator.save(folder / "own.safetensors")
    for name, start in (("tuned", fine_tune), ("scratch", train_from_scratch)):
        start(operator, other["train"], validation=other["validation"], **options).operator.save(
            folder / f"{name}.safetensors"
        )
    with served(folder, "dashboards/explore.py", SCIML_FM_OPERATORS=str(folder)) as url:
        yield f"{url}/explore"


@pytest.fixture
def page(browser, address):  # noqa: F811
    """The page, ready."""
    with watched(browser, address.removesuffix("/explore"), size=(1366, 768)) as page:
        page.goto(f"{address}?page=data")
        expect(page.get_by_text(re.compile("scratch: median"))).to_be_visible()
        yield page


def test_the_test_examples_are_walked_through(page):
    expect(shown(page, "about")).to_have_text(re.compile(r"^new.npz: 8 test examples.* Fine-tuned on .* own.npz"))
    expect(shown(page, "prediction")).to_have_count(3)
    picture = page.get_by_role("img", name="true u", exact=True)
    first, truth = shown(page, "error").first.inner_text(), picture.get_attribute("src")
    page.get_by_role("button", name="Next").click()
    expect(page).to_have_url(re.compile("operator=tuned&example=2$"))
    expect(shown(page, "error").first).not_to_have_text(first)
    expect(picture).not_to_have_attribute("src", truth)
    page.get_by_role("button", name="Previous").click()
    expect(shown(page, "error").first).to_have_text(first)
    page.get_by_role("button", name="Previous").click()
    expect(page).to_have_url(re.compile("example=8$"))
    page.get_by_role("button", name="Worst").click()
    worst = re.search(r"tuned: median .* %, worst ([\d.,]+ %) \(example (\d)\)", page.locator(".words").inner_text())
    expect(page).to_have_url(re.compile(f"example={worst[2]}$"))
    expect(shown(page, "error").nth(1)).to_have_text(worst[1])


def test_all_controls_are_on_a_phone(page):
    page.set_viewport_size({"width": 390, "height": 844})
    for name in ("Previous", "Next", "Worst"):
        button = page.get_by_role("button", name=name)
        until(page, button.bounding_box, lambda box: box["x"] >= 0 and box["x"] + box["width"] <= 390, name)


def test_another_operator_has_its_own_file(page):
    page.get_by_label("Operator").select_option("own")
    expect(shown(page, "about")).to_have_text(re.compile(r"^own.npz: 8 test examples"))
    assert percent(shown(page, "error").first.inner_text()) > 0


def test_it_is_found_from_the_explore_page_and_nothing_is_wrong_for_a_screen_reader(page, address):
    assert not findings_in_both_themes(page)
    expect(page.locator("body")).to_have_css("background-color", "rgb(18, 18, 18)")
    page.goto(address)
    shown(page, "link-data").click()
    expect(shown(page, "about")).to_be_visible()
    page.goto(f"{address}?page=data&operator=nothing&example=x")
    expect(shown(page, "prediction").first).to_be_visible()
