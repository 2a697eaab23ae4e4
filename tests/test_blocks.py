"""The fused form of the trunk against the plain one and the textbook: values and gradients, together and alone."""

import pytest
import torch
from torch.nn import functional

from sciml_fm_core import FNO, FNOConfig
from sciml_fm_core.models import base, blocks, fused
from sciml_fm_core.models import fno as fno_module
from sciml_fm_core.models.base import apply_together
from sciml_fm_core.models.blocks import plain_trunk
from sciml_fm_core.models.conditioning import Conditioning

TOLERANCE = {torch.float64: 1e-12, torch.float32: 2e-5}


def make(seed=0, dtype=torch.float64, **settings):
    config = FNOConfig(4, **{"width": 6, "modes": 4, "depth": 3} | settings)
    return FNO(config, torch.Generator().manual_seed(seed)).to(dtype)


def textbook(model, inputs, values=None):
    """The Fourier neural operator as papers write it: channels first, full FFTs, complex weights.

    With values (batch, p, p // 2 + 1, c) on modes, the network of them makes complex factors of the mixed modes.
    """
    n, m, d = inputs.shape[-1], model.config.modes, model.config.width
    hidden = functional.conv2d(inputs, model.lift.weight[..., None, None], model.lift.bias)
    gates = None
    if model.gates is not None:
        raw = model.gates.layers(inputs[:, 1:].mean(dim=(2, 3))).view(-1, model.config.depth, 3, d)[..., None, None]
    factors = None if values is None else torch.view_as_complex(model.mode_gates(values).transpose(-1, -2).contiguous())
    for i in range(model.config.depth):
        hidden_hat = torch.fft.rfft2(hidden)
        weight = torch.complex(*model.spectral[i].weight.unbind(0)).view(2 * m, m, d, d)
        mixed = torch.zeros_like(hidden_hat)
        mixed[:, :, :m, :m] = torch.einsum("biyx,yxio->boyx", hidden_hat[:, :, :m, :m], weight[:m])
        mixed[:, :, -m:, :m] = torch.einsum("biyx,yxio->boyx", hidden_hat[:, :, -m:, :m], weight[m:])
        if factors is not None:
            factor = factors[:, :, :, i].permute(0, 3, 1, 2)
            mixed[:, :, :m, :m] *= factor[:, :, :m, :m]
            mixed[:, :, -m:, :m] *= factor[:, :, -m:, :m]
        spectral = torch.fft.irfft2(mixed, s=(n, n))
        pointwise = functional.conv2d(hidden, model.pointwise[i].weight[..., None, None], model.pointwise[i].bias)
        if model.gates is not None:
            gates = raw[:, i]
            spectral, pointwise = (
                spectral * (1 + torch.tanh(gates[:, 0] / 2)),
                pointwise * (1 + torch.tanh(gates[:, 1] / 2)),
            )
            spectral = spectral + torch.tanh(gates[:, 2] / 2)
        hidden = spectral + pointwise
        if i < model.config.depth - 1:
            hidden = functional.gelu(hidden)
    hidden = functional.gelu(functional.conv2d(hidden, model.project.weight[..., None, None], model.project.bias))
    return functional.conv2d(hidden, model.output.weight[..., None, None], model.output.bias)


def inputs_of(*shape, dtype, seed=1):
    """A source and constant coefficient maps, (..., 4, n, n)."""
    generator = torch.Generator().manual_seed(seed)
    inputs = torch.randn(*shape, dtype=torch.float64, generator=generator)
    inputs[..., 1:, :, :] = inputs[..., 1:, :1, :1]
    return inputs.to(dtype)


def values_and_gradients(function, models, inputs):
    inputs = inputs.clone().requires_grad_()
    output = function(inputs)
    cotangent = torch.randn(output.shape, dtype=torch.float64, generator=torch.Generator().manual_seed(2))
    parameters = [parameter for model in models for parameter in model.parameters()]
    return [output, *torch.autograd.grad(output, [inputs, *parameters], cotangent.to(output.dtype))]


