"""What an address names and is not here: it is said on the page, with an offer to train it again."""

from __future__ import annotations

from collections.abc import Callable

import panel_material_ui as pmui

from . import text
from .link import settings_of
from .parts import Html
from .settings import AdaptSettings
from .state import ExploreState


class GoneView:
    """A notice and a button.

    Args:
        state: of the page.
        left_out: what of the address made no sense; it is told until something is chosen in its place.
        problems: what else is wrong, such as files that could not be read.
        train: trains what is gone.
    """

    def __init__(
        self, state: ExploreState, left_out: list[str], problems: list[str], train: Callable[[AdaptSettings], None]
    ):
        self.state, self._problems, self._train = state, problems, train
        self.notice = Html()
        self.again = pmui.Button(label="Train it again", size="small", variant="outlined", icon="replay")
        self.again.on_click(lambda _: self.train_again())
        state.param.watch(self._changed, "gone")
        self._tell([*left_out, *problems])
        self._offer()

    def train_again(self) -> None:
        """Train what the address names, where it names it well."""
        if settings := self._asked():
            self._train(settings)

    def _changed(self, event) -> None:
        if not event.new:
            self._tell(self._problems)
        self._offer()

    def _tell(self, problems: list[str]) -> None:
        self.notice.object = text.message("; ".join(problems)) if problems else ""

    def _offer(self) -> None:
        self.again.visible = self.state.bundle is not None and self._asked() is not None

    def _asked(self) -> AdaptSettings | None:
        try:
            return settings_of(self.state, self.state.gone["result"])
        except (KeyError, ValueError):
            return None
