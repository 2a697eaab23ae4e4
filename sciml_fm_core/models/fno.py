"""Fourier neural operator: truncated spectral convolutions on the torus, optionally gated by the coefficients.

Li et al., arXiv:2010.08895; released weights of arXiv:2306.00258 load unchanged. What a block computes is in
`blocks`; here are the parameters, and how networks of equal shape are applied together.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional

from sciml_fm_core.eager import is_eager, is_ordinary
from sciml_fm_core.files import user_path

from .base import (
    Model,
    ModelConfig,
    apply_checked,
    are_changed,
    call_module,
    drawing_from,
    is_hooked,
    layers_of,
)
from .blocks import (
    Block,
    FourierMatrices,
    Head,
    analyse,
    complex_product,
    fourier_matrices,
    mix_modes,
    plain_blocks,
    plain_trunk,
    synthesise,
    with_mean,
)
from .conditioning import Conditioning, Gates, ModeGates, bounded_scale, complex_factors
from .fused import fused_trunk


@dataclass(frozen=True)
class FNOConfig(ModelConfig):
    """Shape of a Fourier neural operator.

    Attributes:
        in_channels, gate_width: as in `ModelConfig`; a gate scales both branches of a block by the scalars.
        width: channels d of the hidden fields.
        modes: modes m kept in each direction: ky in [-m, m), kx in [0, m).
        depth: number of blocks.
        projection: hidden channels of the last pointwise network; 2 d where None.
        mode_gate_width: hidden width of the network that makes complex factors of the convolutions' modes from the
            values on them, where there are `mode_channels`.
    """

    width: int = 16
    modes: int = 16
    depth: int = 4
    projection: int | None = None
    mode_gate_width: int = 32

    def __post_init__(self):
        super().__post_init__()
        for name in ("width", "modes", "depth", "mode_gate_width"):
            if getattr(self, name) < 1:
                raise ValueError(f"FNOConfig: expected {name} of at least 1, got {getattr(self, name)}")
        if self.projection is not None and self.projection < 1:
            raise ValueError(f"FNOConfig: expected projection of at least 1, got {self.projection}")

    @property
    def projection_width(self) -> int:
        """Hidden channels of the last pointwise network."""
        return self.projection or 2 * self.width


SIZES: dict[str, dict[str, int]] = {
    "64K": {"width": 16, "modes": 4},
    "256K": {"width": 16, "modes": 8},
    "1M": {"width": 16, "modes": 16},
    "16M": {"width": 32, "modes": 32},
    "256M": {"width": 128, "modes": 32},
}
"""Widths and modes of the paper's four model sizes and of 256K, for laptops; named by their number of parameters."""


class SpectralConvolution(nn.Module):
    """Linear map of the channels of each kept mode: ``v_hat(k) = u_hat(k) W(k)``, other modes removed.

    The weight has shape (2, 2 m * m, d, d): real and imaginary part, mode (ky, kx) with ky = 0 .. m-1, -m .. -1, input
    channel, output channel. It is random on each mode at first, or ``alike`` on all of them.
    """

    def __init__(self, width: int, modes: int, generator: torch.Generator | None = None, *, alike: bool = False):
        super().__init__()
        self.modes = modes
        count = 2 * modes * modes
        self.weight = nn.Parameter(torch.empty(2, count, width, width))
        if not self.weight.is_meta:  # a network that is only declared: PyTorch would import its compiler to compute it
            drawn = torch.randn(2, 1 if alike else count, width, width, generator=generator)
            self.weight.data.copy_(drawn / math.sqrt(2 * width))

    def forward(self, hidden: Tensor, factors: Tensor | None = None) -> Tensor:
        """Apply to hidden (n, n, batch, d), with complex factors of the modes of the result (2 m * m, 2, batch, d)."""
        matrices = fourier_matrices(hidden.shape[0], self.modes, hidden.dtype, hidden.device)
        mixed = mix_modes(analyse(hidden.unsqueeze(3), matrices), self.weight.unsqueeze(2))
        mixed = mixed if factors is None else complex_product(mixed, factors.unsqueeze(3))
        return synthesise(mixed, matrices).squeeze(3)


