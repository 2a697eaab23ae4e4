"""The figures and findings of the notebook `physics_loss`."""

from __future__ import annotations

from math import sqrt

from sciml_fm_core.physics.tasks import Task
from sciml_fm_core.study.analysis import error_of, select, table, verdict_sentences
from sciml_fm_core.study.figures import Drawing, error_lines, panels

LOSSES = {"residual": "plain residual", "physics": "preconditioned", "relative": "labels without end"}


def way(record):
    """How an operator was trained, in words."""
    return LOSSES[record["loss"]] + (", curriculum" if record["easiest"] else "")


def middle(label):
    """Geometric middle of a task's range of the dial."""
    task = Task.parse(label)
    return sqrt(task.low * task.high)


def tasks_of(trained: list[dict], label: str) -> list[str]:
    """Tasks of the trainings from random weights that share a system with a task, along the dial."""
    system = Task.parse(label).system
    own = {record["task"] for record in trained if Task.parse(record["task"]).system is system}
    return sorted(own, key=lambda task: Task.parse(task).low)


def parts(records: list[dict]) -> tuple[list[dict], list[str], dict[str, list[dict]]]:
    """The trainings from random weights, the far ends of their dials, and the tunings by what was tuned."""
    trained = select(records, parent="")
    far_ends = [record["task"] for record in select(trained, loss="physics") if record["easiest"]]
    parents = dict.fromkeys(record["parent"] for record in records if record["parent"])
    return trained, far_ends, {parent: select(records, parent=parent) for parent in parents}


def figures(records: list[dict]) -> dict[str, Drawing]:
    """The figures, by the names of their files."""
    (trained, far_ends, tuned), drawn = parts(records), []
    for far in far_ends:
        tasks, parsed = tasks_of(trained, far), Task.parse(far)
        ticks = [(middle(task), f"{Task.parse(task).low:g} to {Task.parse(task).high:g}") for task in tasks]
        own = [record for record in trained if record["task"] in tasks]
        title, dial = parsed.system.label, parsed.system.dial_name
        drawn.append(error_lines(own, lambda r: middle(r["task"]), dial, way, title, ticks=ticks, among=trained))
    along_the_dial = panels(drawn, 2)
    drawn = []
    for parent, own in tuned.items():
        title, common = f"{parent} on {own[0]['task']}", {"level": own[0]["error_before"], "among": records}
        drawn.append(error_lines(own, lambda r: r["cpu_seconds"], "seconds of computing", way, title, **common))
    return {"along_the_dial": along_the_dial, "against_seconds": panels(drawn, 2)}


def findings(records: list[dict]) -> list[str]:
    """What the records show, as paragraphs of Markdown."""
    trained, far_ends, tuned = parts(records)
    sentences, verdicts = [], []
    for far in far_ends:
        tasks, label = tasks_of(trained, far), Task.parse(far).system.label
        near = tasks[0]

        def error(loss, task, easiest=""):
            """Error of one training from random weights."""
            return error_of(trained, loss=loss, task=task, easiest=easiest)

        rows = [[name, *(f"{error(loss, task):.2%}" for task in tasks)] for loss, name in LOSSES.items()]
        for loss in ("residual", "physics"):
            rows.append([f"{LOSSES[loss]}, curriculum", *["" for _ in tasks[1:]], f"{error(loss, far, near):.2%}"])
        sentences.append(table(["from random weights, by", *tasks], rows))
        plain, labelled = (error(loss, far) / error(loss, near) for loss in ("residual", "relative"))
        verdicts.append((f"the plain residual fails as the dial of {label} grows", plain > 2 * labelled))
        sentences.append(
            f"**{label}.** From {near} to {far} the error after training by the plain residual grows {plain:.1f} "
            f"times, by labels {labelled:.1f} times; more than twice as much counts as failure."
        )
        if error("relative", far) > 0.3:
            sentences.append(
                f"At {far} even labels leave {error('relative', far):.0%}: so far along the dial these steps are too "
                "few for any loss, and the order of the losses is that of a beginning."
            )
        gains = [error("residual", task) / error("physics", task) for task in tasks]
        more = gains == sorted(gains) and gains[-1] > 1
        verdicts.append((f"the preconditioner helps the more the further the dial of {label}", more))
        effect = {loss: error(loss, far) / error(loss, far, near) for loss in ("residual", "physics")}
        sentences.append(
            f"The preconditioner divides the error by {', '.join(f'{gain:.2f}' for gain in gains)} along the dial, the "
            f"curriculum at its end by {effect['residual']:.2f} (plain) and {effect['physics']:.2f} (preconditioned)."
        )
        verdicts.append((f"a curriculum helps the plain residual on {label}", effect["residual"] > 1.1))
    rows = []
    for r in (r for own in tuned.values() for r in own):
        errors = f"{r['error_before']:.2%}", f"{r['error']:.2%}"
        rows.append([r["parent"], r["task"], way(r), r["steps"], f"{r['cpu_seconds']:.0f} s", *errors])
    sentences.append(table(["operator", "task", "loss", "steps", "computing", "before", "after, 0 labels"], rows))
    for parent, own in tuned.items():
        plain, best = (min(select(own, loss=loss), key=lambda r: r["error"]) for loss in ("residual", "physics"))
        before, quickest = best["error_before"], min(select(own, loss="physics"), key=lambda r: r["steps"])
        verdicts.append((f"the preconditioned residual mends {parent} in seconds", quickest["error"] < before))
        verdicts.append((f"the plain one does not mend {parent}", plain["error"] >= before))
        sentences.append(
            f"**{parent} on {best['task']}, no labels.** The preconditioned residual takes the error from {before:.2%} "
            f"to {best['error']:.2%} in {best['cpu_seconds']:.0f} s, the plain one to {plain['error']:.2%}."
        )
    sentences += verdict_sentences(verdicts, of="the claim")
    shown_seeds = sorted({record["seed"] for record in records})
    sentences.append(
        f"Seeds: {', '.join(map(str, shown_seeds))}. Differences of a tenth between two errors may be chance."
    )
    return sentences
