"""Digests as parsed values, and the hashers that compute them; nothing here touches a file."""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass
from typing import Literal, Protocol

from hubcache.errors import BadReference

Algorithm = Literal["git-sha1", "sha256"]

_SHAPES: dict[int, Algorithm] = {40: "git-sha1", 64: "sha256"}
_HEX = re.compile(r"[0-9a-f]+", re.ASCII)


@dataclass(frozen=True, slots=True, order=True)
class Digest:
    """The name of some bytes: 40 lower-case hex digits for git-sha1, 64 for sha256."""

    algorithm: Algorithm
    hex: str

    @classmethod
    def parse(cls, text: str) -> Digest:
        """Parse bare lower-case hex, told apart by its length.

        Raises:
            BadReference: any other text; nothing else may become a blob's file name.
        """
        algorithm = _SHAPES.get(len(text))
        if algorithm is None or not _HEX.fullmatch(text):
            raise BadReference(f"not a git-sha1 or sha256 digest: {text[:80]!r}")
        return cls(algorithm, text)

    def __str__(self) -> str:
        return self.hex


@dataclass(frozen=True, slots=True, order=True)
class Blob:
    """Content named by what it is: its digest and its size in bytes."""

    digest: Digest
    size: int


class Hasher(Protocol):
    """What hashlib's objects do, as far as hubcache uses them."""

    def update(self, data: bytes | memoryview, /) -> None: ...
    def hexdigest(self) -> str: ...


def new_hasher(algorithm: str, size: int) -> Hasher:
    """Start a hash of `size` bytes; git-sha1 is sha1 over git's blob header and the bytes.

    `algorithm` is git-sha1, sha256, or md5 (what SparseZoo and object stores publish).
    """
    if algorithm == "git-sha1":
        return hashlib.sha1(b"blob %d\0" % size, usedforsecurity=False)
    return hashlib.new(algorithm, usedforsecurity=False)


def digest_bytes(algorithm: Algorithm, content: bytes) -> Digest:
    """Hash bytes in memory."""
    hasher = new_hasher(algorithm, len(content))
    hasher.update(content)
    return Digest(algorithm, hasher.hexdigest())
