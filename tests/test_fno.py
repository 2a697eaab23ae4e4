"""The network: the released weights, the spectral convolution, equivariance, gradients, resolutions, sizes."""

import pickle
import re
from pathlib import Path

import numpy as np
import pytest
import torch
from released_files import write_released

from sciml_fm_core import FNO, SIZES, FNOConfig, Task, find_system, load_operator, operator_from_released
from sciml_fm_core.experiments.released import network_from_released
from sciml_fm_core.models.conditioning import Conditioning
from sciml_fm_core.models.fno import SpectralConvolution
from sciml_fm_core.models.normalization import PaperNormalization


@pytest.fixture(scope="module")
def vectors(data_folder):
    arrays = np.load(data_folder / "fno_vectors.npz")
    state = {key.removeprefix("state/"): torch.from_numpy(arrays[key]) for key in arrays if key.startswith("state/")}
    return state, torch.from_numpy(arrays["input"]), torch.from_numpy(arrays["output"])


def make(in_channels=4, dtype=torch.float64, **settings):
    config = FNOConfig(in_channels, **{"width": 6, "modes": 4} | settings)
    return FNO(config, torch.Generator().manual_seed(0)).to(dtype)


# The released code's weights ------------------------------------------------------------------------------------------


def check_conformance(model, inputs, expected):
    with torch.no_grad():
        output = model(inputs)
    assert output.shape == expected.shape
    difference = torch.linalg.vector_norm(output - expected, dim=(1, 2, 3))
    assert (difference / torch.linalg.vector_norm(expected, dim=(1, 2, 3))).max() <= 1e-5
    assert (output - expected).abs().max() / expected.abs().max() <= 1e-5


def test_released_weights_give_the_released_output(vectors):
    state, inputs, expected = vectors
    check_conformance(network_from_released(state), inputs, expected)


@pytest.mark.parametrize("wrapped", [True, False])
def test_released_checkpoint_file(vectors, tmp_path, wrapped):
    state, inputs, expected = vectors
    state = {f"module.{key}": value for key, value in state.items()}
    torch.save({"model_state": state, "epoch": 500} if wrapped else state, tmp_path / "checkpoint.tar")
    check_conformance(network_from_released(tmp_path / "checkpoint.tar"), inputs, expected)
    check_conformance(network_from_released(str(tmp_path / "checkpoint.tar")), inputs, expected)


def test_released_complex_weights(vectors):
    state, inputs, expected = vectors
    state = {key: torch.view_as_complex(value) if "sp_convs" in key else value for key, value in state.items()}
    check_conformance(network_from_released(state), inputs, expected)


class Payload:
    """Would write a file if it were ever unpickled."""

    def __init__(self, path):
        self.path = str(path)

    def __reduce__(self):
        return open, (self.path, "w")


@pytest.mark.parametrize("plain", [True, False])
def test_pickled_objects_are_refused_and_not_executed(tmp_path, plain):
    trap, checkpoint = tmp_path / "executed", tmp_path / "checkpoint.tar"
    if plain:
        checkpoint.write_bytes(pickle.dumps(Payload(trap)))
    else:
        torch.save({"model_state": Payload(trap)}, checkpoint)
    with pytest.raises(ValueError, match="not a file of tensors only"):
        network_from_released(checkpoint)
    assert not trap.exists()


def test_bad_released_weights_are_refused(vectors, tmp_path):
    state, _, _ = vectors
    with pytest.raises(ValueError, match="released checkpoint: no file"):
        network_from_released(tmp_path / "none.tar")
    with pytest.raises(ValueError, match="released weights: expected fc0, sp_convs"):
        network_from_released({key: value for key, value in state.items() if key != "fc1.bias"})
    with pytest.raises(ValueError, match="released weights: expected fc0, sp_convs"):
        network_from_released(state | {"ws.1.weight": torch.zeros(3, 3, 1)})
    with pytest.raises(ValueError, match="released weights"):
        network_from_released({})
    torch.save([1, 2], tmp_path / "list.tar")
    with pytest.raises(ValueError, match="expected a state dict"):
        network_from_released(tmp_path / "list.tar")
    (tmp_path / "text.tar").write_text("hello")
    with pytest.raises(ValueError, match="not a file of tensors only"):
        network_from_released(tmp_path / "text.tar")


