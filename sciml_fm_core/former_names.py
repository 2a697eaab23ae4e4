"""Names that earlier versions wrote into files: what they made stays readable, under the names of today."""

from __future__ import annotations

from typing import Any

RECIPES = {"ours": "dimensionless"}
"""Recipe of today by its former name."""


def with_recipe_of_today(values: dict[str, Any]) -> dict[str, Any]:
    """A card or record whose recipe, if it has a former name, is called as today.

    >>> with_recipe_of_today({"recipe": "ours", "size": "1M"})
    {'recipe': 'dimensionless', 'size': '1M'}
    """
    recipe = values.get("recipe")
    return values | {"recipe": RECIPES[recipe]} if isinstance(recipe, str) and recipe in RECIPES else values


def as_first_named(recipe: str) -> str:
    """The first name of a recipe, by which runs are identified whatever it is called today."""
    return next((former for former, today in RECIPES.items() if today == recipe), recipe)
