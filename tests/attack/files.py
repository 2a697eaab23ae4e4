"""Files that are not as they were written: each kind of `FILES` is written, changed and read again."""

from __future__ import annotations

import json
import os
import random
import sys
import tempfile
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import torch
import yaml

from sciml_fm_core import (
    FNO,
    DatasetFile,
    Examples,
    FNOConfig,
    FreshBatches,
    Operator,
    Task,
    TrainConfig,
    fit,
    generate,
    load_operator,
)  # fmt: skip
from sciml_fm_core.data.hdf5 import ATTRIBUTES
from sciml_fm_core.data.splits import CHUNK
from sciml_fm_core.experiments.uncertainty.ensemble import Ensemble, load_ensemble
from sciml_fm_core.models.normalization import fit_normalization
from sciml_fm_core.study.batch_file import plan, status_of
from sciml_fm_core.study.records import read_record, read_table, shipped_tables, write_record, write_table

from ._mutate import change_tensors, damaged, mutated, mutated_json, refused, signed, strange

sys.path.append(str(Path(__file__).resolve().parents[2] / "dashboards"))
TASK = Task.parse("SYS-1(1,5)")


@dataclass(frozen=True)
class Kind:
    """How a file is made, changed and read.

    Attributes:
        write: write a good file.
        change: change it, and say whether by its bytes alone, so that only what was written may come out.
        read: what is in it, to be compared by ``==``; raises ValueError where it refuses.
        list: what pages make of the folder, which may raise nothing; the problems that they tell.
        lines: of an error message.
    """

    write: Callable[[Path, random.Random], object]
    change: Callable[[Path, random.Random], bool]
    read: Callable[[Path], Any]
    list: Callable[[Path], list[str]] = lambda folder: []
    lines: int = 1
    name: str = "own.safetensors"


def attack(kind: Kind, seed: int, folder: Path) -> str | None:
    """What is wrong with reading one changed file, None where it is refused or right."""
    rng, path = random.Random(seed), folder / kind.name
    kind.write(path, rng)
    before = kind.read(path)
    same = kind.change(path, rng)
    if any("\n" in problem for problem in kind.list(folder)):
        return "a problem of several lines"
    found, wrong = refused(lambda: kind.read(path), lines=kind.lines, longest=1500 * kind.lines)
    return "damaged bytes are read as something else" if found is not None and same and found != before else wrong


# Operators, ensembles and checkpoints ---------------------------------------------------------------------------------


@cache
def _operator(kind: str = "dimensionless", seed: int = 0) -> Operator:
    """An operator of a few hundred weights."""
    normalization = fit_normalization(kind, [TASK], count=16)
    config = FNOConfig(
        in_channels=normalization.in_channels, mode_channels=normalization.mode_channels, width=4, modes=2, depth=2,
        gate_width=4 if kind == "dimensionless" else 0,
    )  # fmt: skip
    model = FNO.create(config, torch.Generator().manual_seed(seed))
    card = {"tasks": [TASK.label], "recipe": kind, "examples_seen": 96, "errors": {TASK.label: 0.1}}
    return Operator(model, normalization, card | {"kind": "fine-tuned", "parent": dict(card), "curve": [[1, 0.5]]})


def _predict(operator) -> torch.Tensor:
    examples = TASK.sample(2, 16, torch.Generator().manual_seed(0))
    return operator.predict(examples.source, examples.coefficients, TASK.system)


def _write_bundle(path: Path, rng: random.Random) -> None:
    operator = _operator(rng.choice(("dimensionless", "paper", "symbol")))
    operator.save(path, half=rng.random() < 0.2, packed=rng.random() < 0.3)


def _list_bundles(folder: Path) -> list[str]:
    from explorer.bundles import FOLDER_VARIABLE, find_bundles

    os.environ[FOLDER_VARIABLE] = str(folder)
    found, problems = find_bundles()
    for bundle in found.values():
        if not bundle.shipped:
            _ = bundle.label, bundle.history, bundle.ensemble, bundle.history_on(TASK.system)
    return problems


def _write_ensemble(path: Path, rng: random.Random) -> None:
    members = [_operator(seed=seed) for seed in range(3)]
    Ensemble(members, {"tasks": ["SYS-1(1,5)"], "seeds": [0, 1, 2]}).save(path, packed=rng.random() < 0.3)


def _resume(path: Path) -> list:
    """Train, or resume a finished training; an operator whose checkpoint is refused stays as it was."""
    operator = _operator.__wrapped__()
    before = {key: value.clone() for key, value in operator.model.state_dict().items()}
    try:
        config = TrainConfig(steps=2, learning_rate=1e-3)
        fit(operator, FreshBatches([TASK], 2, resolution=16), config, checkpoint=path)
    except ValueError:
        after = operator.model.state_dict()
        assert all(torch.equal(value, after[key]) for key, value in before.items()), "refused, but changed"
        raise
    assert all(value.isfinite().all() for value in operator.model.state_dict().values()), "resumes to NaN"
    return [value.tolist() for value in operator.model.state_dict().values()]


