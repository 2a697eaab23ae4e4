"""How many visitors one server answers: clients without a browser turn their dials, with and without a training beside.

    python benchmarks/visitors.py                     # about ten minutes; results/visitors.json
    python benchmarks/visitors.py --counts 1 --seconds 5 --at-once 2 --opened 1 2 --json visitors.json  # it runs

A client opens the explore page, connects as a browser does, and turns the dial every one to three seconds; the time is
from its message to the frame of that value. It paints nothing: what is measured is the server, on the cores that it
shares with the clients.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import random
import statistics
from pathlib import Path

import psutil
import torch
from client import SLEEP, VALUES, Visitor
from page import served, summary

from sciml_fm_core.files import write_json
from sciml_fm_core.training.cards import hardware

RESULTS = Path(__file__).resolve().parent / "results" / "visitors.json"
MOVES = 10
"""Moves of each visitor, where all turn their dials at the same moment."""
LEFT = 5.0
"""Seconds until the server has freed what closed pages held."""
SETTLE = 20.0
"""Seconds until the errors along the dial, which all visitors share, are measured."""


async def at_once(url: str, count: int, moves: int) -> dict:
    """Times of the dials of so many visitors who all turn them at the same moment, again and again."""
    visitors = [Visitor() for _ in range(count)]
    for visitor in visitors:
        await visitor.open(url)
    await asyncio.sleep(SETTLE)
    for number in range(moves):
        await asyncio.gather(*[visitor.move(VALUES[number % len(VALUES)]) for visitor in visitors])
    times = [value for visitor in visitors for value in visitor.times]
    for visitor in visitors:
        visitor.close()
    return {"visitors": count, "worst_ms": max((value for value in times if value), default=None)} | summary(times)


async def kept(url: str, process: psutil.Process, counts: list[int]) -> dict:
    """Resident memory after so many sessions, one after another, were opened, used and closed."""
    sizes, opened = {}, 0
    for count in counts:
        for _ in range(count - opened):
            visitor = Visitor()
            await visitor.open(url)
            await visitor.move(VALUES[0])
            visitor.close()
        opened = count
        await asyncio.sleep(LEFT)
        sizes[f"after_{count}_mb"] = round(process.memory_info().rss / 2**20)
        print(sizes, flush=True)
    return sizes


async def measured(url: str, counts: list[int], seconds: float) -> dict:
    """Times of the dials of so many visitors, first alone, then while one more trains."""
    chance, visitors, rows = random.Random(0), [Visitor() for _ in range(max(counts))], []
    opened = [await visitor.open(url) for visitor in visitors]
    await asyncio.sleep(SETTLE)
    trainer = Visitor()
    await trainer.open(url)
    for training in (False, True):
        if training:
            await trainer.train(2000)
            while not trainer.status.startswith("Fine-tuning, about"):
                await asyncio.sleep(0.5)
        for count in counts:
            for visitor in visitors:
                visitor.times.clear()
            await asyncio.gather(*[visitor.stroll(seconds, chance) for visitor in visitors[:count]])
            times = [value for visitor in visitors for value in visitor.times]
            rows.append({"visitors": count, "training": training} | summary(times))
            print(rows[-1], trainer.status, flush=True)
    running = trainer.status.startswith(("Fine-tuning", "Training"))
    for visitor in (*visitors, trainer):
        visitor.close()
    return {"opened_median_s": round(statistics.median(opened), 2), "rows": rows, "trained_to_the_last": running}


def main() -> None:
    """Measure, print and write."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--counts", type=int, nargs="+", default=[1, 10, 20, 30])
    parser.add_argument("--seconds", type=float, default=15, help="of each count")
    parser.add_argument("--at-once", type=int, default=30, help="visitors who turn their dials at the same moment")
    parser.add_argument("--opened", type=int, nargs="*", default=[20, 200], help="sessions before memory is read")
    parser.add_argument("--json", type=Path, default=RESULTS)
    arguments = parser.parse_args()
    result: dict = {"hardware": hardware(torch.device("cpu")), "cores": os.cpu_count(), "load": os.getloadavg()[0]}
    result["seconds_between_moves"] = SLEEP
    with served() as (server, url):
        process = psutil.Process(server.pid)
        if arguments.opened:
            result["kept"] = asyncio.run(kept(url, process, arguments.opened))
        if arguments.at_once:
            result["at_once"] = asyncio.run(at_once(url, arguments.at_once, MOVES))
    with served() as (server, url):
        result |= asyncio.run(measured(url, arguments.counts, arguments.seconds))
        result["memory_mb"] = round(psutil.Process(server.pid).memory_info().rss / 2**20)
    write_json(arguments.json, result)
    print(json.dumps(result, indent=1))


if __name__ == "__main__":
    main()
