"""What each part of the recipe ``correction`` gives, what the shipped operator reaches, and the solver beside it.

    python benchmarks/fields.py                       # every part, about ten minutes on one core; results/fields.json
    python benchmarks/fields.py --only reach,solver   # some of them; what the file holds already is kept
    python benchmarks/fields.py --steps 4 --count 4 --json fields.json   # only shows that it runs

Variants are pre-trained on SYS-4(0,0.3) at 32 x 32 points, and measured at 64 x 64. `docs/fill_numbers.py` puts the
tables into docs/fields.md.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from unittest.mock import patch

import torch
from torch import Tensor
from variants import begin, variants_parser

import sciml_fm_core as sciml_fm
from sciml_fm_core.files import write_json
from sciml_fm_core.models import fno, normalization
from sciml_fm_core.physics.krylov import NotConverged, conjugate_residuals
from sciml_fm_core.physics.random_fields import random_field
from sciml_fm_core.physics.resolved import ResolvedModes
from sciml_fm_core.physics.variable_diffusion import (
    SHIFTS,
    DiffusionOperator,
    VariableDiffusion,
    contrast,
    diffusivity,
)
from sciml_fm_core.training.cards import hardware

RESULTS = Path(__file__).resolve().parent / "results" / "fields.json"
DIALS = ((0, 0), *SHIFTS.values())
LIMIT = 60
"""Most iterations with the network as a preconditioner."""


def nothing(system: VariableDiffusion, source: Tensor, *_: Tensor) -> Tensor:
    """Zero in place of a solution or of a source."""
    return 0 * source[:, 1]


VARIANTS: dict[str, tuple] = {
    "shipped": ("as it ships",),
    "no-step": ("from zero, not from a step of the solver", VariableDiffusion, "first_iterate", nothing),
    "no-push": ("not told what the frozen operator leaves out", VariableDiffusion, "pushed", nothing),
    "no-symbol": (
        "not told the frozen symbol", normalization, "symbol_features", lambda z: z.real.new_zeros(*z.shape, 5),
    ),
    "no-gates": (
        "no factors at each point", fno.FNO, "point_factors", lambda model, fields: [None] * model.config.depth,
    ),
    "random": ("from random weights",),
}  # fmt: skip
"""What is changed, in words, and what takes the place of which attribute."""


@cache
def drawn(count: int, dials: tuple[float, float], points: int = 64, exponent: float = 2.5) -> sciml_fm.Examples:
    """Test examples; their diffusivity is rougher or smoother by another exponent of its spectrum."""
    task = sciml_fm.Task(sciml_fm.find_system("SYS-4"), *dials)
    examples = sciml_fm.draw_split(task, "test", count, resolution=points)
    if exponent == 2.5:
        return examples
    noise = torch.randn(count, points, points, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    a = diffusivity(examples.dial.double(), random_field(noise, exponent=exponent))
    source = torch.stack([a, examples.source[:, 1].double()], dim=1)
    return examples._replace(source=source.float(), solution=VariableDiffusion().solved(source).solution.float())


def error(operator: sciml_fm.Operator, examples: sciml_fm.Examples) -> float:
    return sciml_fm.mean_relative_error(operator.predict(examples.source, examples.coefficients), examples.solution)


def variant(name: str, steps: int, count: int, seed: int) -> dict:
    """Pre-train one variant and measure it zero-shot."""
    words, *change = VARIANTS[name]
    with patch.object(*change) if change else nullcontext():
        operator, history = sciml_fm.pretrain(
            [sciml_fm.Task.parse("SYS-4(0,0.3)")], sciml_fm.TrainConfig(steps=steps), recipe="correction", seed=seed,
            start=None if name == "random" else "symbol", resolution=32, validation_count=0,
        )  # fmt: skip
        sets = {f"SYS-4({low},{high})": drawn(count, (low, high)) for low, high in DIALS}
        rows = {words: {label: error(operator, examples) for label, examples in sets.items()}}
        if name == "shipped":
            whole = patch.object(
                normalization, "long_waves", lambda field, _: field - field.mean((-2, -1), keepdim=True)
            )
            with whole:
                rows["the same weights, without the tail"] = {
                    label: error(operator, each) for label, each in sets.items()
                }
    about = {"steps": steps, "seed": seed, "count": count, "torch": torch.__version__.split("+")[0]}
    return {"rows": rows, "examples": history.examples_seen, "hardware": hardware(operator.device)} | about


def reach(count: int) -> dict:
    """Errors of the shipped operator against the contrast, the resolution and the roughness."""
    operator, found = sciml_fm.load_operator("sys-4"), {}
    for dials in DIALS[1:]:
        row = {"contrast": contrast(drawn(count, dials).source[:, 0]).median().item()}
        row |= {f"{n} x {n}": error(operator, drawn(count, dials, n)) for n in (32, 64, 128)}
        row |= {f"exponent {alpha}": error(operator, drawn(count, dials, 64, alpha)) for alpha in (2, 3.5)}
        found[f"SYS-4({dials[0]},{dials[1]})"] = row
    return {"rows": found, "count": count}


@dataclass(frozen=True)
class Network(DiffusionOperator):
    """Preconditioned by an operator: what it predicts for a residual as the source."""

    operator: sciml_fm.Operator

    def precondition(self, residual: Tensor) -> Tensor:
        inputs = torch.stack([self.a, self.modes.field(residual)], dim=1)
        return self.modes.vector(self.operator.predict(inputs, inputs.new_empty(len(inputs), 0)))


def timed(work: Callable, count: int) -> tuple:
    """What work gives, and the milliseconds of one core that it takes for each example."""
    began = time.process_time()
    result = work()
    return result, 1000 * (time.process_time() - began) / count


def solver(count: int) -> dict:
    """Iterations to 1e-8, and milliseconds for each example: of the solver alone, and with a network inside."""
    operator, found, system = sciml_fm.load_operator("sys-4"), {}, VariableDiffusion()
    for dials in DIALS[1:]:
        examples = drawn(count, dials)
        source = examples.source.double()
        operator.predict(source[:1], examples.coefficients[:1])
        first, predicted = timed(lambda: operator.predict(source, examples.coefficients), count)  # noqa: B023
        alone, seconds = timed(lambda: system.solved(source), count)  # noqa: B023
        started, with_start = timed(lambda: system.solved(source, start=first), count)  # noqa: B023
        reached = sciml_fm.mean_relative_error(first, alone.solution)
        for tolerance in (0.3, 0.1, 0.03, 0.01, 3e-3, 1e-3, 3e-4, 1e-4):  # to the error of the network
            rough, short = timed(lambda: system.solved(source, tolerance=tolerance), count)  # noqa: B023
            if sciml_fm.mean_relative_error(rough.solution, alone.solution) <= reached:
                break
        few, modes, taken, began = min(count, 4), ResolvedModes.of(source), [], time.process_time()
        for one in source[:few]:
            try:
                inside = Network(one[None, 0], modes, operator)
                taken += conjugate_residuals(inside, modes.vector(one[None, 1]), limit=LIMIT).iterations.tolist()
            except NotConverged:
                continue
        found[f"SYS-4({dials[0]},{dials[1]})"] = {
            "error": reached, "prediction ms": predicted, "same error ms": short,
            "same error": rough.iterations.double().mean().item(),
            "alone": alone.iterations.double().mean().item(), "alone ms": seconds,
            "started": started.iterations.double().mean().item(), "started ms": predicted + with_start,
            "inside": sum(taken) / len(taken) if taken else None, "converged": f"{len(taken)} of {few}",
            "inside ms": 1000 * (time.process_time() - began) / few,
        }  # fmt: skip
    return {"rows": found, "count": count}


def main() -> None:
    """Measure what the results file lacks."""
    parts = {**VARIANTS, "reach": None, "solver": None}
    parser = variants_parser(__doc__, parts, RESULTS)
    parser.set_defaults(steps=500, count=64)
    arguments, names, results = begin(parser, parts)
    for name in names:
        if name not in results:
            own = {"reach": reach, "solver": solver}.get(name)
            given = (arguments.count,) if own else (name, arguments.steps, arguments.count, arguments.seed)
            results[name] = (own or variant)(*given)
            write_json(arguments.json, results)
            print(name, results[name], flush=True)


if __name__ == "__main__":
    main()
