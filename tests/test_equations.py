"""Equations: own solvers, faults found at first use, any scale, ranges that are kept, any mood of a process."""

from contextlib import nullcontext
from typing import ClassVar

import pytest
import torch

from sciml_fm_core import SYSTEMS, Evolution, Parameter, SpectralSystem, Task, draw_split, evaluate, generate
from sciml_fm_core.physics.helmholtz import Helmholtz
from sciml_fm_core.physics.poisson import Poisson
from sciml_fm_core.physics.spectral import laplacian, wavenumbers
from sciml_fm_core.physics.symmetries import Geometry
from sciml_fm_core.physics.tasks import tasks_of
from sciml_fm_core.training.losses import LOSSES, Batch


def stream(seed=5):
    return torch.Generator().manual_seed(seed)


# A solver of its own --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["solve", "solve_hat", "multiplier"])
@pytest.mark.parametrize("n", [32, 128])
def test_examples_are_what_a_subclass_solves(name, n):
    """Like reports that a subclass's solver is bypassed by a library's batched path."""
    own = type("Own", (Poisson,), {name: lambda self, *given: 2 * getattr(super(type(self), self), name)(*given)})()
    examples = Task(own, 1, 5).sample(4, n, stream())
    torch.testing.assert_close(examples.solution, own.solve(examples.source, examples.coefficients))
    plain = Task(SYSTEMS["poisson"], 1, 5).sample(4, n, stream())
    torch.testing.assert_close(examples.solution, 2 * plain.solution)
    with pytest.raises(ValueError, match=r"its residual contradicts solve"):
        LOSSES["residual"](examples.solution, Batch(own, *examples))
    if name != "multiplier":
        with pytest.raises(ValueError, match="no multiplier is known, since it has a solve of its own"):
            own.solution_multiplier(examples.coefficients, n)


def test_short_waves_that_resonate_are_solved_on_the_whole_grid():
    """Like reports of spectra that are cut off where they are not small."""
    task = Task(Helmholtz(), 355, 356, reject=False)  # |k| = 30, beyond the coarse grid
    examples = task.sample(32, 128, stream())
    exact = task.system.solve(examples.source.double(), examples.coefficients.double())
    error = (examples.solution - exact).flatten(1).norm(dim=1) / exact.flatten(1).norm(dim=1)
    assert error.max() < 2e-5  # 7e-5 on the coarse one; what is left is rounding of float32 at the resonance


# Faults ---------------------------------------------------------------------------------------------------------------


def plain(coefficients, n):
    return coefficients[..., 0, None, None] * laplacian(n, like=coefficients)


FAULTS = {
    "shape": ({"symbol": lambda self, c, n: plain(c, n)[..., :-1]}, r"symbol: expected shape \(3, 16, 9\)"),
    "batch": ({"symbol": lambda self, c, n: plain(c, n)[:1]}, r"symbol: expected shape \(3, 16, 9\)"),
    "none": ({"symbol": lambda self, c, n: None}, "symbol: expected a tensor, got NoneType"),
    "bool": ({"symbol": lambda self, c, n: plain(c, n) > 0}, "symbol: expected torch.float64 or .*got torch.bool"),
    "float32": ({"symbol": lambda self, c, n: plain(c, n).float()}, "symbol: expected torch.float64 .*torch.float32"),
    "nan": ({"symbol": lambda self, c, n: plain(c, n).log().log()}, "symbol: expected finite values"),
    "raises": ({"symbol": lambda self, c, n: 1 / 0}, "symbol raises ZeroDivisionError"),
    "exits": ({"symbol": lambda self, c, n: exit(3)}, "symbol raises SystemExit: 3"),
    "hermitian": ({"symbol": lambda self, c, n: plain(c, n) + 1j * wavenumbers(n)[1] ** 2}, "not Hermitian"),
    "nyquist": ({"symbol": lambda self, c, n: plain(c, n) + 1j * wavenumbers(n)[0]}, "not Hermitian"),
    "grid": ({"symbol": lambda self, c, n: plain(c, n) / n}, "differs between grids of 16 and 8 points"),
    "positive": ({"positive": True, "symbol": lambda self, c, n: -plain(c, n)}, "not above 0, though positive"),
    "geometry": (
        {"geometry": Geometry(), "symbol": lambda self, c, n: plain(c, n) + c[..., None] * wavenumbers(n)[0] ** 2},
        "its geometry contradicts solve",
    ),
    "dial": ({"dial": lambda self, source, c: 2 * c[..., 0]}, "dial gives .* for the coefficients of"),
    "coefficients": ({"coefficients": lambda self, d, f, p: d}, r"coefficients: expected shape \(3, 1\)"),
    "residual": ({"residual": lambda self, u, f, c: u - f}, "its residual contradicts solve"),
    "no residual": ({"residual": lambda self, u, f, c: 0 * f}, "its residual contradicts solve"),
    "scale": ({"scale": lambda self, c: c[..., 0] * 0}, "scale: expected values above 0"),
    "solve": ({"solve": lambda self, f, c: f[0]}, r"solve: expected shape \(3, 16, 16\)"),
    "bounds": ({"symbol_bounds": lambda self, c, n: (2 * plain(c, n),) * 2}, "not between its symbol_bounds"),
}
DECLARED = {
    "label": "ODD", "equation": "L u = f", "coefficient_names": ("b",), "zero_mean": True, "name": "odd",
    "dialled": Parameter("b", 1, 2), "symbol": lambda self, c, n: plain(c, n),
}  # fmt: skip


