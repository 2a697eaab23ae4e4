"""Fourier neural operator: truncated spectral convolutions on the torus, optionally gated by the coefficients.

Li et al., arXiv:2010.08895. What a block computes is in `blocks`; here are the parameters, and what a block is told.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import chain
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional

from sciml_fm_core.eager import is_eager, is_ordinary
from sciml_fm_core.physics.spectral import grid_shape

from .base import Model, ModelConfig, are_changed, drawing_from, is_hooked, layers_of, without_autocast
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
from .conditioning import Conditioning, Gates, ModeGates, bounded_scale
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
        margin: share of points added in each direction, for fields that are not periodic, and cut off again.
        fill: what the margin holds: fields ``mirrored`` at both ends, one fading into the other, so that they are
            continuous on the torus; or numbers that are ``learned``, one for each input field.
        point_channels: how many of the last fields scale both branches of each block point by point, by factors
            ``1 + tanh(w c + b)`` in (0, 2) that begin at 1; coefficients that vary in space are such fields.
    """

    width: int = 16
    modes: int = 16
    depth: int = 4
    projection: int | None = None
    mode_gate_width: int = 32
    margin: float = 0.0
    fill: str = "mirrored"
    point_channels: int = 0

    def __post_init__(self):
        super().__post_init__()
        if not 0 <= self.margin <= 1 or self.fill not in ("mirrored", "learned"):
            raise ValueError(
                "FNOConfig: expected a margin from 0 to 1, with a fill mirrored or learned, got "
                f"{self.margin} {self.fill!r}"
            )
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
        """Apply to hidden (ny, nx, batch, d), with complex factors (2 m * m, 2, batch, d) of the result's modes."""
        matrices = fourier_matrices(len(hidden), hidden.shape[1], self.modes, hidden.dtype, hidden.device)
        mixed = mix_modes(analyse(hidden, matrices), self.weight)
        return synthesise(mixed if factors is None else complex_product(mixed, factors), matrices)


