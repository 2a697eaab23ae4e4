"""Runs that measure how well the distance to a training forecasts errors: areas under the ROC curve."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from sciml_fm_core.data.splits import draw_split, stream
from sciml_fm_core.evaluation.metrics import relative_error
from sciml_fm_core.experiments.ranks import area_under_roc
from sciml_fm_core.experiments.shipped import TRAINED_ON
from sciml_fm_core.experiments.training_range.method import LEVEL, TrainingRange
from sciml_fm_core.experiments.uncertainty.ensemble import ensemble_like, load_ensemble, shipped_ensembles
from sciml_fm_core.models.operator import load_operator
from sciml_fm_core.physics.sources import PRESETS, place
from sciml_fm_core.physics.spectral import parseval_weights, transform
from sciml_fm_core.physics.spectral_system import spectral
from sciml_fm_core.physics.system import System
from sciml_fm_core.physics.tasks import Task, tasks_of
from sciml_fm_core.schema import check_choice
from sciml_fm_core.study.analysis import select, spread, table
from sciml_fm_core.study.custom import CustomRun
from sciml_fm_core.study.registry import experiment, for_budget

KINDS = ("shifts", "other sources")
"""Kinds of cases that an operator is met with."""
WAVES = ((1, 0), (1, 1), (2, 1), (3, 3), (5, 2), (8, 0))
"""Wavevectors of the single waves."""
POINTS = 64
SCORES = ("flag", "dial", "residual", "spread", "both")
"""What is compared: the probability of `TrainingRange.forecast`; how far the dial alone is outside; the preconditioned
residual of the prediction, which needs the prediction, and is no distance; the spread of the shipped ensemble that was
trained as the operator was, over the size of its mean, where there is one; and the flag's error times that spread."""

Cases = list[tuple[System, Tensor, Tensor]]


@dataclass(frozen=True)
class TrainingRangeRun(CustomRun):
    """One operator, met with cases of one kind that did not set its flag.

    Attributes:
        parent: shipped operator or adaptation, or a bundle.
        cases: one of `KINDS`: test examples of all named shifts of its systems, or `other_cases` along their dials.
        seed: of the cases; that of the flag is 0.
        count: examples of each shift, or values of the dial for each source.
    """

    parent: str
    cases: str = "shifts"
    seed: int = 0
    count: int = 32
    kind: ClassVar[str] = "training range"

    def __post_init__(self):
        check_choice("cases", self.cases, KINDS)

    def measure(self, device):
        """Areas under the ROC curve by score, and the scores and errors of all cases, to pool them over operators."""
        operator = load_operator(self.parent, device)
        trained = TrainingRange.of(operator)
        alike = ensemble_like(tuple(operator.tasks), operator.card.get("recipe", ""))
        ensemble = load_ensemble(shipped_ensembles()[alike], device) if alike else None
        make = shift_cases if self.cases == "shifts" else other_cases
        found: dict[str, list[Tensor]] = {name: [] for name in (*SCORES, "error")}
        for system in operator.systems:
            for _, source, coefficients in make(system, self.count, self.seed):
                prediction = operator.predict(source, coefficients, system)
                distance = trained.distance(source, coefficients, system)
                forecast = trained.forecast(source, coefficients, system)
                found["flag"].append(forecast.probability.clamp(min=1e-4))
                found["dial"].append(distance["above"] + distance["below"])
                found["residual"].append(_preconditioned_residual(prediction, source, coefficients, system))
                if ensemble:
                    found["spread"].append(ensemble.predict(source, coefficients, system).relative_spread.double())
                    found["both"].append(forecast.error.to(source.device) * found["spread"][-1])
                found["error"].append(relative_error(prediction, system.solve(source, coefficients)).double())
        values = {name: torch.cat([part.cpu() for part in parts]) for name, parts in found.items() if parts}
        off = values["error"] > LEVEL
        areas = {name: _number(area_under_roc(values[name], off)) for name in SCORES if name in values}
        return {
            "system": ", ".join(system.label for system in operator.systems),
            "number": len(off),
            "off": int(off.sum()),
            **{f"area_{name}": areas.get(name) for name in SCORES},
            "right": round(((values["flag"] > 0.5) == off).double().mean().item(), 4),
            **{
                f"{name}s": [float(f"{v:.2g}") for v in values.get(name, torch.empty(0)).tolist()]
                for name in (*SCORES, "error")
            },
        }


def shift_cases(system: System, count: int, seed: int) -> Cases:
    """Test examples of every named shift of a system."""
    drawn = [
        draw_split(Task.parse(label), "test", count, seed=seed, resolution=POINTS)
        for label in tasks_of(system).values()
    ]
    return [(system, each.source, each.coefficients) for each in drawn]