def check(results, expected, dtype):
    for result, reference in zip(results, expected, strict=True):
        assert result.shape == reference.shape
        assert (result - reference).abs().max() <= TOLERANCE[dtype] * reference.abs().max()


@pytest.fixture(params=["whole", "rows"])
def row_size(request, monkeypatch):
    """All rows at once, or a few at a time, with a rest."""
    if request.param == "rows":
        monkeypatch.setattr(fused, "CACHE_ELEMENTS", 16 * 6 * 2 * 7)


def plain(monkeypatch, function):
    """The plain form, mapped over the weights of several networks, which is what CUDA runs."""
    with monkeypatch.context() as patch:
        patch.setattr(base, "_at_once", lambda device: True)
        patch.setattr(fno_module, "fused_trunk", plain_trunk)
        return function()


@pytest.mark.usefixtures("row_size")
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@pytest.mark.parametrize("gate_width", [0, 5])
@pytest.mark.parametrize("depth", [1, 3])
def test_one_network_in_all_forms(dtype, gate_width, depth, monkeypatch):
    model, inputs = make(dtype=dtype, gate_width=gate_width, depth=depth), inputs_of(2, 4, 16, 16, dtype=dtype)
    expected = values_and_gradients(lambda x: textbook(model, x), [model], inputs)
    check(values_and_gradients(model, [model], inputs), expected, dtype)
    check(plain(monkeypatch, lambda: values_and_gradients(model, [model], inputs)), expected, dtype)


def told(values):
    """Values on modes, and no scalars."""
    return Conditioning(values.new_empty(len(values), 0), modes=values)


@pytest.mark.usefixtures("row_size")
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@pytest.mark.parametrize("gate_width", [0, 5])
@pytest.mark.parametrize("depth", [1, 3])
def test_factors_of_modes_in_all_forms(dtype, gate_width, depth, monkeypatch):
    model = make(dtype=dtype, gate_width=gate_width, depth=depth, mode_channels=3, mode_gate_width=6)
    inputs, values = inputs_of(2, 4, 16, 16, dtype=dtype), torch.randn(2, 10, 6, 3, dtype=dtype)
    expected = values_and_gradients(lambda x: textbook(model, x, values), [model], inputs)
    check(values_and_gradients(lambda x: model(x, told(values)), [model], inputs), expected, dtype)
    forms = plain(monkeypatch, lambda: values_and_gradients(lambda x: model(x, told(values)), [model], inputs))
    check(forms, expected, dtype)
    with torch.no_grad():
        check([model(inputs, told(values))], expected[:1], dtype)


@pytest.mark.parametrize("shared", [True, False])
def test_factors_of_modes_of_several_networks(shared, monkeypatch):
    models = [make(seed, mode_channels=2, mode_gate_width=4) for seed in range(3)]
    several = () if shared else (3,)
    inputs, values = inputs_of(*several, 2, 4, 16, 16, dtype=torch.float64), torch.randn(*several, 2, 10, 6, 2).double()

    def alone(x):
        own = [(x, values) if shared else (x[i], values[i]) for i in range(3)]
        return torch.stack([textbook(model, *case) for model, case in zip(models, own, strict=True)])

    def together(x):
        same = [(x, told(values))] * 3
        return torch.stack(apply_together(models, same if shared else list(zip(x, map(told, values), strict=True))))

    expected = values_and_gradients(alone, models, inputs)
    check(values_and_gradients(together, models, inputs), expected, torch.float64)
    check(plain(monkeypatch, lambda: values_and_gradients(together, models, inputs)), expected, torch.float64)


def test_values_on_modes_that_do_not_fit_are_refused():
    inputs, values = inputs_of(2, 4, 16, 16, dtype=torch.float64), torch.randn(2, 10, 6, 3).double()
    with pytest.raises(ValueError, match="expects 0 values on each mode, got 3"):
        make()(inputs, told(values))
    with pytest.raises(ValueError, match="expects 2 values on each mode, got 0"):
        make(mode_channels=2)(inputs)


