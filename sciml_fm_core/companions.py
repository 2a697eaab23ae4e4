"""Dashboards and notebooks, which travel with the package: where they are, opened and copied."""

from __future__ import annotations

import importlib
import importlib.util
import shutil
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from .files import user_path


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
    return _dashboard("stage", "explorer.notebook").notebook_stage(query, lessons=lessons)


def _dashboard(command: str, module: str) -> Any:
    """A module of the dashboard, imported as Panel does for the pages."""
    missing = [name for name in ("panel", "holoviews", "panel_material_ui") if importlib.util.find_spec(name) is None]
    if missing:
        raise ValueError(f"{command}: {', '.join(missing)} not installed; pip install 'sciml-fm[dashboard]'")
    folder = str(companion_folder("dashboards"))
    if folder not in sys.path:
        sys.path.insert(0, folder)
    return importlib.import_module(module)


def serve_dashboard(
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
        public: for strangers, behind a proxy: the tight bounds of ``explorer.serving.limits``, no browser, no
            connection but from the origins, and none to a session whose name the server has not signed, by the key
            ``BOKEH_SECRET_KEY`` of the environment, or one of its own until it ends.
        prefix: path below which the pages are.
        address: on which the server listens; where it is not given, that of this machine alone if the pages are public,
            all if not.
        operators: bundles to show besides those of the user's folder.
        data: files of fields in which to look for the examples of operators of given fields.
        opens: the page that the browser opens, with its query.

    Raises:
        ValueError: if the port is taken, the dashboard's packages are not installed, a bound in the environment makes
            no sense, or public pages have no origin.
    """
    server = _dashboard("explore", "explorer.server")
    server.serve(
        port, browser, origins, public=public, prefix=prefix, address=address, operators=operators, data=data,
        opens=opens,
    )  # fmt: skip


def write_site(
    folder: Path, runtime: Path | None = None, systems: Sequence[str] = (), tell: Callable[[str], None] = print
) -> int:
    """Write the explore page as a folder of files that any host can serve, and give its size in bytes.

    Args:
        folder: where to.
        runtime: a folder with the files of onnxruntime-web; npm fetches them where None.
        systems: names of those that it has; all that it can compute where there are none.
        tell: called with what is done next.

    Raises:
        ValueError: if packages or the runtime are missing, or a system cannot be computed in a browser.
    """
    return _dashboard("site", "explorer.site.build").write_site(folder, runtime, systems, tell)


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
