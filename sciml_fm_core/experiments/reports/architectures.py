"""The findings of the notebook `architectures`."""

from __future__ import annotations

from sciml_fm_core.models.base import MODELS
from sciml_fm_core.study.analysis import error_of
from sciml_fm_core.study.questions import architecture_table


def findings(records: list[dict]) -> list[str]:
    """What the records show, as paragraphs of Markdown."""
    names = {record["architecture"]: MODELS[record["architecture"]].__name__ for record in records}
    counts = sorted({record["examples"] for record in records})
    most = counts[-1]

    def error(architecture, start, examples):
        """Error of one point."""
        return error_of(records, architecture=architecture, start=start, examples=examples)

    def ranked(start, examples):
        """Names of the networks, best first."""
        return [names[a] for a in sorted(names, key=lambda a: error(a, start, examples))]

    sentences = [
        architecture_table(records, "{:.2%}".format),
        f"Zero-shot, {ranked('fine-tuned', 0)[0]} is ahead of {' and '.join(ranked('fine-tuned', 0)[1:])}; "
        f"fine-tuned on {most:,} examples, {ranked('fine-tuned', most)[0]} is. The order "
        + ("stays the same." if ranked("fine-tuned", 0) == ranked("fine-tuned", most) else "changes."),
    ]
    behind = [
        f"{names[a]} with {count:,}"
        for a in names
        for count in counts[1:]
        if error(a, "fine-tuned", count) >= error(a, "from scratch", count)
    ]
    sentences.append(
        f"From scratch is ahead of fine-tuning for {', '.join(behind)}."
        if behind
        else "Fine-tuning is ahead of training from scratch for every network and number of examples."
    )
    times = [error(a, "from scratch", most) / error(a, "fine-tuned", most) for a in names]
    sentences.append(
        f"With {most:,} examples the error from scratch is "
        + ", ".join(f"{value:.1f} times ({name})" for value, name in zip(times, names.values(), strict=True))
        + " that after fine-tuning. One seed. The seconds of pre-training are those of the table, on one core: on "
        "other hardware each network would see another number of examples."
    )
    return sentences
