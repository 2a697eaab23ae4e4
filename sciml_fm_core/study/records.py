"""Records of runs in files: one JSON file each, and tables of many."""

from __future__ import annotations

import csv
import json
from collections.abc import Sequence
from pathlib import Path

from sciml_fm_core.files import atomic_path
from sciml_fm_core.former_names import with_recipe_of_today

# Records --------------------------------------------------------------------------------------------------------------


def read_record(path: str | Path) -> dict:
    """One record.

    Raises:
        ValueError: if the file is missing or not a record.
    """
    try:
        record = json.loads(Path(path).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ValueError(f"record {path}: not readable ({error}); remove it and run the study again") from error
    if not isinstance(record, dict) or "identity" not in record:
        raise ValueError(f"record {path}: a JSON file, but not a record of a study; move it elsewhere")
    return with_recipe_of_today(record)


def read_folder(folder: str | Path) -> list[dict]:
    """All records of a folder, by identity."""
    return [read_record(path) for path in sorted(Path(folder).glob("*.json"))]


def write_table(records: Sequence[dict], path: str | Path) -> Path:
    """Records as CSV, one line each, atomically; `read_table` reads them back.

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
    return Path(path)


def read_table(path: str | Path) -> list[dict]:
    """Records of a table written by `write_table`.

    Raises:
        ValueError: if the file is missing, damaged or has no such columns.
    """
    try:
        with open(path, newline="", encoding="utf-8") as file:
            lines = list(csv.reader(file, strict=True))
    except (OSError, ValueError, csv.Error) as error:
        raise ValueError(f"table {path}: not readable ({error}); write it again from its records") from error
    header, *rows = lines or [[]]
    if "identity" not in header or any(len(row) != len(header) for row in rows):
        raise ValueError(f"table {path}: not a whole table of a study; write it again from its records")
    records = [{key: _parsed(value) for key, value in zip(header, row, strict=True) if value} for row in rows]
    return [with_recipe_of_today(record) for record in records]


def _text(value) -> str:
    """JSON, or a text as it is where that is not taken for JSON (as an identity of digits alone would be)."""
    return value if isinstance(value, str) and value and _parsed(value) is value else json.dumps(value)


def _parsed(value: str):
    try:
        return json.loads(value)
    except ValueError:
        return value


def shipped_tables() -> dict[str, Path]:
    """Names and files of the results that ship with the package."""
    folder = Path(__file__).parent.parent / "results"
    return {path.stem: path for path in sorted(folder.glob("*.csv"))}
