"""The protocols between the parts: sources, contents, stores, stages; no behaviour lives here."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Protocol, Self, runtime_checkable

from hubcache.core.artifact import Artifact, Manifest, RepoId, RepoPath
from hubcache.core.digests import Blob
from hubcache.core.plan import Preview
from hubcache.core.reference import Reference


class Content(Protocol):
    """Bytes [start, end) of one file as they arrive: a context manager, closed when it ends.

    `start` and `end` are what is really sent (0 and the file's size from a server that ignores
    ranges; None where it does not tell), `total` the whole file's size, `origin` the place the
    bytes come from as people know it, and `file` a finished local file that may be moved away.
    """

    start: int
    end: int | None
    total: int | None
    origin: str
    file: Path | None

    def read(self, limit: int, /) -> bytes:
        """Return 1 to `limit` bytes, b"" at the end.

        Raises:
            SourceUnavailable: the transfer broke off, timed out or ended short.
        """
        ...

    def close(self) -> None: ...
    def __enter__(self) -> Self: ...
    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None, /
    ) -> None: ...


OpenRange = Callable[[int, int | None], Content]
"""Open bytes [start, end) of one known file; end None means its end."""


class Source(Protocol):
    """Where artifacts come from. Contract: tests/contracts.py."""

    def resolve(self, reference: Reference, /) -> Artifact:
        """Pin a reference to a commit and its manifest.

        Raises:
            NotFound: it does not exist there.
            AccessDenied: it may exist, but not for you.
            SourceUnavailable: no answer.
        """
        ...

    def open(self, artifact: Artifact, path: RepoPath, start: int = 0, end: int | None = None) -> Content:
        """Open a file's bytes from `start` to before `end`.

        Raises before it returns, never on the first read:
            EntryNotFound: the commit has no such file.
            AccessDenied, SourceUnavailable: as in resolve.
        """
        ...

    def close(self) -> None:
        """Let go of what is held open; artifacts stay valid."""
        ...


@runtime_checkable
class Previewing(Protocol):
    """A source that must fetch to resolve, and can say beforehand what."""

    def preview(self, reference: Reference, /) -> Preview | None:
        """Say what resolving would fetch; None where it would fetch nothing."""
        ...


@runtime_checkable
class RefTelling(Protocol):
    """A source whose repos have refs that can be listed."""

    def refs(self, repo: RepoId, /) -> Mapping[str, str]:
        """Return what each ref means, as the cache names refs.

        Raises:
            NotFound, AccessDenied, SourceUnavailable: as resolve.
            IntegrityError: the answer makes no sense.
        """
        ...


@runtime_checkable
class Mirrored(Protocol):
    """A source with several origins for the same bytes; `connections` is how many one file may use of them."""

    @property
    def connections(self) -> int: ...

    def open_at(self, origin: str, artifact: Artifact, path: RepoPath, start: int, end: int | None) -> Content:
        """Open a range at this origin and no other."""
        ...

    def drop(self, origins: Collection[str]) -> bool:
        """Ask these origins no more in this run; tell whether others remain."""
        ...


class Progress(Protocol):
    """Who wants to know how a copy goes; called from several threads."""

    def begin(self, files: int, size: int, /) -> None:
        """Say what is to be transferred: files, and bytes still to come."""
        ...

    def advance(self, size: int, origin: str, /) -> None:
        """Say that `size` bytes arrived from `origin` (a negative size takes bytes back)."""
        ...

    def finish_file(self, path: str, /) -> None:
        """Say that a file is verified and in the store."""
        ...


class Store(Source, Protocol):
    """A place that keeps blobs and commits, and is a source itself."""

    def has(self, repo: RepoId, blob: Blob, /) -> bool: ...
    def commit(self, artifact: Artifact, reference: Reference, /) -> Path:
        """Make the artifact visible: links, listing, then refs; return the snapshot folder."""
        ...


@dataclass(frozen=True, slots=True)
class Recalled:
    """What a reference became last time: its commit, that commit's listing, upstream's validator and origin of then."""

    commit: str
    manifest: Manifest
    validator: str | None
    origin: str


class Stage(Protocol):
    """A place where files of no known commit wait: kept between processes until the commit is published.

    `require_space(size)` raises DiskFull where `size` more bytes do not fit.
    """

    folder: Path
    require_space: Callable[[int], None]

    def place(self, path: RepoPath, file: Path, /) -> None:
        """Take a finished file of this stage's folder as the repo's `path`, and hash it."""
        ...

    def write(self, path: RepoPath, chunks: Iterable[bytes], size: int, /) -> None:
        """Write a file of `size` bytes as the repo's `path`, hashing it."""
        ...

    def rename(self, names: Mapping[RepoPath, RepoPath], /) -> None:
        """Give every file the name it has in `names`; one that is not there is left out."""
        ...

    def manifest(self) -> Manifest:
        """Return what was taken so far."""
        ...

    def file(self, path: RepoPath, /) -> Path:
        """Return where a taken file stands."""
        ...


class Memory(Protocol):
    """What a source may ask the cache, to spare requests."""

    def listing(self, repo: RepoId, commit: str) -> Manifest | None: ...
    def recall(self, reference: Reference) -> Recalled | None: ...
    def origin_of(self, repo: RepoId, ref: str) -> str | None:
        """Return what the ref's commit was pulled from (`hf:org/name`); None where there is no such ref."""
        ...

    def stage(self, reference: Reference) -> AbstractContextManager[Stage]:
        """Hold the reference's stage; another process that pulls the same one waits for it."""
        ...
