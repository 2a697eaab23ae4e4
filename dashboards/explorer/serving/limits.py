"""What one server grants to its visitors, owned here: practically anything on a laptop, little where strangers come.

``SCIML_FM_PUBLIC=1``, which ``sciml-fm explore --public`` sets, chooses the tight bounds; ``SCIML_FM_LIMIT_STEPS=100``
and the like set one of them. They are read once, when the server starts. See docs/public.md.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from typing import Protocol

from sciml_fm_core.training.recipes import LEARNING_RATES

PUBLIC_VARIABLE = "SCIML_FM_PUBLIC"
PREFIX = "SCIML_FM_LIMIT_"
"""Beginning of the environment variable of a bound; the rest is its name in capitals."""
CHECK_MILLISECONDS = 500
"""Time between two looks at which pages were closed. About so soon their places are free, and their trainings end."""
LATER = "run it on your own machine, where `make explore` sets no such bound"


class TooMuch(ValueError):
    """A visitor asked for more than the server grants; the message is for the visitor."""


class Training(Protocol):
    """What a visitor asks to train."""

    steps: int
    examples: int
    learning_rate: float | None


@dataclass(frozen=True)
class Limits:
    """Bounds of a server, each the most that is granted.

    Attributes:
        sessions: pages open at a time, of both kinds; the next visitor is asked to come back.
        steps, examples, learning_rates: of one training; the grid tries all learning rates that there are.
        job_seconds: of one training from its turn on; it is stopped then.
        queue: trainings that wait while one runs.
        results: trainings whose operators are kept for a session; the oldest goes when one more is made.
        gaussians: of a source drawn by hand.
        message_bytes: of a message of a browser; a larger one closes its connection.
        messages_per_second: of a stage, on average; what comes beyond is not heard.
        unused_seconds: after which a session whose page never connected gives its place back; that of a page that was
            closed does at the next look.
        nice: how far threads of trainings, curves and tabs stand back on Linux, as of the command ``nice``. Beside
            other programs that keep all cores busy, threads of 19 wait for very long.
    """

    sessions: int = 1000
    steps: int = 2000
    examples: int = 512
    learning_rates: int = len(LEARNING_RATES)
    job_seconds: int = 24 * 3600
    queue: int = 1000
    results: int = 1000
    gaussians: int = 64
    message_bytes: int = 20 * 2**20
    messages_per_second: int = 1000
    unused_seconds: int = 15
    nice: int = 19

    @classmethod
    def read(cls, environment: Mapping[str, str]) -> Limits:
        """The bounds that an environment asks for.

        Raises:
            ValueError: if a variable names no bound, or is not a whole number from 1.
        """
        limits = PUBLIC if is_public(environment) else cls()
        known = {PREFIX + field.name.upper(): field.name for field in fields(cls)}
        changed = {}
        for variable, text in environment.items():
            if not variable.startswith(PREFIX):
                continue
            if variable not in known:
                raise ValueError(f"{variable} names no bound; expected one of {', '.join(known)}")
            if not text.isdecimal() or int(text) < 1:
                raise ValueError(f"{variable}: expected a whole number from 1, got {text[:40]!r}")
            changed[known[variable]] = int(text)
        return replace(limits, **changed)

    def check(self, settings: Training) -> None:
        """Whether a training is granted.

        A browser can send any settings, whatever the widgets offer: they are checked where the training starts.

        Raises:
            TooMuch: if it is not.
        """
        rates = len(LEARNING_RATES) if settings.learning_rate is None else 1
        for most, asked, what, instead in (
            (self.steps, settings.steps, "steps", "ask for fewer"),
            (self.examples, settings.examples, "examples", "ask for fewer"),
            (self.learning_rates, rates, "learning rates", "choose one"),
        ):
            if asked > most:
                raise TooMuch(f"Expected at most {most} {what} on this server, got {asked}: {instead}, or {LATER}.")

    def server_options(self) -> list[str]:
        """Options of ``panel serve`` that hold the bounds that are the server's to keep."""
        return [
            *("--websocket-max-message-size", str(self.message_bytes)),
            *("--unused-session-lifetime", str(1000 * self.unused_seconds)),
            *("--check-unused-sessions", str(CHECK_MILLISECONDS)),
        ]


def is_public(environment: Mapping[str, str]) -> bool:
    """Whether strangers come."""
    return environment.get(PUBLIC_VARIABLE, "0") not in ("", "0")


PUBLIC = Limits(
    sessions=24,
    steps=300,
    examples=128,
    learning_rates=1,
    job_seconds=120,
    queue=4,
    results=4,
    gaussians=32,
    message_bytes=256 * 2**10,
    messages_per_second=200,
)
"""The bounds for strangers on two cores; docs/public.md says how the number of sessions was found."""
LIMITS = Limits.read(os.environ)
"""The bounds of this process."""
PUBLIC_SERVER = is_public(os.environ)
"""Whether this process serves strangers."""
