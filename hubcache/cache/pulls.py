"""Whether a pull is at work in a repo, by its locks and by what it writes; nobody is disturbed by the question."""

from __future__ import annotations

import errno
import fcntl
import os
from pathlib import Path

from hubcache.cache.folder import RepoFolder
from hubcache.cache.scan import PARTIAL
from hubcache.core.amounts import span_text
from hubcache.localfile import tree_state

FRESH = 600.0
"""Seconds after its last write for which a partial file counts as being written."""


def pulling(folder: RepoFolder, now: float) -> str:
    """Say what shows that the repo is being pulled, "" for nothing."""
    locks = folder.root / ".locks" / folder.path.name
    for name in _names(locks):
        if name.endswith(".lock") and is_held(locks / name):
            return "being pulled: a lock of it is held"
    blobs = folder.path / "blobs"
    for name in _names(blobs):
        if name.endswith(PARTIAL) and (told := _fresh(_mtime(blobs / name), now)):
            return told
    stages = folder.path / ".staging"
    for name in _names(stages):
        if told := _fresh(tree_state(stages / name)[1] / 1e9, now):
            return told
    return ""


def is_held(lock: Path) -> bool:
    """Tell whether some process holds a lock file; where there is no locking, nobody does."""
    try:
        fd = os.open(lock, os.O_RDWR)
    except OSError:
        return False
    try:
        fcntl.flock(fd, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except OSError as error:
        return error.errno in {errno.EWOULDBLOCK, errno.EAGAIN, errno.EACCES}
    else:
        return False
    finally:
        os.close(fd)


def _fresh(written: float, now: float) -> str:
    age = max(0.0, now - written)
    return f"being pulled: a partial file was written {span_text(age)} ago" if age < FRESH else ""


def _names(folder: Path) -> list[str]:
    try:
        return sorted(os.listdir(folder))
    except OSError:
        return []


def _mtime(path: Path) -> float:
    try:
        return path.lstat().st_mtime
    except OSError:
        return 0.0
