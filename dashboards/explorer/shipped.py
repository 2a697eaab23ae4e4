"""Fine-tunings that ship, with their twins from scratch: results that are there before anybody has trained anything."""

from __future__ import annotations

from functools import partial

import panel as pn

from sciml_fm_core.models.operator import load_operator, read_header, shipped_adaptations
from sciml_fm_core.physics.tasks import Task

from .settings import Adapted, AdaptSettings

KEYS = {"fine-tuned": "fine_tuned", "from scratch": "from_scratch"}
"""Key of `PREDICTIONS` by the kind that a card names."""


def shipped_results() -> dict[tuple[str, str], dict[tuple, Adapted]]:
    """Results by (system, operator) and by key, as `ExploreState.kept` has them; weights are loaded when asked for."""
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
