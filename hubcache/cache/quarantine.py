"""Damaged files moved out of the way, never deleted, and a record of who misses them until sound ones are back.

What stands here is no part of any commit, and no client looks at it.
"""

from __future__ import annotations

import json
import os
import secrets
import time
from collections.abc import Collection, Iterable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hubcache.cache.folder import RepoFolder
from hubcache.core.artifact import is_commit, parse_path
from hubcache.core.digests import Digest
from hubcache.errors import BadReference
from hubcache.localfile import disk_error, sync_folder, write_atomically

FOLDER = "quarantine"
RECORD = ".json"

Link = tuple[str, str]
"""A file of a snapshot: commit, path."""


@dataclass(frozen=True, slots=True)
class Missed:
    """A record: files of snapshots that were taken away, and the digest that they should have, where it is known."""

    record: Path
    digest: Digest | None
    links: tuple[Link, ...]


def set_aside(folder: RepoFolder, file: Path, *, digest: Digest | None = None, links: Iterable[Link] = ()) -> Path:
    """Move a file, link or folder into quarantine, and take away what of the snapshots leads to it; return its place.

    The record comes first: after a crash at any point, who misses the file is still known.

    Raises:
        DiskFull, CacheError: the disk.
    """
    name = _short(file.name if digest is None else digest.hex)
    place = folder.path / FOLDER / f"{name}.{secrets.token_hex(4)}"
    missing = tuple(sorted(set(links)))
    try:
        place.parent.mkdir(parents=True, exist_ok=True)
        if missing:
            write_record(folder, place.name, digest, missing)
        for commit, path in missing:
            link = folder.snapshot_path(commit) / path
            if link != file:
                link.unlink(missing_ok=True)
        os.rename(file, place)
        sync_folder(file.parent)
        sync_folder(place.parent)
    except OSError as error:
        raise disk_error(error, file) from error
    return place


def write_record(folder: RepoFolder, name: str, digest: Digest | None, links: Iterable[Link]) -> None:
    """Note which files of snapshots are missed, under the name of a file in quarantine."""
    told = {
        "format_version": 1,
        "digest": None if digest is None else digest.hex,
        "links": [list(link) for link in links],
        "at": int(time.time()),
    }
    place = folder.path / FOLDER
    write_atomically(place / (name + RECORD), json.dumps(told, indent=1).encode(), scratch=folder.path)


def read_missed(folder: RepoFolder) -> list[Missed]:
    """Read the records; what cannot be read is left out, and so are names that are none."""
    found = []
    with suppress(OSError):
        for file in sorted(folder.path.joinpath(FOLDER).glob("*" + RECORD)):
            if (missed := _read(file)) is not None:
                found.append(missed)
    return found


def settle(folder: RepoFolder) -> None:
    """Drop the records of what is back, or of commits that are gone; what was set aside stays."""
    for missed in read_missed(folder):
        if not any(is_missed(folder, link) for link in missed.links):
            with suppress(OSError):
                missed.record.unlink()


def forget(folder: RepoFolder, commit: str, paths: Collection[str]) -> None:
    """Drop the records of what turned out to be no file of the commit."""
    for missed in read_missed(folder):
        if all(link[0] == commit and link[1] in paths for link in missed.links if is_missed(folder, link)):
            with suppress(OSError):
                missed.record.unlink()


def is_missed(folder: RepoFolder, link: Link) -> bool:
    """Tell whether the commit is here still, and the file is not."""
    commit, path = link
    snapshot = folder.snapshot_path(commit)
    return snapshot.is_dir() and not os.path.lexists(snapshot / path)


def _read(file: Path) -> Missed | None:
    try:
        told: Any = json.loads(file.read_bytes())
        links = tuple((str(commit), str(parse_path(path))) for commit, path in told["links"])
        digest = Digest.parse(told["digest"]) if told["digest"] else None
    except (OSError, ValueError, KeyError, TypeError, BadReference):
        return None
    return Missed(file, digest, links) if all(is_commit(commit) for commit, _ in links) else None


def _short(name: str) -> str:
    """Cut a name so that its place in quarantine is one that the file system takes."""
    return os.fsdecode(os.fsencode(name)[:200])
