"""The figures, numbers and findings of the notebook `q1_downstream_data`."""

from __future__ import annotations

import itertools

from sciml_fm_core.experiments.paper import PRINTED
from sciml_fm_core.physics.system import PRETRAINING
from sciml_fm_core.physics.tasks import PAPER_TASKS
from sciml_fm_core.study.analysis import Form, examples_to_reach, median_errors, percent, select, table
from sciml_fm_core.study.figures import error_curves, strip

from .shared import TOLD, Figures, Records, cells_of, groups

LEVELS = (0.05, 0.02, 0.01)
"""Errors that the examples are counted for."""


def figures(records: Records) -> Figures:
    """Error against examples at the medium shifts of SYS-1 and of SYS-2, and how their dials are distributed."""
    figures: Figures = {}
    for name, system in (("sys-1", "poisson"), ("sys-2", "advection_diffusion")):
        trained, task = PAPER_TASKS[system][PRETRAINING], PAPER_TASKS[system]["medium"]
        own = select(records, task=task)
        figures[name] = error_curves(
            own, lambda r: f"{r['start']}, {TOLD[r['recipe']]}", f"{trained} to {task}", printed=PRINTED.get(task, {})
        )
        figures[f"{name}_dial"] = strip(trained, [task])
    return figures


def numbers(records: Records, form: Form = percent) -> str:
    """Errors by examples, and the examples that `LEVELS` take, empty where they are not reached."""
    counts, rows = sorted({record["examples"] for record in records}), []
    for (task, recipe, parent), both in groups(records, "task", "recipe", "shipped_parent"):
        for start in ("fine-tuned", "from scratch"):
            own = select(both, start=start)
            enough = [examples_to_reach(own, level) for level in LEVELS]
            cells = cells_of(own, [(start, count) for count in counts], form)
            name = f"`{parent or recipe}`"
            rows.append([task, name, start, *cells, *("" if e is None else f"{e:,.0f}" for e in enough)])
    header = ["task", "operator", "start", *(f"{count:,} examples" for count in counts)]
    return table([*header, *(f"for {100 * level:g} %" for level in LEVELS)], rows)


def findings(records: list[dict]) -> list[str]:
    """What the records show, as paragraphs of Markdown."""
    sentences = []
    for (task, recipe), own in groups(records, "task", "recipe"):
        tuned, scratch = (select(own, start=start) for start in ("fine-tuned", "from scratch"))
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
        if b:
            saved = f"with {a:,.0f} examples, a saving of {b / a:,.0f} times" if a else "without any example"
            sentences.append(
                f"At {common:.2%}, the lowest error that both starts reach: from scratch {b:,.0f} examples, "
                f"fine-tuned {saved}."
            )
    return sentences
