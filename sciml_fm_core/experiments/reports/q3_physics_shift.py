"""The figures, numbers and findings of the notebook `q3_physics_shift`."""

from __future__ import annotations

from sciml_fm_core.physics.system import PRETRAINING
from sciml_fm_core.physics.tasks import PAPER_TASKS, Task
from sciml_fm_core.study.analysis import Form, error_of, percent, savings, select, table
from sciml_fm_core.study.figures import error_panels, savings_figure, strip

from .shared import Figures, Records, cells_of, columns_of, common_counts, groups

SHIFTS = ("none", "mild", "medium", "large")


def figures(records: Records) -> Figures:
    """For SYS-1 and SYS-2: error against examples at each shift, the examples saved, and how dials are distributed."""
    figures: Figures = {}
    for name, system in (("sys-1", "poisson"), ("sys-2", "advection_diffusion")):
        trained, shifts = PAPER_TASKS[system][PRETRAINING], {PAPER_TASKS[system][shift]: shift for shift in SHIFTS}
        own = [r for r in select(records, recipe="dimensionless") if r["task"] in shifts]

        def titled(record: dict, shifts: dict[str, str] = shifts) -> str:
            return f"{shifts[record['task']]} {record['task']}"

        figures[name] = error_panels(own, titled, lambda r: r["start"])
        figures[f"{name}_saved"] = savings_figure(own, titled, trained)
        figures[f"{name}_dial"] = strip(trained, list(shifts))
    return figures


def numbers(records: Records, form: Form = percent) -> str:
    """Errors at each shift; zero-shot alone for the paper's recipe and the mixture conditioned on the symbol."""
    columns, names = columns_of(common_counts(select(records, recipe="dimensionless")))
    rows = []
    for (task,), of_task in groups(records, "task"):
        own, *others = (select(of_task, recipe=recipe) for recipe in ("dimensionless", "paper", "symbol"))
        rows.append([task, *cells_of(own, columns, form), *(cells_of(other, columns[:1], form)[0] for other in others)])
    return table(["task", *names, "`sys-1-paper`, zero-shot", "`symbol`, zero-shot"], rows)


def overlap(label, pretraining):
    """Share of a range that lies inside the pre-training range."""
    inner, outer = Task.parse(label), Task.parse(pretraining)
    return max(0.0, min(inner.high, outer.high) - max(inner.low, outer.low)) / (inner.high - inner.low)


def findings(records: list[dict]) -> list[str]:
    """What the records show, as paragraphs of Markdown."""
    told, published = (select(records, recipe=recipe) for recipe in ("symbol", "paper"))
    records = select(records, recipe="dimensionless")
    tasks = {system: [PAPER_TASKS[system][shift] for shift in SHIFTS] for system in ("poisson", "advection_diffusion")}
    trained = {system: PAPER_TASKS[system]["pre-training"] for system in tasks}
    sentences = []

    def zero_shot(of: Records, labels: list[str]) -> tuple[list[float], str]:
        """Errors without examples, and with the names of the shifts."""
        zero = [error_of(of, task=label, start="fine-tuned", examples=0) for label in labels]
        return zero, ", ".join(f"{shift} {value:.2%}" for shift, value in zip(SHIFTS, zero, strict=True))

    for system, labels in tasks.items():
        zero, listed = zero_shot(records, labels)
        order = "is" if zero == sorted(zero) else "is not"
        sentences.append(
            f"**{trained[system]}.** Zero-shot: {listed}. The order {order} the paper's: none < mild < medium < large."
        )
        common = sorted(set.intersection(*({r["examples"] for r in select(records, task=label)} for label in labels)))
        most = common[-1]
        tuned = [error_of(records, task=label, start="fine-tuned", examples=most) for label in labels]
        scratch = [error_of(records, task=label, start="from scratch", examples=most) for label in labels]
        sentences.append(
            f"With {most:,} examples, fine-tuned and from scratch: "
            + ", ".join(f"{shift} {a:.2%} and {b:.2%}" for shift, a, b in zip(SHIFTS, tuned, scratch, strict=True))
            + (". Fine-tuned, the order stays." if tuned == sorted(tuned) else ". Fine-tuned, the order does not stay.")
        )
        losing = [
            f"{label} with {count:,}"
            for label in labels
            for count in sorted({r["examples"] for r in select(records, task=label)} - {0})
            if error_of(records, task=label, start="fine-tuned", examples=count)
            >= error_of(records, task=label, start="from scratch", examples=count)
        ]
        sentences.append(
            "Fine-tuning is ahead everywhere." if not losing else f"From scratch is ahead on {', '.join(losing)}."
        )
        beyond = sum(s.beyond for label in labels for s in savings(select(records, task=label)))
        points = sum(len(savings(select(records, task=label))) for label in labels)
        sentences.append(
            f"{beyond} of {points} points, zero-shot included, are beyond every operator trained from scratch."
        )
        if system == "poisson":
            sentences.append(f"By the paper's recipe, zero-shot: {zero_shot(published, labels)[1]}.")
        zero, listed = zero_shot(told, labels)
        sentences.append(
            f"Told the symbol instead, and pre-trained on the mixture, zero-shot: {listed}; the largest shift is "
            f"{max(zero) / zero[0]:.1f} times the error inside."
        )
    return sentences
