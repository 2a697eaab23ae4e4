"""What scores that foresee errors are drawn as: curves of what they find, and points by their names."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from torch import Tensor

from sciml_fm_core.study.colours import colours_of
from sciml_fm_core.study.figures import COLUMN, GREY, Drawing, Name, Panel

if TYPE_CHECKING:
    from matplotlib.axes import Axes


def roc_curves(curves: Mapping[str, tuple[Tensor, Tensor]], title: str = "") -> Drawing:
    """Cases found against false alarms, a curve by name of each pair that `experiments.ranks.roc_curve` gives.

    On the dotted line a score tells nothing.
    """

    def draw(axes: Axes) -> None:
        for (name, (false, true)), colour in zip(curves.items(), colours_of(curves).values(), strict=True):
            axes.plot(false.numpy(), true.numpy(), color=colour, label=name)
        axes.plot([0, 1], [0, 1], ":", color=GREY)
        axes.set(title=title, xlim=(-0.02, 1.02), ylim=(-0.02, 1.02), aspect="equal")
        axes.set(xlabel="share of the others flagged", ylabel="share of the large errors flagged")
        axes.legend(loc="lower right")

    return Drawing((Panel(draw, (), 3.2),), COLUMN)


def score_points(
    rows: Sequence[tuple[str, str, float]],
    axis: str,
    title: str = "",
    *,
    levels: Sequence[float] = (),
    groups: Sequence[str] = (),
) -> Drawing:
    """Numbers by name, as (name, group, value): a line of points for each name, coloured by group.

    Dotted lines mark levels. Panels beside each other are given all groups of them together, to have the same colours.
    """
    names = list(dict.fromkeys(name for name, _, _ in rows))[::-1]
    at = {name: float(number) for number, name in enumerate(names)}
    groups = groups or list(dict.fromkeys(group for _, group, _ in rows))

    colours = colours_of(groups)

    def draw(axes: Axes) -> None:
        for number, (group, colour) in enumerate(colours.items()):
            apart = 0.18 * ((len(groups) - 1) / 2 - number)
            own = [(value, at[name] + apart) for name, mine, value in rows if mine == group]
            axes.plot(*(zip(*own, strict=True) if own else ([], [])), "o", color=colour)
        for level in levels:
            axes.axvline(level, color=GREY, linestyle=":", linewidth=1)
        axes.set_yticks(list(at.values()), names)
        axes.set(title=title, xlabel=axis, ylim=(-0.6, len(names) - 0.4))

    shown = (
        Name(group, len(names) - number / 2, colour, "", "o") for number, (group, colour) in enumerate(colours.items())
    )
    return Drawing((Panel(draw, tuple(shown), 0.7 + 0.24 * len(names)),))
