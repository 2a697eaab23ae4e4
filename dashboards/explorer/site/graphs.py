"""What the static page computes, as functions that `export_function` writes: the very ones of the served page.

Each function takes a dictionary of weights and tensors, whose first axis is that of the examples.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Sequence
from functools import partial

import torch
from torch import Tensor

from explorer.compute import PAINTED_WIDTH
from explorer.insight import answers
from sciml_fm_core.evaluation.metrics import energy_spectrum, relative_error, relative_residual
from sciml_fm_core.evaluation.rollouts import correlations, rollout_errors
from sciml_fm_core.experiments.error_bounds import error_bounds
from sciml_fm_core.experiments.learned_symbol import LearnedSymbol, projected, real_waves
from sciml_fm_core.models import steps
from sciml_fm_core.models.export import network_of
from sciml_fm_core.models.operator import Operator
from sciml_fm_core.physics import krylov
from sciml_fm_core.physics.evolution import Evolution
from sciml_fm_core.physics.resolved import ResolvedModes
from sciml_fm_core.physics.sources import normalize, placed, render
from sciml_fm_core.physics.spectral import inverse_transform, transform
from sciml_fm_core.physics.spectral_system import SpectralSystem
from sciml_fm_core.physics.system import System
from sciml_fm_core.physics.variable_system import VariableSystem

Function = Callable[..., Sequence[Tensor]]
advance, taken, ADVANCED = steps.advance, steps.taken, steps.ADVANCED

SOURCES = ("plain", "centred")
"""Results of `random_source` and `drawn_source`: for systems that take any source, and for those of zero mean."""
SOLVED = ("coefficients", "solution", "rms", "largest")
"""Results of `solver`."""
MEASURED = ("error", "relative", "residual", "lower", "upper")
"""Results of `measure`."""
BEGUN = ("coefficients", "state")
"""First results of `begun`; those that `advance` takes besides follow, called as `taken` says."""
ITERATED = ("iterate", "left", "one", "other", "length")
"""Results of `first_iterate` and `iterated`: what an iteration of a Krylov method begins with, and its residual."""
REMEMBERED = 40
"""Directions that generalised conjugate residuals remember here."""
WAVES = ("cosine", "sine")
"""Results of `waves`."""
PROJECTED = ("gain", "off", "leak")
"""Results of `projection`."""
COMPARED = ("error", "relative", "correlation", "size", "rms")
"""Results of `compare`."""
FITTED = ("centre", "spread")
"""Numbers of a normalisation that are its own, and stand among the weights."""


def random_source(n: int) -> Function:
    """Random sources of amplitudes (batch, 12, 12)."""

    def function(_: dict[str, Tensor], amplitudes: Tensor) -> list[Tensor]:
        drawn = render(amplitudes, n)
        return [normalize(drawn, zero_mean=zero_mean) for zero_mean in (False, True)]

    return function


def drawn_source(n: int) -> Function:
    """A source of Gaussians by hand, rows (gaussians, 3) in float64."""

    def function(_: dict[str, Tensor], rows: Tensor) -> list[Tensor]:
        source = placed(rows, n)
        return [each.float()[None] for each in (source, source - source.mean())]

    return function


def solver(system: SpectralSystem) -> Function:
    """Exact solutions, from sources (batch, n, n), the dial (batch,) and parameters (batch, p)."""

    def function(_: dict[str, Tensor], source: Tensor, dial: Tensor, parameters: Tensor) -> list[Tensor]:
        exact, n = source.double(), source.shape[-1]
        coefficients = system.coefficients(dial, exact, parameters)
        solution = inverse_transform(system.solve_hat(transform(exact), coefficients, n), n)
        return [coefficients, *_shown(solution.to(source.dtype))]

    return function


def _shown(solution: Tensor) -> list[Tensor]:
    return [solution, solution.square().mean(dim=(-2, -1)).sqrt(), solution.abs().amax(dim=(-2, -1))]


def measure(system: SpectralSystem) -> Function:
    """Errors of predictions (batch, n, n) with their solutions, sources and coefficients, which are in float64."""

    def function(
        _: dict[str, Tensor], prediction: Tensor, solution: Tensor, source: Tensor, coefficients: Tensor
    ) -> list[Tensor]:
        residual = _residual(system, prediction.double(), source.double(), coefficients)
        bounds = error_bounds(prediction, source.double(), coefficients, system)
        measured = [relative_error(prediction, solution), residual, *bounds]
        return [prediction - solution, *(each.float() for each in measured)]

    return function


def _residual(system: SpectralSystem, solution: Tensor, source: Tensor, coefficients: Tensor) -> Tensor:
    modes = system.residual_modes(solution, source, coefficients)[0]
    return relative_residual(inverse_transform(modes, source.shape[-1]).to(solution.dtype), source)


def painted_field(n: int) -> Function:
    """A coefficient that is painted, of rows (gaussians, 3) in float64."""

    def function(_: dict[str, Tensor], rows: Tensor) -> list[Tensor]:
        source = placed(rows, n, PAINTED_WIDTH)
        return [(source - source.mean()).exp().float()[None]]

    return function


def varied(system: VariableSystem) -> Function:
    """Input fields (batch, p, n, n) at the dial (batch,), from each of them (batch, n, n); and the coefficients."""

    def function(_: dict[str, Tensor], *given: Tensor) -> list[Tensor]:
        fields = system.varied(torch.stack(given[:-1], dim=1).double(), given[-1]).float()
        return [fields, *fields.unbind(1)[:-1]]

    return function


def first_iterate(system: VariableSystem) -> Function:
    """What the iterations begin with for input fields (batch, p, n, n)."""

    def function(_: dict[str, Tensor], source: Tensor) -> list[Tensor]:
        exact = source[:, -1].double()
        right = ResolvedModes.of(exact).vector(exact)
        if system.method is krylov.conjugate_gradients:
            memory = [torch.zeros_like(right), right.new_zeros(right.shape[0])]
        else:
            memory = [right.new_zeros(right.shape[0], REMEMBERED, *right.shape[1:]) for _ in range(2)]
        return [torch.zeros_like(right), right, *memory, _length(right)]

    return function


def iterated(system: VariableSystem) -> Function:
    """One iteration of the solver, in double precision."""
    advance = krylov.conjugate_gradient
    if system.method is krylov.conjugate_residuals:
        advance = partial(krylov.conjugate_residual, memory=REMEMBERED)

    def function(_: dict[str, Tensor], source: Tensor, *kept: Tensor) -> list[Tensor]:
        exact = source.double()
        found = advance(system.operator(exact[:, :-1], ResolvedModes.of(exact)), *kept)
        return [*found, _length(found[1])]

    return function


def _length(vector: Tensor) -> Tensor:
    return torch.linalg.vector_norm(vector.flatten(1), dim=1)


def last_iterate(_: dict[str, Tensor], source: Tensor, iterate: Tensor) -> list[Tensor]:
    """The solution, and its size."""
    return _shown(ResolvedModes.of(source.double()).field(iterate).float())


def measure_fields(system: VariableSystem) -> Function:
    """Errors of predictions (batch, n, n) with their solutions and input fields; no bounds are known."""

    def function(_: dict[str, Tensor], prediction: Tensor, solution: Tensor, source: Tensor) -> list[Tensor]:
        off, none = relative_error(prediction, solution), source.new_empty(source.shape[0], 0)
        residual = relative_residual(system.residual(prediction, source, none), source[:, -1])
        return [prediction - solution, off, residual, torch.zeros_like(off), torch.full_like(off, math.inf)]

    return function


def exact_answers(system: SpectralSystem) -> Function:
    """What a system makes of waves (m, 2), with coefficients (m, c), and which of them resonate."""

    def function(_: dict[str, Tensor], wavevectors: Tensor, coefficients: Tensor) -> list[Tensor]:
        exact, strong = answers(system, coefficients, wavevectors.long())
        return [torch.view_as_real(exact), strong]

    return function


def waves(n: int) -> Function:
    """Cosine and sine waves on n x n points."""
    return lambda _, wavevectors: [each.float() for each in real_waves(wavevectors, n)]


def projection(_: dict[str, Tensor], cosine: Tensor, sine: Tensor, wavevectors: Tensor, exact: Tensor) -> list[Tensor]:
    """What predictions (m, n, n) of such waves are beside exact answers, as the tab of the spectrum shows it."""
    modes, response = wavevectors.long(), torch.complex(cosine.double(), sine.double())
    gain, leak = projected(response, modes)
    ratio = LearnedSymbol(modes, gain, torch.view_as_complex(exact), leak).ratio
    return [ratio.abs(), (ratio - 1).abs(), leak]


def energy(_: dict[str, Tensor], fields: Tensor) -> list[Tensor]:
    """Energy by wavenumber of fields (batch, n, n)."""
    return [energy_spectrum(fields.double())]


def timing(system: Evolution) -> tuple[float, int]:
    """The time of a step of an evolution, which is the same wherever its dial stands, and the solver's steps in it."""
    dial, parameters = system.dialled.default, [each.default for each in system.parameters]
    given = torch.tensor(dial).double(), torch.zeros(4, 4).double(), torch.tensor(parameters).double()
    coefficients = system.coefficients(*given)
    return float(system.time(coefficients)), system.substeps(coefficients)


