"""The solvers: conformance, exact modes, residual and sign, resonance, symmetries, the dials, bad input."""

import math
from dataclasses import replace
from typing import ClassVar

import numpy as np
import pytest
import torch

from sciml_fm_core import PAPER_TASKS, SYSTEMS, Evolution, Parameter, SpectralSystem, Task, find_system
from sciml_fm_core.physics.diffusion import rotated_diffusion
from sciml_fm_core.physics.helmholtz import Helmholtz
from sciml_fm_core.physics.sources import place
from sciml_fm_core.physics.spectral import derivative_wavenumbers, gradient, laplacian, resample, wavenumbers
from sciml_fm_core.physics.tasks import tasks_of

COEFFICIENTS = {
    "poisson": [0.02, 0.03, -0.011],
    "advection_diffusion": [0.02, 0.03, -0.011, 0.4, -0.7],
    "helmholtz": [0.01, 7.0],
    "fractional_laplacian": [0.013, 0.7],
    "screened_poisson": [0.01, 0.6],
    "biharmonic_advection": [2.5e-3, 1.1, -0.7],
}
FLOWING = {"advection_diffusion": 3, "biharmonic_advection": 1}
"""Systems with a velocity, and its first coefficient."""


@pytest.fixture
def coefficients(system):
    return torch.tensor(COEFFICIENTS[system.name], dtype=torch.float64)


def grid(n):
    points = torch.arange(n, dtype=torch.float64) / n
    return points[None, :], points[:, None]


def noise(system, *shape):
    """White noise, Nyquist modes included, with zero mean where the system needs it."""
    field = torch.randn(*shape, dtype=torch.float64)
    return field - field.mean(dim=(-2, -1), keepdim=True) if system.zero_mean else field


def difference(a, b):
    """Relative L2 difference of each example."""
    return torch.linalg.vector_norm(a - b, dim=(-2, -1)) / torch.linalg.vector_norm(b, dim=(-2, -1))


def apply_by_hand(name, u, c):
    """L u written out from the equation with complex FFTs, sharing no code with the package."""
    n = u.shape[-1]
    k = np.fft.fftfreq(n, 1 / n)
    dx, dy = 2j * np.pi * k[None, :], 2j * np.pi * k[:, None]
    laplacian = dx**2 + dy**2
    symbol = {
        "poisson": lambda: -(c[0] * dx**2 + c[1] * dy**2 + 2 * c[2] * dx * dy),
        "advection_diffusion": lambda: -(c[0] * dx**2 + c[1] * dy**2 + 2 * c[2] * dx * dy) + c[3] * dx + c[4] * dy,
        "helmholtz": lambda: -c[0] * laplacian - c[1],
        "fractional_laplacian": lambda: c[0] * (-laplacian.real) ** c[1],
        "screened_poisson": lambda: c[1] - c[0] * laplacian,
        "biharmonic_advection": lambda: c[0] * laplacian**2 + c[1] * dx + c[2] * dy,
    }[name]()
    return np.fft.ifft2(symbol * np.fft.fft2(u)).real


# Conformance ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-12), (torch.float32, 1e-5)])
def test_solutions_match_the_released_code(paper_system, data_folder, dtype, tolerance):
    arrays = np.load(data_folder / "solver_vectors.npz")
    source, coefficients, expected = (
        torch.from_numpy(arrays[f"{paper_system.name}_{key}"]) for key in ("source", "coefficients", "solution")
    )
    solution = paper_system.solve(source.to(dtype), coefficients.to(dtype))
    assert solution.dtype == dtype
    assert difference(solution.double(), expected).max() <= tolerance


def test_advection_ratio_matches_the_released_code(data_folder):
    arrays = np.load(data_folder / "solver_vectors.npz")
    source, coefficients, ratio = (
        torch.from_numpy(arrays[f"advection_diffusion_{key}"]) for key in ("source", "coefficients", "ratio")
    )
    torch.testing.assert_close(SYSTEMS["advection_diffusion"].dial(source, coefficients), ratio, rtol=1e-10, atol=0)


# Exact solutions and the residual -------------------------------------------------------------------------------------


@pytest.mark.parametrize(("kx", "ky"), [(1, 0), (0, 1), (1, 1), (2, -3), (-5, 4), (15, -15), (3, 15)])
def test_a_plane_wave_is_solved_exactly(system, coefficients, kx, ky):
    x, y = grid(32)
    phase = 2 * torch.pi * (kx * x + ky * y) + 0.4
    c, wave = COEFFICIENTS[system.name], 2 * math.pi * math.hypot(kx, ky)
    damped = {
        "poisson": lambda: 4 * math.pi**2 * (c[0] * kx**2 + c[1] * ky**2 + 2 * c[2] * kx * ky),
        "advection_diffusion": lambda: 4 * math.pi**2 * (c[0] * kx**2 + c[1] * ky**2 + 2 * c[2] * kx * ky),
        "helmholtz": lambda: c[0] * wave**2 - c[1],
        "fractional_laplacian": lambda: c[0] * wave ** (2 * c[1]),
        "screened_poisson": lambda: c[0] * wave**2 + c[1],
        "biharmonic_advection": lambda: c[0] * wave**4,
    }[system.name]()
    source = damped * torch.cos(phase)
    if system.name in FLOWING:
        v1, v2 = c[-2:]
        source = source - 2 * torch.pi * (v1 * kx + v2 * ky) * torch.sin(phase)
    condition = source.abs().max().item() / system.scale(coefficients).item()  # rounding in the longest wave grows so
    atol = max(1e-11, 4e-15 * condition)
    torch.testing.assert_close(system.solve(source, coefficients), torch.cos(phase), rtol=0, atol=atol)


