"""A reader of CoNLL columns: a token a line, an empty line between sentences; it checks no tag scheme."""

from __future__ import annotations

import re
from pathlib import Path

from hubcache.train.data.rows import Table, decoded, unreadable
from hubcache.train.tasks.template import Row

TAG = re.compile(r"O|[BIESLUM]-\S+")


def read_conll(path: Path) -> Table:
    """Read sentences into rows of `tokens` and `ner_tags`.

    Columns are split at tabs where there are any, else at spaces; the tags are the last column of `O` and `B-…`, the
    tokens the first that does not count them. `-DOCSTART-` and comments (`# text = …`) are left out.
    Raises: UsageError with the line whose number of columns is another.
    """
    text = decoded(path)
    sentences = _sentences(path, text, "\t" if _has_tabs(text) else None)
    if not sentences:
        return Table([], said=(f"{path.name}: empty",))
    token_column, tag_column = _places(sentences)
    rows: list[Row] = [
        {"tokens": [cells[token_column] for cells in one], "ner_tags": [cells[tag_column] for cells in one]}
        for one in sentences
    ]
    found = f"tokens in column {token_column + 1}, tags in column {tag_column + 1}"
    return Table(rows, said=(f"{path.name}: {len(rows)} sentences, {found}",))


def looks_like_conll(text: str) -> bool:
    """Tell whether a text's first lines are tokens with tags, and not sentences."""
    lines = [line for line in text[:20000].split("\n")[:200] if line.strip() and not line.startswith("#")]
    ends = [line.split()[-1] for line in lines[:-1]]
    tagged = sum(bool(TAG.fullmatch(end)) for end in ends)
    short = sum(len(line.split()) <= 6 for line in lines[:-1])
    return bool(ends) and "\n\n" in text.replace("\r", "") and tagged > 0.9 * len(ends) and short > 0.9 * len(ends)


def _has_tabs(text: str) -> bool:
    lines = (line for line in text.split("\n") if line.strip() and not line.startswith("#"))
    return "\t" in next(lines, "")


def _sentences(path: Path, text: str, delimiter: str | None) -> list[list[list[str]]]:
    sentences: list[list[list[str]]] = [[]]
    width = 0
    for number, line in enumerate(text.split("\n"), start=1):
        bare = line.removesuffix("\r")
        if not bare.strip():
            sentences.append([])
            continue
        cells = bare.split(delimiter)
        if cells[0] == "-DOCSTART-" or _is_comment(bare, cells, width):
            continue
        width = width or len(cells)
        if len(cells) != width or width < 2:
            what = f"{len(cells)} columns, but the first line has {width}" if width > 1 else "a token without a tag"
            raise unreadable(path, number, what, "write one token a line, an empty line between sentences")
        sentences[-1].append(cells)
    return [one for one in sentences if one]


def _is_comment(line: str, cells: list[str], width: int) -> bool:
    """A sharp is a token, too, if it has the columns of one."""
    return line.startswith("#") and (" = " in line or len(cells) != (width or 2)) and len(cells) != width


def _places(sentences: list[list[list[str]]]) -> tuple[int, int]:
    lines = [cells for one in sentences[:200] for cells in one]
    columns = range(len(lines[0]))
    tags = [place for place in columns if all(TAG.fullmatch(cells[place]) for cells in lines)]
    counting = all(cells[0].isdigit() for cells in lines) and len(lines[0]) > 2
    if not tags and len(lines[0]) > 2:
        return (1 if counting else 0), len(lines[0]) - 1
    if not tags:
        return 0, 1
    return (1 if counting else 0), tags[-1]