class FNO(Model):
    """Fourier neural operator ``(source, what it is told) -> solution`` on n x n periodic grids.

    A 1 x 1 lift to d channels; blocks of a spectral convolution plus a 1 x 1 convolution, with GELU after all but the
    last; 1 x 1 to 2 d channels, GELU, 1 x 1 to one. No positional channels: they would break translation equivariance.

    Args:
        config: shape of the network.
        generator: randomness of the initial weights; the global one where None.
    """

    architecture = "fno"
    config_type = FNOConfig
    config: FNOConfig
    sizes = SIZES
    takes_modes = True

    def __init__(self, config: FNOConfig, generator: torch.Generator | None = None):
        super().__init__(config)
        d, projection = config.width, config.projection_width
        self.lift = nn.Linear(config.in_channels, d)
        # Told what each mode is, the network begins with the same rule for all of them: what one learns serves all.
        alike = config.mode_channels > 0
        self.spectral = nn.ModuleList(
            SpectralConvolution(d, config.modes, generator, alike=alike) for _ in range(config.depth)
        )
        self.pointwise = nn.ModuleList(nn.Linear(d, d) for _ in range(config.depth))
        self.project = nn.Linear(d, projection)
        self.output = nn.Linear(projection, 1)
        gates = config.depth * 3 * d
        self.gates = Gates(config.in_channels - 1, gates, config.gate_width) if config.gate_width else None
        told = config.mode_channels, config.depth, d, config.mode_gate_width
        self.mode_gates = ModeGates(*told) if config.mode_channels else None
        if generator is not None:
            for layer in self.modules():
                if isinstance(layer, nn.Linear):
                    bound = 1 / math.sqrt(layer.in_features)
                    nn.init.uniform_(layer.weight, -bound, bound, generator=generator)
                    nn.init.uniform_(layer.bias, -bound, bound, generator=generator)
        self._layers = layers_of(self)

    @classmethod
    def create(cls, config, generator=None):
        if generator is None:
            return cls(config)
        with drawing_from(torch.Generator()):
            return cls(config, generator)

    @property
    def smallest_grid(self):
        return max(4, 2 * self.config.modes)

    @property
    def mode_points(self):
        """One more mode than it keeps: the Nyquist mode of a grid, where odd derivatives are zero, is none of them."""
        return 2 * self.config.modes + 2

    def forward(self, fields: Tensor, conditioning: Conditioning | None = None) -> Tensor:
        """As `Model.forward`; scalars may also be given as further fields that are constant in space.

        Raises:
            ValueError: on another number of channels, or a grid too coarse for the modes.
        """
        network = _by_layers if are_changed(self._layers) else network_of
        return apply_checked([self], fields, conditioning, network)[0]

    def hidden(self, fields: Tensor, conditioning: Conditioning | None = None) -> Tensor:
        """What `head` takes, (batch, n, n, d), for arguments as of `forward`: head(hidden(...)) is forward(...).

        For what has several heads on one trunk, or asks what the last layer sees.
        """
        network = _hidden_by_layers if are_changed(self._layers) else partial(network_of, hidden=True)
        return apply_checked([self], fields, conditioning, network)[0]

    def features(self, hidden: Tensor) -> Tensor:
        """What the last linear layer takes, (batch, n, n, p), of `hidden`."""
        return functional.gelu(self.project(hidden))

    def head(self, hidden: Tensor) -> Tensor:
        """Solutions in the scale of the network, (batch, 1, n, n), of `hidden`."""
        return self.output(self.features(hidden)).permute(0, 3, 1, 2)

    @property
    def is_changed(self):
        return type(self).forward is not FNO.forward or is_hooked(self) or are_changed(self._layers)

    def network(self, precision="float32"):
        if precision != "bfloat16":
            return network_of
        return super().network(precision) if self.is_changed else partial(network_of, pointwise=torch.bfloat16)

    @classmethod
    def apply_members(cls, models, fields, conditioning, network):
        """On a GPU all at once, where one batched product replaces many that are too small to fill it; on a CPU one
        after the other, where each has the cache for itself (five members at once take 1.6 times as long there)."""
        if network in (call_module, _by_layers, _hidden_by_layers):
            return super().apply_members(models, fields, conditioning, network)
        config, scalars, maps = models[0].config, conditioning.scalars, conditioning.fields
        if maps is not None:
            maps = maps if maps.ndim == 5 else maps.unsqueeze(0)
            both = max(len(maps), len(fields))
            fields = torch.cat([fields.expand(both, *fields.shape[1:]), maps.expand(both, *maps.shape[1:])], dim=2)
        scalars = scalars if scalars.ndim == 3 else scalars.unsqueeze(0)
        modes = conditioning.modes
        if modes is not None:
            modes = modes if modes.ndim == 5 else modes.unsqueeze(0)
        matrices = fourier_matrices(fields.shape[-1], config.modes, fields.dtype, fields.device)
        members = [
            {f"{path}{name}": getattr(module, name) for module, path, *_, names in model._layers for name in names}
            for model in models
        ]
        if _at_once(fields.device):
            return network(config, _stack(members), matrices, fields, scalars, modes)
        outputs = [
            network(config, _stack([member]), matrices, *(_of_member(given, i) for given in (fields, scalars, modes)))
            for i, member in enumerate(members)
        ]
        return torch.cat(outputs)

    @classmethod
    def from_released(cls, weights: dict[str, Tensor] | str | Path) -> FNO:
        """Model from weights of the paper's released code.

        Args:
            weights: its state dict, or the path of one of its checkpoints (read as tensors only, never unpickled).

        Raises:
            ValueError: if the keys or shapes are not those of that code.
        """
        if isinstance(weights, str | Path):
            weights = _read_released(user_path(weights))
        state = {key.removeprefix("module."): torch.as_tensor(value) for key, value in weights.items()}
        try:
            depth = sum(key.endswith(".weights1") for key in state)
            first = state["sp_convs.0.weights1"]
            config = FNOConfig(
                in_channels=state["fc0.weight"].shape[1],
                width=state["fc0.weight"].shape[0],
                modes=first.shape[2],
                depth=depth,
                projection=state["fc1.weight"].shape[0],
            )
            converted = {"lift.weight": state["fc0.weight"], "lift.bias": state["fc0.bias"]}
            for i in range(depth):
                positive, negative = state[f"sp_convs.{i}.weights1"], state[f"sp_convs.{i}.weights2"]
                if positive.is_complex():
                    positive, negative = torch.view_as_real(positive), torch.view_as_real(negative)
                both = torch.cat([positive, negative], dim=2)  # (in, out, ky, kx, re/im)
                converted[f"spectral.{i}.weight"] = both.permute(4, 2, 3, 0, 1).flatten(1, 2).contiguous()
                converted[f"pointwise.{i}.weight"] = state[f"ws.{i}.weight"].squeeze(-1)
                converted[f"pointwise.{i}.bias"] = state[f"ws.{i}.bias"]
            for ours, theirs in (("project", "fc1"), ("output", "fc2")):
                converted[f"{ours}.weight"], converted[f"{ours}.bias"] = (
                    state[f"{theirs}.weight"],
                    state[f"{theirs}.bias"],
                )
            model = cls(config)
            model.load_state_dict(converted)
        except (KeyError, IndexError, RuntimeError) as error:
            raise ValueError(
                f"released weights: expected fc0, sp_convs.i.weights1/2, ws.i, fc1, fc2 of one width; {error}"
            ) from error
        return model


