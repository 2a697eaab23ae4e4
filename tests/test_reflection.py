"""Boundaries by reflection: exact where the continued fields are smooth, of second order where a source jumps."""

from itertools import pairwise

import pytest
import torch
from torch import pi

from sciml_fm_core import System, Task, find_system, generate
from sciml_fm_core.data.hdf5 import DatasetFile
from sciml_fm_core.experiments.darcy import five_point
from sciml_fm_core.physics import reflection
from sciml_fm_core.physics.parameter import Parameter
from sciml_fm_core.physics.reflection import even, even_between, odd, reflected
from sciml_fm_core.physics.symmetries import Geometry
from sciml_fm_core.physics.system import SYSTEMS

EQUATIONS = {  # coefficients, and the factor on a wave with these squares of derivatives along x and y
    "SYS-1": ((0.02, 0.01, 0.0), lambda x, y: 0.02 * x + 0.01 * y),
    "SCREENED": ((0.01, 0.5), lambda x, y: 0.01 * (x + y) + 0.5),
    "SYS-3": ((0.01, 2.0), lambda x, y: 0.01 * (x + y) - 2),
}


def points(n, shift=0.0):
    """x and y of n x n points at (j + shift) / n, as (1, n) and (n, 1)."""
    x = (torch.arange(n, dtype=torch.float64) + shift) / n
    return x[None, :], x[:, None]


@pytest.mark.parametrize("label", EQUATIONS)
@pytest.mark.parametrize("n", [8, 14])
def test_sines_and_cosines_are_solved_exactly(label, n):
    coefficients, factor = EQUATIONS[label]
    coefficients = torch.tensor(coefficients, dtype=torch.float64)
    x, y = points(n)
    u = torch.sin(2 * pi * x) * torch.sin(3 * pi * y)
    found = find_system(f"{label}-DIRICHLET").solve(factor(4 * pi**2, 9 * pi**2) * u, coefficients)
    assert torch.allclose(found, u, atol=1e-10)
    x, y = points(n, 0.5)
    u = torch.cos(pi * x) * torch.cos(2 * pi * y)
    found = find_system(f"{label}-no-flux").solve(factor(pi**2, 4 * pi**2) * u, coefficients)
    assert torch.allclose(found, u, atol=1e-10)


def test_a_source_that_jumps_gives_second_order():
    """f = 1 against the series of sines of the square."""
    k = torch.arange(1, 400, 2, dtype=torch.float64)
    modes = 16 / pi**2 / (k[:, None] * k) / (pi**2 * (k[:, None] ** 2 + k**2))
    errors = []
    for n in (16, 32, 64):
        waves = torch.sin(pi * k[:, None] * points(n)[0])
        exact = waves.T @ modes @ waves
        ones = torch.ones(n, n, dtype=torch.float64)
        found = find_system("SYS-1-DIRICHLET").solve(ones, torch.tensor([1.0, 1.0, 0.0], dtype=torch.float64))
        errors.append(((found - exact).norm() / exact.norm()).item())
    assert errors[0] == pytest.approx(0.0075, rel=0.1)
    orders = [torch.tensor(first / second).log2().item() for first, second in pairwise(errors)]
    assert orders == pytest.approx([2, 2], abs=0.1)


