"""Symmetries of the square: the group, turned equations, turned batches, training on them, averaged predictions."""

from itertools import product
from typing import ClassVar

import pytest
import torch

from sciml_fm_core import (
    FNO,
    SYSTEMS,
    Evolution,
    FixedBatches,
    Operator,
    Parameter,
    SpectralSystem,
    Task,
    TrainConfig,
    draw_split,
    evaluate,
    fine_tune,
    train_from_scratch,
)
from sciml_fm_core.data.batches import TurnedBatches
from sciml_fm_core.physics.spectral import laplacian
from sciml_fm_core.physics.spectral_system import is_spectral
from sciml_fm_core.physics.symmetries import ELEMENTS, Geometry, inverse, turned_field

ALL = torch.arange(ELEMENTS)
NEAR, FAR = Task.parse("SYS-1(1,5)"), Task.parse("SYS-1(5,10)")


def matrix(element):
    """Q of an element, from what it does to the unit vectors."""
    points = Geometry(vectors=(("x", "y"),))
    columns = [points.turned(torch.tensor(unit), torch.tensor(element), ("x", "y")) for unit in ([1.0, 0], [0, 1.0])]
    return torch.stack(columns, dim=1)


def compose(first, second):
    """The element that does the second, then the first."""
    product_matrix = matrix(first) @ matrix(second)
    (found,) = [element for element in range(ELEMENTS) if torch.equal(matrix(element), product_matrix)]
    return found


@pytest.fixture(scope="module")
def turning_systems():
    """All systems with a symbol and no time that declare how they turn."""
    known = [each for each in SYSTEMS.values() if is_spectral(each) and not isinstance(each, Evolution)]
    return [each for each in known if each.geometry is not None]


@pytest.fixture
def examples(task, generator):
    """Solved examples in float64, one for each element."""
    return task.sample(ELEMENTS, 16, generator, dtype=torch.float64)


# The group ------------------------------------------------------------------------------------------------------------


def test_elements_are_the_signed_permutations():
    matrices = {tuple(matrix(element).flatten().int().tolist()) for element in range(ELEMENTS)}
    expected = set()
    for a, b in product((1, -1), repeat=2):
        expected |= {(a, 0, 0, b), (0, a, b, 0)}
    assert matrices == expected
    assert torch.equal(matrix(0), torch.eye(2))


def test_fields_move_with_their_points():
    """A field that is 1 at one point is, turned, 1 at the turned point; x = 0 stays."""
    n = 8
    for element in range(ELEMENTS):
        for point in ((3, 0), (1, 2), (0, 0), (4, 7)):
            x, y = (matrix(element) @ torch.tensor(point, dtype=torch.float32)).long() % n
            field = torch.zeros(n, n)
            field[point[1], point[0]] = 1
            moved = turned_field(field, torch.tensor(element))
            assert moved.nonzero().tolist() == [[y, x]]


def test_the_group_closes_on_fields():
    field = torch.randn(6, 6)
    for first, second in product(range(ELEMENTS), repeat=2):
        both = turned_field(turned_field(field, torch.tensor(second)), torch.tensor(first))
        assert torch.equal(both, turned_field(field, torch.tensor(compose(first, second))))
    for element in range(ELEMENTS):
        assert compose(inverse(torch.tensor(element)).item(), element) == 0


def test_the_group_closes_on_coefficients(system, examples):
    row = examples.coefficients[0]
    for first, second in product(range(ELEMENTS), repeat=2):
        both = system.turned(system.turned(row, torch.tensor(second)), torch.tensor(first))
        assert torch.equal(both, system.turned(row, torch.tensor(compose(first, second))))


# Equations ------------------------------------------------------------------------------------------------------------


def test_turned_examples_solve_the_turned_equation(system, examples):
    turned = system.turned_examples(examples, ALL)
    torch.testing.assert_close(system.solve(turned.source, turned.coefficients), turned.solution, rtol=0, atol=1e-12)
    residual = system.residual(turned.solution, turned.source, turned.coefficients)
    assert residual.abs().max() < 1e-11 * turned.source.abs().max()
    if system.geometry.names:  # the turn of the coefficients matters
        wrong = system.residual(turned.solution, turned.source, examples.coefficients)
        assert wrong.abs().max() > 0.1


def test_the_dial_is_unchanged(system, examples):
    turned = system.turned_examples(examples, ALL)
    assert torch.equal(turned.dial, examples.dial)
    torch.testing.assert_close(system.dial(turned.source, turned.coefficients), examples.dial, rtol=1e-9, atol=0)


def test_every_declaration_is_that_of_its_symbol(turning_systems, generator):
    """The symbol of the turned coefficients is the turned symbol: what a wrong declaration would break."""
    n = 8
    for system in turning_systems:
        task = Task(system, *next(iter(system.shifts.values())))
        row = task.sample(1, n, generator, dtype=torch.float64).coefficients[0]
        impulse = torch.zeros(n, n, dtype=torch.float64)
        impulse[0, 0] = 1
        impulse -= impulse.mean()
        response = system.solve(impulse, row)  # the Green's function: it has all of the symbol
        for element in ALL:
            moved = system.solve(impulse, system.turned(row, element))
            torch.testing.assert_close(moved, turned_field(response, element), rtol=0, atol=1e-12)


def test_coefficients_broadcast_with_elements(system, examples):
    each = system.turned(examples.coefficients[:3, None], ALL)
    assert each.shape == (3, ELEMENTS, len(system.coefficient_names))
    assert torch.equal(each[2, 5], system.turned(examples.coefficients[2], torch.tensor(5)))


