"""Files that come from upstream while clients wait for them: one transfer each, whoever waits, and whoever leaves."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Protocol, runtime_checkable

from hubcache.cache.store import Cache
from hubcache.core.artifact import Artifact, RepoId, RepoPath, Revision
from hubcache.core.digests import Blob, Digest
from hubcache.core.plan import CopyPlan, PlannedFile
from hubcache.core.ports import Mirrored, Source
from hubcache.core.reference import Reference
from hubcache.crew import Stop
from hubcache.errors import CacheError, HubcacheError, IntegrityError, SourceUnavailable
from hubcache.fetch import CONNECTIONS, TransferLimits
from hubcache.partial import PartialFile
from hubcache.server.flow import Flow
from hubcache.server.workers import Workers
from hubcache.transfer import BlobWriter, copy

MOST_FILLS = 64
FEW_FILLS = 4
"""Fills at once up to which each may use several connections."""
CONNECTIONS_EACH = 8
CLOSING = 2.0
"""Seconds that running fills get to write down how far they came."""
REFUSED = 5.0
"""Seconds for which a file of which upstream sent wrong bytes is not asked for again."""
SUSPECT = 3600.0
"""Seconds for which a client may come back with a part of wrong bytes, to ask for the rest."""


@runtime_checkable
class LongLived(Protocol):
    """A source that remembers for a run whom not to ask any more, and outlives many runs here: one for each fill."""

    def for_one_run(self) -> Source:
        """Share all but that memory."""
        ...


class Fill(Flow):
    """A flow that is filling up; it is its own progress, told by the threads that transfer."""

    def __init__(self, size: int, *, on_wrong: Callable[[], None]) -> None:
        super().__init__(size)
        self._partial: PartialFile | None = None
        self._on_wrong = on_wrong
        self.is_placed = False

    def _there(self, at: int) -> int:
        if self._partial is None:
            return self.size if self.is_proven else at
        return self._partial.reach(at)

    def attach(self, partial: PartialFile | None) -> None:
        """Take the file that the bytes go to from now on; a published one's writer has none, and its bytes stay."""
        if partial is not None and partial is not self._partial:
            self.path, self._partial = partial.path, partial

    def prove(self, digest: Digest) -> None:
        """Hold the complete file against its digest: all of it may be sent, or nothing more of it."""
        partial = self._partial
        if partial is None:
            return
        if partial.digests()[digest.algorithm] == digest.hex:
            self.is_proven = True
        else:
            self._on_wrong()
            self._partial = None
            self.edition += 1
        self.tell()

    def publish(self, path: Path) -> None:
        """Say that the file has its name; another process may have brought it."""
        self.path, self.is_proven, self.is_placed = path, True, True
        self.tell()

    def fail(self, failure: HubcacheError) -> None:
        """Say that there will be no more."""
        self.failure = failure
        self.tell()

    def begin(self, files: int, size: int, /) -> None:
        """Hear that the transfer begins."""

    def advance(self, size: int, origin: str, /) -> None:
        """Hear that bytes came."""
        self.tell()

    def finish_file(self, path: str, /) -> None:
        """Hear that the file is in the store."""
        self.tell()


class _WatchedWriter:
    """A blob's writer whose partial file the fill knows, and whose digest it hears of before the bytes are synced."""

    def __init__(self, writer: BlobWriter, fill: Fill, blob: Blob) -> None:
        self._writer = writer
        self._fill = fill
        self._blob = blob

    @property
    def partial(self) -> PartialFile | None:
        self._fill.attach(self._writer.partial)
        return self._writer.partial

    @partial.setter
    def partial(self, partial: PartialFile | None) -> None:
        self._writer.partial = partial

    def publish(self, origins: Collection[str], /) -> None:
        self._fill.prove(self._blob.digest)
        self._writer.publish(origins)


class _WatchedStore:
    """The cache, with a fill that watches what is written."""

    def __init__(self, cache: Cache, fill: Fill) -> None:
        self._cache = cache
        self._fill = fill

    @contextmanager
    def write(self, repo: RepoId, blob: Blob, /, stop: Stop) -> Iterator[BlobWriter]:
        with self._cache.write(repo, blob, stop) as writer:
            yield _WatchedWriter(writer, self._fill, blob)


