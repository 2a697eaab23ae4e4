"""Weights in fewer bits: what is left of a number, what is stored, and what an operator predicts with it."""

import math

import pytest
import torch

from sciml_fm_core import Task, draw_split, load_operator, new_operator, relative_error
from sciml_fm_core.experiments.low_precision.method import (
    WEIGHT_KINDS,
    predict_in,
    stored,
    stored_bytes,
    with_weights_in,
)
from sciml_fm_core.experiments.low_precision.runs import KINDS, LowPrecisionRun, low_precision_runs
from sciml_fm_core.models.packed import pack, unpack
from sciml_fm_core.study.runs import identity

TASK = Task.parse("SYS-1(1,5)")


@pytest.fixture(scope="module")
def operator():
    """One that ships; it has large spectral weights and small others."""
    return load_operator("sys-1")


def weights(operator):
    return operator.model.state_dict()


def test_float32_is_the_operator_itself(operator):
    before = {key: value.clone() for key, value in weights(operator).items()}
    same = with_weights_in(operator, "float32")
    assert all(torch.equal(value, weights(same)[key]) for key, value in before.items())
    with_weights_in(operator, "int8 by mode").model.lift.weight.data.zero_()
    assert all(torch.equal(value, weights(operator)[key]) for key, value in before.items()), "a copy"
    assert same.card == operator.card


@pytest.mark.parametrize(("kind", "bits"), [("float16", 11), ("bfloat16", 8)])
def test_sixteen_bits_round_each_number(operator, kind, bits):
    for key, value in weights(with_weights_in(operator, kind)).items():
        exact = weights(operator)[key]
        assert torch.equal(value, exact.to(getattr(torch, kind)).float())
        normal = exact.abs() > 2**-14  # below it float16 has fewer digits
        assert ((value - exact).abs() <= 2.0**-bits * exact.abs())[normal].all()


def test_blocks_are_those_of_packed_bundles(operator):
    expected = unpack(pack(weights(operator)))
    for key, value in weights(with_weights_in(operator, "int8 in blocks")).items():
        assert torch.equal(value, expected[key])


def test_each_mode_has_its_scale(operator):
    for key, value in weights(with_weights_in(operator, "int8 by mode")).items():
        exact = weights(operator)[key]
        if not key.startswith("spectral"):
            assert ((value - exact).abs() <= exact.abs().max() / 2000).all(), "small, so in sixteen bits"
            continue
        largest = exact.abs().amax((-2, -1), keepdim=True)
        assert ((value - exact).abs() <= largest / 254 * (1 + 1e-4)).all()
        steps = value / (largest / 127)
        torch.testing.assert_close(steps, steps.round(), atol=1e-4, rtol=0)


def test_modes_of_very_different_size_survive():
    """A mode a thousand times smaller keeps its digits by mode; whole numbers of a scale are exact, and zero is."""
    operator = new_operator([TASK], size="1M")
    with torch.no_grad():
        spectral = operator.model.spectral[0].weight
        spectral.copy_(torch.randint(-127, 128, spectral.shape, generator=torch.Generator().manual_seed(0)).float())
        spectral[..., 0, 0] = 127
        spectral[:, ::2] *= 2.0**-10
        spectral[:, 5] = 0
    exact = spectral.detach().clone()
    assert torch.equal(with_weights_in(operator, "int8 by mode").model.spectral[0].weight, exact)


def test_what_is_stored(operator):
    numbers = {key: value.numel() for key, value in weights(operator).items()}
    large = sum(count for key, count in numbers.items() if key.startswith("spectral"))
    small, few = sum(numbers.values()) - large, sum(not key.startswith("spectral") for key in numbers)
    expected = {
        "float32": 4 * (large + small),
        "float16": 2 * (large + small),
        "bfloat16": 2 * (large + small),
        "int8 in blocks": large + 4 * large // 16 + 2 * small + 4 * few,
        "int8 by mode": large + 4 * large // 256 + 2 * small + 4 * few,
    }
    for kind in WEIGHT_KINDS:
        tensors = stored(operator, kind).values()
        assert sum(value.numel() * value.element_size() for value in tensors) == expected[kind]
        assert 0 < stored_bytes(operator, kind) - expected[kind] < 5000, "and the names"


@pytest.mark.parametrize("architecture", ["unet", "vit"])
def test_other_networks_have_blocks_alone(architecture):
    operator = new_operator([TASK], architecture=architecture, size="64K")
    for kind in WEIGHT_KINDS:
        rounded = with_weights_in(operator, kind)
        for key, value in weights(rounded).items():
            exact = weights(operator)[key]
            assert (value - exact).abs().max() <= exact.abs().max() / 100
    assert stored(operator, "int8 by mode").keys() == stored(operator, "int8 in blocks").keys()


def test_predictions_stay_close(operator):
    examples = draw_split(TASK, "test", 8, resolution=32)
    exact = operator.predict(examples.source, examples.coefficients)
    off = {}
    for kind in WEIGHT_KINDS:
        prediction = with_weights_in(operator, kind).predict(examples.source, examples.coefficients)
        off[kind] = relative_error(prediction, exact).mean().item()
    assert off["float32"] == 0
    assert 0 < off["float16"] < off["bfloat16"] < 0.01
    assert off["float16"] < off["int8 in blocks"] < 0.01
    assert off["float16"] < off["int8 by mode"] < 0.01


def test_products_in_bfloat16(operator):
    examples = draw_split(TASK, "test", 4, resolution=32)
    exact = operator.predict(examples.source, examples.coefficients)
    plain = predict_in(operator, "float32", examples.source, examples.coefficients)
    torch.testing.assert_close(plain, exact, rtol=1e-4, atol=1e-5)
    rounded = predict_in(operator, "bfloat16", examples.source, examples.coefficients)
    assert rounded.dtype == torch.float32
    assert 1e-4 < relative_error(rounded, exact).mean() < 0.02
    with pytest.raises(ValueError, match="unet has no form in bfloat16"):
        predict_in(new_operator([TASK], architecture="unet", size="64K"), "bfloat16", *examples[:2])


def test_kinds_that_are_refused(operator):
    for function in (with_weights_in, stored, stored_bytes):
        with pytest.raises(ValueError, match=r"weights: expected one of float32, float16, bfloat16, .*, got 'int4'"):
            function(operator, "int4")


def test_a_run():
    found = LowPrecisionRun("sys-1", "SYS-1(1,5)", test=2, test_resolution=32, timed=1).measure("cpu")
    assert found["kinds"] == list(KINDS)
    assert len(found["error"]) == len(found["kilobytes"]) == len(KINDS)
    assert all(0 < error < 0.02 for error in found["error"])
    assert found["kilobytes"][-1] is None
    assert math.isclose(found["kilobytes"][0] / found["kilobytes"][1], 2, rel_tol=0.01)


def test_runs_of_each_budget():
    with pytest.raises(ValueError, match="budget: expected one of smoke, laptop, gpu, paper, got 'huge'"):
        low_precision_runs("huge")
    for budget in ("smoke", "laptop", "gpu", "paper"):
        runs = low_precision_runs(budget)
        assert len({identity(run) for run in runs}) == len(runs) == (10 if budget == "smoke" else 49)
