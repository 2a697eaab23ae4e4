"""What the reports on the paper's questions, and on their like, share: words, and the parts of their tables.

Tables are Markdown, whose numbers `form` writes.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from sciml_fm_core.study.analysis import Form, select, spread
from sciml_fm_core.study.figures import Drawing

Records = Sequence[dict[str, Any]]
Figures = dict[str, Drawing]
"""Figures by the names of their files."""

TOLD = {
    "dimensionless": "conditioned on the coefficients",
    "paper": "the paper's recipe",
    "symbol": "conditioned on the symbol",
    "symbol-composed": "conditioned on the symbol, of compositions too",
}
"""Recipes in words."""


def groups(records: Records, *names: str) -> Iterator[tuple[tuple, list[dict]]]:
    """The values of some fields as they occur together, each with its records."""
    for values in dict.fromkeys(tuple(record[name] for name in names) for record in records):
        yield values, select(records, **dict(zip(names, values, strict=True)))


def common_counts(records: Records) -> list[int]:
    """Numbers of examples, but for 0, that all tasks have in common."""
    return sorted(set.intersection(*({r["examples"] for r in own} for _, own in groups(records, "task"))) - {0})


def columns_of(counts: Sequence[int]) -> tuple[list[tuple[str, int]], list[str]]:
    """Fine-tuned with no and with so many examples, from scratch with so many; and what the columns are called."""
    columns = [("fine-tuned", 0), *((start, n) for start in ("fine-tuned", "from scratch") for n in counts)]
    return columns, ["zero-shot", *(f"{start}, {count:,}" for start, count in columns[1:])]


def cells_of(own: Records, columns: Sequence[tuple[str, int]], form: Form) -> list[str]:
    """Errors of starts and examples, empty where there is none."""
    return [spread([r["error"] for r in select(own, start=start, examples=count)], form) for start, count in columns]
