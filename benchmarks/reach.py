"""What makes the recipe ``symbol`` reach: one thing changed at a time, equal steps on equal examples.

    python benchmarks/reach.py                         # every variant, about 100 s each on one core; results/reach.json
    python benchmarks/reach.py --only shipped,linear   # some of them; what the file holds already is kept
    python benchmarks/reach.py --steps 4 --count 4 --json reach.json   # seconds; only shows that it runs

Each variant is pre-trained on the mixture of the three systems, on fresh examples at 32 x 32 points, and measured
zero-shot. `docs/fill_numbers.py` puts the table into docs/reach.md.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partialmethod
from pathlib import Path
from types import SimpleNamespace
from unittest.mock import patch

import torch
from torch import Tensor
from variants import begin, variants_parser

import sciml_fm_core as sciml_fm
from sciml_fm_core.files import write_json
from sciml_fm_core.models import blocks, conditioning, fno, normalization
from sciml_fm_core.models.normalization import SymbolNormalization
from sciml_fm_core.training.cards import hardware
from sciml_fm_core.training.recipes import RECIPES

RESULTS = Path(__file__).resolve().parent / "results" / "reach.json"
MIXTURE = ("SYS-1(1,5)", "SYS-2(0.2,1)", "SYS-3(1,10)")
TESTS = (
    *MIXTURE, "SYS-1(5,10)", "SYS-1(10,20)", "SYS-2(1,2)", "SYS-2(2,5)", "SYS-3(5,12)",
    "FRAC(0.75,1.5)", "SCREENED(0.1,5)", "BIHARM(0,5)",
)  # fmt: skip
POINTS = 32


class Unvaried(SymbolNormalization):
    """Training sees one description of each example."""

    def _scaled(self, source, coefficients, system, mode_points, variation):
        return super()._scaled(source, coefficients, system, mode_points, None)


class OfOneSign(SymbolNormalization):
    """The operator is multiplied by positive factors only."""

    def _scaled(self, source, coefficients, system, mode_points, variation):
        if variation is not None:
            variation = torch.stack([variation[:, 0], torch.ones_like(variation[:, 1])], dim=-1)
        return super()._scaled(source, coefficients, system, mode_points, variation)


class ScaleOfTheSystem(SymbolNormalization):
    """The scale is what the system declares: ``4 pi^2 kappa + 2 pi |v|``, and for SYS-3 ``4 pi^2 d``."""

    def _scaled(self, source, coefficients, system, mode_points, variation):
        with patch.object(normalization, "symbol_scale", lambda symbol: system.scale(coefficients.double())):
            return super()._scaled(source, coefficients, system, mode_points, variation)


class ToldOfTheMean(SymbolNormalization):
    """The symbol is told on k = 0 too."""

    def _scaled(self, source, coefficients, system, mode_points, variation):
        encoded = super()._scaled(source, coefficients, system, mode_points, variation)
        multiplier, null = system.solution_multiplier(coefficients, mode_points)
        symbol = torch.where(null, 0, 1 / multiplier.masked_fill(null, 1))[:, 0, 0].real
        g = (encoded.field[:, 0] * (source - source.mean(dim=(-2, -1), keepdim=True))).mean(dim=(-2, -1))
        modes = encoded.modes.clone()
        modes[:, 0, 0] = conditioning.symbol_features(symbol * encoded.scale / g).to(modes.dtype)
        return encoded._replace(modes=modes)


class RandomOnEachMode(fno.SpectralConvolution):
    """Spectral weights begin random on each mode."""

    def __init__(self, width, modes, generator=None, *, alike=False):
        super().__init__(width, modes, generator)


def cartesian(output: Tensor, count: int) -> Tensor:
    """Factors of modes without a logarithm of their size."""
    return output[..., count:].unflatten(-1, (count, 2, -1))


def first_only(model: fno.FNO, make: Callable, told: conditioning.Conditioning) -> list[Tensor]:
    """Factors of modes in the first block alone."""
    first, *others = make(model, told)
    one = torch.stack([torch.ones_like(first[:, 0]), torch.zeros_like(first[:, 1])], dim=1)
    return [first, *(one for _ in others)]


def telling(*channels: int) -> Callable:
    """Patch: symbol features of which only these are told, the others being 0."""
    whole, mask = conditioning.symbol_features, torch.zeros(conditioning.SYMBOL_CHANNELS, dtype=torch.float64)
    mask[list(channels)] = 1
    return lambda: patch.object(normalization, "symbol_features", lambda z: whole(z) * mask)


def kind(normalisation: type) -> Callable:
    """Patch: another normalisation in place of the recipe's."""
    return lambda: patch.dict(normalization.KINDS, symbol=normalisation)


@dataclass(frozen=True)
class Variant:
    """One change: what it is in words, the patches that make it, the recipe, and values of the network's config."""

    words: str
    patches: tuple[Callable, ...] = ()
    recipe: str = "symbol"
    config: tuple[tuple[str, int], ...] = ()


