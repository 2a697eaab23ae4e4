"""The figures and findings of the notebook `uncertainty`."""

from __future__ import annotations

from statistics import median

from sciml_fm_core.experiments.uncertainty.runs import METHODS, SHARE, uncertainty_table
from sciml_fm_core.physics.system import PRETRAINING, SYSTEMS
from sciml_fm_core.study.analysis import select, verdict_sentences
from sciml_fm_core.study.figures import Drawing, panels

from .scores import score_points


def figures(records: list[dict]) -> dict[str, Drawing]:
    """The figures, by the names of their files."""
    rows = [row | {"system": r["system"], "seed": r["seed"]} for r in records for row in r["rows"]]
    groups = list(dict.fromkeys(row["shift"] for row in rows))

    def drawn(name, axis, level):
        """A point for each ensemble and shift, for all systems."""
        for system in dict.fromkeys(r["system"] for r in records):
            own = [(row["method"], row["shift"], row[name]) for row in select(rows, system=system)]
            yield score_points(own, axis, SYSTEMS[system].label, levels=[level], groups=groups)

    return {
        "correlation": panels([*drawn("pearson", "correlation of spread and error", 0.7)], 2),
        "coverage": panels([*drawn("covered_inside", "examples covered", SHARE)], 2),
    }


def findings(records: list[dict]) -> list[str]:
    """What the records show, as paragraphs of Markdown."""
    rows = [row | {"system": r["system"], "seed": r["seed"]} for r in records for row in r["rows"]]
    systems = list(dict.fromkeys(r["system"] for r in records))

    def middle(name, **values):
        """Median over the ensembles of a number of the rows with these values."""
        return median(row[name] for row in select(rows, **values))

    def shifts_of(system):
        """The shifts of a system, the pre-training range first."""
        return list(dict.fromkeys(row["shift"] for row in select(rows, system=system)))

    sentences, verdicts = [uncertainty_table(records)], []

    def off(system, method):
        """How far the coverage inside is from what was promised, in the mean of the ensembles."""
        held = [row["covered_inside"] for row in select(rows, system=system, method=method, shift=PRETRAINING)]
        return sum(held) / len(held) - SHARE

    kept = {(s, m): abs(off(s, m)) <= 0.03 for s in systems for m in METHODS}
    misses = [f"{SYSTEMS[s].label} {m} {SHARE + off(s, m):.1%}" for (s, m), good in kept.items() if not good]
    verdicts.append(("bands cover 90 +- 3 % inside the range, for every spread and system", not misses))
    sentences.append(
        f"**Inside** the range {sum(kept.values())} of {len(kept)} spreads cover 90 % within 3 points, in the mean "
        "of the ensembles" + (f"; not {', '.join(misses)}." if misses else ".")
    )
    for system in systems:
        label, outside = SYSTEMS[system].label, shifts_of(system)[-1]
        held = {m: middle("covered_inside", system=system, method=m, shift=outside) for m in METHODS}
        again = {m: middle("covered_target", system=system, method=m, shift=outside) for m in METHODS}
        wider = {
            m: middle("width_target", system=system, method=m, shift=outside)
            / middle("width_inside", system=system, method=m, shift=outside)
            for m in METHODS
        }
        best = max(held, key=lambda method: held[method])
        verdicts.append((f"every band holds less on the {outside} shift of {label}", max(held.values()) < SHARE - 0.03))
        verdicts.append(("32 examples of that shift mend it, to 85 % or more", min(again.values()) >= 0.85))
        sentences.append(
            f"**{label}, {outside} shift.** Inside factors cover {min(held.values()):.0%} to {held[best]:.0%}, the "
            f"{best} most; calibrated on 32 examples of the shift {min(again.values()):.0%} to "
            f"{max(again.values()):.0%}, with bands {min(wider.values()):.1f} to {max(wider.values()):.1f} times as "
            "wide."
        )
    medium = {m: middle("pearson", system="poisson", method=m, shift="medium") for m in METHODS}
    deep = medium["deep ensemble"]
    better = {m: c for m, c in medium.items() if c > deep}
    verdicts.append(
        ("the spread of a deep ensemble correlates at 0.7 or more on the medium shift of SYS-1", deep >= 0.7)
    )
    sentences.append(
        "**Correlation on the medium shift of SYS-1**: "
        + ", ".join(f"{method} {value:.2f}" for method, value in medium.items())
        + ". "
        + (f"Better than the ensemble: {', '.join(better)}." if better else "Nothing does better than the ensemble.")
    )
    wins = 0
    pairs = [(s, shift) for s in systems for shift in shifts_of(s)]
    for s, shift in pairs:
        scores = {m: middle("crps", system=s, method=m, shift=shift) for m in METHODS if m != "residual step"}
        wins += min(scores, key=lambda method: scores[method]) == "deep ensemble"
    sentences.append(
        f"Of the spreads that need no equation, the deep ensemble has the lowest CRPS on {wins} of {len(pairs)} "
        f"ranges; its mean is also the more accurate prediction, and it costs {records[0]['members']} trainings."
    )
    verdicts.append(("the deep ensemble scores best on every range", wins == len(pairs)))
    changed = [
        (row["error_conserved"] / row["error"] - 1, SYSTEMS[row["system"]].label)
        for row in rows
        if "error_conserved" in row
    ]
    low, high = min(changed), max(changed)
    sentences.append(
        "**ProbConserv** with one constraint, the mean of the solution, which the equation gives, changes the error "
        f"of the ensemble by {low[0]:+.1%} ({low[1]}) to {high[0]:+.1%} ({high[1]}). SYS-1 and SYS-2 have no mean, and "
        "our operators none either. With every mode as a constraint the update is the exact solution, and no update."
    )
    sentences += verdict_sentences(verdicts, of="the claim")
    seeds = len({r["seed"] for r in records})
    sentences.append(f"Ensembles of each system: {seeds}. Differences that their points overlap may be chance.")
    return sentences