@cache
def _checkpoint() -> bytes:
    with tempfile.TemporaryDirectory() as folder:
        _resume(Path(folder) / "state")
        return (Path(folder) / "state").read_bytes()


# Data sets ------------------------------------------------------------------------------------------------------------


class _Stopped(Exception):
    pass


def _stop(*_) -> None:
    raise _Stopped


@cache
def _dataset() -> bytes:
    with tempfile.TemporaryDirectory() as folder:
        return generate(TASK, Path(folder) / "own.h5", 6, resolution=8).read_bytes()


def _change_dataset(path: Path, rng: random.Random) -> bool:
    if rng.randrange(4):
        path.write_bytes(damaged(path.read_bytes(), rng))
        return True
    with h5py.File(path, "r+") as file:
        how, name = rng.randrange(4), rng.choice(("fields", "tensor", "dial"))
        shape = file[name].shape
        if how == 0:
            file[name][tuple(map(rng.randrange, shape))] = rng.choice((np.nan, np.inf, -np.inf, 1e30, 0))
        elif how == 1:
            key = rng.choice(sorted(ATTRIBUTES))
            try:
                file.attrs[key] = strange(rng)
            except (TypeError, ValueError, OSError, OverflowError, RuntimeError):
                file.attrs.pop(key, None)  # what HDF5 does not hold at all
        else:
            del file[name]
            if how == 2:
                wanted = rng.choice((shape[1:], (*shape, 2), (0, *shape[1:]), tuple(7 for _ in shape), (1,), shape))
                file.create_dataset(name, wanted, rng.choice(("f8", "f2", "i4", "S3", "c8", "?", ">f4", "u8")))
            elif rng.random() < 0.5:
                huge = tuple(size * rng.choice((1, 1, 10**3, 10**6)) for size in shape)
                file.create_dataset(name, huge, "f4", chunks=tuple(min(size, 8) for size in huge))
    return False


def _read_dataset(path: Path) -> list:
    with DatasetFile(path) as file:
        file.take(torch.tensor([file.size - 1, 0]))
        found: Examples = file.take(slice(6))
    assert all(part.isfinite().all() for part in found), "read with NaN or infinity"
    return [part.tolist() for part in found]


def _write_unfinished(path: Path, rng: random.Random) -> None:
    with suppress(_Stopped):
        generate(TASK, path, 2 * CHUNK, resolution=8, callback=_stop)


def _change_unfinished(path: Path, rng: random.Random) -> bool:
    path.unlink()
    _write_unfinished(path, rng)
    partial, progress = path.with_name("own.h5.partial"), path.with_name("own.h5.progress")
    if rng.random() < 0.7:
        progress.write_text(mutated_json(progress.read_text(), rng), encoding="utf-8", errors="replace")
    else:
        partial.write_bytes(damaged(partial.read_bytes(), rng))
    return True


# Records and batches --------------------------------------------------------------------------------------------------


@cache
def _records() -> list[dict]:
    return [record for path in shipped_tables().values() for record in read_table(path)[:8]]


def _change_record(path: Path, rng: random.Random) -> bool:
    if rng.random() < 0.4:
        path.write_bytes(damaged(path.read_bytes(), rng))
    else:
        text = signed(mutated_json(path.read_text(encoding="utf-8"), rng), rng)
        path.write_text(text, encoding="utf-8", errors="replace")
    return False  # a digest that is damaged away leaves one of an earlier version


def _change_table(path: Path, rng: random.Random) -> bool:
    if rng.random() < 0.5:
        path.write_bytes(damaged(path.read_bytes(), rng))
    else:
        found = mutated(rng.sample(_records(), 4), rng)
        rows = [row for row in found if isinstance(row, dict) and row] if isinstance(found, list) else []
        write_table(rows or _records()[:1], path)
    return False


def _list_records(folder: Path) -> list[str]:
    from explorer.studies import records as page

    page.shipped_tables = dict  # those are not attacked
    os.environ[page.RECORDS_VARIABLE] = str(folder)
    sources, problems = page.find_sources(folder)
    for source in sources.values():
        page.by_architecture(source.records)
    return problems


