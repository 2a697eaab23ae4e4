"""Refinement of grids and of steps of time: networks whose answers are known by hand, and those that ship."""

import math
from itertools import pairwise

import pytest
import torch

from sciml_fm_core import (
    SYSTEMS,
    Convergence,
    Model,
    ModelConfig,
    Operator,
    Task,
    convergence,
    draw_split,
    flow_convergence,
    load_operator,
    new_operator,
)
from sciml_fm_core.experiments.convergence.runs import ConvergenceRun, HeatForATime, convergence_runs
from sciml_fm_core.models.normalization import fit_normalization
from sciml_fm_core.physics.spectral import filter_modes, laplacian, wavenumbers
from sciml_fm_core.study.runs import identity

HELMHOLTZ = SYSTEMS["helmholtz"]
GRIDS = (32, 64, 128)


class Multiplier(Model):
    """A linear network: each mode k times ``2 / (1 + |k|^2)``."""

    config_type = ModelConfig

    def __init__(self, config):
        super().__init__(config)
        self.size = torch.nn.Parameter(torch.tensor(2.0, dtype=torch.float64))

    def forward(self, fields, conditioning):
        kx, ky = wavenumbers(fields.shape[-1])
        return filter_modes(fields[:, :1], self.size / (1 + kx**2 + ky**2))


class Known(Operator):
    """Answers ``function(f)``, or that of the exact solution of an evolution told another time."""

    def __init__(self, function):
        self.function = function

    def predict(self, source, coefficients, system=None, *, symmetries=False):
        return self.function(source, coefficients)


def wave(k, n=32):
    points = 2 * torch.pi * torch.arange(n, dtype=torch.float64) / n
    return torch.cos(k * points).expand(1, n, n)


COEFFICIENTS = torch.tensor([[0.01, 3.7]], dtype=torch.float64)


# Grids ----------------------------------------------------------------------------------------------------------------


def test_a_multiplier_has_no_aliasing(generator):
    task = Task.parse("SYS-1(1,5)")
    normalization = fit_normalization("dimensionless", [task], count=64)
    operator = Operator(Multiplier(ModelConfig(normalization.in_channels)), normalization)
    examples = task.sample(3, 64, generator, dtype=torch.float64)
    found = convergence(operator, task.system, examples.source, examples.coefficients, GRIDS)
    assert found.distance.shape == found.aliasing.shape == found.error.shape == (3, 3)
    assert found.distance.max() < 1e-13
    assert found.aliasing.max() < 1e-13
    torch.testing.assert_close(found.error[0], found.error[-1], rtol=1e-10, atol=0)
    assert found.error.min() > 0.1, "it learned an operator, if not the right one"
    assert found.passes(trained_on=32)


def test_a_square_aliases_as_by_hand():
    """cos(10 x)^2 = (1 + cos(20 x)) / 2, and on 32 points cos(20 x) is cos(12 x)."""
    square = Known(lambda source, _: source.square())
    found = convergence(square, HELMHOLTZ, wave(10), COEFFICIENTS, GRIDS)
    size = math.sqrt(1 / 2) / (0.01 * 4 * math.pi**2 * 100 - 3.7)  # of the solution
    assert found.distance[:, 0].tolist() == pytest.approx([math.sqrt(1 / 8 + 1 / 8) / size, 0, 0], abs=1e-12)
    assert found.aliasing[:, 0].tolist() == pytest.approx([math.sqrt(1 / 8) / size, 0, 0], abs=1e-12)
    assert not found.passes(trained_on=32)
    assert found.passes(trained_on=64), "two times 10 is below its Nyquist wavenumber"
    slow = convergence(square, HELMHOLTZ, wave(7), COEFFICIENTS, GRIDS)
    assert slow.distance.max() < 1e-12, "two times 7 is below 16"


def test_the_error_is_against_the_exact_solution():
    half = Known(lambda source, coefficients: 0.5 * HELMHOLTZ.solve(source, coefficients))
    found = convergence(half, HELMHOLTZ, wave(3), COEFFICIENTS, GRIDS)
    torch.testing.assert_close(found.error, torch.full((3, 1), 0.5, dtype=torch.float64))
    assert found.passes(trained_on=32)


