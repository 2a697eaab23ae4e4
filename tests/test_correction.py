"""The recipe ``correction``: systems whose coefficients are fields, and operators that correct a first iterate."""

from dataclasses import replace

import pytest
import torch

from sciml_fm_core import Operator, Task, TrainConfig, fine_tune, load_operator, pretrain, train_from_scratch
from sciml_fm_core.models.conditioning import Conditioning
from sciml_fm_core.models.fno import FNO, FNOConfig
from sciml_fm_core.models.normalization import fit_normalization
from sciml_fm_core.training.transfer import new_operator

TASKS = ("SYS-4(0,0.3)", "SYS-5(0.2,1)")
SMALL = {"size": "64K", "recipe": "correction"}


def drawn(label, count=8, seed=0):
    return Task.parse(label).sample(count, 16, torch.Generator().manual_seed(seed))


def random_operator(label):
    operator = new_operator([Task.parse(label)], **SMALL)
    for weight in operator.model.point_gates.parameters():
        torch.nn.init.normal_(weight, std=0.3, generator=torch.Generator().manual_seed(0))
    return operator


def relative(found, expected):
    return ((found - expected).norm() / expected.norm()).item()


def test_constant_fields_are_exact_whatever_the_weights():
    examples = drawn("SYS-4(0,0)")
    predicted = random_operator("SYS-4(0,0.3)").predict(examples.source, examples.coefficients)
    assert relative(predicted, examples.solution) < 1e-6
    still = examples.source.new_zeros(len(examples.source), 3, 16, 16)
    still[:, 0], still[:, 2] = 2.0, examples.source[:, 1]
    operator = random_operator("SYS-5(0.2,1)")
    solution = operator.systems[0].solve(still, examples.coefficients)
    assert relative(operator.predict(still, examples.coefficients), solution) < 1e-6


@pytest.mark.parametrize("label", TASKS)
def test_linear_in_sign_and_size_and_zero_of_zero(label):
    operator, examples = random_operator(label), drawn(label)
    source, predicted = examples.source, operator.predict(examples.source, examples.coefficients)
    for factor in (-1, 4, 0):
        scaled = torch.cat([source[:, :-1], factor * source[:, -1:]], dim=1)
        torch.testing.assert_close(operator.predict(scaled, examples.coefficients), factor * predicted)


@pytest.mark.parametrize("label", TASKS)
def test_moves_with_its_fields_and_turns_when_averaged(label):
    operator, examples = random_operator(label), drawn(label)
    predicted = operator.predict(examples.source, examples.coefficients)
    moved = operator.predict(examples.source.roll((3, 5), (-2, -1)), examples.coefficients)
    assert relative(moved, predicted.roll((3, 5), (-2, -1))) < 1e-5
    turned = operator.systems[0].turned_examples(examples._replace(solution=predicted), torch.arange(8))
    averaged = [operator.predict(each.source, each.coefficients, symmetries=True) for each in (examples, turned)]
    back = operator.systems[0].turned_examples(examples._replace(solution=averaged[0]), torch.arange(8))
    assert relative(averaged[1], back.solution) < 1e-5


@pytest.mark.parametrize("label", TASKS)
def test_turned_examples_solve_the_turned_equation(label):
    system, examples = Task.parse(label).system, drawn(label)
    turned = system.turned_examples(examples, torch.arange(8))
    assert relative(system.solve(turned.source, turned.coefficients), turned.solution) < 1e-6
    left = system.residual(turned.solution.double(), turned.source.double(), turned.coefficients)
    assert left.norm() < 1e-5 * turned.source[:, -1].norm()


@pytest.mark.parametrize(("label", "low", "high"), [("SYS-4(0,0.3)", 0, 1.0), ("SYS-5(0.2,1)", 0.1, 4.0)])
def test_fields_of_another_value_of_the_dial(label, low, high):
    examples, system = drawn(label, 2), Task.parse(label).system
    dial = torch.tensor([[low], [high]], dtype=torch.float64).expand(2, 2)
    varied = system.varied(examples.source.double(), dial)
    torch.testing.assert_close(system.dial(varied, torch.empty(2, 2, 0)), dial)
    assert torch.equal(varied[:, :, -1], examples.source[:, -1].double().expand(2, -1, -1, -1))


