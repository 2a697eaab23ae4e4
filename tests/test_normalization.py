"""What the network sees: the paper's normalisation against its formula, the dimensionless one against its promises."""

import pytest
import torch

from sciml_fm_core import SYSTEMS, Evolution, Task
from sciml_fm_core.models.normalization import (
    COMPOSITIONS,
    VARIATIONS,
    DimensionlessNormalization,
    PaperNormalization,
    SymbolNormalization,
    fit_normalization,
    normalization_from_dict,
    second_operator,
)
from sciml_fm_core.physics.spectral import laplacian

KINDS = ("paper", "dimensionless", "symbol")
LABELS = ("SYS-1(1,5)", "SYS-2(0.2,1)", "SYS-3(1,10)")


@pytest.fixture
def examples(task, generator):
    return task.sample(33, 32, generator, dtype=torch.float64)


def encoded_close(a, b, tolerance=1e-12):
    torch.testing.assert_close(a.field, b.field, rtol=tolerance, atol=tolerance)
    torch.testing.assert_close(a.scalars, b.scalars, rtol=tolerance, atol=tolerance)


# The paper's ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("label", LABELS)
def test_paper_normalisation_is_the_formula_of_the_specification(label, generator):
    task = Task.parse(label)
    examples, n = task.sample(33, 128, generator, dtype=torch.float64), 128
    size = torch.stack([torch.linalg.norm(f) / n**2 for f in examples.source])
    ratio = size / size.median()
    scaled = examples.coefficients.abs().median(dim=0).values
    scaled[scaled == 0] = 1
    normalization = PaperNormalization.fit([(task.system, examples)])
    encoded = normalization.encode(examples.source, examples.coefficients, task.system)
    torch.testing.assert_close(encoded.field[:, 0], examples.source / ratio[:, None, None], rtol=1e-10, atol=1e-14)
    torch.testing.assert_close(encoded.scalars, examples.coefficients / ratio[:, None] / scaled, rtol=1e-10, atol=0)
    output = torch.randn(33, 1, n, n, dtype=torch.float64)
    assert torch.equal(encoded.decode(output), output[:, 0])  # u itself


def test_paper_median_of_zero_becomes_one(generator):
    task = Task.parse("SYS-1(1,5)")
    examples = task.sample(9, 16, generator)
    examples.coefficients[:, 2] = 0
    normalization = PaperNormalization.fit([(task.system, examples)])
    assert normalization.coefficient_medians[2] == 1
    assert normalization.coefficient_medians[0] != 1


def test_inputs_do_not_depend_on_resolution():
    """A source without content beyond the coarse grid gives the same numbers on a finer one."""
    task, points = Task.parse("SYS-1(1,5)"), torch.arange(64, dtype=torch.float64) / 64
    source = torch.cos(2 * torch.pi * points)[None, :].expand(64, 64)[None] * 0.7
    coefficients = torch.tensor([[0.02, 0.03, 0.01]], dtype=torch.float64)
    for kind in KINDS:
        normalization = fit_normalization(kind, [task], count=32)
        fine = normalization.encode(source, coefficients, task.system)
        coarse = normalization.encode(source[:, ::2, ::2], coefficients, task.system)
        torch.testing.assert_close(fine.field[..., ::2, ::2], coarse.field, rtol=1e-12, atol=1e-14)
        torch.testing.assert_close(fine.scalars, coarse.scalars, rtol=1e-12, atol=1e-14)
        torch.testing.assert_close(fine.scale, coarse.scale, rtol=1e-12, atol=0)


def test_paper_needs_a_median_for_each_channel():
    with pytest.raises(ValueError, match="expected 3 medians for k11 k22 k12, got 2"):
        PaperNormalization((SYSTEMS["poisson"],), 1.0, (1.0, 1.0))


# The dimensionless one ------------------------------------------------------------------------------------------------


