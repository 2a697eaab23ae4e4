"""Tasks: labels, the law of the samples, reproducibility, the rejection rule, the shifts."""

import pytest
import torch

from sciml_fm_core import PAPER_TASKS, SYSTEMS, Task, parse_mixture
from sciml_fm_core.physics import sampling
from sciml_fm_core.physics.helmholtz import Helmholtz
from sciml_fm_core.physics.sampling import RESOLVED, draw_accepted
from sciml_fm_core.physics.spectral import resample, wavenumbers
from sciml_fm_core.physics.tasks import tasks_of


def stream(seed=5):
    return torch.Generator().manual_seed(seed)


# Labels ---------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "system", "low", "high"),
    [
        ("SYS-1(1,5)", "poisson", 1, 5),
        ("poisson(1,5)", "poisson", 1, 5),
        (" sys-2 ( 0.2 , 1 ) ", "advection_diffusion", 0.2, 1),
        ("advection_diffusion(2e-1,1)", "advection_diffusion", 0.2, 1),
        ("Helmholtz(1,10)", "helmholtz", 1, 10),
    ],
)
def test_labels_are_read(text, system, low, high):
    task = Task.parse(text)
    assert (task.system, task.low, task.high) == (SYSTEMS[system], low, high)


@pytest.mark.parametrize("label", [label for tasks in PAPER_TASKS.values() for label in tasks.values()])
def test_labels_of_the_paper_round_trip(label):
    assert Task.parse(label).label == label


def test_label_keeps_every_digit_of_the_range():
    task = Task(SYSTEMS["poisson"], 1.23456789, 2.3456789012)
    assert Task.parse(task.label) == task


@pytest.mark.parametrize("text", ["", "SYS-1", "SYS-1(1)", "SYS-1(1,2,3)", "SYS-1(a,b)", "SYS-1(nan,2)", "(1,5)", "x"])
def test_junk_is_no_label(text):
    with pytest.raises(ValueError, match=r"task: expected SYSTEM\(low,high\) such as 'SYS-1\(1,5\)'"):
        Task.parse(text)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("SYS-9(1,5)", r"system: expected one of poisson \(SYS-1\).*got 'SYS-9'"),
        ("heat(1,5)", "got 'heat'"),
        ("SYS-1(5,1)", r"expected low <= high, got 5 > 1; swap them"),
        ("SYS-1(0.5,5)", "expected a finite range of the eigenvalue of at least 1"),
        ("SYS-2(-1,5)", "expected a finite range of the advection ratio above 0"),
        ("SYS-2(0,5)", "expected a finite range of the advection ratio above 0"),
        ("SYS-1(1,1e999)", "expected a finite range of the eigenvalue"),
        ("BIHARM(-1,5)", "expected a finite range of the advection strength of at least 0"),
        ("SYS-3(1.5,5)", "wavenumber is drawn as a whole number; round the range"),
    ],
)
def test_impossible_tasks_are_refused(text, message):
    with pytest.raises(ValueError, match=message):
        Task.parse(text)


def test_sparsities_are_probabilities():
    for sparsities in ((), (0.5, 1.5), (-0.1,)):
        with pytest.raises(ValueError, match="sparsities: expected probabilities"):
            Task(SYSTEMS["poisson"], 1, 5, sparsities=sparsities)


def test_mixtures_are_read():
    labels = ["SYS-1(1,5)", "SYS-2(0.2,1)", "SYS-3(1,1e+1)"]
    assert [task.label for task in parse_mixture(" + ".join(labels))] == ["SYS-1(1,5)", "SYS-2(0.2,1)", "SYS-3(1,10)"]
    assert parse_mixture("SYS-1(1,5)") == [Task.parse("SYS-1(1,5)")]
    with pytest.raises(ValueError, match="task: expected"):
        parse_mixture("SYS-1(1,5) + ")


# Samples --------------------------------------------------------------------------------------------------------------


def test_shapes_and_dtypes(task):
    count = len(task.system.coefficient_names)
    for dtype in (torch.float32, torch.float64):
        examples = task.sample(6, 32, stream(), dtype=dtype)
        assert examples.size == 6
        assert [tuple(tensor.shape) for tensor in examples] == [(6, 32, 32), (6, count), (6, 32, 32), (6,)]
        assert all(tensor.dtype == dtype for tensor in examples)


def test_samples_are_a_function_of_the_generator(task):
    first, again, other = (task.sample(6, 16, stream(seed)) for seed in (5, 5, 6))
    assert all(torch.equal(a, b) for a, b in zip(first, again, strict=True))
    assert not torch.equal(first.source, other.source)


def test_samples_do_not_depend_on_the_global_generator(task):
    torch.manual_seed(1)
    first = task.sample(4, 16, stream())
    torch.manual_seed(2)
    assert torch.equal(first.source, task.sample(4, 16, stream()).source)


