"""Bands, scores and calibration by hand and by their promise; constraints are satisfied exactly."""

import math

import pytest
import torch

from sciml_fm_core import PAPER_TASKS, Task
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


def test_the_share_of_a_gaussian_is_covered(generator):
    noise = torch.randn(4, 200, 200, generator=generator, dtype=torch.float64)
    one, zero = torch.ones_like(noise), torch.zeros_like(noise)
    torch.testing.assert_close(covered(zero, GAUSSIAN_90 * one, noise), 0.9 * torch.ones(4).double(), atol=5e-3, rtol=0)
    torch.testing.assert_close(relative_width(3 * one, 2 * one), 1.5 * torch.ones(4).double())


def test_crps_is_the_integral_that_defines_it():
    """Integrate (F(x) - 1[x >= y])^2 over x, by quadrature."""
    x = torch.linspace(-40, 40, 400_001, dtype=torch.float64)
    for mean, spread, value in ((0.3, 1.7, -2.0), (0.0, 0.5, 0.1), (-1.0, 2.0, 6.0)):
        distribution = 0.5 * (1 + torch.erf((x - mean) / (spread * math.sqrt(2))))
        integral = torch.trapezoid((distribution - (x >= value).double()).square(), x)
        given = (torch.tensor(v, dtype=torch.float64) for v in (mean, spread, value))
        assert gaussian_crps(*given).item() == pytest.approx(integral.item(), abs=2e-4)


def test_crps_is_lowest_for_the_true_spread(generator):
    noise = torch.randn(100_000, generator=generator, dtype=torch.float64)
    scores = [gaussian_crps(torch.zeros_like(noise), torch.full_like(noise, s), noise).mean() for s in (0.7, 1.0, 1.4)]
    assert scores[1] == min(scores)
    with pytest.raises(ValueError, match="at least 0"):
        gaussian_crps(noise, -noise.abs(), noise)


def test_a_score_is_the_smallest_factor_that_covers(generator):
    error = torch.rand(5, 10, 10, generator=generator, dtype=torch.float64)
    spread = 0.1 + torch.rand(5, 10, 10, generator=generator, dtype=torch.float64)
    scores = conformal_scores(error, spread, torch.zeros_like(error), 0.9)[:, None, None]
    assert (covered(error, (1 + 1e-12) * scores * spread, torch.zeros_like(error)) == 0.9).all()
    assert (covered(error, 0.9999 * scores * spread, torch.zeros_like(error)) < 0.9).all()
    largest = conformal_scores(error, spread, torch.zeros_like(error), 1.0)
    torch.testing.assert_close(largest, (error / spread).amax(dim=(-2, -1)))
    exact = torch.zeros(1, 2, 2)
    assert conformal_scores(exact, exact, exact).item() == 0, "no error needs no spread"


def test_calibrated_bands_hold_what_they_promise_whatever_the_spread(generator):
    """Over many draws of calibration and test examples, between confidence and confidence + 1 / (N + 1)."""
    count, held = 39, []
    for _ in range(2000):
        scores = torch.rand(count + 1, generator=generator, dtype=torch.float64).pow(3)
        held.append(scores[-1] <= conformal_factor(scores[:-1], 0.9))
    share = torch.stack(held).double().mean().item()
    assert 0.9 - 0.02 < share < 0.9 + 1 / (count + 1) + 0.02


def test_calibration_refuses_what_it_cannot_promise():
    with pytest.raises(ValueError, match="give at least 9"):
        conformal_factor(torch.ones(8), 0.9)
    assert conformal_factor(torch.ones(9), 0.9) == 1
    with pytest.raises(ValueError, match=r"confidence: expected a share in \(0, 1\)"):
        conformal_factor(torch.ones(8), 1.0)
    with pytest.raises(ValueError, match=r"coverage: expected a share in \(0, 1\]"):
        conformal_scores(torch.ones(1, 2, 2), torch.ones(1, 2, 2), torch.ones(1, 2, 2), 0.0)


def test_correlations_by_hand(generator):
    x = torch.rand(50, generator=generator, dtype=torch.float64) + 0.1
    assert log_correlation(x, 3 * x**2.5) == (1, 1)
    assert log_correlation(x, 1 / x) == (-1, -1)
    assert log_correlation(x, torch.exp(x)).spearman == 1
    assert log_correlation(x, torch.exp(x)).pearson < 1
    assert log_correlation(x, torch.ones_like(x)) == (0, 0)
    ties = log_correlation(torch.tensor([1.0, 1, 2, 2]), torch.tensor([1.0, 2, 3, 4]))
    assert ties.spearman == pytest.approx(4 / math.sqrt(4 * 5))
    with pytest.raises(ValueError, match="above 0"):
        log_correlation(x, -x)


