"""What the readers of layouts share: their bounds, safe listings, small files; no layout is known here."""

from __future__ import annotations

import os
import stat
from collections.abc import Collection
from dataclasses import dataclass, field
from pathlib import Path

from hubcache.core.adoptable import FoundFile, Left
from hubcache.core.artifact import Kind, RepoId, RepoPath, parse_path
from hubcache.core.digests import Blob
from hubcache.core.urls import local_stem
from hubcache.errors import BadReference

MOST_FILES = 100_000
LONGEST_NOTE = 16 << 20
LITTER = frozenset({".git", ".cache", ".DS_Store", "__MACOSX", "Thumbs.db"})
"""What `hubcache pull ./folder` leaves out, too: its commit is the same."""


@dataclass(frozen=True, slots=True)
class Seeing:
    """What the readers need to know.

    Attributes:
        kind: what a folder is that does not say it.
        hub_urls: under which addresses the Hub is known.
        search_path: where commands are looked for.
        own_cache: the cache that adopts, which is not adopted.
    """

    kind: Kind = "model"
    hub_urls: tuple[str, ...] = ()
    search_path: str | None = None
    own_cache: str = ""


@dataclass(slots=True)
class Listing:
    """The regular files of a folder, by their path in it, and what is left alone."""

    files: dict[RepoPath, FoundFile] = field(default_factory=dict)
    left: list[Left] = field(default_factory=list)


def list_files(top: Path, ignored: Collection[str] = LITTER) -> Listing:
    """List the files below a folder; names that no repo may have, special files and links that lead out are left."""
    listing = Listing()
    real_top = os.path.realpath(top)
    for folder, folders, names in os.walk(top):
        for name in sorted(folders):
            if name not in ignored and os.path.islink(os.path.join(folder, name)):
                listing.left.append(Left(_shown(folder, name, top), "a link to a folder, which is not followed"))
        folders[:] = sorted(name for name in folders if name not in ignored)
        for name in sorted(names):
            if name in ignored:
                continue
            if len(listing.files) >= MOST_FILES:
                listing.left.append(Left(str(top), f"more than {MOST_FILES} files; the rest of them"))
                return listing
            _see(listing, os.path.join(folder, name), top, real_top)
    return listing


def _see(listing: Listing, place: str, top: Path, real_top: str) -> None:
    shown = os.path.relpath(place, top)
    try:
        path = parse_path(shown)
        status = os.lstat(place)
        if stat.S_ISLNK(status.st_mode):
            place = os.path.realpath(place)
            if not place.startswith(real_top + os.sep):
                listing.left.append(Left(shown, "a link that leads out of the folder"))
                return
            status = os.lstat(place)
    except BadReference as error:
        listing.left.append(Left(shown, error.message))
    except OSError as error:
        listing.left.append(Left(shown, f"it cannot be looked at: {error.strerror}"))
    else:
        if stat.S_ISREG(status.st_mode):
            listing.files[path] = FoundFile(path, place, status.st_size)
        else:
            listing.left.append(Left(shown, "no regular file"))


def _shown(folder: str, name: str, top: Path) -> str:
    return os.path.relpath(os.path.join(folder, name), top)


def kept_file(top: Path, name: str, path: RepoPath, blob: Blob) -> FoundFile | None:
    """Take a file below `top` that its owner keeps by its digest; None where it is not there whole, as a file."""
    place = os.path.join(os.path.realpath(top), name)
    try:
        status = os.lstat(place)
    except OSError:
        return None
    if os.path.realpath(place) != place or not stat.S_ISREG(status.st_mode) or status.st_size != blob.size:
        return None
    return FoundFile(path, place, status.st_size, blob.digest, is_immutable=True)


def read_note(place: Path, limit: int = LONGEST_NOTE) -> bytes:
    """Read a small file, b"" where there is none, it is no regular file, or it is longer than `limit` bytes."""
    try:
        fd = os.open(place, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
    except OSError:
        return b""
    with open(fd, "rb") as file:
        status = os.fstat(fd)
        return file.read(limit) if stat.S_ISREG(status.st_mode) and status.st_size <= limit else b""


def is_folder(place: Path) -> bool:
    """Tell whether a folder stands there, and no link to one."""
    try:
        return stat.S_ISDIR(os.lstat(place).st_mode)
    except OSError:
        return False


def folder_repo(folder: Path, kind: Kind) -> RepoId:
    """Name the repo that a folder becomes, as `hubcache pull ./folder` does."""
    return RepoId.parse(f"local/{local_stem(str(folder))}", hub="file", kind=kind)
