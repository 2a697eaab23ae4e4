"""What normalising the inputs is worth (the paper's A.5): one part of a recipe changed at a time.

    python benchmarks/normalizations.py                     # every variant, half an hour on one core
    python benchmarks/normalizations.py --only paper,none   # some of them; what the file holds already is kept
    python benchmarks/normalizations.py --steps 4 --count 4 --json out.json   # seconds; only shows that it runs

Each variant is pre-trained on SYS-1(1,5) and on SYS-2(0.2,1), on fresh examples at 32 x 32 points, at each of two
learning rates to its end; the rate is chosen on validation. It is measured zero-shot, inside the range and beyond it.
`docs/fill_numbers.py` puts the table into docs/results.md.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any
from unittest.mock import patch

import torch
from variants import begin, variants_parser

import sciml_fm_core as sciml_fm
from sciml_fm_core.files import write_json
from sciml_fm_core.models import normalization
from sciml_fm_core.models.normalization import PaperNormalization
from sciml_fm_core.training.cards import hardware
from sciml_fm_core.training.recipes import RECIPES

RESULTS = Path(__file__).resolve().parent / "results" / "normalizations.json"
TESTS = {"SYS-1(1,5)": ("SYS-1(1,5)", "SYS-1(5,10)"), "SYS-2(0.2,1)": ("SYS-2(0.2,1)", "SYS-2(1,2)")}
LEARNING_RATES = (1e-3, 5e-3)
"""The rates of the recipes `paper` and `dimensionless`."""
POINTS = 32


class SourcesAsTheyAre(PaperNormalization):
    """No example is divided by the size of its source."""

    def _scaled(self, source, coefficients, system, mode_points, variation):
        same = source.new_full((len(source),), self.source_rms)
        with patch.object(normalization, "_root_mean_square", lambda _: same):
            return super()._scaled(source, coefficients, system, mode_points, variation)


class CoefficientsAsTheyAre(PaperNormalization):
    """No coefficient is divided by its median."""

    @classmethod
    def fit(cls, examples, **options):
        fitted = super().fit(examples, **options)
        return cls(fitted.systems, fitted.source_rms, [1.0] * len(fitted.coefficient_medians))


class AllAsItIs(SourcesAsTheyAre, CoefficientsAsTheyAre):
    """The network sees the numbers of the equation."""


@dataclass(frozen=True)
class Variant:
    """One change: what it is in words, the recipe it is made to, and what of it is replaced."""

    words: str
    recipe: str
    changes: dict[str, Any] = field(default_factory=dict)
    normalization: type | None = None


VARIANTS = {
    "paper": Variant("`paper` as published", "paper"),
    "sources": Variant("sources as they are", "paper", normalization=SourcesAsTheyAre),
    "coefficients": Variant("coefficients as they are", "paper", normalization=CoefficientsAsTheyAre),
    "none": Variant("neither is normalised", "paper", normalization=AllAsItIs),
    "paper-relative": Variant("relative error as the loss", "paper", {"loss": "relative"}),
    "paper-gates": Variant("relative error, and gates", "paper", {"loss": "relative", "gate_width": 128}),
    "dimensionless-plain": Variant("`dimensionless` without gates", "dimensionless", {"gate_width": 0}),
    "dimensionless-squared": Variant("squared error as the loss", "dimensionless", {"loss": "squared"}),
    "dimensionless": Variant("`dimensionless` as it ships", "dimensionless"),
}
"""What is tried, by name."""


def measure(variant: Variant, label: str, steps: int, count: int, seed: int) -> dict:
    """Pre-train one variant at each learning rate, and measure the one that is best on validation."""
    recipe = replace(RECIPES[variant.recipe], **variant.changes)
    kinds = {recipe.normalization: variant.normalization} if variant.normalization else {}
    tried, best = {}, None
    with patch.dict(RECIPES, changed=recipe), patch.dict(normalization.KINDS, kinds):
        for rate in LEARNING_RATES:
            config = sciml_fm.TrainConfig(steps=steps, learning_rate=rate, validate_every=max(1, steps // 10))
            began = time.perf_counter()
            operator, history = sciml_fm.pretrain(
                [sciml_fm.Task.parse(label)], config, recipe="changed", seed=seed, batch_size=32, resolution=POINTS,
                validation_count=64,
            )  # fmt: skip
            seconds = time.perf_counter() - began
            tried[f"{rate:g}"] = history.best_error
            if best is None or history.best_error < tried[f"{best[0]:g}"]:
                best = rate, operator, history, seconds
    rate, operator, history, seconds = best
    errors = {
        test: sciml_fm.evaluate(operator, sciml_fm.Task.parse(test), count=count, resolution=POINTS)["error"]
        for test in TESTS[label]
    }
    return {
        "errors": errors, "learning_rate": rate, "tried": tried, "steps": steps, "count": count, "seed": seed,
        "examples": history.examples_seen, "parameters": operator.model.parameter_count, "seconds": round(seconds, 1),
        "hardware": hardware(operator.device), "torch": torch.__version__.split("+")[0],
    }  # fmt: skip


def main() -> None:
    """Measure what the results file lacks."""
    parser = variants_parser(__doc__, VARIANTS, RESULTS)
    arguments, names, results = begin(parser, VARIANTS)
    for name in names:
        own = results.setdefault(name, {"words": VARIANTS[name].words, "runs": {}})["runs"]
        for label in TESTS:
            if label not in own:
                own[label] = measure(VARIANTS[name], label, arguments.steps, arguments.count, arguments.seed)
                write_json(arguments.json, results)
                errors = ", ".join(f"{test} {error:.2%}" for test, error in own[label]["errors"].items())
                print(f"{name}: {errors} ({own[label]['learning_rate']:g}, {own[label]['seconds']:.0f} s)", flush=True)


if __name__ == "__main__":
    main()
