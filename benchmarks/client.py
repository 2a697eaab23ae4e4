"""A page that is open without its browser: connects as one does, says what a stage says, and paints nothing."""

from __future__ import annotations

import asyncio
import json
import random
import re
import struct
import time

from tornado.httpclient import AsyncHTTPClient
from tornado.websocket import websocket_connect

SLEEP = (1.0, 3.0)
"""Seconds between two moves of a visitor."""
VALUES = [5.0 + number / 2 for number in range(30)]
"""Values of the dial on the page as it opens."""
PATIENCE = 5.0
"""Seconds after which a frame counts as dropped."""


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
        """Connect, say that the stage is ready, and wait for its first frame; returns the seconds that took.

        A page without a stage is open when it is connected.
        """
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
        await self._event("document_ready", {})
        stages = [one["id"] for one in models if "operator-stage" in str(one["attributes"].get("esm", ""))]
        if not stages:
            return time.perf_counter() - began
        (self.stage,) = stages
        # By its label: what shows a thing, and what keeps its values, which components of the browser have apart.
        self._labelled = {}
        for one in models:
            data = one["attributes"].get("data") or {}
            label = data.get("attributes", {}).get("label") or one["attributes"].get("title")
            if isinstance(label, str):
                self._labelled[label] = one["id"], data.get("id", one["id"])
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
        await self.set("Steps", steps)
        await self.press("Fine-tune")

    async def set(self, label: str, value) -> None:
        """Send the value of a widget, whatever it would offer."""
        change = {"kind": "ModelChanged", "model": {"id": self._labelled[label][1]}, "attr": "value", "new": value}
        await self._send("PATCH-DOC", {"events": [change]})

    async def press(self, label: str) -> None:
        """Click a button."""
        press = {"model": {"id": self._labelled[label][0]}, "node": "click", "data": _map({"type": "click"})}
        await self._event("dom_event", press)

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
        """Read each message of the server: header, metadata, content, and each buffer after a header of its own."""
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
