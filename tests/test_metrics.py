"""Metrics against hand computation."""

from functools import partial

import numpy as np
import pytest
import torch

from sciml_fm_core import SYSTEMS, Examples, energy_spectrum, mean_relative_error, relative_error, relative_residual
from sciml_fm_core.evaluation.metrics import statistics_of
from sciml_fm_core.experiments.error_bounds import error_bounds
from sciml_fm_core.experiments.uncertainty.ensemble import Prediction
from sciml_fm_core.experiments.uncertainty.method import relative_width
from sciml_fm_core.physics.spectral import root_mean_square
from sciml_fm_core.training.losses import LOSSES, RELATIVE_TO, register_loss, training_loss


def test_relative_error_by_hand():
    solution = torch.tensor([[[3.0, 0.0], [0.0, 4.0]], [[1.0, 1.0], [1.0, 1.0]]])
    prediction = torch.tensor([[[3.0, 0.0], [0.0, 3.0]], [[3.0, 1.0], [1.0, 1.0]]])
    torch.testing.assert_close(relative_error(prediction, solution), torch.tensor([1 / 5, 2 / 2]))
    assert relative_error(solution, solution).tolist() == [0, 0]
    torch.testing.assert_close(relative_error(-solution, solution), torch.tensor([2.0, 2.0]))


def test_relative_error_is_measured_against_the_solution_not_the_prediction():
    solution, prediction = torch.full((4, 4), 1.0), torch.full((4, 4), 3.0)
    assert relative_error(prediction, solution) == 2


def own_ratio(prediction, batch):
    return (prediction - batch.solution).square().mean((-2, -1)) / batch.solution.square().mean((-2, -1))


def test_relative_error_of_a_zero_solution():
    """Like reports that one zero target makes a relative loss NaN: means leave such examples out."""
    zero, one = torch.zeros(4, 4, requires_grad=True), torch.ones(4, 4)
    assert relative_error(zero, zero) == 0
    assert relative_error(one, zero) == float("inf")
    prediction, solution = torch.stack([one, 1.5 * one, zero]), torch.stack([0 * one, one, 0 * one])
    assert mean_relative_error(prediction, solution) == 0.5
    with pytest.raises(ValueError, match="expected an example whose solution is not zero"):
        mean_relative_error(prediction[:1], solution[:1])
    examples = Examples(solution, torch.ones(3, 3), solution, torch.ones(3))
    partial(register_loss, relative_to="solution")(own_ratio)
    try:
        for loss in ("relative", "physics", "residual", "own_ratio"):  # training goes by the others alone
            given = [(SYSTEMS["poisson"], examples)]
            (gradient,) = torch.autograd.grad(training_loss(prediction, given, loss), zero, retain_graph=True)
            assert torch.equal(gradient, torch.zeros_like(gradient))
    finally:
        del LOSSES["own_ratio"], RELATIVE_TO["own_ratio"]


@pytest.mark.parametrize("bad", [torch.nan, torch.inf])
def test_a_prediction_that_is_no_number_is_infinitely_wrong(bad):
    """Like reports that a comparison with NaN is false, so that the first of several candidates wins."""
    assert relative_error(torch.full((4, 4), bad), torch.ones(4, 4)) == torch.inf


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("power", [-300, -150, -37, -23, -10, 0, 10, 24, 37, 150, 300])
def test_sizes_are_right_for_numbers_of_any_size(generator, power, dtype):
    """Like reports that a norm is 0 or infinite because squares of small or large numbers are."""
    if abs(power) > 37 and dtype == torch.float32:
        pytest.skip("no number of this type")
    field = (torch.rand(2, 8, 8, generator=generator, dtype=torch.float64) * 10.0**power).to(dtype)
    for found, expected in (
        (relative_error(2 * field, field), 1),
        (relative_error(-field, field), 2),
        (relative_residual(field, 2 * field), 0.5),
        (Prediction(2 * field, field).relative_spread, 0.5),
        (relative_width(field, field), field.mean((-2, -1)) / root_mean_square(field)),
        (root_mean_square(field).double() / 10.0**power, (field.double() / 10.0**power).square().mean((-2, -1)).sqrt()),
    ):
        torch.testing.assert_close(found, torch.as_tensor(expected).to(found).expand(2), rtol=1e-6, atol=0)


