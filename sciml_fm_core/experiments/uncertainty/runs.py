"""Runs of spreads of several kinds, calibrated inside the range of training and on the target itself.

For each of the paper's systems small operators are trained apart (a deep ensemble). On the first of them stand the
others: heads that are pushed apart, a Gaussian posterior of its last layer, a constant, and how far one step of a
preconditioned iteration would move its prediction. Each spread becomes a band by split conformal calibration.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor

from sciml_fm_core.data.splits import draw_split
from sciml_fm_core.evaluation.metrics import mean_relative_error, relative_error
from sciml_fm_core.experiments.uncertainty.ensemble import Prediction, pretrain_ensemble
from sciml_fm_core.experiments.uncertainty.method import (
    GAUSSIAN_90,
    conformal_factor,
    conformal_scores,
    covered,
    gaussian_crps,
    known_mean,
    log_correlation,
    preconditioned_step,
    probconserv,
    relative_width,
)
from sciml_fm_core.experiments.uncertainty.operators import LastLayerLaplace, choose_diversity
from sciml_fm_core.physics.examples import Examples
from sciml_fm_core.physics.spectral import root_mean_square
from sciml_fm_core.physics.system import PRETRAINING, SYSTEMS, System
from sciml_fm_core.physics.tasks import PAPER_TASKS, Task
from sciml_fm_core.study.analysis import select, spread, table
from sciml_fm_core.study.custom import CustomRun, Schedule
from sciml_fm_core.study.registry import experiment, for_budget
from sciml_fm_core.training.config import TrainConfig

SHARE = 0.9
"""Share of the points that a band is to hold, and of the examples whose band is to do so."""
TARGET_EXAMPLES = 32
"""Solved examples of the target on which a band is calibrated anew."""
METHODS = ("deep ensemble", "diverse heads", "last-layer Laplace", "residual step", "constant")

Predict = Callable[[Examples], Prediction]


@dataclass(frozen=True)
class UncertaintyRun(CustomRun):
    """Spreads of all kinds for one system, on no, mild, medium and large shift.

    Attributes:
        system: key of `PAPER_TASKS`.
        seed: which operators: those of seeds ``members * seed`` and on.
        members, size, steps, resolution: of the deep ensemble.
        head_steps, diversities: of the diverse heads, see `choose_diversity`.
        calibration: examples of the pre-training range that bands are calibrated on.
        test, test_resolution: test examples of each shift.
    """

    system: str
    seed: int = 0
    members: int = 3
    size: str = "256K"
    steps: int = 2000
    resolution: Schedule = ((0.0, 32), (0.9, 64))
    head_steps: int = 150
    diversities: tuple[float, ...] = (0.01, 0.1)
    calibration: int = 1000
    test: int = 500
    test_resolution: int = 64
    kind: ClassVar[str] = "uncertainty"

    def measure(self, device):
        """A row for each method and shift: see `_row`."""
        tasks = PAPER_TASKS[self.system]
        inside = Task.parse(tasks[PRETRAINING])
        n, system = self.test_resolution, inside.system
        config = TrainConfig(steps=self.steps, validate_every=max(20, self.steps // 40))
        ensemble = pretrain_ensemble(
            [inside], config, members=self.members, seed=self.members * self.seed, size=self.size,
            resolution=dict(self.resolution), device=device,
        )  # fmt: skip
        first = ensemble.members[0]
        held = draw_split(inside, "validation", self.calibration, resolution=n).to(device)
        heads = choose_diversity(
            first, inside, diversities=self.diversities, steps=self.head_steps, seed=self.seed, resolution=n,
            validation=min(64, self.calibration),
        )  # fmt: skip
        seen, some = draw_split(inside, "train", 200, resolution=n).to(device), slice(0, min(200, self.calibration))
        laplace = LastLayerLaplace.fit(first, seen, held.take(some))

        def step(examples: Examples) -> Prediction:
            mean = first.predict(examples.source, examples.coefficients, system)
            move = preconditioned_step(mean, examples.source, examples.coefficients, system)
            return Prediction(mean, root_mean_square(move)[:, None, None].expand_as(mean))

        def constant(examples: Examples) -> Prediction:
            mean = first.predict(examples.source, examples.coefficients, system)
            return Prediction(mean, root_mean_square(mean)[:, None, None].expand_as(mean))

        ways: dict[str, Predict] = {
            "deep ensemble": lambda one: ensemble.predict(one.source, one.coefficients, system),
            "diverse heads": lambda one: heads.ensemble.predict(one.source, one.coefficients, system),
            "last-layer Laplace": lambda one: laplace.predict(one.source, one.coefficients, system),
            "residual step": step,
            "constant": constant,
        }
        rows: list[dict[str, Any]] = []
        for method, predict in ways.items():
            factor = _factor(predict(held), held.solution)
            for shift, label in tasks.items():
                test = draw_split(Task.parse(label), "test", self.test, resolution=n).to(device)
                few = draw_split(Task.parse(label), "train", TARGET_EXAMPLES, seed=self.seed, resolution=n).to(device)
                anew = _factor(predict(few), few.solution)
                rows.append({"method": method, "shift": shift, "task": label} | _row(predict(test), test, factor, anew))
                if method == "deep ensemble":
                    rows[-1] |= _conserved(predict(test), test, system)
        return {
            "training_seconds": ensemble.card["seconds"],
            "diversity": heads.diversity,
            "diversities_tried": {f"{key:g}": round(value, 5) for key, value in heads.tried.items()},
            "error_of_one": round(heads.start, 6),
            "laplace_precision": laplace.precision,
            "rows": rows,
        }


def _least(prediction: Prediction) -> Tensor:
    """The spread, nowhere smaller than a thousandth of the field: where members agree by chance no factor would do."""
    return torch.maximum(prediction.spread, 1e-3 * root_mean_square(prediction.mean)[:, None, None])


def _factor(prediction: Prediction, solution: Tensor) -> float:
    return conformal_factor(conformal_scores(prediction.mean, _least(prediction), solution, SHARE), SHARE)


def _row(prediction: Prediction, test: Examples, inside: float, target: float) -> dict[str, Any]:
    """Error, correlation of spread and error, and of bands their coverage and width.

    ``covered`` are shares of the examples of whose points a band holds `SHARE`; ``crps`` is that of a Gaussian over the
    root mean square of the solution, with the spread times the inside factor over that of a Gaussian of `SHARE`.
    """
    mean, spread, solution = prediction.mean, _least(prediction), test.solution
    size = root_mean_square(solution)
    spread_size = root_mean_square(prediction.spread) / size
    correlation = log_correlation(spread_size.clamp(min=1e-12), relative_error(mean, solution))

    def band(factor: float) -> tuple[float, float]:
        held = (covered(mean, factor * spread, solution) >= SHARE).double().mean().item()
        return round(held, 4), round(relative_width(factor * spread, solution).median().item(), 6)

    points = covered(mean, GAUSSIAN_90 * prediction.spread, solution).mean().item()
    score = gaussian_crps(mean, inside / GAUSSIAN_90 * spread, solution).mean(dim=(-2, -1)) / size
    (held_inside, width_inside), (held_target, width_target) = band(inside), band(target)
    return {
        "error": round(mean_relative_error(mean, solution), 6),
        "pearson": round(correlation.pearson, 4),
        "spearman": round(correlation.spearman, 4),
        "points_in_gaussian_90": round(points, 4),
        "covered_inside": held_inside,
        "width_inside": width_inside,
        "covered_target": held_target,
        "width_target": width_target,
        "crps": round(score.mean().item(), 6),
    }


def _conserved(prediction: Prediction, test: Examples, system: System) -> dict[str, float]:
    """Errors with the mean of the solution given, by ProbConserv."""
    n = test.source.shape[-1]
    constraint = torch.full((1, n, n), 1 / n**2, dtype=prediction.mean.dtype, device=prediction.mean.device)
    values = known_mean(test.source, test.coefficients, system)[:, None]
    updated = probconserv(prediction.mean, _least(prediction), constraint, values)
    return {"error_conserved": round(mean_relative_error(updated, test.solution), 6)}


SMALL: dict[str, Any] = {"members": 2, "size": "64K", "steps": 2, "resolution": ((0.0, 32),), "head_steps": 2}
SMALL |= {"calibration": 20, "test": 8, "test_resolution": 32}
LAPTOP_STEPS = {"poisson": 2000, "advection_diffusion": 3000, "helmholtz": 3000}


@experiment("uncertainty")
def uncertainty(budget: str = "laptop") -> list[UncertaintyRun]:
    """All systems of the paper, each with three ensembles but at the smallest budget."""
    settings: dict[str, dict[str, Any]] = {
        "smoke": SMALL,
        "laptop": {},
        "gpu": {"members": 5, "size": "1M", "steps": 20_000, "head_steps": 2000, "test_resolution": 128},
        "paper": {"members": 5, "size": "1M", "steps": 128_000, "head_steps": 5000, "test_resolution": 128},
    }
    chosen = for_budget(settings, budget)
    return [
        UncertaintyRun(system, seed, **({"steps": steps} | chosen))
        for system, steps in LAPTOP_STEPS.items()
        for seed in ((0,) if budget == "smoke" else (0, 1, 2))
    ]


def uncertainty_table(records: Sequence[dict]) -> str:
    """Table of how each spread follows the errors, and of what its bands hold.

    Half widths and scores (CRPS, lower is better) are shares of the size of the solution.
    """
    rows = []
    for system in dict.fromkeys(record["system"] for record in records):
        points = [row for record in select(records, system=system) for row in record["rows"]]
        furthest = points[-1]["shift"]
        shown = (
            (PRETRAINING, "pearson", "{:.2f}"), ("medium", "pearson", "{:.2f}"),
            (PRETRAINING, "covered_inside", "{:.0%}"), ("medium", "covered_inside", "{:.0%}"),
            (furthest, "covered_inside", "{:.0%}"), (furthest, "covered_target", "{:.0%}"),
            (furthest, "width_target", "{:.0%}"), ("medium", "crps", "{:.1%}"),
        )  # fmt: skip
        for method in dict.fromkeys(point["method"] for point in points):
            own = select(points, method=method)
            cells = (spread([p[key] for p in select(own, shift=shift)], form.format) for shift, key, form in shown)
            rows.append([SYSTEMS[system].label, method, *cells])
    header = ["system", "spread", "correlation inside", "on medium", "covered inside", "on medium", "on the furthest"]
    there = f"there, by {TARGET_EXAMPLES} of its examples"
    return table([*header, there, "half width then", "CRPS on medium"], rows)
