"""Byte ranges as values: what of a file is there, what is missing; no file is touched here."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable, Iterator

Range = tuple[int, int]
"""Bytes [start, end)."""


class RangeSet:
    """Disjoint, sorted, joined byte ranges."""

    def __init__(self, ranges: Iterable[Range] = ()) -> None:
        self._ranges: list[Range] = []
        for start, end in ranges:
            self.add(start, end)

    def __iter__(self) -> Iterator[Range]:
        return iter(self._ranges)

    def add(self, start: int, end: int) -> None:
        """Add bytes [start, end), joining what touches."""
        if start >= end:
            return
        low = bisect_right(self._ranges, (start, -1))
        if low and self._ranges[low - 1][1] >= start:
            low -= 1
        high = low
        while high < len(self._ranges) and self._ranges[high][0] <= end:
            start, end = min(start, self._ranges[high][0]), max(end, self._ranges[high][1])
            high += 1
        self._ranges[low:high] = [(start, end)]

    def missing(self, start: int, end: int) -> list[Range]:
        """List the parts of [start, end) that are not there."""
        gaps = []
        for low, high in self._ranges:
            if high <= start:
                continue
            if low >= end:
                break
            if low > start:
                gaps.append((start, low))
            start = max(start, high)
        if start < end:
            gaps.append((start, end))
        return gaps

    def prefix(self) -> int:
        """Return how many bytes from 0 on are there without a gap."""
        return self._ranges[0][1] if self._ranges and self._ranges[0][0] == 0 else 0

    def total(self) -> int:
        """Return how many bytes are there."""
        return sum(end - start for start, end in self._ranges)


def split(ranges: Iterable[Range], size: int) -> list[Range]:
    """Cut ranges into pieces of at most `size` bytes."""
    return [(at, min(at + size, end)) for start, end in ranges for at in range(start, end, size)]
