"""One cached commit, described for people: where it came from, its files, which of them can run code."""

from __future__ import annotations

import os
from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path

from hubcache.app.local import LocalApp, find, source_text
from hubcache.app.records import open_index
from hubcache.cache.about import read_about
from hubcache.cache.folder import RepoFolder
from hubcache.cache.index import FileState
from hubcache.cache.pinned import ALL, Pinned, read_pins
from hubcache.core.about import About
from hubcache.core.artifact import Conversion, Kind, RepoId, RepoPath
from hubcache.core.digests import Blob
from hubcache.core.risks import Risk, risk
from hubcache.core.select import select
from hubcache.errors import EntryNotFound


@dataclass(frozen=True, slots=True)
class DescribedFile:
    """A file of the commit; `present` says that the snapshot has it with its size."""

    path: RepoPath
    blob: Blob
    present: bool
    risk: Risk


@dataclass(frozen=True, slots=True)
class Description:
    """A commit in the cache; what is not known of its origin is empty, times are in unix seconds.

    `pins` are those that keep it, whatever a budget says; `verified_at` is when the one of its files that was hashed
    longest ago was, None where one of them never was.

    `conversion` tells what it was made of, `is_listed` says that the commit's listing is here, so that `files` are
    all of its files.
    """

    repo: RepoId
    commit: str
    refs: tuple[str, ...]
    path: Path
    origin: str
    source: str
    pulled_at: int | None
    is_listed: bool
    files: tuple[DescribedFile, ...]
    conversion: Conversion | None = None
    about: About = field(default_factory=About)
    pins: tuple[Pinned, ...] = ()
    verified_at: int | None = None

    @property
    def size(self) -> int:
        """All files' bytes, here or not."""
        return sum(file.blob.size for file in self.files)

    @property
    def missing(self) -> list[DescribedFile]:
        """The files that are not here."""
        return [file for file in self.files if not file.present]


def describe(app: LocalApp, text: str, *, kind: Kind | None = None) -> Description:
    """Describe what a reference means in the cache; no hub is asked.

    Raises:
        OfflineError: it is not in the cache.
        EntryNotFound: the reference names a file that the commit does not have.
    """
    [(reference, artifact)] = find(app, [text], kind=kind)
    folder, commit = app.cache.folder(artifact.repo), artifact.revision.commit
    told = folder.provenance(commit)
    snapshot = folder.snapshot_path(commit)
    paths = select(artifact.manifest.files, below=reference.path)
    if reference.path and not paths:
        raise EntryNotFound(f"{artifact.repo}@{commit[:12]} has no file {reference.path}")
    blobs = {path: artifact.manifest.files[path].blob for path in paths}
    pulled_at = told.get("pulled_at")
    return Description(
        repo=artifact.repo,
        commit=commit,
        refs=tuple(sorted(name for name, held in folder.refs().items() if held == commit)),
        path=snapshot,
        origin=str(told.get("origin") or ""),
        source=source_text(told),
        pulled_at=pulled_at if isinstance(pulled_at, int) else None,
        is_listed=folder.listing(commit) is not None,
        files=tuple(
            DescribedFile(path, blob, _is_present(snapshot / path, blob), risk(path)) for path, blob in blobs.items()
        ),
        conversion=folder.conversion(commit),
        about=read_about(folder, commit, artifact.manifest),
        pins=_pins(folder, commit),
        verified_at=_verified_at(
            app, folder, [each for path, each in blobs.items() if _is_present(snapshot / path, each)]
        ),
    )


def _pins(folder: RepoFolder, commit: str) -> tuple[Pinned, ...]:
    """List the pins that keep a commit: of the repo, of the commit, or of a ref that means it."""
    pins = read_pins(folder)
    return tuple(each for name, each in pins.items() if name == ALL or folder.commit_of(name) == commit)


def _verified_at(app: LocalApp, folder: RepoFolder, blobs: Sequence[Blob]) -> int | None:
    """Find when the blobs were last proven, the one that this was longest ago."""
    times = []
    with closing(open_index(app.settings)) as index:
        for blob in blobs:
            path = folder.blob_path(blob.digest)
            if not path.is_file():
                return None
            times.append(index.proven_at(path, blob.digest, FileState.of(path.stat())))
    return min(times, default=0) or None


def _is_present(file: Path, blob: Blob) -> bool:
    try:
        return os.stat(file).st_size == blob.size
    except OSError:
        return False