def _hidden_by_layers(model: FNO, fields: Tensor, conditioning: Conditioning) -> Tensor:
    """`FNO.hidden` from calls of its layers, one by one: whatever they were exchanged for or have hooked to them."""
    (scalars, modes, maps), n, depth = conditioning, fields.shape[-1], model.config.depth
    fields = fields if maps is None else torch.cat([fields, maps], dim=1)
    channels = torch.cat([fields, scalars[..., None, None].expand(-1, -1, n, n)], dim=1)
    hidden = model.lift(channels.permute(2, 3, 0, 1))  # (y, x, batch, channel)
    gates: Sequence = [None] * depth
    if model.gates is not None:
        told = torch.cat([fields[:, 1:].mean(dim=(-2, -1)), scalars], dim=-1)
        gates = model.gates(told).unflatten(-1, (depth, 3, -1)).unbind(1)
    factors: Sequence = [()] * depth
    if model.mode_gates is not None and modes is not None:
        made = model.mode_gates(_kept(modes[None], model.config.modes)[:, :, 0])
        factors = [(own.transpose(1, 2),) for own in made.unbind(2)]
    for i in range(depth):
        convolved, product = model.spectral[i](hidden, *factors[i]), model.pointwise[i](hidden)
        if gates[i] is not None:
            spectral, pointwise, shift = gates[i].unbind(1)
            convolved = bounded_scale(spectral) * convolved + torch.tanh(shift / 2)
            product = bounded_scale(pointwise) * product
        hidden = convolved + product
        hidden = functional.gelu(hidden) if i < depth - 1 else hidden
    return hidden.permute(2, 0, 1, 3)


