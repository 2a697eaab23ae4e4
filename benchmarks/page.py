"""How fast the explore page answers, in a real browser: dial moves, a held arrow key, the first page, many sessions,
and an evolution: steps that are painted in a second, and the first frame after a move of its dial.

    python benchmarks/page.py                    # about two minutes; results/page.json
    python benchmarks/page.py --moves 5 --sessions 2 --seconds 1 --json page.json   # only shows that it runs

Measured in headless Chromium on this machine, with the server beside it: from the move of the slider to the painted
fields of that value. A frame is 128 x 128, with every column that the opening page has.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import socket
import statistics
import subprocess
import sys
import time
from contextlib import contextmanager
from pathlib import Path

import psutil
import torch
from playwright.sync_api import Page, sync_playwright

from sciml_fm_core.files import write_json
from sciml_fm_core.models.operator import shipped_operators
from sciml_fm_core.training.cards import hardware

RESULTS = Path(__file__).resolve().parent / "results" / "page.json"
ROOT = Path(__file__).resolve().parent.parent
ARGUMENTS = ["--no-sandbox", "--disable-gpu"]

# The stage is in a shadow root; it tells of each painted frame by an event.
FIND = """() => {
  const search = root => { for (const e of root.querySelectorAll('*')) {
    if (e.classList?.contains('operator-stage') && e.dataset.painted) return e
    const inner = e.shadowRoot && search(e.shadowRoot); if (inner) return inner } return null }
  window.stage = search(document); return Boolean(window.stage) }"""

# Milliseconds from each move of the slider to the painted frame of its value; about a pause between moves.
MOVES = """async ({moves, pause}) => {
  const slider = stage.querySelector('.dial input[type=range]'), last = Number(slider.max), times = []
  await new Promise(done => setTimeout(done, pause * Math.random()))
  for (let i = 0; i < moves; i++) {
    const index = (37 * (i + 1)) % (last + 1)
    const seen = new Promise(done => {
      const painted = event => {
        if (event.detail.index !== index) return
        stage.removeEventListener('stage-painted', painted)
        done(performance.now())
      }
      stage.addEventListener('stage-painted', painted)
    })
    const began = performance.now()
    slider.value = index
    slider.dispatchEvent(new Event('input', {bubbles: true}))
    const late = new Promise(done => setTimeout(() => done(null), 5000))
    const ended = await Promise.race([seen, late])
    times.push(ended === null ? null : ended - began)
    await new Promise(done => setTimeout(done, pause * (0.5 + Math.random())))
  }
  return times
}"""

# Frames painted while the slider moves one step a repeat, thirty repeats a second, and whether the last one is right.
HELD = """async seconds => {
  const slider = stage.querySelector('.dial input[type=range]'), last = Number(slider.max)
  let painted = 0, shown = null
  const count = event => { painted++; shown = event.detail.index }
  slider.value = 0
  slider.dispatchEvent(new Event('input', {bubbles: true}))
  await new Promise(done => setTimeout(done, 1500))
  stage.addEventListener('stage-painted', count)
  const began = performance.now()
  let index = 0
  while (performance.now() - began < 1000 * seconds) {
    index = (index + 1) % (last + 1)
    slider.value = index
    slider.dispatchEvent(new Event('input', {bubbles: true}))
    await new Promise(done => setTimeout(done, 33))
  }
  const frames = painted
  await new Promise(done => setTimeout(done, 2000))
  return {frames, right: shown === index}
}"""


# Steps painted in a second at 50 asked for, with how many predictions.
PLAYED = """async seconds => {
  let painted = 0
  const count = () => painted++
  stage.querySelector('.player select').value = 50
  stage.addEventListener('step-painted', count)
  stage.querySelector('.play').click()
  await new Promise(done => setTimeout(done, 1000 * seconds))
  stage.querySelector('.play').click()
  stage.removeEventListener('step-painted', count)
  return {steps: painted, predictions: stage.querySelectorAll('.course [data-course]').length}
}"""
EVOLUTION = f"system={'navier_stokes' if 'evolutions' in shipped_operators() else 'advection_diffusion_in_time'}"
"""One that a shipped operator takes steps of."""
COMPLETE = """() => [...stage.querySelectorAll('.course [data-course]')].some(line => line.dataset.points === '40')"""


PACES = {"a_second_apart": 1000, "without_rest": 300}
"""Milliseconds between the moves of one of many sessions. Their browsers share the cores with the server here, and take
twice its time: the second pace asks for more than two cores have."""


def chromium() -> str:
    """The browser: named by CHROMIUM_PATH, or the system's."""
    return os.environ.get("CHROMIUM_PATH") or shutil.which("chromium") or shutil.which("google-chrome") or ""