def test_scaling_source_and_operator_together_changes_nothing(task, examples, times):
    normalization = fit_normalization("dimensionless", [task], count=64)
    first = normalization.encode(examples.source, examples.coefficients, task.system)
    scaled = normalization.encode(7 * examples.source, times(7.0, task.system, examples.coefficients), task.system)
    encoded_close(first, scaled)
    torch.testing.assert_close(first.scale, scaled.scale, rtol=1e-12, atol=0)


def test_scaling_the_source_alone_scales_the_output(task, examples, times):
    normalization = fit_normalization("dimensionless", [task], count=64)
    first = normalization.encode(examples.source, examples.coefficients, task.system)
    scaled = normalization.encode(7 * examples.source, examples.coefficients, task.system)
    encoded_close(first, scaled)
    torch.testing.assert_close(7 * first.scale, scaled.scale, rtol=1e-12, atol=0)
    slower = normalization.encode(examples.source, times(7.0, task.system, examples.coefficients), task.system)
    encoded_close(first, slower)
    torch.testing.assert_close(first.scale / 7, slower.scale, rtol=1e-12, atol=0)


def test_output_scale_is_that_of_the_specification(generator):
    """g / (4 pi^2 kappa + 2 pi |v|), kappa = (K11 + K22) / 2, g = rms(f)."""
    for label in LABELS:
        task = Task.parse(label)
        source, c, _, _ = task.sample(5, 16, generator, dtype=torch.float64)
        g = source.square().mean(dim=(-2, -1)).sqrt()
        kappa = c[:, 0] if label.startswith("SYS-3") else (c[:, 0] + c[:, 1]) / 2
        speed = torch.linalg.vector_norm(c[:, 3:], dim=-1) if label.startswith("SYS-2") else 0
        encoded = fit_normalization("dimensionless", [task], count=16).encode(source, c, task.system)
        expected = g / (4 * torch.pi**2 * kappa + 2 * torch.pi * speed)
        torch.testing.assert_close(encoded.scale, expected, rtol=1e-12, atol=0)
        torch.testing.assert_close(encoded.field.square().mean(dim=(-2, -1)), torch.ones(5, 1).double())


def test_inputs_are_of_order_one_in_training(task, examples):
    encoded = fit_normalization("dimensionless", [task], count=512).encode(
        examples.source, examples.coefficients, task.system
    )
    assert encoded.scalars.abs().max() < 3
    assert (examples.solution / encoded.scale[:, None, None]).abs().max() < 100


def test_inputs_tell_different_physics_apart(task, examples):
    """No two examples of different coefficients look the same to the network, except in scale."""
    constants = fit_normalization("dimensionless", [task], count=64).encode(
        examples.source, examples.coefficients, task.system
    ).scalars  # fmt: skip
    distance = torch.cdist(constants, constants) + 9 * torch.eye(len(constants)).double()
    same = (examples.coefficients[:, None] == examples.coefficients[None]).all(-1)
    assert distance[~same].min() > 1e-4


def test_mean_is_removed_where_the_system_has_none(task, examples):
    encoded = fit_normalization("dimensionless", [task], count=16).encode(
        examples.source, examples.coefficients, task.system
    )
    decoded = encoded.decode(torch.rand(33, 1, 32, 32, dtype=torch.float64))
    if task.system.zero_mean:
        assert decoded.mean(dim=(-2, -1)).abs().max() < 1e-14
    else:
        assert decoded.mean(dim=(-2, -1)).abs().min() > 0


def test_zero_source_stays_finite(task, examples):
    for kind in KINDS:
        encoded = fit_normalization(kind, [task], count=16).encode(
            torch.zeros_like(examples.source), examples.coefficients, task.system
        )
        assert encoded.field.abs().max() == 0
        assert all(torch.isfinite(tensor).all() for tensor in encoded if tensor is not None)


# The symbol -----------------------------------------------------------------------------------------------------------


def divide(encoded):
    """The network that has understood: it finds z in what it is told of each mode, and divides by it."""
    size, (cosine, sine) = 1 / encoded.modes[..., 3] - 1, encoded.modes[..., 1:3].unbind(-1)
    inverse = torch.where(cosine**2 + sine**2 > 0.5, torch.complex(cosine, -sine) / size, 0)
    n = encoded.field.shape[-1]
    return torch.fft.irfft2(torch.fft.rfft2(encoded.field) * inverse[:, None], s=(n, n))