def test_solution_satisfies_the_equation_written_out_by_hand(system, coefficients):
    source = resample(noise(system, 16, 16), 32)  # nothing at the Nyquist mode
    solution = system.solve(source, coefficients)
    by_hand = torch.from_numpy(apply_by_hand(system.name, solution.numpy(), COEFFICIENTS[system.name]))
    assert difference(by_hand, source) < 1e-12


def test_residual_equals_the_equation_written_out_by_hand(system, coefficients):
    source, candidate = (resample(noise(system, 16, 16), 32) for _ in range(2))
    residual = system.residual(candidate, source, coefficients)
    by_hand = torch.from_numpy(apply_by_hand(system.name, candidate.numpy(), COEFFICIENTS[system.name])) - source
    assert difference(residual, by_hand) < 1e-12


def test_helmholtz_has_the_sign_of_the_released_code():
    """With the paper's printed sign, the same solutions would miss the source by about twice its size."""
    source = resample(noise(SYSTEMS["helmholtz"], 16, 16), 32)
    solution = SYSTEMS["helmholtz"].solve(source, torch.tensor([0.01, 7.0]))
    other_sign = torch.from_numpy(apply_by_hand("helmholtz", solution.numpy(), [0.01, -7.0]))
    assert difference(other_sign, source) > 0.1
    constant = SYSTEMS["helmholtz"].solve(torch.ones(8, 8), torch.tensor([0.01, 2.0]))
    torch.testing.assert_close(constant, torch.full((8, 8), -0.5))


def test_signed_residual_of_sampled_solutions_vanishes(system, generator):
    for label in tasks_of(system).values():
        examples = Task.parse(label).sample(8, 64, generator, dtype=torch.float64)
        residual = system.residual(examples.solution, examples.source, examples.coefficients)
        largest = system.symbol(examples.coefficients, 64).abs().max() * examples.solution.abs().max()
        assert residual.abs().max() <= max(1e-10, 1e-15 * largest)


def test_residual_of_the_zero_solution_is_minus_the_source(system, task, generator):
    examples = task.sample(4, 32, generator, dtype=torch.float64)
    residual = system.residual(torch.zeros_like(examples.solution), examples.source, examples.coefficients)
    torch.testing.assert_close(residual, -examples.source, rtol=0, atol=1e-12)


def test_residual_of_a_wrong_solution_is_not_small(system, task, generator):
    examples = task.sample(4, 32, generator, dtype=torch.float64)
    residual = system.residual(1.1 * examples.solution, examples.source, examples.coefficients)
    assert difference(residual, 0.1 * examples.source).max() < 1e-10


@pytest.mark.parametrize("name", list(SYSTEMS))
def test_no_source_has_no_solution(name):
    """As an operator predicts nothing of it; PyTorch's transforms refuse it."""
    system = SYSTEMS[name]
    fields = [len(system.inputs)] * (len(system.inputs) > 1)
    source, coefficients = torch.zeros(0, *fields, 8, 8), torch.zeros(0, len(system.coefficient_names))
    assert system.solve(source, coefficients).shape == (0, *[2] * (name == "gray_scott"), 8, 8)


def test_zero_mode(system, coefficients):
    source = noise(system, 16, 16)
    mean = system.solve(source, coefficients).mean()
    if system.zero_mean:
        assert mean.abs() < 1e-14
        # What a constant operator cannot produce is left out of the residual.
        shifted = system.residual(system.solve(source, coefficients) + 3, source, coefficients)
        assert shifted.abs().max() < 1e-10
    else:
        at_rest = {"helmholtz": -coefficients[1], "screened_poisson": coefficients[1]}[system.name]
        torch.testing.assert_close(mean, source.mean() / at_rest, rtol=1e-10, atol=0)


# Equations that are another one at one value of their dial ------------------------------------------------------------


def at_dial(name, value, source):
    """Coefficients of a system at a value of its dial, with the parameters where they stand at first."""
    system = SYSTEMS[name]
    parameters = torch.tensor([p.default for p in system.parameters], dtype=torch.float64)
    return system.coefficients(torch.tensor(value, dtype=torch.float64), source, parameters)