@contextmanager
def served():
    """A server of the page as `sciml-fm explore` starts it; gives its process, its address and when it was up."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = [sys.executable, "-m", "sciml_fm_core.cli", "explore", "--port", str(port), "--no-browser"]
    server = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    url = f"http://127.0.0.1:{port}/explore"
    try:
        while True:
            try:
                with socket.create_connection(("127.0.0.1", port), timeout=1):
                    break
            except OSError:
                time.sleep(0.05)
        yield server, url
    finally:
        server.terminate()
        server.wait(timeout=30)


def opened(browser, url: str) -> tuple[Page, float]:
    """A page that has painted its first frame, and the seconds that took."""
    page = browser.new_page(viewport={"width": 1366, "height": 768})
    began = time.perf_counter()
    page.goto(url)
    page.wait_for_function(FIND, polling=50, timeout=60_000)
    return page, time.perf_counter() - began


def summary(times: list[float | None]) -> dict:
    """Median and 95th percentile of what came, and how many never did."""
    came = sorted(value for value in times if value is not None)
    return {
        "moves": len(times),
        "dropped": len(times) - len(came),
        "median_ms": round(statistics.median(came), 1),
        "percentile_95_ms": round(came[min(len(came) - 1, int(0.95 * len(came)))], 1),
    }


def main() -> None:
    """Measure, print and write."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--moves", type=int, default=200)
    parser.add_argument("--seconds", type=float, default=5, help="of the held key")
    parser.add_argument("--evolution", default=EVOLUTION, help="address of the page of one that is played")
    parser.add_argument("--sessions", type=int, default=20, help="that dial at once")
    parser.add_argument("--opened", type=int, default=200, help="sessions opened and closed for the memory")
    parser.add_argument("--json", type=Path, default=RESULTS)
    arguments = parser.parse_args()
    result: dict = {"hardware": hardware(torch.device("cpu")), "cores": os.cpu_count(), "load": os.getloadavg()[0]}
    with sync_playwright() as playwright, served() as (server, url):
        browser = playwright.chromium.launch(executable_path=chromium(), args=ARGUMENTS)
        result["browser"] = browser.version
        page, result["first_page_s"] = opened(browser, url)
        page.wait_for_timeout(4000)
        page.evaluate(MOVES, {"moves": 10, "pause": 30})
        result["dial"] = summary(page.evaluate(MOVES, {"moves": arguments.moves, "pause": 30}))
        held = page.evaluate(HELD, arguments.seconds)
        result["held_key"] = {"frames_per_s": round(held["frames"] / arguments.seconds, 1), "last_right": held["right"]}
        page.close()
        print(json.dumps(result, indent=1), flush=True)
        page, _ = opened(browser, f"{url}?{arguments.evolution}")
        page.wait_for_function(COMPLETE, polling=200, timeout=120_000)
        page.wait_for_timeout(4000)
        played = page.evaluate(PLAYED, arguments.seconds)
        result["evolution"] = {
            "address": arguments.evolution,
            "predictions": played["predictions"],
            "played_per_s": round(played["steps"] / arguments.seconds, 1),
            "first_frame": summary(page.evaluate(MOVES, {"moves": max(5, arguments.moves // 5), "pause": 300})),
        }
        page.close()
        print(json.dumps(result["evolution"], indent=1), flush=True)
        if arguments.sessions:
            pages = [opened(browser, url)[0] for _ in range(arguments.sessions)]
            pages[0].wait_for_timeout(5000)
            each = max(5, arguments.moves // arguments.sessions)
            result["sessions"] = {"at_once": arguments.sessions}
            for name, pause in PACES.items():  # all dial at once
                for one in pages:
                    one.evaluate(f"() => {{ window.times = ({MOVES})({{moves: {each}, pause: {pause}}}) }}")
                times = [value for one in pages for value in one.evaluate("() => window.times")]
                result["sessions"][name] = summary(times)
            for one in pages:
                one.close()
        if arguments.opened:
            process = psutil.Process(server.pid)
            sizes = []
            for number in range(arguments.opened):
                opened(browser, url)[0].close()
                if number in (19, arguments.opened - 1):
                    time.sleep(20)  # the server forgets a session some time after it is closed
                    sizes.append(process.memory_info().rss / 2**20)
            result["memory"] = {
                "sessions": arguments.opened,
                "after_20_mb": round(sizes[0]),
                "at_end_mb": round(sizes[-1]),
            }
        browser.close()
    write_json(arguments.json, result)
    print(json.dumps(result, indent=1))


if __name__ == "__main__":
    main()
