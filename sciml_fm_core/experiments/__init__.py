"""Side studies, one file or folder each: the method, the runs, the figure. The folders below import none of them.

They register themselves, see `study.registry`, which imports all of them when one is asked for that it does not know.
"""

from importlib import import_module
from pkgutil import iter_modules


def import_all() -> None:
    """Import every study, so that it registers its experiments."""
    for module in iter_modules(__path__):
        import_module(f"{__name__}.{module.name}")