def test_coefficients_that_vary_reflect():
    """-div(a grad u) = f with u = 0, through the solver for coefficients that vary in space."""

    class Varying(System):
        name, label, equation, coefficient_names = "varying", "VARYING", "-div(a grad u) = f", ("heterogeneity",)
        inputs, dialled, geometry = ("a", "f"), Parameter("heterogeneity", 0.1, 1), Geometry()

        def on_square(self, source, coefficients, side):
            return torch.cat([source[..., :1, :, :] / side**2, source[..., 1:, :, :]], dim=-3), coefficients

        def solve(self, source, coefficients):
            return SYSTEMS["variable_diffusion"].solved(source, tolerance=1e-12).solution

    try:
        system, (x, y) = find_system("VARYING-DIRICHLET"), points(24)
    finally:
        del SYSTEMS["varying"]
    a = 1 + 0.5 * torch.cos(pi * x) * torch.cos(pi * y)
    u = torch.sin(pi * x) * torch.sin(2 * pi * y)
    along_x = -0.5 * pi * torch.sin(pi * x) * torch.cos(pi * y) * pi * torch.cos(pi * x) * torch.sin(2 * pi * y)
    along_y = -0.5 * pi * torch.cos(pi * x) * torch.sin(pi * y) * 2 * pi * torch.sin(pi * x) * torch.cos(2 * pi * y)
    source = 5 * pi**2 * a * u - along_x - along_y
    found = system.solve(torch.stack([a.expand(24, 24), source])[None], torch.ones(1, 1, dtype=torch.float64))
    assert torch.allclose(found[0], u, atol=1e-10)


def test_continuations():
    n = 10
    (x, y), (wide_x, wide_y) = points(n), points(2 * n)
    waves, wide_waves = (
        torch.sin(3 * pi * x) * torch.sin(pi * y),
        torch.sin(6 * pi * wide_x) * torch.sin(2 * pi * wide_y),
    )
    assert torch.allclose(odd(waves), wide_waves)
    smooth = torch.cos(9 * pi * x) + torch.cos(2 * pi * y)
    assert torch.allclose(even(smooth), torch.cos(18 * pi * wide_x) + torch.cos(4 * pi * wide_y))
    copied = even(smooth, edge="copied")
    assert torch.equal(copied[:, n], copied[:, n - 1])
    assert torch.equal(copied[n], copied[n - 1])
    x, wide_x = points(n, 0.5)[0], points(2 * n, 0.5)[0]
    waves, wide_waves = torch.cos(3 * pi * x).expand(n, n), torch.cos(6 * pi * wide_x).expand(2 * n, 2 * n)
    assert torch.allclose(even_between(waves), wide_waves)


@pytest.mark.parametrize("label", ["SYS-1-DIRICHLET(1,5)", "SYS-1-NO-FLUX(1,5)", "SCREENED-NO-FLUX(0.5,2)"])
def test_tasks_are_drawn_and_files_are_read(label, tmp_path):
    task = Task.parse(label)
    assert task.label == label
    assert Task.parse(task.label).system is task.system
    examples = task.sample(4, 16, torch.Generator().manual_seed(0), dtype=torch.float64)
    assert torch.allclose(task.system.solve(examples.source, examples.coefficients), examples.solution)
    if "DIRICHLET" in label:
        assert max(examples.solution[:, 0].abs().max(), examples.solution[:, :, 0].abs().max()) < 1e-12
    with DatasetFile(generate(task, tmp_path / "train.h5", 4, resolution=16)) as file:
        assert file.system is task.system
        held = file[:4]
    assert torch.allclose(task.system.solve(held.source, held.coefficients), held.solution, atol=1e-5)


def test_symmetries_of_the_square_hold():
    task = Task.parse("SYS-1-DIRICHLET(1,5)")
    examples = task.sample(8, 16, torch.Generator().manual_seed(1), dtype=torch.float64)
    turned = task.system.turned_examples(examples, torch.arange(8))
    assert torch.allclose(task.system.solve(turned.source, turned.coefficients), turned.solution)


def test_what_does_not_reflect_is_refused():
    with pytest.raises(ValueError, match=r"advection_diffusion: v1, v2 go through the boundary"):
        find_system("SYS-2-DIRICHLET")
    with pytest.raises(ValueError, match=r"poisson-dirichlet expects k12 0, since beyond the boundary"):
        find_system("SYS-1-DIRICHLET").solve(torch.ones(8, 8), torch.tensor([1.0, 1.0, 0.1]))
    with pytest.raises(ValueError, match="it has no boundary by reflection"):
        find_system("FRAC-no-flux")
    with pytest.raises(ValueError, match="expected one of dirichlet, no-flux, got 'robin'"):
        reflected(find_system("SYS-1"), "robin")
    with pytest.raises(ValueError, match="system: expected one of poisson"):
        find_system("SYS-1-ROBIN")
    assert reflection.BOUNDARIES == ("dirichlet", "no-flux")