VARIANTS = {
    "shipped": Variant("as it ships"),
    "coefficients": Variant("conditioned on the coefficients instead (recipe `dimensionless`)", recipe="dimensionless"),
    "unvaried": Variant("no factors in training", (kind(Unvaried),)),
    "one-sign": Variant("factors of one sign", (kind(OfOneSign),)),
    "factor-16": Variant("factors of up to 16", (lambda: patch.object(normalization, "LARGEST_FACTOR", 16.0),)),
    "system-scale": Variant("scale declared by the system", (kind(ScaleOfTheSystem),)),
    "told-mean": Variant("conditioned on the symbol on k = 0", (kind(ToldOfTheMean),)),
    "random-modes": Variant(
        "weights begin random on each mode", (lambda: patch.object(fno, "SpectralConvolution", RandomOnEachMode),)
    ),
    "cartesian": Variant(
        "factors without a logarithm of their size", (lambda: patch.object(conditioning, "complex_factors", cartesian),)
    ),
    "size-only": Variant("told the size of z, not its phase", (telling(0, 3, 4),)),
    "no-logarithm": Variant("not told log |z| itself", (telling(0, 1, 2, 3),)),
    "linear": Variant(
        "no nonlinearity in the fields",
        (
            lambda: patch.object(fno, "fused_trunk", blocks.plain_trunk),
            lambda: patch.object(blocks, "functional", SimpleNamespace(gelu=lambda field: field)),
        ),
    ),
    "first-block": Variant(
        "factors in the first block only",
        (lambda: patch.object(fno.FNO, "mode_factors", partialmethod(first_only, fno.FNO.mode_factors)),),
    ),
    "two-blocks": Variant("two blocks", config=(("depth", 2),)),
    "six-blocks": Variant("six blocks", config=(("depth", 6),)),
    "fewer-modes": Variant("12 modes in each direction", config=(("modes", 12),)),
    "wider-gates": Variant("network of the factors twice as wide", config=(("mode_gate_width", 64),)),
}
"""What is tried, by name."""


def between_resonances(operator: sciml_fm.Operator, count: int, points: int = POINTS) -> float:
    """Mean error on SYS-3 at values of omega in [1, 12], evenly spread, that are 0.15 or more from each resonance."""
    system, resonances = sciml_fm.find_system("SYS-3"), torch.arange(9, dtype=torch.float64) ** 2
    resonances = 0.01 * 4 * torch.pi**2 * (resonances[:, None] + resonances).flatten()
    omega = torch.linspace(1, 12, 1101, dtype=torch.float64)
    omega = omega[(omega[:, None] - resonances).abs().amin(1) >= 0.15]
    dial = omega[torch.linspace(0, len(omega) - 1, count).long()]
    source = sciml_fm.draw_split(sciml_fm.Task.parse("SYS-3(1,10)"), "test", count, resolution=points).source
    coefficients = system.coefficients(dial, source, torch.zeros(count, 0)).to(source.dtype)
    prediction = operator.predict(source, coefficients, system)
    return sciml_fm.mean_relative_error(prediction, system.solve(source, coefficients))


def measure(variant: Variant, steps: int, count: int, seed: int) -> dict:
    """Pre-train one variant and measure it zero-shot."""
    with ExitStack() as stack:
        for make in variant.patches:
            stack.enter_context(make())
        sizes = {"reach": {**fno.SIZES["1M"], **dict(variant.config)}}
        stack.enter_context(patch.dict(fno.SIZES, sizes))
        tasks = [sciml_fm.Task.parse(label) for label in MIXTURE]
        config = sciml_fm.TrainConfig(steps=steps, learning_rate=RECIPES["symbol"].learning_rate, validate_every=steps)
        began = time.perf_counter()
        operator, history = sciml_fm.pretrain(
            tasks, config, recipe=variant.recipe, size="reach", seed=seed, batch_size=32, resolution=POINTS,
            validation_count=4,
        )  # fmt: skip
        seconds = time.perf_counter() - began
        errors = {}
        for label in TESTS:
            task = sciml_fm.Task.parse(label)
            if operator.normalization.knows(task.system):
                errors[label] = sciml_fm.evaluate(operator, task, count=count, resolution=POINTS)["error"]
        errors["SYS-3 between"] = between_resonances(operator, count)
    return {
        "words": variant.words, "errors": errors, "loss": history.rows[-1]["loss"], "steps": steps, "count": count,
        "examples": history.examples_seen, "parameters": operator.model.parameter_count, "seed": seed,
        "seconds": round(seconds, 1), "hardware": hardware(operator.device), "torch": torch.__version__.split("+")[0],
    }  # fmt: skip


def main() -> None:
    """Measure what the results file lacks."""
    parser = variants_parser(__doc__, VARIANTS, RESULTS)
    parser.add_argument("--operators", action="store_true", help="measure what ships between resonances, no variant")
    arguments, names, results = begin(parser, VARIANTS)
    if arguments.operators:
        results["operators"] = {
            name: between_resonances(operator, 512, 128)
            for name, operator in ((name, sciml_fm.load_operator(name)) for name in sciml_fm.shipped_operators())
            if operator.normalization.knows(sciml_fm.find_system("SYS-3"))
        }
        write_json(arguments.json, results)
        return
    for name in names:
        if name not in results:
            results[name] = measure(VARIANTS[name], arguments.steps, arguments.count, arguments.seed)
            write_json(arguments.json, results)
            errors = ", ".join(f"{label} {error:.2%}" for label, error in results[name]["errors"].items())
            print(f"{name}: {errors} ({results[name]['seconds']:.0f} s)", flush=True)


if __name__ == "__main__":
    main()