def test_one_step_is_the_error_where_the_preconditioner_is_the_symbol(generator):
    """Poisson with equal diffusion in all directions, but for how the preconditioner bins wavenumbers in shells."""
    system = Task.parse("SYS-1(1,5)").system
    x = torch.arange(16, dtype=torch.float64) / 16
    error = torch.cos(2 * torch.pi * 3 * x).expand(1, 16, 16)
    coefficients = torch.tensor([[0.01, 0.01, 0.0]], dtype=torch.float64)
    examples = Task.parse("SYS-1(1,5)").sample(1, 16, generator, dtype=torch.float64)
    solution = system.solve(examples.source, coefficients)
    step = preconditioned_step(solution + error, examples.source, coefficients, system)
    factor = (step * error).sum() / error.square().sum()
    assert factor == pytest.approx(1, abs=0.1)
    torch.testing.assert_close(step, factor * error)
    assert preconditioned_step(solution, examples.source, coefficients, system).abs().max() < 1e-12


def test_constraints_hold_exactly_and_what_is_certain_stays(generator):
    mean, spread = (torch.rand(3, 8, 8, generator=generator, dtype=torch.float64) for _ in range(2))
    spread[:, :4] = 0
    rows = torch.randn(2, 8, 8, generator=generator, dtype=torch.float64)
    values = torch.randn(3, 2, generator=generator, dtype=torch.float64)
    updated = probconserv(mean, spread, rows, values)
    torch.testing.assert_close(torch.einsum("byx,ryx->br", updated, rows), values)
    assert torch.equal(updated[:, :4], mean[:, :4])
    again = probconserv(updated, spread, rows, values)
    torch.testing.assert_close(again, updated)
    with pytest.raises(ValueError, match="give it a least value"):
        probconserv(mean, torch.zeros_like(mean), rows, values)
    with pytest.raises(ValueError, match="expected a mean and a spread"):
        probconserv(mean, spread, rows, values[:, :1])


def test_the_update_is_the_nearest_field_in_units_of_the_spread(generator):
    """No other change that satisfies the constraint is as small."""
    mean, spread, other = (torch.rand(6, 6, generator=generator, dtype=torch.float64) + 0.1 for _ in range(3))
    row = torch.full((1, 6, 6), 1 / 36, dtype=torch.float64)
    updated = probconserv(mean, spread, row, torch.zeros(1, dtype=torch.float64))
    other = updated + 0.1 * (other - other.mean())
    assert other.mean().abs() < 1e-12
    assert ((updated - mean) / spread).norm() < ((other - mean) / spread).norm()


@pytest.mark.parametrize("name", PAPER_TASKS)
def test_the_whole_equation_as_constraints_is_the_exact_solution(name, generator):
    task = Task.parse(PAPER_TASKS[name]["pre-training"])
    n, system = 8, task.system
    examples = task.sample(1, n, generator, dtype=torch.float64)
    basis = torch.eye(n * n, dtype=torch.float64).view(-1, n, n)
    # the solution operator's inverse as rows, on the modes that it has, and the mean where it has none
    operator = system.residual(basis, torch.zeros_like(basis), examples.coefficients.expand(n * n, -1)).flatten(1).T
    rows = (operator + (1 / n**2 if system.zero_mean else 0)).view(-1, n, n)
    solution = system.solve(examples.source, examples.coefficients)
    values = solution.flatten(1) @ rows.flatten(1).T
    start, spread = (torch.rand(1, n, n, generator=generator, dtype=torch.float64) + 0.5 for _ in range(2))
    torch.testing.assert_close(probconserv(start, spread, rows, values), solution, rtol=1e-6, atol=1e-8)


@pytest.mark.parametrize("name", PAPER_TASKS)
def test_the_mean_is_known(name, generator):
    task = Task.parse(PAPER_TASKS[name]["pre-training"])
    examples = task.sample(4, 32, generator, dtype=torch.float64)
    found = known_mean(examples.source, examples.coefficients, task.system)
    torch.testing.assert_close(found, examples.solution.mean(dim=(-2, -1)))
