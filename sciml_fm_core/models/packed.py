"""Weights in eight bits, for bundles of which many ship: what an operator differs by from the one it was tuned from."""

from __future__ import annotations

import torch
from torch import Tensor

BLOCK = 16
"""Numbers that share one scale."""
SMALL = 2**15
"""Tensors of fewer numbers are kept in sixteen bits: they matter most, and take next to no room."""

State = dict[str, Tensor]


def pack(state: State, parent: State | None = None, *, block: int = BLOCK, small: int = SMALL) -> State:
    """Weights, or their differences to those of a parent, as int8 in blocks with a float16 scale each.

    A number is off by about 1 / 254 of the largest of its block, or less; those of small tensors are float16.

    >>> weights = {"w": torch.linspace(-1, 1, 2**15)}
    >>> float((unpack(pack(weights))["w"] - weights["w"]).abs().max()) < 1 / 250
    True
    """
    packed = {}
    for key, value in state.items():
        value = value.detach().cpu().float()
        numbers = value if parent is None else value - parent[key].cpu().float()
        if numbers.numel() < small:
            packed[f"{key}:half"] = numbers.half()
            continue
        blocks = torch.nn.functional.pad(numbers.flatten(), (0, -numbers.numel() % block)).unflatten(0, (-1, block))
        scale = (blocks.abs().amax(dim=1) / 127).half()
        safe = torch.where(scale > 0, scale.float(), 1)
        eight = (blocks / safe[:, None]).round().clamp(-127, 127).to(torch.int8)
        packed[f"{key}:numbers"] = eight.flatten()[: numbers.numel()].reshape(value.shape)
        packed[f"{key}:scale"] = scale
    return packed


def unpack(packed: State, parent: State | None = None, *, block: int = BLOCK) -> State:
    """Inverse of `pack` with the same block, to its rounding.

    Raises:
        ValueError: if these are no packed weights, or have other shapes than the parent's.
    """
    state = {}
    for key, numbers in packed.items():
        name, _, part = key.rpartition(":")
        if part == "scale" and f"{name}:numbers" in packed:
            continue
        value = numbers.float()
        if part == "numbers" and numbers.dtype == torch.int8:
            scale = packed.get(f"{name}:scale", numbers[:0])
            if scale.dtype != torch.float16 or scale.shape != (-(-numbers.numel() // block),):
                raise ValueError(f"packed: expected {name[:80]!r} to have a float16 scale for every {block} numbers")
            value *= scale.float().repeat_interleave(block)[: numbers.numel()].reshape(numbers.shape)
        elif part != "half" or numbers.dtype != torch.float16:
            got = f"{key[:80]!r} {numbers.dtype}"
            raise ValueError(f"packed: expected numbers in int8, their scale or float16, got {got}")
        if parent is not None and (name not in parent or parent[name].shape != value.shape):
            got = f"{name[:80]!r} of shape {tuple(value.shape)}"
            raise ValueError(f"packed: expected the tensors of the parent, got {got}")
        state[name] = value if parent is None else value + parent[name].cpu().float()
    return state
