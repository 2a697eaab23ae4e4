"""Mutations of values and bytes that know their structure, each a function of a random stream."""

from __future__ import annotations

import copy
import json
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from safetensors.torch import save_file

from sciml_fm_core.digests import with_digest
from sciml_fm_core.training.checkpoints import CheckpointError


def _nested(depth: int) -> list:
    return [_nested(depth - 1)] if depth else []


def strange(rng: random.Random) -> Any:
    """What nobody expects: other types, numbers beyond sense, long texts and deep lists."""
    return copy.deepcopy(rng.choice(_STRANGE))


_STRANGE: tuple[Any, ...] = (
    None, True, 0, -1, 1.5, "", "text", [], {}, [1, "a", None], {"a": 1}, 10**6, 10**12, 10**18, 10**30, -(10**30),
    1e308, float("nan"), float("inf"), "x" * 100_000, "\x00", "../../etc/passwd", "\n\r\u2028", [0] * 10_000,
    _nested(40), _nested(100), {"parent": {"parent": {}}}, 2**63, 2**64, -0.0,
)  # fmt: skip


def _places(value: Any, path: tuple = ()) -> list[tuple]:
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return [found for key, item in items for found in ((*path, key), *_places(item, (*path, key)))]


def mutated(value: Any, rng: random.Random) -> Any:
    """A copy with one to three values replaced, dropped, repeated or renamed."""
    value = copy.deepcopy(value)
    for _ in range(rng.choice((1, 1, 1, 2, 3))):
        known = _places(value)
        if not known:
            return strange(rng)
        *path, key = rng.choice(known)
        owner = value
        for step in path:
            owner = owner[step]
        how = rng.randrange(6)
        if how == 0:
            del owner[key]
        elif how == 1 and isinstance(owner, dict):
            owner[rng.choice(("", "x" * 1000, "format", "\n"))] = owner.pop(key)
        elif how == 2 and isinstance(owner[key], int | float) and not isinstance(owner[key], bool):
            owner[key] = rng.choice((-owner[key], owner[key] * 10**9, owner[key] + 1, str(owner[key]), [owner[key]]))
        elif how == 3 and isinstance(owner[key], list):
            owner[key] = owner[key] * rng.choice((2, 3, 1000))
        else:
            owner[key] = strange(rng)
    return value


def damaged(content: bytes, rng: random.Random) -> bytes:
    """A copy with flipped bits, a part cut off, overwritten or put in."""
    changed = bytearray(content or b" ")
    how, start = rng.randrange(5), rng.randrange(len(changed))
    if how <= 1:
        for _ in range(rng.choice((1, 1, 2, 8))):
            place = rng.randrange(len(changed)) if how else rng.randrange(min(len(changed), 4096))
            changed[place] ^= 1 << rng.randrange(8)
    elif how == 2:
        del changed[start:]
    elif how == 3:
        size = min(len(changed) - start, rng.choice((1, 8, 100, 4096)))
        changed[start : start + size] = rng.choice((bytes(size), b"\xff" * size, rng.randbytes(size)))
    else:
        changed[start:start] = rng.randbytes(rng.choice((1, 7, 64)))
    return bytes(changed)


def mutated_json(text: str, rng: random.Random) -> str:
    """A JSON text with another value, or of another form."""
    how = rng.randrange(8)
    if how == 0:
        return damaged(text.encode(), rng).decode(errors="replace")
    if how == 1:
        return rng.choice(
            ("", "[" * 200_000, '{"a":' * 100_000, "null", "3", "[]", '"text"', "\ufeff" + text, "9" * 5000)
        )
    return json.dumps(mutated(json.loads(text), rng))


def signed(text: str, rng: random.Random, tensors: dict | None = None) -> str:
    """A JSON text with the digest that it had, one that fits, as of somebody who knows how, or none."""
    how = rng.randrange(3)
    try:
        values = json.loads(text)
        if how and isinstance(values, dict):
            values.pop("digest", None)
            return json.dumps(with_digest(values, tensors) if how == 1 else values)
    except (ValueError, RecursionError):
        pass
    return text


def change_tensors(path: Path, rng: random.Random) -> bool:
    """Change a safetensors file, and say whether by its bytes alone, so that only what was written may come out."""
    how = rng.randrange(3)
    if how == 0:
        path.write_bytes(damaged(path.read_bytes(), rng))
        return True
    with safe_open(path, framework="pt") as file:
        text, tensors = file.metadata()["header"], {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
    if how == 1:
        text = mutated_json(text, rng)
    else:
        tensors = _mutated_tensors(tensors, rng)
    written = {key: value.clone().contiguous() for key, value in tensors.items()}
    save_file(written, path, metadata={"header": signed(text, rng, tensors)})
    return False


def _mutated_tensors(tensors: dict, rng: random.Random) -> dict:
    """Other names, shapes, types or values of one tensor."""
    key = rng.choice(sorted(tensors))
    value, rest = tensors[key], {name: tensor for name, tensor in tensors.items() if name != key}
    dtype = rng.choice((torch.int64, torch.bool, torch.float64, torch.int8, torch.bfloat16))
    return rng.choice((
        lambda: rest,
        lambda: rest | {rng.choice(("", "x", key + ".weight", key + ":scale", "9." + key)): value},
        lambda: rest | {key: value.reshape(-1)[: max(0, value.numel() - 1)]},
        lambda: rest | {key: value.to(dtype)},
        lambda: rest | {key: value.float().fill_(rng.choice((float("nan"), float("inf"), 1e38)))},
        lambda: rest | {key: value.unsqueeze(0)},
        lambda: tensors | {rng.choice(("more", "0.more", "optimizer.99.step", "optimizer.a.b.c")): torch.zeros(3)},
        lambda: tensors | {key: tensors[other := rng.choice(sorted(tensors))], other: value},
    ))()  # fmt: skip


def refused(function: Callable[[], Any], *, lines: int = 1, longest: int = 1500) -> tuple[Any, str | None]:
    """What a call returns, and what is wrong with its error; both None where a ValueError in one line refuses it."""
    try:
        return function(), None
    except ValueError as error:
        text = str(error)
        if type(error) not in (ValueError, CheckpointError):
            return None, f"{type(error).__name__}: {text[:200]}"
        if not text or text.count("\n") >= lines or len(text) > longest:
            return None, f"ValueError that is no clear line: {text[:200]!r} ({len(text)} characters)"
        return None, None