def test_the_fractional_laplacian_is_diffusion_at_one_and_bending_at_two():
    source = noise(SYSTEMS["poisson"], 16, 16)
    fractional = SYSTEMS["fractional_laplacian"]
    solutions = {s: fractional.solve(source, at_dial("fractional_laplacian", s, source)) for s in (0.5, 1.0, 2.0)}
    isotropic = torch.tensor([0.01, 0.01, 0.0], dtype=torch.float64)
    assert difference(solutions[1.0], SYSTEMS["poisson"].solve(source, isotropic)) < 1e-13
    plate = SYSTEMS["biharmonic_advection"]
    assert difference(solutions[2.0], plate.solve(source, at_dial("biharmonic_advection", 0.0, source))) < 1e-13
    # Half the operator twice is diffusion, in units where the longest wave is damped by 0.01 * 4 pi^2.
    twice = fractional.solve(solutions[0.5], at_dial("fractional_laplacian", 0.5, source)) * (0.01 * 4 * math.pi**2)
    assert difference(twice, solutions[1.0]) < 1e-13
    x, _ = grid(16)
    wave = torch.cos(2 * torch.pi * x).expand(16, 16)
    for s in (0.5, 1.3, 2.0):
        solution = fractional.solve(wave, at_dial("fractional_laplacian", s, wave))
        torch.testing.assert_close(solution, wave / (0.01 * 4 * math.pi**2), rtol=1e-12, atol=1e-13)


def test_screening_is_helmholtz_with_the_other_sign():
    source = noise(SYSTEMS["helmholtz"], 16, 16)
    screened, helmholtz = SYSTEMS["screened_poisson"], SYSTEMS["helmholtz"]
    c = torch.tensor([0.01, 0.6], dtype=torch.float64)
    omega = torch.tensor([0.01, -0.6], dtype=torch.float64)
    assert difference(screened.solve(source, c), helmholtz.solve(source, omega)) < 1e-13
    assert torch.equal(screened.features(c), helmholtz.features(omega))
    assert screened.feature_names == helmholtz.feature_names
    assert screened.scale(c) == helmholtz.scale(omega)
    assert not screened.symbol_and_null(c, 32)[1].any()


@pytest.mark.parametrize("strength", [0.0, 0.3, 5.0])
def test_advection_strength_is_measured_on_the_longest_wave(strength):
    """With the flow along x: both terms of the equation, by derivatives in real space."""
    plate, (x, _) = SYSTEMS["biharmonic_advection"], grid(16)
    wave = torch.sin(2 * torch.pi * x).expand(16, 16)
    parameters, dial = torch.zeros(1, dtype=torch.float64), torch.tensor(strength, dtype=torch.float64)
    b, v1, v2 = plate.coefficients(dial, wave, parameters)
    dx = gradient(wave)[0]
    bending = b * gradient(gradient(gradient(dx)[0])[0])[0]
    ratio = torch.linalg.vector_norm(v1 * dx) / torch.linalg.vector_norm(bending)
    torch.testing.assert_close(ratio, dial)
    assert v2 == 0


# Resonance ------------------------------------------------------------------------------------------------------------


def test_exact_resonance_removes_that_mode_and_stays_finite():
    system, d = SYSTEMS["helmholtz"], 0.01
    omega = 4 * torch.pi**2 * d * 25
    coefficients = torch.tensor([d, omega], dtype=torch.float64)
    source = noise(system, 32, 32)
    solution = system.solve(source, coefficients)
    assert torch.isfinite(solution).all()
    null = system.symbol_and_null(coefficients, 32)[1]
    # |k|^2 = 25 with kx >= 0: (0, +-5), (5, 0), (3, +-4), (4, +-3)
    assert {(int(ky), int(kx)) for ky, kx in null.nonzero()} == {
        (5, 0), (27, 0), (0, 5), (4, 3), (28, 3), (3, 4), (29, 4),
    }  # fmt: skip
    assert torch.fft.rfft2(solution)[null].abs().max() < 1e-10
    assert torch.fft.rfft2(solution)[~null].abs().min() > 0
    assert system.residual(solution, source, coefficients).abs().max() < 1e-10


@pytest.mark.parametrize("d", [0.01, 0.013, 0.37])
@pytest.mark.parametrize("squared", [1, 2, 5, 13, 25, 29, 50, 65])
def test_resonance_is_found_in_spite_of_rounding(d, squared):
    """Symbol and omega round differently; what is left of their difference must not be divided by."""
    system = SYSTEMS["helmholtz"]
    coefficients = torch.tensor([d, d * squared * (2 * torch.pi) ** 2], dtype=torch.float64)
    kx, ky = wavenumbers(32)
    assert torch.equal(system.symbol_and_null(coefficients, 32)[1], kx**2 + ky**2 == squared)
    source = noise(system, 32, 32)
    assert system.solve(source, coefficients).abs().max() < 1e3


