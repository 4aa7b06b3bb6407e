"""What a client's Range, If-Range and If-None-Match ask of a file, and how several ranges go in one body; no I/O.

Source: RFC 9110, sections 8.8.3, 13.1 and 14.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from itertools import pairwise

from hubcache.core.ranges import Range
from hubcache.errors import UsageError

LIMIT = 16
"""The most ranges that one request may ask for."""

_ELEMENT = re.compile(r"[^, \t][^,]*")
_SPEC = re.compile(r"([0-9]+)-([0-9]*)|-([0-9]+)", re.ASCII)
_TAG = re.compile(r'(?:W/)?"[^"]*"')
# More digits than a file's size has are not read: int() is slow on many, and refuses some thousand.
_MOST_DIGITS = 18
_BEYOND = 10**_MOST_DIGITS


class Unsatisfiable(UsageError):
    """No byte of the file answers the Range, or it asks for too much at once; `size` is the file's, in bytes."""

    def __init__(self, message: str, *, size: int) -> None:
        super().__init__(message)
        self.size = size


def parse_ranges(header: str | None, size: int) -> tuple[Range, ...] | None:
    """Read a Range header against a file of `size` bytes; None where the whole file is the answer.

    That is: no header, another unit, a syntax that is none, an empty file. The ranges keep the client's order.

    Raises:
        Unsatisfiable: no range begins inside the file, there are over 16 of them, or two overlap.
    """
    unit, equals, text = (header or "").partition("=")
    if not equals or unit.strip(" \t").lower() != "bytes" or size == 0:
        return None
    specs = _ELEMENT.findall(text)
    # Counted before they are read: a header's price must not grow with what it asks for.
    if len(specs) > LIMIT:
        raise Unsatisfiable(f"{len(specs)} ranges in one request, {LIMIT} are the most", size=size)
    ranges = [_parse_spec(spec.rstrip(" \t"), size) for spec in specs]
    asked = [span for span in ranges if span is not None]
    if not asked or len(asked) < len(ranges):
        return None
    return _satisfiable(asked, size)


def _parse_spec(spec: str, size: int) -> Range | None:
    """Read one range, clamped to the file (empty where no byte is asked); None where the syntax is none."""
    found = _SPEC.fullmatch(spec)
    if found is None:
        return None
    first, last, suffix = found.groups()
    if suffix is not None:
        return max(0, size - _number(suffix)), size
    start, end = _number(first), _number(last) + 1 if last else _BEYOND + 1
    return (start, min(end, size)) if start < end else None


def _number(digits: str) -> int:
    digits = digits.lstrip("0")
    return _BEYOND if len(digits) > _MOST_DIGITS else int(digits or "0")


def _satisfiable(asked: list[Range], size: int) -> tuple[Range, ...]:
    ranges = tuple((start, end) for start, end in asked if start < end)
    if not ranges:
        raise Unsatisfiable(f"no byte of {size} is in the range asked for", size=size)
    in_order = sorted(ranges)
    if any(later[0] < earlier[1] for earlier, later in pairwise(in_order)):
        raise Unsatisfiable("ranges that overlap", size=size)
    return ranges


def multipart_head(boundary: str, content_type: str, start: int, end: int, size: int) -> bytes:
    """Write what precedes the bytes [start, end) of a file of `size` bytes in a multipart/byteranges body."""
    fields = f"Content-Type: {content_type}\r\nContent-Range: bytes {start}-{end - 1}/{size}"
    return f"\r\n--{boundary}\r\n{fields}\r\n\r\n".encode("ascii")


def multipart_tail(boundary: str) -> bytes:
    """Write what ends a multipart/byteranges body."""
    return f"\r\n--{boundary}--\r\n".encode("ascii")


def multipart_length(boundary: str, content_type: str, ranges: Iterable[Range], size: int) -> int:
    """Return the length in bytes of the body that these heads, ranges and tail make."""
    parts = (len(multipart_head(boundary, content_type, start, end, size)) + end - start for start, end in ranges)
    return sum(parts) + len(multipart_tail(boundary))


def is_unchanged(if_none_match: str | None, etag: str) -> bool:
    """Tell whether the client holds what `etag`, quoted, names; a weak tag of it will do."""
    if if_none_match is None:
        return False
    if if_none_match.strip(" \t") == "*":
        return True
    wanted = etag.removeprefix("W/")
    return any(tag.removeprefix("W/") == wanted for tag in _TAG.findall(if_none_match))


def range_applies(if_range: str | None, etag: str) -> bool:
    """Tell whether a Range still holds for what `etag`, quoted, names; a weak tag or a date never does."""
    return if_range is None or (if_range.strip(" \t") == etag and etag.startswith('"'))
