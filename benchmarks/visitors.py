"""How many visitors one server answers: clients without a browser turn their dials, with and without a training beside.

    python benchmarks/visitors.py                     # about four minutes; results/visitors.json
    python benchmarks/visitors.py --counts 1 2 --seconds 5 --json visitors.json   # only shows that it runs

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
import re
import statistics
import struct
import time
from pathlib import Path

import psutil
import torch
from page import served, summary
from tornado.httpclient import AsyncHTTPClient
from tornado.websocket import websocket_connect

from sciml_fm_core.files import write_json
from sciml_fm_core.training.cards import hardware

RESULTS = Path(__file__).resolve().parent / "results" / "visitors.json"
SLEEP = (1.0, 3.0)
"""Seconds between two moves of a visitor."""
VALUES = [5.0 + number / 2 for number in range(30)]
"""Of the dial, on the page as it opens."""
PATIENCE = 5.0
"""Seconds after which a frame counts as dropped."""
SETTLE = 20.0
"""Seconds until the errors along the dial, which all visitors share, are measured."""


class Visitor:
    """One page that is open, without its browser."""

    def __init__(self) -> None:
        self.times: list[float | None] = []
        self.status = ""
        self.dial = 0.0
        self._number = 0
        self._frames: dict[float, asyncio.Event] = {}
        self._welcome, self._painted = asyncio.Event(), asyncio.Event()

    async def open(self, url: str) -> float:
        """Connect, say that the stage is ready, and wait for its first frame; returns the seconds that took."""
        began = time.perf_counter()
        page = (await AsyncHTTPClient(max_clients=500).fetch(url, request_timeout=120)).body.decode()
        found = re.search(r'"token":"([^"]+)"', page)
        if found is None:
            raise RuntimeError(f"no place: {re.search('<title>.*</title>', page)}")
        self._socket = await websocket_connect(
            url.replace("http", "ws", 1) + "/ws", subprotocols=["bokeh", found[1]], max_message_size=2**28
        )
        self._reader = asyncio.create_task(self._read())
        self._models: asyncio.Future[dict] = asyncio.get_running_loop().create_future()
        await asyncio.wait_for(self._welcome.wait(), 120)
        await self._send("PULL-DOC-REQ", {})
        doc = await asyncio.wait_for(self._models, 120)
        models = list(_models(doc))
        (self.stage,) = (one["id"] for one in models if "operator-stage" in str(one["attributes"].get("esm", "")))
        # A component of the browser keeps what it shows in a model of its own.
        self._data = {
            one["id"]: one["attributes"]["data"]
            for one in models
            if "attributes" in (one["attributes"].get("data") or {})
        }
        await self.say(ready=True)
        await asyncio.wait_for(self._painted.wait(), 120)
        return time.perf_counter() - began

    async def say(self, **message) -> None:
        """Send a message of the stage."""
        await self._event("data_event", {"model": {"id": self.stage}, "data": _map(message)})

    async def move(self, value: float) -> None:
        """Turn the dial and wait for its frame."""
        arrived = self._frames[value] = asyncio.Event()
        began = time.perf_counter()
        await self.say(dial=value)
        try:
            await asyncio.wait_for(arrived.wait(), PATIENCE)
            self.times.append(1000 * (time.perf_counter() - began))
        except TimeoutError:
            self.times.append(None)

    async def stroll(self, seconds: float, chance: random.Random) -> None:
        """Turn the dial now and then."""
        ends = time.perf_counter() + seconds
        await asyncio.sleep(chance.uniform(0, SLEEP[1]))
        while time.perf_counter() < ends:
            await self.move(chance.choice([one for one in VALUES if one != self.dial]))  # the same brings no frame
            await asyncio.sleep(chance.uniform(*SLEEP))

    async def train(self, steps: int) -> None:
        """Start a training."""
        by_label = {data["attributes"].get("label"): (model, data["id"]) for model, data in self._data.items()}
        (_, box), (button, _) = by_label["Steps"], by_label["Fine-tune"]
        change = {"kind": "ModelChanged", "model": {"id": box}, "attr": "value", "new": steps}
        await self._send("PATCH-DOC", {"events": [change]})
        await self._event("dom_event", {"model": {"id": button}, "node": "click", "data": _map({"type": "click"})})

    def close(self) -> None:
        """Leave."""
        self._reader.cancel()
        self._socket.close()

    async def _event(self, name: str, values: dict) -> None:
        event = {"type": "event", "name": name, "values": {"type": "map", "entries": list(values.items())}}
        sent = {"kind": "MessageSent", "msg_type": "bokeh_event", "msg_data": event}
        await self._send("PATCH-DOC", {"events": [sent]})

    async def _send(self, kind: str, content: dict) -> None:
        self._number += 1
        parts = {"msgid": str(self._number), "msgtype": kind}, {}, content
        await asyncio.gather(*[self._socket.write_message(json.dumps(part)) for part in parts])  # none comes between

    async def _read(self) -> None:
        """Of each message of the server: header, metadata, content, and each buffer after a header of its own."""
        while True:
            header = json.loads(await self._part())
            await self._part()
            content = json.loads(await self._part())
            buffers = []
            for _ in range(header.get("num_buffers", 0)):
                await self._part()
                buffers.append(await self._part())
            if header["msgtype"] == "ACK":
                self._welcome.set()
            if header["msgtype"] == "PULL-DOC-REPLY":
                self._models.set_result(content)
            self.status = next(iter(re.findall(r"adapt-status.*?&gt;(.*?)&lt;", json.dumps(content))), self.status)
            for buffer in buffers:
                if isinstance(buffer, bytes):
                    await self._heard(buffer)

    async def _part(self) -> str | bytes:
        message = await self._socket.read_message()
        if message is None:
            raise ConnectionError("the server has closed the connection")
        return message

    async def _heard(self, buffer: bytes) -> None:
        (length,) = struct.unpack_from("<I", buffer)
        header = json.loads(buffer[4 : 4 + length])
        if header["kind"] == "frame":
            self.dial = header["dial"]
            if self.dial in self._frames:
                self._frames.pop(self.dial).set()
            self._painted.set()
            await self.say(painted=header["id"])


def _map(values: dict) -> dict:
    return {"type": "map", "entries": list(values.items())}


def _models(part):
    """Every model of a document, wherever it is nested."""
    if isinstance(part, dict):
        if part.get("type") == "object" and "id" in part:
            yield {"attributes": {}} | part
        for value in part.values():
            yield from _models(value)
    elif isinstance(part, list):
        for value in part:
            yield from _models(value)


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
    parser.add_argument("--json", type=Path, default=RESULTS)
    arguments = parser.parse_args()
    result: dict = {"hardware": hardware(torch.device("cpu")), "cores": os.cpu_count(), "load": os.getloadavg()[0]}
    result["seconds_between_moves"] = SLEEP
    with served() as (server, url):
        result |= asyncio.run(measured(url, arguments.counts, arguments.seconds))
        result["memory_mb"] = round(psutil.Process(server.pid).memory_info().rss / 2**20)
    write_json(arguments.json, result)
    print(json.dumps(result, indent=1))


if __name__ == "__main__":
    main()
