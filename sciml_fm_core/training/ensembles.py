"""Ensembles: operators that are pre-trained alike, each from random weights of its own."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from sciml_fm_core.files import user_path
from sciml_fm_core.models.ensemble import Ensemble
from sciml_fm_core.models.operator import Operator
from sciml_fm_core.physics.tasks import Task
from sciml_fm_core.schema import takes_numpy

from .config import TrainConfig
from .transfer import pretrain


@takes_numpy
def pretrain_ensemble(
    tasks: Sequence[Task],
    config: TrainConfig | None = None,
    *,
    members: int = 4,
    seed: int = 0,
    folder: str | Path | None = None,
    **options,
) -> Ensemble:
    """A deep ensemble (arXiv:1612.01474): operators pre-trained alike, each from its own random weights and examples.

    >>> ensemble = pretrain_ensemble([Task.parse("SYS-1(1,5)")], TrainConfig(steps=1), members=2, size="64K",
    ...                              resolution=32, batch_size=2, validation_count=2)
    >>> ensemble.card["seeds"], ensemble.card["steps"]
    ([0, 1], 1)

    Args:
        tasks, config: as in `pretrain`.
        members: how many, with seeds from ``seed`` on.
        seed: of the first.
        folder: where each member keeps a checkpoint, by its seed, so that the training resumes.
        options: as in `pretrain`, but for ``checkpoint``.

    Raises:
        ValueError: as `pretrain`, or with fewer than two members.
    """
    if members < 2:
        raise ValueError(f"ensemble: expected two members or more, got {members}; use pretrain for one")
    trained = []
    for number in range(seed, seed + members):
        checkpoint = None if folder is None else user_path(folder) / f"{number}.checkpoint"
        trained.append(pretrain(tasks, config, seed=number, checkpoint=checkpoint, **options)[0])
    return ensemble_of(trained)


def ensemble_of(operators: Sequence[Operator], **card) -> Ensemble:
    """Operators that were pre-trained apart as an ensemble, with a card from theirs; curves are left out."""
    cards = [operator.card for operator in operators]
    first = cards[0]
    common = (
        "tasks",
        "recipe",
        "architecture",
        "size",
        "batch_size",
        "resolution",
        "learning_rate",
        "loss",
        "hardware",
    )
    made = {key: first[key] for key in common if key in first}
    seen = first.get("examples_seen", 0)
    made |= {
        "kind": "deep ensemble",
        "members": len(operators),
        "seeds": [own.get("seed") for own in cards],
        "steps": seen // first["batch_size"] if first.get("batch_size") else None,
        "examples_seen": seen,
        "seconds": round(sum(own.get("seconds", 0) for own in cards), 1),
        "best_validation_errors": [own.get("best_validation_error") for own in cards],
        "versions": first.get("versions"),
    }
    for operator in operators:
        operator.card = {key: value for key, value in operator.card.items() if key not in ("curve", "errors")}
    return Ensemble(operators, made | card)
