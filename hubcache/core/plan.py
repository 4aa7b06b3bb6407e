"""What a copy would do, decided before anything is done."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from hubcache.core.artifact import Artifact, RepoPath
from hubcache.core.digests import Blob, Digest


@dataclass(frozen=True, slots=True)
class PlannedFile:
    """One file of a plan: `present` when the store has its bytes already."""

    path: RepoPath
    blob: Blob
    present: bool


@dataclass(frozen=True, slots=True)
class CopyPlan:
    """The wanted files of an artifact and which of their blobs have to come."""

    artifact: Artifact
    files: tuple[PlannedFile, ...]

    @property
    def missing(self) -> tuple[PlannedFile, ...]:
        """One file for every blob to be transferred, largest first."""
        first: dict[Digest, PlannedFile] = {}
        for file in self.files:
            if not file.present:
                first.setdefault(file.blob.digest, file)
        return tuple(sorted(first.values(), key=lambda file: -file.blob.size))

    @property
    def missing_size(self) -> int:
        """Bytes to be transferred."""
        return sum(file.blob.size for file in self.missing)

    @property
    def size(self) -> int:
        """Bytes of all wanted files, each blob counted once."""
        return sum({file.blob.digest: file.blob.size for file in self.files}.values())


@dataclass(frozen=True, slots=True)
class Preview:
    """What would be fetched where the commit is only known afterwards: paths and bytes (None: not told)."""

    files: tuple[tuple[str, int | None], ...]

    @property
    def size(self) -> int:
        """Bytes of all files whose size is told."""
        return sum(size or 0 for _, size in self.files)


def plan_copy(artifact: Artifact, paths: Sequence[RepoPath], has: Callable[[RepoPath, Blob], bool]) -> CopyPlan:
    """Plan which of the artifact's files `paths` have to be transferred; `has` tells what is there."""
    files = []
    for path in paths:
        blob = artifact.entry(path).blob
        files.append(PlannedFile(path, blob, has(path, blob)))
    return CopyPlan(artifact, tuple(files))
