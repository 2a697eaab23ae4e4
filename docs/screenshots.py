"""Take the pictures of the dashboard anew: the README's moving one, and one of each part to look at.

python docs/screenshots.py             # dashboards/dial.webp, the dial as it is turned
python docs/screenshots.py --all DIR   # pictures of every part, in both themes and three window sizes, to look at
"""

from __future__ import annotations

import argparse
import io
import math
import sys
from collections.abc import Callable
from pathlib import Path

from PIL import Image
from playwright.sync_api import Browser, Page, sync_playwright

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


FRAMES = 24
"""Pictures of the moving one, of a turn from the training range to three times its end and back."""
TURN = """async value => {
  const dial = stage.querySelector('.dial input[type=range]')
  const painted = new Promise(resolve => stage.addEventListener('stage-painted', resolve, {once: true}))
  dial.value = Math.round(value * dial.max)
  dial.dispatchEvent(new Event('input', {bubbles: true}))
  await painted
}"""


def moving(browser: Browser, url: str, path: Path) -> None:
    """Turn the dial and keep a small picture of each frame."""
    page = browser.new_page(viewport={"width": 1366, "height": 768}, device_scale_factor=0.5)
    page.goto(f"{url}?system=poisson&model=sys-1&dial=2&result=32:8:12")
    page.wait_for_function(FIND, polling=50, timeout=60_000)
    page.wait_for_timeout(4000)  # until the curves are whole
    pictures = []
    for number in range(FRAMES):
        page.evaluate(TURN, 0.37 - 0.32 * math.cos(2 * math.pi * number / FRAMES))
        page.wait_for_timeout(300)  # until the frame of full resolution is there too
        pictures.append(Image.open(io.BytesIO(page.screenshot())).convert("RGB"))
    page.close()
    first, *others = pictures
    first.save(path, save_all=True, append_images=others, duration=120, loop=0, quality=70, method=6)


def main() -> None:
    """Open each part and take its picture."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--all", type=Path, metavar="DIR", help="folder for pictures of every part")
    arguments = parser.parse_args()
    wanted = []
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
        if not wanted:
            moving(browser, url, ROOT / "dashboards" / "dial.webp")
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