def _by_layers(model: FNO, fields: Tensor, conditioning: Conditioning) -> Tensor:
    return model.head(_hidden_by_layers(model, fields, conditioning))


def _of_member(values: Tensor | None, number: int) -> Tensor | None:
    """Values of one member, or those that all share, with the axis of members."""
    return values if values is None or len(values) == 1 else values[number : number + 1]


def _kept(values: Tensor, modes: int) -> Tensor:
    """Values (members, batch, p, p // 2 + 1, c) on the modes that spectral convolutions keep, in their order:
    (2 m * m, batch, members, c)."""
    kept = torch.cat([values[:, :, :modes, :modes], values[:, :, -modes:, :modes]], dim=2)
    return kept.flatten(2, 3).permute(2, 1, 0, 3).contiguous()


def _at_once(device: torch.device) -> bool:
    return device.type != "cpu"


def _stack(members: list[dict[str, Tensor]]) -> dict[str, Tensor]:
    """Parameters of all members in one tensor each; the member stands where the batched products want it."""
    stacked = {}
    for name, first in members[0].items():
        axis = 2 if name.startswith("spectral") else 0
        stacked[name] = (
            first.unsqueeze(axis) if len(members) == 1 else torch.stack([member[name] for member in members], axis)
        )
    return stacked