@pytest.mark.parametrize("scale", [1e-300, 1e-160, 1e160, 1e300])
def test_bounds_do_not_depend_on_the_units(generator, scale):
    system, coefficients = SYSTEMS["poisson"], torch.tensor([0.02, 0.01, 0.0], dtype=torch.float64)
    source = torch.randn(8, 8, generator=generator, dtype=torch.float64)
    source -= source.mean()
    prediction = 1.01 * system.solve(source, coefficients)
    expected = error_bounds(prediction, source, coefficients, system)
    torch.testing.assert_close(error_bounds(scale * prediction, scale * source, coefficients, system), expected)


def test_relative_error_does_not_depend_on_resolution_or_scale():
    points = torch.arange(32, dtype=torch.float64) / 32
    solution = torch.sin(2 * torch.pi * points)[None, :].expand(32, 32)
    prediction = solution + 0.1 * torch.cos(2 * torch.pi * points)[:, None]
    error = relative_error(prediction, solution)
    torch.testing.assert_close(error, torch.tensor(0.1, dtype=torch.float64))
    torch.testing.assert_close(relative_error(prediction[::2, ::2], solution[::2, ::2]), error)
    torch.testing.assert_close(relative_error(-7 * prediction, -7 * solution), error)


def test_relative_error_needs_one_shape():
    with pytest.raises(ValueError, match=r"expected a prediction of shape \(2, 8, 8\), got \(8, 8\)"):
        relative_error(torch.zeros(8, 8), torch.zeros(2, 8, 8))


def test_relative_residual(generator):
    system, coefficients = SYSTEMS["helmholtz"], torch.tensor([0.01, 3.0], dtype=torch.float64)
    source = torch.randn(3, 16, 16, generator=generator, dtype=torch.float64)
    solution = system.solve(source, coefficients)
    exact = relative_residual(system.residual(solution, source, coefficients), source)
    assert exact.shape == (3,)
    assert exact.max() < 1e-12
    larger = relative_residual(system.residual(1.25 * solution, source, coefficients), source)
    torch.testing.assert_close(larger, torch.full((3,), 0.25, dtype=torch.float64))


@pytest.mark.parametrize(("kx", "ky", "shell"), [(0, 0, 0), (3, 0, 3), (0, -3, 3), (3, 4, 5), (2, 2, 3), (1, 1, 1)])
def test_spectrum_of_a_wave_is_in_its_shell(kx, ky, shell):
    points = torch.arange(32, dtype=torch.float64) / 32
    wave = torch.cos(2 * torch.pi * (kx * points[None, :] + ky * points[:, None]))
    expected = torch.zeros(16, dtype=torch.float64)
    expected[shell] = 1.0 if shell == 0 else 0.5  # the mean square
    torch.testing.assert_close(energy_spectrum(wave), expected, rtol=0, atol=1e-13)


def test_spectrum_sums_to_the_mean_square_of_a_resolved_field(generator):
    field_hat = torch.zeros(2, 32, 17, dtype=torch.complex128)
    field_hat[:, :9, :9] = torch.randn(2, 9, 9, generator=generator, dtype=torch.complex128)
    field = torch.fft.irfft2(field_hat, s=(32, 32))
    spectrum = energy_spectrum(field)
    assert spectrum.shape == (2, 16)
    torch.testing.assert_close(spectrum.sum(-1), field.square().mean(dim=(-2, -1)), rtol=1e-12, atol=0)
    torch.testing.assert_close(energy_spectrum(field.float()), spectrum.float())


def test_statistics_are_those_of_numpy_and_infinite_where_an_error_is(generator):
    errors = torch.rand(10, generator=generator, dtype=torch.float64)
    wanted = [errors.mean().item(), *np.quantile(errors.numpy(), [0.5, 0.9])]
    assert list(statistics_of(errors).values()) == pytest.approx(wanted, rel=1e-12)
    errors[:4] = torch.inf
    assert statistics_of(errors)["median"] < statistics_of(errors)["percentile_90"] == torch.inf


def test_spectrum_needs_a_grid():
    with pytest.raises(ValueError, match="expected shape"):
        energy_spectrum(torch.zeros(8, 6))
