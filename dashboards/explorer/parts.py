"""What the views of both pages are made of."""

from __future__ import annotations

from functools import partial

import panel as pn

WIDE = {"sizing_mode": "stretch_width", "margin": 0}
Html = partial(pn.pane.HTML, sizing_mode="stretch_width", margin=(0, 10))

ARROW = "select { appearance: auto !important; background-image: none !important }"


class Select(pn.widgets.Select):
    """A menu that the keyboard can open; it has the browser's arrow, as Panel's cannot be seen on a dark page."""

    def __init__(self, **options):
        super().__init__(**{"stylesheets": [ARROW]} | options)


NAMELESS = ".bk-spin-btn { display: none !important }"
NumberInput = partial(pn.widgets.FloatInput, stylesheets=[NAMELESS])
"""An input without Panel's buttons, which have no name for a screen reader; the arrow keys do what those do."""


class WholeInput(pn.widgets.IntInput):
    """The same for whole numbers; a field that is empty while one types changes nothing."""

    def __init__(self, **options):
        super().__init__(**{"stylesheets": [NAMELESS]} | options)

    def _process_property_change(self, msg: dict) -> dict:
        return super()._process_property_change({k: v for k, v in msg.items() if k != "value" or v is not None})


def column(*parts, share: str = "1 1 0", margin=0) -> pn.Column:
    """Parts below each other, in a share of a row's width."""
    # Bokeh allows no more than the height of the window, and what is higher would lie over what follows it.
    styles = {"flex": share, "min-width": "0", "max-height": "none"}
    return pn.Column(*parts, sizing_mode="stretch_width", margin=margin, styles=styles)


def show(pane: pn.pane.HTML, html: str) -> None:
    """Change a pane where it changes: what is the same is not sent to the browser again."""
    if pane.object != html:
        pane.object = html


def plain(fig) -> None:
    """A Bokeh figure without a ground of its own: it follows the theme of the page."""
    fig.border_fill_alpha = fig.background_fill_alpha = 0
    fig.toolbar.logo, fig.toolbar.autohide = None, True
    fig.grid.grid_line_alpha = 0.3
    for legend in fig.legend:
        legend.background_fill_alpha = legend.border_line_alpha = 0
        legend.padding = legend.margin = 2
