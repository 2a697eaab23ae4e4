"""Every architecture: shapes, gradients, conditioning, saving, training together; and what networks are told."""

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import pytest
import torch
from torch import nn
from torch.nn.utils import prune

from sciml_fm_core import (
    MODELS,
    Model,
    ModelConfig,
    Operator,
    Task,
    TrainConfig,
    draw_split,
    evaluate,
    fine_tune,
    load_operator,
    new_operator,
    pretrain,
    train_from_scratch,
)
from sciml_fm_core.experiments.architectures.unet import UNetConfig
from sciml_fm_core.experiments.architectures.vit import ViTConfig
from sciml_fm_core.models.base import apply_together
from sciml_fm_core.models.conditioning import Conditioning, symbol_features
from sciml_fm_core.models.normalization import fit_normalization, normalization_from_dict
from sciml_fm_core.models.predict import encode_together, predict_together
from sciml_fm_core.physics.spectral import resample

TASK, FAR = Task.parse("SYS-1(1,5)"), Task.parse("SYS-1(5,10)")
OTHERS = [name for name in MODELS if name != "fno"]


@pytest.fixture(params=MODELS)
def operator(request):
    """An untrained operator of each architecture, as small as it comes."""
    return new_operator([TASK], architecture=request.param, size="64K")


def test_sizes_are_what_their_names_say():
    for name in MODELS:
        assert 0.9e6 < new_operator([TASK], architecture=name, size="1M").model.parameter_count < 1.2e6


def test_shapes_gradients_and_what_the_scalars_do(operator):
    model, source = operator.model, torch.randn(2, 1, 32, 32)
    told = torch.randn(2, 3, requires_grad=True)
    output = model(source, Conditioning(told))
    assert output.shape == (2, 1, 32, 32)
    output.square().sum().backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.abs().max() > 0, name
    assert told.grad.abs().min() > 0, "each scalar of each example changes the output"
    mixed = model(source.flip(0), Conditioning(told.flip(0))).flip(0)
    torch.testing.assert_close(mixed, output, rtol=1e-4, atol=1e-5)


class Twice(nn.Module):
    """Something in place of a layer, which knows nothing of its weights."""

    def __init__(self, layer):
        super().__init__()
        self.inner, self.factor = layer, nn.Parameter(torch.tensor(2.0))

    def forward(self, *inputs):
        return self.factor * self.inner(*inputs)


def subclassed(model):
    class Doubled(type(model.output)):
        def forward(self, features):
            return 2 * super().forward(features)

    model.output.__class__ = Doubled


def overridden(model):
    forward = model.output.forward
    model.output.forward = lambda features: 2 * forward(features)


def set_gelu(model):
    model.gates.layers[1] = nn.Sequential(nn.GELU())


CHANGES = {
    "exchanged": (lambda model: setattr(model, "output", Twice(model.output)), 2),
    "sequence": (lambda model: setattr(model, "output", nn.Sequential(model.output, Twice(nn.Identity()))), 2),
    "hook": (lambda model: model.output.register_forward_hook(lambda _, inputs, output: 2 * output), 2),
    "hook before": (lambda model: model.output.register_forward_pre_hook(lambda _, inputs: (2 * inputs[0],)), 2),
    "hook of the network": (lambda model: model.register_forward_hook(lambda _, inputs, output: 2 * output), 2),
    "subclass": (subclassed, 2),
    "forward of the object": (overridden, 2),
    "layer inside": (set_gelu, 1),
    "weight norm by hook": (lambda model: nn.utils.weight_norm(model.output), 1),
    "weight norm": (lambda model: nn.utils.parametrizations.weight_norm(model.output), 1),
    "pruned": (lambda model: prune.custom_from_mask(model.output, "weight", torch.zeros_like(model.output.weight)), 0),
    "quantised": (lambda model: torch.ao.quantization.quantize_dynamic(model, {nn.Linear}, inplace=True), 1),
    "replaced weight": (lambda model: setattr(model.output, "weight", nn.Parameter(2 * model.output.weight)), 2),
}


@pytest.mark.filterwarnings("ignore")  # some of it is deprecated
@pytest.mark.parametrize("change", CHANGES)
def test_a_changed_network_is_applied_as_it_is(operator, change):
    """Like reports that exchanged heads, adapters, hooks, pruning or quantisation were ignored, or failed, where a
    library computes from its own list of weights."""
    examples, act = draw_split(TASK, "test", 2, resolution=32), CHANGES[change][0]
    operator.model.output.bias.data.zero_()
    expected, changed = CHANGES[change][1] * operator(*examples[:2]), operator.copy()
    act(changed.model)
    close = {
        "rtol": 1e-4,
        "atol": (0.2 if change == "quantised" else 1e-5) * float(operator(*examples[:2]).abs().max()),
    }
    both = predict_together([operator, changed], *examples[:2])
    torch.testing.assert_close(both[0], operator(*examples[:2]), **close)
    for found in (both[1], changed(*examples[:2]), changed.copy()(*examples[:2])):
        torch.testing.assert_close(found, expected, **close)
    (encoded,) = encode_together([operator], [(TASK.system, *examples[:2])])
    alone = encoded.decode(changed.model(*encoded.inputs))
    torch.testing.assert_close(alone, expected, **close)


