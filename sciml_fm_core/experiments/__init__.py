"""Studies, the paper's and others, one file or folder each: method, runs, figure; what is below imports none of them.

They register themselves, see `study.registry`, which imports all of them when one is asked for that it does not know.
"""

from importlib import import_module
from pkgutil import iter_modules


def import_all() -> None:
    """Import every study, so that it registers its experiments: the paper's questions first."""
    for name in ("paper", *(module.name for module in iter_modules(__path__))):
        import_module(f"{__name__}.{name}")
