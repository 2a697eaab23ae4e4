"""Bounds of the error enclose it, whatever the prediction is, and say nothing where nothing is known."""

import math

import pytest
import torch

from sciml_fm_core import (
    SYSTEMS,
    Evolution,
    SpectralSystem,
    Task,
    draw_split,
    error_bounds,
    load_operator,
    relative_error,
)
from sciml_fm_core.physics.diffusion import rotated_diffusion
from sciml_fm_core.physics.sources import draw_amplitudes, normalize, render

CASES = 10_000


def uniform(low, high, count, generator):
    return low + (high - low) * torch.rand(count, generator=generator, dtype=torch.float64)


def random_coefficients(name, count, generator):
    """Over the range of the dial and far beyond it: eigenvalues of K up to 10,000 times apart, speeds of all sizes."""
    size, angle = 10 ** uniform(-4, 1, count, generator), uniform(0, 2 * math.pi, count, generator)
    ratio = 10 ** uniform(0, 4, count, generator)
    tensor = rotated_diffusion(ratio, angle) * size[:, None]
    direction = uniform(0, 2 * math.pi, count, generator)
    velocity = torch.stack([torch.cos(direction), torch.sin(direction)], dim=-1)
    velocity = velocity * (size * 10 ** uniform(-4, 4, count, generator))[:, None]
    return {
        "poisson": tensor,
        "advection_diffusion": torch.cat([tensor, velocity], dim=-1),
        "biharmonic_advection": torch.cat([size[:, None], velocity], dim=-1),
        "screened_poisson": torch.stack([size, size * ratio], dim=-1),
        "fractional_laplacian": torch.stack([size, uniform(0.1, 3, count, generator)], dim=-1),
        "helmholtz": torch.stack([0.01 + 0 * size, uniform(-1, 20, count, generator)], dim=-1),
    }[name]


def random_cases(name, count, n, generator):
    """Smooth and rough sources, with their Nyquist modes, and predictions that are off in all ways.

    Some are the solution but for little, or for an error of any size, rough, smooth or a factor; some are the solution
    of other coefficients or another field, zero, or rounded to float32.
    """
    system = SYSTEMS[name]
    smooth = normalize(render(draw_amplitudes(torch.full((count,), 0.6), generator), n), zero_mean=system.zero_mean)
    rough, noise = (torch.randn(count, n, n, generator=generator, dtype=torch.float64) for _ in range(2))
    source = torch.where(torch.rand(count, 1, 1, generator=generator) < 0.5, smooth.double(), rough)
    noise = noise - noise.mean(dim=(-2, -1), keepdim=True) * system.zero_mean
    source = source - source.mean(dim=(-2, -1), keepdim=True) * system.zero_mean
    rows = random_coefficients(name, count, generator)
    solution = system.solve(source, rows)
    size = solution.square().mean(dim=(-2, -1), keepdim=True).sqrt()
    off = 10 ** uniform(-16, 2, (count, 1, 1), generator)
    wrong = [
        lambda part: solution[part] + (off * size * noise)[part],
        lambda part: solution[part] + (off * system.solve(noise, rows))[part],
        lambda part: system.solve(source[part], rows[part].flip(0)),
        lambda part: ((1 + off * noise[:, :1, :1]) * solution)[part],
        lambda part: (size * noise + size)[part],
        lambda part: torch.zeros_like(solution[part]),
        lambda part: solution[part].float(),
    ]
    kind = torch.randint(len(wrong), (count,), generator=generator)
    prediction = torch.empty_like(solution)
    for number, make in enumerate(wrong):
        prediction[kind == number] = make(kind == number).double()
    return prediction, source, rows, relative_error(prediction, solution)


@pytest.mark.parametrize(
    ("name", "count"),
    [("poisson", CASES), ("advection_diffusion", CASES), ("biharmonic_advection", 1000), ("screened_poisson", 1000),
     ("fractional_laplacian", 1000), ("helmholtz", 1000)],
)  # fmt: skip
def test_the_error_is_between_its_bounds_in_every_case(name, count):
    prediction, source, rows, error = random_cases(name, count, 16, torch.Generator().manual_seed(1))
    bounds = error_bounds(prediction, source, rows, name)
    assert (bounds.lower <= error).all()
    assert (error <= bounds.upper).all()
    assert (bounds.upper < math.inf).all()
    assert ((bounds.lower > 0) | (error < 1e-9)).all()


def test_bounds_of_helmholtz_say_less_the_nearer_a_resonance_is():
    system, generator = SYSTEMS["helmholtz"], torch.Generator().manual_seed(2)
    source = torch.randn(16, 16, generator=generator, dtype=torch.float64)
    gaps = torch.tensor([0.1, 0.01, 1e-3, 1e-6, 1e-9], dtype=torch.float64)
    rows = torch.stack([torch.full_like(gaps, 0.01), system.resonances[2] + gaps], dim=-1)
    solution = system.solve(source.expand(5, 16, 16), rows)
    prediction = solution + 0.01 * solution.std((-2, -1), keepdim=True) * source
    bounds, error = error_bounds(prediction, source, rows, system), relative_error(prediction, solution)
    assert (bounds.lower <= error).all()
    assert (error <= bounds.upper).all()
    apart = bounds.upper / bounds.lower
    assert (apart[1:] > 2 * apart[:-1]).all()


