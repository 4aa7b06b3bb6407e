"""Reads one file of rows by its ending: jsonl, json, csv, tsv, txt, conll, parquet; splits are made in splits.py.

A row is a dictionary of plain Python values. `datasets` is not needed, and pyarrow for parquet alone.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from hubcache.errors import UsageError
from hubcache.train.data.conll import looks_like_conll, read_conll
from hubcache.train.data.delimited import read_csv, read_lines, read_tsv, text_lines
from hubcache.train.data.rows import Table, decoded, unreadable
from hubcache.train.tasks.nearest import nearest
from hubcache.train.tasks.template import Row


def read_table(path: Path) -> Table:
    """Read one file into rows.

    Raises: UsageError with file and line for what does not parse, and for an ending that no reader knows.
    """
    if not path.is_file():
        raise UsageError(f"there is no data file {path}")
    ending = path.suffix.lower()
    if ending in READERS:
        return _with_answers(path, READERS[ending](path))
    if looks_like_conll(decoded(path)):
        return read_conll(path)
    raise unreadable(path, None, f"no reader for {ending or 'a name without ending'}", nearest(ending, READERS))


def read_jsonl(path: Path) -> Table:
    """Read an object a line; a file that is one JSON value is read as that."""
    text = decoded(path)
    if text.lstrip()[:1] == "[":
        return read_json(path)
    rows: list[Row] = []
    for number, line in text_lines(text):
        try:
            row = json.loads(line)
        except json.JSONDecodeError as error:
            if not rows and _is_json(text):
                return read_json(path)
            raise unreadable(path, number, f"no JSON: {error.msg} at column {error.colno}") from error
        if not isinstance(row, dict):
            raise unreadable(path, number, f"a row is an object, not {type(row).__name__}")
        rows.append(row)
    return Table(rows, said=(_found(path, rows),))


def read_json(path: Path) -> Table:
    """Read a list of objects, an object that holds one (`data`, `document`…), or columns of equal length.

    A list within the list (C3's records) becomes a row with the one column `record`.
    """
    text = decoded(path)
    try:
        content = json.loads(text)
    except json.JSONDecodeError as error:
        if error.msg == "Extra data" and text.lstrip()[:1] == "{":
            return read_jsonl(path)
        raise unreadable(path, error.lineno, f"no JSON: {error.msg} at column {error.colno}") from error
    rows = _json_rows(path, content)
    return Table(rows, said=(_found(path, rows),))


def read_parquet(path: Path) -> Table:
    """Read a parquet file with pyarrow, and the class names that `datasets` writes into it."""
    try:
        from pyarrow import parquet  # type: ignore[import-not-found, import-untyped, unused-ignore]  # has no types
    except ImportError as error:
        raise UsageError(f"{path}: parquet needs pyarrow", hint="run: pip install pyarrow") from error
    table = parquet.read_table(path)
    rows: list[Row] = table.to_pylist()
    described = (table.schema.metadata or {}).get(b"huggingface")
    features = json.loads(described).get("info", {}).get("features", {}) if described else {}
    return Table(rows, class_names(features), (_found(path, rows),))


def class_names(features: Mapping[str, Any]) -> dict[str, tuple[str, ...]]:
    """Return the names of each class column, from the features that `datasets` describes (also within a list)."""
    found = {}
    for column, feature in features.items():
        inner = feature
        while isinstance(inner, dict) and "names" not in inner and isinstance(inner.get("feature"), dict):
            inner = inner["feature"]
        if isinstance(inner, dict) and isinstance(inner.get("names"), list):
            found[column] = tuple(str(name) for name in inner["names"])
    return found


READERS: Mapping[str, Callable[[Path], Table]] = {
    ".jsonl": read_jsonl,
    ".ndjson": read_jsonl,
    ".json": read_json,
    ".csv": read_csv,
    ".tsv": read_tsv,
    ".txt": lambda path: read_conll(path) if looks_like_conll(decoded(path)) else read_lines(path),
    ".conll": read_conll,
    ".iob": read_conll,
    ".iob2": read_conll,
    ".bio": read_conll,
    ".parquet": read_parquet,
}


def _json_rows(path: Path, content: Any) -> list[Row]:
    if isinstance(content, dict):
        lists = {key: value for key, value in content.items() if isinstance(value, list)}
        if len({len(value) for value in lists.values()}) == 1 and len(lists) == len(content) > 1:
            return [dict(zip(lists, cells, strict=True)) for cells in zip(*lists.values(), strict=True)]
        holding = [value for value in lists.values() if all(isinstance(row, dict) for row in value)]
        if len(holding) != 1:
            raise unreadable(path, None, "an object without one list of rows", "write a list of objects, or jsonl")
        content = holding[0]
    if not isinstance(content, list):
        raise unreadable(path, None, f"rows are a list, not {type(content).__name__}")
    for place, row in enumerate(content, start=1):
        if not isinstance(row, dict | list):
            raise unreadable(path, None, f"row {place} is no object but {row!r}")
    return [row if isinstance(row, dict) else {"record": row} for row in content]


def _with_answers(path: Path, table: Table) -> Table:
    """ChID's answers are in a file beside the records: train.json and train_answer.json."""
    beside = path.with_name(f"{path.stem}_answer.json")
    if not beside.is_file() or not table.rows or "candidates" not in table.rows[0]:
        return table
    answers = json.loads(decoded(beside))
    rows = [{**row, "answers": answers} for row in table.rows]
    return Table(rows, table.class_names, (*table.said, f"{beside.name}: {len(answers)} answers"))


def _is_json(text: str) -> bool:
    try:
        json.loads(text)
    except json.JSONDecodeError:
        return False
    return True


def _found(path: Path, rows: list[Row]) -> str:
    columns = ", ".join(rows[0]) if rows else "none"
    return f"{path.name}: {len(rows)} rows, columns {columns}"