def test_near_resonance_is_solved_not_removed():
    system = SYSTEMS["helmholtz"]
    coefficients = torch.tensor([0.01, 4 * torch.pi**2 * 0.01 * 25 + 1e-6], dtype=torch.float64)
    assert not system.symbol_and_null(coefficients, 32)[1].any()
    x, _ = grid(32)
    wave = torch.cos(2 * torch.pi * 5 * x).expand(32, 32)
    torch.testing.assert_close(system.solve(wave, coefficients), wave / -1e-6, rtol=1e-6, atol=1e-3)


def test_gradients_stay_finite_at_resonance():
    coefficients = torch.tensor([0.01, 4 * torch.pi**2 * 0.01 * 4], dtype=torch.float64, requires_grad=True)
    SYSTEMS["helmholtz"].solve(noise(SYSTEMS["helmholtz"], 8, 8), coefficients).square().sum().backward()
    assert torch.isfinite(coefficients.grad).all()


def test_sampled_resonant_example_has_no_resonant_source(generator):
    class RealHelmholtz(Helmholtz):
        dialled = replace(Helmholtz.dialled, whole=False)

    omega = 4 * torch.pi**2 * 0.01 * 25
    task = Task(RealHelmholtz(), omega, omega, reject=False)
    examples = task.sample(4, 32, generator, dtype=torch.float64)
    null = task.system.symbol_and_null(examples.coefficients, 32)[1]
    assert null.any()
    for field in (examples.source, examples.solution):
        assert torch.fft.rfft2(field)[null].abs().max() < 1e-10
    assert task.system.residual(examples.solution, examples.source, examples.coefficients).abs().max() < 1e-10


# Symmetries of the torus ----------------------------------------------------------------------------------------------


def translate(u):
    return torch.roll(u, (5, -3), (-2, -1))


def reflect_x(u):
    return torch.roll(torch.flip(u, (-1,)), 1, -1)


def reflect_y(u):
    return torch.roll(torch.flip(u, (-2,)), 1, -2)


def rotate(u):
    """Quarter turn about the origin, (x, y) -> (-y, x): the new field at (x', y') is the old one at (y', -x')."""
    return reflect_x(u.transpose(-2, -1))


def turned(system, coefficients, matrix):
    """Coefficients after the linear map of the plane: K' = M K M^T, v' = M v; scalars stay."""
    matrix, result = torch.tensor(matrix, dtype=torch.float64), coefficients.clone()
    if system.name in ("poisson", "advection_diffusion"):
        k11, k22, k12 = coefficients[:3]
        tensor = matrix @ torch.stack([torch.stack([k11, k12]), torch.stack([k12, k22])]) @ matrix.T
        result[:3] = torch.stack([tensor[0, 0], tensor[1, 1], tensor[0, 1]])
    if system.name in FLOWING:
        result[-2:] = matrix @ coefficients[-2:]
    return result


SYMMETRIES = {
    "translation": (translate, [[1, 0], [0, 1]]),
    "reflection in x": (reflect_x, [[-1, 0], [0, 1]]),
    "reflection in y": (reflect_y, [[1, 0], [0, -1]]),
    "quarter turn": (rotate, [[0, -1], [1, 0]]),
    "transposition": (lambda u: u.transpose(-2, -1), [[0, 1], [1, 0]]),
}


@pytest.mark.parametrize("name", SYMMETRIES)
def test_solve_commutes_with_the_symmetries_of_the_torus(system, coefficients, name):
    """On white noise, so that the treatment of the Nyquist modes is tested too."""
    move, matrix = SYMMETRIES[name]
    source = noise(system, 16, 16)
    moved = system.solve(move(source), turned(system, coefficients, matrix))
    assert difference(moved, move(system.solve(source, coefficients))) < 1e-12
    if system.name in FLOWING and name != "translation":
        assert difference(system.solve(move(source), coefficients), moved) > 1e-2  # the turn of K and v matters
    ratio = system.dial(move(source), turned(system, coefficients, matrix))
    torch.testing.assert_close(ratio, system.dial(source, coefficients), rtol=1e-10, atol=0)


def test_rotation_helper_turns_counterclockwise():
    field = torch.zeros(8, 8)
    field[0, 2] = 1  # at (x, y) = (2/8, 0), turned to (0, 2/8)
    assert rotate(field)[2, 0] == 1


# Scaling, linearity, autograd, dtypes ---------------------------------------------------------------------------------


def test_scaling_laws(system, coefficients, times):
    more = times(7.0, system, coefficients)
    source, other = noise(system, 16, 16), noise(system, 16, 16)
    solution = system.solve(source, coefficients)
    assert difference(system.solve(-3 * source, coefficients), -3 * solution) < 1e-13
    assert difference(system.solve(source, more), solution / 7) < 1e-13
    assert difference(system.solve(7 * source, more), solution) < 1e-13
    both = solution + system.solve(other, coefficients)
    assert difference(system.solve(source + other, coefficients), both) < 1e-13
    torch.testing.assert_close(system.scale(more), 7 * system.scale(coefficients), rtol=1e-12, atol=0)
    torch.testing.assert_close(system.features(more), system.features(coefficients), rtol=1e-12, atol=0)


