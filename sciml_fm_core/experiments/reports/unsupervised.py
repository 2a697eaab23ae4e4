"""The figures and findings of the notebook `unsupervised`."""

from __future__ import annotations

from math import exp, log
from statistics import fmean

from sciml_fm_core.experiments.unsupervised.runs import CHOSEN, SETTINGS, WAYS, few_shot_table, in_context_table
from sciml_fm_core.physics.tasks import Task
from sciml_fm_core.study.analysis import median_errors, savings, select, verdict_sentences
from sciml_fm_core.study.figures import Drawing, error_curves, panels

NAMES = {way: way for way in WAYS} | {"prediction": "as predicted", "neighbours": "neighbours, tuned"}


def points(record, **more):
    """The points of a record as records of their own."""
    return [{"task": record["task"], "seed": record["seed"]} | more | point for point in record["points"]]


def degradation(record):
    """How sources were degraded, in words."""
    parts = [f"{record['mask_ratio']:.0%} of the points masked"] if record["mask_ratio"] else []
    parts += [f"blurred by up to {record['blur']:g} / 64"] if record["blur"] else []
    return " and ".join(parts) + (", then the blocks alone kept" if record["new_output"] else "")


def validation(record):
    """Geometric mean of the validation errors over the numbers of examples."""
    return exp(fmean(log(point["validation_error"]) for point in record["points"]))


def between_ticks(points):
    """Ends of an axis that begins and ends at a labelled error."""
    ticks, errors = [digit * 10.0**p for p in range(-6, 4) for digit in (1, 2, 5)], [r["error"] for r in points]
    return 0.95 * max(t for t in ticks if t <= min(errors)), 1.05 * min(t for t in ticks if t >= max(errors))


def by_task(points):
    """Error against examples, a panel with axes of its own for each task."""
    drawn = []
    for name in dict.fromkeys(point["task"] for point in points):
        own = select(points, task=name)
        drawn.append(error_curves(own, lambda r: r["way"], name, ylim=between_ticks(own), among=points))
    return panels(drawn, 2)


def listed(parts):
    """Parts of a sentence."""
    parts = list(map(str, parts))
    return " and ".join([", ".join(parts[:-1]), parts[-1]] if len(parts) > 1 else parts)


def few_seeds(own):
    """A warning where there are fewer than three seeds."""
    number = len({record["seed"] for record in own})
    return "" if number > 2 else f" (by {number} seed{'s' * (number > 1)})"


def _curves(records: list[dict]) -> tuple[list[str], list[dict], dict[str, list[dict]], list[dict]]:
    """The tasks; the points of their curves; what was tried for each, the best first; and the points in context."""
    few_shot, in_context = (select(records, kind=kind) for kind in ("unsupervised", "in_context"))
    tasks = list(dict.fromkeys(record["task"] for record in few_shot))
    curves, tried = [], {}
    for task in tasks:
        own = select(few_shot, task=task)
        first = min(record["seed"] for record in own)
        tried[task] = sorted(select(own, start="unsupervised", seed=first), key=validation)
        chosen = SETTINGS[CHOSEN[own[0]["unlabelled"]]]
        for record in own:
            kept = {key: record[key] for key in chosen} == chosen
            if record["start"] == "from scratch":
                curves += points(record, start="from scratch", way="from scratch")
            elif record["start"] == "supervised":
                curves += points(record, start="fine-tuned", way="pre-trained by labels")
            elif kept:
                curves += points(record, start="fine-tuned", way="pre-trained on sources alone")
    beyond = [point | {"start": "fine-tuned", "way": NAMES[point["way"]]} for r in in_context for point in points(r)]
    return tasks, curves, tried, beyond


def figures(records: list[dict]) -> dict[str, Drawing]:
    """The figures, by the names of their files."""
    _, curves, _, beyond = _curves(records)
    return {"few_shot_errors": by_task(curves), "in_context_errors": by_task(beyond)}