@pytest.mark.parametrize("varied", [False, True])
@pytest.mark.parametrize("sign", [1, -1])
def test_what_is_told_of_the_symbol_is_the_equation(task, examples, generator, varied, sign):
    """Dividing by what is told gives the exact solution, in every equivalent description that a training draws."""
    variation = torch.rand(33, VARIATIONS, generator=generator, dtype=torch.float64) if varied else None
    encoded = fit_normalization("symbol", [task], count=4).encode(
        sign * examples.source, examples.coefficients, task.system, variation=variation
    )
    torch.testing.assert_close(encoded.decode(divide(encoded)), sign * examples.solution, rtol=1e-9, atol=1e-9)


def numbers_of_second_operators(count, generator):
    """As a training draws them: every other example has one."""
    numbers = torch.rand(count, COMPOSITIONS, generator=generator, dtype=torch.float64)
    numbers[:, 0] = torch.arange(count) % 2
    return numbers


def test_a_composed_operator_is_another_description_of_the_same_solution(task, generator):
    """The network is told another equation and another source, and makes the same solution of them."""
    examples = task.sample(33, 32, generator, dtype=torch.float64)
    examples = examples.resampled(16).resampled(32)  # no wave at the Nyquist wavenumber
    normalization = fit_normalization("symbol", [task], count=4)
    factors = torch.rand(33, VARIATIONS, generator=generator, dtype=torch.float64)
    second = numbers_of_second_operators(33, generator)
    plain, composed = (
        normalization.encode(examples.source, examples.coefficients, task.system, variation=variation)
        for variation in (factors, torch.cat([factors, second], dim=1))
    )
    torch.testing.assert_close(composed.decode(divide(composed)), examples.solution, rtol=1e-9, atol=1e-9)
    differs = (composed.field - plain.field).abs().amax((1, 2, 3)) > 1e-3
    assert torch.equal(differs, second[:, 0] > 0)
    imaginary = composed.modes[:, 1:5, 1:5, 2].abs().amax((1, 2))
    assert (imaginary[differs] > 0.1).all(), "phases that a real symbol has not"


def test_second_operators_can_be_inverted_and_reach_what_a_diffusion_lacks(generator):
    """Both signs, small sizes and every phase, and never zero."""
    numbers = numbers_of_second_operators(500, generator)
    symbol, chosen = second_operator(numbers, 32), numbers[:, 0] > 0
    assert (symbol[~chosen] == 1).all()
    assert (symbol[chosen].abs() >= 0.1 / 2048).all()
    assert (symbol.abs() <= 128.9).all()
    numbers[:, 1:3] = 0  # no translation
    real = second_operator(numbers, 32)
    assert real.imag.abs().max() == 0
    turned = (real.real[chosen, 1:5, 1:5] < 0).any(2).any(1)
    assert 0.5 < turned.double().mean() < 1
    assert (real.abs() < 0.05).any()
    coarse = second_operator(numbers, 16)
    torch.testing.assert_close(coarse[:, :8, :8], real[:, :8, :8], msg="the same operator on every grid")


def test_an_evolution_is_told_by_its_multiplier(generator):
    class Decay(Evolution):
        coefficient_names = ("time",)
        zero_mean = False

        def symbol(self, coefficients, n):
            return laplacian(n, like=coefficients).expand(*coefficients.shape[:-1], -1, -1) / 1000

    source, coefficients = torch.rand(3, 32, 32, dtype=torch.float64, generator=generator), torch.ones(3, 1).double()
    normalization = SymbolNormalization((SYSTEMS["poisson"],))
    encoded = normalization.encode(source, coefficients, Decay())
    exact = Decay().solve(source, coefficients)  # up to where what is told of the smallest multipliers saturates
    torch.testing.assert_close(encoded.decode(divide(encoded)), exact, rtol=1e-4, atol=1e-5)