@pytest.mark.usefixtures("row_size")
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@pytest.mark.parametrize("gate_width", [0, 5])
@pytest.mark.parametrize("shared", [True, False])
def test_several_networks_in_all_forms(dtype, gate_width, shared, monkeypatch):
    models = [make(seed, dtype, gate_width=gate_width) for seed in range(3)]
    inputs = inputs_of(*(() if shared else (3,)), 2, 4, 16, 16, dtype=dtype)

    def alone(x):
        return torch.stack([textbook(model, x if shared else x[i]) for i, model in enumerate(models)])

    def together(x):
        return torch.stack(apply_together(models, [(x if shared else x[i], None) for i in range(3)]))

    expected = values_and_gradients(alone, models, inputs)
    check(values_and_gradients(together, models, inputs), expected, dtype)
    check(plain(monkeypatch, lambda: values_and_gradients(together, models, inputs)), expected, dtype)


def test_weights_that_are_mapped_are_those_in_use(monkeypatch):
    """Also where a parametrization makes them, and gradients reach what it makes them of."""
    models, inputs = [make(seed) for seed in range(2)], inputs_of(2, 4, 16, 16, dtype=torch.float64)
    for model in models:
        torch.nn.utils.parametrizations.weight_norm(model.output)

    def together(x):
        return torch.stack(apply_together(models, [(x, None)] * 2))

    expected = values_and_gradients(together, models, inputs)
    check(plain(monkeypatch, lambda: values_and_gradients(together, models, inputs)), expected, torch.float64)


@pytest.mark.usefixtures("row_size")
@pytest.mark.parametrize("gate_width", [0, 5])
def test_without_gradients_nothing_changes(gate_width):
    models, inputs = [make(s, gate_width=gate_width) for s in range(2)], inputs_of(2, 4, 16, 16, dtype=torch.float64)
    expected = [model(inputs) for model in models]
    with torch.no_grad():
        torch.testing.assert_close([model(inputs) for model in models], expected, rtol=1e-13, atol=1e-13)


def test_memory_that_is_used_again_belongs_to_one_graph_at_a_time():
    models = [make(0), make(1, width=5), make(2)]
    inputs = [inputs_of(2, 4, 16, 16, dtype=torch.float64, seed=seed) for seed in range(3)]
    parameters = [list(model.parameters()) for model in models]
    expected = [
        torch.autograd.grad(textbook(*case).sum(), p) for *case, p in zip(models, inputs, parameters, strict=True)
    ]
    for _ in range(3):
        outputs = [model(x) for model, x in zip(models, inputs, strict=True)]  # all graphs at once
        with torch.no_grad():
            models[0](inputs[1])
        for output, p, reference in zip(outputs, parameters, expected, strict=True):
            for _ in range(2):  # and each of them twice
                check(torch.autograd.grad(output.sum(), p, retain_graph=True), reference, torch.float64)


def test_what_inference_leaves_behind_serves_a_training(monkeypatch):
    monkeypatch.setattr(fused.Workspace, "_spare", [])
    blocks.fourier_matrices.cache_clear()
    model, inputs = make(), inputs_of(2, 4, 16, 16, dtype=torch.float64)
    with torch.inference_mode():
        model(inputs)
    results = values_and_gradients(model, [model], inputs)
    check(results, values_and_gradients(lambda x: textbook(model, x), [model], inputs), torch.float64)


def test_a_training_step_takes_over_the_memory_of_the_last(monkeypatch):
    monkeypatch.setattr(fused.Workspace, "_spare", [])
    model, inputs = make(), inputs_of(2, 4, 16, 16, dtype=torch.float64)
    places = []
    for _ in range(3):
        model(inputs).sum().backward()
        (arrays,) = fused.Workspace._spare
        places.append([array.data_ptr() for array in arrays])
    assert places[0] == places[1] == places[2]
    output = model(inputs).sum()
    for _ in range(3):  # a second backward pass takes no more than the first
        output.backward(retain_graph=True)
    del output
    assert [array.data_ptr() for array in fused.Workspace._spare[0]] == places[0]
    monkeypatch.setattr(fused, "SPARE_BYTES", 0)
    model(inputs).sum().backward()
    assert not fused.Workspace._spare


