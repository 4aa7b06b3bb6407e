"""One file's bytes under a second name: shared where the file system can, else copied; what they are is not asked."""

from __future__ import annotations

import errno
import fcntl
import os
import stat
import sys
from contextlib import suppress
from pathlib import Path

from hubcache.core.digests import Hasher
from hubcache.localfile import CHUNK

# Linux's FICLONE, _IOW(0x94, 9, int), as it is on x86 and arm.
_FICLONE = 0x40049409
_CANNOT = {
    errno.EOPNOTSUPP, errno.ENOTSUP, errno.EXDEV, errno.EINVAL, errno.ENOTTY, errno.ENOSYS, errno.EPERM, errno.EMLINK,
    errno.EACCES,
}  # fmt: skip


def reflink(source: int, target: int) -> bool:
    """Let an open, empty file share another one's extents, copied when either is written to; tell whether it does."""
    if not sys.platform.startswith("linux"):
        return False
    try:
        fcntl.ioctl(target, _FICLONE, source)
        return True
    except OSError as error:
        if error.errno in _CANNOT:
            return False
        raise


def can_reflink(source: str, folder: Path) -> bool:
    """Tell whether files of the folder can share the extents of `source`; tried out with a file that has no name."""
    if not hasattr(os, "O_TMPFILE"):
        return False
    with suppress(OSError):
        target = os.open(folder, os.O_TMPFILE | os.O_RDWR)
        try:
            fd = open_regular(source)
            try:
                return reflink(fd, target)
            finally:
                os.close(fd)
        finally:
            os.close(target)
    return False


def hardlink(source: str, target: Path) -> bool:
    """Give a file a second name; tell whether the file system does that here."""
    try:
        os.link(source, target, follow_symlinks=False)
        return True
    except OSError as error:
        if error.errno in _CANNOT:
            return False
        raise


def may_link(status: os.stat_result) -> bool:
    """Tell whether a file is ours alone to change, so that a blob may be the same file."""
    return status.st_uid == os.geteuid() and not status.st_mode & stat.S_IWOTH


def copy_bytes(source: int, target: int, hasher: Hasher) -> None:
    """Copy an open file from its beginning, hashing what is written."""
    os.lseek(source, 0, os.SEEK_SET)
    while chunk := os.read(source, CHUNK):
        hasher.update(chunk)
        view = memoryview(chunk)
        while view:
            view = view[os.write(target, view) :]


def open_regular(path: str) -> int:
    """Open a regular file to read, following no link.

    Raises:
        OSError: it cannot be opened, or it is something else by now.
    """
    fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | getattr(os, "O_CLOEXEC", 0))
    if not stat.S_ISREG(os.fstat(fd).st_mode):
        os.close(fd)
        raise OSError(errno.EINVAL, "not a regular file", path)
    return fd
