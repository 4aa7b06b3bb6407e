"""Bytes handed from upstream to one client without being kept; a whole file is still proven before its last bytes."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import suppress
from dataclasses import dataclass

from hubcache.core.artifact import Artifact, RepoPath
from hubcache.core.digests import new_hasher
from hubcache.core.ports import Content, Source
from hubcache.errors import IntegrityError, SourceUnavailable
from hubcache.server.flow import HELD_BACK
from hubcache.server.workers import Workers

CHUNK = 256 << 10
MOST = 64
_workers = Workers(MOST)


@dataclass(frozen=True, slots=True)
class Passage:
    """A file that comes from upstream for one client alone; `on_wrong` hears that a part of it was wrong."""

    source: Source
    artifact: Artifact
    path: RepoPath
    on_wrong: Callable[[], None]

    async def bytes(self, start: int, end: int) -> AsyncIterator[bytes]:
        """Yield bytes [start, end); of a whole file, the last ones only when the digest is right.

        Raises:
            IntegrityError: upstream sent something else; the last bytes were not handed on.
            SourceUnavailable: it sent nothing, or broke off.
        """
        blob = self.artifact.entry(self.path).blob
        hasher = new_hasher(blob.digest.algorithm, blob.size) if (start, end) == (0, blob.size) else None
        held = b""
        content = await _workers.result(lambda: self.source.open(self.artifact, self.path, start, end))
        reader = _Reader(content, start, end)
        try:
            while chunk := await _workers.result(reader.read):
                if hasher is None:
                    yield chunk
                    continue
                hasher.update(chunk)
                held += chunk
                if len(held) > HELD_BACK:
                    yield held[:-HELD_BACK]
                    held = held[-HELD_BACK:]
        finally:
            with suppress(SourceUnavailable):
                content.close()
        if reader.at != end:
            raise SourceUnavailable(f"{content.origin} sent {reader.at - start} bytes of {end - start}")
        if hasher is not None and hasher.hexdigest() != blob.digest.hex:
            self.on_wrong()
            raise IntegrityError(f"{content.origin} sent wrong bytes of {self.artifact.repo}/{self.path}")
        if held:
            yield held


class _Reader:
    """Reads bytes [at, end) of a content, also of one that ignores its range."""

    def __init__(self, content: Content, start: int, end: int) -> None:
        self._content = content
        self._skip = start - content.start
        self._end = end
        self.at = start

    def read(self) -> bytes:
        while self._skip > 0:
            skipped = self._content.read(min(CHUNK, self._skip))
            if not skipped:
                return b""
            self._skip -= len(skipped)
        left = min(CHUNK, self._end - self.at)
        chunk = self._content.read(left) if left > 0 else b""
        self.at += len(chunk)
        return chunk
