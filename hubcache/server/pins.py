"""What a repo's revision is on this disk, remembered as long as the disk says the same."""

from __future__ import annotations

import os
import threading
import time
from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from itertools import count
from pathlib import Path

from hubcache.cache.about import CARD, CONFIG, read_about
from hubcache.cache.folder import RepoFolder
from hubcache.cache.index import Index
from hubcache.cache.scan import scan_repos
from hubcache.cache.store import Cache
from hubcache.core.about import About
from hubcache.core.artifact import Artifact, Manifest, RepoId, RepoPath, Revision, is_commit
from hubcache.errors import RepoNotFound, RevisionNotFound
from hubcache.localfile import disk_error

MOST_FILES = 100_000
"""Files of all remembered pins together, about half a kilobyte each."""
LOOK = 0.002
"""Seconds between two looks at what a pin was read from: a crowd's requests need not look each."""
BELIEVED = 1.0
"""Seconds for which a snapshot without a listing is believed: files come to it without a sign at its top."""
_serials = count()


@dataclass(frozen=True, slots=True)
class Pin:
    """A repo at a commit, and what else is known of it.

    `stale_since` (unix seconds) is set where upstream gave no answer and this is what it said then; `serial` is no
    other pin's.
    """

    artifact: Artifact
    about: About
    stale_since: float | None = None
    serial: int = field(default_factory=lambda: next(_serials), compare=False)

    @property
    def repo(self) -> RepoId:
        """The repo."""
        return self.artifact.repo

    @property
    def commit(self) -> str:
        """The commit."""
        return self.artifact.revision.commit

    def staled(self, since: float) -> Pin:
        """Say that upstream could not be asked."""
        return replace(self, stale_since=since)


_Stamp = tuple[int, ...]


@dataclass(slots=True)
class _Kept:
    """A pin, the folder it was read from, and what that looked like; `until` and `looked` by the monotonic clock."""

    pin: Pin
    folder: str
    stamp: _Stamp
    until: float
    looked: float = 0.0


