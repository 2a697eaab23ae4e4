"""The figures and findings of the notebook `low_precision`."""

from __future__ import annotations

from statistics import median

from sciml_fm_core.experiments.low_precision.runs import low_precision_table
from sciml_fm_core.study.analysis import select, table, verdict_sentences
from sciml_fm_core.study.figures import Drawing, error_lines, panels

TENTH = 0.1


def increase(record: dict, kind: str) -> float:
    """Relative change of the error by a kind."""
    return record["error"][record["kinds"].index(kind)] / record["error"][0] - 1


def figures(records: list[dict]) -> dict[str, Drawing]:
    """The figures, by the names of their files."""
    shown = ("bfloat16", "int8 in blocks", "int8 by mode", "bfloat16 products")
    drawn = []
    for parent in dict.fromkeys(record["parent"] for record in records):
        values = [
            {"before": record["error"][0], "kind": kind, "error": max(abs(increase(record, kind)), 1e-5)}
            for record in select(records, parent=parent)
            for kind in shown
        ]
        drawn.append(
            error_lines(
                values, lambda r: 100 * r["before"], "error in float32, %", lambda r: r["kind"], parent, level=TENTH,
                ylabel="change of the error", joined=False,
            )
        )  # fmt: skip
    return {"added": panels(drawn, 3)}


def findings(records: list[dict]) -> list[str]:
    """What the records show, as paragraphs of Markdown."""
    parents = list(dict.fromkeys(record["parent"] for record in records))
    kinds = records[0]["kinds"]
    rounded = kinds[1:]
    sentences, verdicts, worst, rows = [low_precision_table(records)], [], {}, []
    for parent in parents:
        own = select(records, parent=parent)
        worst[parent] = {kind: max(increase(record, kind) for record in own) for kind in rounded}
        times = [median(record["milliseconds"][kind] for record in own) for kind in (kinds[0], kinds[-1])]
        rows.append([f"`{parent}`", *(f"{value:.1f} ms" for value in times)])
    stored = kinds[:-1]
    points = f"an example of {records[0]['test_resolution']} x {records[0]['test_resolution']}"
    sentences.append(table(["operator", f"float32, {points}", f"{kinds[-1]}, {points}"], rows))
    sentences.append(
        "Sizes are those of the weights, without the card. Times are of computing on one core, beside other work; "
        "rounded weights are float32 again once they are loaded. On a CPU, products in bfloat16 leave the fused form "
        "of the network: the difference is that of both."
    )
    for kind in rounded:
        found = {parent: worst[parent][kind] for parent in parents}
        middle = median(increase(record, kind) for record in records)
        over = [parent for parent, value in found.items() if value >= TENTH]
        verdict = "less than a tenth of the error everywhere" if not over else f"a tenth or more for {', '.join(over)}"
        best = min(increase(record, kind) for record in records)
        within = sum(increase(record, kind) < TENTH for record in records)
        sentences.append(
            f"**{kind}** adds {verdict}: {max(found.values()):+.1%} at most, {middle:+.2%} in the median, "
            f"{best:+.1%} at best; {within} of {len(records)} tasks lose less than a tenth."
        )

    def added_by(kind, over=0.0, below=float("inf")):
        """Increases by a kind, of the records whose error is in a range."""
        return [increase(record, kind) for record in records if over <= record["error"][0] < below]

    failing = [parent for parent in parents if worst[parent]["int8 in blocks"] >= TENTH]
    verdicts.append(("int8 in blocks adds more than a tenth to most operators", len(failing) > len(parents) / 2))
    verdicts.append(("it adds less where the error is above 2 %", max(added_by("int8 in blocks", over=0.02)) < TENTH))
    verdicts.append(("float16 adds less than a tenth but below 0.05 %", max(added_by("float16", over=5e-4)) < TENTH))
    blocks, modes = (
        median(increase(record, kind) for record in records) for kind in ("int8 in blocks", "int8 by mode")
    )
    better = sum(increase(r, "int8 by mode") <= increase(r, "int8 in blocks") for r in records)
    size = records[0]["kilobytes"]
    smaller = 1 - size[stored.index("int8 by mode")] / size[stored.index("int8 in blocks")]
    sentences.append(
        f"**By mode or in blocks.** Scales by mode make a file {smaller:.0%} smaller; they add no more than blocks "
        f"do on {better} of {len(records)} tasks, {modes:+.2%} against {blocks:+.2%} in the median."
    )
    verdicts.append(("a scale for each mode adds more than one for sixteen numbers", modes > blocks))
    accurate = [record for record in records if record["error"][0] < 2e-3]
    if accurate and len(accurate) < len(records):
        rest = [record for record in records if record not in accurate]
        sentences.append(
            "What rounding adds is an error of its own, and counts where there is little else: in blocks, "
            f"{median(increase(r, 'int8 in blocks') for r in accurate):+.1%} in the median where the error is below "
            f"0.2 %, and {median(increase(r, 'int8 in blocks') for r in rest):+.2%} elsewhere."
        )
    sentences += verdict_sentences(verdicts, of="the claim")
    return sentences
