"""Fourier calculus: exact modes, the Nyquist mode, Parseval, resampling."""

import pytest
import torch

from sciml_fm_core.physics.spectral import (
    check_finite,
    check_grid,
    derivative_wavenumbers,
    filter_modes,
    gradient,
    inverse_transform,
    parseval_weights,
    resample,
    transform,
    translation_symbol,
    wavenumbers,
)


def grid(n):
    points = torch.arange(n, dtype=torch.float64) / n
    return points[None, :], points[:, None]


@pytest.mark.parametrize(("kx", "ky"), [(1, 0), (0, 1), (3, -2), (-7, 5), (7, 7)])
def test_gradient_of_a_plane_wave_is_exact(kx, ky):
    x, y = grid(16)
    phase = 2 * torch.pi * (kx * x + ky * y) + 0.3
    du_dx, du_dy = gradient(torch.sin(phase))
    torch.testing.assert_close(du_dx, 2 * torch.pi * kx * torch.cos(phase), rtol=0, atol=1e-11)
    torch.testing.assert_close(du_dy, 2 * torch.pi * ky * torch.cos(phase), rtol=0, atol=1e-11)


def test_first_axis_is_y_and_second_is_x():
    x, _ = grid(16)
    du_dx, du_dy = gradient(torch.sin(2 * torch.pi * x).expand(16, 16))
    assert du_dx.abs().max() > 6
    assert du_dy.abs().max() < 1e-12


def test_first_derivative_of_the_nyquist_mode_is_zero():
    x, y = grid(16)
    for wave in (torch.cos(16 * torch.pi * x).expand(16, 16), torch.cos(16 * torch.pi * y).expand(16, 16)):
        for derivative in gradient(wave):
            torch.testing.assert_close(derivative, torch.zeros_like(wave), rtol=0, atol=1e-12)


def test_gradient_commutes_with_reflection_of_any_field():
    """White noise holds the Nyquist modes, where a one-sided derivative would break the symmetry."""
    field = torch.randn(16, 16, dtype=torch.float64)

    def reflect(u, axis):
        return torch.roll(torch.flip(u, (axis,)), 1, axis)

    du_dx, du_dy = gradient(field)
    reflected_dx, reflected_dy = gradient(reflect(field, -1))
    torch.testing.assert_close(reflected_dx, -reflect(du_dx, -1), rtol=0, atol=1e-10)
    torch.testing.assert_close(reflected_dy, reflect(du_dy, -1), rtol=0, atol=1e-10)
    reflected_dx, reflected_dy = gradient(reflect(field, -2))
    torch.testing.assert_close(reflected_dx, reflect(du_dx, -2), rtol=0, atol=1e-10)
    torch.testing.assert_close(reflected_dy, -reflect(du_dy, -2), rtol=0, atol=1e-10)


