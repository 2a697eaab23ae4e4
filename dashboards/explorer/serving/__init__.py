"""What a server of strangers needs, and all that the page knows of it: what is granted, and whose work comes first.

The pages' two scripts alone take a further thing from here, a slot for their session (`explorer.serving.sessions`).
"""

from .fairness import Allowance, lower_priority
from .limits import LATER, LIMITS, PUBLIC_SERVER, TooMuch

__all__ = ["LATER", "LIMITS", "PUBLIC_SERVER", "Allowance", "TooMuch", "lower_priority"]
