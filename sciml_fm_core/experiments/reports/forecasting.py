"""The figures and findings of the notebook `forecasting`."""

from __future__ import annotations

from collections.abc import Callable
from statistics import median

from sciml_fm_core.experiments.forecasting import OBSERVED, RATES, SHOWN, forecasting_table, name_of
from sciml_fm_core.study.analysis import percent, select, verdict_sentences
from sciml_fm_core.study.figures import Drawing, error_lines, panels


def figures(records: list[dict]) -> dict[str, Drawing]:
    """The figures, by the names of their files: what is compared most, in as many colours as can be told apart."""
    left_out = (("linear", 1), ("dmd", 1))
    finest = max(record["points"] for record in records)
    rows = [
        {**record, "step": step, "error": error}
        for record in records
        if (record["method"], record["frames"]) not in left_out and record["points"] in (0, finest)
        for step, error in zip(SHOWN, record["errors"], strict=True)
    ]
    drawn = [
        error_lines(select(rows, task=task), lambda row: row["step"], "steps", name_of, task, among=rows)
        for task in dict.fromkeys(record["task"] for record in records)
    ]
    return {"against_steps": panels(drawn, 2)}


def findings(records: list[dict]) -> list[str]:
    """What the records show, as paragraphs of Markdown: for each evolution what holds after ten steps, in medians."""
    sentences = []
    for task in dict.fromkeys(record["task"] for record in records):

        def last(method: str, own: Callable[..., list[dict]] = select, task: str = task, **values: int) -> float:
            return median(run["errors"][-1] for run in own(records, task=task, method=method, **values))

        one, four = ({name: last(name, frames=count) for name in RATES} for count in (1, OBSERVED))
        untold, unfitted = min([*one.values(), *four.values()]), last("persistence")
        operator, solver = last("operator"), max(select(records, task=task, method="solver"), key=lambda r: r["points"])
        verdicts = [
            (f"{OBSERVED} frames tell the FNO more than one, {percent(four['fno'])} and {percent(one['fno'])}",
             four["fno"] < one["fno"]),
            (f"{OBSERVED} frames tell the ConvLEM more than one, {percent(four['conv_lem'])} and "
             f"{percent(one['conv_lem'])}", four["conv_lem"] < one["conv_lem"]),
            (f"a memory forecasts better than frames as channels, {percent(four['conv_lem'])} and "
             f"{percent(four['fno'])}", four["conv_lem"] < four["fno"]),
            (f"a network is better than dynamic mode decomposition, which has {percent(four['dmd'])} from "
             f"{OBSERVED} frames", min(four["fno"], four["conv_lem"]) < four["dmd"]),
            (f"whatever is fitted is better than persistence, {percent(unfitted)}",
             max(*one.values(), *four.values()) < unfitted),
            (f"knowing the equation is worth more than {OBSERVED} frames: the operator has {percent(operator)} "
             f"and the solver on {solver['points']} points {percent(solver['errors'][-1])}, the best that is not told "
             f"{percent(untold)}", max(operator, solver["errors"][-1]) < untold),
        ]  # fmt: skip
        sentences += [f"**{task}, after {SHOWN[-1]} steps.**", *verdict_sentences(verdicts)]
    return [*sentences, forecasting_table(records)]