def test_a_system_that_declares_nothing_has_only_the_identity(registry):
    class Plain(SpectralSystem):
        """Declares no geometry."""

        name = "plain"
        label = "PLAIN"
        equation = "-a u_{xx} - u_{yy} = f"
        coefficient_names = ("a",)
        dialled = Parameter("a", 0.1, 4)
        shifts: ClassVar = {"pre-training": (0.5, 2)}
        zero_mean = True

        def symbol(self, coefficients, n):
            return coefficients[..., 0, None, None] * laplacian(n, like=coefficients)

    plain = SYSTEMS["plain"]
    assert plain.symmetries.tolist() == [0]
    with pytest.raises(ValueError, match="plain: expected the identity, 0; declare its geometry to turn it"):
        plain.turned(torch.ones(2, 1), torch.tensor([0, 3]))
    data = draw_split(Task.parse("PLAIN(0.5,2)"), "train", 4, resolution=8)
    batches = FixedBatches([(plain, data)], 4)
    ((_, turned),), ((_, given),) = TurnedBatches(batches).batch(0, 0), batches.batch(0, 0)
    assert all(torch.equal(a, b) for a, b in zip(turned, given, strict=True))


def test_a_geometry_of_unknown_coefficients_is_refused(registry):
    with pytest.raises(TypeError, match="its geometry names v1, v2, which is no coefficient"):

        class Wrong(SpectralSystem):
            name = "wrong"
            label = "WRONG"
            equation = "a u = f"
            coefficient_names = ("a",)
            dialled = Parameter("a", 0.1, 4)
            geometry = Geometry(vectors=(("v1", "v2"),))
            zero_mean = False

            def symbol(self, coefficients, n):
                return coefficients[..., 0, None, None] + laplacian(n, like=coefficients)


# Batches and training -------------------------------------------------------------------------------------------------


def test_batches_turn_each_example_by_its_own_element(task):
    data = draw_split(task, "train", 40, resolution=8)
    batches = FixedBatches([(task.system, data)], 40, seed=3)
    ((_, given),) = batches.batch(5, 0)
    ((_, turned),) = TurnedBatches(batches, seed=3).batch(5, 0)
    every = turned_field(given.source[:, None], ALL)
    used = (every == turned.source[:, None]).all(dim=(-2, -1)).int().argmax(dim=1)
    assert set(used.tolist()) == set(range(ELEMENTS))
    expected = task.system.turned_examples(given, used)
    assert all(torch.equal(a, b) for a, b in zip(turned, expected, strict=True))
    ((_, again),) = TurnedBatches(batches, seed=3).batch(5, 0)  # of the seed and the step alone
    assert torch.equal(again.source, turned.source)
    ((_, other),) = TurnedBatches(batches, seed=4).batch(5, 0)
    assert not torch.equal(other.source, turned.source)


@pytest.mark.parametrize("start", [fine_tune, train_from_scratch])
def test_adaptations_train_on_turned_examples(small_operator, start, tmp_path):
    data, config = draw_split(FAR, "train", 8, resolution=16), TrainConfig(steps=6, learning_rate=3e-3)

    def weights(**options):
        return start(small_operator(), data, config=config, **options).operator.model.state_dict()

    def equal(one, other):
        return all(torch.equal(one[key], other[key]) for key in one)

    turned = weights()
    assert equal(turned, weights(symmetries=True))
    assert not equal(turned, weights(symmetries=False))

    saved = TrainConfig(steps=6, learning_rate=3e-3, checkpoint_every=1, report_every=1)
    path = tmp_path / "state"
    start(small_operator(), data, config=saved, checkpoint=path, callback=lambda now: now.step == 3)
    resumed = start(small_operator(), data, config=saved, checkpoint=path).operator.model.state_dict()
    assert equal(resumed, turned)


# Averaged predictions -------------------------------------------------------------------------------------------------


class Identity(FNO):
    """Stands in for a network that turns exactly with its input: it returns the source."""

    def forward(self, fields, conditioning=None):
        return fields[:, :1]


def test_an_equivariant_operator_is_unchanged(small_operator, task, generator):
    given = small_operator(task.label)
    operator = Operator(Identity(given.model.config), given.normalization)
    drawn = task.sample(3, 16, generator)
    plain = operator.predict(drawn.source, drawn.coefficients)
    averaged = operator.predict(drawn.source, drawn.coefficients, symmetries=True)
    torch.testing.assert_close(averaged, plain, rtol=1e-5, atol=1e-6 * plain.abs().max())


def test_averaged_predictions_turn_with_their_input(small_operator, task, generator):
    operator, system = small_operator(task.label), task.system
    drawn = task.sample(2, 16, generator)
    plain, averaged = (
        operator.predict(drawn.source, drawn.coefficients, symmetries=symmetries) for symmetries in (False, True)
    )
    assert (averaged - plain).norm() > 1e-3 * plain.norm()  # an untrained network does not
    for element in ALL[1:]:
        inputs = turned_field(drawn.source, element), system.turned(drawn.coefficients, element)
        turned = operator.predict(*inputs, symmetries=True)
        torch.testing.assert_close(turned, turned_field(averaged, element), rtol=0, atol=1e-5 * averaged.abs().max())
        assert (operator.predict(*inputs) - turned_field(plain, element)).norm() > 1e-3 * plain.norm()


def test_evaluation_averages_on_request(small_operator):
    operator = small_operator()
    test = draw_split(FAR, "test", 6, resolution=16)
    prediction = operator.predict(test.source, test.coefficients, symmetries=True)
    expected = ((prediction - test.solution).norm(dim=(1, 2)) / test.solution.norm(dim=(1, 2))).mean().item()
    assert evaluate(operator, FAR, count=6, resolution=16, symmetries=True)["error"] == pytest.approx(expected)
    assert evaluate(operator, FAR, count=6, resolution=16)["error"] != pytest.approx(expected)
