"""A vision transformer on the torus: patches as tokens, attention between all of them, and patches back.

Dosovitskiy et al., arXiv:2010.11929, with modulated normalisation as in diffusion transformers (Peebles & Xie,
arXiv:2212.09748). Attention knows positions only by rotations of its queries and keys through whole turns of the
torus, so that a shift of the source by patches shifts the solution.
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
class ViTConfig(ModelConfig):
    """Shape of a vision transformer.

    Attributes:
        width: channels of a token.
        depth: number of blocks.
        heads: of the attention; the width is a multiple of four times their number.
        patches: tokens in each direction, an even number.
        patch: points of a patch in each direction; the network's own grid has patches * patch points.
    """

    width: int = 128
    depth: int = 4
    heads: int = 4
    patches: int = 8
    patch: int = 4

    def __post_init__(self):
        super().__post_init__()
        if min(self.width, self.depth, self.heads, self.patches, self.patch) < 1 or self.width % (4 * self.heads):
            raise ValueError(
                "ViTConfig: expected positive sizes and a width that is a multiple of 4 heads, "
                f"got width {self.width} and {self.heads} heads"
            )


class TransformerBlock(nn.Module):
    """Attention, then a pointwise network, each on modulated, normalised tokens and added to them."""

    def __init__(self, config: ViTConfig):
        super().__init__()
        width, self.heads = config.width, config.heads
        self.norms = nn.ModuleList(nn.LayerNorm(width, elementwise_affine=False) for _ in range(2))
        self.query_key_value, self.merge = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.pointwise = nn.Sequential(nn.Linear(width, 4 * width), nn.GELU(), nn.Linear(4 * width, width))

    def forward(self, tokens: Tensor, turns: Tensor, modulation: Tensor) -> Tensor:
        """Apply to (batch, tokens, width), with the turns of `_turns` and scales and shifts (batch, 4, 1, width)."""
        first, first_shift, second, second_shift = modulation.unbind(1)
        inner = bounded_scale(first) * self.norms[0](tokens) + first_shift
        query, key, value = self.query_key_value(inner).unflatten(-1, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)
        attended = functional.scaled_dot_product_attention(_rotate(query, turns), _rotate(key, turns), value)
        tokens = tokens + self.merge(attended.transpose(1, 2).flatten(2))
        return tokens + self.pointwise(bounded_scale(second) * self.norms[1](tokens) + second_shift)


class ViT(FixedGridModel):
    """A vision transformer whose blocks are modulated by the scalars; the scalars are channels of its input too."""

    architecture = "vit"
    config_type = ViTConfig
    config: ViTConfig
    learning_rate = 2e-3
    sizes = MappingProxyType(
        {"64K": {"width": 32, "depth": 3}, "1M": {"width": 128, "depth": 4}, "16M": {"width": 384, "depth": 8}}
    )

    def __init__(self, config: ViTConfig):
        super().__init__(config)
        values = config.patch**2
        self.embed = nn.Linear(config.in_channels * values, config.width)
        self.blocks = nn.ModuleList(TransformerBlock(config) for _ in range(config.depth))
        self.norm, self.output = nn.LayerNorm(config.width), nn.Linear(config.width, config.out_channels * values)
        outputs, scalars = config.depth * 4 * config.width, config.in_channels - 1
        self.gates = Gates(scalars, outputs, config.gate_width) if config.gate_width else None
        self.register_buffer("turns", _turns(config), persistent=False)

    @property
    def points(self):
        return self.config.patches * self.config.patch

    def on_grid(self, inputs, scalars):
        config = self.config
        tokens = self.embed(functional.pixel_unshuffle(inputs, config.patch).flatten(2).transpose(1, 2))
        modulation = tokens.new_zeros(config.depth, 1, 4, 1, config.width)
        if self.gates is not None:
            gates = self.gates(scalars).view(-1, config.depth, 4, 1, config.width)
            modulation = torch.tanh(gates / 2).transpose(0, 1)
        for block, own in zip(self.blocks, modulation, strict=True):
            tokens = block(tokens, self.turns, own)
        values = self.output(self.norm(tokens)).transpose(1, 2).unflatten(2, (config.patches, config.patches))
        return functional.pixel_shuffle(values, config.patch)


def _turns(config: ViTConfig) -> Tensor:
    """Cosines and sines (2, tokens, width / heads / 2) of turns by whole wavenumbers, half along y and half along x."""
    pairs = config.width // config.heads // 4
    with torch.device("cpu"):  # real also where the network is only declared
        wavenumbers = torch.arange(pairs) % (config.patches // 2) + 1
        position = 2 * torch.pi * torch.arange(config.patches, dtype=torch.float32) / config.patches
    angle = position[:, None] * wavenumbers
    along_y = angle[:, None].expand(-1, config.patches, -1)
    angles = torch.cat([along_y, along_y.transpose(0, 1)], dim=-1)
    return torch.stack([angles.cos(), angles.sin()]).flatten(1, 2)


def _rotate(vectors: Tensor, turns: Tensor) -> Tensor:
    """Rotate pairs of components (..., tokens, 2 p) by the angles of their token: products depend on differences."""
    cosine, sine = turns
    first, second = vectors.chunk(2, dim=-1)
    return torch.cat([cosine * first - sine * second, sine * first + cosine * second], dim=-1)
