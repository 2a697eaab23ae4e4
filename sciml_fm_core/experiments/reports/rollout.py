"""The figures and findings of the notebook `rollout`."""

from __future__ import annotations

from sciml_fm_core.experiments.evolutions import UNSEEN, equal_error_table, rollout_conclusion, rollout_table, solver_at
from sciml_fm_core.study.analysis import percent, select
from sciml_fm_core.study.figures import Drawing, error_lines, panels


def figures(records: list[dict]) -> dict[str, Drawing]:
    """The figures, by the names of their files."""
    runs = [record for record in select(records, kind="rollout") if record["parent"]]

    def lines(chosen, title):
        rows = [
            {"task": record["task"], "step": step, "error": error}
            for record in chosen
            for step, error in zip(record["shown"], record["errors"], strict=True)
            if error < 10
        ]
        return error_lines(rows, lambda r: r["step"], "steps", lambda r: r["task"], title, among=runs)

    seen = lines([record for record in runs if record["task"] not in UNSEEN], "in the pre-training")
    unseen = lines([record for record in runs if record["task"] in UNSEEN], "never seen")
    against_steps = panels([seen, unseen], 2)
    rows = [
        {"task": record["task"], "milliseconds": took, "error": error}
        for record in select(records, kind="coarse_solver")
        for _, _, error, _, took in sorted(record["settings"], key=lambda row: row[-1])
    ]
    against_time = error_lines(
        rows, lambda r: r["milliseconds"], "milliseconds of the solver", lambda r: r["task"], "The solver", joined=False
    )
    return {"against_steps": against_steps, "against_time": against_time}


def findings(records: list[dict]) -> list[str]:
    """What the records show, as paragraphs of Markdown."""
    runs = select(records, kind="rollout")
    sentences = []
    for record in (record for record in runs if record["parent"]):
        alone = select(runs, task=record["task"], parent="")
        error = record["mean_errors"][0]
        found = solver_at(records, record["task"], error)
        if found is not None:
            wins = "wins" if found["milliseconds"] < record["milliseconds"] else "loses"
            sentences.append(
                f"**{record['task']}.** The solver {wins}: it has the network's error after one step, "
                f"{percent(error)}, in "
                f"{found['milliseconds']:.2g} ms with {found['points']} points and {found['substeps']} substeps, "
                f"where the network takes {record['milliseconds']:.2g} ms. The cheap step alone "
                f"has {' or '.join(percent(each['mean_errors'][0]) for each in alone)} after one step. After "
                f"{record['shown'][-1]} steps "
                f"{percent(record['finite'])} of the roll-outs are finite, {percent(record['kept_spectrum'])} keep "
                "their spectrum within a factor of two, and the correlation with the trajectory is lost after "
                f"{record['correlated']:.0f} steps on average."
            )
    return [rollout_conclusion(runs), *sentences, rollout_table(records), equal_error_table(records)]
