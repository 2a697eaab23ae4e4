"""Dashboards and notebooks, which travel with the package: where they are, opened and copied."""

from __future__ import annotations

import importlib
import importlib.util
import shutil
import sys
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


def serve_dashboard(*arguments: Any, **options: Any) -> None:
    """Serve the pages on this machine until interrupted, as `serve` of ``explorer.server``, whose arguments these are.

    Raises:
        ValueError: if the dashboard's packages are not installed, or as there.
    """
    _dashboard("explore", "explorer.server").serve(*arguments, **options)


def write_site(*arguments: Any, **options: Any) -> int:
    """Write the explore page as files, as `write_site` of ``explorer.site.build``, whose arguments these are.

    Raises:
        ValueError: if the dashboard's packages are not installed, or as there.
    """
    return _dashboard("site", "explorer.site.build").write_site(*arguments, **options)


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
