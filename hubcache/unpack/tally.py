"""What an archive may cost, and the count of what it has cost so far; names are judged in names.py."""

from __future__ import annotations

from dataclasses import dataclass

from hubcache.errors import UnsafeArchive


@dataclass(frozen=True, slots=True)
class Limits:
    """What an archive may cost at most; sizes are bytes.

    `members` bounds the members and also the files and folders they make, implied folders
    included. `ratio` is unpacked to packed bytes and counts once more than `ratio_from` bytes are
    unpacked. `header_bytes` bounds one pax or GNU long-name header, `directory_bytes` a zip's
    directory: both are read into memory.
    """

    members: int = 100_000
    total_bytes: int = 2 << 40
    ratio: int = 1000
    ratio_from: int = 64 << 20
    path_bytes: int = 4096
    header_bytes: int = 1 << 20
    directory_bytes: int = 64 << 20


def label(name: str | bytes) -> str:
    """Name a member in a message, so that control characters do nothing and a long name stays short."""
    return f"archive member {name[:200]!r}"


class Tally:
    """Counts one archive against its limits, and knows which member is being read."""

    def __init__(self, limits: Limits) -> None:
        self.limits = limits
        self.where = "start of the archive"
        self._declared = 0
        self._packed = 0
        self._unpacked = 0

    def begin(self, name: str, size: int) -> None:
        """Take a member's name and what it says its size is.

        Raises:
            UnsafeArchive: the members together say they hold more than the limit.
        """
        self.where = label(name)
        self._declared += size
        if self._declared > self.limits.total_bytes:
            self._refuse(f"says it holds {size} bytes, with which the archive exceeds {self.limits.total_bytes}")

    def count_packed(self, size: int) -> None:
        """Count bytes of the archive as it is stored."""
        self._packed += size

    def count_unpacked(self, size: int) -> None:
        """Count bytes that came out of it.

        Raises:
            UnsafeArchive: too many, or too many for the packed bytes they came from.
        """
        self._unpacked += size
        limits = self.limits
        # Headers and padding come out of a tar too, hence the ratio's threshold on top of the total.
        if self._unpacked > limits.total_bytes + limits.ratio_from:
            self._refuse(f"the archive unpacks to more than {limits.total_bytes} bytes")
        if self._unpacked > limits.ratio_from and self._unpacked > self._packed * limits.ratio:
            self._refuse(f"the archive unpacks to more than {limits.ratio} times its packed size")

    def _refuse(self, why: str) -> None:
        raise UnsafeArchive(f"{self.where}: {why}")
