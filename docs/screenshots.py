"""Take the pictures of the dashboard anew: the README's, and one of each part to look at.

python docs/screenshots.py             # dashboards/screenshot.png
python docs/screenshots.py --all DIR   # pictures of every part, in both themes and three window sizes, to look at
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from pathlib import Path

from playwright.sync_api import Page, sync_playwright

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "benchmarks"))
from page import ARGUMENTS, FIND, chromium, served  # noqa: E402 # the folder of the benchmarks is no package

SIZES = {"laptop": (1366, 768), "projector": (1920, 1080), "phone": (390, 844)}


def tab(name: str) -> Callable[[Page], None]:
    """Opens a tab below the fields."""
    return lambda page: page.get_by_role("tab", name=name).click()


def lesson(page: Page) -> None:
    """Answers the first question of a lesson."""
    page.get_by_label("Lesson").select_option("2-a-few-examples")
    page.get_by_role("radio", name="8", exact=True).check()
    page.get_by_role("button", name="Check").click()


def training(page: Page) -> None:
    """Fine-tunes live."""
    page.locator(".keep").get_by_text("Train live").click()
    page.get_by_role("button", name="Fine-tune", exact=True).click()


PARTS = {
    "opening": "",
    "atlas": "",
    "spectrum": "",
    "examples": "",
    "lesson": "",
    "training": "",
    "missing-wavenumber": "?system=helmholtz&model=sys-3&dial=2&result=none",
    "unseen": "?system=biharmonic_advection&model=symbol&dial=3&result=none",
    "dipole": "?system=poisson&model=sys-1&dial=3&draw=0.35,0.5,1;0.65,0.5,-1&result=32:8:12",
}


DO = {
    "atlas": tab("Atlas"), "spectrum": tab("Spectrum"), "examples": tab("Examples"), "lesson": lesson,
    "training": training,
}  # fmt: skip
"""What is done on a page before its picture is taken."""


def main() -> None:
    """Open each part and take its picture."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--all", type=Path, metavar="DIR", help="folder for pictures of every part")
    arguments = parser.parse_args()
    wanted = [("opening", "laptop", "light", ROOT / "dashboards" / "screenshot.png")]
    if arguments.all:
        arguments.all.mkdir(parents=True, exist_ok=True)
        wanted = [
            (part, size, theme, arguments.all / f"{part}-{size}-{theme}.png")
            for part in PARTS
            for size in SIZES
            for theme in ("light", "dark")
        ]
    with sync_playwright() as playwright, served() as (_, url):
        browser = playwright.chromium.launch(executable_path=chromium(), args=ARGUMENTS)
        for part, size, theme, path in wanted:
            width, height = SIZES[size]
            page = browser.new_page(viewport={"width": width, "height": height}, color_scheme=theme)
            page.goto(url + PARTS[part])
            page.wait_for_function(FIND, polling=50, timeout=60_000)
            page.wait_for_timeout(4000)  # until the curves are whole
            DO.get(part, lambda _: None)(page)
            page.wait_for_timeout(8000 if part == "atlas" else 3000)
            page.screenshot(path=path)
            page.close()
            print(path)
        browser.close()


if __name__ == "__main__":
    main()
