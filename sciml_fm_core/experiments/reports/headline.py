"""The figures and numbers of the notebook `headline`."""

from __future__ import annotations

from sciml_fm_core.experiments.paper import PATIENCE, PRINTED
from sciml_fm_core.study.analysis import Form, examples_to_reach, percent, select, spread, table
from sciml_fm_core.study.figures import error_curves

from .shared import Figures, Records

HEADLINE = {
    ("paper", "fine-tuned", False): "fine-tuned, the paper's recipe",
    ("dimensionless", "fine-tuned", False): "fine-tuned",
    ("dimensionless", "fine-tuned", True): "fine-tuned, symmetries",
    ("dimensionless", "from scratch", True): "from scratch, symmetries",
}
"""The curves of the headline by recipe, start and symmetries."""


LONGER = f"from scratch, symmetries, {PATIENCE} times the steps"


def curves_of(records: Records) -> dict[str, list[dict]]:
    """The records with labels by the name of their curve."""
    labelled = [record for record in records if record["recipe"] != "symbol"]
    usual = {r["examples"]: r["steps"] for r in select(labelled, start="fine-tuned")}
    curves: dict[str, list[dict]] = {name: [] for name in (*HEADLINE.values(), LONGER)}
    for r in labelled:
        longer = r["steps"] > usual[r["examples"]]
        curves[LONGER if longer else HEADLINE[r["recipe"], r["start"], bool(r.get("symmetries"))]].append(r)
    return curves


def figures(records: Records, levels: dict[str, float]) -> Figures:
    """Error against labelled examples of all curves; levels are errors without any."""
    curves = curves_of(records)
    names = {record["identity"]: name for name, own in curves.items() for record in own}
    labelled = [record for own in curves.values() for record in own]
    title = f"{labelled[0]['parent']} to {labelled[0]['task']}"
    printed = PRINTED.get(labelled[0]["task"], {})
    return {"curves": error_curves(labelled, lambda r: names[r["identity"]], title, levels=levels, printed=printed)}


def numbers(records: Records, form: Form = percent) -> str:
    """Errors by labelled examples, and the examples that an error of 1 % takes."""
    curves = curves_of(records)
    counts = sorted({record["examples"] for own in curves.values() for record in own})
    rows, reached = [], []
    for name, own in curves.items():
        rows.append([name, *(spread([r["error"] for r in select(own, examples=count)], form) for count in counts)])
        enough = examples_to_reach(own, 0.01)
        reached.append(f"{name}: {'not reached' if enough is None else f'about {enough:,.0f}'}")
    notes = f"Labelled examples for 1 %, interpolated on medians: {'; '.join(reached)}."
    return f"{table(['', *(f'{count:,} examples' for count in counts)], rows)}\n\n{notes}"
