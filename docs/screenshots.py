"""Take the pictures of the dashboard anew: the README's, and one of each part to look at.

python docs/screenshots.py             # dashboards/screenshot.png
python docs/screenshots.py --all DIR   # pictures of every part, in both themes and three window sizes, to look at
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from playwright.sync_api import sync_playwright

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "benchmarks"))
from page import ARGUMENTS, chromium, opened, served  # noqa: E402 # the folder of the benchmarks is no package

SIZES = {"laptop": (1366, 768), "projector": (1920, 1080), "phone": (390, 844)}
PARTS = {
    "opening": "",
    "missing-wavenumber": "?system=helmholtz&model=sys-3&dial=2&result=none",
    "unseen": "?system=biharmonic_advection&model=symbol&dial=3&result=none",
    "dipole": "?system=poisson&model=sys-1&dial=3&draw=0.35,0.5,1;0.65,0.5,-1&result=32:8:12",
}


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
            page, _ = opened(browser, url + PARTS[part])
            width, height = SIZES[size]
            page.set_viewport_size({"width": width, "height": height})
            if theme == "dark":
                page.get_by_role("button", name="theme").first.click()
            page.wait_for_timeout(8000)  # until the curves are whole
            page.screenshot(path=path)
            page.close()
            print(path)
        browser.close()


if __name__ == "__main__":
    main()