def test_all_grids_have_the_same_function(generator):
    seen = []

    def look(source, coefficients):
        seen.append(source)
        return source

    source = torch.randn(2, 32, 32, generator=generator, dtype=torch.float64)  # Nyquist waves included
    found = convergence(Known(look), HELMHOLTZ, source, COEFFICIENTS, GRIDS)
    assert found.distance.max() < 1e-13
    assert found.aliasing.max() < 1e-13
    assert torch.fft.rfft2(seen[0])[:, :, 16].abs().max() < 1e-10
    assert torch.fft.rfft2(seen[0])[:, 16].abs().max() < 1e-10
    for coarse, fine in pairwise(seen):
        torch.testing.assert_close(fine[:, ::2, ::2], coarse)
    inside = torch.fft.rfft2(source)[:, 1:16, 1:16]
    torch.testing.assert_close(torch.fft.rfft2(seen[0])[:, 1:16, 1:16], inside)


def test_what_passes():
    def passes(distances, errors, trained_on=64, **options):
        columns = (torch.tensor(values, dtype=torch.float64)[:, None] for values in (errors, distances, distances))
        return Convergence((32, 64, 128, 256), *columns).passes(trained_on, **options)

    assert passes([0.5, 1e-3, 1e-4, 0], [0.5, 2e-2, 2e-2, 2e-2]), "a coarser grid than that of training does not count"
    assert not passes([0.5, 1e-3, 1e-4, 0], [0.5, 5e-3, 5e-3, 5e-3]), "0.2 of the error"
    assert passes([0.5, 1e-3, 1e-4, 0], [0.5, 5e-3, 5e-3, 5e-3], share=0.25)
    assert not passes([0.5, 1e-4, 1e-3, 0], [0.5, 2e-2, 2e-2, 2e-2]), "it rises"
    assert passes([0.5, 1e-7, 2e-6, 0], [0.5, 2e-2, 2e-2, 2e-2]), "by rounding alone"
    assert not passes([0.5, 1e-3, 1e-4, 0], [0.5, 2e-2, 2e-2, 2e-2], trained_on=32)
    with pytest.raises(ValueError, match="expected a grid from 256 points on beside the finest"):
        passes([0.5, 1e-3, 1e-4, 0], [0.5, 2e-2, 2e-2, 2e-2], trained_on=256)


@pytest.mark.parametrize("architecture", ["unet", "vit"])
def test_networks_with_a_grid_of_their_own_pass_untrained(architecture):
    task = Task.parse("SYS-1(1,5)")
    operator = new_operator([task], architecture=architecture, size="64K")
    examples = draw_split(task, "test", 2, resolution=64)
    found = convergence(operator, task.system, examples.source, examples.coefficients, GRIDS)
    assert found.distance.max() < 1e-5
    assert found.error.min() > 0.1
    assert found.passes(trained_on=32)


def test_an_fno_aliases_through_gelu(small_operator):
    task, operator = Task.parse("SYS-1(1,5)"), small_operator(modes=16)
    examples = draw_split(task, "test", 2, resolution=64)
    found = convergence(operator, task.system, examples.source, examples.coefficients, GRIDS)
    assert found.distance[0].min() > 1e-5
    assert (found.distance[1] < found.distance[0] / 4).all()


def test_what_ships_learned_the_operator():
    """At the grid on which its training ended; on the coarsest, where its modes reach Nyquist's, the answer moves."""
    operator, task = load_operator("sys-1"), Task.parse("SYS-1(1,5)")
    examples = draw_split(task, "test", 4, resolution=64)
    found = convergence(operator, task.system, examples.source, examples.coefficients, GRIDS)
    assert found.passes(trained_on=64)
    assert not found.passes(trained_on=32)
    assert found.error.max() < 0.01