def test_gradients_of_solve_in_source_and_coefficients(system, coefficients):
    source = noise(system, 2, 6, 6).requires_grad_()
    rows = torch.stack([coefficients, 1.2 * coefficients]).requires_grad_()
    assert torch.autograd.gradcheck(system.solve, (source, rows), eps=1e-6, atol=1e-5, rtol=1e-4)


def test_gradients_of_the_residual(system, coefficients):
    source, solution = noise(system, 4, 4).requires_grad_(), noise(system, 4, 4).requires_grad_()
    c = coefficients.clone().requires_grad_()
    assert torch.autograd.gradcheck(system.residual, (solution, source, c), eps=1e-6, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float16, 5e-3), (torch.bfloat16, 4e-2), (torch.float32, 1e-5)])
def test_any_float_dtype_comes_back(system, task, generator, dtype, tolerance):
    examples = task.sample(2, 32, generator, dtype=torch.float64)
    coefficients = examples.coefficients.to(dtype)
    solution = system.solve(examples.source.to(dtype), coefficients)
    assert solution.dtype == dtype
    exact = system.solve(examples.source, coefficients.double())
    assert difference(solution.double(), exact).max() < tolerance
    assert system.residual(solution, examples.source.to(dtype), coefficients).dtype == dtype


def test_batches_broadcast(system, coefficients):
    source = noise(system, 3, 1, 8, 8)
    rows = torch.stack([coefficients, 1.5 * coefficients])
    solutions = system.solve(source, rows)
    assert solutions.shape == (3, 2, 8, 8)
    torch.testing.assert_close(solutions[2, 1], system.solve(source[2, 0], rows[1]), rtol=0, atol=1e-13)
    assert system.solve(source[0, 0], coefficients).shape == (8, 8)
    assert system.residual(solutions, source, rows).abs().max() < 1e-10


def test_solution_converges_spectrally_with_resolution(system, coefficients):
    gaussians = [(0.5, 0.5, 1.0), (0.25, 0.75, -0.6)]

    def solution(n):
        source = place(gaussians, n, zero_mean=system.zero_mean, dtype=torch.float64)
        return system.solve(source, coefficients)

    fine = solution(256)
    errors = [difference(solution(n), fine[:: 256 // n, :: 256 // n]).item() for n in (16, 32, 64, 128)]
    assert errors[0] > 10 * errors[1] > 1000 * errors[2]
    assert errors[2] < 1e-7
    assert errors[3] < 1e-12


# Dials ----------------------------------------------------------------------------------------------------------------


def test_diffusion_tensor_has_the_asked_eigenvalues():
    eigenvalue, angle = torch.linspace(1, 20, 9).double(), torch.linspace(0, 6, 9).double()
    k11, k22, k12 = rotated_diffusion(eigenvalue, angle).unbind(-1)
    tensor = torch.stack([torch.stack([k11, k12], -1), torch.stack([k12, k22], -1)], -2)
    expected = torch.stack([torch.full_like(eigenvalue, 0.01), 0.01 * eigenvalue], -1)
    torch.testing.assert_close(torch.linalg.eigvalsh(tensor), expected, rtol=1e-12, atol=0)
    c, s, e = torch.cos(angle), torch.sin(angle), eigenvalue
    torch.testing.assert_close(k12, 0.01 * (e - 1) * s * c, rtol=1e-12, atol=1e-18)
    turn = torch.stack([torch.stack([c, -s], -1), torch.stack([s, c], -1)], -2)
    diagonal = torch.diag_embed(torch.stack([torch.ones_like(e), e], -1))
    torch.testing.assert_close(tensor, 0.01 * turn.mT @ diagonal @ turn, rtol=1e-12, atol=1e-18)


def test_dial_of_sampled_examples_is_the_drawn_one(system, task, generator):
    examples = task.sample(64, 32, generator, dtype=torch.float64)
    dial = system.dial(examples.source, examples.coefficients)
    torch.testing.assert_close(dial, examples.dial, rtol=1e-9, atol=0)
    assert task.low <= dial.min() <= dial.max() <= task.high
    assert dial.max() - dial.min() > 0.5 * (task.high - task.low)


@pytest.mark.parametrize("label", PAPER_TASKS["advection_diffusion"].values())
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-6), (torch.float64, 1e-9)])
def test_sampled_advection_ratios_are_the_asked_ones(label, dtype, tolerance, generator):
    examples = Task.parse(label).sample(64, 64, generator, dtype=dtype)
    ratio = SYSTEMS["advection_diffusion"].dial(examples.source, examples.coefficients)
    assert ((ratio - examples.dial) / examples.dial).abs().max() <= tolerance


