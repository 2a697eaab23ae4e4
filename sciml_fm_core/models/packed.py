"""Weights in eight bits, for bundles of which many ship: what an operator differs by from the one it was tuned from."""

from __future__ import annotations

import torch
from torch import Tensor

BLOCK = 16
"""Numbers of a whole operator that are shares of the same largest one; of earlier versions' differences, too."""
COARSE_BLOCK = 64
"""The same of a difference to a parent, and of an ensemble, whose members make up for each other."""
SMALL = 2**15
"""Tensors of fewer numbers are one block in sixteen bits: they matter most, and take next to no room."""

State = dict[str, Tensor]


def check_block(block: int) -> None:
    """Raise ValueError on a block of no numbers."""
    if block < 1:
        raise ValueError(f"expected a block of at least 1, got {block}")


def pack(state: State, parent: State | None = None, *, block: int = BLOCK, small: int = SMALL) -> State:
    """Pack weights, or their differences to those of a parent, as shares in int8 of the largest of each block of them.

    A number is off by 1 / 254 of the largest of its block at most, whatever its size; in small tensors by 1 / 2000.

    >>> weights = {"w": 1e-30 * torch.linspace(-1, 1, 2**15)}
    >>> float((unpack(pack(weights))["w"] - weights["w"]).abs().max()) < 1e-30 / 250
    True
    """
    packed = {}
    for key, value in state.items():
        value = value.detach().cpu().float()
        numbers = value if parent is None else value - parent[key].cpu().float()
        is_small = numbers.numel() < small
        size = max(1, numbers.numel()) if is_small else block
        blocks = torch.nn.functional.pad(numbers.flatten(), (0, -numbers.numel() % size)).unflatten(0, (-1, size))
        packed[f"{key}:largest"] = largest = blocks.abs().amax(dim=1)
        shares = (blocks / torch.where(largest > 0, largest, 1)[:, None]).flatten()[: numbers.numel()]
        shares = shares.half() if is_small else (127 * shares).round().clamp(-127, 127).to(torch.int8)
        packed[f"{key}:shares"] = shares.reshape(numbers.shape)
    return packed


_FORMS = {("shares", torch.int8), ("shares", torch.float16), ("numbers", torch.int8), ("half", torch.float16)}
"""Names and types of what is packed; the last two by earlier versions, with float16 scales or with none."""


def unpack(packed: State, parent: State | None = None, *, block: int = BLOCK) -> State:
    """Inverse of `pack` with the same block, to its rounding; also of what earlier versions packed.

    Raises:
        ValueError: if these are no packed weights, or have other shapes than the parent's.
    """
    state = {}
    for key, numbers in packed.items():
        name, _, part = key.rpartition(":")
        if part in ("largest", "scale"):
            continue
        if (part, numbers.dtype) not in _FORMS:
            got = f"{key[:80]!r} {numbers.dtype}"
            raise ValueError(f"packed: expected shares in int8 or float16 and the largest of each block, got {got}")
        value = numbers.float()
        if part != "half":
            scale_name, scale_type = ("largest", torch.float32) if part == "shares" else ("scale", torch.float16)
            scale = packed.get(f"{name}:{scale_name}", torch.empty(0))
            size = block if numbers.dtype == torch.int8 else max(1, numbers.numel())
            if scale.dtype != scale_type or scale.shape != (-(-numbers.numel() // size),):
                raise ValueError(f"packed: expected {name[:80]!r} to have a {scale_name} for every {size} numbers")
            value = value / 127 if (part, numbers.dtype) == ("shares", torch.int8) else value
            value = value * scale.float().repeat_interleave(size)[: numbers.numel()].reshape(numbers.shape)
        if parent is not None and (name not in parent or parent[name].shape != value.shape):
            got = f"{name[:80]!r} of shape {tuple(value.shape)}"
            raise ValueError(f"packed: expected the tensors of the parent, got {got}")
        state[name] = value if parent is None else value + parent[name].cpu().float()
    return state