def test_adapters_are_tuned_where_they_stand(operator):
    examples = draw_split(TASK, "train", 4, resolution=32)
    operator.model.requires_grad_(False)
    operator.model.output = Twice(operator.model.output)
    config = TrainConfig(steps=2, learning_rate=1e-2)
    tuned = fine_tune(operator, examples, validation=examples, batch_size=2, config=config).operator
    assert tuned.model.output.factor != 2


@pytest.mark.parametrize("name", MODELS)
def test_weights_are_of_the_generator_alone(name):
    """Like reports that loading or building a network moved, or depended on, what is set for all: in threads, in
    inference mode, with other defaults."""
    before = torch.get_rng_state()

    def weights(_=None):
        model = new_operator([TASK], architecture=name, size="64K", seed=3).model
        return torch.cat([parameter.detach().flatten() for parameter in model.parameters()])

    expected = weights()
    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(weights, range(4)))
    with torch.inference_mode():
        found.append(weights())
        loaded = load_operator("sys-1")
    torch.set_default_dtype(torch.float64)
    try:
        found.append(weights())
        assert next(load_operator("sys-1").model.parameters()).dtype == torch.float32
    finally:
        torch.set_default_dtype(torch.float32)
    assert all(torch.equal(expected, other) for other in found)
    assert torch.equal(before, torch.get_rng_state())
    examples = draw_split(TASK, "train", 2, resolution=32)
    fine_tune(loaded, examples, validation=examples, batch_size=2, config=TrainConfig(steps=1, learning_rate=1e-3))


@pytest.mark.parametrize("name", OTHERS)
def test_networks_of_one_grid_carry_over_to_others(name):
    operator = new_operator([TASK], architecture=name, size="64K")
    examples = draw_split(TASK, "test", 2, resolution=64)
    at_64, at_128 = (operator.predict(resample(examples.source, n), examples.coefficients) for n in (64, 128))
    torch.testing.assert_close(at_128[..., ::2, ::2], at_64, rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize(("name", "shift"), [("unet", 8), ("vit", 4)])
def test_translations_of_whole_cells_commute(name, shift):
    """By the coarsest grid of the U-Net, and by a patch of the transformer: positions enter only as differences."""
    model = new_operator([TASK], architecture=name, size="64K").model.double()
    source, told = torch.randn(1, 1, 32, 32, dtype=torch.float64), Conditioning(torch.randn(1, 3, dtype=torch.float64))
    shifted = model(torch.roll(source, (shift, -2 * shift), (2, 3)), told)
    torch.testing.assert_close(shifted, torch.roll(model(source, told), (shift, -2 * shift), (2, 3)))


def test_a_seed_decides_the_weights_and_leaves_the_global_stream_alone(operator):
    state = torch.get_rng_state()
    first, again, other = (
        new_operator([TASK], architecture=operator.model.architecture, size="64K", seed=seed) for seed in (0, 0, 1)
    )
    assert torch.equal(torch.get_rng_state(), state)
    weights = [next(iter(o.model.parameters())) for o in (first, again, other)]
    assert torch.equal(weights[0], weights[1])
    assert not torch.equal(weights[0], weights[2])


def test_members_are_as_each_alone(operator):
    models = [operator.model, operator.copy().model]
    for parameter in models[1].parameters():
        parameter.data.mul_(1.1)
    inputs = [(torch.randn(3, 1, 32, 32), Conditioning(torch.randn(3, 3))) for _ in models]
    for given in (inputs, inputs[:1] * 2):
        alone = [model(*own) for model, own in zip(models, given, strict=True)]
        torch.testing.assert_close(apply_together(models, given), alone, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("name", OTHERS)
def test_through_everything(name, tmp_path):
    settings = {"architecture": name, "size": "64K", "batch_size": 8, "resolution": 32, "validation_count": 8}
    trained, history = pretrain([TASK], TrainConfig(steps=30, learning_rate=2e-3, validate_every=10), **settings)
    assert history.best_error < history.rows[0]["validation_error"] or history.best_step > 10
    assert trained.card["architecture"] == name
    again = load_operator(trained.save(tmp_path / "bundle.safetensors"))
    test = draw_split(FAR, "test", 4, resolution=32)
    assert torch.equal(again.predict(test.source, test.coefficients), trained.predict(test.source, test.coefficients))
    data, validation = draw_split(FAR, "train", 4, resolution=32), draw_split(FAR, "validation", 4, resolution=32)
    for adapt in (fine_tune, train_from_scratch):
        config = TrainConfig(steps=6, validate_every=2)
        result = adapt(again, data, validation=validation, config=config, learning_rates=(1e-3, 3e-3))
        assert result.operator.card["architecture"] == name
        assert set(result.tried) == {1e-3, 3e-3}
        assert evaluate(result.operator, FAR, count=2, resolution=32)["error"] > 0


def test_a_training_resumes_with_the_same_bytes(operator, tmp_path):
    name = operator.model.architecture
    config = TrainConfig(steps=6, learning_rate=1e-3, validate_every=2, checkpoint_every=3, report_every=1)
    settings = {"architecture": name, "size": "64K", "batch_size": 4, "resolution": 32, "validation_count": 4}
    whole, _ = pretrain([TASK], config, **settings)
    path = tmp_path / "state"
    pretrain([TASK], config, checkpoint=path, callback=lambda progress: progress.step == 3, **settings)
    resumed, _ = pretrain([TASK], config, checkpoint=path, **settings)
    for a, b in zip(whole.model.parameters(), resumed.model.parameters(), strict=True):
        assert torch.equal(a, b)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: new_operator([TASK], architecture="mlp"), "architecture: expected one of fno, unet, vit.*got 'mlp'"),
        (lambda: new_operator([TASK], architecture="vit", size="2M"), "size: expected one of 64K, 1M, 16M, auto"),
        (lambda: ViTConfig(4, width=30), "a multiple of 4 heads, got width 30"),
        (lambda: UNetConfig(4, points=24), "points that halve 4 times, got 24"),
        (lambda: UNetConfig(4, growth=()), "expected width and growth of at least 1"),
        (lambda: MODELS["vit"](ViTConfig(4, mode_channels=2)), "it takes no values on modes, the conditioning makes 2"),
        (lambda: pretrain([TASK], TrainConfig(precision="bfloat16"), architecture="unet"), "no form in bfloat16"),
    ],
)
def test_bad_shapes_and_names(make, message):
    with pytest.raises(ValueError, match=message):
        make()