def test_an_operator_of_released_weights_computes_what_the_released_code_does(vectors):
    """Like reports that a released checkpoint predicted nonsense, since the constants of its inputs were nowhere."""
    state, scales = vectors[0], np.array([0.0031, 0.02, 0.021, 0.0, 0.7, 1, 1])
    task, n = Task.parse("SYS-1(1,5)"), 64
    examples = task.sample(3, n, torch.Generator().manual_seed(0))
    constants = examples.coefficients[:, :, None, None].expand(-1, -1, n, n)
    inputs = torch.cat([examples.source[:, None], constants], dim=1)
    size = torch.linalg.vector_norm(examples.source, dim=(1, 2)) / n**2
    inputs = inputs / (size / scales[0])[:, None, None, None]
    inputs[:, 1:] /= torch.tensor([0.02, 0.021, 1.0])[:, None, None]
    with torch.no_grad():
        expected = network_from_released(state)(inputs)[:, 0]
    operator = operator_from_released(state, "SYS-1", scales, resolution=n, tasks=["poisson(1,5)"])
    torch.testing.assert_close(operator.predict(examples.source, examples.coefficients), expected, rtol=1e-4, atol=1e-6)
    assert operator.tasks == ["SYS-1(1,5)"]
    same = operator_from_released(state, "SYS-1", scales[:4].tolist(), resolution=n)
    assert same.normalization.to_dict() == operator.normalization.to_dict()
    for wrong in (scales[:3], [*scales[:5], 2, 1], [*scales[:3], np.nan], [*scales[:3], -1], scales[None]):
        with pytest.raises(ValueError, match="scales: expected"):
            operator_from_released(state, "SYS-1", wrong)
    with pytest.raises(ValueError, match="input channels"):
        operator_from_released(state, "SYS-2", [1.0] * 6)


def test_the_page_on_released_weights_runs(vectors, tmp_path, monkeypatch, capsys):
    """As printed, on files made here of the weights of one of the released code's models."""
    monkeypatch.chdir(tmp_path)
    state = {f"module.{key}": value for key, value in vectors[0].items()}
    torch.save({"iters": 1, "epoch": 0, "model_state": state, "scheduler_state_dict": None}, "ckpt.tar")
    np.save("train_k1_5_scales.npy", np.array([0.0031, 0.02, 0.021, 0.005, 0.7, 1, 1]))
    generated = Task.parse("SYS-1(1,5)").sample(8, 16, torch.Generator().manual_seed(0))
    write_released(generated, "_train_k1_5_32k.h5")
    page = (Path(__file__).parent.parent / "docs" / "released.md").read_text(encoding="utf-8")
    names: dict = {}
    for code in re.findall(r"```python\n(.*?)```", page, re.DOTALL):
        exec(code, names)
    assert re.fullmatch(r"[\d.]+%\n", capsys.readouterr().out)
    assert load_operator("released.safetensors").card["recipe"] == "paper"
    fitted = PaperNormalization.fit([(find_system("SYS-1"), generated)]).to_dict()
    again = operator_from_released(vectors[0], "SYS-1", names["scales"], resolution=16).normalization.to_dict()
    assert again["source_rms"] == pytest.approx(fitted["source_rms"], rel=1e-5)
    assert again["coefficient_medians"] == pytest.approx(fitted["coefficient_medians"], rel=1e-5)


# Spectral convolution -------------------------------------------------------------------------------------------------