def test_advection_ratio_measured_on_the_solution(generator):
    """Psi from derivatives of u in real space, not from the formula that the root search uses."""
    examples = Task.parse("SYS-2(0.2,5)").sample(16, 128, generator, dtype=torch.float64)
    k11, k22, k12, v1, v2 = (c[:, None, None] for c in examples.coefficients.unbind(-1))
    dx, dy = gradient(examples.solution)
    flux_x, flux_y = k11 * dx + k12 * dy, k12 * dx + k22 * dy
    diffused = gradient(flux_x)[0] + gradient(flux_y)[1]
    ratio = torch.linalg.vector_norm(v1 * dx + v2 * dy, dim=(-2, -1)) / torch.linalg.vector_norm(diffused, dim=(-2, -1))
    torch.testing.assert_close(ratio, examples.dial, rtol=1e-6, atol=0)


@pytest.mark.parametrize("ratio", [1e-6, 1e-3, 0.5, 5.0, 50.0, 500.0])
@pytest.mark.parametrize("eigenvalue", [1.0, 5.0, 20.0])
def test_speed_reaches_extreme_ratios(ratio, eigenvalue, generator):
    system = SYSTEMS["advection_diffusion"]
    source = Task.parse("SYS-2(0.2,1)").sample(16, 64, generator, dtype=torch.float64).source
    angle = torch.linspace(0.1, 6, 16, dtype=torch.float64)
    diffusion = rotated_diffusion(torch.full_like(angle, eigenvalue), angle + 1)
    speed = system.speed(torch.full_like(angle, ratio), source, diffusion, angle)
    velocity = speed[:, None] * torch.stack([torch.cos(angle), torch.sin(angle)], -1)
    reached = system.dial(source, torch.cat([diffusion, velocity], -1))
    torch.testing.assert_close(reached, torch.full_like(angle, ratio), rtol=1e-9, atol=0)


def test_speed_grows_with_the_ratio(generator):
    system = SYSTEMS["advection_diffusion"]
    source = Task.parse("SYS-2(0.2,1)").sample(1, 64, generator, dtype=torch.float64).source
    ratios = torch.logspace(-3, 1, 20, dtype=torch.float64)
    diffusion = torch.tensor([0.01, 0.03, 0.005], dtype=torch.float64).expand(20, 3)
    speed = system.speed(ratios, source.expand(20, 64, 64), diffusion, torch.full_like(ratios, 0.7))
    assert (speed.diff() > 0).all()


@pytest.mark.parametrize("ratio", [1e-3, 0.2, 1.0, 5.0, 50.0])
def test_speed_of_a_rounded_source_is_that_of_the_source(ratio, generator):
    """In float32 the short waves are left out of the search."""
    examples = Task.parse("SYS-2(0.2,1)").sample(16, 64, generator, dtype=torch.float64)
    system, ratios = SYSTEMS["advection_diffusion"], torch.full_like(examples.dial, ratio)
    exact, rounded = (
        system.speed(ratios, source, examples.coefficients[:, :3], torch.linspace(0.1, 6, 16))
        for source in (examples.source, examples.source.float())
    )
    torch.testing.assert_close(rounded, exact, rtol=2e-6, atol=0)


def test_flow_along_an_axis_has_a_largest_ratio():
    """Modes that vary only across the flow are never advected: with half the energy in them, Psi stays below 1."""
    system = SYSTEMS["advection_diffusion"]
    x, y = grid(16)
    source = torch.cos(2 * torch.pi * x) + torch.cos(2 * torch.pi * y)
    diffusion, angle = torch.tensor([0.01, 0.01, 0.0], dtype=torch.float64), torch.tensor(0.0, dtype=torch.float64)
    assert system.speed(torch.tensor(0.99), source, diffusion, angle) > 0
    with pytest.raises(ValueError, match=r"advection ratio: expected at most 1 .*turn the flow or lower the ratio"):
        system.speed(torch.tensor(1.01), source, diffusion, angle)
    across = torch.cos(2 * torch.pi * y).expand(16, 16)
    with pytest.raises(ValueError, match="expected at most 0"):
        system.speed(torch.tensor(0.1), across, diffusion, angle)


@pytest.mark.parametrize("ratio", [0.0, -1.0, float("nan")])
def test_ratio_must_be_positive(ratio):
    system = SYSTEMS["advection_diffusion"]
    source = noise(system, 8, 8)
    with pytest.raises(ValueError, match="advection ratio: expected values above 0"):
        system.speed(torch.tensor(ratio), source, torch.tensor([0.01, 0.01, 0]), torch.tensor(0.3))


# Bad input ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("method", ["solve", "residual"])
def test_bad_sources_are_refused(system, coefficients, method):
    def call(source):
        return (
            system.solve(source, coefficients) if method == "solve" else system.residual(source, source, coefficients)
        )

    with pytest.raises(ValueError, match=r"source: expected shape \(\.\.\., n, n\), got \(8, 10\)"):
        call(torch.zeros(8, 10))
    with pytest.raises(ValueError, match=r"source: expected shape .* got \(8,\)"):
        call(torch.zeros(8))
    with pytest.raises(ValueError, match=r"source: expected an even number of points.*129.*not periodic"):
        call(torch.zeros(129, 129))
    with pytest.raises(ValueError, match="source: expected finite values"):
        call(torch.full((8, 8), float("nan")))
    with pytest.raises(ValueError, match="source: expected a floating-point tensor"):
        call(torch.zeros(8, 8, dtype=torch.int64))


