"""The predictions that the page shows beside the exact solution: everything about each of them is its entry here."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from sciml_fm_core.models.operator import Operator
from sciml_fm_core.training.transfer import Adaptation, fine_tune, train_from_scratch

from .colours import COLOURS

if TYPE_CHECKING:
    from .state import ExploreState

Load = Callable[[], Operator]


@dataclass(frozen=True)
class Predictor:
    """One prediction of the page.

    Attributes:
        key: its name in frames, curves and results.
        name: for a reader.
        color: of its title and curves.
        dash: of its line in the cut.
        loader: from the state of the page, a function that gives its operator, or None where there is none.
        train: how a fine-tuning job makes its operator, called as `fine_tune`; None where no job does.
        unlabelled: whether `train` can do without labels, by ``unlabelled=task``.
        stage: what the page says meanwhile.
        adapted: its operator changes with the result of a fine-tuning that is shown.
        about: what it is, in a sentence.
    """

    key: str
    name: str
    color: str
    dash: str
    loader: Callable[[ExploreState], Load | None]
    train: Callable[..., Adaptation] | None = None
    unlabelled: bool = False
    stage: str = ""
    adapted: bool = True
    about: str = ""


def _kept(key: str) -> Callable[[ExploreState], Load | None]:
    """Loader of an operator that a job has made: the one in training now, or that of the result shown."""

    def loader(state: ExploreState) -> Load | None:
        made = state.live or (state.current.operators if state.current else {})
        found = made.get(key)
        return (lambda: found) if isinstance(found, Operator) else found

    return loader


_ENTRIES = (
    Predictor(
        key="zero_shot",
        name="Zero-shot",
        color=COLOURS["pretrained"],
        dash="solid",
        loader=lambda state: state.loader() if state.bundle else None,
        adapted=False,
        about="The network as it was pre-trained, without any further example.",
    ),
    Predictor(
        key="fine_tuned",
        name="Fine-tuned",
        color=COLOURS["finetuned"],
        dash="dashed",
        loader=_kept("fine_tuned"),
        train=fine_tune,
        unlabelled=True,
        stage="fine-tuning",
        about="The pre-trained network, trained further on a few examples of the physics between the brackets.",
    ),
    Predictor(
        key="from_scratch",
        name="From scratch",
        color=COLOURS["scratch"],
        dash="dotted",
        loader=_kept("from_scratch"),
        train=train_from_scratch,
        stage="training from scratch",
        about="The same network, trained on the same few examples alone, from random weights.",
    ),
)
PREDICTIONS: dict[str, Predictor] = {entry.key: entry for entry in _ENTRIES}
"""The predictions by key, in the order of the page."""
