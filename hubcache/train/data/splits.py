"""Data by split, from a file, a folder of files, or a data set's snapshot: `train[:90%]`, held-out rows, configs.

Nothing is fetched here (the caller resolves a reference to a folder) and no column is chosen (columns.py).
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from hubcache.errors import UsageError
from hubcache.train.data.files import card_class_names, files_by_split
from hubcache.train.data.reading import read_table
from hubcache.train.data.rows import Table, joined
from hubcache.train.tasks.nearest import nearest
from hubcache.train.tasks.template import Row

HELD_OUT = 0.1
ROLES = ("train", "validation", "test")
_SLICE = re.compile(r"(?P<name>[^\[\]+]+?)(?:\[(?P<begin>-?\d+%?)?:(?P<end>-?\d+%?)?\])?")

Source = str | Path | Sequence[str | Path] | Mapping[str, str | Path]


@dataclass(frozen=True, slots=True)
class Splits:
    """Rows by split, the class names that the data brings, and what was read, in words.

    files are the files read, for their digests.
    """

    rows: Mapping[str, list[Row]]
    class_names: Mapping[str, tuple[str, ...]]
    said: tuple[str, ...]
    files: tuple[Path, ...]

    @property
    def all_rows(self) -> list[Row]:
        """The rows of all splits, the training rows first."""
        return [row for rows in self.rows.values() for row in rows]


def load_splits(
    source: Source, wanted: Mapping[str, str] | None = None, *, config: str = "", held_out: float = HELD_OUT
) -> Splits:
    """Read the data of `source` and cut it into `wanted` splits (role: expression; default train, validation, test).

    source is a file, a list of files (all of them training data), a mapping of splits to files, or a folder: of files
    that are named after their splits, of such folders (then `config` names one), or a data set's snapshot.
    A validation split that is asked for by its plain name and is nowhere is held out of the training rows: those whose
    hash says so, `held_out` of them, the same ones whatever their order. A test split that is nowhere is left out.
    Raises: UsageError for what is not there or does not parse.
    """
    found = _files(source, config)
    asked = {role: _known_as(text, found) for role, text in (wanted or {role: role for role in ROLES}).items()}
    needed = {name for text in asked.values() for name, _, _ in parsed_split(text)}
    if "train" in found and "validation" not in found:
        needed.add("train")
    used = {name: paths for name, paths in found.items() if name in needed or _stands_in(name, needed, found)}
    tables = {name: joined([read_table(path) for path in paths]) for name, paths in used.items()}
    rows, said = _cut(asked, {name: table.rows for name, table in tables.items()}, held_out)
    carded = card_class_names(Path(source), config) if isinstance(source, str | Path) and Path(source).is_dir() else {}
    names = {**carded, **{column: one for table in tables.values() for column, one in table.class_names.items()}}
    files = tuple(path for paths in used.values() for path in paths)
    lines = tuple(line for table in tables.values() for line in table.said)
    return Splits(rows, names, (*lines, *said), files)


def parsed_split(text: str) -> list[tuple[str, str | None, str | None]]:
    """Read `train[:90%]+validation` into (name, begin, end) parts. Raises: UsageError."""
    parts = []
    for part in text.split("+"):
        match = _SLICE.fullmatch(part.strip())
        if match is None:
            raise UsageError(f"{text!r} is no split", hint="write train, train[:90%], train[100:200] or a+b")
        parts.append((match["name"], match["begin"], match["end"]))
    return parts


def sliced(rows: list[Row], begin: str | None, end: str | None) -> list[Row]:
    """Return rows[begin:end], both a number or per cent of the rows, rounded to the nearest row."""
    return rows[_place(begin, len(rows), 0) : _place(end, len(rows), len(rows))]


def held_out_rows(rows: list[Row], share: float) -> tuple[list[Row], list[Row]]:
    """Part rows into (kept, held out) by a hash of their content: equal rows stay on one side, order is no matter."""
    kept: list[Row] = []
    out: list[Row] = []
    for row in rows:
        content = json.dumps(row, ensure_ascii=False, sort_keys=True, default=str)
        drawn = int.from_bytes(hashlib.sha256(content.encode("utf-8", "surrogatepass")).digest()[:8], "big") / 2**64
        (out if drawn < share else kept).append(row)
    return kept, out


def _files(source: Source, config: str) -> dict[str, list[Path]]:
    if isinstance(source, Mapping):
        return {split: [Path(path)] for split, path in source.items()}
    if not isinstance(source, str | Path):
        return {"train": [Path(path) for path in source]}
    path = Path(source)
    if path.is_dir():
        return files_by_split(path, config)
    if not path.is_file():
        raise UsageError(f"there is no data at {path}", hint="name a file, a folder, or pull the data set first")
    return {"train": [path]}


def _known_as(split: str, found: Mapping[str, object]) -> str:
    """Data of one's own for MNLI has a plain validation split, or none."""
    return split if split in found else split.removesuffix("_matched")


def _stands_in(name: str, needed: set[str], found: Mapping[str, object]) -> bool:
    """MNLI has validation_matched and no validation."""
    plain = name.removesuffix("_matched")
    return plain != name and plain in needed and plain not in found


def _cut(
    asked: Mapping[str, str], rows: Mapping[str, list[Row]], held_out: float
) -> tuple[dict[str, list[Row]], list[str]]:
    available = dict(rows)
    for name in rows:
        available.setdefault(name.removesuffix("_matched"), rows[name])
    said: list[str] = []
    if asked.get("validation") == "validation" and "validation" not in available and "train" in available:
        available["train"], available["validation"] = held_out_rows(available["train"], held_out)
        said.append(f"no validation split: {len(available['validation'])} training rows are held out, by their hash")
    cut: dict[str, list[Row]] = {}
    for role, text in asked.items():
        parts = parsed_split(text)
        missing = [name for name, _, _ in parts if name not in available]
        if not missing:
            cut[role] = [row for name, begin, end in parts for row in sliced(available[name], begin, end)]
        elif role == "train" or text != role:
            _complain(role, missing[0], available)
        else:
            said.append(f"no {role} split")
    return cut, said


def _complain(role: str, name: str, available: Mapping[str, object]) -> None:
    hint = f"{nearest(name, available)} (--split {role}=NAME)" if available else "the folder has no data file"
    raise UsageError(f"the data has no split {name!r} for {role}", hint=hint)


def _place(text: str | None, rows: int, default: int) -> int:
    if text is None:
        return default
    place = round(rows * int(text[:-1]) / 100) if text.endswith("%") else int(text)
    return max(rows + place, 0) if place < 0 else min(place, rows)


def whole(table: Table) -> Splits:
    """Return a table as the training split, for rows that come from elsewhere than files."""
    return Splits({"train": table.rows}, table.class_names, table.said, ())