def test_sources_and_their_negatives_look_alike(task, examples):
    normalization = fit_normalization("symbol", [task], count=4)
    first, other = (
        normalization.encode(sign * examples.source, examples.coefficients, task.system) for sign in (1, -1)
    )
    assert torch.equal(first.field, other.field)
    output = torch.randn(33, 1, 32, 32, dtype=torch.float64)
    assert torch.equal(first.decode(output), -other.decode(output))


def test_the_mean_is_that_of_the_equation_whatever_the_network_says():
    system = SYSTEMS["helmholtz"]
    source = torch.rand(33, 32, 32, dtype=torch.float64)
    coefficients = torch.tensor([[0.01, 3.0]], dtype=torch.float64).expand(33, 2)
    encoded = SymbolNormalization((system,)).encode(source, coefficients, system)
    assert encoded.field.mean(dim=(-2, -1)).abs().max() < 1e-14
    decoded = encoded.decode(torch.rand(33, 1, 32, 32, dtype=torch.float64))
    torch.testing.assert_close(decoded.mean(dim=(-2, -1)), -source.mean(dim=(-2, -1)) / 3)


def test_variations_are_the_factors_that_are_promised(task, examples):
    normalization = fit_normalization("symbol", [task], count=4)
    plain = normalization.encode(examples.source, examples.coefficients, task.system)
    for numbers, factor in (((0.5, 0.9), 1), ((0.0, 0.9), 0.25), ((1.0, 0.1), -4)):
        variation = torch.tensor([numbers], dtype=torch.float64).expand(33, -1)
        varied = normalization.encode(examples.source, examples.coefficients, task.system, variation=variation)
        torch.testing.assert_close(varied.scale, plain.scale / factor)


def test_operators_told_the_symbol_know_every_system():
    normalization = fit_normalization("symbol", [Task.parse("SYS-1(1,5)")], count=4)
    assert normalization.resolve(None) is SYSTEMS["poisson"]
    assert normalization.resolve("SYS-3") is SYSTEMS["helmholtz"]
    assert (normalization.in_channels, normalization.mode_channels, normalization.channel_names) == (1, 5, ())
    assert not fit_normalization("paper", [Task.parse("SYS-1(1,5)")], count=4).knows(SYSTEMS["helmholtz"])


# Mixtures, and all kinds ---------------------------------------------------------------------------------------------


def test_mixed_paper_channels():
    tasks = [Task.parse(label) for label in LABELS]
    normalization = fit_normalization("paper", tasks, count=64)
    names = ("k11", "k22", "k12", "v1", "v2", "omega")
    assert normalization.channel_names == names
    assert normalization.in_channels == 7
    used = {"poisson": {"k11", "k22", "k12"}, "advection_diffusion": set(names) - {"omega"}}
    for task in tasks:
        source, coefficients, _, _ = task.sample(5, 16, torch.Generator().manual_seed(2))
        channels = dict(
            zip(names, normalization.encode(source, coefficients, task.system).scalars.unbind(1), strict=True)
        )
        nonzero = {name for name, channel in channels.items() if channel.any()}
        if task.system.name != "helmholtz":
            assert nonzero == used[task.system.name]
            continue
        assert nonzero == {"k11", "k22", "omega"}
        g = source.square().mean(dim=(-2, -1)).sqrt() / normalization.source_rms
        for name, value in (("k11", 0.01), ("k22", 0.01), ("omega", coefficients[:, 1])):
            median = normalization.coefficient_medians[names.index(name)]
            torch.testing.assert_close(channels[name], value / g / median)