def test_what_stands_in_a_mode_that_is_annihilated_is_error():
    system = SYSTEMS["poisson"]
    x = torch.arange(16, dtype=torch.float64) / 16
    source = torch.cos(2 * torch.pi * x).expand(16, 16)
    rows = torch.tensor([0.02, 0.03, 0.01], dtype=torch.float64)
    solution = system.solve(source, rows)
    rms = solution.square().mean().sqrt()
    bounds = error_bounds(solution + 0.1 * rms, source, rows, system)
    assert float(bounds.lower) <= 0.1 <= float(bounds.upper)
    helmholtz, rows = SYSTEMS["helmholtz"], torch.tensor([0.01, 0.04 * math.pi**2 * 2], dtype=torch.float64)
    resonant = torch.cos(2 * torch.pi * (x[:, None] + x))
    solution = helmholtz.solve(source, rows)
    off = solution + 0.2 * resonant * solution.norm() / resonant.norm()
    bounds = error_bounds(off, source, rows, helmholtz)
    assert float(bounds.lower) <= 0.2 <= float(bounds.upper)
    assert float(bounds.upper) < 0.3


def test_of_an_isotropic_operator_they_meet():
    system, generator = SYSTEMS["poisson"], torch.Generator().manual_seed(3)
    source = torch.randn(3, 16, 16, generator=generator, dtype=torch.float64)
    source -= source.mean((-2, -1), keepdim=True)
    rows = torch.tensor([0.02, 0.02, 0.0], dtype=torch.float64)
    prediction = system.solve(source, rows) + 0.01 * source
    bounds = error_bounds(prediction, source, rows, system)
    assert torch.allclose(bounds.lower, bounds.upper, rtol=1e-9)
    assert torch.allclose(bounds.lower, relative_error(prediction, system.solve(source, rows)), rtol=1e-9)


@pytest.mark.parametrize("name", ["sys-1", "symbol"])
def test_bounds_of_a_network_are_at_most_twelve_times_apart_at_eigenvalue_ten(name):
    task, system = Task.parse("SYS-1(9.99,10)"), SYSTEMS["poisson"]
    examples = draw_split(task, "test", 64, resolution=64)
    prediction = load_operator(name).predict(examples.source, examples.coefficients, system)
    bounds = error_bounds(prediction, examples.source, examples.coefficients, system)
    error = relative_error(prediction.double(), system.solve(examples.source.double(), examples.coefficients.double()))
    assert (bounds.lower <= error).all()
    assert (error <= bounds.upper).all()
    assert (bounds.upper <= 12 * bounds.lower).all()


def test_nothing_is_said_where_nothing_is_known(monkeypatch):
    source, rows = torch.cos(2 * torch.pi * torch.arange(8) / 8).expand(8, 8), torch.tensor([0.02, 0.02, 0.0])
    poisson = type(SYSTEMS["poisson"])
    nothing = (0, math.inf)
    decay = type("Decay", (Evolution, poisson), {"time": lambda self, coefficients: coefficients[..., :2].sum(-1)})()
    assert error_bounds(source, source, rows, decay) == nothing, "its solution is no quotient by the symbol"
    assert error_bounds(source, source, rows, "poisson") != nothing
    monkeypatch.setattr(poisson, "symbol_bounds", SpectralSystem.symbol_bounds)
    assert error_bounds(source, source, rows, "poisson") == nothing


def test_sources_and_predictions_of_zero():
    system, rows, zero = SYSTEMS["poisson"], torch.tensor([0.02, 0.03, 0.01]), torch.zeros(8, 8)
    wave = torch.cos(2 * torch.pi * torch.arange(8) / 8).expand(8, 8)
    assert error_bounds(zero, zero, rows, system).upper < 1e-11
    assert error_bounds(wave, zero, rows, system) == (math.inf, math.inf)
    assert torch.allclose(torch.stack(error_bounds(zero, wave, rows, system)), torch.tensor(1.0).double())


def test_shapes_and_errors():
    rows, wave = torch.tensor([[0.02, 0.03, 0.01]] * 3), torch.cos(2 * torch.pi * torch.arange(8) / 8).expand(8, 8)
    assert error_bounds(wave.expand(2, 1, 8, 8), wave, rows, "SYS-1").lower.shape == (2, 3)
    with pytest.raises(ValueError, match="prediction: expected the grid of the source"):
        error_bounds(torch.zeros(16, 16), wave, rows, "poisson")
    with pytest.raises(ValueError, match="prediction: expected finite values"):
        error_bounds(wave * math.nan, wave, rows, "poisson")
    with pytest.raises(ValueError, match="zero mean"):
        error_bounds(wave, wave + 1, rows, "poisson")
