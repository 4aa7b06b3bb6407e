"""Which files a check of a part of the cache looks at on a day; what is done with them is the caller's."""

from __future__ import annotations

from dataclasses import dataclass

from hubcache.core.digests import Digest

_DIGITS = 13  # 52 bits, what a float holds exactly


@dataclass(frozen=True, slots=True)
class Sample:
    """A share (over 0, at most 1) of all files, on a day counted from 1970.

    Every digest has a fixed place on a circle, and each day takes the next `share` of it: a check on each of
    1/share days looks at every file once, where independent draws would leave out a third of them. Files count
    alike, however large; the same day takes the same ones.
    """

    share: float
    day: int

    def has(self, digest: Digest) -> bool:
        """Tell whether a file with this digest is looked at."""
        place = int(digest.hex[:_DIGITS], 16) / 2.0 ** (4 * _DIGITS)
        since = (place - self.day * self.share) % 1.0
        return since < self.share
