"""Ensembles: headers, tensors and bytes that are not as they were written."""

from __future__ import annotations

import random
from functools import cache
from pathlib import Path

from sciml_fm_core.models.ensemble import Ensemble, load_ensemble

from .bundles import changed, compared, predicted, small_operator
from .bundles import prepare as prepare

NAME = "ensembles"


@cache
def _ensemble() -> Ensemble:
    return Ensemble([small_operator(seed=seed) for seed in range(3)], {"tasks": ["SYS-1(1,5)"], "seeds": [0, 1, 2]})


def attack(seed: int, folder: Path) -> str | None:
    """Load a changed ensemble and predict."""
    rng, path = random.Random(seed), folder / "own.safetensors"
    _ensemble().save(path, packed=rng.random() < 0.3)
    expected = predicted(load_ensemble(path)).mean
    same = changed(path, rng)
    return compared(lambda: predicted(load_ensemble(path)).mean, expected, same)