def other_cases(system: System, count: int, seed: int) -> Cases:
    """Sources unlike the training data at values along the whole dial: presets, a stroke, a blob, single waves.

    >>> from sciml_fm_core import find_system
    >>> len(other_cases(find_system("SYS-1"), 2, 0))
    13

    Args:
        system: the equation.
        count: values of the dial for each source, one drawn in each of so many equal pieces of its scale.
        seed: of these, and of the other parameters.
    """
    x = torch.arange(POINTS, dtype=torch.float32, device="cpu") / POINTS
    along = [i / 39 for i in range(40)]
    stroke = [(0.2 + 0.6 * a, 0.5 + 0.25 * math.sin(5 * a), 1.0) for a in along]
    sources = [place(rows, POINTS, zero_mean=system.zero_mean) for rows in (*PRESETS.values(), stroke)]
    blob = torch.sigmoid(60 * (0.2 - torch.hypot(x - 0.5, 1.5 * (x[:, None] - 0.4))))
    sources.append(blob - blob.mean() if system.zero_mean else blob)
    sources += [torch.cos(2 * torch.pi * (kx * x + ky * x[:, None]) + 0.3) for kx, ky in WAVES]
    dial, generator, cases = system.dialled, stream(seed, "training range", "test", system.name), []
    share = (
        torch.arange(count, device="cpu") + torch.rand(count, generator=generator, dtype=torch.float64, device="cpu")
    ) / count
    low, high = (torch.tensor(end, dtype=torch.float64, device="cpu") for end in (dial.low, dial.high))
    values = low * (high / low) ** share if dial.logarithmic else low + (high - low) * share
    values = values.round() if dial.whole else values
    ends = torch.tensor([(p.low, p.high) for p in system.parameters], dtype=torch.float64, device="cpu").reshape(-1, 2)
    least, most = ends.unbind(1)
    for source in sources:
        rows = []
        for value in values:
            uniform = torch.rand(len(system.parameters), generator=generator, dtype=torch.float64, device="cpu")
            try:
                rows.append(system.coefficients(value, source.double(), least + uniform * (most - least)))
            except ValueError:  # a wave across the flow is never carried
                continue
        if rows:
            cases.append((system, source.expand(len(rows), -1, -1), torch.stack(rows).float()))
    return cases


def _preconditioned_residual(prediction: Tensor, source: Tensor, coefficients: Tensor, system: System) -> Tensor:
    """Relative residual ``||(L u - f) / P|| / ||f / P||`` with the `System.preconditioner` P, shape (count,)."""
    scale = spectral(system).preconditioner(coefficients, POINTS)
    residual = system.residual(prediction.double(), source.double(), coefficients)
    sizes = [(parseval_weights(POINTS) * (transform(each).abs() / scale).square()).sum((-2, -1)).sqrt()
             for each in (residual, source.double())]  # fmt: skip
    return sizes[0] / sizes[1]


def _number(value: float) -> float | None:
    return None if math.isnan(value) else round(value, 4)


ADAPTED = ("sys-1-32", "sys-2-32", "sys-3-32")
SEEDS = (0, 1, 2)


@experiment("training_range")
def training_range(budget: str) -> list[TrainingRangeRun]:
    """Every shipped operator and some of its adaptations, met with both kinds of cases, three seeds of each."""
    sizes = {"smoke": (4, 3), "laptop": (12, 5), "gpu": (512, 64), "paper": (512, 64)}
    shifts, values = for_budget(sizes, budget)
    operators, seeds = (("sys-1",), SEEDS[:1]) if budget == "smoke" else ((*TRAINED_ON, *ADAPTED), SEEDS)
    counts = {"shifts": shifts, "other sources": values}
    return [
        TrainingRangeRun(name, cases, seed, counts[cases]) for name in operators for cases in KINDS for seed in seeds
    ]


NAMES = {
    "flag": "flag", "dial": "dial alone", "spread": "spread of an ensemble", "both": "flag times spread",
    "residual": "residual, afterwards",
}  # fmt: skip
"""`SCORES` in words."""


def pooled(records: Sequence[dict], score: str) -> tuple[Tensor, Tensor]:
    """A score and whether the error is above the level, of all cases of some records."""
    keys = f"{score}s", "errors"
    values, errors = (torch.tensor([v for r in records for v in r[key]], dtype=torch.float64) for key in keys)
    return values, errors > LEVEL


def training_range_table(records: Sequence[dict]) -> str:
    """Areas under the ROC curve of each score, by operator and of all together."""
    scores, form, rows = ("flag", "dial", "spread", "residual"), "{:.3f}".format, []
    for cases in dict.fromkeys(r["cases"] for r in records):
        every = select(records, cases=cases)
        for parent in dict.fromkeys(r["parent"] for r in every):
            own = select(every, parent=parent)
            known = [[r[f"area_{score}"] for r in own if r[f"area_{score}"] is not None] for score in scores]
            if known[0]:
                rows.append([cases, f"`{parent}`", _share_off(own), *(spread(areas, form) for areas in known)])
        draws = [select(every, seed=seed) for seed in dict.fromkeys(r["seed"] for r in every)]
        known = [
            [area_under_roc(*pooled(draw, score)) for draw in draws if all(r[f"{score}s"] for r in draw)]
            for score in scores  # not every operator has an ensemble
        ]
        rows.append([cases, "all together", _share_off(every), *(spread(areas, form) for areas in known)])
    return table(["cases", "operator", "off", *(NAMES[score] for score in scores)], rows)


def _share_off(records: Sequence[dict]) -> str:
    return f"{sum(r['off'] for r in records) / sum(r['number'] for r in records):.0%}"