@pytest.mark.parametrize(("changes", "message"), FAULTS.values(), ids=FAULTS)
def test_a_faulty_equation_is_named_at_its_first_use(registry, changes, message):
    """Like reports of user-defined terms that broadcast, or are rounded, into a plausible wrong answer."""
    system = type("Odd", (SpectralSystem,), DECLARED | changes)()
    for _ in range(2):
        with pytest.raises(ValueError, match=rf"^system odd: .*{message}.*; correct Odd$"):
            Task(system, 1, 2).sample(2, 16, stream())
    with pytest.raises(ValueError, match=r"^system odd: "):
        system.check(torch.zeros(16, 16), torch.ones(1))


def test_a_faulty_evolution_is_named(registry):
    changes = {"coefficient_names": ("time",), "dialled": Parameter("time", 1, 2), "zero_mean": False}
    lost = type("Odd", (Evolution,), DECLARED | {"symbol": lambda self, c, n: plain(c, n)})()
    with pytest.raises(ValueError, match=r"system odd: multiplier raises ValueError: tuple.index"):
        Task(lost, 1, 2).sample(2, 16, stream())
    grows = type("Odd", (Evolution,), DECLARED | changes | {"symbol": lambda self, c, n: -plain(c, n)})()
    with pytest.raises(ValueError, match=r"system odd: multiplier: expected finite values"):
        Task(grows, 1, 2).sample(2, 16, stream())


def test_a_symbol_of_float64_wavenumbers_is_right_everywhere(registry, small_operator):
    class Odd(SpectralSystem):
        name, label, equation, coefficient_names, zero_mean = "odd", "ODD", "L u = f", ("b",), True
        dialled: ClassVar = Parameter("b", 1, 2)

        def symbol(self, coefficients, n):
            kx, ky = wavenumbers(n)
            return coefficients[..., None] * (kx**2 + ky**2)

    examples = Task(SYSTEMS["odd"], 1, 2).sample(4, 16, stream())
    assert all(tensor.dtype == torch.float32 for tensor in examples)
    operator = small_operator("ODD(1,2)")
    assert operator.predict(examples.source, examples.coefficients).dtype == torch.float32


# Scale ----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("power", [-30, -23, 23, 30])
def test_an_equation_times_a_number_is_the_same_equation(system, power, dtype):
    """Like reports of norms whose squares vanish or overflow: of SYS-2 times 1e-23 the scale was a quarter off."""
    examples = Task.parse(list(tasks_of(system).values())[-1]).sample(4, 16, stream(), dtype=torch.float64)
    source, rows = examples.source.to(dtype), examples.coefficients
    factor = 10.0**power
    factors = torch.tensor([factor ** (name != "exponent") for name in system.coefficient_names], dtype=torch.float64)
    many, rows = (factors * rows).to(dtype), rows.to(dtype)
    close = {"rtol": 1e-4 if dtype == torch.float32 else 1e-10, "atol": 1e-5 if dtype == torch.float32 else 1e-12}
    torch.testing.assert_close(system.scale(many).double() / factor, system.scale(rows).double(), **close)
    torch.testing.assert_close(system.features(many), system.features(rows), **close)
    exact = system.solve(source, rows).double()
    torch.testing.assert_close(system.solve(source, many).double() * factor, exact, **close)
    torch.testing.assert_close(system.solve((source.double() * factor).to(dtype), many).double(), exact, **close)
    if system.dial_name not in system.coefficient_names and system.name != "helmholtz":
        torch.testing.assert_close(system.dial(source, many), system.dial(source, rows), **close)