def test_numbers_drawn_do_not_depend_on_resolution_or_dtype(task):
    coarse, fine, double = (
        Task(task.system, task.low, task.high, reject=False).sample(8, n, stream(), dtype=dtype)
        for n, dtype in ((32, torch.float32), (64, torch.float32), (32, torch.float64))
    )
    assert torch.equal(coarse.dial, fine.dial)
    torch.testing.assert_close(coarse.dial.double(), double.dial, rtol=1e-6, atol=0)
    fixed = slice(0, 3) if task.system.name == "advection_diffusion" else slice(None)  # the speed depends on the source
    assert torch.equal(coarse.coefficients[:, fixed], fine.coefficients[:, fixed])
    shift = (fine.source[:, ::2, ::2] - coarse.source).double()
    # The maximum and the mean are those of the grid; apart from them the sources are the same function.
    assert shift.std(dim=(-2, -1)).max() < 0.05 * coarse.source.std(dim=(-2, -1)).min()


def test_examples_are_solutions(task, generator):
    examples = task.sample(4, 32, generator, dtype=torch.float64)
    solution = task.system.solve(examples.source, examples.coefficients)
    torch.testing.assert_close(examples.solution, solution, rtol=0, atol=1e-13)


@pytest.mark.parametrize("n", [16, 32, 64, 66, 100, 128, 192])
def test_float32_examples_are_solutions_to_rounding(task, n):
    """Finer grids are solved on fewer modes; what that changes is lost in the rounding of float32."""
    examples = task.sample(40, n, stream())  # more than one chunk
    system, source, coefficients = task.system, examples.source, examples.coefficients
    exact = system.solve(source.double(), coefficients.double())

    error = torch.linalg.vector_norm(examples.solution - exact, dim=(1, 2))
    assert (error / torch.linalg.vector_norm(exact, dim=(1, 2))).max() < 5e-7  # of solving in full: 3e-7
    if system.zero_mean:
        assert source.mean(dim=(1, 2)).abs().max() < 1e-6


def test_modes_left_out_on_a_fine_grid_are_below_rounding(task):
    """In float64, where rounding hides nothing: the modes that the smaller grid does not resolve."""
    examples = task.sample(8, 128, stream(), dtype=torch.float64)
    kept = resample(resample(examples.solution, RESOLVED), 128)
    weakly_damped = task.system.name == "fractional_laplacian"  # the shorter a wave, the more the others damp it
    limit = torch.finfo(torch.float32).eps if weakly_damped else 1e-8
    assert (kept - examples.solution).abs().max() < limit * examples.solution.abs().max()


def test_a_resonant_mode_is_removed_on_a_fine_grid_too():
    class WholeHelmholtz(Helmholtz):
        """In units where whole numbers resonate, also in float32."""

        def symbol(self, coefficients, n):
            return super().symbol(coefficients / coefficients.new_tensor([4 * torch.pi**2, 1]), n).round()

        def coefficients(self, dial, source, parameters):
            return torch.stack([torch.ones_like(dial), dial], dim=-1)

    task = Task(WholeHelmholtz(), 25, 25, reject=False)
    full, examples = (task.sample(4, 128, stream(), dtype=dtype) for dtype in (torch.float64, torch.float32))
    kx, ky = wavenumbers(128)
    for field, expected in ((examples.source, full.source), (examples.solution, full.solution)):
        assert torch.fft.rfft2(field.double())[:, kx**2 + ky**2 == 25].abs().max() < 0.1  # of 128^2 points
        torch.testing.assert_close(field.double(), expected, rtol=0, atol=2e-6)


def test_examples_do_not_depend_on_the_chunks_they_are_made_in(task, monkeypatch):
    whole = task.sample(12, 96, stream())
    monkeypatch.setattr(sampling, "_CHUNK", 5 * 96**2)
    for a, b in zip(whole, task.sample(12, 96, stream()), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-5)


def test_sources_are_normalised(task, generator):
    source = task.sample(16, 64, generator, dtype=torch.float64).source
    if task.system.zero_mean:
        assert source.mean(dim=(-2, -1)).abs().max() < 1e-14
        assert (source.amax(dim=(-2, -1)) < 1).all()
    else:
        torch.testing.assert_close(source.amax(dim=(-2, -1)), torch.ones(16, dtype=torch.float64))
        assert source.min() >= 0


def test_sparsities_are_balanced_and_in_turn(generator):
    """Sparser sources have a larger share of points where nothing is."""
    source = Task(SYSTEMS["helmholtz"], 1, 1, reject=False).sample(200, 64, generator).source
    covered = (source > 0.05).double().mean(dim=(-2, -1)).view(50, 4).mean(dim=0)
    assert (covered.diff() < -0.02).all()


def test_dial_is_uniform_in_its_range(generator):
    dial = Task.parse("SYS-1(1,5)").sample(2000, 8, generator, dtype=torch.float64).dial
    assert 1 <= dial.min() < 1.02
    assert 4.98 < dial.max() <= 5
    assert abs(dial.mean() - 3) < 4 * (16 / 12 / 2000) ** 0.5
    assert abs(dial.var() - 16 / 12) < 0.12


