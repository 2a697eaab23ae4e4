"""Names that earlier versions wrote into files: what they made stays readable, under the names of today."""

from __future__ import annotations

from typing import Any

RECIPES = {"ours": "dimensionless"}
"""Recipe of today by its former name."""
FORMER_DIGESTS = {"sys-1": "ffeedd4821a1bd45", "sys-2": "6a7692c5be352978", "sys-3": "38c9448bc98bdfd6"}
"""By which packed bundles of earlier versions know the operators that they are the difference to."""


def with_recipe_of_today(values: dict[str, Any]) -> dict[str, Any]:
    """A card or record whose recipe, if it has a former name, is called as today.

    >>> with_recipe_of_today({"recipe": "ours", "size": "1M"})
    {'recipe': 'dimensionless', 'size': '1M'}
    """
    recipe = values.get("recipe")
    return values | {"recipe": RECIPES[recipe]} if isinstance(recipe, str) and recipe in RECIPES else values
