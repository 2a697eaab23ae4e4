"""Dashboards and notebooks, which travel with the package: where they are, opened and copied."""

from __future__ import annotations

import importlib
import importlib.util
import os
import runpy
import secrets
import shutil
import socket
import sys
import threading
import time
import webbrowser
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from .files import user_path

START_SECONDS = 60.0
"""How long a browser waits for the server to answer."""


def companion_folder(name: str) -> Path:
    """The folder ``dashboards`` or ``notebooks``: in the installed package, or beside it in a checkout.

    >>> (companion_folder("dashboards") / "explore.py").is_file()
    True

    Raises:
        ValueError: if there is none.
    """
    package = Path(__file__).resolve().parent
    found = next((folder for folder in (package / name, package.parent / name) if folder.is_dir()), None)
    if found is None:
        raise ValueError(f"{name}: not installed beside {package}; install sciml-fm from its wheel or a checkout")
    return found


KEEP_ALIVE_MILLISECONDS = 25_000
"""Between two signs of life on a connection that nobody uses; proxies close those that are silent for a minute."""


def stage(query: str = "", *, lessons: bool = False) -> Any:
    """The stage of the explore page for a notebook: put it last in a cell, between the texts of a lecture.

    A cell ``stage("system=poisson&model=sys-1&dial=10")`` shows Poisson's equation at e = 10; the query is that of the
    explore page's address, see docs/dashboard.md.

    >>> type(stage("system=helmholtz&dial=7")).__name__
    'Stage'

    Args:
        query: what it shows at first.
        lessons: offer the lessons of the explore page too.

    Raises:
        ValueError: if the dashboard's packages are not installed, or a value of the query makes no sense.
    """
    _require_dashboard("stage")
    _import_path()
    return importlib.import_module("explorer.notebook").notebook_stage(query, lessons=lessons)


def _require_dashboard(command: str) -> None:
    missing = [name for name in ("panel", "holoviews", "panel_material_ui") if importlib.util.find_spec(name) is None]
    if missing:
        raise ValueError(f"{command}: {', '.join(missing)} not installed; pip install 'sciml-fm[dashboard]'")


def _import_path() -> None:
    """Let the dashboard's modules be imported, as Panel does for the pages."""
    folder = str(companion_folder("dashboards"))
    if folder not in sys.path:
        sys.path.insert(0, folder)


def serve_dashboard(
    port: int,
    browser: bool,
    origins: Sequence[str] = (),
    *,
    public: bool = False,
    prefix: str = "",
    address: str | None = None,
) -> None:
    """Serve the pages on this machine until interrupted, and open the first where a browser is asked for.

    Browsers may connect from this machine, and from the further origins, such as the host of a proxy.

    Args:
        port: of the server.
        browser: whether to open one.
        origins: hosts by which browsers know the pages.
        public: for strangers, behind a proxy: the tight bounds of ``explorer.serving.limits``, no browser, no
            connection but from the origins, and none to a session whose name the server has not signed, by the key
            ``BOKEH_SECRET_KEY`` of the environment, or one of its own until it ends.
        prefix: path below which the pages are.
        address: on which the server listens; where it is not given, that of this machine alone if the pages are public,
            all if not.

    Raises:
        ValueError: if the port is taken, the dashboard's packages are not installed, a bound in the environment makes
            no sense, or public pages have no origin.
    """
    _require_dashboard("explore")
    if _answers(port):
        raise ValueError(f"explore: port {port} is taken by another server; choose another one with --port")
    if public and (not origins or any("*" in origin for origin in origins)):
        raise ValueError(
            "explore: public pages need the host by which browsers know them, such as --origin operators.example.org; "
            f"got {', '.join(origins) or 'none'}"
        )
    folder = companion_folder("dashboards")
    pages = [str(folder / f"{page}.py") for page in ("explore", "studies")]
    allowed = [*origins] if public else [f"localhost:{port}", f"127.0.0.1:{port}", *origins]
    options = [text for origin in allowed for text in ("--allow-websocket-origin", origin)]
    if public:
        os.environ["SCIML_FM_PUBLIC"] = "1"
        address = address or "127.0.0.1"
        options += ["--use-xheaders", "--keep-alive", str(KEEP_ALIVE_MILLISECONDS), "--session-ids", "signed"]
        os.environ.setdefault("BOKEH_SECRET_KEY", secrets.token_urlsafe(32))
    if prefix:
        options += ["--prefix", "/" + prefix.strip("/")]
    if address:
        options += ["--address", address]
    _import_path()
    options += importlib.import_module("explorer.serving.limits").LIMITS.server_options()
    if browser and not public:
        threading.Thread(target=_open_when_ready, args=(port,), daemon=True).start()
    sys.argv = ["panel", "serve", *pages, "--index", "explore", "--port", str(port), *options]
    runpy.run_module("panel", run_name="__main__", alter_sys=True)


def _answers(port: int) -> bool:
    with socket.socket() as probe:
        probe.settimeout(1)
        return probe.connect_ex(("127.0.0.1", port)) == 0


def _open_when_ready(port: int) -> None:
    deadline = time.monotonic() + START_SECONDS
    while not _answers(port):
        if time.monotonic() > deadline:
            return
        time.sleep(0.3)
    webbrowser.open(f"http://localhost:{port}/explore")


def copy_notebooks(folder: str | Path) -> list[Path]:
    """Copy the notebooks and their batch file into a folder, which is made; returns the copies.

    Raises:
        FileExistsError: if one is there already and differs, which may be work of one's own; nothing is copied.
    """
    folder, sources = user_path(folder), companion_folder("notebooks")
    pairs = [(path, folder / path.name) for path in sorted(sources.iterdir()) if path.suffix in (".ipynb", ".yaml")]
    for source, target in pairs:
        if target.exists() and target.read_bytes() != source.read_bytes():
            raise FileExistsError(f"notebooks: {target} is there and differs; choose another folder or move it away")
    folder.mkdir(parents=True, exist_ok=True)
    return [Path(shutil.copyfile(source, target)) for source, target in pairs]
