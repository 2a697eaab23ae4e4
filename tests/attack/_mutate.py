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

from sciml_fm_core.training.checkpoints import CheckpointError

STRANGE: tuple[Callable[[], Any], ...] = (
    lambda: None, lambda: True, lambda: 0, lambda: -1, lambda: 1.5, lambda: "", lambda: "text", lambda: [], lambda: {},
    lambda: [1, "a", None], lambda: {"a": 1}, lambda: 10**6, lambda: 10**12, lambda: 10**18, lambda: 10**30,
    lambda: -(10**30), lambda: 1e308, lambda: float("nan"), lambda: float("inf"), lambda: "x" * 100_000,
    lambda: "\x00", lambda: "../../etc/passwd", lambda: "\n\r\u2028", lambda: [0] * 10_000, lambda: nested(40),
    lambda: nested(100), lambda: {"parent": {"parent": {}}}, lambda: 2**63, lambda: 2**64, lambda: -0.0,
)  # fmt: skip


def nested(depth: int) -> list:
    """Lists inside of each other."""
    value: list = []
    for _ in range(depth):
        value = [value]
    return value


def places(value: Any, path: tuple = ()) -> list[tuple]:
    """Paths of all values inside of a value."""
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return [found for key, item in items for found in ((*path, key), *places(item, (*path, key)))]


def mutated(value: Any, rng: random.Random) -> Any:
    """A copy with one to three values replaced, dropped, doubled, exchanged or renamed."""
    value = copy.deepcopy(value)
    for _ in range(rng.choice((1, 1, 1, 2, 3))):
        known = places(value)
        if not known:
            return rng.choice(STRANGE)()
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
            owner[key] = rng.choice(STRANGE)()
    return value


def damaged(content: bytes, rng: random.Random) -> bytes:
    """A copy with flipped bits, a part cut off, exchanged, overwritten or repeated."""
    changed = bytearray(content)
    how = rng.randrange(5)
    if how <= 1 and changed:
        for _ in range(rng.choice((1, 1, 2, 8))):
            place = rng.randrange(len(changed)) if how else rng.randrange(min(len(changed), 4096))
            changed[place] ^= 1 << rng.randrange(8)
    elif how == 2:
        del changed[rng.randrange(len(changed) + 1) :]
    elif how == 3 and changed:
        start = rng.randrange(len(changed))
        end = min(len(changed), start + rng.choice((1, 8, 100, 4096)))
        changed[start:end] = rng.choice((bytes(end - start), b"\xff" * (end - start), rng.randbytes(end - start)))
    else:
        start = rng.randrange(len(changed) + 1)
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


def opened(path: Path) -> tuple[dict, dict]:
    """Header and tensors of a safetensors file."""
    with safe_open(path, framework="pt") as file:
        return json.loads(file.metadata()["header"]), {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118


def written(path: Path, text: str, tensors: dict) -> None:
    """A safetensors file with a text as its header."""
    save_file({key: value.clone().contiguous() for key, value in tensors.items()}, path, metadata={"header": text})


def mutated_tensors(tensors: dict, rng: random.Random) -> dict:
    """Other names, shapes, types or values of one tensor."""
    found = dict(tensors)
    key = rng.choice(sorted(found))
    value = found.pop(key)
    how = rng.randrange(8)
    if how == 0:
        return found
    if how == 1:
        found[rng.choice(("", "x", key + ".weight", key + ":scale", "9." + key))] = value
    elif how == 2:
        found[key] = value.reshape(-1)[: max(0, value.numel() - 1)]
    elif how == 3:
        found[key] = value.to(rng.choice((torch.int64, torch.bool, torch.float64, torch.int8, torch.bfloat16)))
    elif how == 4:
        found[key] = value.float().fill_(rng.choice((float("nan"), float("inf"), 1e38)))
    elif how == 5:
        found[key] = value.unsqueeze(0)
    elif how == 6:
        found |= {key: value, rng.choice(("more", "0.more", "optimizer.99.step", "optimizer.a.b.c")): torch.zeros(3)}
    else:
        other = rng.choice(sorted(found))
        found[key], found[other] = found[other], value
    return found


def refused(function: Callable[[], Any], *, lines: int = 1) -> tuple[Any, str | None]:
    """What a call returns, and what is wrong with its error; both None where a ValueError in one line refuses it."""
    try:
        return function(), None
    except ValueError as error:
        text = str(error)
        if type(error) not in (ValueError, CheckpointError):
            return None, f"{type(error).__name__}: {text[:200]}"
        if not text or text.count("\n") >= lines or len(text) > 1500:
            return None, f"ValueError that is no clear line: {text[:200]!r} ({len(text)} characters)"
        return None, None
