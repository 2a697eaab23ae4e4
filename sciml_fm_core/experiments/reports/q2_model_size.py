"""The figures, numbers and findings of the notebook `q2_model_size`."""

from __future__ import annotations

import itertools

from sciml_fm_core.study.analysis import Form, error_of, percent, select, table
from sciml_fm_core.study.figures import error_panels

from .shared import Figures, Records, cells_of, columns_of, common_counts, groups


def figures(records: Records) -> Figures:
    """Error against examples for networks of several sizes."""

    def parameters(record: dict) -> str:
        return f"{record['parameters'] / 1000:,.0f} thousand"

    drawn = error_panels(
        records,
        lambda r: f"{r['parent']} to {r['task']}",
        lambda r: f"{parameters(r)}, {r['start']}",
        colour=parameters,
    )
    return {"curves": drawn}


def numbers(records: Records, form: Form = percent) -> str:
    """Errors of each size, before and after fine-tuning, and from scratch."""
    columns, names = columns_of(common_counts(records))
    rows = [
        [task, size, f"{own[0]['parameters']:,}", *cells_of(own, columns, form)]
        for (task, size), own in groups(records, "task", "size")
    ]
    return table(["task", "size", "parameters", *names], rows)


def findings(records: list[dict]) -> list[str]:
    """What the records show, as paragraphs of Markdown."""
    sizes = list(dict.fromkeys(record["size"] for record in records))
    most = max(record["examples"] for record in records)
    seen = f"each was pre-trained on {records[0]['pretraining_examples']:,}, with one seed"
    sentences = [numbers(records, "{:.2%}".format), f"With {most:,} examples; {seen}."]
    for pretraining, task in dict.fromkeys((record["parent"], record["task"]) for record in records):
        own = select(records, task=task)
        errors = {
            size: (
                error_of(own, size=size, start="fine-tuned", examples=most),
                error_of(own, size=size, start="from scratch", examples=most),
            )
            for size in sizes
        }
        gain = {size: scratch / tuned for size, (tuned, scratch) in errors.items()}
        ratios = ", ".join(f"{gain[size]:.1f} times ({size})" for size in sizes)
        sentences.append(f"**{pretraining} to {task}.** From scratch the error is {ratios} that after fine-tuning.")
        if len(sizes) > 1:
            tuned = [errors[size][0] for size in sizes]
            falling = all(a >= b for a, b in itertools.pairwise(tuned))
            few = min(record["examples"] for record in own if record["examples"])
            small, large = (error_of(own, size=s, start="from scratch", examples=few) for s in (sizes[0], sizes[-1]))
            sentences.append(
                "Fine-tuned, larger networks are "
                f"{'better at every step of size' if falling else 'not always better'}; "
                "the gain over training from scratch "
                f"{'grows' if list(gain.values()) == sorted(gain.values()) else 'does not grow'} with size throughout. "
                f"From scratch on {few:,} examples the largest has {large:.2%}, the smallest {small:.2%}: there size "
                f"{'helps' if large < 0.9 * small else 'does not help'}."
            )
    return sentences
