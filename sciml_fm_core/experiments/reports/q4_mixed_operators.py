"""The findings of the notebook `q4_mixed_operators`."""

from __future__ import annotations

from sciml_fm_core.study.analysis import select
from sciml_fm_core.study.questions import mixture_table, pretrained_on


def findings(records: list[dict]) -> list[str]:
    """What the records show, as paragraphs of Markdown."""
    tasks = list(dict.fromkeys(record["task"] for record in records))
    most = max(record["examples"] for record in records)
    ratios = {}
    for task in tasks:
        points = {pretrained_on(r): r["error"] for r in select(records, task=task, examples=most)}
        ratios[task] = points["mixed"] / points["its own system alone"]
    close = [task for task in tasks if ratios[task] <= 1.5]
    worst = max(tasks, key=lambda task: ratios[task])
    sentences = [
        mixture_table(records, "{:.2%}".format),
        f"Fine-tuned on {most:,} examples, the mixed operator is within 1.5 times its specialist on {len(close)} of "
        f"{len(tasks)} tasks; furthest from it on {worst}, {ratios[worst]:.2f} times.",
        "The specialists and the mixture saw "
        + ", ".join(
            f"{r['pretraining_examples']:,} ({r['parent']})" for r in {r["parent"]: r for r in records}.values()
        )
        + " examples in pre-training.",
    ]
    return sentences
