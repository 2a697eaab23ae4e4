"""Records of runs, in JSON and in tables, by themselves and on the studies page."""

from __future__ import annotations

import json
import os
import random
import sys
from pathlib import Path

from sciml_fm_core.digests import with_digest
from sciml_fm_core.study.records import read_record, read_table, shipped_tables, write_record, write_table

from ._mutate import damaged, mutated, mutated_json, refused

NAME = "records"
sys.path.append(str(Path(__file__).resolve().parents[2] / "dashboards"))
_known: list[dict] = []


def prepare() -> None:
    """A few records as they ship, of every kind."""
    for path in shipped_tables().values():
        _known.extend(read_table(path)[:8])


def attack(seed: int, folder: Path) -> str | None:
    """Read a changed record or table, and list the folder that it is in."""
    from explorer import records as page

    page.shipped_tables = dict  # those are not attacked
    if not _known:
        prepare()
    rng = random.Random(seed)
    wrong = _table(rng, folder) if rng.random() < 0.4 else _record(rng, folder)
    if wrong:
        return wrong
    os.environ[page.RECORDS_VARIABLE] = str(folder)
    sources, problems = page.find_sources(folder)
    if any("\n" in problem for problem in problems):
        return f"a problem of several lines: {problems[0][:200]!r}"
    for source in sources.values():
        page.by_architecture(source.records)
    return None


def _record(rng: random.Random, folder: Path) -> str | None:
    record, path = rng.choice(_known), folder / "own.json"
    write_record(record, path)
    if damage := rng.random() < 0.4:
        path.write_bytes(damaged(path.read_bytes(), rng))
    else:
        text = mutated_json(json.dumps(record), rng)
        try:
            values = json.loads(text)
            text = json.dumps(with_digest(values)) if rng.random() < 0.5 and isinstance(values, dict) else text
        except (ValueError, RecursionError):
            pass
        path.write_text(text, encoding="utf-8", errors="replace")
    found, wrong = refused(lambda: read_record(path))
    if found is not None and damage and found != record and {**found, **record} == found and len(found) == len(record):
        return "damaged bytes are read as another record"
    return wrong


def _table(rng: random.Random, folder: Path) -> str | None:
    records, path = rng.sample(_known, 4), folder / "own" / "records.csv"
    path.parent.mkdir()
    write_table(records, path)
    if rng.random() < 0.5:
        path.write_bytes(damaged(path.read_bytes(), rng))
    else:
        found = mutated(records, rng)
        rows = [row for row in found if isinstance(row, dict) and row] if isinstance(found, list) else []
        if rows:
            write_table(rows, path)
    return refused(lambda: read_table(path))[1]
