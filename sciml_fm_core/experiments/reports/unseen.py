"""The figures, numbers and findings of the notebook `unseen`."""

from __future__ import annotations

from collections.abc import Callable

from sciml_fm_core.experiments.paper import UNSEEN
from sciml_fm_core.physics.tasks import Task
from sciml_fm_core.study.analysis import Form, error_of, median_errors, percent, select, table
from sciml_fm_core.study.figures import Drawing, error_panels

from .shared import TOLD, Figures, Records, cells_of, columns_of, common_counts, groups


def figures(records: Records) -> Figures:
    """Error against examples on each of the paper's systems held out, and on the equations beside them."""
    beside = [record for record in records if record["task"] in UNSEEN]
    apart = [record for record in records if record["task"] not in UNSEEN]
    held_out = select(apart, pretraining_examples=min(record["pretraining_examples"] for record in apart))

    def told(record: dict) -> str:
        return TOLD[record["recipe"]]

    def panelled(own: Records, title: Callable[[dict], str]) -> Drawing:
        return error_panels(own, title, lambda r: f"{told(r)}, {r['start']}", columns=2, colour=told)

    return {
        "held_out": panelled(held_out, lambda r: f"{r['task']} after {r['parent']}"),
        "beside": panelled(beside, lambda r: Task.parse(r["task"]).system.title),
    }


def numbers(records: Records, form: Form = percent) -> str:
    """Errors before and after fine-tuning, and from scratch, with the ratio of the last two of each."""
    counts, rows = common_counts(records), []
    columns, tuned_columns = columns_of(counts)[0], len(counts) + 1
    for (parent, recipe, task, seen), own in groups(records, "parent", "recipe", "task", "pretraining_examples"):
        tuned = select(own, start="fine-tuned")
        twin = select(records, start="from scratch", recipe=recipe, task=task)
        ratio = f"{median_errors(tuned)[counts[-1]] / median_errors(twin)[counts[-1]]:.2f}"
        cells = [*cells_of(tuned, columns[:tuned_columns], form), *cells_of(twin, columns[tuned_columns:], form)]
        rows.append([f"{seen:,} of {parent}", f"`{recipe}`", task, *cells, ratio])
    header = ["pre-trained on", "recipe", "measured on", "0", *map(str, counts), *(f"scratch, {n}" for n in counts)]
    return table([*header, f"ratio at {counts[-1]}"], rows)


RECIPES = ("symbol-composed", "symbol", "dimensionless")


def listed(tasks):
    """Tasks in words."""
    return ", ".join(tasks) or "none"


def findings(records: list[dict]) -> list[str]:
    """What the records show, as paragraphs of Markdown."""
    beside = [record for record in records if record["task"] in UNSEEN]
    apart = [record for record in records if record["task"] not in UNSEEN]
    seen = min(record["pretraining_examples"] for record in apart)
    held_out = select(apart, pretraining_examples=seen)
    longer = [record for record in apart if record not in held_out]
    counts = sorted({record["examples"] for record in records})
    most = counts[-1]
    pairs = list(dict.fromkeys((record["task"], record["recipe"]) for record in [*held_out, *beside]))

    def error(task, recipe, start, examples):
        """Error of one point."""
        return error_of([*held_out, *beside], task=task, recipe=recipe, start=start, examples=examples)

    def gain(task, recipe):
        """How many times smaller than from scratch the error is after fine-tuning, with the most examples."""
        return error(task, recipe, "from scratch", most) / error(task, recipe, "fine-tuned", most)

    sentences = [numbers(records, "{:.2%}".format)]
    of_paper = list(dict.fromkeys(record["task"] for record in held_out))
    third = {recipe: [task for task in of_paper if gain(task, recipe) >= 3] for recipe in RECIPES}
    solved = {recipe: [task for task in of_paper if error(task, recipe, "fine-tuned", 0) < 0.1] for recipe in RECIPES}
    sentences.append(f"**Held out**, {listed(of_paper)} in turn:")
    sentences += [
        f"- {TOLD[recipe].capitalize()}, an operator that never saw the equation is below 10 % without any example on "
        f"{listed(solved[recipe])}. With {most} examples its error is at most a third of training from scratch's on "
        f"{listed(third[recipe])}."
        for recipe in RECIPES
    ]
    ahead = {task: min(RECIPES, key=lambda recipe: error(task, recipe, "fine-tuned", most)) for task in of_paper}
    sentences.append(
        f"Fine-tuned on {most} examples, the best network is: "
        + "; ".join(
            f"on {task}, {TOLD[recipe]} ({error(task, recipe, 'fine-tuned', most):.2%})"
            for task, recipe in ahead.items()
        )
        + "."
    )
    if longer:
        (task,) = {record["task"] for record in longer}
        values = {count: error_of(longer, examples=count) for count in counts}
        sentences.append(
            f"Pre-trained on {longer[0]['pretraining_examples']:,} examples instead of {seen:,}, the operator told "
            f"compositions too has on {task} "
            + ", ".join(f"{values[count]:.2%} with {count}" for count in counts)
            + f" examples: with {most}, {error(task, 'symbol-composed', 'from scratch', most) / values[most]:.1f} "
            "times less than from scratch."
        )
    zero_shot = {Task.parse(task).system.title: error(task, "symbol", "fine-tuned", 0) for task in UNSEEN}
    sentences.append(
        "**Beside the paper's.** Zero-shot, the mixture's mean error is "
        + ", ".join(f"{value:.2%} ({name})" for name, value in zero_shot.items())
        + f"; from scratch, {most} examples give "
        + ", ".join(f"{error(task, 'symbol', 'from scratch', most):.2%}" for task in UNSEEN)
        + "."
    )
    worse, behind = [], []
    for task, recipe in pairs:
        for count in counts[1:]:
            tuned, name = error(task, recipe, "fine-tuned", count), f"{task} ({TOLD[recipe]}, {count})"
            worse += [name] if tuned > error(task, recipe, "fine-tuned", 0) else []
            behind += [name] if tuned >= error(task, recipe, "from scratch", count) else []
    sentences.append(
        f"Fine-tuning leaves a larger error than no example at all for: {listed(worse)}. Training from scratch is as "
        f"good as fine-tuning, or better, for: {listed(behind)}."
    )
    missed = [task for task in of_paper if task not in third["symbol"] + third["symbol-composed"]]
    missed += [task for task in UNSEEN if gain(task, "symbol") < 1]
    sentences.append(
        f"The claim does not hold for: {listed(missed)}. "
        f"{len({record['seed'] for record in held_out})} seeds of the examples where compositions are told, of "
        f"which these are medians, and one of the others; one of the pre-training, on {seen:,} examples."
    )
    return sentences