def test_mixed_dimensionless_channels():
    tasks = [Task.parse(label) for label in LABELS]
    normalization = fit_normalization("dimensionless", tasks, count=64)
    names = normalization.channel_names
    assert len(names) == len(set(names)) == 6
    assert set(names) == {name for task in tasks for name in task.system.feature_names}
    for task in tasks:
        source, coefficients, _, _ = task.sample(5, 16, torch.Generator().manual_seed(2))
        constants = normalization.encode(source, coefficients, task.system).scalars
        features = dict(zip(task.system.feature_names, task.system.features(coefficients).unbind(-1), strict=True))
        for i, name in enumerate(names):
            raw = features.get(name, torch.zeros(5))  # what a system does not have is zero
            expected = torch.asinh((raw - normalization.centre[i]) / normalization.spread[i])
            torch.testing.assert_close(constants[:, i], expected, rtol=1e-4, atol=1e-5)
    isotropic = tasks[2].system.features(torch.tensor([0.01, 4.0]))
    torch.testing.assert_close(
        isotropic[:3], tasks[0].system.features(torch.tensor([0.01, 0.01, 0.0]))
    )  # SYS-3 has K = 0.01 I


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("labels", [LABELS[:1], LABELS[1:2], LABELS[2:], LABELS])
def test_plain_values_round_trip(kind, labels, generator):
    tasks = [Task.parse(label) for label in labels]
    normalization = fit_normalization(kind, tasks, count=32)
    again = normalization_from_dict(normalization.to_dict())
    assert type(again) is type(normalization)
    assert again.to_dict() == normalization.to_dict()
    source, coefficients, _, _ = tasks[0].sample(3, 16, generator)
    for a, b in zip(*(x.encode(source, coefficients, tasks[0].system) for x in (normalization, again)), strict=True):
        assert a is b is None or torch.equal(a, b)


def test_same_seed_same_statistics():
    task = Task.parse("SYS-1(1,5)")
    for kind in ("paper", "dimensionless"):
        first, again, other = (fit_normalization(kind, [task], seed=s, count=16).to_dict() for s in (0, 0, 1))
        assert first == again != other


def test_unknown_kinds_and_systems_are_refused():
    with pytest.raises(ValueError, match=r"normalization: expected .*paper.*got 'other'"):
        fit_normalization("other", [Task.parse("SYS-1(1,5)")])
    with pytest.raises(ValueError, match=r"normalization: expected .*paper.*got 'other'"):
        normalization_from_dict({"kind": "other", "systems": ["poisson"]})
    with pytest.raises(ValueError, match="system: expected one of"):
        normalization_from_dict({"kind": "symbol", "systems": ["heat"]})
    with pytest.raises(ValueError, match="expected 3 centres and spreads above 0"):
        DimensionlessNormalization((SYSTEMS["poisson"],), (0, 0, 0), (1, 0, 1))
    with pytest.raises(ValueError, match="expected at least one system"):
        DimensionlessNormalization((), (), ())


@pytest.mark.parametrize("value", [1e-300, 1e300, 1e-40, 1e38, float("nan"), float("inf")])
def test_numbers_that_float32_does_not_hold_are_refused(value):
    """Like reports of statistics that overflow once the network computes in fewer bits."""
    poisson = (SYSTEMS["poisson"],)
    for make in (
        lambda: DimensionlessNormalization(poisson, (0, 0, 0), (1, value, 1)),
        lambda: DimensionlessNormalization(poisson, (0, 0, max(value, 1 / value)), (1, 1, 1)),
        lambda: DimensionlessNormalization(poisson, (1e20, 0, 0), (1e-20, 1, 1)),
        lambda: PaperNormalization(poisson, value, (1, 1, 1)),
        lambda: PaperNormalization(poisson, 1, (1, 1, value)),
    ):
        with pytest.raises(ValueError, match=r"normalization: .*expected .*got (\S+e[+-]\d+|nan|inf|1\.0|\()"):
            make()


def test_resolve_names_the_choice():
    one = fit_normalization("dimensionless", [Task.parse("SYS-1(1,5)")], count=16)
    both = fit_normalization("dimensionless", [Task.parse(label) for label in LABELS[:2]], count=16)
    assert one.resolve(None) is one.resolve("SYS-1") is one.resolve(SYSTEMS["poisson"]) is SYSTEMS["poisson"]
    assert both.resolve("advection_diffusion") is SYSTEMS["advection_diffusion"]
    with pytest.raises(ValueError, match="knows poisson, advection_diffusion; say which with system="):
        both.resolve(None)
    with pytest.raises(ValueError, match="was trained for poisson, got helmholtz"):
        one.resolve("helmholtz")
