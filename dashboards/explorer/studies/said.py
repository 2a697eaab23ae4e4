"""What a picture shows, in a sentence that is computed from the records that it draws."""

from __future__ import annotations

from statistics import median

from explorer.text import percent
from sciml_fm_core.study.analysis import median_errors, savings, select

from .charts import Picture
from .records import operator_of


def said(picture: Picture) -> str:
    """Compare fine-tuning with training from scratch at equal examples, and name the lowest error of all curves.

    A comparison is of one pre-trained operator on one task, by medians over seeds; the number of seeds is told with it.
    """
    groups: dict[tuple, list[dict]] = {}
    for record in picture.records.values():
        groups.setdefault((operator_of(record), record["task"], record.get("own")), []).append(record)
    pairs = [starts for own in groups.values() if all(starts := _by_start(own))]
    counts = sorted(set.intersection(*(tuned.keys() & scratch.keys() for tuned, scratch in pairs))) if pairs else []
    return " ".join(filter(None, [_compared(pairs, counts), _saved(groups, counts), _lowest(picture)]))


def _by_start(records: list[dict]) -> tuple[dict[int, list[float]], ...]:
    """Errors by number of examples, of the fine-tuned operator and from scratch; without what has no examples."""
    return tuple(
        {n: [r["error"] for r in select(own, examples=n)] for n in median_errors(own) if n}
        for own in (select(records, start=start) for start in ("fine-tuned", "from scratch"))
    )


def _compared(pairs: list, counts: list[int]) -> str:
    if not counts:
        return ""
    most = counts[-1]
    errors = [(tuned[most], scratch[most]) for tuned, scratch in pairs]
    factors = sorted(median(scratch) / median(tuned) for tuned, scratch in errors)
    hedge = _hedge([len(own) for pair in errors for own in pair], [max(a) >= min(b) for a, b in errors])
    if len(errors) == 1:
        ((tuned, scratch),) = errors
        return (
            f"With {most:,} examples the error is {percent(median(tuned), 2)} fine-tuned and "
            f"{percent(median(scratch), 2)} from scratch ({hedge})."
        )
    ahead = sum(factor > 1 for factor in factors)
    return (
        f"With {most:,} examples fine-tuning has the lower error in {ahead} of {len(errors)} comparisons; from scratch it "
        f"is {factors[0]:.2g} to {factors[-1]:.2g} times as large ({hedge})."
    )


def _hedge(seeds: list[int], overlap: list[bool]) -> str:
    if max(seeds) == 1:
        return "one seed each, so that small differences may be chance"
    few = (
        f"medians of {min(seeds)} to {max(seeds)} seeds" if min(seeds) < max(seeds) else f"medians of {seeds[0]} seeds"
    )
    if min(seeds) == 1:
        return f"{few}; where there is one, small differences may be chance"
    return few + (f", whose ranges overlap in {sum(overlap)} of {len(overlap)}" if any(overlap) else ", apart in each")


def _saved(groups: dict[tuple, list[dict]], counts: list[int]) -> str:
    if not counts:
        return ""
    few = counts[len(counts) // 2 - (len(counts) > 2)] if len(counts) < 3 else counts[len(counts) // 2]
    found = [s for own in groups.values() if all(_by_start(own)) for s in savings(own) if s.examples == few]
    times = sorted(s.from_scratch / s.examples for s in found)
    ends = f"{times[0]:.2g} to {times[-1]:.2g}" if len(times) > 1 else f"{times[0]:.2g}"
    more = " or more" if any(s.beyond for s in found) else ""
    return f"For the error of {few:,} fine-tuning examples, training from scratch takes {ends} times as many{more}."


def _lowest(picture: Picture) -> str:
    names = {r["identity"]: chart.full_name(r) for chart in picture.charts for r in chart.records}
    if len(set(names.values())) < 3:
        return ""
    by_curve: dict[tuple[str, int], list[float]] = {}
    for record in picture.records.values():
        by_curve.setdefault((names[record["identity"]], record["examples"]), []).append(record["error"])
    (name, count), errors = min(by_curve.items(), key=lambda item: (round(median(item[1]), 5), item[0][1]))
    given = f"{count:,} examples" if count else "no example"
    return f"The lowest error of all is {percent(median(errors), 2)}, with {given}: {name}."
