"""The command ``panel serve`` for the pages, with the bounds of `explorer.serving.limits`."""

from __future__ import annotations

import os
import runpy
import secrets
import socket
import sys
import threading
import time
import webbrowser
from collections.abc import Sequence
from pathlib import Path

START_SECONDS = 60.0
"""How long a browser waits for the server to answer."""
KEEP_ALIVE_MILLISECONDS = 25_000
"""Between two signs of life on a connection that nobody uses; proxies close those that are silent for a minute."""


def serve(
    port: int,
    browser: bool,
    origins: Sequence[str] = (),
    *,
    public: bool = False,
    prefix: str = "",
    address: str | None = None,
    operators: Sequence[Path] = (),
    data: Sequence[Path] = (),
    opens: str = "explore",
) -> None:
    """Serve the pages on this machine until interrupted, and open the first where a browser is asked for.

    Browsers may connect from this machine, and from the further origins, such as the host of a proxy.

    Args:
        port: of the server.
        browser: whether to open one.
        origins: hosts by which browsers know the pages.
        public: for strangers, behind a proxy: the tight bounds of `serving.limits`, no browser, no connection but from
            the origins, and none to a session whose name the server has not signed, by the key ``BOKEH_SECRET_KEY`` of
            the environment, or one of its own until it ends.
        prefix: path below which the pages are.
        address: on which the server listens; where it is not given, that of this machine alone if the pages are public,
            all if not.
        operators: bundles to show besides those of the user's folder.
        data: files of fields in which to look for the examples of operators of given fields.
        opens: the page that the browser opens, with its query.

    Raises:
        ValueError: if the port is taken, a bound in the environment makes no sense, or public pages have no origin.
    """
    if _answers(port):
        raise ValueError(f"explore: port {port} is taken by another server; choose another one with --port")
    if public and (not origins or any("*" in origin for origin in origins)):
        raise ValueError(
            "explore: public pages need the host by which browsers know them, such as --origin operators.example.org; "
            f"got {', '.join(origins) or 'none'}"
        )
    folder = Path(__file__).resolve().parent.parent
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
    from .serving.limits import LIMITS  # which are read when they are imported

    options += LIMITS.server_options()
    from .bundles import DATA_VARIABLE, OPENED_VARIABLE

    for variable, files in ((OPENED_VARIABLE, operators), (DATA_VARIABLE, data)):
        if files:
            os.environ[variable] = os.pathsep.join(str(file.absolute()) for file in files)
    if browser and not public:
        threading.Thread(target=_open_when_ready, args=(port, opens), daemon=True).start()
    sys.argv = ["panel", "serve", *pages, "--index", "explore", "--port", str(port), *options]
    runpy.run_module("panel", run_name="__main__", alter_sys=True)


def _answers(port: int) -> bool:
    with socket.socket() as probe:
        probe.settimeout(1)
        return probe.connect_ex(("127.0.0.1", port)) == 0


def _open_when_ready(port: int, opens: str) -> None:
    deadline = time.monotonic() + START_SECONDS
    while not _answers(port):
        if time.monotonic() > deadline:
            return
        time.sleep(0.3)
    webbrowser.open(f"http://localhost:{port}/{opens}")
