"""Recipes: how an operator is built and trained."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from sciml_fm_core.models.operator import Operator

PAPER_LEARNING_RATES = (1e-5, 5e-5, 1e-4, 5e-4, 1e-3)
"""The paper's grid; one is chosen on validation for every model, dataset size and start."""

HALVE_AT = (0.15, 0.4)
"""Where a grid is halved: five rates cost as many steps as 2.6 trained to the end."""


@dataclass(frozen=True)
class Recipe:
    """How an operator is built and trained."""

    normalization: str
    gate_width: int
    loss: str
    learning_rate: float
    batch_size: int
    warmup: int = 0


RECIPES = {
    "ours": Recipe("dimensionless", 128, "relative", 5e-3, 32, warmup=20),
    "paper": Recipe("paper", 0, "squared", 1e-3, 128),
}
"""``paper`` reproduces the study; ``ours`` is what ships: scale-free inputs, bounded gates, relative loss."""


def recipe_of(operator: Operator) -> Recipe:
    """The recipe an operator was made by; ours where its card names none that is known."""
    return RECIPES.get(operator.card.get("recipe", ""), RECIPES["ours"])


def _choose(what: str, table: Mapping, name: str):
    if name not in table:
        raise ValueError(f"{what}: expected one of {', '.join(table)}, got {name!r}")
    return table[name]


def recipe_settings(recipe: str) -> dict:
    """The fields of `TrainConfig` that a recipe sets."""
    chosen = _choose("recipe", RECIPES, recipe)
    return {"loss": chosen.loss, "learning_rate": chosen.learning_rate, "warmup": chosen.warmup}