BATCH = {
    "defaults": {"notebook": "tiny.ipynb", "parameters": {"number": 1, "output": "results/{run}"}},
    "runs": [
        {"parameters": {"rate": 0.5, "items": [1, 2]}, "grid": {"name": ["a", "b"], "flag": [True, False]}},
        {"notebook": "tiny.ipynb", "gpus": 0},
    ],
}
CELL = "number: int = 3\nrate: float = 1e-3\nname = 'x'\nflag = False\nitems = (1, 2)\noutput = ''"
NOTEBOOK = {
    "nbformat": 4, "nbformat_minor": 5, "metadata": {"kernelspec": {"name": "python3", "language": "python"}},
    "cells": [
        {"cell_type": "code", "id": "a", "metadata": {"tags": ["parameters"]}, "source": CELL, "outputs": [],
         "execution_count": None},
    ],
}  # fmt: skip
_RUN = "runs: [{notebook: tiny.ipynb, "
TEXTS = (
    "[" * 5000, "a: &a [*a]", "- &a {runs: *a}", _RUN + "parameters: &a {number: *a}}]", "runs: !!bool x", "\t",
    "!!python/object/apply:os.system ['true']", "runs: !!timestamp x", "runs: 2020-13-45", "runs: !!int x", "<<: 3",
    "runs: !!binary x", "? [1, 2]\n: 3", _RUN + "grid: {1: [2]}}]", "{: }", "- - - -", "%YAML 9.9\n---\nruns: []",
    "a: b: c", _RUN + "number: 0x}]", "runs: [{<<: [1]}]", "runs: [{notebook: '/dev/zero'}]", "runs: " + "9" * 5000,
    "a: &a [x,x,x,x,x,x,x,x,x]\n" + "".join(
        f"{chr(98 + i)}: &{chr(98 + i)} [{','.join([f'*{chr(97 + i)}'] * 9)}]\n" for i in range(9)
    ) + "runs: *j\n",
    _RUN + "grid: {" + ",".join(
        f"{name}: [{','.join(map(str, range(300)))}]" for name in ("number", "rate", "name", "items")
    ) + "}}]",
    "runs: [{notebook: '" + "x" * 5000 + "'}]", "runs: [{notebook: \"a\\0b\"}]", "runs: [{notebook: '.'}]",
    _RUN + "parameters: {number: " + "9" * 4000 + "}}]", _RUN + "parameters: {number: 2020-01-01}}]", "x" * 2_000_000,
    _RUN + "parameters: {number: !!set {a, b}}}]",
)  # fmt: skip


def _write_batch(path: Path, rng: random.Random) -> None:
    path.with_name("tiny.ipynb").write_text(json.dumps(NOTEBOOK), encoding="utf-8")
    path.write_text(yaml.safe_dump(BATCH), encoding="utf-8")


def _change_batch(path: Path, rng: random.Random) -> bool:
    how = rng.randrange(5)
    if how == 0:
        path.write_bytes(damaged(path.read_bytes(), rng))
    elif how == 1:
        path.write_text(rng.choice(TEXTS), encoding="utf-8")
    elif how == 2:
        marker = plan(path, path.parent / "out")[0].marker
        marker.parent.mkdir()
        marker.write_text(mutated_json('{"status": "done", "error": null}', rng), errors="replace")
    elif how == 3:
        text = mutated_json(json.dumps(NOTEBOOK), rng)
        path.with_name("tiny.ipynb").write_text(text, encoding="utf-8", errors="replace")
    else:
        path.write_text(yaml.safe_dump(mutated(BATCH, rng)), encoding="utf-8", errors="replace")
    return False


def _read_batch(path: Path) -> list:
    statuses = [status_of(run) for run in plan(path, path.parent / "out")]
    assert set(statuses) <= {"pending", "done", "failed"}, "a run whose status is none"
    return statuses


FILES = {
    "bundles": Kind(_write_bundle, change_tensors, lambda path: _predict(load_operator(path)).tolist(), _list_bundles),
    "ensembles": Kind(_write_ensemble, change_tensors, lambda path: _predict(load_ensemble(path)).mean.tolist()),
    "checkpoints": Kind(lambda path, _: path.write_bytes(_checkpoint()), change_tensors, _resume, name="state"),
    "datasets": Kind(
        lambda path, _: path.write_bytes(_dataset()), _change_dataset, _read_dataset, name="own.h5",
    ),
    "unfinished": Kind(
        _write_unfinished, _change_unfinished, lambda path: _read_dataset(
            path if path.exists() else generate(TASK, path, 2 * CHUNK, resolution=8)
        ), name="own.h5",
    ),
    "records": Kind(
        lambda path, rng: write_record(rng.choice(_records()), path), _change_record, read_record, _list_records,
        name="own.json",
    ),
    "tables": Kind(
        lambda path, rng: write_table(rng.sample(_records(), 4), path), _change_table, read_table, _list_records,
        name="records.csv",
    ),
    "batches": Kind(_write_batch, _change_batch, _read_batch, lines=200, name="batch.yaml"),
}  # fmt: skip
