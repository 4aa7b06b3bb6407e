"""Rows for people and programs: text in a terminal, HTML in a notebook, records in a loop; none is computed here."""

from __future__ import annotations

import html
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True, repr=False)
class Table:
    """A table of texts, and the records behind its rows: `table[0]["size"]` is a number; `right` are its figures."""

    header: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    records: tuple[Mapping[str, Any], ...]
    right: tuple[int, ...] = ()
    caption: str = ""

    def __len__(self) -> int:
        return len(self.records)

    def __iter__(self) -> Iterator[Mapping[str, Any]]:
        return iter(self.records)

    def __getitem__(self, place: int) -> Mapping[str, Any]:
        return self.records[place]

    def __repr__(self) -> str:
        return "\n".join(
            [*table_lines(self.header, self.rows, right=self.right), *([self.caption] * bool(self.caption))]
        )

    def _repr_html_(self) -> str:
        """Return it as a notebook draws it, in the notebook's own style, every text escaped."""
        head = self._row("th", self.header)
        rows = "".join(self._row("td", row) for row in self.rows)
        caption = f'<caption style="caption-side:bottom">{html.escape(self.caption)}</caption>' if self.caption else ""
        return f"<table>{caption}<thead>{head}</thead><tbody>{rows}</tbody></table>"

    def _row(self, name: str, cells: Sequence[str]) -> str:
        sides = ("right" if column in self.right else "left" for column in range(len(cells)))
        made = (
            f'<{name} style="text-align:{side}">{html.escape(text)}</{name}>'
            for side, text in zip(sides, cells, strict=True)
        )
        return f"<tr>{''.join(made)}</tr>"


def table_lines(header: Sequence[str], rows: Sequence[Sequence[str]], *, right: Sequence[int] = ()) -> list[str]:
    """Return rows in columns, a line each, the header first, the columns `right` aligned to the right."""
    widths = [max(len(row[column]) for row in (header, *rows)) for column in range(len(header))]
    lines = []
    for row in (header, *rows):
        cells = [
            cell.rjust(width) if column in right else cell.ljust(width)
            for column, (cell, width) in enumerate(zip(row, widths, strict=True))
        ]
        lines.append("  ".join(cells).rstrip())
    return lines
