"""The learned symbol: of operators whose response to every wave is known, and of a trained one."""

import math

import pytest
import torch

from sciml_fm_core import (
    MODELS,
    SYSTEMS,
    LearnedSymbol,
    Model,
    ModelConfig,
    Operator,
    Task,
    draw_split,
    half_plane,
    learned_symbol,
    load_operator,
)
from sciml_fm_core.models.normalization import SymbolNormalization, fit_normalization

COEFFICIENTS = {
    "poisson": (0.02, 0.05, 0.01),
    "advection_diffusion": (0.01, 0.03, -0.005, 0.3, 0.1),
    "helmholtz": (0.01, 3.7),
    "fractional_laplacian": (0.01, 0.7),
    "screened_poisson": (0.5, 0.01),
    "biharmonic_advection": (1e-4, 0.3, 0.1),
}


def row(system):
    return torch.tensor(COEFFICIENTS[system.name], dtype=torch.float64)


def wave(kx, ky=0, n=32):
    points = 2 * torch.pi * torch.arange(n, dtype=torch.float64) / n
    return torch.cos(kx * points + ky * points[:, None])


class Solver(Operator):
    """An operator made of the exact solution u: ``function(u)``."""

    def __init__(self, system, function=lambda solution: solution):
        self.normalization, self.function = SymbolNormalization((system,)), function

    def predict(self, source, coefficients, system=None, *, symmetries=False):
        return self.function(system.solve(source, coefficients))


