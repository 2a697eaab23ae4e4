"""Neural operators: architectures, what they are told of an equation, and the bundle of a trained one."""

from . import fno, unet, vit  # noqa: F401 - registers them
