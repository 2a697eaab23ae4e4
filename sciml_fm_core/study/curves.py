"""What is drawn of the records of a study, without any display: curves with their spread over seeds, and dials."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from sciml_fm_core.data.splits import draw_split
from sciml_fm_core.physics.tasks import Task

from .analysis import savings
from .colours import MEANING, OTHERS, colours_of, without_examples


@dataclass(frozen=True)
class Curve:
    """Records of one name, by their examples.

    Attributes:
        name, colour: of the curve.
        dashed: whether all of it was trained from scratch.
        records: of the curve.
    """

    name: str
    colour: str
    dashed: bool
    records: tuple[dict, ...]

    @cached_property
    def spread(self) -> dict[int, tuple[float, float, float]]:
        """Low, median and high error by examples: quartiles over the seeds, extremes of fewer than four."""
        found: dict[int, tuple[float, float, float]] = {}
        for count in sorted({record["examples"] for record in self.records}):
            errors = [record["error"] for record in self.records if record["examples"] == count]
            low, high = (0.25, 0.75) if len(errors) >= 4 else (0, 1)
            with np.errstate(invalid="ignore"):  # between two that are infinite
                quantiles = np.nan_to_num(np.quantile(errors, (low, 0.5, high)), nan=np.inf, posinf=np.inf).tolist()
            found[count] = (quantiles[0], quantiles[1], quantiles[2])
        return found

    @property
    def counts(self) -> list[int]:
        """The numbers of examples but for 0; without any the curve is a star alone."""
        return [count for count in self.spread if count]

    @property
    def star(self) -> str:
        """The colour of what has seen no example."""
        return without_examples(self.colour)

    @property
    def end(self) -> float:
        """The median error with the most examples."""
        return list(self.spread.values())[-1][1]


def curves_of(
    records: Sequence[dict],
    label: Callable[[dict], str],
    colour: Callable[[dict], str] | None = None,
    among: Sequence[dict] = (),
) -> list[Curve]:
    """The curves of records by their labels; they share a colour where `colour` says the same of them.

    Panels beside each other are given all of their records as `among`, so that colours mean the same in each.
    """
    same = colour or label
    colours = colours_of(map(same, among or records))
    found: dict[str, list[dict]] = {}
    for record in records:
        found.setdefault(label(record), []).append(record)
    return [
        Curve(name, colours[same(own[0])], all(r["start"] == "from scratch" for r in own), tuple(own))
        for name, own in found.items()
    ]


def example_axis(records: Iterable[dict], more: Iterable[int] = ()) -> list[int]:
    """Numbers of examples where a logarithmic axis has ticks; 0 is drawn at half of the first.

    >>> example_axis([{"examples": 0}, {"examples": 64}, {"examples": 8}], [512])
    [8, 64, 512]
    """
    return sorted({*(record["examples"] for record in records), *more} - {0}) or [1]


def error_range(errors: Iterable[float]) -> tuple[float, float]:
    """Ends of a logarithmic axis of errors, of which none and an infinite one have no place there."""
    found = [error for error in errors if 0 < error < math.inf] or [1.0]
    return min(found) / 1.4, max(found) * 1.4


def round_ticks(low: float, high: float) -> list[float]:
    """Values at which a logarithmic axis is labelled: 1, 2 and 5 in each power of ten, 1 alone on a long axis.

    >>> round_ticks(0.004, 0.03)
    [0.005, 0.01, 0.02]
    """
    for digits in ((1,), (1, 2, 5)) if high / low >= 300 else ((1, 2, 5), (1, 2, 3, 4, 5, 7)):
        values = [float(f"{digit}e{power}") for power in range(-8, 9) for digit in digits]
        if len(found := [value for value in values if low <= value <= high]) > 1:
            return found
    return [float(f"{math.sqrt(low * high):.2g}")]


@dataclass(frozen=True)
class Row:
    """How the dial of a task is distributed: shares between edges, the largest of which is 1."""

    label: str
    colour: str
    edges: np.ndarray
    shares: np.ndarray


def dial_rows(pretraining: str, downstream: Sequence[str], count: int = 2000) -> list[Row]:
    """How the dial is distributed in pre-training and downstream, as measured on drawn examples.

    A dial of whole numbers has a bar for each. What a sampler leaves out is seen as a gap.
    """
    tasks = [Task.parse(label) for label in (pretraining, *downstream)]
    length = max(task.high for task in tasks) - min(task.low for task in tasks) or 1.0
    alone = MEANING["fine-tuned"] if len(downstream) == 1 else OTHERS
    colours, rows = [MEANING["zero-shot"][0], *(alone[n % len(alone)] for n in range(len(downstream)))], []
    for task, colour in zip(tasks, colours, strict=True):
        edges = np.linspace(task.low, task.high, 2 + round(30 * (task.high - task.low) / length))
        if task.system.dialled.whole:
            edges = np.arange(task.low - 0.5, task.high + 1)
        elif task.low == task.high:
            edges = np.array([task.low - length / 60, task.low + length / 60])
        shares, _ = np.histogram(draw_split(task, "train", count, resolution=16).dial.double(), edges)
        rows.append(Row(task.label, colour, edges, shares / max(1, shares.max())))
    return rows


@dataclass(frozen=True)
class SavedCurve:
    """Examples of fine-tuned operators and those from scratch for the same error; `beyond` are more than were tried."""

    name: str
    colour: str
    points: list[tuple[float, float]]
    beyond: list[tuple[float, float]]


def saved_curves(records: Sequence[dict], label: Callable[[dict], str]) -> list[SavedCurve]:
    """`savings` by label; the curves stand a little apart, so that none hides another."""
    found, colours = [], colours_of(map(label, records))
    for number, (name, colour) in enumerate(colours.items()):
        apart = 1.15 ** (number + 1 - len(colours))  # to the left: right of the line would be a loss
        own = [s for s in savings([record for record in records if label(record) == name]) if s.examples]
        points = [(apart * s.examples, s.from_scratch) for s in own]
        found.append(
            SavedCurve(name, colour, points, [point for point, s in zip(points, own, strict=True) if s.beyond])
        )
    return found
