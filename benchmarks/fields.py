"""What each part of the recipe ``correction`` gives, what the shipped operator reaches, and the solver beside it.

    python benchmarks/fields.py                       # every part, about ten minutes on one core; results/fields.json
    python benchmarks/fields.py --only reach,solver   # some of them; what the file holds already is kept
    python benchmarks/fields.py --steps 4 --count 4 --json fields.json   # seconds; only shows that it runs

Variants are pre-trained on SYS-4(0,0.3) at 32 x 32 points, and measured at 64 x 64. `docs/fill_numbers.py` puts the
tables into docs/fields.md.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import cache
from pathlib import Path
from unittest.mock import patch

import torch
from torch import Tensor
from variants import begin, variants_parser

import sciml_fm_core as sciml_fm
from sciml_fm_core.files import write_json
from sciml_fm_core.models import normalization
from sciml_fm_core.models.normalization import CorrectionNormalization
from sciml_fm_core.physics.krylov import NotConverged, conjugate_residuals
from sciml_fm_core.physics.random_fields import random_field
from sciml_fm_core.physics.resolved import ResolvedModes
from sciml_fm_core.physics.variable_diffusion import (
    SHIFTS,
    DiffusionOperator,
    VariableDiffusion,
    contrast,
    diffusivity,
    solve,
)
from sciml_fm_core.training.cards import hardware

RESULTS = Path(__file__).resolve().parent / "results" / "fields.json"
DIALS = ((0, 0), *SHIFTS.values())


class Ungated(CorrectionNormalization):
    """The coefficients are an input, and scale nothing."""

    in_channels, point_channels = 3, 0


def changed(owner: object, name: str, value: object) -> Callable:
    """Patch of an attribute."""
    return lambda: patch.object(owner, name, value)


VARIANTS = {
    "shipped": ("as it ships", "symbol", lambda: patch.dict({})),
    "no-step": (
        "from zero, not from a step of the solver",
        "symbol",
        changed(VariableDiffusion, "first_iterate", lambda _, source: 0 * source[:, 1]),
    ),
    "no-symbol": (
        "not told the frozen symbol",
        "symbol",
        changed(normalization, "symbol_features", lambda z: z.real.new_zeros(*z.shape, 5)),
    ),
    "no-gates": ("no factors at each point", "symbol", lambda: patch.dict(normalization.KINDS, correction=Ungated)),
    "no-push": (
        "not told what the frozen operator leaves out",
        "symbol",
        changed(VariableDiffusion, "pushed", lambda _, source, solution: 0 * solution),
    ),
    "random": ("from random weights", None, lambda: patch.dict({})),
}
"""What is changed, in words; the start; and the patch that changes it."""


@cache
def drawn(count: int, dials: tuple[float, float], points: int = 64, exponent: float | None = None) -> sciml_fm.Examples:
    """Test examples; of a rougher or smoother diffusivity with an exponent of its spectrum."""
    examples = sciml_fm.draw_split(
        sciml_fm.Task(sciml_fm.find_system("SYS-4"), *dials), "test", count, resolution=points
    )
    if exponent is None:
        return examples
    noise = torch.randn(count, points, points, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    a = diffusivity(examples.dial.double(), random_field(noise, exponent=exponent))
    source = torch.stack([a, examples.source[:, 1].double()], dim=1)
    return examples._replace(source=source.float(), solution=solve(source).solution.float())


def error(operator: sciml_fm.Operator, examples: sciml_fm.Examples) -> float:
    return sciml_fm.mean_relative_error(operator.predict(examples.source, examples.coefficients), examples.solution)


def variant(name: str, steps: int, count: int, seed: int) -> dict:
    """Pre-train one variant and measure it zero-shot."""
    words, start, change = VARIANTS[name]
    config, began = sciml_fm.TrainConfig(steps=steps), time.process_time()
    with change():
        operator, history = sciml_fm.pretrain(
            [sciml_fm.Task.parse("SYS-4(0,0.3)")], config, recipe="correction", start=start, resolution=32, seed=seed,
            validation_count=0,
        )  # fmt: skip
        seconds = time.process_time() - began
        sets = {f"SYS-4({low},{high})": drawn(count, (low, high)) for low, high in DIALS}
        errors = {"": {label: error(operator, examples) for label, examples in sets.items()}}
        if name == "shipped":
            with patch.object(
                normalization, "long_waves", lambda field, modes: field - field.mean((-2, -1), keepdim=True)
            ):
                errors["; its output on all modes"] = {label: error(operator, each) for label, each in sets.items()}
    rows = {words + more: each for more, each in errors.items()}
    return {
        "rows": rows,
        "examples": history.examples_seen,
        "seconds": round(seconds),
        "hardware": hardware(operator.device),
    }


def reach(count: int) -> dict:
    """Errors of the shipped operator against the contrast, the roughness and the resolution."""
    operator, found = sciml_fm.load_operator("sys-4"), {}
    for low, high in DIALS[1:]:
        row = {f"{n} x {n}": error(operator, drawn(count, (low, high), n)) for n in (32, 64, 128)}
        row |= {f"exponent {alpha}": error(operator, drawn(count, (low, high), 64, alpha)) for alpha in (2, 3.5)}
        found[f"SYS-4({low},{high})"] = {
            "contrast": contrast(drawn(count, (low, high)).source[:, 0]).median().item()
        } | row
    return found


class Network(DiffusionOperator):
    """Preconditioned by the network: what it predicts of a residual as the source."""

    def precondition(self, residual: Tensor) -> Tensor:
        inputs = torch.stack([self.a, self.modes.field(residual)], dim=1)
        return self.modes.vector(OPERATORS[0].predict(inputs, inputs.new_empty(len(inputs), 0)))


OPERATORS: list[sciml_fm.Operator] = []
LIMIT = 100


def solver(count: int) -> dict:
    """Iterations to 1e-8 and milliseconds for each example: of the solver, alone and with a network inside."""
    OPERATORS[:], found = [sciml_fm.load_operator("sys-4")], {}

    def timed(work: Callable) -> tuple:
        began = time.process_time()
        result = work()
        return result, 1000 * (time.process_time() - began) / count

    for low, high in DIALS[1:]:
        examples = drawn(count, (low, high))
        source, row = examples.source.double(), {}
        predict = lambda: OPERATORS[0].predict(source, examples.coefficients)  # noqa: B023, E731
        predict()
        first, row["prediction ms"] = timed(predict)
        exact, row["alone ms"] = timed(lambda: solve(source))  # noqa: B023
        row["error"] = sciml_fm.mean_relative_error(first, exact.solution)
        warm, row["started ms"] = timed(lambda: solve(source, start=first))  # noqa: B023
        row |= {"alone": exact.iterations.double().mean().item(), "started": warm.iterations.double().mean().item()}
        row["started ms"] += row["prediction ms"]
        for tolerance in (0.3, 0.1, 0.03, 0.01, 3e-3, 1e-3, 3e-4):  # the solver at the error of the network
            rough, row["same error ms"] = timed(lambda: solve(source, tolerance=tolerance))  # noqa: B023
            row["same error"] = rough.iterations.double().mean().item()
            if sciml_fm.mean_relative_error(rough.solution, exact.solution) <= row["error"]:
                break
        few, modes, taken, began = min(count, 8), ResolvedModes.of(source), [], time.process_time()
        for one in source[:few]:
            try:
                inside = Network(one[None, 0], modes)
                taken += conjugate_residuals(inside, modes.vector(one[None, 1]), limit=LIMIT).iterations.tolist()
            except NotConverged:
                pass
        row["inside ms"] = 1000 * (time.process_time() - began) / few
        row |= {"inside": sum(taken) / len(taken) if taken else None, "converged": f"{len(taken)} of {few}"}
        found[f"SYS-4({low},{high})"] = row
    return found


def main() -> None:
    """Measure what the results file lacks."""
    parts = {**VARIANTS, "reach": None, "solver": None}
    parser = variants_parser(__doc__, parts, RESULTS)
    parser.set_defaults(steps=500)
    arguments, names, results = begin(parser, parts)
    for name in names:
        if name not in results:
            own = {"reach": reach, "solver": solver}.get(name)
            results[name] = (
                own(min(arguments.count, 64))
                if own
                else variant(name, arguments.steps, arguments.count, arguments.seed)
            )
            write_json(arguments.json, results)
            print(name, results[name], flush=True)


if __name__ == "__main__":
    main()
