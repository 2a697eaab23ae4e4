"""The figures and findings of the notebook `training_range`."""

from __future__ import annotations

from statistics import median

from sciml_fm_core.experiments.ranks import area_under_roc, roc_curve
from sciml_fm_core.experiments.training_range.runs import NAMES, pooled, training_range_table
from sciml_fm_core.study.analysis import select, table, verdict_sentences
from sciml_fm_core.study.figures import Drawing, panels

from .scores import roc_curves, score_points

SCORES = {score: NAMES[score] for score in ("flag", "dial", "residual")}
BESIDE = {score: NAMES[score] for score in ("flag", "spread", "both", "residual")}
TARGETS = {"shifts": 0.95, "other sources": 0.85}


def curves_of(records, scores):
    """Curves of the scores for both kinds of cases, side by side."""
    drawn = []
    for cases in TARGETS:
        own, curves = select(records, cases=cases), {}
        for score, name in scores.items():
            values, off = pooled(own, score)
            if 0 < off.sum() < len(off):
                curves[f"{name}: {area_under_roc(values, off):.3f}"] = roc_curve(values, off)
        drawn.append(roc_curves(curves, f"{cases}, {sum(r['number'] for r in own):,} cases"))
    return panels(drawn, 2)


def figures(records: list[dict]) -> dict[str, Drawing]:
    """The figures, by the names of their files."""
    rows = [(r["parent"], r["cases"], r["area_flag"]) for r in records if r["area_flag"] is not None]
    return {
        "together": curves_of(records, SCORES),
        "operator_by_operator": score_points(rows, "area under the curve", levels=sorted(TARGETS.values())),
        "beside_an_ensemble": curves_of([record for record in records if record["spreads"]], BESIDE),
    }


def findings(records: list[dict]) -> list[str]:
    """What the records show, as paragraphs of Markdown."""
    with_ensemble = [record for record in records if record["spreads"]]
    sentences, verdicts = [training_range_table(records)], []
    for cases, target in TARGETS.items():
        own = select(records, cases=cases)
        seeds = sorted({record["seed"] for record in own})
        draws = [select(own, seed=seed) for seed in seeds]
        areas = {score: [area_under_roc(*pooled(draw, score)) for draw in draws] for score in SCORES}
        right = sum(r["right"] * r["number"] for r in own) / sum(r["number"] for r in own)
        verdicts.append((f"the flag reaches {target} on {cases}, all operators together", min(areas["flag"]) >= target))
        missed = []
        for parent in dict.fromkeys(record["parent"] for record in own):
            known = [r["area_flag"] for r in select(own, parent=parent) if r["area_flag"] is not None]
            missed += [parent] if known and median(known) < target else []
        verdicts.append((f"it reaches {target} on {cases} for every operator by itself", not missed))
        better = sum(flag > dial for flag, dial in zip(areas["flag"], areas["dial"], strict=True))
        sentences.append(
            f"**{cases}**, together: {', '.join(f'{area:.3f}' for area in areas['flag'])} by seed of the cases, the "
            f"dial alone {', '.join(f'{area:.3f}' for area in areas['dial'])}: the flag is better in {better} of "
            f"{len(seeds)}, and right about {right:.0%} of the cases. Below {target} by themselves: "
            f"{', '.join(missed) or 'none'}."
        )
        verdicts.append((f"the flag tells more than the dial alone on {cases}", better == len(seeds)))
    rows = []
    for cases in TARGETS:
        for parent in dict.fromkeys(record["parent"] for record in with_ensemble):
            values = [pooled(select(with_ensemble, parent=parent, cases=cases), score) for score in BESIDE]
            if 0 < values[0][1].sum() < len(values[0][1]):
                rows.append([cases, parent, *(f"{area_under_roc(*pair):.3f}" for pair in values)])
    sentences.append(table(["cases", "operator", *BESIDE.values()], rows))
    flagged = [float(row[2]) for row in rows if row[0] == "other sources"]
    spread = [float(row[3]) for row in rows if row[0] == "other sources"]
    more = sum(two > one for one, two in zip(flagged, spread, strict=True))
    if flagged:
        sentences.append(
            f"On other sources the spread of an ensemble tells more than the flag for {more} of {len(flagged)} "
            "operators, at four predictions of small networks for each case."
        )
    sentences += verdict_sentences(verdicts)
    sentences.append(
        "The seed is that of the cases; the flags are made with one seed. Medians over seeds in the tables."
    )
    return sentences
