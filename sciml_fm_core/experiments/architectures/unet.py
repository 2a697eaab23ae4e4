"""A U-Net on the torus: convolutions with circular padding on ever coarser grids and back, with skip connections.

Ronneberger et al., arXiv:1505.04597, with residual blocks and modulated normalisation as in the U-Nets of Gupta &
Brandstetter, arXiv:2209.15616.
"""

from __future__ import annotations

from dataclasses import dataclass
from types import MappingProxyType

import torch
from torch import Tensor, nn
from torch.nn import functional

from sciml_fm_core.models.base import FixedGridModel, ModelConfig
from sciml_fm_core.models.conditioning import Gates, bounded_scale


@dataclass(frozen=True)
class UNetConfig(ModelConfig):
    """Shape of a U-Net.

    Attributes:
        width: channels on the finest grid; each coarser one has `growth` times as many.
        growth: channels of each grid over `width`, from fine to coarse; each has half the points of the one before.
        points: of the finest grid, in each direction.
    """

    width: int = 32
    growth: tuple[int, ...] = (1, 2, 3, 4)
    points: int = 32

    def __post_init__(self):
        super().__post_init__()
        object.__setattr__(self, "growth", tuple(self.growth))  # a list, in the header of a bundle
        if self.width < 1 or not self.growth or min(self.growth) < 1:
            raise ValueError(f"UNetConfig: expected width and growth of at least 1, got {self.width} and {self.growth}")
        if self.points % 2 ** len(self.growth):
            raise ValueError(f"UNetConfig: expected points that halve {len(self.growth)} times, got {self.points}")


class ResidualBlock(nn.Module):
    """Two 3 x 3 convolutions, modulated between them: ``x + conv(gelu(scale * conv(gelu(x)) + shift))``."""

    def __init__(self, inside: int, outside: int):
        super().__init__()
        self.first = nn.Conv2d(inside, outside, 3, padding=1, padding_mode="circular")
        self.second = nn.Conv2d(outside, outside, 3, padding=1, padding_mode="circular")
        self.skip = nn.Conv2d(inside, outside, 1) if inside != outside else nn.Identity()

    def forward(self, hidden: Tensor, modulation: Tensor | None) -> Tensor:
        """Apply to (batch, inside, n, n), with a scale and a shift for each channel, (batch, 2 outside)."""
        inner = self.first(functional.gelu(hidden))
        if modulation is not None:
            scale, shift = modulation[..., None, None].chunk(2, dim=1)
            inner = bounded_scale(scale) * inner + torch.tanh(shift / 2)
        return self.skip(hidden) + self.second(functional.gelu(inner))


class UNet(FixedGridModel):
    """A U-Net whose blocks are modulated by the scalars; the scalars are channels of its input too."""

    architecture = "unet"
    config_type = UNetConfig
    config: UNetConfig
    learning_rate = 2e-3
    sizes = MappingProxyType({"64K": {"width": 8}, "1M": {"width": 32}, "16M": {"width": 128}})

    def __init__(self, config: UNetConfig):
        super().__init__(config)
        widths = [config.width * growth for growth in config.growth]
        self.lift = nn.Conv2d(config.in_channels, widths[0], 3, padding=1, padding_mode="circular")
        self.down = nn.ModuleList(ResidualBlock(a, b) for a, b in zip([widths[0], *widths], widths, strict=False))
        self.up = nn.ModuleList(
            ResidualBlock(coarse + fine, fine) for coarse, fine in zip(widths[:0:-1], widths[-2::-1], strict=True)
        )
        self.output = nn.Conv2d(widths[0], config.out_channels, 1)
        blocks = [*self.down, *self.up]
        self.modulated = [2 * block.second.out_channels for block in blocks]
        scalars = config.in_channels - 1
        self.gates = Gates(scalars, sum(self.modulated), config.gate_width) if config.gate_width else None

    @property
    def points(self):
        return self.config.points

    def on_grid(self, inputs, scalars):
        hidden = self.lift(inputs)
        modulations: list[Tensor | None] = [None] * len(self.modulated)
        if self.gates is not None:
            modulations = list(self.gates(scalars).split(self.modulated, dim=1))
        levels = len(self.down)
        kept = []
        for level, block in enumerate(self.down):
            hidden = block(functional.avg_pool2d(hidden, 2) if level else hidden, modulations[level])
            kept.append(hidden)
        for level, block in enumerate(self.up, 1):
            fine = kept[levels - 1 - level]
            hidden = functional.interpolate(hidden, scale_factor=2.0)
            hidden = block(torch.cat([hidden, fine], dim=1), modulations[levels - 1 + level])
        return self.output(functional.gelu(hidden))
