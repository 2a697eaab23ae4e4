"""Sources: the lattice of Gaussians against its definition, the law of the amplitudes, placing by hand."""

import pytest
import torch

from sciml_fm_core.physics.sources import PRESETS, draw_amplitudes, normalize, place, render


def test_render_is_the_sum_of_gaussians_of_the_specification():
    n, sigma = 40, 1 / 32
    amplitudes = torch.rand(12, 12, dtype=torch.float64)
    points = torch.arange(n, dtype=torch.float64) / n
    x, y = points[None, :], points[:, None]
    expected = torch.zeros(n, n, dtype=torch.float64)
    for row in range(12):
        for column in range(12):
            cx, cy = 0.5 + 2 * sigma * (column - 5.5), 0.5 + 2 * sigma * (row - 5.5)
            squared = (x - cx) ** 2 + (y - cy) ** 2
            expected += amplitudes[row, column] * torch.exp(-squared / (2 * sigma**2))
    torch.testing.assert_close(render(amplitudes, n), expected, rtol=1e-12, atol=1e-14)


def test_render_is_not_wrapped():
    amplitudes = torch.zeros(12, 12, dtype=torch.float64)
    amplitudes[:, 0] = 1  # centres at x = 0.15625, 5 sigma from the left edge
    field = render(amplitudes, 64)
    assert 1e-6 < field[32, 0] < 1e-5
    assert field[:, -1].max() < 1e-100


def test_render_batches_and_keeps_dtype():
    amplitudes = torch.rand(2, 3, 12, 12)
    field = render(amplitudes, 16)
    assert field.shape == (2, 3, 16, 16)
    assert field.dtype == torch.float32
    torch.testing.assert_close(field[1, 2], render(amplitudes[1, 2], 16))


@pytest.mark.parametrize("sparsity", [0.2, 0.4, 0.6, 0.8])
def test_amplitudes_follow_their_law(sparsity, generator):
    count = 400
    amplitudes = draw_amplitudes(torch.full((count,), sparsity), generator)
    assert amplitudes.shape == (count, 12, 12)
    zero = amplitudes == 0
    deviation = (sparsity * (1 - sparsity) / zero.numel()) ** 0.5
    assert abs(zero.double().mean() - sparsity) < 4 * deviation
    present = amplitudes[~zero].double()
    assert 1e-3 <= present.min() < 2e-3
    assert 0.999 < present.max() <= 1
    assert abs(present.mean() - 0.5005) < 4 * (1 / 12 / len(present)) ** 0.5
    assert abs(present.var() - 0.999**2 / 12) < 2e-3


def test_amplitudes_are_never_all_zero(generator):
    amplitudes = draw_amplitudes(torch.ones(500), generator)
    assert ((amplitudes > 0).flatten(1).sum(dim=1) == 1).all()
    position = amplitudes.flatten(1).argmax(dim=1)
    assert len(position.unique()) > 100  # the lone Gaussian is drawn anywhere


def test_normalize(generator):
    field = render(draw_amplitudes(torch.full((5,), 0.5), generator).double(), 32)
    scaled = normalize(field, zero_mean=False)
    torch.testing.assert_close(scaled.amax(dim=(-2, -1)), torch.ones(5).double())
    centred = normalize(field, zero_mean=True)
    assert centred.mean(dim=(-2, -1)).abs().max() < 1e-15
    spread = centred.amax(dim=(-2, -1)) - centred.amin(dim=(-2, -1))
    torch.testing.assert_close(spread, 1 - scaled.amin(dim=(-2, -1)))


def test_placed_gaussian_has_its_place_width_and_wraps():
    field = place([(0.25, 0.5, 3.0)], 64, zero_mean=False, dtype=torch.float64)
    assert field.argmax() == 32 * 64 + 16
    assert field.max() == 1
    torch.testing.assert_close(field[32, 18], torch.tensor(-0.5, dtype=torch.float64).exp(), rtol=1e-12, atol=0)
    centred = place([(0.5, 0.5, 1.0)], 64, zero_mean=False, dtype=torch.float64)
    at_corner = place([(0.0, 1.0, 1.0)], 64, zero_mean=False, dtype=torch.float64)
    torch.testing.assert_close(at_corner, torch.roll(centred, (32, 32), (0, 1)), rtol=0, atol=1e-15)
    assert place([(0.5, 0.5, 1.0)], 64, zero_mean=True, dtype=torch.float64).mean().abs() < 1e-15


@pytest.mark.parametrize("name", PRESETS)
def test_presets_can_be_placed(name):
    field = place(PRESETS[name], 64, zero_mean=False)
    assert field.shape == (64, 64)
    assert field.dtype == torch.float32
    assert 0.99 < field.abs().max() <= 1


@pytest.mark.parametrize("rows", [[], [(0.5, 0.5)], [(0.5, float("nan"), 1)], [(0.5, 0.5, 0)]])
def test_bad_gaussians_are_refused(rows):
    with pytest.raises(ValueError, match="gaussians: expected at least one row of finite"):
        place(rows, 16, zero_mean=False)


@pytest.mark.parametrize(
    ("rows", "width"), [([(0.3, 0.4, 1), (0.3, 0.4, -1)], 0.1), ([(0.3, 0.4, 1)], 1e-4), ([(0.3, 0.4, 1)], 0.0)]
)
def test_no_rounding_is_scaled_up_to_a_source(rows, width):
    with pytest.raises(ValueError, match="that 16 points show and that do not cancel"):
        place(rows, 16, zero_mean=False, width=width)