def begun(system: Evolution) -> Function:
    """What a trajectory begins with, from states (batch, n, n), the dial (batch,) and parameters (batch, p)."""
    begin = steps.begun(system)

    def function(_: dict[str, Tensor], source: Tensor, dial: Tensor, parameters: Tensor) -> list[Tensor]:
        coefficients = system.coefficients(dial, source.double(), parameters)
        state, _count, *needed = begin({}, source, coefficients)
        return [coefficients, state, *needed]

    return function


def compare(_: dict[str, Tensor], prediction: Tensor, solution: Tensor) -> list[Tensor]:
    """States of a roll-out (batch, n, n) with those of the solver."""
    measured = rollout_errors(prediction, solution), correlations(prediction, solution)
    rms = solution.square().mean(dim=(-2, -1)).sqrt()
    return [prediction - solution, *measured, prediction.abs().amax(dim=(-2, -1)), rms]


def network(operator: Operator, system: System) -> tuple[Function, dict[str, Tensor]]:
    """`predict`, and its weights by name, with those that the normalisation has fitted to its examples."""
    own = Operator(operator.model, copy.copy(operator.normalization), operator.card)
    predict, weights = network_of(own, system)
    fitted = {name: torch.tensor(vars(own.normalization)[name]) for name in FITTED if name in vars(own.normalization)}

    def function(given: dict[str, Tensor], *inputs: Tensor) -> list[Tensor]:
        for name in fitted:
            setattr(own.normalization, name, given[name])
        return [predict({name: given[name] for name in weights}, *inputs)]

    return function, weights | fitted
