"""The splits of a file of fields, and what a card keeps of them, so that test examples stay test examples."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import h5py
import torch
from torch import Tensor

from sciml_fm_core import schema
from sciml_fm_core.files import user_path

from .arrays import ArrayFile
from .fields import FieldsFile
from .given import Rows, check_apart, digest_of_path
from .hdf5 import is_dataset
from .layout import Layout, is_explained, layout_beside
from .splits import SPLITS, stream

HELD_OUT = 0.1
"""Share of the examples of fields to validate on, and to test on, where nothing else is said."""
LEAST_HELD_OUT = 16
"""At least as many, but a fifth of them at most: fewer would measure little, and calibrate no band."""


def open_splits(path: str | Path, layout: Layout | None = None) -> dict[str, Rows]:
    """Fields to train, to validate and to test on: as the layout says, or drawn once with its seed.

    What is not said is drawn from those to train on, a tenth of them each, or more of a few, see `LEAST_HELD_OUT`; of
    trajectories, whole ones are drawn, and of a file of one its last times are held out.

    >>> import tempfile
    >>> import numpy as np
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     np.savez(Path(folder) / "own.npz", a=np.ones((40, 8, 8)), u=np.zeros((40, 8, 8)))
    ...     parts = open_splits(Path(folder) / "own.npz", Layout("a", "u"))
    >>> {name: part.size for name, part in parts.items()}
    {'train': 24, 'validation': 8, 'test': 8}

    Args:
        path: the file.
        layout: what its arrays are; where None, the YAML beside it says.

    Raises:
        ValueError: as `FieldsFile`; if a split is not found, has other channels, or there are too few examples.
    """
    layout = layout or layout_beside(path)
    named = {name: _split_file(path, layout, said) for name, said in layout.splits.items() if isinstance(said, str)}
    found = {name: Rows(one, torch.arange(one.size), name) for name, one in named.items()}
    file = named["train"] if "train" in named else FieldsFile(path, layout)
    count, share = file.size // file.windows, layout.splits.get("train")
    alone = layout.time is not None and layout.time.axis == "only"  # of one trajectory the last times are held out
    if alone:
        order, block = torch.arange(file.size).flip(0), 1
        after = layout.time.steps[1]  # type: ignore[union-attr]
        gap = max(after) - min(after)  # so many examples before those held out have some of their targets
    else:
        order, block, gap = torch.randperm(count, generator=stream(layout.seed, "held out")), file.windows, 0
    count = len(order)

    def rows(chosen: Tensor) -> Tensor:
        return (chosen.sort().values[:, None] * block + torch.arange(block)).flatten()

    default = max(1, round(count * HELD_OUT), min(LEAST_HELD_OUT, count // 5))
    for name in reversed(SPLITS[1:]) if alone else SPLITS[1:]:
        if name not in found:
            own = layout.splits.get(name)
            size = max(1, round(count * own) if isinstance(own, float) else default)
            found[name], order = Rows(file, rows(order[:size]), name), order[size + gap :]
    kept = order[: round(count * share)] if isinstance(share, float) else order
    if not len(kept):
        raise ValueError(f"file {path}: expected examples to train on beside those held out, got {count} in all")
    found["train"] = Rows(file, rows(kept), "train")
    # cards keep the shares, so that the test examples stay the same when the defaults are others
    shares: dict[str, Any] = {name: found[name].size / file.size for name in SPLITS[1:] if name not in named}
    layout = replace(
        layout, splits=layout.splits | shares | ({"train": len(kept) / count} if isinstance(share, float) else {})
    )
    for part in found.values():
        assert isinstance(part.file, FieldsFile)
        part.file.layout = layout
        if part.file.system != file.system:
            got = [*part.file.system.inputs, *part.file.system.outputs]
            raise ValueError(f"file {part.file.path}: expected the channels of those to train on, got {', '.join(got)}")
    check_apart({name: found[name] for name in SPLITS})
    return {name: found[name] for name in SPLITS}


def _split_file(path: str | Path, layout: Layout, said: str) -> FieldsFile:
    """The examples of one split, which a layout says by the group or the ending of their arrays, or by another file."""
    other = user_path(path).parent / user_path(said)
    with ArrayFile(path) as file:
        if any(name.startswith(f"{said}/") or name.endswith(f"_{said}") for name in file.arrays):
            return FieldsFile(path, layout, said)
        if other.exists():
            return FieldsFile(other, layout)
        raise ValueError(
            f"file {path}: splits: expected arrays under {said}/, or that end in _{said}, or a file {said}, got "
            f"{', '.join(list(file.arrays)[:20])}"
        )


def find_layout(path: str | Path, names: Mapping[str, Any], card: Mapping[str, Any] | None = None) -> Layout | None:
    """What the arrays of a file of fields are; None for a dataset, which says all of itself.

    Args:
        path: the file.
        names: what is said of it, as fields of a `Layout`; what is not said is as in the YAML beside the file.
        card: that of an operator, whose layout is taken where there is neither.

    Raises:
        ValueError: if nothing says it, or the file is not readable.
    """
    said = {name: value for name, value in names.items() if value is not None}
    known = _on_cards(card or {})
    if is_explained(path):
        return replace(layout_beside(path), **said)
    if said:
        if known:
            return replace(replace(known[0][1], splits={}, seed=0), **said)
        if not {"inputs", "targets"} <= set(said):
            raise ValueError(f"file {path}: expected names of inputs and of targets, got those of {', '.join(said)}")
        return Layout(**said)
    if is_dataset(path) or (not known and h5py.is_hdf5(user_path(path))):
        return None
    return replace(known[0][1], splits={}, seed=0) if known else layout_beside(path)


def trained_on(path: str | Path, card: Mapping[str, Any]) -> Layout | None:
    """The layout with whose splits an operator was trained on a file of fields, as its card says; None if it was not.

    The file is known by its contents, whatever it is called now.
    """
    cards = _on_cards(card)
    digest = digest_of_path(user_path(path)) if cards else ""
    return next((layout for known, layout in cards if known == digest), None)


def _on_cards(card: Mapping[str, Any]) -> list[tuple[str, Layout]]:
    """Digests and layouts of the files of fields that an operator was trained on, from the last training back."""
    found = []
    while card:
        data = [card.get("downstream_data"), *(card["data"] if isinstance(card.get("data"), list) else [])]
        for one in data:
            if isinstance(one, dict) and "layout" in one:
                found.append((str(one.get("digest")), schema.read(Layout, one["layout"], "card: layout")))
        card = card.get("parent") or card.get("start") or {}
    return found
