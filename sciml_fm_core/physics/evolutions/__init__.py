"""Evolutions that ship: importing this registers them, those that are exact first."""

from . import linear  # noqa: F401, I001
from . import burgers, navier_stokes  # noqa: F401