class PinShelf:
    """Reads pins from the cache, and keeps those that were asked for last."""

    def __init__(self, cache: Cache, index: Index) -> None:
        self._cache = cache
        self._index = index
        self._lock = threading.Lock()
        self._kept: OrderedDict[tuple[RepoId, str], _Kept] = OrderedDict()
        self._files = 0

    def glance(self, repo: RepoId, revision: str) -> Pin | None:
        """Return a pin that is remembered and still true; None where the disk has to be read."""
        kept = self._kept.get((repo, revision))
        now = time.monotonic()
        if kept is None or (not kept.pin.artifact.is_whole and now > kept.until):
            return None
        if now - kept.looked < LOOK:
            return kept.pin
        stamp = _meaning(kept.folder, revision) + _record(kept.folder, kept.pin.commit)
        if stamp != kept.stamp:
            return None
        kept.looked = now
        return kept.pin

    def pin(self, repo: RepoId, revision: str) -> Pin:
        """Read a revision from the disk; what has no listing is listed by what is there.

        Raises:
            RepoNotFound, RevisionNotFound: it is not here, which says nothing of other places.
            CacheError, IntegrityError: what is here cannot be read.
        """
        if (known := self.glance(repo, revision)) is not None:
            return known
        folder = self._cache.folder(repo)
        try:
            return self._read(folder, revision)
        except OSError as error:
            raise disk_error(error, folder.path) from error

    def _read(self, folder: RepoFolder, revision: str) -> Pin:
        repo, top = folder.repo, str(folder.path)
        meaning = _meaning(top, revision)
        commit = folder.commit_of(revision)
        if commit is None or not folder.snapshot_path(commit).is_dir():
            if not folder.commits():
                raise RepoNotFound(f"{repo} is not in this cache")
            raise RevisionNotFound(f"{repo} has no revision {revision!r} in this cache")
        stamp = meaning + _record(top, commit)
        listing = folder.listing(commit)
        manifest = self._found(folder, commit) if listing is None else listing
        about = read_about(folder, commit, manifest)
        artifact = Artifact(
            repo,
            Revision(revision, commit),
            manifest,
            origin=str(folder.provenance(commit).get("origin") or ""),
            is_whole=listing is not None,
            is_public=not (about.private or about.gated),
        )
        pin = Pin(artifact, about)
        self._keep((repo, revision), _Kept(pin, top, stamp, time.monotonic() + BELIEVED))
        return pin

    def _found(self, folder: RepoFolder, commit: str) -> Manifest:
        """List what a snapshot holds; a link to nothing has no size to tell."""
        files = folder.found(commit, self._index.digests).files
        return Manifest({path: each for path, each in files.items() if folder.has_file(commit, path, each.blob)})

    def refs(self, repo: RepoId) -> Mapping[str, str]:
        """Return the refs that mean a commit."""
        return {name: held for name, held in self._cache.folder(repo).refs().items() if is_commit(held)}

    def repos(self) -> list[RepoId]:
        """List the repos that have a folder here."""
        return [folder.repo for folder in scan_repos(self._cache.root)]

    def first_revision(self, repo: RepoId) -> str | None:
        """Choose the revision that stands for the repo: main, else its newest ref, else a commit; all of them here.

        Raises:
            CacheError: what is here cannot be read.
        """
        folder = self._cache.folder(repo)
        try:
            commits = folder.commits()
        except OSError as error:
            raise disk_error(error, folder.path) from error
        refs = [name for name, commit in self.refs(repo).items() if commit in commits]
        if "main" in refs or not refs:
            return "main" if refs else next(iter(commits), None)
        return max(refs, key=lambda name: _changed(folder.ref_path(name)))

    def is_absent(self, pin: Pin, path: RepoPath) -> bool:
        """Tell whether the commit is known to have no such file: its whole listing says so, or the Hub did."""
        if path in pin.artifact.manifest.files:
            return False
        return pin.artifact.is_whole or self._cache.folder(pin.repo).absent_path(pin.commit, path).is_file()

    def forget(self, repo: RepoId) -> None:
        """Read the repo from the disk when it is asked for next: more is known of it now."""
        with self._lock:
            for key in [key for key in self._kept if key[0] == repo]:
                self._files -= _weight(self._kept.pop(key))

    def _keep(self, key: tuple[RepoId, str], kept: _Kept) -> None:
        with self._lock:
            if (old := self._kept.pop(key, None)) is not None:
                self._files -= _weight(old)
            self._kept[key] = kept
            self._files += _weight(kept)
            while self._files > MOST_FILES and len(self._kept) > 1:
                _, oldest = self._kept.popitem(last=False)
                self._files -= _weight(oldest)


def _weight(kept: _Kept) -> int:
    return len(kept.pin.artifact.manifest.files) + 8


def _meaning(folder: str, revision: str) -> _Stamp:
    """Return what changes when the revision means another commit, or the commit gets its listing."""
    if is_commit(revision):
        return (*_state(f"{folder}/snapshots/{revision}")[1:], *_state(f"{folder}/trees/{revision}.json"))
    return _state(f"{folder}/refs/{revision}")


def _record(folder: str, commit: str) -> _Stamp:
    """Return what changes when more is known of the repo: a card that comes later may say that it is gated."""
    files = ("provenance", f"snapshots/{commit}/{CARD}", f"snapshots/{commit}/{CONFIG}")
    return tuple(part for path in files for part in _state(f"{folder}/{path}") or (0, 0))


def _state(path: str) -> _Stamp:
    try:
        status = os.stat(path)
    except OSError:
        return ()
    return (status.st_mtime_ns, status.st_ino)


def _changed(path: Path) -> float:
    try:
        return path.stat().st_mtime
    except OSError:
        return 0.0