def test_gradients_are_those_of_finite_differences():
    model = make(width=3, modes=2, depth=2, gate_width=2)
    inputs = inputs_of(2, 4, 4, 4, dtype=torch.float64)
    names, values = zip(*model.named_parameters(), strict=True)

    def function(x, *parameters):
        return torch.func.functional_call(model, dict(zip(names, parameters, strict=True)), (x,))

    # the constants must stay constant in space: only the source is varied
    source, maps = inputs[:, :1].clone().requires_grad_(), inputs[:, 1:]
    assert torch.autograd.gradcheck(lambda f, *p: function(torch.cat([f, maps], dim=1), *p), (source, *values))


@pytest.mark.parametrize("depth", [1, 3])
@pytest.mark.parametrize("gate_width", [0, 5])
def test_derivatives_of_derivatives(depth, gate_width):
    """Like reports of Hessian products that were zero, or wrong, where a library wrote out a backward pass: of the
    inputs and all weights, twice and three times; and of several gradients at once."""
    model = make(gate_width=gate_width, depth=depth, mode_channels=3, mode_gate_width=4, width=4)
    inputs, values = inputs_of(2, 4, 8, 8, dtype=torch.float64), torch.randn(2, 10, 6, 3).double()
    points = [inputs.requires_grad_(), values.requires_grad_(), *model.parameters()]
    directions = [torch.randn_like(point) for point in points]

    def derivatives(function):
        found = function().square().sum()
        for _ in range(3):
            gradients = torch.autograd.grad(found, points, create_graph=True)
            yield from gradients
            found = sum((gradient * d).sum() for gradient, d in zip(gradients, directions, strict=True))

    plain, ours = (lambda: textbook(model, inputs, values)), (lambda: model(inputs, told(values)))
    check(derivatives(ours), derivatives(plain), torch.float64)
    cotangents = torch.randn(3, 2, 1, 8, 8).double()
    several = [torch.autograd.grad(f(), points, cotangents, is_grads_batched=True) for f in (ours, plain)]
    check(*several, torch.float64)


def test_networks_of_unequal_shape_are_refused():
    inputs = inputs_of(2, 4, 16, 16, dtype=torch.float64)
    with pytest.raises(ValueError, match="apply together: expected networks of equal configuration"):
        apply_together([make(), make(width=4)], [(inputs, None)] * 2)


@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor that is not a leaf")
def test_compiled_network_is_the_same():
    """The plain form is what is compiled; a backend that only traces needs no compiler on the machine."""
    model = make(gate_width=5, mode_channels=3)
    inputs, known = inputs_of(2, 4, 16, 16, dtype=torch.float64), told(torch.randn(2, 10, 6, 3).double())
    compiled = torch.compile(model.network(), backend="eager")
    expected = values_and_gradients(lambda x: model(x, known), [model], inputs)
    check(
        values_and_gradients(lambda x: apply_together([model], [(x, known)], compiled)[0], [model], inputs),
        expected,
        torch.float64,
    )


def test_pointwise_products_of_fewer_bits_stay_close():
    model, inputs = make(dtype=torch.float32, gate_width=5), inputs_of(2, 4, 16, 16, dtype=torch.float32)
    rough = model.network("bfloat16")
    exact = values_and_gradients(model, [model], inputs)
    results = values_and_gradients(lambda x: apply_together([model], [(x, None)], rough)[0], [model], inputs)
    for result, reference in zip(results, exact, strict=True):
        assert result.dtype == torch.float32
        error = (result - reference).norm() / reference.norm()
        assert error < 2**-4, "bfloat16 rounds to 2^-8"
    assert not torch.equal(results[0], exact[0])
