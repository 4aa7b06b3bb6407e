"""Filters and orders of a listing, as `hf cache ls` writes them: `size>1GB`, `accessed>30d`, `type=model`, `refs=main`.

They are parsed here and applied to plain facts; what is listed is the caller's.
"""

from __future__ import annotations

import operator
import re
from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass
from typing import Protocol, TypeVar

from hubcache.core.amounts import parse_size, parse_span
from hubcache.core.artifact import KINDS
from hubcache.errors import UsageError

_EXPRESSION = re.compile(r"([A-Za-z]+)\s*(>=|<=|!=|=|>|<)\s*(\S.*)")
_OPERATORS: dict[str, Callable[[float, float], bool]] = {
    ">": operator.gt, "<": operator.lt, ">=": operator.ge, "<=": operator.le, "=": operator.eq, "!=": operator.ne,
}  # fmt: skip
_WORDS = ("type", "refs")
_TIMES = ("accessed", "modified")
_HINT = "size>1GB, accessed>30d, modified<7d, type=model, refs=main"
SORTS = {"accessed": True, "modified": True, "name": False, "size": True, "used": True}
"""What can be sorted by, and whether the largest or newest comes first; `used` is `accessed`."""


class Listable(Protocol):
    """What a filter asks of a row: bytes, unix seconds, kind, refs, name."""

    @property
    def size(self) -> int: ...
    @property
    def accessed(self) -> float: ...
    @property
    def modified(self) -> float: ...
    @property
    def kind(self) -> str: ...
    @property
    def refs(self) -> Collection[str]: ...
    @property
    def name(self) -> str: ...


_Row = TypeVar("_Row", bound=Listable)


@dataclass(frozen=True, slots=True)
class Filter:
    """One condition; times are ages in seconds, sizes bytes."""

    key: str
    sign: str
    number: float = 0.0
    word: str = ""

    def fits(self, row: Listable, now: float) -> bool:
        """Tell whether a row meets it."""
        if self.key == "type":
            return (row.kind == self.word) == (self.sign == "=")
        if self.key == "refs":
            return (self.word in {ref.lower() for ref in row.refs}) == (self.sign == "=")
        ages = {"accessed": row.accessed, "modified": row.modified}
        value = float(row.size) if self.key == "size" else now - ages[self.key]
        return _OPERATORS[self.sign](value, self.number)


def parse_filter(text: str) -> Filter:
    """Read one filter.

    Raises:
        UsageError: says what is wrong, and how filters look.
    """
    match = _EXPRESSION.fullmatch(text.strip())
    if match is None:
        raise UsageError(f"not a filter: {text[:80]!r}", hint=f"for example {_HINT}")
    key, sign, value = match[1].lower(), match[2], match[3].strip()
    if key == "size":
        return Filter(key, sign, float(parse_size(value)))
    if key in _TIMES:
        return Filter(key, sign, parse_span(value))
    if key not in _WORDS or sign not in {"=", "!="}:
        raise UsageError(f"no such filter: {text[:80]!r}", hint=f"for example {_HINT}")
    if key == "type" and value.lower() not in KINDS:
        raise UsageError(f"no such type: {value[:40]!r}", hint=f"one of: {', '.join(KINDS)}")
    return Filter(key, sign, word=value.lower())


def parse_sort(text: str) -> tuple[str, bool]:
    """Read `size`, `size:asc` or `size:desc` as the key and whether the largest comes first.

    Raises:
        UsageError: no such key or direction.
    """
    key, colon, direction = text.partition(":")
    if key not in SORTS or (colon and direction not in {"asc", "desc"}):
        raise UsageError(f"no such order: {text[:40]!r}", hint=f"one of: {', '.join(SORTS)}, with :asc or :desc")
    return ("accessed" if key == "used" else key), (direction == "desc" if colon else SORTS[key])


def chosen(rows: Iterable[_Row], filters: Iterable[Filter], sort: tuple[str, bool], now: float) -> list[_Row]:
    """Keep the rows that meet every filter, in order; those that are equal stand by name."""
    conditions = list(filters)
    found = sorted((row for row in rows if all(each.fits(row, now) for each in conditions)), key=_by_name)
    key, largest_first = sort
    if key != "name":
        found.sort(key=operator.attrgetter(key), reverse=largest_first)
    elif largest_first:
        found.reverse()
    return found


def _by_name(row: Listable) -> tuple[str, str]:
    return row.name.lower(), row.name
