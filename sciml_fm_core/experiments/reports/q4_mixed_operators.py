"""The figures, numbers and findings of the notebook `q4_mixed_operators`."""

from __future__ import annotations

from sciml_fm_core.study.analysis import Form, percent, select, table
from sciml_fm_core.study.figures import error_panels

from .shared import Figures, Records, cells_of, columns_of, common_counts, groups


def pretrained_on(record: dict) -> str:
    """What the operator of a record was pre-trained on, if on anything."""
    if record["start"] == "from scratch":
        return "from scratch"
    if record["recipe"] == "symbol":
        return "mixed, conditioned on the symbol"
    return "mixed" if "+" in record["parent"] else "its own system alone"


def figures(records: Records) -> Figures:
    """Error against examples of the mixed operator and of the specialists, by task."""
    return {"tasks": error_panels(records, lambda r: r["task"], pretrained_on)}


def numbers(records: Records, form: Form = percent) -> str:
    """Errors of the specialist and of the mixed operator, and from scratch."""
    columns, names = columns_of(common_counts([r for r in records if r["recipe"] != "symbol"]))
    tuned, rows = len(columns) // 2 + 1, []
    for (task,), own in groups(records, "task"):
        alone, mixed, scratch, told = (
            [r for r in own if pretrained_on(r) == kind]
            for kind in ("its own system alone", "mixed", "from scratch", "mixed, conditioned on the symbol")
        )
        cells = [*cells_of(alone, columns[:tuned], form), *cells_of(mixed, columns[:tuned], form)]
        rows.append([task, *cells, *cells_of(scratch, columns[tuned:], form), *cells_of(told, columns[:1], form)])
    both = (f"{kind}, {name}" for kind in ("specialist", "mixed") for name in names[:tuned])
    return table(["task", *both, *names[tuned:], "`symbol`, zero-shot"], rows)


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
    return [
        numbers(records, "{:.2%}".format),
        f"Fine-tuned on {most:,} examples, the mixed operator is within 1.5 times its specialist on {len(close)} of "
        f"{len(tasks)} tasks; furthest from it on {worst}, {ratios[worst]:.2f} times.",
        "The specialists and the mixture saw "
        + ", ".join(
            f"{r['pretraining_examples']:,} ({r['parent']})" for r in {r["parent"]: r for r in records}.values()
        )
        + " examples in pre-training.",
    ]
