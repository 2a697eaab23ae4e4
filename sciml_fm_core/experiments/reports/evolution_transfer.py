"""The figures and findings of the notebook `evolution_transfer`."""

from __future__ import annotations

from sciml_fm_core.experiments.evolutions import (
    equal_error_table,
    few_trajectories_table,
    transfer_conclusion,
)
from sciml_fm_core.study.analysis import select
from sciml_fm_core.study.figures import Drawing, error_lines, panels


def figures(records: list[dict]) -> dict[str, Drawing]:
    """The figures, by the names of their files."""
    few = select(records, kind="few_trajectories")
    drawn = [
        error_lines(
            [record | {"error": record["after_10"]} for record in select(few, task=task)],
            lambda r: r["trajectories"],
            "labelled trajectories",
            lambda r: r["start"],
            f"{task}, after ten steps",
        )
        for task in dict.fromkeys(record["task"] for record in few)
    ]
    return {"against_labels": panels(drawn, len(drawn))}


def findings(records: list[dict]) -> list[str]:
    """What the records show, as paragraphs of Markdown."""
    return [part(records) for part in (transfer_conclusion, few_trajectories_table, equal_error_table)]
