"""Foreign files taken into the cache as blobs, their bytes shared where that can be; which files is not decided here.

A file is known by the state it was hashed in. It is looked at again when its bytes stand in the cache's own file, and
what has changed meanwhile, or might have, is hashed once more before the blob gets its name.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from hubcache.cache.cloning import can_reflink, copy_bytes, hardlink, may_link, open_regular, reflink
from hubcache.cache.folder import RepoFolder
from hubcache.cache.index import FileState
from hubcache.core.adoptable import How
from hubcache.core.digests import Blob, new_hasher
from hubcache.errors import IntegrityError
from hubcache.localfile import disk_error, hash_file, temporary_name

RACY = 2_000_000_000
"""ns: a file written this shortly before it was hashed may have been written again without a sign, on any clock."""


@dataclass(frozen=True, slots=True)
class Hashed:
    """A file as it was hashed: where, its state then, when the hashing began (unix ns)."""

    place: str
    state: FileState
    at: int

    @property
    def is_certain(self) -> bool:
        """Whether any later change shows in the file's state."""
        return self.state.changed + RACY < self.at


def expected_way(hashed: Hashed, ways: Sequence[How], folder: Path) -> How:
    """Foresee which of the ways will work from here into a folder that exists; nothing is written."""
    status = os.stat(hashed.place)
    links = may_link(status) and status.st_dev == os.stat(folder).st_dev
    for way in ways:
        if (way == "reflink" and can_reflink(hashed.place, folder)) or (way == "hardlink" and links):
            return way
    return "copy"


def take(folder: RepoFolder, blob: Blob, hashed: Hashed, ways: Sequence[How], *, scratch: Path) -> How:
    """Make a file the repo's blob, by the first of the ways that works; tell which did.

    `scratch` is a folder of the repo's own, whose leftovers are swept.

    Raises:
        IntegrityError: the file is not what was hashed, or cannot be read any more.
        DiskFull, CacheError: as the disk refuses.
    """
    try:
        source = open_regular(hashed.place)
    except OSError as error:
        raise IntegrityError(f"{hashed.place}: {error.strerror}") from error
    target = temporary_name(scratch / blob.digest.hex)
    try:
        _check_state(os.fstat(source), hashed)
        how = _bring(source, target, blob, hashed, ways)
        os.replace(target, folder.blob_path(blob.digest))
        return how
    except OSError as error:
        raise disk_error(error, target, needed=blob.size) from error
    finally:
        os.close(source)
        with suppress(OSError):
            target.unlink()


def _bring(source: int, target: Path, blob: Blob, hashed: Hashed, ways: Sequence[How]) -> How:
    """Put the bytes into a file of the cache's own disk, synced and certain to be the blob's."""
    links = "hardlink" in ways and may_link(os.fstat(source))
    # Another name that somebody may write to; what is moved should have none.
    is_sole = os.fstat(source).st_nlink == 1
    for way in ways:
        if way == "hardlink" and links and (is_sole or ways[0] != "hardlink") and hardlink(hashed.place, target):
            os.fsync(source)
            _check_state(os.lstat(target), hashed)
            _check_bytes(target, blob, hashed)
            return "hardlink"
        if way == "reflink" and _clone(source, target):
            _check_state(os.fstat(source), hashed)
            _check_bytes(target, blob, hashed)
            return "reflink"
    _copy(source, target, blob, hashed)
    return "copy"


def _clone(source: int, target: Path) -> bool:
    fd = os.open(target, os.O_CREAT | os.O_EXCL | os.O_RDWR, 0o666)
    is_cloned = False
    try:
        is_cloned = reflink(source, fd)
        if is_cloned:
            os.fsync(fd)
    finally:
        os.close(fd)
        if not is_cloned:
            target.unlink()
    return is_cloned


def _copy(source: int, target: Path, blob: Blob, hashed: Hashed) -> None:
    hasher = new_hasher(blob.digest.algorithm, blob.size)
    fd = os.open(target, os.O_CREAT | os.O_EXCL | os.O_RDWR, 0o666)
    try:
        copy_bytes(source, fd, hasher)
        os.fsync(fd)
    finally:
        os.close(fd)
    if hasher.hexdigest() != blob.digest.hex:
        raise IntegrityError(f"{hashed.place} changed while it was read")


def _check_state(status: os.stat_result, hashed: Hashed) -> None:
    if FileState.of(status) != hashed.state:
        raise IntegrityError(f"{hashed.place} changed while it was read")


def _check_bytes(target: Path, blob: Blob, hashed: Hashed) -> None:
    if not hashed.is_certain and not holds(target, blob):
        raise IntegrityError(f"{hashed.place} changed while it was read")


def holds(file: Path, blob: Blob) -> bool:
    """Tell, by hashing it, whether a file holds a blob's bytes."""
    hasher = new_hasher(blob.digest.algorithm, blob.size)
    return hash_file(file, hasher) == blob.size and hasher.hexdigest() == blob.digest.hex


def remove_source(hashed: Hashed, blob: Blob, kept: Path) -> bool:
    """Remove a file that the cache has now; not where it changed since, or `kept` does not hold its bytes.

    Raises:
        CacheError: it cannot be removed.
    """
    try:
        status = os.lstat(hashed.place)
        if FileState.of(status) != hashed.state:
            return False
        is_same = os.path.samestat(status, os.stat(kept))
        if not (is_same and hashed.is_certain) and not holds(kept, blob):
            return False
        os.unlink(hashed.place)
        return True
    except FileNotFoundError:
        return False
    except OSError as error:
        raise disk_error(error, Path(hashed.place)) from error
