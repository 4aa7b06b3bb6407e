"""Sizes and spans of time as people write them, read and written; nothing is measured here."""

from __future__ import annotations

import re

from hubcache.errors import UsageError

DAY = 86400.0
_UNITS = ("B", "kB", "MB", "GB", "TB", "PB")

_AMOUNT = re.compile(r"([0-9]+(?:\.[0-9]+)?)\s*([A-Za-z]*)", re.ASCII)
_PREFIXES = {"": 0, "k": 1, "m": 2, "g": 3, "t": 4, "p": 5}
_SPANS = {"s": 1.0, "m": 60.0, "h": 3600.0, "d": DAY, "w": 7 * DAY, "mo": 30 * DAY, "y": 365 * DAY}


def parse_size(text: str) -> int:
    """Read bytes: `500GB` in powers of 1000, `500GiB` in powers of 1024, `1000000` as it is.

    Raises:
        UsageError: it is no size.
    """
    match = _AMOUNT.fullmatch(text.strip())
    if match is not None:
        unit = match[2].lower().removesuffix("b")
        base = 1024 if unit.endswith("i") else 1000
        unit = unit.removesuffix("i")
        if unit in _PREFIXES and (unit or base == 1000):
            return int(float(match[1]) * base ** _PREFIXES[unit])
    raise UsageError(f"not a size: {text[:40]!r}", hint="such as 500GB, 1.5TB or 200GiB")


def parse_span(text: str) -> float:
    """Read seconds: `30d`, with s, m, h, d, w, mo or y.

    Raises:
        UsageError: it is no span of time.
    """
    match = _AMOUNT.fullmatch(text.strip())
    if match is None or match[2].lower() not in _SPANS:
        raise UsageError(f"not a span of time: {text[:40]!r}", hint="such as 30d, 12h or 4w")
    return float(match[1]) * _SPANS[match[2].lower()]


def span_text(seconds: float) -> str:
    """Write a span of time in its largest whole unit: `3 days`."""
    for unit, length in (("day", DAY), ("hour", 3600.0), ("minute", 60.0)):
        if seconds >= length:
            count = int(seconds // length)
            return f"{count} {unit}" + ("" if count == 1 else "s")
    return "less than a minute"


def size_text(size: float) -> str:
    """Write bytes for people, in powers of 1000: `90.9 MB`."""
    unit = 0
    while abs(size) >= 999.5 and unit < len(_UNITS) - 1:
        size, unit = size / 1000, unit + 1
    return f"{size:.0f} {_UNITS[unit]}" if unit == 0 or size >= 99.95 else f"{size:.1f} {_UNITS[unit]}"


def age_text(seconds: float) -> str:
    """Write a span of time for people: `3 days`."""
    for unit, length in (("day", 86400), ("hour", 3600), ("minute", 60)):
        if seconds >= length:
            count = int(seconds // length)
            return f"{count} {unit}" + ("s" if count > 1 else "")
    return "now"


def counted(count: int, noun: str) -> str:
    """Write a count with its noun: `1 file`, `2 files`."""
    return f"{count} {noun}" + ("" if count == 1 else "s")
