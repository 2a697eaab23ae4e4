"""The figures and findings of the notebook `seeds`."""

from __future__ import annotations

import statistics

from sciml_fm_core.study.analysis import select, table
from sciml_fm_core.study.figures import error_panels

from .shared import Figures, Records


def figures(records: Records) -> Figures:
    """Error against examples over several seeds, by task."""
    return {"tasks": error_panels(records, lambda r: r["task"], lambda r: r["start"])}


def findings(records: list[dict]) -> list[str]:
    """What the records show, as paragraphs of Markdown."""
    tasks = list(dict.fromkeys(record["task"] for record in records))
    rows = []
    apart = []
    for task in tasks:
        for count in sorted({r["examples"] for r in select(records, task=task)} - {0}):
            values = {
                start: sorted(r["error"] for r in select(records, task=task, examples=count, start=start))
                for start in ("fine-tuned", "from scratch")
            }
            apart.append(values["fine-tuned"][-1] < values["from scratch"][0])
            cells = [f"{statistics.median(v):.2%} ({v[0]:.2%} to {v[-1]:.2%})" for v in values.values()]
            rows.append([task, f"{count:,}", *cells, "yes" if apart[-1] else "no"])
    seeds = sorted({record["seed"] for record in records})
    return [
        table(["task", "examples", "fine-tuned: median (lowest to highest)", "from scratch", "bands apart"], rows),
        f"With {len(seeds)} seeds, the worst fine-tuned run is better than the best run from scratch "
        f"at {sum(apart)} of {len(apart)} points.",
    ]
