"""What a picture shows, in a sentence that is computed from the records that it draws."""

from __future__ import annotations

from collections.abc import Iterable
from statistics import median

from explorer.text import percent
from sciml_fm_core.study.analysis import median_errors, savings, select

from .charts import Picture
from .records import operator_of


def said(picture: Picture) -> str:
    """Compare fine-tuning with training from scratch at equal examples, or name the lowest error of all, or both.

    A comparison is of one pre-trained operator on one task, by medians over seeds; the number of seeds is told with it.
    """
    groups: dict[tuple, list[dict]] = {}
    for record in picture.records.values():
        groups.setdefault((operator_of(record), record["task"], record.get("own")), []).append(record)
    pairs = [own for own in groups.values() if all(_by_start(own))]
    compared = _compared(pairs)
    curves = {(chart.title, chart.label(record)) for chart in picture.charts for record in chart.records}
    return " ".join([compared] * bool(compared) + [_lowest(picture)] * (len(curves) > 2 or not compared))


def _by_start(records: list[dict]) -> tuple[dict[int, list[float]], ...]:
    """Errors by number of examples, of the fine-tuned operator and from scratch; without what has no examples."""
    return tuple(
        {n: [r["error"] for r in select(own, examples=n)] for n in median_errors(own) if n}
        for own in (select(records, start=start) for start in ("fine-tuned", "from scratch"))
    )


def _compared(pairs: list[list[dict]]) -> str:
    starts = [_by_start(own) for own in pairs]
    counts = sorted(set.intersection(*(tuned.keys() & scratch.keys() for tuned, scratch in starts))) if pairs else []
    if not counts:
        return ""
    most, few = counts[-1], counts[(len(counts) - 1) // 2]
    errors = [(tuned[most], scratch[most]) for tuned, scratch in starts]
    saved = [saving for own in pairs for saving in savings(own) if saving.examples == few < most]
    least = "at least " if any(saving.beyond for saving in saved) else ""
    steps = [{record.get("steps") for record in select(own, examples=most)} for own in pairs]
    equal = " in equal steps" if all(len(one) == 1 for one in steps) else ""
    taken = (
        f". To reach the error that fine-tuning has with {few:,}, it takes {least}"
        f"{_ends(saving.from_scratch / saving.examples for saving in saved)} times as many examples"
        if saved
        else ""
    )
    return (
        f"With {most:,} examples{equal}, training from scratch has "
        f"{_ends(median(b) / median(a) for a, b in errors)} times the error of fine-tuning{taken} "
        f"({_hedge([len(own) for pair in errors for own in pair], [max(a) >= min(b) for a, b in errors])})."
    )


def _ends(values: Iterable[float]) -> str:
    ends = sorted({f"{value:.2g}": value for value in values}.items(), key=lambda one: one[1])
    return " to ".join(dict.fromkeys([ends[0][0], ends[-1][0]]))


def _hedge(seeds: list[int], overlap: list[bool]) -> str:
    """How many seeds stand behind a comparison of medians, and whether their ranges overlap."""
    many = f"{len(overlap)} comparisons, " if len(overlap) > 1 else ""
    if max(seeds) == 1:
        return f"{many}one seed each: small differences may be chance"
    few = f"{many}medians of {' to '.join(dict.fromkeys([str(min(seeds)), str(max(seeds))]))} seeds"
    if min(seeds) == 1:
        return f"{few}: small differences may be chance"
    return few + (f", whose ranges overlap in {sum(overlap)}" if any(overlap) else ", whose ranges do not overlap")


def _lowest(picture: Picture) -> str:
    names = {r["identity"]: chart.full_name(r) for chart in picture.charts for r in chart.records}
    errors: dict[tuple[str, int], list[float]] = {}
    for record in picture.records.values():
        errors.setdefault((names[record["identity"]], record["examples"]), []).append(record["error"])
    (name, count), lowest = min(errors.items(), key=lambda item: median(item[1]))
    given = f"{name}, with {count:,} examples" if count else name
    return f"The lowest error is {percent(median(lowest), 2)}: {given}."
