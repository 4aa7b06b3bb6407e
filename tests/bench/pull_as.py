"""hubcache's command line, its pulls verified as ever or, for a comparison alone, not at all.

`python -m tests.bench.pull_as verified|unverified pull …`. Unverified, no byte is hashed or read again, and every
digest counts as the right one; nothing of that is in hubcache, which has no such mode.
"""

from __future__ import annotations

import sys

from hubcache_cli.main import main

from hubcache.cache import writer
from hubcache.partial import PartialFile


class Right(str):
    """A digest that is equal to any other."""

    __hash__ = str.__hash__

    def __eq__(self, other: object) -> bool:
        return True

    def __ne__(self, other: object) -> bool:
        return False


class Unverified(PartialFile):
    """A partial file that nobody hashes."""

    def unhashed(self) -> int:
        """Have nobody wait for a hash."""
        return 0

    def follow(self, _: object) -> None:
        """Follow nothing."""

    def digests(self) -> dict[str, str]:
        """Call it right."""
        return {"git-sha1": Right(), "sha256": Right()}

    def _hash_chunk(self, start: int, chunk: bytes) -> None:
        pass


if __name__ == "__main__":
    if sys.argv.pop(1) == "unverified":
        setattr(writer, "PartialFile", Unverified)  # noqa: B010  # the one place where pulls get theirs
    main()
