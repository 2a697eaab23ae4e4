"""The findings of the notebook `q1_downstream_data`."""

from __future__ import annotations

import itertools

from sciml_fm_core.study.analysis import examples_to_reach, median_errors, select
from sciml_fm_core.study.questions import TOLD


def reached(curve, level):
    """Examples as text."""
    count = examples_to_reach(curve, level)
    return f"more than {max(r['examples'] for r in curve):,}" if count is None else f"{count:,.0f}"


def findings(records: list[dict]) -> list[str]:
    """What the records show, as paragraphs of Markdown."""
    curves = {
        (task, recipe, start): select(records, task=task, recipe=recipe, start=start)
        for task, recipe in dict.fromkeys((record["task"], record["recipe"]) for record in records)
        for start in ("fine-tuned", "from scratch")
    }
    sentences = []
    for task, recipe in dict.fromkeys((task, recipe) for task, recipe, _ in curves):
        tuned, scratch = curves[task, recipe, "fine-tuned"], curves[task, recipe, "from scratch"]
        medians, others = median_errors(tuned), median_errors(scratch)
        pairs = [(count, medians[count], others[count]) for count in medians if count]
        ahead = [count for count, a, b in pairs if a < b]
        falls = all(a >= b for (_, _, a), (_, _, b) in itertools.pairwise(pairs))
        most, best_tuned, best_scratch = pairs[-1]
        number = len({record["seed"] for record in tuned})
        sentences.append(
            f"**{task}, {TOLD[recipe]}:** zero-shot {medians[0]:.2%}; with {most:,} examples fine-tuned "
            f"{best_tuned:.2%}, from scratch {best_scratch:.2%}. "
            f"Fine-tuning is ahead at {len(ahead)} of {len(pairs)} sizes; "
            f"from scratch the error {'falls' if falls else 'does not always fall'} with examples. "
            + ("One seed." if number == 1 else f"Medians of up to {number} seeds.")
        )
        common = max(min(a for _, a, _ in pairs), min(b for _, _, b in pairs))
        a, b = examples_to_reach(tuned, common), examples_to_reach(scratch, common)
        saved = (
            "without any example"
            if a == 0
            else f"with {a:,.0f} examples, a saving of {b / a:,.0f} times"
            if a and b
            else ""
        )
        if b:
            sentences.append(
                f"At {common:.2%}, the lowest error that both starts reach: from scratch {b:,.0f} examples, "
                f"fine-tuned {saved}."
            )
    needed = {
        f"{start}, {TOLD[recipe]}: {reached(curve, 0.01)}"
        for (task, recipe, start), curve in curves.items()
        if task == "SYS-1(5,10)"
    }
    sentences.append(f"Examples for 1 % on SYS-1(5,10): {'; '.join(sorted(needed))}.")
    return sentences