VARYING = torch.zeros(1, 0, dtype=torch.float64)


def test_heterogeneous_diffusion_has_boundaries():
    """SYS-4 with solutions by hand; a is no finite sum of waves."""
    x, y = points(24)
    a = torch.exp(0.5 * torch.cos(pi * x) * torch.cos(pi * y))
    slope_x, slope_y = (-0.5 * pi * torch.sin(pi * p) * torch.cos(pi * q) for p, q in ((x, y), (y, x)))
    u = torch.sin(pi * x) * torch.sin(2 * pi * y)
    u_x, u_y = pi * torch.cos(pi * x) * torch.sin(2 * pi * y), 2 * pi * torch.sin(pi * x) * torch.cos(2 * pi * y)
    source = a * (5 * pi**2 * u - slope_x * u_x - slope_y * u_y)
    found = find_system("SYS-4-DIRICHLET").solve(torch.stack([a, source])[None], VARYING)
    assert torch.allclose(found[0], u, atol=1e-8)
    x, y = points(24, 0.5)
    a = torch.exp(0.5 * torch.cos(pi * x) * torch.cos(pi * y))
    slope_x, slope_y = (-0.5 * pi * torch.sin(pi * p) * torch.cos(pi * q) for p, q in ((x, y), (y, x)))
    u = torch.cos(pi * x) * torch.cos(2 * pi * y)
    u_x, u_y = -pi * torch.sin(pi * x) * torch.cos(2 * pi * y), -2 * pi * torch.cos(pi * x) * torch.sin(2 * pi * y)
    source = a * (5 * pi**2 * u - slope_x * u_x - slope_y * u_y)
    found = find_system("SYS-4-NO-FLUX").solve(torch.stack([a, source])[None], VARYING)
    assert torch.allclose(found[0], u, atol=1e-8)


def test_heterogeneous_diffusion_is_of_second_order_where_the_source_jumps():
    """f = 1 against five points on a fine grid."""

    def smooth(n):
        x, y = points(n)
        return torch.exp(0.8 * torch.cos(pi * x) * torch.cos(2 * pi * y)), torch.ones(n, n, dtype=torch.float64)

    fine = five_point.solve(*(each[None] for each in smooth(256)))[0]
    errors = []
    for n in (16, 32, 64):
        found = find_system("SYS-4-DIRICHLET").solve(torch.stack(smooth(n))[None], VARYING)[0]
        exact = fine[:: 256 // n, :: 256 // n]
        errors.append(((found - exact).norm() / exact.norm()).item())
    assert errors[0] == pytest.approx(0.008, rel=0.1)
    orders = [torch.tensor(first / second).log2().item() for first, second in pairwise(errors)]
    assert orders == pytest.approx([2, 2], abs=0.15)


@pytest.mark.parametrize("boundary", ["DIRICHLET", "NO-FLUX"])
def test_tasks_of_heterogeneous_diffusion_with_boundaries(boundary):
    """Rough coefficients, whose continuation by waves alone would be negative at the edge."""
    task = Task.parse(f"SYS-4-{boundary}(0.9,1.2)")
    examples = task.sample(8, 16, torch.Generator().manual_seed(0), dtype=torch.float64)
    assert torch.allclose(task.system.dial(examples.source, examples.coefficients), examples.dial, rtol=2e-3)
    again = task.system.varied(examples.source, examples.dial / 2)
    assert torch.allclose(task.system.dial(again, examples.coefficients), examples.dial / 2, rtol=2e-3)