def test_bad_coefficients_are_refused(system, coefficients):
    source = torch.zeros(3, 8, 8)
    count = len(system.coefficient_names)
    with pytest.raises(ValueError, match=rf"coefficients: {system.name} expects shape \(\.\.\., {count}\)"):
        system.solve(source, torch.ones(count + 1))
    with pytest.raises(ValueError, match=r"coefficients: .* got \(\)"):
        system.solve(source, torch.tensor(1.0))
    with pytest.raises(ValueError, match=r"leading shapes \(3,\) and \(2,\) do not broadcast"):
        system.solve(source, coefficients.expand(2, count))
    with pytest.raises(ValueError, match="coefficients: expected finite values"):
        system.solve(source, torch.full((count,), float("inf")))


@pytest.mark.parametrize("tensor", [[-0.01, 0.01, 0.0], [0.01, 0.0, 0.0], [0.01, 0.01, 0.01], [0.01, 0.01, -0.02]])
@pytest.mark.parametrize("name", ["poisson", "advection_diffusion"])
def test_diffusion_must_be_positive_definite(name, tensor):
    coefficients = torch.tensor(tensor + [0.1, 0.1] * (name == "advection_diffusion"))
    with pytest.raises(ValueError, match=f"{name} expects a positive definite diffusion tensor"):
        SYSTEMS[name].solve(torch.zeros(8, 8), coefficients)


def test_helmholtz_diffusivity_must_be_positive():
    with pytest.raises(ValueError, match="helmholtz expects a diffusivity above 0"):
        SYSTEMS["helmholtz"].solve(torch.zeros(8, 8), torch.tensor([0.0, 1.0]))


@pytest.mark.parametrize(
    ("name", "coefficients", "message"),
    [
        ("fractional_laplacian", [0.01, 0.0], "a diffusivity and an exponent above 0"),
        ("screened_poisson", [0.01, -1.0], "a diffusivity and a screening above 0"),
        ("biharmonic_advection", [0.0, 1.0, 1.0], "a stiffness above 0"),
    ],
)
def test_other_operators_must_be_coercive(name, coefficients, message):
    with pytest.raises(ValueError, match=f"{name} expects {message}"):
        SYSTEMS[name].solve(torch.zeros(8, 8), torch.tensor(coefficients))


def test_source_mean_must_vanish_where_constants_are_annihilated(system, coefficients):
    source = noise(system, 2, 8, 8)
    source[1] += 0.5 - source[1].mean()
    if system.zero_mean:
        with pytest.raises(ValueError, match=r"expects a source of zero mean, got a mean of 0\.5; subtract"):
            system.solve(source, coefficients)
    else:
        assert torch.isfinite(system.solve(source, coefficients)).all()


def test_residual_needs_one_grid(system, coefficients):
    with pytest.raises(ValueError, match=r"solution: expected the grid of the source \(8, 8\), got \(16, 16\)"):
        system.residual(torch.zeros(16, 16), torch.zeros(8, 8), coefficients)


def test_find_system_by_name_or_label():
    assert find_system("poisson") is find_system(" sys-1 ") is SYSTEMS["poisson"]
    with pytest.raises(ValueError, match=r"system: expected one of poisson \(SYS-1\), .*got 'heat'"):
        find_system("heat")


# The null space, mode by mode, and evolutions -------------------------------------------------------------------------


def test_long_waves_of_a_high_order_operator_are_no_null_modes(registry):
    class Triharmonic(SpectralSystem):
        name = "triharmonic"
        label = "SYS-6"
        equation = r"-b \Delta^3 u = f"
        coefficient_names = ("b",)
        dialled = Parameter("b", 0.1, 1)
        zero_mean = True

        def symbol(self, coefficients, n):
            return coefficients[..., 0, None, None] * laplacian(n, like=coefficients) ** 3

    n, system = 512, SYSTEMS["triharmonic"]
    wave = torch.cos(2 * torch.pi * torch.arange(n, dtype=torch.float64) / n).expand(n, n)
    solution = system.solve(wave, torch.tensor([0.5], dtype=torch.float64))
    torch.testing.assert_close(solution, wave / (0.5 * (2 * torch.pi) ** 6), rtol=1e-10, atol=1e-15)
    assert system.symbol_and_null(torch.tensor([0.5]), n)[1].sum() == 1  # the mean alone


