"""What a server of strangers needs, and all that the page knows of it: what is granted, and whose work comes first.

The pages' two scripts alone take a further thing from here, a slot for their session (`explorer.serving.sessions`).
"""

from .batching import BatchingQueue
from .limits import LATER, LIMITS, TooMuch
from .messages import Allowance, check_message
from .priority import lower_priority

__all__ = ["LATER", "LIMITS", "Allowance", "BatchingQueue", "TooMuch", "check_message", "lower_priority"]
