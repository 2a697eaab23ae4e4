"""Operators that all sessions share: those that were pre-trained, ensembles, and the fine-tunings that ship."""

from __future__ import annotations

from functools import partial

import panel as pn

from sciml_fm_core.experiments.uncertainty.ensemble import Ensemble, load_ensemble, shipped_ensembles
from sciml_fm_core.models.operator import Operator, load_operator, read_header, shipped_adaptations
from sciml_fm_core.physics.tasks import Task

from .bundles import Bundle
from .settings import Adapted, AdaptSettings

KEYS = {"fine-tuned": "fine_tuned", "from scratch": "from_scratch"}
"""Key of `PREDICTIONS` by the kind that a card names."""


def shared_operator(bundle: Bundle) -> Operator:
    """Load the weights of a bundle, once for all sessions; they are never changed."""
    return pn.state.as_cached(f"operator {bundle.version}", load_operator, name_or_path=str(bundle.path))


def shared_ensemble(name: str) -> Ensemble:
    """Load a shipped ensemble, once for all sessions; it is never changed."""
    return pn.state.as_cached(f"ensemble {name}", load_ensemble, name_or_path=shipped_ensembles()[name])


def shipped_results() -> dict[tuple[str, str], dict[tuple, Adapted]]:
    """List the fine-tunings that ship, each with its twin from scratch: results that are there before any training.

    By (system, operator) and by key, as `ExploreState.kept` has them; weights are loaded when asked for.
    """
    found: dict[tuple[str, str], dict[tuple, Adapted]] = {}
    for name, path in shipped_adaptations().items():
        card = read_header(path).card
        task, kind = Task.parse(card["downstream_task"]), KEYS[card["kind"]]
        settings = AdaptSettings(task, card["downstream_examples"], card["steps"], None)
        own = found.setdefault((task.system.name, card["adapted_from"]), {})
        result = own.setdefault(settings.key, Adapted(settings, {}, {}, {}, 0.0))
        result.operators[kind] = partial(pn.state.as_cached, f"adapted {name}", load_operator, name_or_path=path)
        result.names[kind] = name
        result.learning_rates[kind] = card["learning_rate"]
        result.errors[kind] = card["errors"][task.label]
    return {owner: dict(sorted(results.items())) for owner, results in found.items()}