def by_fft(hidden, weight, m):
    """The textbook spectral convolution: full FFT, the product on the corners, inverse FFT."""
    n, _, batch, width = hidden.shape
    field = hidden.permute(2, 3, 0, 1)
    field_hat = torch.fft.rfft2(field, norm="ortho")
    matrix = torch.complex(*weight.unbind(0)).view(2 * m, m, width, width)
    out = field_hat.new_zeros(batch, width, n, n // 2 + 1)
    out[:, :, :m, :m] = torch.einsum("biyx,yxio->boyx", field_hat[:, :, :m, :m], matrix[:m])
    out[:, :, -m:, :m] = torch.einsum("biyx,yxio->boyx", field_hat[:, :, -m:, :m], matrix[m:])
    return torch.fft.irfft2(out, s=(n, n), norm="ortho").permute(2, 3, 0, 1)


@pytest.mark.parametrize(("n", "m"), [(16, 4), (8, 4), (10, 3), (4, 1), (32, 16)])
def test_spectral_convolution_equals_the_fft_in_values_and_gradients(n, m):
    layer = SpectralConvolution(3, m).double()
    hidden = torch.randn(n, n, 2, 3, dtype=torch.float64)
    cotangent = torch.randn_like(hidden)
    results = []
    for function in (layer, lambda h: by_fft(h, layer.weight, m)):
        inputs = hidden.clone().requires_grad_()
        output = function(inputs)
        results.append((output, *torch.autograd.grad(output, (inputs, layer.weight), cotangent)))
    for ours, expected in zip(*results, strict=True):
        torch.testing.assert_close(ours, expected, rtol=1e-10, atol=1e-10)


def test_unkept_modes_are_removed():
    layer = SpectralConvolution(2, 3).double()
    x = torch.arange(16, dtype=torch.float64) / 16
    wave = torch.cos(2 * torch.pi * 5 * x)[None, :, None, None].expand(16, 16, 1, 2)
    assert layer(wave).abs().max() < 1e-12
    kept = torch.cos(2 * torch.pi * 2 * x)[None, :, None, None].expand(16, 16, 1, 2)
    assert layer(kept).abs().max() > 1e-2


# The network ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("gate_width", [0, 8])
def test_translation_equivariance_to_rounding(gate_width, generator):
    model = make(gate_width=gate_width)
    source = torch.randn(2, 1, 16, 16, dtype=torch.float64)
    inputs = torch.cat([source, torch.randn(2, 3, 1, 1, dtype=torch.float64).expand(2, 3, 16, 16)], 1)
    output = model(inputs)
    for _ in range(4):
        shift = torch.randint(16, (2,), generator=generator).tolist()
        moved = model(torch.roll(inputs, shift, (2, 3)))
        torch.testing.assert_close(moved, torch.roll(output, shift, (2, 3)), rtol=0, atol=1e-12)
    single = model.float()(inputs.float())
    moved = model(torch.roll(inputs.float(), (3, 5), (2, 3)))
    torch.testing.assert_close(moved, torch.roll(single, (3, 5), (2, 3)), rtol=0, atol=1e-5)


@pytest.mark.parametrize("gate_width", [0, 8])
def test_every_parameter_has_a_gradient(gate_width):
    model = make(gate_width=gate_width)
    constants = torch.randn(3, 3, dtype=torch.float64)
    output = model(torch.randn(3, 1, 16, 16, dtype=torch.float64), Conditioning(constants))
    (output * torch.randn_like(output)).sum().backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None, name
        assert torch.isfinite(parameter.grad).all(), name
        if name.startswith(
            "spectral"
        ):  # every mode of every block matters, apart from the phases that a real field has
            real = parameter.grad[0].abs().amax(dim=(1, 2))
            assert (real > 0).all(), name
        else:
            assert parameter.grad.abs().max() > 0, name


@pytest.mark.parametrize("gate_width", [0, 8])
@pytest.mark.parametrize("n", [32, 34, 48, 64, 128])
def test_resolutions_from_twice_the_modes(gate_width, n):
    model = make(width=4, modes=16, gate_width=gate_width, dtype=torch.float32)
    with torch.no_grad():
        output = model(torch.randn(1, 1, n, n), Conditioning(torch.randn(1, 3)))
    assert output.shape == (1, 1, n, n)
    assert torch.isfinite(output).all()


def test_a_smooth_field_gives_the_same_function_on_every_grid():
    """Not exactly: the pointwise GELU makes waves that the coarser grid cannot carry."""
    model = make(width=8, modes=4, gate_width=8)
    points = torch.arange(128, dtype=torch.float64) / 128
    wave = torch.sin(2 * torch.pi * points)[None, :] * torch.cos(4 * torch.pi * points)[:, None]
    constants = torch.tensor([[0.3, -0.2, 0.7]], dtype=torch.float64)
    with torch.no_grad():
        fine, half, coarse = (model(wave[None, None, ::s, ::s], Conditioning(constants)) for s in (1, 2, 4))
    size = torch.linalg.vector_norm(fine[..., ::4, ::4])
    near = torch.linalg.vector_norm(half[..., ::2, ::2] - fine[..., ::4, ::4]) / size
    far = torch.linalg.vector_norm(coarse - fine[..., ::4, ::4]) / size
    assert near < 1e-6
    assert far < 1e-2


@pytest.mark.parametrize("gate_width", [0, 8])
def test_constants_equal_constant_maps(gate_width):
    model = make(gate_width=gate_width)
    source, constants = torch.randn(3, 1, 16, 16, dtype=torch.float64), torch.randn(3, 3, dtype=torch.float64)
    maps = torch.cat([source, constants[:, :, None, None].expand(3, 3, 16, 16)], dim=1)
    torch.testing.assert_close(model(source, Conditioning(constants)), model(maps), rtol=1e-12, atol=1e-12)


def test_gates_are_bounded():
    """Coefficients far outside the training range cannot make a gated network explode."""
    model = make(gate_width=8)
    told = Conditioning(1e6 * torch.randn(50, 3, dtype=torch.float64))
    gates = model.block_gates(torch.randn(50, 1, 16, 16, dtype=torch.float64), told)
    assert len(gates) == 4
    for *scales, shift in gates:
        for gate in scales:
            assert gate.shape == (50, 6)
            assert 0 <= gate.min() <= gate.max() <= 2
        assert shift.abs().max() <= 1


def test_gates_see_the_coefficients_alone():
    """The same network with the gates of other coefficients, while the maps stay as they are, is another function."""
    model, source = make(gate_width=8), torch.randn(2, 1, 8, 8, dtype=torch.float64)
    constants = torch.randn(2, 3, dtype=torch.float64)
    with torch.no_grad():
        model.lift.weight[:, 1:] = 0  # the coefficients reach the blocks through the gates alone
        as_numbers, other = model(source, Conditioning(constants)), model(source, Conditioning(constants + 1))
        as_maps = model(torch.cat([source, constants[..., None, None].expand(-1, -1, 8, 8)], dim=1))
        assert (as_numbers - other).abs().max() > 1e-3
        torch.testing.assert_close(as_numbers, as_maps, rtol=1e-12, atol=1e-12)
        for layer in model.gates.layers[::2]:
            layer.weight.zero_()
        assert torch.equal(model(source, Conditioning(constants)), model(source, Conditioning(constants + 1)))


def test_weights_are_a_function_of_the_generator():
    first, again, other = (FNO(FNOConfig(4, 4, 2, gate_width=4), torch.Generator().manual_seed(s)) for s in (1, 1, 2))
    for name, value in first.state_dict().items():
        assert torch.equal(value, again.state_dict()[name])
    assert not torch.equal(first.lift.weight, other.lift.weight)


@pytest.mark.parametrize(("size", "expected"), [("64K", 67_000), ("1M", 1.05e6), ("16M", 16.8e6), ("256M", 268e6)])
def test_sizes_have_the_parameters_of_the_specification(size, expected):
    with torch.device("meta"):
        model = FNO(FNOConfig(in_channels=4, **SIZES[size]))
    assert abs(model.parameter_count / expected - 1) < 0.01


def test_released_default_has_67_million():
    with torch.device("meta"):
        assert abs(FNO(FNOConfig(4, width=64, modes=32)).parameter_count / 67e6 - 1) < 0.01


# Bad input ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("shape", "constants", "message"),
    [
        (
            (2, 3, 16, 16),
            None,
            r"expected \(batch, 4, ny, nx\) counting what is told .*, got \(2, 3, 16, 16\) and 0",
        ),
        ((2, 1, 16, 16), 2, r"expected \(batch, 4, ny, nx\) counting what is told of the equation.* and 2 more"),
        ((4, 16, 16), None, r"expected \(batch, 4, ny, nx\)"),
        ((2, 4, 16, 6), None, r"expects at least 8 points in each direction, got \(16, 6\)"),
        ((2, 4, 6, 6), None, r"expects at least 8 points in each direction, got 6; use a finer grid"),
    ],
)
def test_bad_inputs_are_refused(shape, constants, message):
    model = make(dtype=torch.float32)
    with pytest.raises(ValueError, match=message):
        model(torch.zeros(shape), None if constants is None else Conditioning(torch.zeros(shape[0], constants)))


@pytest.mark.parametrize("name", ["in_channels", "width", "modes", "depth"])
def test_bad_shapes_are_refused(name):
    with pytest.raises(ValueError, match=f"FNOConfig: expected {name} of at least 1, got 0"):
        FNOConfig(**{"in_channels": 4, name: 0})


def test_bad_gates_are_refused():
    with pytest.raises(ValueError, match="expected gate_width of at least 0"):
        FNOConfig(4, gate_width=-1)
    with pytest.raises(ValueError, match="expected projection of at least 1"):
        FNOConfig(4, projection=0)
    with pytest.raises(ValueError, match="gates need at least one coefficient channel"):
        FNOConfig(1, gate_width=8)
