"""Readers of csv, tsv and plain text lines, with or without a header; other formats are in reading.py and conll.py."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Iterator
from pathlib import Path

from hubcache.train.data.columns import KNOWN_COLUMNS
from hubcache.train.data.rows import Table, decoded, unreadable
from hubcache.train.tasks.template import Row

_NAME = re.compile(r"[^\W\d][\w .#/()-]{0,39}")
# A cell may be a whole document.
csv.field_size_limit(1 << 30)


def read_csv(path: Path) -> Table:
    """Read comma-separated rows, quoted as RFC 4180 says (`;` or a tab where the first line has more of those)."""
    text = decoded(path)
    first = text.split("\n", 1)[0]
    delimiter = max(",;\t", key=first.count)
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=False)
    lines = ((reader.line_num, cells) for cells in reader if any(cells))
    try:
        return _table(path, lines, header_unless_odd=True)
    except csv.Error as error:
        raise unreadable(path, reader.line_num, f"no csv: {error}") from error


def read_tsv(path: Path) -> Table:
    """Read tab-separated rows, one a line; quotes are characters like others.

    The first line is a header where one of its cells is a usual name of a column. Rows of two or three cells without
    header are `text, label` or `sentence1, sentence2, label` to a task that does not say otherwise.
    """
    lines = ((number, line.split("\t")) for number, line in text_lines(decoded(path)))
    return _table(path, lines, header_unless_odd=False)


def read_lines(path: Path) -> Table:
    """Read a text file: rows of one column `text`, or tab-separated ones where the first line has a tab."""
    text = decoded(path)
    if "\t" in text.split("\n", 1)[0]:
        return read_tsv(path)
    rows = [{"text": line} for _, line in text_lines(text)]
    return Table(rows, said=(f"{path.name}: {len(rows)} lines, one text each",))


def text_lines(text: str) -> Iterator[tuple[int, str]]:
    """Yield (line number, line) of the lines that are not empty; only a line feed ends a line."""
    for number, line in enumerate(text.split("\n"), start=1):
        bare = line.removesuffix("\r")
        if bare.strip():
            yield number, bare


def is_header(cells: list[str], unless_odd: bool) -> bool:
    """Tell whether a first line names columns: a usual name among them, or (in csv) nothing but short names."""
    names = [cell.strip() for cell in cells]
    if len(set(names)) < len(names):
        return False
    if any(name.lower() in KNOWN_COLUMNS for name in names):
        return True
    return unless_odd and all(_NAME.fullmatch(name) for name in names)


def _table(path: Path, lines: Iterator[tuple[int, list[str]]], header_unless_odd: bool) -> Table:
    first = next(lines, None)
    if first is None:
        return Table([], said=(f"{path.name}: empty",))
    headed = is_header(first[1], header_unless_odd)
    width = len(first[1])
    columns = [cell.strip() for cell in first[1]] if headed else [f"column{place}" for place in range(1, width + 1)]
    rows: list[Row] = [] if headed else [dict(zip(columns, first[1], strict=True))]
    for number, cells in lines:
        if len(cells) != width:
            raise unreadable(path, number, _odd_width(len(cells), width, headed), "quote a cell with a delimiter in it")
        rows.append(dict(zip(columns, cells, strict=True)))
    found = f"columns {', '.join(columns)}" if headed else f"no header, {width} columns"
    return Table(rows, said=(f"{path.name}: {len(rows)} rows, {found}",))


def _odd_width(found: int, width: int, headed: bool) -> str:
    return f"{found} cells, but {'the header has' if headed else 'the first line has'} {width}"
