"""The stage in a notebook, without the page around it."""

from __future__ import annotations

from urllib.parse import parse_qsl

import panel as pn

from .app import Explorer, opening_state
from .link import restore
from .stage import Stage


def notebook_stage(query: str, *, lessons: bool) -> Stage:
    """See `sciml_fm_core.companions.stage`."""
    pn.extension(inline=True)  # from this machine: there may be no network
    state, problems = opening_state()
    problems += restore(state, dict(parse_qsl(query.removeprefix("?"), keep_blank_values=True)))
    if problems:
        raise ValueError("stage: " + "; ".join(problems))
    page = Explorer(state)
    if not lessons:
        page.lesson.lessons = {}
    return page.stage