def findings(records: list[dict]) -> list[str]:
    """What the records show, as paragraphs of Markdown."""
    tasks, curves, tried, beyond = _curves(records)
    sentences, verdicts = [few_shot_table(records, "{:.2%}".format), in_context_table(records, "{:.2%}".format)], []
    for task in tasks:
        own, label = select(curves, task=task), Task.parse(task).system.label
        counts = sorted({record["examples"] for record in own})
        best, used = tried[task][0], SETTINGS[CHOSEN[tried[task][0]["unlabelled"]]]
        have = "have" if {key: best[key] for key in used} == used else "do not have"
        sentences.append(
            f"**{label}, degradation.** On validation, with the error to which sources were restored: "
            + "; ".join(f"{degradation(r)}, {validation(r):.2%} ({r['pretraining_error']:.0%})" for r in tried[task])
            + f". The other seeds {have} the best one."
        )
        ours = [r for r in own if r["way"] in ("from scratch", "pre-trained on sources alone")]
        saved = savings(ours)
        fewest = median_errors(select(ours, way="from scratch"))[counts[0]]
        worth = [
            f"{saving.examples} are worth "
            + ("more than " if saving.beyond else "at most " if saving.error >= fewest else "")
            + f"{saving.from_scratch:.0f}"
            for saving in saved
        ]
        apart = {}
        for count in counts:
            scratch = [r["error"] for r in select(ours, way="from scratch", examples=count)]
            after = [r["error"] for r in select(ours, way="pre-trained on sources alone", examples=count)]
            apart[count] = 1 if max(after) < min(scratch) else -1 if min(after) > max(scratch) else 0
        saves = min(apart.values()) > 0
        verdicts.append((f"pre-training on sources alone saves labels on {task}{few_seeds(own)}", saves))
        sentences.append(
            f"**{label}, labels saved.** Of examples after pre-training on sources alone, {listed(worth)} from scratch "
            f"(medians, interpolated on logarithmic axes). Every seed of it is better than every "
            f"seed from scratch with {listed(c for c in counts if apart[c] > 0) or 'no number of'} examples, worse "
            f"with {listed(c for c in counts if apart[c] < 0) or 'none'}{few_seeds(own)}."
        )
        labelled = median_errors(select(own, way="pre-trained by labels"))
        tuned = median_errors(select(own, way="pre-trained on sources alone"))
        random = median_errors(select(own, way="from scratch"))
        gains = [f"{random[c] / tuned[c]:.2f} and {random[c] / labelled[c]:.2f} with {c}" for c in counts]
        sentences.append(
            f"For scale: the error from scratch is divided by {listed(gains)} examples, after pre-training on sources "
            "alone and by labels."
        )
        if max(tuned[counts[-1]], random[counts[-1]]) > 0.3:
            sentences.append(f"On {task} neither comes near a solution: their order is that of a beginning.")
    for task in dict.fromkeys(record["task"] for record in beyond):
        own, label = select(beyond, task=task), Task.parse(task).system.label
        counts = sorted({record["examples"] for record in own})
        ways = [name for name in NAMES.values() if any(r["way"] == name for r in own)]
        middle = {way: median_errors(select(own, way=way)) for way in ways}
        before, given = middle["as predicted"][0], counts[1:]
        two = "neighbours as released", "neighbours, tuned"
        help_ = [c for c in given if middle[two[0]][c] < before]
        tuned_help = [c for c in given if middle[two[1]][c] < before]
        wins = [c for c in given if min(middle[way][c] for way in two) < middle["one factor"][c]]
        simple = [c for c in given if middle["fine-tuned"][c] < min(middle[way][c] for way in (*two, "one factor"))]
        sentences.append(
            f"**{label}, in context.** Neighbours as released improve the prediction with "
            f"{listed(help_) or 'no number of'} examples, tuned with {listed(tuned_help) or 'none'}. The better of "
            f"both beats one factor with {listed(wins) or 'no number of'} examples; fine-tuning beats all of them with "
            f"{listed(simple) or 'none'} (medians)."
        )
        clear = [c for c in given if min(middle[way][c] for way in two) < 0.9 * middle["one factor"][c]]
        on = f"{task}{few_seeds(own)}"
        verdicts.append((f"neighbours as released improve predictions of {on}", help_ == given))
        verdicts.append((f"neighbours beat one factor by a tenth of the error on {on}", clear == given))
        verdicts.append((f"nothing beats fine-tuning at equal examples on {on}", simple == given))
        last = min(middle[way][given[-1]] for way in ways[1:])
        if last > 0.3:
            sentences.append(
                f"With {given[-1]} examples the best of them still errs by {last:.0%} on {task}: none is a solution. "
                "An answer of 0 everywhere errs by 100%, and an error near it says no more."
            )
    grid: list[float] = select(records, kind="unsupervised")[0]["learning_rates"]
    rates: dict[str, list[float]] = {}
    for point in curves:
        rates.setdefault(point["way"], []).append(point["learning_rate"])
    for end, rate in (("highest", max(grid)), ("lowest", min(grid))):
        often = listed(f"{chosen.count(rate)} of {len(chosen)} times {way}" for way, chosen in rates.items())
        sentences.append(f"The {end} learning rate of the grid, {rate:g}, was chosen {often}.")
    sentences.append("All starts take equal steps, and few: from scratch gains most from more of them.")
    sentences += verdict_sentences(verdicts, ("This run bears out", "This run does not bear out"))
    counted = {task: len({r["seed"] for r in records if r["task"] == task}) for task in (r["task"] for r in records)}
    shown_seeds = listed(f"{number} on {task}" for task, number in counted.items())
    sentences.append(f"Seeds: {shown_seeds}, of pre-training by labels one. What one seed shows may be chance.")
    return sentences
