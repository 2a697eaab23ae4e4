"""One frame after another, each of the page as it is when the frame begins.

At most one is being computed at a time. It is sent when the browser has painted the one before, or after half a second.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable
from concurrent.futures import Future
from typing import Generic, TypeVar

PATIENCE_SECONDS = 0.5
"""How long the next frame waits for a browser to say that it has painted the last one."""
REST_SECONDS = 0.3
"""After a frame that no other follows for so long, the page rests."""

Outcome = TypeVar("Outcome")


class FrameLoop(Generic[Outcome]):
    """The frames of one page, on the event loop.

    Args:
        begin: begins to compute the frame of the page as it is.
        paint: sends a frame, with its number and that of the move that it answers.
        rest: called when the page rests, with the number of its frame and the frame.
    """

    def __init__(
        self,
        begin: Callable[[], Future[Outcome]],
        paint: Callable[[Outcome, int, int], None],
        rest: Callable[[int, Outcome], None],
    ):
        self._begin_frame, self._paint, self._rest = begin, paint, rest
        self.turn = 0  # number of the latest move of a hand that the browser told of
        self.number = 0  # of the frame that was sent last
        self._wanted = False
        self._following = False  # whether a further one has begun
        self._painted = 0
        self._acknowledged = asyncio.Event()
        self._task: asyncio.Task | None = None
        self._resting: asyncio.TimerHandle | None = None

    def request(self) -> None:
        """Compute a frame anew; requests that arrive meanwhile are answered by one further frame, the latest."""
        self._wanted = True
        if self._task is None or self._task.done():
            self._task = asyncio.get_running_loop().create_task(self._run(self._begin()))

    def acknowledge(self, number: int) -> None:
        """Hear that the browser has painted a frame."""
        self._painted = max(self._painted, number)
        self._acknowledged.set()

    def rests_at(self, number: int) -> bool:
        """Whether a frame is the last that was sent, and no further one was asked for or begun since."""
        return number == self.number and not (self._wanted or self._following)

    def close(self) -> None:
        """Send no more."""
        for one in (self._resting, self._task):
            if one is not None:
                one.cancel()

    def _begin(self) -> tuple[int, Future[Outcome]]:
        """Begin the frame of the latest move, whose number goes with it."""
        self._wanted, self._following = False, True
        return self.turn, self._begin_frame()

    def _begin_if_wanted(self) -> tuple[int, Future[Outcome]] | None:
        return self._begin() if self._wanted else None

    async def _run(self, begun: tuple[int, Future[Outcome]] | None) -> None:
        while begun is not None:
            turn, future = begun
            outcome = await asyncio.wrap_future(future)
            begun = self._begin_if_wanted()  # it is computed while the browser paints
            latest = begun is None
            self._following = not latest
            await self._until_painted()
            self.number += 1
            self._paint(outcome, self.number, turn)
            if latest:
                self._rest_later(self.number, outcome)
            begun = begun or self._begin_if_wanted()

    async def _until_painted(self) -> None:
        """Wait until the browser has painted the frame before, at most for `PATIENCE_SECONDS`."""
        if self._painted < self.number:
            self._acknowledged.clear()
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._acknowledged.wait(), PATIENCE_SECONDS)

    def _rest_later(self, number: int, outcome: Outcome) -> None:
        if self._resting is not None:
            self._resting.cancel()
        self._resting = asyncio.get_running_loop().call_later(REST_SECONDS, self._rest, number, outcome)
