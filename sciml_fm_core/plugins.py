"""Systems, architectures, losses and experiments from elsewhere: installed packages, and files being tried out.

An installed package names its modules in an entry point group of `GROUPS`; importing such a module registers what it
defines. For a quick try, the environment variable `SCIML_FM_PLUGINS` names modules, or Python files, with commas
between them. Both are loaded with the package, and so on the command line, in notebooks, in the dashboard and in every
process that these start.
"""

from __future__ import annotations

import importlib.util
import os
import sys
import warnings
from collections.abc import Callable
from functools import partial
from importlib import import_module
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any

from .files import user_path
from .models.base import MODELS
from .physics.system import SYSTEMS
from .study.registry import REGISTRY
from .training.losses import LABEL_FREE, LOSSES

GROUPS = ("sciml_fm.systems", "sciml_fm.models", "sciml_fm.losses", "sciml_fm.experiments")
VARIABLE = "SCIML_FM_PLUGINS"
REGISTRIES: tuple[Any, ...] = (SYSTEMS, MODELS, LOSSES, LABEL_FREE, REGISTRY)


def load_plugins() -> None:
    """Import what installed packages and the environment variable name; what fails is left out with a warning."""
    for group in GROUPS:
        for entry in entry_points(group=group):
            _attempt(f"entry point {entry.name} of {group}", entry.load)
    # Files by their whole path: what this process starts may work in another folder.
    names = [name.strip() for name in os.environ.get(VARIABLE, "").split(",") if name.strip()]
    names = [str(user_path(name).absolute()) if name.endswith(".py") else name for name in names]
    if names:
        os.environ[VARIABLE] = ",".join(names)
    for name in names:
        _attempt(f"{VARIABLE}={name}", partial(_load_named, name))


def _load_named(name: str) -> None:
    if name.endswith(".py"):
        _load_file(Path(name))
    elif name not in sys.modules and importlib.util.find_spec(name.split(".")[0]) is None:
        raise ImportError(f"no module {name}; name an importable module, or a file such as ./{name}.py")
    else:
        import_module(name)


def _load_file(path: Path) -> None:
    """Import a file under its own name, so that objects defined in it can be sent to other processes."""
    known = sys.modules.get(path.stem)
    if known is not None:
        if Path(getattr(known, "__file__", None) or "") != path:
            raise ImportError(f"{path.name} would hide the module {path.stem}; give the file another name")
        return
    spec = importlib.util.spec_from_file_location(path.stem, path)
    if spec is None or spec.loader is None or not path.is_file():
        raise ImportError(f"no file {path}")
    module = sys.modules[path.stem] = importlib.util.module_from_spec(spec)
    try:
        spec.loader.exec_module(module)
    except BaseException:
        del sys.modules[path.stem]
        raise


def _attempt(what: str, load: Callable[[], object]) -> None:
    """Load a plugin; one that fails is left out with a warning, and so is what it had registered."""
    before = [registry.copy() for registry in REGISTRIES]
    try:
        load()
    except KeyboardInterrupt:
        raise
    except BaseException as error:  # somebody else's code: whatever it raises must not take this package down
        for registry, known in zip(REGISTRIES, before, strict=True):
            registry.clear()
            registry.update(known)
        with warnings.catch_warnings():
            warnings.simplefilter("always")  # where warnings are errors, it is none either
            warnings.warn(f"plugin left out: {what}: {type(error).__name__}: {error}", stacklevel=3)
