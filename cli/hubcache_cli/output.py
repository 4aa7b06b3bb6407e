"""How things look: sizes, tables, JSON on stdout; notes and progress on stderr."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Sequence
from typing import Any

from hubcache.app.progress import TransferProgress
from hubcache.app.tables import table_lines
from hubcache.core.amounts import age_text, counted, size_text

__all__ = [
    "TransferProgress", "age_text", "counted", "note", "plain", "print_json", "print_labelled", "print_table",
    "shorten", "size_text", "terminal_width",
]  # fmt: skip


def print_json(value: Any) -> None:
    """Print one line of JSON."""
    # A file name that is no Unicode holds lone surrogates, whose backslash form is JSON's own.
    print(json.dumps(value, ensure_ascii=False).encode("utf-8", "backslashreplace").decode())


def print_table(header: Sequence[str], rows: Sequence[Sequence[str]], *, right: Sequence[int] = ()) -> None:
    """Print rows in columns, the columns `right` aligned to the right."""
    for line in table_lines(header, rows, right=right):
        print(line)


def plain(text: str) -> str:
    """Write a name from the disk so that no terminal obeys it: control characters and strange bytes escaped."""
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else ascii(c)[1:-1] for c in text)


def shorten(text: str, width: int) -> str:
    """Cut a name to `width` characters, in its middle: what tells names apart stands at both ends."""
    if len(text) <= width:
        return text
    tail = (width - 1) // 2
    return f"{text[: width - 1 - tail]}…{text[len(text) - tail :]}"


def terminal_width() -> int:
    """Return the columns of the terminal that stdout is, 80 where it is none."""
    try:
        return os.get_terminal_size(sys.stdout.fileno()).columns or 80
    except (OSError, ValueError):
        return 80


def print_labelled(label: str, text: str) -> None:
    """Print a label and a text that is wrapped beside it; a word is never cut, paths are there to be copied."""
    import textwrap

    beside = " " * len(label)
    print(
        textwrap.fill(
            plain(text), terminal_width(), initial_indent=label, subsequent_indent=beside, break_long_words=False,
            break_on_hyphens=False,
        )
    )  # fmt: skip


def note(text: str) -> None:
    """Say one line to the person, beside the data."""
    print(text, file=sys.stderr)