def test_derivative_spectrum_is_that_of_a_real_field():
    """The full complex inverse of the differentiated spectrum has no imaginary part."""
    n = 12
    field = torch.randn(n, n, dtype=torch.float64)
    kx = torch.fft.fftfreq(n, 1 / n, dtype=torch.float64)
    kx = kx.masked_fill(kx.abs() == n // 2, 0)[None, :]
    full = torch.fft.ifft2(2j * torch.pi * kx * torch.fft.fft2(field))
    assert full.imag.abs().max() < 1e-12
    torch.testing.assert_close(gradient(field)[0], full.real, rtol=0, atol=1e-11)


def test_wavenumbers_match_numpy_order_and_derivatives_drop_nyquist_alone():
    kx, ky = wavenumbers(8)
    assert kx.tolist() == [[0, 1, 2, 3, 4]]
    assert ky.flatten().tolist() == [0, 1, 2, 3, -4, -3, -2, -1]
    dx, dy = derivative_wavenumbers(8)
    assert dx.tolist() == [[0, 1, 2, 3, 0]]
    assert dy.flatten().tolist() == [0, 1, 2, 3, 0, -3, -2, -1]


@pytest.mark.parametrize("n", [4, 16, 34])
def test_parseval(n):
    field = torch.randn(3, n, n, dtype=torch.float64)
    energy = (transform(field).abs() ** 2 * parseval_weights(n)).sum(dim=(-2, -1)) / n**2
    torch.testing.assert_close(energy, field.square().sum(dim=(-2, -1)), rtol=1e-13, atol=0)


def translate(field, shift):
    return filter_modes(field, translation_symbol(shift, field.shape[-1]))


def test_translation_is_exact_and_by_whole_points_a_roll():
    points = torch.arange(16, dtype=torch.float64) / 16
    x, y = points[None, :], points[:, None]
    shift = torch.tensor([0.3, -0.11], dtype=torch.float64)

    def wave(x, y):
        return torch.cos(2 * torch.pi * (3 * x - 5 * y) + 0.4)

    torch.testing.assert_close(translate(wave(x, y), shift), wave(x + 0.3, y - 0.11), rtol=0, atol=1e-13)
    field = resample(torch.randn(3, 8, 8, dtype=torch.float64), 16)
    shifts = torch.tensor([[0.25, 0], [0, 0.5], [-0.125, 0.0625]], dtype=torch.float64)
    rolled = [torch.roll(u, tuple(by), (-1, -2)) for u, by in zip(field, [(-4, 0), (0, -8), (2, -1)], strict=True)]
    torch.testing.assert_close(translate(field, shifts), torch.stack(rolled), rtol=0, atol=1e-13)
    noise = torch.randn(16, 16, dtype=torch.float64)  # with its Nyquist modes
    torch.testing.assert_close(translate(translate(noise, shift), -shift), noise, rtol=0, atol=1e-13)


def test_transform_and_back_is_the_identity():
    field = torch.randn(2, 3, 10, 10, dtype=torch.float64)
    torch.testing.assert_close(inverse_transform(transform(field), 10), field, rtol=0, atol=1e-14)


def test_half_precision_is_transformed_in_float32():
    assert transform(torch.randn(8, 8).half()).dtype == torch.complex64
    assert transform(torch.randn(8, 8).bfloat16()).dtype == torch.complex64
    assert transform(torch.randn(8, 8).double()).dtype == torch.complex128


def band_limited(n, largest=5):
    """A real field with random modes up to |k| = largest in each direction, sampled on n points."""
    stream = torch.Generator().manual_seed(3)
    x, y = grid(n)
    field = torch.zeros(n, n, dtype=torch.float64)
    for kx in range(-largest, largest + 1):
        for ky in range(largest + 1):
            amplitude, phase = torch.rand(2, generator=stream, dtype=torch.float64)
            field = field + amplitude * torch.cos(2 * torch.pi * (kx * x + ky * y + phase))
    return field


@pytest.mark.parametrize(("coarse", "fine"), [(12, 32), (12, 14), (16, 64), (32, 12), (64, 12), (20, 20)])
def test_resample_of_a_band_limited_field_is_exact_up_and_down(coarse, fine):
    torch.testing.assert_close(resample(band_limited(coarse), fine), band_limited(fine), rtol=0, atol=1e-11)


def test_resample_keeps_the_values_on_shared_points_and_the_mean():
    field = band_limited(16)
    finer = resample(field, 48)
    torch.testing.assert_close(finer[::3, ::3], field, rtol=0, atol=1e-11)
    torch.testing.assert_close(finer.mean(), field.mean(), rtol=0, atol=1e-12)


def test_resample_keeps_dtype_and_batch():
    assert resample(torch.zeros(2, 3, 8, 8, dtype=torch.float16), 16).dtype == torch.float16
    assert resample(torch.zeros(2, 3, 8, 8), 16).shape == (2, 3, 16, 16)


@pytest.mark.parametrize("shape", [(8,), (8, 10), (2, 8, 6)])
def test_grid_must_be_square(shape):
    with pytest.raises(ValueError, match=r"expected shape \(\.\.\., n, n\)"):
        check_grid(torch.zeros(shape))


@pytest.mark.parametrize("n", [2, 7, 129])
def test_grid_must_be_even_and_the_message_names_the_repeated_edge(n):
    with pytest.raises(ValueError, match=f"even number of points.*got {n}.*not periodic"):
        check_grid(torch.zeros(n, n))


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_non_finite_values_are_named(value):
    field = torch.zeros(4, 4)
    field[1, 2] = value
    with pytest.raises(ValueError, match="source: expected finite values"):
        check_finite(field, "source")
    check_finite(torch.zeros(4, 4), "source")
