"""The pages: how one is found from the other, and the bar, drawer and theme that all have."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import panel as pn
import panel_material_ui as pmui
import param
from panel.custom import JSComponent
from panel.util import edit_readonly

TEMPLATE = """
{% extends "base.html" %}
{% block preamble %}
{{ super() }}
<script>
{
  const dark = matchMedia("(prefers-color-scheme: dark)")
  const follow = () => {
    let chosen
    try { chosen = localStorage.theme } catch {} // a browser may have no storage
    document.documentElement.dataset.theme = chosen ?? (dark.matches ? "dark" : "light")
  }
  follow()
  dark.addEventListener("change", follow)
}
</script>
<style>
:root { color-scheme: light } :root[data-theme=dark] { color-scheme: dark }
[data-theme=dark] body { background: #121212 }
#loader:not(.error) { background: none; pointer-events: none } /* what is drawn already can be read and used */
</style>
{% endblock %}
"""
"""The components follow ``data-theme``; it is there before the first of them is drawn, so that nothing flashes."""

CHOSEN = """
const theme = source.dark_theme ? "dark" : "light"
if (theme != document.documentElement.dataset.theme) {
  document.documentElement.dataset.theme = theme
  try { localStorage.theme = theme } catch {}
}
"""
"""What the toggle says is kept for the other page and the next visit."""


LOOK = {
    # The bar that tells that the server is busy has no name for a screen reader, and cannot be given one.
    ".MuiAppBar-root .MuiLinearProgress-root": {"display": "none"},
    "& .MuiToolbar-root": {"minHeight": "40px !important", "height": "40px"},
    "& h3": {
        "fontSize": "1.2rem",
        "@media (max-width: 600px)": {
            "fontSize": ".8rem",
            "maxHeight": "2.4em",
            "lineHeight": 1.2,
            "overflow": "hidden",
        },
    },
}


class Address(JSComponent):
    """Keeps the address of a page at what it shows, and its drawer closed at first where it would lie over the page."""

    query = param.String()

    _esm = """
export function render({model, view}) {
  const close = () => { // once the page has been drawn, which does not hear of it before
    for (const root of view?.model?.document?.roots() ?? [])
      if (root.data?.sidebar_open) root.data.sidebar_open = false
  }
  if (matchMedia("(max-width: 599.95px)").matches) setTimeout(close, 100)
  const show = () => history.replaceState(null, "", `?${model.query}`)
  model.on("query", show)
  show()
}
"""


def _followers() -> list:
    """Who is told when the server becomes busy, which it does at each message of any visitor."""
    return pn.state.param.watchers.get("busy", {}).get("value", [])


def dashboard_page(*, sx: Mapping[str, Any] | None = None, **options: Any) -> pmui.Page:
    """A page that is dark or light as the system prefers, until a visitor chooses; ``sx`` adds to the look of all."""
    others = list(_followers())
    # A handle that resizes the drawer would have no role, and no use by the keyboard.
    theme = {"typography": {"fontFamily": "system-ui, sans-serif"}}
    page = pmui.Page(
        template=TEMPLATE, sidebar_resizable=False, sx=LOOK | dict(sx or {}), theme_config=theme, **options
    )
    page.jscallback(dark_theme=CHOSEN)
    # It does not follow whether the server is busy. Each page would be searched through at each message of anybody, so
    # that the more are open, the longer all wait; and pages that were closed would be kept, to be told too.
    for follower in [each for each in _followers() if each not in others]:
        pn.state.param.unwatch(follower)
    with edit_readonly(page):
        page.busy = False
    return page


# Where a page is ------------------------------------------------------------------------------------------------------

PAGES = {
    "explore": ("explorer.app", "Explorer"),
    "studies": ("explorer.studies.page", "Studies"),
    "data": ("explorer.own_data", "OwnData"),
    "teach": ("explorer.teach", "Teach"),
}
"""Module and class of each; the last two have no file of their own, and are asked for at the address of another."""


def asked_page() -> str | None:
    """Which page the address of this session asks for, as ``?page=studies``; else it is that of its path."""
    name = pn.state.session_args.get("page", [b""])[-1].decode("utf-8", "replace")
    return name if name in PAGES else None


def open_page(name: str) -> pn.viewable.Viewable:
    """The page of this name, or the one that is asked for."""
    module, kind = PAGES[asked_page() or name]
    return getattr(importlib.import_module(module), kind)().page()


def address_of(name: str, query: str = "") -> str:
    """A page's address from the other: its file's if ``panel serve`` was given that, else the same path asks for it."""
    files = sys.orig_argv if "serve" in sys.orig_argv else []
    if name in (Path(file).stem for file in files if file.endswith(".py")):
        return f"{name}?{query}" if query else name
    return f"?page={name}&{query}" if query else f"?page={name}"


def own_query(query: str) -> str:
    """The query of the page that is open, to be loaded again."""
    return f"page={asked_page()}&{query}" if asked_page() else query
