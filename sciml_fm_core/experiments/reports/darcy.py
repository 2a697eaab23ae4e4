"""The figures and findings of the notebook `darcy`."""

from __future__ import annotations

from sciml_fm_core.experiments.darcy.runs import PEERS, PRE_TRAINED, SOLVER, darcy_table, points
from sciml_fm_core.study.analysis import verdict_sentences
from sciml_fm_core.study.figures import Drawing, error_lines, panels


def figures(records: list[dict]) -> dict[str, Drawing]:
    """The figures, by the names of their files."""
    compared = records[:-1]

    def name(record):
        """The method, with the seconds of the run that has more than the others."""
        more = record["seconds"] > longer_than
        return record["method"] + (f", {record['seconds']:.0f} s" if more else "")

    drawn, longer_than = [], compared[0]["seconds"]
    for n in (16, 32):
        ticks = [(count, f"{count:,}") for count in compared[0]["examples"]]
        axis, title = "labelled examples", f"{n} x {n}"
        shown = points(records, n)
        drawn.append(error_lines(shown, lambda r: r["examples"], axis, name, title, ticks=ticks))
    return {"darcy": panels(drawn, 2)}


def findings(records: list[dict]) -> list[str]:
    """What the records show, as paragraphs of Markdown."""
    compared, longer = records[:-1], records[-1]
    sentences, verdicts = [], []
    for n in (16, 32):
        sentences += [f"**Tested at {n} x {n}.**", darcy_table(records, n)]

    def error(method, n, count=None):
        """Error of a method at n x n, with the most labels where no number is given."""
        own = [point for point in points(compared, n) if point["method"] == method]
        return next(point["error"] for point in own if point["examples"] == (count or own[-1]["examples"]))

    pretrained = [record["method"] for record in compared if record["method"].endswith(PRE_TRAINED)]
    few, most = compared[0]["examples"][1], compared[0]["examples"][-1]
    for n in (16, 32):
        tried = [r["method"] for r in compared if not r["skipped"]]
        best = min(tried, key=lambda method: error(method, n))
        sentences.append(f"With {most:,} labels the best at {n} x {n} is **{best}**, {error(best, n):.2%}.")
    if not longer["skipped"]:
        peer, long = PEERS[1], {n: longer[f"error_{n}"][0] for n in (16, 32)}
        reached = {n: min(error(peer, n), long[n]) for n in (16, 32)}
        sentences.append(
            f"{peer} with {most:,} labels has {error(peer, 16):.2%} and {error(peer, 32):.2%} at 16 x 16 and 32 x 32 "
            f"in equal time, {long[16]:.2%} and {long[32]:.2%} in {longer['seconds']:.0f} s, {longer['steps'][0]:,} "
            "steps. The better ones count below."
        )
        for method in pretrained:
            for n in (16, 32):
                verdicts.append((f"{method} is better than {peer} at {n} x {n}", error(method, n) < reached[n]))
            verdicts.append((f"{method} needs {few} labels for it at 16 x 16", error(method, 16, few) <= reached[16]))
            sentences.append(f"{method} with {few} labels: {error(method, 16, few):.2%} at 16 x 16.")
    else:
        sentences.append(
            "neuraloperator is not installed here (`pip install 'sciml-fm[bench]'`): nobody to compare with."
        )
    for method in pretrained:
        better = error(method, 32) < error(SOLVER, 32)
        verdicts.append((f"{method} is better than the {SOLVER} at 32 x 32", better))
        sentences.append(
            f"The {SOLVER} has {error(SOLVER, 16):.2%} at 16 x 16 and {error(SOLVER, 32):.2%} at 32 x 32, {method} "
            f"{error(method, 16):.2%} and {error(method, 32):.2%}."
        )
    sentences += verdict_sentences(verdicts, ("In this run holds", "In this run does not hold"))
    sentences.append(
        "One seed, 50 test examples: differences of a tenth between two errors may be chance. Numbers of parameters: "
        + ", ".join(f"{r['method']} {r['parameters']:,}" for r in compared if not r["skipped"])
        + "."
    )
    return sentences