def test_layers_one_by_one_give_the_same():
    model = random_operator("SYS-5(0.2,1)").model
    told = Conditioning(torch.empty(2, 0), torch.randn(2, model.mode_points, model.mode_points // 2 + 1, 5))
    fields = torch.randn(2, model.config.in_channels, 16, 16)
    torch.testing.assert_close(model.head(model._hidden_by_layers(fields, told)), model(fields, told))


@pytest.mark.parametrize("packed", [False, True])
def test_saved_and_loaded(tmp_path, packed):
    operator, examples = random_operator("SYS-4(0,0.3)"), drawn("SYS-4(0,0.3)")
    loaded = load_operator(operator.save(tmp_path / "operator.safetensors", packed=packed))
    expected = operator.predict(examples.source, examples.coefficients)
    assert relative(loaded.predict(examples.source, examples.coefficients), expected) < (1e-2 if packed else 1e-7)
    assert packed or loaded.digest == operator.digest


def test_begins_from_an_operator_of_constant_coefficients():
    config = TrainConfig(steps=1, learning_rate=1e-12, warmup=0)
    task, symbol = Task.parse("SYS-4(0,0.3)"), load_operator("symbol")
    started, _ = pretrain([task], config, recipe="correction", start="symbol", resolution=32, validation_count=0)
    for name, weight in symbol.model.state_dict().items():
        found = started.model.state_dict()[name]
        torch.testing.assert_close(found[:, :1] if name == "lift.weight" else found, weight, atol=1e-9, rtol=0)
    assert started.card["start"]["digest"] == symbol.digest
    assert started.tasks == ["SYS-4(0,0.3)"]
    with pytest.raises(ValueError, match="start: expected an operator with the network"):
        pretrain([task], config, start=symbol, **SMALL)
    with pytest.raises(ValueError, match="start: expected an operator with the network"):
        pretrain([task], config, start="sys-1", recipe="correction")


@pytest.mark.parametrize("adapt", [fine_tune, train_from_scratch])
def test_adapted_to_a_few_labels(adapt):
    operator, examples = random_operator("SYS-4(0,0.3)"), drawn("SYS-4(0.6,0.9)")
    config = TrainConfig(steps=4, validate_every=1)
    adapted = adapt(operator, examples, validation=examples, config=config)
    start = adapted.operator if adapt is train_from_scratch else operator
    assert adapted.validation_error <= relative(start.predict(*examples[:2]), examples.solution) * 1.5
    assert adapted.operator.card["system"] == "variable_diffusion"


def test_takes_systems_whose_coefficients_are_fields_alone():
    with pytest.raises(ValueError, match="expected systems whose coefficients are fields"):
        fit_normalization("correction", [Task.parse("SYS-1(1,5)")], count=4)
    with pytest.raises(ValueError, match="expected systems whose coefficients are fields, as many of each"):
        fit_normalization("correction", [Task.parse(label) for label in TASKS], count=4)


def test_factors_at_points_begin_at_one():
    plain, gated = (FNO(FNOConfig(2, width=4, modes=2, depth=2, point_channels=count)) for count in (0, 1))
    gated.load_state_dict(gated.state_dict() | plain.state_dict())
    fields = torch.randn(3, 2, 8, 8)
    torch.testing.assert_close(gated(fields), plain(fields))


def test_an_operator_needs_the_factors_of_its_normalisation():
    operator = new_operator([Task.parse("SYS-4(0,0.3)")], **SMALL)
    with pytest.raises(ValueError, match="point_channels"):
        Operator(FNO(replace(operator.model.config, point_channels=0)), operator.normalization)


def test_the_shape_of_the_network_can_be_given():
    operator = new_operator([Task.parse("SYS-4(0,0.3)")], **SMALL, modes=3)
    assert (operator.model.config.modes, operator.model.config.point_channels) == (3, 1)
    with pytest.raises(ValueError, match="it takes no values on modes"):
        new_operator([Task.parse("SYS-4(0,0.3)")], recipe="correction", architecture="unet")
