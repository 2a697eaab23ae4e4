"""The figures, numbers and findings of the notebook `architectures`."""

from __future__ import annotations

from sciml_fm_core.models.base import MODELS
from sciml_fm_core.study.analysis import Form, error_of, percent, table
from sciml_fm_core.study.figures import error_curves

from .shared import Figures, Records, cells_of, common_counts, groups


def figures(records: Records) -> Figures:
    """Error against examples of each architecture."""
    task = f"{records[0]['parent']} to {records[0]['task']}"
    names = {name: model.__name__ for name, model in MODELS.items()}
    drawn = error_curves(
        records, lambda r: f"{names[r['architecture']]}, {r['start']}", task, colour=lambda r: r["architecture"]
    )
    return {"curves": drawn}


def numbers(records: Records, form: Form = percent) -> str:
    """Errors of each architecture, and what its pre-training took."""
    counts, rows = common_counts(records), []
    columns = [*(("fine-tuned", count) for count in (0, *counts)), ("from scratch", counts[-1])]
    for (name,), own in groups(records, "architecture"):
        cost = f"{own[0]['pretraining_examples']:,} in {own[0]['pretraining_seconds']:.0f} s"
        rows.append([f"`{name}`", f"{own[0]['parameters']:,}", cost, *cells_of(own, columns, form)])
    header = ["network", "parameters", "pre-training examples", *(f"{start}, {count:,}" for start, count in columns)]
    return table(header, rows)


def findings(records: list[dict]) -> list[str]:
    """What the records show, as paragraphs of Markdown."""
    names = {record["architecture"]: MODELS[record["architecture"]].__name__ for record in records}
    counts = sorted({record["examples"] for record in records})
    most = counts[-1]

    def error(architecture, start, examples):
        """Error of one point."""
        return error_of(records, architecture=architecture, start=start, examples=examples)

    first, last = (
        ", ".join(names[a] for a in sorted(names, key=lambda a: error(a, "fine-tuned", n))) for n in (0, most)
    )
    sentences = [
        numbers(records, "{:.2%}".format),
        f"Zero-shot, the best first: {first}; fine-tuned on {most:,} examples: {last}.",
    ]
    behind = [
        f"{names[a]} with {count:,}"
        for a in names
        for count in counts[1:]
        if error(a, "fine-tuned", count) >= error(a, "from scratch", count)
    ]
    sentences.append(f"From scratch is ahead of fine-tuning for {', '.join(behind) or 'none'}.")
    times = [error(a, "from scratch", most) / error(a, "fine-tuned", most) for a in names]
    sentences.append(
        f"With {most:,} examples the error from scratch is "
        + ", ".join(f"{value:.1f} times ({name})" for value, name in zip(times, names.values(), strict=True))
        + " that after fine-tuning. One seed. The seconds of pre-training are those of the table, on one core: on "
        "other hardware each network would see another number of examples."
    )
    return sentences