class Filter(Model):
    """Multiplies each mode of the source by ``3 exp(i (kx - 2 ky) / 5) / (1 + kx^2)``."""

    config_type = ModelConfig

    def __init__(self, config):
        super().__init__(config)
        self.size = torch.nn.Parameter(torch.tensor(3.0, dtype=torch.float64))

    @staticmethod
    def multiplier(kx, ky):
        return torch.exp(0.2j * (kx - 2 * ky)) / (1 + kx**2)

    def forward(self, fields, conditioning):
        n = fields.shape[-1]
        kx, ky = torch.arange(n // 2 + 1)[None, :], torch.fft.fftfreq(n, 1 / n)[:, None]
        return torch.fft.irfft2(self.size * self.multiplier(kx, ky) * torch.fft.rfft2(fields), s=(n, n))


# Wavevectors --------------------------------------------------------------------------------------------------------


def test_half_a_plane_has_one_of_each_pair_of_waves():
    modes = half_plane(6)
    both = [*map(tuple, modes.tolist()), *map(tuple, (-modes).tolist())]
    disc = {(x, y) for x in range(-7, 8) for y in range(-7, 8) if 0 < math.hypot(x, y) < 6.5}
    assert len(both) == len(set(both))
    assert set(both) == disc
    assert modes.dtype == torch.int64


def test_a_few_directions_of_each_shell_are_spread_over_the_half_turn():
    modes = half_plane(10, per_shell=6).double()
    shell = torch.hypot(*modes.unbind(-1)).round()
    assert torch.bincount(shell.long())[1:].tolist() == [4, 6, 6, 6, 6, 6, 6, 6, 6, 6]
    for number in (5, 10):
        angles = torch.atan2(*modes[shell == number].flip(-1).unbind(-1)) / math.pi
        assert angles.diff().max() < 0.27
        assert angles.min() == 0
    with pytest.raises(ValueError, match="of at least 1, got 0 and None"):
        half_plane(0)


# Operators that are known -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("linearised", [False, True])
def test_an_exact_solver_has_the_symbol_of_the_equation(system, linearised, generator):
    """Gain, and with a flow the phase, to rounding; nothing leaks."""
    source = torch.randn(32, 32, generator=generator, dtype=torch.float64)
    source = source - source.mean() if linearised else None
    found = learned_symbol(Solver(system), system, row(system), max_wavenumber=8, resolution=32, source=source)
    kx, ky = found.wavevectors.T
    symbol = torch.as_tensor(system.symbol(row(system), 32), dtype=torch.complex128)
    known = torch.where(kx < 0, symbol[-ky % 32, -kx].conj(), symbol[ky % 32, kx.clamp(min=0)])
    torch.testing.assert_close(found.exact, 1 / known, rtol=1e-12, atol=0)
    torch.testing.assert_close(found.gain, found.exact, rtol=1e-9, atol=0)
    assert found.leak.max() < 1e-9
    assert found.phase_error.abs().max() < 1e-7
    assert found.gain.dtype == torch.complex128
    assert found.leak.dtype == torch.float64


def test_a_flow_turns_the_phase_against_its_direction():
    """For ``-d lap u + v u_x = f`` the gain on (k, 0) is ``1 / (4 pi^2 d k^2 + 2 pi i v k)``: u lags behind f."""
    system, coefficients = SYSTEMS["advection_diffusion"], torch.tensor([0.01, 0.01, 0.0, 0.5, 0.0])
    modes = torch.tensor([[2, 0], [-2, 0], [0, 2]])
    found = learned_symbol(Solver(system), system, coefficients, wavevectors=modes)
    angle = math.atan2(2 * math.pi * 0.5 * 2, 4 * math.pi**2 * 0.01 * 4)
    assert found.gain.angle().tolist() == pytest.approx([-angle, angle, 0], abs=1e-6)  # the coefficients are float32
    still = learned_symbol(Solver(SYSTEMS["poisson"]), "poisson", coefficients[:3], wavevectors=modes)
    against = LearnedSymbol(modes, still.gain, found.exact, still.leak)
    assert against.phase_error.tolist() == pytest.approx([math.degrees(angle), -math.degrees(angle), 0], abs=1e-4)


@pytest.mark.parametrize("linearised", [False, True])
def test_a_network_that_is_a_filter_has_its_own_symbol(linearised, generator):
    """It goes through the normalisation: the derivative of dividing by the size of the source cancels out."""
    system = SYSTEMS["poisson"]
    normalization = fit_normalization("dimensionless", [Task.parse("SYS-1(1,5)")], count=8)
    operator = Operator(Filter(ModelConfig(normalization.in_channels)), normalization)
    source = torch.randn(32, 32, generator=generator, dtype=torch.float64)
    source = source - source.mean() if linearised else None
    found = learned_symbol(operator, None, row(system), max_wavenumber=6, resolution=32, source=source)
    expected = 3 * Filter.multiplier(*found.wavevectors.T) / system.scale(row(system))
    torch.testing.assert_close(found.gain, expected.to(torch.complex128), rtol=1e-6, atol=0)
    assert found.leak.max() < 1e-6
    assert (found.ratio - 1).abs().min() > 0.1


def test_a_known_nonlinearity_leaks_as_much_as_it_should():
    """``u + eps u^2`` at ``f = cos(2 pi q x)``: a mode's response is modulated by ``1 + 2 eps g_q cos(2 pi q x)``."""
    system, eps, q = SYSTEMS["helmholtz"], 0.3, 3
    operator = Solver(system, lambda u: u + eps * u**2)
    modes = torch.tensor([[1, 0], [2, -1], [0, 5]])
    size = 1 / (0.01 * 4 * math.pi**2 * q**2 - 3.7)
    found = learned_symbol(operator, system, row(system), wavevectors=modes, source=wave(q))
    torch.testing.assert_close(found.gain, found.exact, rtol=1e-9, atol=0)
    expected = math.sqrt(2) * eps * abs(size)
    assert found.leak.tolist() == pytest.approx([expected / math.hypot(1, expected)] * 3, rel=1e-9)

    alone = learned_symbol(operator, system, row(system), wavevectors=modes)
    torch.testing.assert_close(alone.gain, alone.exact, rtol=1e-9, atol=0)
    harmonics = math.sqrt(3 / 4) * eps * alone.exact.abs()  # the mean, and e_2k and e_-2k
    torch.testing.assert_close(alone.leak, harmonics / torch.hypot(torch.ones(()), harmonics), rtol=1e-9, atol=0)


def test_the_mean_of_a_source_is_a_mode_where_the_equation_keeps_it():
    """A constant that the network adds to everything is no answer to a sine that is zero."""
    system, zero = SYSTEMS["helmholtz"], torch.tensor([[0, 0]])
    found = learned_symbol(Solver(system, lambda u: u + 0.01), system, row(system), wavevectors=zero)
    assert found.gain.tolist() == pytest.approx([-1 / 3.7 + 0.01])
    assert found.exact.tolist() == pytest.approx([-1 / 3.7])
    with pytest.raises(ValueError, match="sources of zero mean"):
        learned_symbol(Solver(SYSTEMS["poisson"]), "poisson", row(SYSTEMS["poisson"]), wavevectors=zero)


def test_a_mode_that_resonates_has_no_exact_response():
    system, coefficients = SYSTEMS["helmholtz"], torch.tensor([0.01, 0.01 * 4 * math.pi**2 * 4], dtype=torch.float64)
    modes = torch.tensor([[2, 0], [1, 1]])
    found = learned_symbol(Solver(system), system, coefficients, wavevectors=modes)
    assert found.exact[0] == 0
    assert found.ratio.isnan().tolist() == [True, False]


# Networks -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("architecture", ["fno", "unet", "vit"])
@pytest.mark.parametrize("kind", ["dimensionless", "symbol", "paper"])
def test_the_derivative_is_the_limit_of_differences(architecture, kind, generator):
    if kind == "symbol" and not MODELS[architecture].takes_modes:
        pytest.skip("the architecture takes no values on modes")
    task = Task.parse("SYS-2(0.2,1)")
    normalization = fit_normalization(kind, [task], count=16)
    small = {"fno": {"width": 8, "modes": 4}, "unet": {"width": 8}, "vit": {"width": 16, "depth": 2}}[architecture]
    model = MODELS[architecture]
    config = model.config_type(normalization.in_channels, mode_channels=normalization.mode_channels, **small)
    operator = Operator(model.create(config, generator).double(), normalization)
    example = task.sample(1, 32, generator, dtype=torch.float64)
    source, coefficients = example.source[0], example.coefficients[0]
    modes = torch.tensor([[1, 0], [-2, 3]])
    found = learned_symbol(operator, None, coefficients, wavevectors=modes, source=source)
    for number, (kx, ky) in enumerate(modes.tolist()):
        e = torch.complex(wave(kx, ky), wave(kx, ky).roll(8 // kx, dims=-1))  # a quarter of a wave further: the sine
        step = 1e-5 * torch.stack([e.real, e.imag])
        both = operator.predict(source + step, coefficients) - operator.predict(source - step, coefficients)
        response = torch.complex(*both) / 2e-5
        gain = (response * e.conj()).mean()
        torch.testing.assert_close(found.gain[number], gain, rtol=1e-5, atol=1e-9)
        rest = torch.linalg.vector_norm(response - gain * e) / torch.linalg.vector_norm(response)
        assert found.leak[number].item() == pytest.approx(rest.item(), rel=1e-4)


def test_what_ships_has_learned_long_waves_in_its_range_and_not_far_from_it():
    operator, system = load_operator("sys-1"), SYSTEMS["poisson"]
    source = draw_split(Task.parse("SYS-1(1,5)"), "test", 1, resolution=64).source[0]
    off = {}
    for dial in (3.0, 20.0):
        coefficients = system.coefficients(torch.tensor(dial), source, torch.tensor([0.5]))
        for at in (None, source):
            found = learned_symbol(
                operator, system, coefficients, wavevectors=half_plane(5, per_shell=4), source=at, resolution=64
            )
            off[dial, at is None] = (found.ratio - 1).abs().mean().item()
    assert max(off[3.0, True], off[3.0, False]) < 0.03
    assert min(off[20.0, True], off[20.0, False]) > 0.1


def test_the_symbol_hardly_depends_on_the_grid_and_a_source_is_resampled():
    operator, system = load_operator("sys-1"), SYSTEMS["poisson"]
    source = draw_split(Task.parse("SYS-1(1,5)"), "test", 1, resolution=64).source[0]
    modes = half_plane(3, per_shell=2)
    found = [
        learned_symbol(operator, system, row(system), wavevectors=modes, source=source, resolution=n)
        for n in (None, 32, 64)
    ]
    torch.testing.assert_close(found[0].gain, found[2].gain)
    torch.testing.assert_close(found[0].gain, found[1].gain, rtol=0.01, atol=0)


# What is refused ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"max_wavenumber": 16, "resolution": 32}, r"less than the Nyquist wavenumber 16 of 32 points.* got 16; use a"),
        ({"wavevectors": torch.tensor([[0, -32]])}, r"less than the Nyquist wavenumber 32 of 64 points"),
        ({"wavevectors": torch.tensor([[1.0, 0.0]])}, r"expected whole numbers .* got \(1, 2\) of torch.float32"),
        ({"wavevectors": torch.tensor([1, 0])}, r"expected whole numbers \(kx, ky\) of shape \(m, 2\), got \(2,\)"),
        ({"source": torch.zeros(2, 8, 8)}, r"source: expected one of shape \(n, n\), got \(2, 8, 8\)"),
        ({"source": torch.full((8, 8), torch.nan)}, "source: expected finite values"),
        ({"coefficients": torch.ones(2, 3)}, r"coefficients: expected shape \(c,\), got \(2, 3\)"),
        ({"coefficients": torch.ones(2)}, r"coefficients: poisson expects shape \(..., 3\)"),
        ({"system": "helmholtz"}, "this operator was trained for poisson, got helmholtz"),
        ({"resolution": 7}, "expected an even number of points"),
    ],
)
def test_what_cannot_be_asked_is_explained(small_operator, changes, message):
    given = {"system": "poisson", "coefficients": row(SYSTEMS["poisson"]), "max_wavenumber": 2} | changes
    with pytest.raises(ValueError, match=message):
        learned_symbol(small_operator("SYS-1(1,5)"), given.pop("system"), given.pop("coefficients"), **given)


def test_a_source_of_zero_is_no_source(small_operator):
    operator, coefficients = small_operator("SYS-1(1,5)"), row(SYSTEMS["poisson"])
    found = [
        learned_symbol(operator, None, coefficients, max_wavenumber=2, resolution=32, source=source)
        for source in (None, torch.zeros(32, 32))
    ]
    assert torch.equal(found[0].gain, found[1].gain)