@pytest.mark.parametrize("squared", [1, 5, 25, 50])
@pytest.mark.parametrize("n", [16, 64, 512])
def test_resonances_are_found_on_every_grid(squared, n):
    system = SYSTEMS["helmholtz"]
    coefficients = torch.tensor([0.01, 0.01 * 4 * torch.pi**2 * squared], dtype=torch.float64)
    kx, ky = wavenumbers(n)
    assert torch.equal(system.symbol_and_null(coefficients, n)[1], kx**2 + ky**2 == squared)
    nearby = coefficients * torch.tensor([1, 1 + 1e-12], dtype=torch.float64)
    assert not system.symbol_and_null(nearby, n)[1].any()


def test_an_evolution_keeps_the_mean_and_composes(registry):
    class Decay(Evolution):
        name = "decay"
        label = "SYS-7"
        equation = r"\partial_t u = d \Delta u - v u_x"
        coefficient_names = ("d", "v", "time")
        constants: ClassVar = {"d": 0.01, "v": 0.3}
        dialled = Parameter("time", 0.1, 2)
        zero_mean = False

        def symbol(self, coefficients, n):
            d, v, _ = coefficients[..., None, None].unbind(-3)
            kx, _ = derivative_wavenumbers(n, dtype=coefficients.dtype)
            diffusion = d * laplacian(n, like=coefficients)
            return torch.complex(diffusion, (2 * torch.pi * v * kx).expand(diffusion.shape))

    system, n = SYSTEMS["decay"], 32
    source = noise(SYSTEMS["helmholtz"], 32, 32) + 1

    def at(time):
        return torch.tensor([0.01, 0.3, time], dtype=torch.float64)

    twice = system.solve(system.solve(source, at(0.5)), at(0.25))
    whole = system.solve(source, at(0.75))
    torch.testing.assert_close(twice, whole, rtol=1e-10, atol=1e-12)
    torch.testing.assert_close(whole.mean(), source.mean())
    x = torch.arange(n, dtype=torch.float64) / n
    wave, later = torch.cos(2 * torch.pi * x).expand(n, n), torch.cos(2 * torch.pi * (x - 0.3)).expand(n, n)
    torch.testing.assert_close(system.solve(wave, at(1.0)), later * math.exp(-0.01 * 4 * math.pi**2))
    assert system.residual(whole, source, at(0.75)).abs().max() < 1e-12
    examples = Task.parse("SYS-7(0.5,1)").sample(4, 32, torch.Generator().manual_seed(0), dtype=torch.float64)
    assert system.residual(examples.solution, examples.source, examples.coefficients).abs().max() < 1e-12
    assert examples.source.mean() > 0.01


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"label": "SYS-1"}, "x or SYS-1 is taken by Poisson"),
        ({"label": "a b"}, "name and label of letters"),
        ({"coefficient_names": ("b", "c")}, "c is neither the dial, a parameter nor a constant"),
        ({"coefficient_names": "b"}, "coefficient_names as a tuple of different names, got 'b'"),
        ({"coefficient_names": ("b", "b")}, "coefficient_names as a tuple of different names"),
        ({"shifts": {"far": (2, 1)}}, "the shift far as .low, high. with low < high"),
        ({"dialled": None}, "missing: dialled"),
        ({"symbol": None}, "missing: symbol"),
    ],
)
def test_a_system_that_cannot_be_used_is_refused(registry, changes, message):
    body = {
        "name": "x", "label": "X", "equation": "b u = f", "coefficient_names": ("b",), "zero_mean": False,
        "dialled": Parameter("b", 1, 2), "symbol": lambda self, coefficients, n: coefficients[..., :1, None],
    }  # fmt: skip
    body = {key: value for key, value in (body | changes).items() if value is not None}
    with pytest.raises(TypeError, match=message):
        type("Broken", (SpectralSystem,), body)
    assert "x" not in SYSTEMS


@pytest.mark.parametrize("name", ["poisson", "advection_diffusion", "biharmonic_advection"])
def test_the_gradient_of_the_dial_is_finite_where_nothing_has_a_direction(name, generator):
    """An isotropic K, no flow."""
    known = SYSTEMS[name]
    source = torch.randn(1, 8, 8, dtype=torch.float64, generator=generator)
    still = {"k11": 0.01, "k22": 0.01, "stiffness": 1e-6}
    coefficients = torch.tensor([[still.get(name, 0.0) for name in known.coefficient_names]], dtype=torch.float64)
    coefficients.requires_grad_()
    known.dial(source - source.mean(), coefficients).sum().backward()
    assert coefficients.grad.isfinite().all()


def test_a_solution_that_overflows_is_refused():
    poisson = SYSTEMS["poisson"]
    wave = torch.cos(2 * torch.pi * torch.arange(8) / 8).expand(8, 8)
    coefficients = torch.tensor([0.01, 0.01, 0.0])
    with pytest.raises(ValueError, match=r"solution: too large for torch.float32; scale the source"):
        poisson.solve(1e38 * wave, coefficients)
    assert poisson.solve(1e38 * wave.double(), coefficients).isfinite().all()
    assert poisson.solve(wave, 1e-25 * coefficients).isfinite().all()  # positive definite, however small