def test_angles_cover_the_circle(generator):
    coefficients = Task.parse("SYS-2(0.2,1)").sample(400, 16, generator, dtype=torch.float64).coefficients
    angle = torch.atan2(coefficients[:, 4], coefficients[:, 3])
    assert torch.histc(angle, 4, -torch.pi, torch.pi).min() > 60
    axis = torch.atan2(2 * coefficients[:, 2], coefficients[:, 0] - coefficients[:, 1])
    assert torch.histc(axis, 4, -torch.pi, torch.pi).min() > 60
    eigenvalue = SYSTEMS["poisson"].dial(torch.zeros(()), coefficients[:, :3])
    assert 1 <= eigenvalue.min() < 1.1
    assert 4.9 < eigenvalue.max() <= 5 + 1e-9


def test_wavenumbers_are_whole_with_both_ends_included(generator):
    dial = Task(SYSTEMS["helmholtz"], 1, 10, reject=False).sample(1000, 8, generator).dial
    counts = torch.bincount(dial.long(), minlength=11)
    assert torch.equal(dial, dial.round())
    assert counts[0] == 0
    assert len(counts) == 11
    assert counts[1:].min() > 60


def test_a_range_of_one_value(system, generator):
    dial = Task(system, 3, 3).sample(4, 16, generator).dial
    assert torch.equal(dial, torch.full((4,), 3.0))


# The rejection rule ---------------------------------------------------------------------------------------------------


def test_rejection_rule_is_switchable_and_reports_its_rate():
    label = PAPER_TASKS["helmholtz"]["pre-training"]
    kept, draws = draw_accepted(Task.parse(label), 256, 32, stream())
    assert kept.solution.abs().max() <= 2
    free, all_draws = draw_accepted(Task(SYSTEMS["helmholtz"], 1, 10, reject=False), 256, 32, stream())
    assert all_draws == 256
    refused = free.solution.abs().amax(dim=(-2, -1)) > 2
    assert 0 < refused.sum() < 256
    # What was accepted at once is the same with and without the rule; the rest was drawn anew.
    assert torch.equal(kept.solution[~refused], free.solution[~refused])
    assert draws >= 256 + refused.sum()
    assert 0.05 < 256 / draws < 1
    # The redrawn examples are whole ones.
    residual = SYSTEMS["helmholtz"].residual(kept.solution, kept.source, kept.coefficients)
    assert residual.abs().max() < 1e-3
    assert torch.equal(kept.dial, kept.coefficients[:, 1])


def test_rejection_is_no_part_of_the_solver():
    source = torch.ones(8, 8)
    assert SYSTEMS["helmholtz"].solve(source, torch.tensor([0.01, 0.1])).abs().max() > 9


def test_other_systems_reject_nothing():
    for label in ("SYS-1(1,5)", "SYS-2(0.2,1)"):
        assert draw_accepted(Task.parse(label), 16, 16, stream())[1] == 16


def test_a_rule_that_refuses_everything_ends_with_an_error(monkeypatch):
    monkeypatch.setattr(type(SYSTEMS["helmholtz"]), "max_solution", 1e-6)
    with pytest.raises(ValueError, match=r"after 200 rounds 2 of 2 examples still exceed.*reject=False"):
        Task.parse("SYS-3(1,10)").sample(2, 8, stream())


# Bad input ------------------------------------------------------------------------------------------------------------


def test_sampling_needs_a_generator_a_count_and_an_even_grid():
    task = Task.parse("SYS-1(1,5)")
    with pytest.raises(ValueError, match=r"generator: expected a torch.Generator; pass torch.Generator\(\)"):
        task.sample(4, 16)
    with pytest.raises(ValueError, match="count: expected at least 1, got 0"):
        task.sample(0, 16, stream())
    for n in (6, 129, -4):
        with pytest.raises(ValueError, match=f"resolution: expected an even number of at least 8, got {n}"):
            task.sample(4, n, stream())
    with pytest.raises(ValueError, match="resolution: expected at most 4096 points in each direction, got 2147483648"):
        task.sample(4, 2**31, stream())


# Shifts ---------------------------------------------------------------------------------------------------------------


def test_nothing_is_trained_on_the_equations_beside_the_papers(system):
    assert ("pre-training" in tasks_of(system)) == (system.name in PAPER_TASKS)
    dial = system.dialled
    for low, high in system.shifts.values():
        assert dial.low <= low < high <= dial.high
    if system.name not in PAPER_TASKS:
        assert tasks_of(system)["whole"] == Task(system, dial.low, dial.high).label


@pytest.mark.parametrize("n", [8, 16, 32, 48, 64, 128])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_examples_do_not_depend_on_the_number_of_threads(n, dtype):
    """Like reports that a seed gives other data on another machine."""
    found, before = [], torch.get_num_threads()
    try:
        for threads in (1, 2, 4):
            torch.set_num_threads(threads)
            for label in ("SYS-1(1,5)", "SYS-2(0.2,1)", "SYS-3(1,10)"):
                found.append(Task.parse(label).sample(5, n, torch.Generator().manual_seed(1), dtype=dtype))
    finally:
        torch.set_num_threads(before)
    for first, other in zip(found[:3] * 2, found[3:], strict=True):
        assert all(map(torch.equal, first, other))
