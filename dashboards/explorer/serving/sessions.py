"""The session limit: a slot for each session while there are any, else a static page that says that there are none."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager

import panel as pn
from jinja2 import Template

from .limits import LIMITS

RETRY_SECONDS = 30

# It carries no script and no model: nothing of it connects to the server, which forgets it soon. An empty address is
# that of the page itself, with its query and whatever prefix a proxy has.
FULL = Template(
    """<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="robots" content="noindex">
<meta http-equiv="refresh" content="{{ seconds }}">
<title>All places are taken</title>
<style>
:root { color-scheme: light dark }
body { font: 17px/1.5 system-ui, sans-serif; max-width: 34em; margin: 12vh auto; padding: 0 1em }
a { display: inline-block; padding: .4em 1.2em; border: 1px solid; border-radius: 4px; text-decoration: none }
</style>
</head>
<body>
<main data-test="full">
<h1>All places are taken</h1>
<p>So that it answers each visitor quickly, this server shows no more than {{ most }} pages at a time, and as many are
open now. You have done nothing wrong, and your link is kept.</p>
<p><a href="">Try again</a></p>
<p>The page also tries again by itself every {{ seconds }} seconds.</p>
</main>
</body>
</html>"""
)


class SessionLimit:
    """Slots of sessions, by their names; releasing one twice, or one that was never taken, changes nothing."""

    def __init__(self, most: int):
        self.most = most
        self._taken: set[str] = set()
        self._lock = threading.Lock()

    def take(self, name: str) -> bool:
        """Whether there was a slot."""
        with self._lock:
            if len(self._taken) < self.most:
                self._taken.add(name)
            return name in self._taken

    def release(self, name: str) -> None:
        """Let the next one in."""
        with self._lock:
            self._taken.discard(name)

    def __len__(self) -> int:
        return len(self._taken)


SESSIONS = SessionLimit(LIMITS.sessions)
"""The limit of the whole process, for both pages."""


@contextmanager
def session_slot(limit: SessionLimit = SESSIONS) -> Iterator[bool]:
    """Give the session of a page a slot while it is built, or let its document say that there is none.

    The slot is released when the session is destroyed, and at once when the page fails while it is built. A session
    is destroyed as soon as the server sees that its page was closed: none connects again to a session that it has left,
    as one that is loaded again begins a new one.
    """
    document = pn.state.curdoc
    context = document.session_context if document else None
    if document is None or context is None:  # outside a server there are no sessions to count
        yield True
        return
    name = context.id
    if not limit.take(name):
        document.title = "All places are taken"
        document.template = Template(FULL.render(most=limit.most, seconds=RETRY_SECONDS))
        yield False
        return

    def left(_context) -> None:
        limit.release(name)
        # What was still to be called would never be, and holds the page: Panel keeps the first document for good, in
        # the context of a task of its own.
        document.callbacks._session_callbacks.clear()

    document.on_session_destroyed(left)
    document.on_event("document_ready", lambda _: context.session.request_expiration())
    try:
        yield True
    except BaseException:
        limit.release(name)
        raise