def test_the_speed_of_an_advection_ratio_is_found_at_any_scale():
    source = Task.parse("SYS-2(0.2,1)").sample(2, 16, stream(), dtype=torch.float64).source
    ratio, angle, diffusion = torch.tensor(0.5), torch.tensor(0.3), torch.tensor([0.02, 0.01, 0.003]).double()
    speed = SYSTEMS["advection_diffusion"].speed(ratio, source, diffusion, angle)
    for factor in (1e-30, 1e30):
        found = SYSTEMS["advection_diffusion"].speed(ratio, source, factor * diffusion, angle) / factor
        torch.testing.assert_close(found, speed, rtol=1e-9, atol=0)


# Ranges ---------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("label", "message"),
    [
        ("SYS-1(1e9,2e9)", r"eigenvalue: 1e\+09 is not kept in float32 .*positive definite"),
        ("SYS-1(1,1e7)", r"eigenvalue: 1e\+07 is not kept by coefficients in float32, which are those of"),
        ("SYS-3(1,1e300)", r"wavenumber: 1e\+300 is not kept in float32 .*too large"),
        ("SYS-2(1e-60,1)", "advection ratio: 1e-60 is not kept"),
        ("SCREENED(1e-60,1)", "screening: 1e-60 is not kept"),
        ("BIHARM(0,1e40)", r"advection strength: 1e\+40 is not kept"),
        ("FRAC(1,100)", "exponent: 100 is not kept"),
    ],
)
def test_a_range_that_float32_does_not_keep_is_refused(label, message):
    """Like reports of parameters that are rounded away between what is asked and what is stored."""
    with pytest.raises(ValueError, match=rf"^task .*: {message}.*; choose another range$"):
        Task.parse(label)


@pytest.mark.parametrize("label", ["SYS-1(1,1e5)", "SYS-3(1,1e30)", "SCREENED(1e-30,1e30)", "SYS-2(1e-20,1)"])
def test_what_a_wide_range_stores_is_what_was_drawn(label):
    examples = Task.parse(label).sample(16, 32, stream())
    found = Task.parse(label).system.dial(examples.source, examples.coefficients)
    torch.testing.assert_close(found, examples.dial, rtol=0.015, atol=0)
    assert examples.solution.isfinite().all()


# Moods ----------------------------------------------------------------------------------------------------------------


def setting(change, value, back):
    class Set:
        def __enter__(self):
            change(value)

        def __exit__(self, *_):
            change(back)

    return Set


MOODS = {
    "plain": nullcontext,
    "dtype": setting(torch.set_default_dtype, torch.float64, torch.float32),
    "meta": setting(torch.set_default_device, "meta", None),
    "device": lambda: torch.device("meta"),
    "inference": torch.inference_mode,
    "autocast": lambda: torch.autocast("cpu"),
    "half": lambda: torch.autocast("cpu", torch.float16),
    "threads": setting(torch.set_num_threads, 2, 1),
    "grad": torch.enable_grad,
    "no grad": torch.no_grad,
    "deterministic": setting(torch.use_deterministic_algorithms, True, False),
    "products": setting(torch.set_float32_matmul_precision, "medium", "highest"),
    "denormal": setting(torch.set_flush_denormal, True, False),
}


@pytest.mark.parametrize("mood", MOODS.values(), ids=MOODS)
def test_draws_and_files_are_the_same_in_every_mood(mood, tmp_path):
    """Like reports of data that change with a default that another part of the program has set."""
    labels = ("SYS-1(1,5)", "SYS-2(0.2,1)", "SYS-3(1,10)", "BIHARM(0,5)")
    calm = [draw_split(Task.parse(label), "train", 4, resolution=64) for label in labels]
    file = generate(Task.parse("SYS-1(1,5)"), tmp_path / "calm.h5", 4, resolution=16).read_bytes()
    with mood():
        found = [draw_split(Task.parse(label), "train", 4, resolution=64) for label in labels]
        moody = generate(Task.parse("SYS-1(1,5)"), tmp_path / "moody.h5", 4, resolution=16).read_bytes()
    for before, after in zip(calm, found, strict=True):
        for a, b in zip(before, after, strict=True):
            assert torch.equal(a, b)
    assert moody == file or mood is MOODS["threads"]  # whose number decides the last bit of a sum


@pytest.mark.parametrize("mood", ["dtype", "inference", "deterministic", "grad"])
def test_errors_are_the_same_in_every_mood(mood, small_operator):
    operator = small_operator()
    calm = evaluate(operator, Task.parse("SYS-1(1,5)"), count=8, resolution=32)
    with MOODS[mood]():
        assert evaluate(operator, Task.parse("SYS-1(1,5)"), count=8, resolution=32) == calm
