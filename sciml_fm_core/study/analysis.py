"""What records show: medians over seeds, examples saved, examples to an error, and tables of them."""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any


def select(records: Sequence[dict], **values: Any) -> list[dict]:
    """Choose the records with these values.

    >>> select([{"examples": 8, "error": 0.1}, {"examples": 64, "error": 0.02}], examples=64)
    [{'examples': 64, 'error': 0.02}]
    """
    return [record for record in records if all(record[key] == value for key, value in values.items())]


def error_of(records: Sequence[dict], **values: Any) -> float:
    """The error of the one record with these values, or the median where several differ in their seed.

    Raises:
        ValueError: if there is none, or several of one seed.
    """
    found = select(records, **values)
    if not found or (len(found) > 1 and len({record["seed"] for record in found}) < len(found)):
        raise ValueError(f"records: expected one of each seed with {values}, got {len(found)}")
    return statistics.median(record["error"] for record in found)


def median_errors(records: Sequence[dict]) -> dict[int, float]:
    """Median error over the seeds at each number of examples, in rising order.

    >>> median_errors([{"examples": 64, "error": 0.02}, {"examples": 8, "error": 0.1}, {"examples": 8, "error": 0.3}])
    {8: 0.2, 64: 0.02}
    """
    errors: dict[int, list[float]] = {}
    for record in records:
        errors.setdefault(record["examples"], []).append(record["error"])
    return {count: statistics.median(errors[count]) for count in sorted(errors)}


Form = Callable[[float], str]
"""How a table writes a number."""


def percent(value: float) -> str:
    """Write a share in percent, with two significant digits.

    >>> percent(0.0123), percent(1.234)
    ('1.2 %', '123 %')
    """
    return f"{100 * value:.2g} %" if value < 0.995 else f"{100 * value:.0f} %"


def spread(values: Sequence[float], form: Form = percent) -> str:
    """Write the median, with the lowest and the highest where they differ as written; empty where there is none.

    >>> spread([0.01, 0.02, 0.04]), spread([0.01])
    ('2 % (1 % to 4 %)', '1 %')
    """
    if not values:
        return ""
    low, high = form(min(values)), form(max(values))
    return form(statistics.median(values)) + (f" ({low} to {high})" if low != high else "")


def verdict_sentences(
    verdicts: Sequence[tuple[str, bool]],
    words: tuple[str, str] = ("This run bears out", "This run contradicts"),
    of: str = "",
) -> list[str]:
    """Say which statements hold and which do not, a sentence of Markdown for each kind.

    >>> verdict_sentences([("it is better", True)], of="the claim")
    ['**This run bears out**, of the claim: it is better.', '**This run contradicts**, of the claim: nothing.']
    """
    parts = ("; ".join(part for part, holds in verdicts if holds is wanted) for wanted in (True, False))
    claim = f", of {of}" if of else ""
    return [f"**{said}**{claim}: {part or 'nothing'}." for said, part in zip(words, parts, strict=True)]


def table(header: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    """A table in Markdown."""
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join("| " + " | ".join(map(str, line)) + " |" for line in lines)


@dataclass(frozen=True)
class Saving:
    """What fine-tuning saves at one point: the examples that training from scratch takes for the same error.

    Attributes:
        examples: downstream examples of the fine-tuned operator.
        error: its error.
        from_scratch: examples from scratch, interpolated on logarithmic axes; the most that were tried if ``beyond``.
        beyond: whether it is better than every operator trained from scratch.
    """

    examples: int
    error: float
    from_scratch: float
    beyond: bool


def savings(records: Sequence[dict]) -> list[Saving]:
    """`Saving` of each fine-tuned point (Figure B.1), from the records of one curve of each start, medians over seeds.

    The curve from scratch is made monotone first: with more examples it counts as no worse than with fewer.

    Raises:
        ValueError: if either start is missing.
    """
    scratch = median_errors([r for r in records if r["start"] == "from scratch" and r["examples"]])
    tuned = median_errors([r for r in records if r["start"] == "fine-tuned"])
    if not scratch or not tuned:
        raise ValueError("savings: expected records of both starts, fine-tuned and from scratch")
    counts = list(scratch)
    errors = [min(scratch[count] for count in counts[: i + 1]) for i in range(len(counts))]
    found = []
    for examples, error in tuned.items():
        beyond = error < errors[-1]
        if beyond or error >= errors[0]:
            needed = float(counts[-1] if beyond else counts[0])
        else:
            i = next(i for i, reached in enumerate(errors) if reached <= error)
            needed = _between((counts[i - 1], errors[i - 1]), (counts[i], errors[i]), error)
        found.append(Saving(examples, error, needed, beyond))
    return found


def examples_to_reach(records: Sequence[dict], error: float) -> float | None:
    """Examples at which the curve of medians first reaches an error, interpolated on logarithmic axes, or None.

    Zero where it is reached without any.
    """
    points = list(median_errors(records).items())
    for i, (count, reached) in enumerate(points):
        if reached <= error:
            return _between(points[i - 1], (count, reached), error) if i else float(count)
    return None


def _between(before: tuple[float, float], after: tuple[float, float], error: float) -> float:
    """Examples at which a line between two points, examples and error, on logarithmic axes comes to an error.

    Those of the point after where one of them is not on such axes: no examples, no error, or an infinite one.
    """
    (fewer, worse), (count, reached) = before, after
    if not (fewer and reached and math.isfinite(worse)):
        return float(count)
    return fewer * (count / fewer) ** (math.log(worse / error) / math.log(worse / reached))
