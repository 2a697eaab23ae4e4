"""Neural operators: architectures, what they are told of an equation, and the bundle of a trained one."""

from . import fno  # noqa: F401 - registers it
