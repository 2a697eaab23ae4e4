"""The networks compared: ours and its peers, all of one architecture, and what one training step of it costs.

All are Fourier neural operators of four blocks, without positional channels, of the same widths and modes: a 1 x 1 lift
to d channels; spectral convolution plus 1 x 1 convolution, GELU after all blocks but the last; 1 x 1 to 2 d channels,
GELU, 1 x 1 to one. The counts of their parameters are equal, which `parameters` lets one check.
"""

from __future__ import annotations

import importlib
import importlib.util
import math
import sys
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import torch
from torch import Tensor, nn

from sciml_fm_core import FNO, SIZES, FNOConfig
from sciml_fm_core.data.splits import stream
from sciml_fm_core.models.base import apply_together
from sciml_fm_core.models.conditioning import Conditioning
from sciml_fm_core.training.precision import compiled

CHANNELS = 4
"""The source and three coefficients, as in SYS-1."""


def _compiled(model: FNO) -> Callable:
    torch.compiler.reset()  # or the code would be for the shapes of another case too
    return compiled(model.network(), model)


FORMS: dict[str, Callable[[FNO], Callable]] = {
    "ours, plain": lambda model: partial(FNO.solution, pointwise=torch.float32),
    "ours, bfloat16": lambda model: model.network("bfloat16"),
    "ours, compiled": _compiled,
}
"""Other forms of our network: how it is applied. "plain" is what runs on CUDA and what is compiled."""

PEERS = ("neuraloperator", "released")


@contextmanager
def importing_from(folder: Path) -> Iterator[None]:
    """Import from a folder for a while, without its warnings and without leaving compiled files in it."""
    path, bytecode = list(sys.path), sys.dont_write_bytecode
    sys.path.insert(0, str(folder))
    sys.dont_write_bytecode = True
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        sys.path[:], sys.dont_write_bytecode = path, bytecode


def forms(device: torch.device, *, with_compiled: bool) -> list[str]:
    """Forms of our network that differ from the one a device runs."""
    names = ["ours, bfloat16"] if device.type == "cuda" else ["ours, plain"]
    return [*names, "ours, compiled"] if with_compiled else names


def available(released: Path | None) -> tuple[list[str], list[str]]:
    """Networks that can be measured here, and a line about each that cannot."""
    names, missing = ["ours", "ours, gated"], []
    if importlib.util.find_spec("neuralop") is None:
        missing.append("neuraloperator: not installed; pip install 'sciml-fm[bench]'")
    else:
        names.append("neuraloperator")
    if released is None:
        missing.append("released: no checkout of the paper's code given; pass --released PATH")
    else:
        names.append("released")
    return names, missing


def config_of(candidate: str, size: str) -> FNOConfig:
    """Shape of a candidate at one of the paper's sizes."""
    return FNOConfig(CHANNELS, gate_width=128 if candidate == "ours, gated" else 0, **SIZES[size])


def build(candidate: str, size: str, device: torch.device, *, released: Path | None = None, seed: int = 0) -> nn.Module:
    """A candidate with random weights."""
    config = config_of(candidate, size)
    torch.manual_seed(seed)
    if candidate == "neuraloperator":
        model = _neuraloperator(config)
    elif candidate == "released":
        model = _released(config, released)
    else:
        model = FNO(config, stream(seed, "weights"))
    model = model.to(device)
    return Form(model, FORMS[candidate](model)) if candidate in FORMS else model


class Form(nn.Module):
    """Our network, applied in another form."""

    def __init__(self, model: FNO, network: Callable):
        super().__init__()
        self.model, self.network = model, network

    def forward(self, fields: Tensor, conditioning: Conditioning | None = None) -> Tensor:
        """As `FNO.forward`."""
        return apply_together([self.model], [(fields, conditioning)], self.network)[0]


def _neuraloperator(config: FNOConfig) -> nn.Module:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from neuralop.models import FNO as Peer
    # It keeps n // 2 + 1 modes of the real transform's direction: 2 m - 1 asks for the m of the others.
    return Peer(
        n_modes=(2 * config.modes, 2 * config.modes - 1),
        in_channels=config.in_channels,
        out_channels=1,
        hidden_channels=config.width,
        n_layers=config.depth,
        positional_embedding=None,
        lifting_channel_ratio=0,
        projection_channel_ratio=2,
        use_channel_mlp=False,
    )


