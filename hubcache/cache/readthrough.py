"""The cache in front of a source: what upstream cannot tell, the cache answers from last time."""

from __future__ import annotations

from collections.abc import Callable, Collection

from hubcache.core.artifact import Artifact, RepoPath
from hubcache.core.plan import Preview
from hubcache.core.ports import Content, Mirrored, Previewing, Source
from hubcache.core.reference import Reference
from hubcache.errors import EntryNotFound, OfflineError, SourceUnavailable
from hubcache.fetch import CONNECTIONS


class ReadThrough:
    """Asks upstream, and the cache where upstream gives no answer (an answer "no" is an answer)."""

    def __init__(self, cache: Source, upstream: Source, *, notify: Callable[[str], None]) -> None:
        self._cache = cache
        self._upstream = upstream
        self._notify = notify

    def resolve(self, reference: Reference, /) -> Artifact:
        """Pin a reference upstream, else to what it was here last time, saying so."""
        try:
            return self._upstream.resolve(reference)
        except SourceUnavailable as unavailable:
            try:
                artifact = self._cache.resolve(reference)
            except OfflineError as not_cached:
                raise (not_cached if isinstance(unavailable, OfflineError) else unavailable) from not_cached
            if not isinstance(unavailable, OfflineError):
                self._notify(
                    f"{unavailable.message}; going on with {artifact.revision.asked} as cached,"
                    f" {artifact.revision.commit[:12]}"
                )
            return artifact

    def open(self, artifact: Artifact, path: RepoPath, start: int = 0, end: int | None = None) -> Content:
        """Open a file from the cache, else upstream."""
        try:
            return self._cache.open(artifact, path, start, end)
        except EntryNotFound:
            return self._upstream.open(artifact, path, start, end)

    @property
    def connections(self) -> int:
        """How many connections to upstream one file may use."""
        return self._upstream.connections if isinstance(self._upstream, Mirrored) else CONNECTIONS

    def open_at(self, origin: str, artifact: Artifact, path: RepoPath, start: int, end: int | None) -> Content:
        """Open a range at one of upstream's origins."""
        if not isinstance(self._upstream, Mirrored):
            return self._upstream.open(artifact, path, start, end)
        return self._upstream.open_at(origin, artifact, path, start, end)

    def drop(self, origins: Collection[str]) -> bool:
        """Let upstream ask these origins no more; tell whether it has others."""
        return isinstance(self._upstream, Mirrored) and self._upstream.drop(origins)

    def preview(self, reference: Reference, /) -> Preview | None:
        """Say what resolving would fetch, where upstream must fetch to resolve."""
        return self._upstream.preview(reference) if isinstance(self._upstream, Previewing) else None

    def close(self) -> None:
        """Close the upstream source."""
        self._upstream.close()
