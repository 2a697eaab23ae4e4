"""Batch files in YAML, and the markers of their runs."""

from __future__ import annotations

import json
import random
import tempfile
from pathlib import Path

import yaml

from sciml_fm_core.study.batch_file import plan

from ._mutate import damaged, mutated, mutated_json, refused

NAME = "batches"
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
TEXTS = (
    "[" * 5000, "a: &a [*a]", "- &a {runs: *a}", "runs: [{notebook: tiny.ipynb, parameters: &a {number: *a}}]",
    "!!python/object/apply:os.system ['true']", "runs: !!timestamp x", "runs: 2020-13-45", "runs: !!bool x",
    "runs: !!int x", "runs: !!binary x", "? [1, 2]\n: 3", "runs: [{notebook: tiny.ipynb, grid: {1: [2]}}]",
    "{: }", "- - - -", "%YAML 9.9\n---\nruns: []", "a: b: c", "\t", "runs: [{notebook: tiny.ipynb, number: 0x}]",
    "a: &a [x,x,x,x,x,x,x,x,x]\n" + "".join(
        f"{chr(98 + i)}: &{chr(98 + i)} [{','.join([f'*{chr(97 + i)}'] * 9)}]\n" for i in range(9)
    ) + "runs: *j\n",
    "runs: [{notebook: tiny.ipynb, grid: {" + ",".join(
        f"{name}: [{','.join(map(str, range(300)))}]" for name in ("number", "rate", "name", "items")
    ) + "}}]",
    "runs: [{notebook: '" + "x" * 5000 + "'}]", "runs: [{notebook: \"a\\0b\"}]", "runs: [{notebook: '/dev/zero'}]",
    "runs: [{notebook: '.'}]", "runs: " + "9" * 5000, "runs: [{notebook: tiny.ipynb, parameters: {number: " + "9" * 4000
    + "}}]", "runs: [{notebook: tiny.ipynb, parameters: {number: 2020-01-01}}]", "x" * 2_000_000,
    "runs: [{notebook: tiny.ipynb, parameters: {number: !!set {a, b}}}]", "<<: 3", "runs: [{<<: [1]}]",
)  # fmt: skip


def prepare() -> None:
    """Import what reads batches, before memory is limited."""
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "tiny.ipynb").write_text(json.dumps(NOTEBOOK), encoding="utf-8")
        (Path(folder) / "batch.yaml").write_text(yaml.safe_dump(BATCH), encoding="utf-8")
        plan(Path(folder) / "batch.yaml", Path(folder) / "out")


def attack(seed: int, folder: Path) -> str | None:
    """Plan a changed batch, with a changed notebook or marker now and then."""
    rng, path = random.Random(seed), folder / "batch.yaml"
    notebook = folder / "tiny.ipynb"
    notebook.write_text(json.dumps(NOTEBOOK), encoding="utf-8")
    text = yaml.safe_dump(BATCH)
    path.write_text(text, encoding="utf-8")
    how = rng.randrange(5)
    if how == 0:
        path.write_bytes(damaged(text.encode(), rng))
    elif how == 1:
        path.write_text(rng.choice(TEXTS), encoding="utf-8")
    elif how == 2:
        marker = plan(path, folder / "out")[0].marker
        marker.parent.mkdir()
        marker.write_text(mutated_json(json.dumps({"status": "done", "error": None}), rng), errors="replace")
    elif how == 3:
        notebook.write_text(mutated_json(json.dumps(NOTEBOOK), rng), encoding="utf-8", errors="replace")
    else:
        path.write_text(yaml.safe_dump(mutated(BATCH, rng)), encoding="utf-8", errors="replace")
    found, wrong = refused(lambda: plan(path, folder / "out"), lines=200)
    if found is not None and any(run.status not in ("pending", "done", "failed") for run in found):
        return "a run whose status is none"
    return wrong if wrong is None or not wrong.startswith("ValueError that is no clear line") else None
