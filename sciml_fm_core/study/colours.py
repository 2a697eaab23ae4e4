"""Colours that mean the same in every figure of the studies and on every page of the dashboard.

Most are Okabe and Ito's, told apart with any vision; those of `MEANING` stand out from a white ground and a dark one.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable

MEANING = {
    "zero-shot": ("#0072B2", "#6A78DD", "#0095A8"),
    "fine-tuned": ("#009E73", "#869900", "#00786A"),
    "from scratch": ("#D55E00", "#E0527E", "#A65A20"),
}
"""Shades of how a prediction came about; the first is its own."""
OTHERS = ("#E69F00", "#CC79A7", "#56B4E9", "#8468D8", "#999999", "#96642C", "#B5A800", "#63748A")
"""Colours of whatever else is compared."""


def colours_of(names: Iterable[str]) -> dict[str, str]:
    """A colour for each name: one that says how a prediction came about has a shade of that.

    >>> colours_of(["fine-tuned", "from scratch", "1M"])
    {'fine-tuned': '#009E73', 'from scratch': '#D55E00', '1M': '#E69F00'}
    """
    found: dict[str, str] = {}
    given: Counter[tuple[str, ...]] = Counter()
    for name in dict.fromkeys(names):
        shades = next((shades for meaning, shades in MEANING.items() if meaning in name), OTHERS)
        found[name] = shades[given[shades] % len(shades)]
        given[shades] += 1
    return found


def without_examples(colour: str) -> str:
    """Colour of an operator on the curve of that colour that has seen no example: what is fine-tuned is zero-shot."""
    shades = MEANING["fine-tuned"]
    return MEANING["zero-shot"][shades.index(colour)] if colour in shades else colour
