"""Who else may read or change a repo's files, told in a line for each kind of fault; nothing is opened or changed."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator

from hubcache.cache.findings import Findings, Kind
from hubcache.cache.folder import RepoFolder
from hubcache.cache.scan import walk

PARTS = ("blobs", "refs", "snapshots", "trees")
_READ = {0o050: 0o040, 0o005: 0o004}
"""The bits that let group and others into a folder, each with the one that lets them read a file."""


def check_permissions(folder: RepoFolder, findings: Findings) -> None:
    """Note files that those who can read the rest cannot, that anybody may change, and that somebody else owns."""
    try:
        top = os.stat(folder.path)
    except OSError:
        return
    wanted = shared_bits(folder)
    found: dict[Kind, list[str]] = {"unshared": [], "writable-by-all": [], "foreign-owner": []}
    for path, status in _files(str(folder.path)):
        mode = stat.S_IMODE(status.st_mode)
        if wanted & ~mode and stat.S_ISREG(status.st_mode):
            found["unshared"].append(path)
        if mode & 0o002 and not status.st_mode & stat.S_ISVTX:
            found["writable-by-all"].append(path)
        if status.st_uid != top.st_uid:
            found["foreign-owner"].append(path)
    words: dict[Kind, str] = {
        "unshared": "cannot be read by others, who can read the rest",
        "writable-by-all": "may be changed by anybody on this machine",
        "foreign-owner": f"is not owned by uid {top.st_uid}, as the repo's folder is",
    }
    for kind, paths in found.items():
        if paths:
            more = f", and so with {len(paths) - 1} more" if len(paths) > 1 else ""
            findings.add(min(paths), kind, words[kind] + more)


def shared_bits(folder: RepoFolder) -> int:
    """Return the permissions to read that files here should have: those of who can come as far as their folder."""
    mode = stat.S_IMODE(os.stat(folder.path).st_mode)
    wanted = sum(read for enter, read in _READ.items() if mode & enter == enter)
    for parent in folder.path.absolute().parents:
        entered = stat.S_IMODE(os.stat(parent).st_mode)
        wanted &= ((entered & 0o010) << 2) | ((entered & 0o001) << 2)
    return wanted


def unshared_listings(folder: RepoFolder) -> list[tuple[str, int]]:
    """List what of trees/ others should be able to read and cannot, with the mode that it should have.

    huggingface_hub writes its listings for its user alone, by the way it makes temporary files.
    """
    wanted = shared_bits(folder)
    found = []
    for path, status in _files(str(folder.path), ("trees",)):
        mode = stat.S_IMODE(status.st_mode)
        if stat.S_ISREG(status.st_mode) and wanted & ~mode and status.st_uid == os.geteuid():
            found.append((path, mode | wanted))
    return found


def _files(top: str, parts: tuple[str, ...] = PARTS) -> Iterator[tuple[str, os.stat_result]]:
    """Yield the folders `parts` and the files in them; links are passed over: they have no permissions."""
    for part in parts:
        try:
            yield part, os.stat(f"{top}/{part}")
        except OSError:
            continue
        for path, entry in walk(f"{top}/{part}", lambda _: None):
            try:
                if not entry.is_symlink():
                    yield f"{part}/{path}", entry.stat(follow_symlinks=False)
            except OSError:  # finished or removed meanwhile
                continue