def network_of(
    config: FNOConfig,
    parameters: dict[str, Tensor],
    matrices: FourierMatrices,
    inputs: Tensor,
    constants: Tensor,
    modes: Tensor | None = None,
    pointwise: torch.dtype | None = None,
    hidden: bool = False,
) -> Tensor:
    """The Fourier neural operator as a function of its stacked parameters, see `FNO.apply_members`.

    With ``hidden``, what its head takes, (members, batch, n, n, d).

    The blocks run in the fused form on a CPU, unless operations do not run at once (see `is_eager`) or the pointwise
    products have a dtype of their own (see `blocks.plain_trunk`), and in the plain form elsewhere. The lift is linear,
    so it is never applied to a field: the first block's weights and the spectrum of the inputs take it up.
    """
    fields, constants = inputs.permute(3, 4, 1, 0, 2), constants.transpose(0, 1)  # (y, x, batch, member, channel), ...

    lift = parameters["lift.weight"]
    known, unknown = lift.split([fields.shape[-1], constants.shape[-1]], dim=-1)
    lifted_mean = _linear(constants, unknown, parameters["lift.bias"])
    spectrum = with_mean(_linear(analyse(fields, matrices), known), inputs.shape[-1] ** 2 * lifted_mean)
    gates: Sequence = [(None, None, None)] * config.depth
    if config.gate_width:
        maps = inputs[:, :, 1:].mean(dim=(-2, -1)).transpose(0, 1)  # a coefficient map is constant: its value
        gates = list(zip(*gates_of(config, parameters, torch.cat([maps, constants], dim=-1)), strict=True))
    mode_gates: Sequence = [None] * config.depth if modes is None else mode_gates_of(config, parameters, modes)
    blocks = []
    for i, (spectral_gate, gate, shift) in enumerate(gates):
        weight, mean = parameters[f"pointwise.{i}.weight"], parameters[f"pointwise.{i}.bias"].unsqueeze(0)
        if i == 0:
            mean, weight = _linear(lifted_mean, weight, mean), torch.bmm(weight, known)
        mean = (mean if gate is None else mean * gate + shift).expand(*spectrum.shape[2:])
        spectral = parameters[f"spectral.{i}.weight"]
        blocks.append(Block(spectral, weight.transpose(1, 2), mean, spectral_gate, gate, mode_gates[i]))
    if hidden:
        return plain_blocks(fields, spectrum, blocks, matrices, pointwise).permute(3, 2, 0, 1, 4)
    project, output = (parameters[f"{name}.weight"].transpose(1, 2) for name in ("project", "output"))
    head = Head(project, parameters["project.bias"], output, parameters["output.bias"])
    ordinary = is_eager() and all(map(is_ordinary, (inputs, constants, modes, *parameters.values())))
    if inputs.device.type == "cpu" and ordinary and pointwise is None:
        solution = fused_trunk(fields, spectrum, blocks, head, matrices)
    else:
        solution = plain_trunk(fields, spectrum, blocks, head, matrices, pointwise)
    return solution.permute(3, 2, 0, 1).contiguous().unsqueeze(2)  # losses would be slow on other strides


def _linear(features: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """Each member's linear layer (member, out, in) on features (..., member or 1, in): (..., member, out)."""
    if len(weight) == features.shape[-2] == 1:  # no copies of the values on thousands of modes
        return functional.linear(features, weight[0], None if bias is None else bias[0])
    product = torch.einsum("...ki,koi->...ko", features.expand(*features.shape[:-2], len(weight), -1), weight)
    return product if bias is None else product + bias


def gates_of(config: FNOConfig, parameters: dict[str, Tensor], constants: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Spectral and pointwise gates, in (0, 2), and shifts of all blocks, each (depth, batch, member, d)."""
    gates = _layers("gates", parameters, constants).unflatten(-1, (config.depth, 3, config.width))
    spectral, pointwise, shift = gates.permute(3, 2, 0, 1, 4).contiguous()
    return bounded_scale(spectral), bounded_scale(pointwise), torch.tanh(shift / 2)


def mode_gates_of(config: FNOConfig, parameters: dict[str, Tensor], modes: Tensor) -> Sequence[Tensor]:
    """Complex factors of the modes of each block, (2 m * m, 2, batch, member, d), from values on all modes of a grid,
    (member or 1, batch, p, p // 2 + 1, c)."""
    factors = complex_factors(_layers("mode_gates", parameters, _kept(modes, config.modes)), config.depth)
    return factors.permute(3, 0, 4, 1, 2, 5).contiguous().unbind(0)


def _layers(name: str, parameters: dict[str, Tensor], features: Tensor) -> Tensor:
    """What each member's `Gates` or `ModeGates` makes of features (..., member or 1, in): (..., member, out)."""
    layers = [(parameters[f"{name}.layers.{i}.weight"], parameters[f"{name}.layers.{i}.bias"]) for i in (0, 2, 4)]
    for weight, bias in layers[:-1]:
        features = functional.gelu(_linear(features, weight, bias))
    return _linear(features, *layers[-1])


def _read_released(path: Path) -> dict[str, Tensor]:
    if not path.is_file():
        raise ValueError(f"released checkpoint: no file {path}")
    try:
        checkpoint = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:
        raise ValueError(f"released checkpoint {path}: not a file of tensors only ({type(error).__name__})") from error
    state = checkpoint.get("model_state", checkpoint) if isinstance(checkpoint, dict) else None
    if not isinstance(state, dict):
        raise ValueError(f"released checkpoint {path}: expected a state dict or one under 'model_state'")
    return state
