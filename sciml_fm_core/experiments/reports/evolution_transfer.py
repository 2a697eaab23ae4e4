"""The figures and findings of the notebook `evolution_transfer`."""

from __future__ import annotations

from functools import partial

from sciml_fm_core.experiments import evolutions
from sciml_fm_core.physics.tasks import Task
from sciml_fm_core.study.analysis import select
from sciml_fm_core.study.figures import Drawing, error_lines, panels


def figures(records: list[dict]) -> dict[str, Drawing]:
    """The figures, by the names of their files."""
    few, shared = select(records, kind="few_trajectories"), select(records, kind="shared")
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
    names = (evolutions.NOTHING, evolutions.FOR_ALL, evolutions.AS_MUCH, evolutions.WHOLE)
    points = [
        {"name": r["name"], "at": at + 0.15 * names.index(r["name"]) - 0.2, "error": error}
        for r in shared
        for at, (task, error) in enumerate(zip([*r["tests"], ""], [*r["each_after_10"], r["after_10"]], strict=True))
        if task in ("", r["task"], *r["tasks"].split("+"))
    ]
    *seen, unseen = (Task.parse(task).system.label for task in shared[0]["tests"])
    ticks = list(enumerate([*seen, f"{unseen}, unseen", f"{unseen}, tuned"]))
    one = error_lines(
        points, lambda r: r["at"], "evolution", lambda r: r["name"], "after ten steps", ticks=ticks, even=True,
        joined=False,
    )  # fmt: skip
    return {"against_labels": panels(drawn, len(drawn)), "one_for_all": one}


def findings(records: list[dict]) -> list[str]:
    """What the records show, as paragraphs of Markdown."""
    few = evolutions.transfer_conclusion, evolutions.few_trajectories_table, evolutions.equal_error_table
    shared = evolutions.shared_verdicts, partial(evolutions.shared_table, name="single_step"), evolutions.shared_table
    return [part(records) for part in (*few, *shared)]
