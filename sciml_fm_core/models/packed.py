"""Weights in eight bits and fewer, for bundles of which many ship: what an operator differs by from its parent."""

from __future__ import annotations

import lzma
import math
from collections.abc import Mapping

import numpy as np
import torch
from torch import Tensor

BLOCK = 16
"""Numbers that are shares of the same largest one."""
COARSE_BLOCK = 64
"""The same of an ensemble, whose members make up for each other; of earlier versions' differences, too."""
SMALL = 2**15
"""Tensors of fewer numbers are one block in sixteen bits: they matter most, and take next to no room."""
SMALL_SHARE = 256
"""Tensors that have less than such a part of all weights are not stored in float16."""

State = dict[str, Tensor]


def check_block(block: int) -> None:
    """Raise ValueError on a block of no numbers."""
    if block < 1:
        raise ValueError(f"expected a block of at least 1, got {block}")


def pack(
    state: State,
    parent: State | None = None,
    *,
    block: int = BLOCK,
    small: int = SMALL,
    coarseness: State | None = None,
) -> State:
    """Pack weights, or their differences to those of a parent, as shares in int8 of the largest of each block of them.

    A number is off by 1 / 254 of the largest of its block at most, whatever its size; in small tensors by 1 / 2000.
    Tensors with a coarseness are off by at most that part of their root mean square where this is more, and
    are compressed, which leaves about five bits of a number.

    >>> weights = {"w": 1e-30 * torch.linspace(-1, 1, 2**15)}
    >>> float((unpack(pack(weights))["w"] - weights["w"]).abs().max()) < 1e-30 / 250
    True

    Args:
        state: weights by name.
        parent: those that the differences are to.
        block: how many numbers share a largest one.
        small: tensors of fewer numbers are kept in sixteen bits.
        coarseness: by name, shape as the weights or broadcast to it: see `Model.coarseness`.
    """
    packed = {}
    for key, value in state.items():
        value = value.detach().cpu().float()
        numbers = value if parent is None else value - parent[key].cpu().float()
        is_small = numbers.numel() < small
        coarse = None if is_small or coarseness is None else coarseness.get(key)
        size = max(1, numbers.numel()) if is_small else block
        blocks = _in_blocks(numbers, size)
        largest = blocks.abs().amax(dim=1)
        if coarse is not None:
            least = (254 * numbers.square().mean().sqrt() * coarse).expand(numbers.shape)
            largest = torch.maximum(largest, _in_blocks(least, size).amin(dim=1))
        shares = (blocks / torch.where(largest > 0, largest, 1)[:, None]).flatten()[: numbers.numel()]
        shares = shares.half() if is_small else (127 * shares).round().clamp(-127, 127).to(torch.int8)
        if coarse is not None:
            content = largest.numpy().astype("<f4").tobytes() + shares.numpy().tobytes()
            packed[f"{key}:zipped"] = torch.tensor(bytearray(lzma.compress(content)), dtype=torch.uint8)
            continue
        packed |= {f"{key}:largest": largest, f"{key}:shares": shares.reshape(numbers.shape)}
    return packed


def _in_blocks(numbers: Tensor, size: int) -> Tensor:
    """Numbers as rows of so many, the last filled up with zeros."""
    return torch.nn.functional.pad(numbers.flatten(), (0, -numbers.numel() % size)).unflatten(0, (-1, size))


def unzipped(packed: State, shapes: Mapping[str, tuple[int, ...]], block: int = BLOCK) -> State:
    """What `pack` gave, with the largest numbers and shares of those that were compressed.

    Raises:
        ValueError: if what is compressed is no weight of one of the shapes.
    """
    zipped = [key for key in packed if key.endswith(":zipped") and packed[key].dtype == torch.uint8]
    return {key: value for key, value in packed.items() if key not in zipped} | {
        part: value
        for name in (key.removesuffix(":zipped") for key in zipped)
        for part, value in _unzipped(name, packed[f"{name}:zipped"], shapes.get(name), block).items()
    }


def _unzipped(name: str, zipped: Tensor, shape: tuple[int, ...] | None, block: int) -> State:
    """Largest numbers and shares of a compressed tensor, of which the network knows the shape."""
    count = 0 if shape is None else math.prod(shape)
    blocks = -(-count // block)
    try:
        file = lzma.LZMADecompressor(memlimit=2**26)
        content = file.decompress(zipped.numpy().tobytes(), 4 * blocks + count + 1)
    except lzma.LZMAError:
        content = b""
    if shape is None or len(content) != 4 * blocks + count:
        raise ValueError(f"packed: expected {name[:80]!r} to be compressed numbers of a weight of the network")
    largest = torch.from_numpy(np.frombuffer(content, "<f4", blocks).astype(np.float32))
    shares = torch.from_numpy(np.frombuffer(content, np.int8, count, 4 * blocks).copy())
    return {f"{name}:largest": largest, f"{name}:shares": shares.reshape(shape)}


_FORMS = {("shares", torch.int8), ("shares", torch.float16), ("numbers", torch.int8), ("half", torch.float16)}
"""Names and types of what is packed; the last two by earlier versions, with float16 scales or with none."""


def unpack(
    packed: State,
    parent: State | None = None,
    *,
    block: int = BLOCK,
    shapes: Mapping[str, tuple[int, ...]] | None = None,
) -> State:
    """Inverse of `pack` with the same block, to its rounding; also of what earlier versions packed.

    Args:
        packed: what `pack` gave.
        parent: the same as there.
        block: the same as there.
        shapes: of the network's weights, for those that are compressed.

    Raises:
        ValueError: if these are no packed weights, or have other shapes than the parent's.
    """
    packed, state = unzipped(packed, shapes or {}, block), {}
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


def halved_names(state: State, where: str) -> list[str]:
    """Weights to be kept in float16, all but small ones, checked to keep three digits of the largest."""
    total = sum(value.numel() for value in state.values())
    names = [key for key, value in state.items() if SMALL_SHARE * value.numel() >= total]
    for key in names:
        value, largest = state[key], state[key].abs().max()
        if not (value.half().float() - value.float()).abs().max() <= largest / 1000:
            raise ValueError(
                f"{where}: {key!r}: expected weights that float16 holds, whose numbers go from 6e-5 to 65,504, got a "
                f"largest one of {largest:.3g}; save it without half=True; nothing was written"
            )
    return names