class FNO(Model):
    """Fourier neural operator ``(fields, what it is told) -> solutions`` on periodic grids of ny x nx points.

    A 1 x 1 lift to d channels; blocks of a spectral convolution plus a 1 x 1 convolution, with GELU after all but the
    last; 1 x 1 to 2 d channels, GELU, 1 x 1 to those of the solution. No positional channels: they would break
    translation equivariance.

    Args:
        config: shape of the network.
        generator: randomness of the initial weights; the global one where None.
    """

    architecture = "fno"
    config_type = FNOConfig
    config: FNOConfig
    sizes = SIZES
    takes_modes = True
    maps_weights = True

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
        self.output = nn.Linear(projection, config.out_channels)
        learned = config.margin and config.fill == "learned"
        self.margin = nn.Parameter(torch.zeros(config.in_channels)) if learned else None
        gates = config.depth * 3 * d
        self.gates = Gates(config.in_channels - 1, gates, config.gate_width) if config.gate_width else None
        told = config.mode_channels, config.depth, d, config.mode_gate_width
        self.mode_gates = ModeGates(*told) if config.mode_channels else None
        self.point_gates = nn.Linear(config.point_channels, 2 * config.depth * d) if config.point_channels else None
        if generator is not None:
            for layer in self.modules():
                if isinstance(layer, nn.Linear):
                    bound = 1 / math.sqrt(layer.in_features)
                    nn.init.uniform_(layer.weight, -bound, bound, generator=generator)
                    nn.init.uniform_(layer.bias, -bound, bound, generator=generator)
        if self.point_gates is not None and not self.point_gates.weight.is_meta:
            nn.init.zeros_(self.point_gates.weight)
            nn.init.zeros_(self.point_gates.bias)
        self._layers = layers_of(self)

    @classmethod
    def fitted(cls, resolutions):
        """About a million parameters: as many modes as the coarsest grid has, up to 16, and width in their place.

        >>> FNO.fitted([16]), FNO.fitted([128, (64, 48)])
        ({'width': 32, 'modes': 8}, {'width': 16, 'modes': 16})
        """
        modes = min(16, *(min(grid_shape(resolution)) // 2 for resolution in resolutions))
        return {"width": min(64, 256 // modes), "modes": modes}

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

    def coarseness(self):
        """It grows with the fourth power of |k|: fields are smooth, so the matrices of short waves act on little."""
        m = self.config.modes
        ky, kx = torch.cat((torch.arange(m), torch.arange(-m, 0)))[:, None], torch.arange(m)
        off = 0.25 * ((1 + (ky**2 + kx**2).sqrt()) / (1 + m)) ** 4
        return {f"spectral.{layer}.weight": off.reshape(-1, 1, 1) for layer in range(self.config.depth)}

    def forward(self, fields: Tensor, conditioning: Conditioning | None = None) -> Tensor:
        """As `Model.forward`; scalars may also be given as further fields that are constant in space.

        Raises:
            ValueError: on another number of channels, or a grid too coarse for the modes.
        """
        told = self.told(fields, conditioning)
        with without_autocast(fields.device):
            if are_changed(self, self._layers):
                return self.head(self._hidden_by_layers(fields, told))
            return self.solution(fields, told)

    def hidden(self, fields: Tensor, conditioning: Conditioning | None = None) -> Tensor:
        """What `head` takes, (batch, ny, nx, d), for arguments as of `forward`: head(hidden(...)) is forward(...).

        For what has several heads on one trunk, or asks what the last layer sees.
        """
        told = self.told(fields, conditioning)
        with without_autocast(fields.device):
            if are_changed(self, self._layers):
                return self._hidden_by_layers(fields, told)
            hidden = plain_blocks(*self._trunk(fields, told)).permute(2, 0, 1, 3)
            return hidden[:, : fields.shape[-2], : fields.shape[-1]]

    def features(self, hidden: Tensor) -> Tensor:
        """What the last linear layer takes, (batch, ny, nx, p), of `hidden`."""
        return functional.gelu(self.project(hidden))

    def head(self, hidden: Tensor) -> Tensor:
        """Solutions in the scale of the network, (batch, out_channels, ny, nx), of `hidden`."""
        return self.output(self.features(hidden)).permute(0, 3, 1, 2)

    @property
    def is_changed(self):
        return type(self).forward is not FNO.forward or is_hooked(self) or are_changed(self, self._layers)

    def network(self, precision="float32"):
        if precision != "bfloat16":
            return FNO.solution
        return super().network(precision) if self.is_changed else partial(FNO.solution, pointwise=torch.bfloat16)

    def solution(self, fields: Tensor, told: Conditioning, pointwise: torch.dtype | None = None) -> Tensor:
        """`forward` by the matrix products of `blocks`, for layers that are as they were built.

        They run in the fused form on a CPU, unless operations do not run at once (see `is_eager`), the pointwise
        products have a dtype of their own (see `blocks.plain_trunk`), the grid is not square, there are several
        output fields, or factors at each point; and in the plain form elsewhere.
        """
        points, spectrum, blocks, matrices = self._trunk(fields, told)
        head = Head(self.project.weight.T, self.project.bias, self.output.weight.T, self.output.bias)
        usual = self.config.out_channels == 1 and not self.config.point_channels and pointwise is None
        ny, nx = fields.shape[-2:]
        usual = usual and len(points) == points.shape[1] and fields.device.type == "cpu" and is_eager()
        if usual and all(
            map(is_ordinary, (points, spectrum, *head, *chain.from_iterable(block[:-1] for block in blocks)))
        ):
            solution = fused_trunk(points, spectrum, blocks, head, matrices)
        else:
            solution = plain_trunk(points, spectrum, blocks, head, matrices, pointwise)
        return solution[:ny, :nx].permute(2, 3, 0, 1).contiguous()  # losses would be slow on other strides

    def _trunk(self, fields: Tensor, told: Conditioning) -> tuple[Tensor, Tensor, list[Block], FourierMatrices]:
        """What the trunk takes: fields and their spectrum, a block for each layer, matrices of the grid.

        The lift is linear, so it is never applied to a field: the first block's weights and the spectrum of the inputs
        take it up.
        """
        fields = self._with_margin(fields)
        ny, nx = fields.shape[-2:]
        matrices = fourier_matrices(ny, nx, self.config.modes, fields.dtype, fields.device)
        known, unknown = self.lift.weight.split([fields.shape[1], told.scalars.shape[1]], dim=1)
        lifted_mean = functional.linear(told.scalars, unknown, self.lift.bias)
        points = fields.permute(2, 3, 0, 1)  # (y, x, batch, channel)
        spectrum = with_mean(functional.linear(analyse(points, matrices), known), ny * nx * lifted_mean)
        blocks = []
        at_points = self.point_factors(fields)
        for i, (gates, factors) in enumerate(zip(self.block_gates(fields, told), self.mode_factors(told), strict=True)):
            spectral, pointwise = cast(SpectralConvolution, self.spectral[i]), cast(nn.Linear, self.pointwise[i])
            weight: Tensor = pointwise.weight
            mean: Tensor = pointwise.bias
            if i == 0:
                mean, weight = functional.linear(lifted_mean, weight, mean), weight @ known
            spectral_gate, gate, shift = gates
            mean = (mean if gate is None else mean * gate + shift).expand(spectrum.shape[2:])
            blocks.append(Block(spectral.weight, weight.T, mean, spectral_gate, gate, factors, at_points[i]))
        return points, spectrum, blocks, matrices

    def _with_margin(self, fields: Tensor) -> Tensor:
        """Input fields with the margin."""
        if not self.config.margin:
            return fields
        added = [math.ceil(self.config.margin * points) for points in fields.shape[-2:]]
        if self.margin is None:
            return _mirrored(_mirrored(fields, added[0], -2), added[1], -1)
        inside = functional.pad(torch.ones_like(fields[:1, :1]), (0, added[1], 0, added[0]))
        outside = self.margin[: fields.shape[1], None, None] * (1 - inside)
        return functional.pad(fields, (0, added[1], 0, added[0])) + outside

    def _hidden_by_layers(self, fields: Tensor, told: Conditioning) -> Tensor:
        """`hidden` from calls of its layers, one by one: whatever they were exchanged for or have hooked to them."""
        ny, nx = fields.shape[-2:]
        fields = self._with_margin(fields)
        channels = torch.cat([fields, told.scalars[..., None, None].expand(-1, -1, *fields.shape[-2:])], dim=1)
        hidden = self.lift(channels.permute(2, 3, 0, 1))  # (y, x, batch, channel)
        at_points = self.point_factors(fields)
        for i, (gates, factors) in enumerate(zip(self.block_gates(fields, told), self.mode_factors(told), strict=True)):
            given = (hidden,) if factors is None else (hidden, factors)
            convolved, product = self.spectral[i](*given), self.pointwise[i](hidden)
            spectral_gate, gate, shift = gates
            if gate is not None:
                convolved, product = spectral_gate * convolved + shift, gate * product
            if (factors_here := at_points[i]) is not None:
                convolved, product = convolved * factors_here[0], product * factors_here[1]
            hidden = convolved + product
            hidden = functional.gelu(hidden) if i < self.config.depth - 1 else hidden
        return hidden[:ny, :nx].permute(2, 0, 1, 3)

    def block_gates(self, fields: Tensor, told: Conditioning) -> Sequence[tuple]:
        """Spectral and pointwise gates, in (0, 2), and shifts of each block, (batch, d) each; or None of each."""
        depth = self.config.depth
        if self.gates is None:
            return [(None, None, None)] * depth
        maps = fields[:, 1:].mean(dim=(-2, -1))  # of a coefficient that is constant, its value
        gates = self.gates(torch.cat([maps, told.scalars], dim=1)).unflatten(1, (depth, 3, -1))
        spectral, pointwise, shift = gates.permute(2, 1, 0, 3).contiguous()
        return list(zip(bounded_scale(spectral), bounded_scale(pointwise), torch.tanh(shift / 2), strict=True))

    def point_factors(self, fields: Tensor) -> Sequence[tuple[Tensor, Tensor] | None]:
        """Factors at each point of both branches of each block, (ny, nx, batch, d), where it has such gates."""
        if self.point_gates is None:
            return [None] * self.config.depth
        values = fields[:, -self.config.point_channels :].permute(2, 3, 0, 1)
        factors = (1 + torch.tanh(self.point_gates(values))).chunk(2 * self.config.depth, dim=-1)
        return list(zip(factors[::2], factors[1::2], strict=True))

    def widened(self, in_channels: int, point_channels: int) -> FNO:
        """The same function of more fields, of which the new ones, behind the others, begin without effect.

        >>> model = FNO(FNOConfig(1, width=4, modes=2, depth=2))
        >>> fields = torch.randn(1, 3, 8, 8)
        >>> torch.allclose(model.widened(3, 1)(fields), model(fields[:, :1]), atol=1e-6)
        True
        """
        wide = FNO.create(replace(self.config, in_channels=in_channels, point_channels=point_channels))
        state = self.plain().state_dict()
        lift = functional.pad(state["lift.weight"], (0, in_channels - self.config.in_channels))
        wide.load_state_dict(wide.state_dict() | state | {"lift.weight": lift})
        return wide

    def mode_factors(self, told: Conditioning) -> Sequence[Tensor | None]:
        """Complex factors of the modes of each block, (2 m * m, 2, batch, d), where it is told values on modes."""
        if self.mode_gates is None or told.modes is None:
            return [None] * self.config.depth
        m = self.config.modes
        kept = torch.cat([told.modes[:, :m, :m], told.modes[:, -m:, :m]], dim=1)  # in the order of the spectrum
        factors = self.mode_gates(kept.flatten(1, 2).transpose(0, 1).contiguous())
        return factors.permute(2, 0, 3, 1, 4).contiguous().unbind(0)


def _mirrored(fields: Tensor, added: int, dim: int) -> Tensor:
    """Fields with points added behind the last: mirrored there, and fading into what is mirrored at the first."""
    count = fields.shape[dim]
    place = torch.arange(added, device=fields.device)
    at_last, at_first = count - 2 - place, added - place
    weight = ((place + 1) / (added + 1)).to(fields.dtype).view(-1, *[1] * (-1 - dim))
    last, first = (fields.index_select(dim, index.clamp(0, count - 1)) for index in (at_last, at_first))
    return torch.cat([fields, torch.lerp(last, first, weight)], dim=dim)