def _released(config: FNOConfig, folder: Path) -> nn.Module:
    with importing_from(folder):
        peer = importlib.import_module("models.fno").FNN2d
    modes = [config.modes] * config.depth
    layers = [config.width] * (config.depth + 1)
    return peer(modes, modes, fc_dim=2 * config.width, layers=layers, in_dim=config.in_channels, activation="gelu")


def parameters(model: nn.Module) -> int:
    """Number of real parameters; a complex one counts twice."""
    return sum(parameter.numel() * (2 if parameter.is_complex() else 1) for parameter in model.parameters())


def random_batch(candidate: str, batch: int, n: int, device: torch.device, seed: int = 0) -> tuple[tuple, Tensor]:
    """Arguments of a candidate, and solutions.

    The gated network takes the coefficients as numbers, as it is trained; all others take them as maps.
    """
    generator = stream(seed, "batch", batch, n)
    source = torch.randn(batch, 1, n, n, generator=generator).to(device)
    constants = torch.randn(batch, CHANNELS - 1, generator=generator).to(device)
    solution = torch.randn(batch, n, n, generator=generator).to(device)
    if candidate == "ours, gated":
        return (source, Conditioning(constants)), solution
    maps = constants[:, :, None, None].expand(-1, -1, n, n)
    return (torch.cat([source, maps], dim=1),), solution


def training_step(model: nn.Module, arguments: tuple, solution: Tensor) -> Callable[[], None]:
    """One step: forward, the paper's loss, backward, Adam."""
    optimizer = adam(model)
    model.train()

    def step() -> None:
        optimizer.zero_grad(set_to_none=True)
        (model(*arguments)[:, 0] - solution).square().sum(dim=(-2, -1)).mean().backward()
        optimizer.step()

    return step


def adam(model: nn.Module) -> torch.optim.Adam:
    """The fastest Adam of PyTorch that takes the parameters: fused, unless some are complex."""
    fused = not any(parameter.is_complex() for parameter in model.parameters())
    return torch.optim.Adam(model.parameters(), lr=1e-3, fused=True if fused else None)


def inference_step(model: nn.Module, arguments: tuple) -> Callable[[], None]:
    """One forward pass without gradients."""
    model.eval()

    def step() -> None:
        with torch.no_grad():
            model(*arguments)

    return step


def step_work(candidate: str, size: str, n: int, batch: int) -> tuple[float, float]:
    """Floating-point operations and bytes of one training step, counted from the shapes.

    Operations: a product with weights costs three times its forward cost, since backward makes the gradients of input
    and weight; a transform costs twice. Ours transforms by matrices, from the second block on both ways (the lift is
    linear, so the first block takes the transform of the inputs); the peers by FFTs of 2.5 n^2 log2 n^2 operations.
    Pointwise functions and what is done to the few input channels are left out.

    Bytes: each tensor of the step is written once and read once by each operation that takes it, twice that in
    backward, and Adam reads and writes weights, gradients and moments. Caches make it less, copies more: an estimate.
    """
    config = config_of(candidate, size)
    d, m, points = config.width, config.modes, batch * n * n
    hidden = 4.0 * points * d
    depth = config.depth
    if candidate in PEERS:
        transform = 2.5 * n * n * math.log2(n * n) * batch * d
        spectrum = hidden  # half of the modes, complex
        transforms, pointwise = 2 * depth, depth
    else:
        transform = (2 * n * n * 2 * m + 2 * 2 * (m + 1) * n * 2 * m) * batch * d
        spectrum = hidden * 2 * m / n
        transforms, pointwise = 2 * depth - 1, depth - 1
    contraction = 4 * 2 * batch * d * d * 2 * m * m
    blocks = 3 * (depth * contraction + pointwise * 2 * points * d * d) + 2 * transforms * transform
    ends = 3 * 2 * points * (d * 2 * d + 2 * d)
    kept = 4.0 * 2 * batch * d * 2 * m * m
    traffic = depth * (8 * hidden + 4 * spectrum + 4 * kept) + 10 * hidden
    weights = 4.0 * (depth * 4 * m * m * d * d)
    return blocks + ends + _gate_work(config) * batch, 3 * traffic + (3 + 8) * weights


def _gate_work(config: FNOConfig) -> int:
    hidden = config.gate_width
    if not hidden:
        return 0
    return 3 * 2 * hidden * (config.in_channels - 1 + hidden + 3 * config.depth * config.width)
