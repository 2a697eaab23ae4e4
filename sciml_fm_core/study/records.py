"""Records of runs in files: one JSON file each, and tables of many."""

from __future__ import annotations

import csv
import io
import json
import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from sciml_fm_core import schema
from sciml_fm_core.digests import check_digest, with_digest
from sciml_fm_core.files import atomic_path, user_path, write_json

# Records --------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class AnyRecord:
    """What every record holds; one of a `CustomRun` has its ``kind`` and its own results."""

    identity: str
    kind: str | None = None
    hardware: str | None = None
    versions: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class AdaptationRecord(AnyRecord):
    """What the record of an adaptation holds; None where a run has no such value."""

    parent: str | None = None
    recipe: str | None = None
    architecture: str | None = None
    size: str | None = None
    parameters: int | None = None
    pretraining_examples: int | None = None
    pretraining_seed: int | None = None
    pretraining_seconds: float | None = None
    task: str | None = None
    start: str | None = None
    examples: int | None = None
    seed: int | None = None
    steps: int | None = None
    batch_size: int | None = None
    learning_rates: list[float] = field(default_factory=list)
    resolution: list[list[float]] = field(default_factory=list)
    validation: int | None = None
    test: int | None = None
    test_resolution: int | None = None
    symmetries: bool | None = None
    shipped_parent: str | None = None
    error: float | None = None
    median: float | None = None
    percentile_90: float | None = None
    learning_rate: float | None = None
    tried: dict[str, float | None] = field(default_factory=dict)
    curve: list[list[float]] = field(default_factory=list)
    validation_error: float | None = None
    seconds: float | None = None
    total_seconds: float | None = None

    def __post_init__(self):
        if self.error is not None and math.isnan(self.error):  # no median is right beside it
            raise ValueError(f"error: expected a number, got {self.error}")


def _checked(record: dict, where: str) -> dict:
    """The record itself, after a check that its values are of the types above."""
    schema.read(AnyRecord if record.get("kind") else AdaptationRecord, record, where, finite=False)
    return record


def write_record(record: dict, path: str | Path) -> None:
    """Write one record and its digest, atomically."""
    write_json(path, with_digest(record))


def read_record(path: str | Path) -> dict:
    """Read one record.

    Raises:
        ValueError: if the file is missing, damaged or not a record.
    """
    where = f"record {path}"
    try:
        record = schema.parse(schema.read_text(user_path(path)), where)
    except (OSError, ValueError) as error:
        about = str(error).removeprefix(f"{where}: ")
        raise ValueError(f"{where}: not readable ({about}); remove it and run the study again") from error
    if not isinstance(record, dict) or "identity" not in record:
        raise ValueError(f"{where}: a JSON file, but not a record of a study; move it elsewhere")
    check_digest(record, {}, where)
    record.pop("digest", None)
    return _checked(record, where)


def write_table(records: Sequence[dict], path: str | Path) -> Path:
    """Write records as CSV, one line each, atomically; `read_table` reads them back.

    Raises:
        ValueError: if there are none.
    """
    if not records:
        raise ValueError("table: expected at least one record")
    columns = list(dict.fromkeys(key for record in records for key in record))
    with atomic_path(path) as partial, open(partial, "w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, columns, lineterminator="\n")
        writer.writeheader()
        for record in records:
            writer.writerow({key: _text(value) for key, value in record.items()})
    return user_path(path)


def read_table(path: str | Path, problems: list[str] | None = None) -> list[dict]:
    """Read the records of a table written by `write_table`.

    Args:
        path: the table.
        problems: where given, what is wrong with single records is added to it, and those are left out.

    Raises:
        ValueError: if the file is missing, damaged, has no such columns, or holds a record that is none.
    """
    try:
        lines = list(csv.reader(io.StringIO(schema.read_text(user_path(path)), newline=""), strict=True))
    except (OSError, ValueError, csv.Error) as error:
        raise ValueError(f"table {path}: not readable ({error}); write it again from its records") from error
    header, *rows = lines or [[]]
    if "identity" not in header or len(set(header)) < len(header) or any(len(row) != len(header) for row in rows):
        raise ValueError(f"table {path}: not a whole table of a study; write it again from its records")
    records: list[dict] = []
    identities: set[str] = set()
    for number, row in enumerate(rows, 1):
        where = f"table {path}: record {number}"
        try:
            record = {key: _parsed(value, where) for key, value in zip(header, row, strict=True) if value}
            if _checked(record, where)["identity"] in identities:
                raise ValueError(f"{where}: {record['identity']} is there twice; leave one of them out")
            records.append(record)
            identities.add(record["identity"])
        except ValueError as error:
            if problems is None:
                raise
            problems.append(str(error))
    return records


def _text(value) -> str:
    """A value as JSON; a text as it is, unless it could be read as JSON (such as an identity of digits alone)."""
    plain = isinstance(value, str) and value and "\r" not in value  # which the writer does not quote
    return value if plain and _is_text(value) else json.dumps(schema.plain(value))


def _is_text(value: str) -> bool:
    try:
        json.loads(value)
    except RecursionError:
        return False
    except ValueError:
        return True
    return False


def _parsed(value: str, where: str):
    return value if _is_text(value) else schema.parse(value, where)


def shipped_tables() -> dict[str, Path]:
    """Names and files of the results that ship with the package."""
    folder = Path(__file__).parent.parent / "results"
    return {path.stem: path for path in sorted(folder.glob("*.csv"))}
