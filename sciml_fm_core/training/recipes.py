"""Recipes to build and train an operator."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from sciml_fm_core.models.operator import Operator
from sciml_fm_core.schema import look_up

from .config import TrainConfig

LEARNING_RATES = (1e-4, 3e-4, 1e-3, 3e-3, 1e-2)
"""The grid of this project. From scratch its highest rate is chosen most often (docs/results.md counts them)."""
PAPER_LEARNING_RATES = (1e-5, 5e-5, 1e-4, 5e-4, 1e-3)
"""The paper's grid; one is chosen on validation for every model, dataset size and start."""


@dataclass(frozen=True)
class Recipe:
    """Recipe to build and train an operator.

    Attributes:
        normalization: kind of the normalisation, see `models.normalization`.
        gate_width: hidden width of the network that modulates hidden channels by the scalars; 0 for none.
        loss, learning_rate, warmup, composed: what `TrainConfig` leaves open.
        batch_size: examples in a batch.
        options: what the normalisation is built with beside the systems.
    """

    normalization: str
    gate_width: int
    loss: str
    learning_rate: float
    batch_size: int
    warmup: int = 0
    composed: float = 0.0
    options: Mapping[str, Any] = field(default_factory=dict)


RECIPES = {
    "dimensionless": Recipe("dimensionless", 128, "relative", 5e-3, 32, warmup=20),
    "symbol": Recipe("symbol", 0, "relative", 4e-3, 32, warmup=20),
    "paper": Recipe("paper", 0, "squared", 1e-3, 128),
    "symbol-composed": Recipe("symbol", 0, "relative", 4e-3, 32, warmup=20, composed=0.5),
    "fields": Recipe("fields", 128, "relative", 3e-3, 32, warmup=20),
    "correction": Recipe("correction", 0, "relative", 1.5e-3, 16, warmup=50),
    "step": Recipe("step", 0, "relative", 4e-3, 24, warmup=50),
    "step-residual": Recipe("step", 0, "relative", 4e-3, 24, warmup=50, options={"form": "residual", "stages": 0}),
}
"""``paper`` reproduces the study; ``dimensionless`` is conditioned on the coefficients as scale-free numbers, through
bounded gates; ``symbol`` on the equation, mode by mode, and takes equations that it was never trained on; for
``symbol-composed`` half of them are followed by another operator in pre-training, so that it knows the symbols of flows
and of waves near a resonance without having seen one; ``fields`` asks for no equation, and takes several fields;
``correction`` corrects a solver's first iterate where coefficients are fields; ``step`` takes a step of an evolution,
told its multiplier and where it pushes, and takes evolutions that it was never trained on; ``step-residual`` is told
the multiplier alone, and adds to the state itself: what most networks for roll-outs do."""


def recipe_of(operator: Operator) -> Recipe:
    """Look up the recipe that an operator was made by; `dimensionless` where its card names none.

    Raises:
        ValueError: if it names one that is not known.
    """
    return find_recipe(operator.card.get("recipe") or "dimensionless")


def completed(config: TrainConfig | None, operator: Operator) -> TrainConfig:
    """Complete a configuration by the architecture of an operator, and else by its recipe."""
    config = (config or TrainConfig()).completed(learning_rate=operator.model.learning_rate)
    recipe = recipe_of(operator)
    return config.completed(**{name: getattr(recipe, name) for name in ("loss", "learning_rate", "warmup", "composed")})


def find_recipe(name: str) -> Recipe:
    """Look up a recipe by its name; ValueError if there is none."""
    return look_up("recipe", name, RECIPES)
