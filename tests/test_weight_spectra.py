"""Power laws fitted to known samples, and spectra of weights by hand."""

import pytest
import torch

from sciml_fm_core import load_operator
from sciml_fm_core.experiments.weight_spectra.method import fit_power_law, layer_spectra, mean_exponent


def pareto(alpha, count, generator):
    """Samples of ``p(x) ~ x^-alpha`` from 1 on, by inversion."""
    return (1 - torch.rand(count, generator=generator, dtype=torch.float64)) ** (-1 / (alpha - 1))


@pytest.mark.parametrize("alpha", [1.8, 2.5, 4.0])
def test_the_exponent_of_a_pareto_law_is_found(alpha, generator):
    found = fit_power_law(pareto(alpha, 5000, generator))
    assert found.alpha == pytest.approx(alpha, rel=0.08)  # four standard errors of a quarter of the samples
    assert found.distance < 0.02


def test_the_tail_begins_where_the_law_does(generator):
    body = torch.rand(5000, generator=generator, dtype=torch.float64) * 3
    found = fit_power_law(torch.cat([body, 3 * pareto(2.5, 5000, generator)]))
    assert found.x_min == pytest.approx(3, rel=0.2)
    assert found.alpha == pytest.approx(2.5, rel=0.08)


def test_the_fit_does_not_depend_on_the_unit(generator):
    values = pareto(2.2, 500, generator)
    once, again = fit_power_law(values), fit_power_law(1000 * values)
    assert again.alpha == pytest.approx(once.alpha, rel=1e-9)
    assert again.x_min == pytest.approx(1000 * once.x_min, rel=1e-9)


@pytest.mark.parametrize("values", [torch.ones(20), torch.zeros(20), torch.rand(3), torch.full((20,), torch.nan)])
def test_what_has_no_tail_is_said(values):
    with pytest.raises(ValueError, match="power law: expected"):
        fit_power_law(values)


def test_spectra_of_layers_add_up_to_the_squared_norms_of_their_weights():
    model = load_operator("sys-1").model
    spectra, tensors = layer_spectra(model), model.tensors()
    assert len(spectra["spectral.0.weight"]) == 512 * 16, "one matrix on each of its modes"
    for name, values in spectra.items():
        assert values.sum().item() == pytest.approx(tensors[name].double().square().sum().item(), rel=1e-6)


def test_the_mean_exponent_does_not_depend_on_the_size_of_the_weights():
    model = load_operator("sys-1").copy().model
    before = mean_exponent(model)
    with torch.no_grad():
        for weight in model.parameters():
            weight.mul_(2)
    assert mean_exponent(model) == pytest.approx(before, rel=1e-4)
