"""The figures and findings of the notebook `evolution_transfer`."""

from __future__ import annotations

from sciml_fm_core.experiments.evolutions import few_trajectories_table
from sciml_fm_core.study.analysis import percent, select
from sciml_fm_core.study.figures import Drawing, error_lines, panels


def figures(records: list[dict]) -> dict[str, Drawing]:
    """The figures, by the names of their files."""
    drawn = [
        error_lines(
            [record | {"error": record[name]} for record in records],
            lambda r: r["trajectories"],
            "labelled trajectories",
            lambda r: r["start"],
            title,
        )
        for name, title in (("single_step", "a single step"), ("after_10", "after ten steps"))
    ]
    against_labels = panels(drawn, 2)
    return {"against_labels": against_labels}


def findings(records: list[dict]) -> list[str]:
    """What the records show, as paragraphs of Markdown."""
    sentences = [few_trajectories_table(records)]
    for count in sorted({record["trajectories"] for record in records}):
        tuned, scratch = (
            [record["after_10"] for record in select(records, trajectories=count, start=start)]
            for start in ("pre-trained", "scratch")
        )
        ratios = [one / other for one, other in zip(tuned, scratch, strict=True)]
        sentences.append(
            f"**{count} trajectories.** After ten steps the fine-tuned operator has {percent(min(tuned))} to "
            f"{percent(max(tuned))}, from scratch {percent(min(scratch))} to {percent(max(scratch))}: "
            f"{min(ratios):.2f} to {max(ratios):.2f} of it over the seeds."
        )
    return sentences
