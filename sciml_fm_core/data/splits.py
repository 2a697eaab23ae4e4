"""Random streams and the splits drawn from them."""

from __future__ import annotations

import hashlib

import torch

from sciml_fm_core.physics.examples import Examples
from sciml_fm_core.physics.spectral import Resolution
from sciml_fm_core.physics.tasks import Task
from sciml_fm_core.schema import check_choice, takes_numpy

CHUNK = 256
SPLITS = ("train", "validation", "test")


@takes_numpy
def stream(seed: int, *names: str | int, device: torch.device | str = "cpu") -> torch.Generator:
    """Independent random stream for a seed and any names (split, chunk, step, ...)."""
    text = "/".join(str(name) for name in (seed, *names))
    digest = hashlib.blake2b(text.encode(), digest_size=8).digest()
    return torch.Generator(device=device).manual_seed(int.from_bytes(digest, "little") >> 1)


@takes_numpy
def draw_split(
    task: Task, split: str, count: int, *, seed: int = 0, resolution: Resolution = 128, device=None
) -> Examples:
    """First examples of a split, as `generate` would write them.

    >>> few, more = (draw_split(Task.parse("SYS-1(1,5)"), "train", count, resolution=16) for count in (2, 4))
    >>> torch.equal(few.source, more.source[:2])
    True

    Raises:
        ValueError: on an unknown split or a count below 1.
    """
    check_split(split, count)
    parts = [
        task.sample(CHUNK, resolution, stream(seed, task.label, split, start // CHUNK), device=device)
        for start in range(0, count, CHUNK)
    ]
    return Examples(*(torch.cat(tensors)[:count] for tensors in zip(*parts, strict=True)))


def check_split(split: str, count: int) -> None:
    check_choice("split", split, SPLITS)
    if count < 1:
        raise ValueError(f"count: expected at least 1 example, got {count}")
