"""The figures and findings of the notebook `variable_coefficients`."""

from __future__ import annotations

from sciml_fm_core.experiments.variable_coefficients import (
    STARTS,
    costs_table,
    few_labels_table,
    labels_saved,
    winners,
)
from sciml_fm_core.study.analysis import percent, select
from sciml_fm_core.study.figures import Drawing, error_lines, panels


def figures(records: list[dict]) -> dict[str, Drawing]:
    """The figures, by the names of their files."""
    few, solver = select(records, kind="few_labels"), select(records, kind="solver")
    tasks = list(dict.fromkeys(record["task"] for record in few))
    drawn = []
    for task in tasks:
        own = select(few, task=task, seed=0)
        axis = "labelled examples"
        drawn.append(error_lines(own, lambda r: r["examples"], axis, lambda r: STARTS[r["start"]], task, among=few))
    against_labels, rows = panels(drawn, 2), []
    for task in tasks:
        for record in select(few, task=task):
            before = record["pretraining_seconds"] if record["start"] == "own" else 0
            seconds = record["label_seconds"] + record["training_seconds"] + before
            rows.append({"task": task, "error": record["error"], "seconds": seconds, "name": STARTS[record["start"]]})
        for record in select(solver, task=task):
            for error, milliseconds in zip(record["errors"], record["milliseconds"], strict=True):
                seconds = record["test"] * milliseconds / 1000
                rows.append({"task": task, "error": error, "seconds": seconds, "name": "the solver"})
    drawn = []
    for task in tasks:
        own, x, name = select(rows, task=task), (lambda r: r["seconds"]), (lambda r: r["name"])
        drawn.append(error_lines(own, x, "seconds", name, task, joined=False, among=rows))
    return {"against_labels": against_labels, "against_time": panels(drawn, 2)}


def findings(records: list[dict]) -> list[str]:
    """What the records show, as paragraphs of Markdown."""
    few, solver = select(records, kind="few_labels"), select(records, kind="solver")
    tasks = list(dict.fromkeys(record["task"] for record in few))
    sentences = [few_labels_table(records), costs_table(records), *winners(records)]
    saved = labels_saved(records)
    for task in tasks:
        for start in list(STARTS)[1:]:
            own = [each for each in saved if each["task"] == task and each["start"] == start]
            words = []
            for count in sorted({each["examples"] for each in own}):
                worth = [each["worth"] for each in own if each["examples"] == count]
                shown = [
                    "fewer" if w is None else "more than the most that were tried" if w == float("inf") else f"{w:.0f}"
                    for w in worth
                ]
                words.append(f"{count} labels are worth {' and '.join(shown)} from scratch")
            if words:
                sentences.append(f"**{task}, {STARTS[start]}.** {'; '.join(words)} (the first seed).")
    for record in solver:
        best = min(select(few, task=record["task"]), key=lambda r: r["error"])
        pairs = list(zip(record["errors"], record["milliseconds"], strict=True))
        reached = [ms for error, ms in pairs if error <= best["error"]]
        if reached:
            sentences.append(
                f"**{record['task']}.** The best network has {percent(best['error'])}. The solver reaches that in "
                f"{min(reached):.2g} ms of one core an example, and needs no training."
            )
    labels = sum(r["label_seconds"] for r in few) / max(1, sum(r["examples"] for r in few))
    sentences.append(f"A label took {1000 * labels:.1f} ms of computing on average, to a relative residual of 1e-8.")
    return sentences
