"""The figures and findings of the notebook `weight_spectra`."""

from __future__ import annotations

from functools import partial

import torch

from sciml_fm_core.experiments.ranks import rank_correlation
from sciml_fm_core.experiments.weight_spectra.runs import FURTHEST
from sciml_fm_core.physics.tasks import PAPER_TASKS
from sciml_fm_core.study.analysis import select, table, verdict_sentences
from sciml_fm_core.study.figures import Drawing, error_lines, panels


def correlation(rows, name="exponent"):
    """Spearman's correlation of a number with the error, and how often chance does as well."""
    x, y = (torch.tensor([float(row[key]) for row in rows], dtype=torch.float64) for key in (name, "error"))
    return rank_correlation(x, y, generator=torch.Generator().manual_seed(0)) if len(rows) > 2 else (float("nan"), 1.0)


def _rows(records: list[dict]) -> tuple[list[dict], list[dict]]:
    """The operators by system, and the snapshots of the trainings, each with its mean exponent and its error."""
    measured = [
        {"parent": r["parent"], "trained": r["trained"], "exponent": r["exponent"], "system": system, "error": error}
        for r in select(records, kind="weight_spectra")
        for label, error in zip(r["tasks"], r["error"], strict=True)
        for system in PAPER_TASKS
        if label == FURTHEST[system]
    ]
    snapshots = [
        {name: r[name] for name in ("task", "parent", "seed")} | {"exponent": exponent, "error": error, "step": step}
        for r in select(records, kind="training_spectra")
        for step, exponent, error in zip(r["at"], r["exponent"], r["error"], strict=True)
    ]
    return measured, snapshots


def _trainings(snapshots: list[dict]) -> dict[str, list[dict]]:
    """The snapshots of each kind of training by its name, pre-trainings first."""
    kinds = sorted({(row["parent"], row["task"]) for row in snapshots}, key=lambda pair: (bool(pair[0]), pair))
    return {
        f"{parent} to {task}" if parent else task: select(snapshots, parent=parent, task=task) for parent, task in kinds
    }


def figures(records: list[dict]) -> dict[str, Drawing]:
    """The figures, by the names of their files."""
    measured, snapshots = _rows(records)
    groups, trainings = dict.fromkeys(row["system"] for row in measured), _trainings(snapshots)
    points = partial(error_lines, x=lambda row: row["exponent"], axis="mean exponent", even=True, joined=False)
    across = [
        points(select(measured, system=of), label=lambda row: row["trained"], title=FURTHEST[of], among=measured)
        for of in groups
    ]
    along = [
        points(own, label=lambda row: f"seed {row['seed']}", title=name, among=snapshots)
        for name, own in trainings.items()
    ]
    return {"across_operators": panels(across, 3), "along_trainings": panels(along, max(1, len(along) // 2))}


def findings(records: list[dict]) -> list[str]:
    """What the records show, as paragraphs of Markdown."""
    measured, snapshots = _rows(records)
    groups = list(dict.fromkeys(row["system"] for row in measured))
    sentences, verdicts, rows, related = [], [], [], []
    for system in [*groups, None]:
        own = measured if system is None else select(measured, system=system)
        found, chance = correlation(own)
        related += [system] if system and chance < 0.05 and found > 0 else []
        ends = [row["exponent"] for row in own]
        name = "all together" if system is None else FURTHEST[system]
        rows.append([name, str(len(own)), f"{min(ends):.2f} to {max(ends):.2f}", f"{found:+.2f}", f"{chance:.3f}"])
    sentences.append(table(["error on", "operators", "exponents", "rank correlation", "chance does as well"], rows))
    verdicts.append(("no equation where a smaller exponent goes with a smaller error out of range", not related))
    rows, moved, steady = [], [], []
    for name, of_all in _trainings(snapshots).items():
        least = 1.0
        for seed in sorted({row["seed"] for row in of_all}):
            own = sorted(select(of_all, seed=seed), key=lambda row: row["step"])
            (found, _), (steps, _), ends = correlation(own), correlation(own, "step"), [row["exponent"] for row in own]
            fell, least = own[0]["error"] / own[-1]["error"], min(least, found)
            moved += [(fell, max(ends) / min(ends))] if own[0]["parent"] else []
            ranges = f"{min(ends):.2f} to {max(ends):.2f}"
            rows.append([name, str(seed), f"{fell:.1f}", ranges, f"{found:+.2f}", f"{steps:+.2f}"])
        steady += [name] if least >= 0.8 else []
    header = ["training", "seed", "error falls by", "exponents", "rank correlation", "of the step instead"]
    sentences.append(table(header, rows))
    verdicts.append(("no training along which the exponent falls with the error in every seed", not steady))
    if steady:
        sentences.append(
            f"In every seed of training on {' and '.join(steady)} the exponent falls with the error (a rank "
            "correlation of 0.8 or more); the number of steps taken, which is known anyway, tells as much of it."
        )
    if moved:
        falls, changes = zip(*moved, strict=True)
        sentences.append(
            f"In the fine-tunings the error falls {min(falls):.1f} to {max(falls):.1f} times, and the exponent "
            f"changes by {max(changes) - 1:.1%} at most."
        )
    sentences += verdict_sentences(verdicts)
    sentences.append(
        "Operators of one equation differ in recipe, size of the training set and range, so that a correlation "
        "across them need not be one of cause; with so few of them a single operator can turn it."
    )
    return sentences