# What networks are told -----------------------------------------------------------------------------------------------


@pytest.fixture
def modes_network():
    """A network that multiplies each mode by a function of the values on it; what is registered is forgotten."""
    models = dict(MODELS)

    @dataclass(frozen=True)
    class Config(ModelConfig):
        width: int = 8

    class ModeNetwork(Model):
        architecture = "by-mode"
        config_type = Config
        takes_modes = True

        def __init__(self, config):
            super().__init__(config)
            self.gain = nn.Linear(config.mode_channels, 2)

        def forward(self, fields, conditioning):
            gain = torch.view_as_complex(self.gain(conditioning.modes))
            return torch.fft.irfft2(torch.fft.rfft2(fields) * gain.unsqueeze(1), s=fields.shape[-2:])

    yield ModeNetwork, Config
    MODELS.clear()
    MODELS.update(models)


def test_values_on_modes_reach_the_network(modes_network, tmp_path):
    network, config = modes_network
    tasks = [TASK, Task.parse("SYS-2(0.2,1)")]
    normalization = fit_normalization("symbol", tasks)
    assert normalization_from_dict(normalization.to_dict()).to_dict() == normalization.to_dict()
    operator = Operator(network(config(normalization.in_channels, mode_channels=5)), normalization, {})
    for task in tasks:
        examples = draw_split(task, "test", 3, resolution=16)
        encoded = normalization.encode(examples.source, examples.coefficients, task.system)
        assert encoded.modes.shape == (3, 16, 9, 5)
        assert operator.predict(examples.source, examples.coefficients, task.system).shape == (3, 16, 16)
    again = load_operator(operator.save(tmp_path / "modes.safetensors"))
    arguments = examples.source, examples.coefficients, task.system
    assert torch.equal(again.predict(*arguments), operator.predict(*arguments))


def test_symbol_on_modes_by_hand():
    system = Task.parse("SYS-3(1,10)").system
    coefficients = torch.tensor([[0.01, 4.0]], dtype=torch.float64)
    features = symbol_features(system.symbol(coefficients, 16) / system.scale(coefficients))[0]
    z = (4 * torch.pi**2 * 0.01 * 5 - 4) / (4 * torch.pi**2 * 0.01)  # ky = 1, kx = 2
    assert z < 0
    logarithm = torch.tensor(abs(z), dtype=torch.float64).log()
    expected = logarithm.asinh().item(), -1.0, 0.0, 1 / (1 + abs(z)), logarithm.item()
    assert features[1, 2].tolist() == pytest.approx(expected)
