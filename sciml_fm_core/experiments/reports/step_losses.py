"""The figures and findings of the notebook `step_losses`."""

from __future__ import annotations

from sciml_fm_core.experiments.step_losses import EQUATIONS, LOSSES, step_losses_table
from sciml_fm_core.study.analysis import percent, select
from sciml_fm_core.study.figures import Drawing, error_lines, panels


def figures(records: list[dict]) -> dict[str, Drawing]:
    """The figures, by the names of their files."""
    drawn = []
    for equation, axis in EQUATIONS.items():
        own, title = select(records, equation=equation), equation.capitalize()
        drawn.append(error_lines(own, lambda r: r["dial"], axis, lambda r: LOSSES[r["loss"]], title, among=records))
    return {"against_dial": panels(drawn, 2)}


def findings(records: list[dict]) -> list[str]:
    """What the records show, as paragraphs of Markdown."""
    sentences = []
    for equation in EQUATIONS:
        last = max(record["dial"] for record in select(records, equation=equation))
        own = select(records, equation=equation, dial=last)
        errors = {
            loss: sum(record["error"] for record in runs) / len(runs)
            for loss in LOSSES
            if (runs := select(own, loss=loss))
        }
        left = max(record["residual"] for record in own if record["loss"] != "labels")
        sentences.append(
            f"**{equation.capitalize()}.** At the dial {last:g} labels end at {percent(errors['labels'])}, "
            f"the residual alone at {percent(errors['residual'])}, the curriculum at "
            f"{percent(errors['curriculum'])}. The residual that is left is at most {percent(left)} of the derivative "
            "in time: a small residual is no small error."
        )
    return [*sentences, step_losses_table(records)]