class Suspects:
    """Blobs of which clients may have got wrong bytes within the last hour, and must not get only the rest."""

    def __init__(self) -> None:
        self._until: dict[Digest, float] = {}

    def note(self, digest: Digest) -> None:
        """Note that wrong bytes of this blob were sent, or bytes that nobody will prove."""
        self._until[digest] = time.monotonic() + SUSPECT

    def __contains__(self, digest: Digest) -> bool:
        return time.monotonic() < self._until.get(digest, 0.0)


class Fills:
    """The fills that are under way, each in a thread that no client's leaving stops."""

    def __init__(self, cache: Cache, source: Source, *, log: Callable[[str], None]) -> None:
        self._cache = cache
        self._source = source
        self._log = log
        self._stop = Stop()
        self._lock = threading.Lock()
        self._running: dict[tuple[RepoId, Digest], Fill] = {}
        self.suspects = Suspects()
        self._refused: dict[tuple[RepoId, Digest], tuple[float, HubcacheError]] = {}
        self._workers = Workers(MOST_FILLS)

    def open(self, artifact: Artifact, path: RepoPath) -> Flow:
        """Return the fill of a file, begun if nobody else asked for it yet; called on the event loop.

        Raises:
            IntegrityError: upstream sent wrong bytes of it a moment ago.
        """
        blob = artifact.entry(path).blob
        key = (artifact.repo, blob.digest)
        until, refusal = self._refused.get(key, (0.0, None))
        if refusal is not None and time.monotonic() < until:
            raise refusal
        with self._lock:
            running = self._running.get(key)
            if running is not None:
                return running
            fill = self._running[key] = Fill(blob.size, on_wrong=lambda: self.suspects.note(blob.digest))
        self._workers.start(lambda: self._run(fill, artifact, path))
        return fill

    def running(self, artifact: Artifact, path: RepoPath) -> Flow | None:
        """Return the fill of a file that is under way; what stands in the cache of it may be about to move."""
        return self._running.get((artifact.repo, artifact.entry(path).blob.digest))

    def close(self) -> None:
        """Stop all fills; what has come stays and is resumed by the next process."""
        self._stop.set()
        self._workers.wait(CLOSING)

    def _run(self, fill: Fill, artifact: Artifact, path: RepoPath) -> None:
        blob = artifact.entry(path).blob
        key = (artifact.repo, blob.digest)
        began = time.monotonic()
        try:
            self._copy(fill, artifact, path)
            self._log(f"stored {artifact.repo}/{path}: {blob.size} bytes in {time.monotonic() - began:.1f} s")
        except HubcacheError as error:
            self._log(f"cannot store {artifact.repo}/{path}: {error.message}")
            if isinstance(error, IntegrityError):
                self._refused[key] = (time.monotonic() + REFUSED, error)
            elif isinstance(error, CacheError):  # the rest comes another way, and nobody would prove the whole
                self.suspects.note(blob.digest)
            fill.fail(error)
        finally:
            if not fill.is_proven and fill.failure is None:
                fill.fail(SourceUnavailable(f"{artifact.repo}/{path}: the transfer failed unexpectedly"))
            with self._lock:
                self._running.pop(key, None)

    def _copy(self, fill: Fill, artifact: Artifact, path: RepoPath) -> None:
        """Transfer one file and make it visible; no ref is touched: another commit may be the branch's by then."""
        blob = artifact.entry(path).blob
        plan = CopyPlan(artifact, (PlannedFile(path, blob, present=False),))
        store = _WatchedStore(self._cache, fill)
        source = self._source.for_one_run() if isinstance(self._source, LongLived) else self._source
        copy(source, plan, store, progress=fill, limits=self._limits(), wanted=fill.wanted, stop=self._stop)
        if self._stop.is_set():
            raise SourceUnavailable("the server is about to stop")
        folder, commit = self._cache.folder(artifact.repo), artifact.revision.commit
        if self._cache.symlinks:
            fill.publish(folder.blob_path(blob.digest))
        pinned = replace(artifact, revision=Revision(commit, commit), refs=())
        name = (artifact.published_as or artifact.repo).name
        self._cache.commit(pinned, Reference("hf", name, artifact.repo, commit), paths=[path])
        if not self._cache.symlinks:  # the blob has become the snapshot's file
            fill.publish(folder.snapshot_path(commit) / path)

    def _limits(self) -> TransferLimits:
        few = len(self._running) <= FEW_FILLS
        most = self._source.connections if isinstance(self._source, Mirrored) else CONNECTIONS
        return TransferLimits(connections=min(most, CONNECTIONS_EACH) if few else 1)
