"""What reading gives: rows as plain dictionaries, the class names that a file brings, and what was found, in words."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from hubcache.errors import UsageError
from hubcache.train.tasks.template import Row


@dataclass(frozen=True, slots=True)
class Table:
    """The rows of one file or several.

    class_names names the numbers of a column, where the file says them; `said` tells what was read, a line each.
    """

    rows: list[Row]
    class_names: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    said: tuple[str, ...] = ()

    @property
    def columns(self) -> tuple[str, ...]:
        """The columns of the rows, in the order met (in the first thousand rows)."""
        return tuple(dict.fromkeys(name for row in self.rows[:1000] for name in row))


def joined(tables: list[Table]) -> Table:
    """Return the rows of several tables, one after the other."""
    rows = [row for table in tables for row in table.rows]
    names = {column: names for table in tables for column, names in table.class_names.items()}
    return Table(rows, names, tuple(line for table in tables for line in table.said))


def unreadable(path: Path, line: int | None, what: str, hint: str = "") -> UsageError:
    """Return the error for a file that cannot be read as it stands, with the line."""
    return UsageError(f"{path}:{line}: {what}" if line else f"{path}: {what}", hint=hint)


def decoded(path: Path) -> str:
    """Return a file's text, a byte order mark taken off. Raises: UsageError with the line that is no UTF-8."""
    content = path.read_bytes()
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content[: error.start].count(b"\n") + 1
        hint = f"convert it: iconv -f LATIN1 -t UTF-8 {path.name} > utf8{path.suffix}"
        raise unreadable(path, line, f"byte {error.start} is no UTF-8", hint) from error
