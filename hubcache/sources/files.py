"""A source of files that stand on this machine already, by their path in the repo; it resolves nothing."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from hubcache.core.artifact import Artifact, RepoPath
from hubcache.core.reference import Reference
from hubcache.errors import EntryNotFound
from hubcache.localfile import FileContent


@dataclass(frozen=True, slots=True)
class LocalFiles:
    """Where one artifact's files stand: `movable` ones may be taken away whole, `fixed` ones are copied."""

    artifact: Artifact
    movable: Mapping[RepoPath, Path]
    fixed: Mapping[RepoPath, Path]

    def resolve(self, reference: Reference, /) -> Artifact:
        """Return the artifact: there is nothing else here."""
        return self.artifact

    def open(self, artifact: Artifact, path: RepoPath, start: int = 0, end: int | None = None) -> FileContent:
        """Open a file where it stands."""
        if (file := self.movable.get(path)) is not None:
            return FileContent(file, start, end, movable=True)
        if (file := self.fixed.get(path)) is not None:
            return FileContent(file, start, end)
        raise EntryNotFound(f"{artifact.repo} has no file {path!r} on this machine")

    def close(self) -> None:
        """Hold nothing."""
