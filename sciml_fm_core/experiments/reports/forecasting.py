"""The figures and findings of the notebook `forecasting`."""

from __future__ import annotations

from sciml_fm_core.experiments.forecasting import OBSERVED, RATES, SHOWN, forecasting_table, name_of
from sciml_fm_core.study.analysis import select, spread, verdict_sentences
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
    """What the records show, as paragraphs of Markdown: for each evolution, what holds at the end in every seed."""
    sentences = []
    for task in dict.fromkeys(record["task"] for record in records):
        own = select(records, task=task)
        ends = {
            (method, frames): [run["errors"][-1] for run in select(own, method=method, frames=frames)]
            for method, frames in dict.fromkeys((run["method"], run["frames"]) for run in own)
        }
        fno, memory, linear = (ends[method, OBSERVED] for method in ("fno", "conv_lem", "dmd"))
        untold = [min(seed) for seed in zip(*(ends[way] for way in ends if way[0] in RATES), strict=True)]
        worst = max(max(ends[way]) for way in ends if way[0] in RATES)
        still, operator, solver = (ends[method, 1] for method in ("persistence", "operator", "solver"))
        verdicts = [
            _less(fno, ends["fno", 1], f"{OBSERVED} frames tell the FNO more than one"),
            _less(memory, ends["conv_lem", 1], f"{OBSERVED} frames tell the ConvLEM more than one"),
            _less(memory, fno, f"from {OBSERVED} frames the ConvLEM, with its memory, forecasts better than the FNO"),
            _less(fno, linear, f"from {OBSERVED} frames the FNO forecasts better than dynamic mode decomposition"),
            _less([worst], still, "the worst of what is fitted is better than persistence"),
            _less(operator * len(untold), untold, "the operator that is told the equation is better than all not told"),
            _less([max(solver)] * len(untold), untold, "so is the coarsest solver"),
        ]
        sentences += [f"**{task}, after {SHOWN[-1]} steps.**", *verdict_sentences(verdicts)]
    return [*sentences, forecasting_table(records)]


def _less(ours: list[float], theirs: list[float], statement: str) -> tuple[str, bool]:
    """A statement with both errors, and whether the first is the smaller one in every seed."""
    return f"{statement}, {spread(ours)} against {spread(theirs)}", all(
        a < b for a, b in zip(ours, theirs, strict=True)
    )