def test_grids_that_are_refused():
    for grids in ((), (32,), (64, 32), (32, 32)):
        with pytest.raises(ValueError, match="expected two or more in rising order"):
            convergence(Known(lambda f, c: f), HELMHOLTZ, wave(1), COEFFICIENTS, grids)
    with pytest.raises(ValueError, match="expected an even number of points"):
        convergence(Known(lambda f, c: f), HELMHOLTZ, wave(1), COEFFICIENTS, (31, 64))
    with pytest.raises(ValueError, match="expects at least 32 points"):
        convergence(load_operator("sys-1"), SYSTEMS["poisson"], wave(1), torch.tensor([[0.01, 0.01, 0.0]]), (16, 32))


# Steps of time --------------------------------------------------------------------------------------------------------

HEAT = HeatForATime()
STATE = 1 + wave(2)
WHOLE = torch.tensor([[0.01, 0.4]], dtype=torch.float64)
RATE = 0.01 * 4 * math.pi**2 * 4
"""Rate of the decay of cos(2 x)."""


def test_the_heat_of_the_study_is_not_offered():
    assert HEAT.name not in SYSTEMS
    torch.testing.assert_close(HEAT.symbol(WHOLE, 8), 0.01 * laplacian(8, like=WHOLE)[None])
    exact = 1 + math.exp(-RATE * 0.4) * wave(2)
    torch.testing.assert_close(HEAT.solve(STATE, WHOLE), exact)


def test_the_exact_flow_is_a_semigroup():
    found = flow_convergence(Known(HEAT.solve), HEAT, STATE, WHOLE, (1, 2, 3, 8), table_step=0.2)
    assert found.error.max() < 1e-13
    assert found.defect.max() < 1e-13
    assert found.to_table[1].max() < 1e-13, "two steps of the table are the whole time"
    once, exact = math.exp(-RATE * 0.2), math.exp(-RATE * 0.4)
    assert found.to_table[0].item() == pytest.approx((once - exact) / math.sqrt(2) / math.sqrt(1 + exact**2 / 2))


def test_a_table_of_one_step_is_found_out():
    told = torch.tensor([[0.01, 0.2]], dtype=torch.float64)
    table = Known(lambda source, coefficients: HEAT.solve(source, told))
    found = flow_convergence(table, HEAT, STATE, WHOLE, (1, 2, 4), table_step=0.2)
    assert found.to_table.max() < 1e-13
    decay = [math.exp(-RATE * time) for time in (0.2, 0.4, 0.8)]
    size = math.sqrt(1 + decay[1] ** 2 / 2)
    expected = [abs(each - decay[1]) / math.sqrt(2) / size for each in decay]
    assert found.error[:, 0].tolist() == pytest.approx(expected, abs=1e-12)
    assert found.defect[0].item() == 0


def test_errors_of_a_wrong_rate_do_not_depend_on_the_steps():
    """A flow, if another one: no defect."""
    faster = Known(lambda source, coefficients: HEAT.solve(source, coefficients * torch.tensor([1.5, 1])))
    found = flow_convergence(faster, HEAT, STATE, WHOLE, (1, 2, 4), table_step=0.2)
    assert found.defect.max() < 1e-13
    torch.testing.assert_close(found.error, found.error[:1].expand(3, 1))
    assert found.error.min() > 0.01


def test_steps_that_are_refused():
    with pytest.raises(ValueError, match="expected an evolution without a rest, got helmholtz"):
        flow_convergence(Known(HEAT.solve), HELMHOLTZ, STATE, COEFFICIENTS, table_step=0.2)
    for numbers in ((), (1, 0)):
        with pytest.raises(ValueError, match="numbers: expected one or more, of at least 1 step"):
            flow_convergence(Known(HEAT.solve), HEAT, STATE, WHOLE, numbers, table_step=0.2)


# The study ------------------------------------------------------------------------------------------------------------


def test_runs_of_each_budget():
    with pytest.raises(ValueError, match="budget: expected one of smoke, laptop, gpu, paper, got 'huge'"):
        convergence_runs("huge")
    for budget in ("smoke", "laptop", "gpu", "paper"):
        runs = convergence_runs(budget)
        assert len({identity(run) for run in runs}) == len(runs)
        assert {run.kind for run in runs} == {"convergence", "flow"}
    with pytest.raises(ValueError, match="architecture: expected one of"):
        ConvergenceRun("SYS-1(1,5)", architecture="none")
