"""The two pages, and how one is found from the other, whether the server was given the files of both or of one."""

from __future__ import annotations

import importlib
import sys
from pathlib import Path

import panel as pn

PAGES = {"explore": ("explorer.app", "Explorer"), "studies": ("explorer.studies_page", "Studies")}
"""Module and class of each."""


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
