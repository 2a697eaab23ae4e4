"""Evolutions that ship: importing this registers them, those that are exact first."""

from . import linear  # noqa: F401, I001
from . import bilinear, burgers, navier_stokes, kuramoto_sivashinsky  # noqa: F401
from . import reaction, patterns, porous_medium  # noqa: F401
