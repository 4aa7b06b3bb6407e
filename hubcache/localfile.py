"""Local files: as contents to read, and written so that a reader sees all of them or nothing."""

from __future__ import annotations

import errno
import fcntl
import os
import secrets
import shutil
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Self

from hubcache.core.digests import Hasher, new_hasher
from hubcache.core.gitobj import ContentDigests
from hubcache.errors import CacheError, DiskFull, EntryNotFound, HubcacheError, IntegrityError

CHUNK = 1 << 20
_FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}


class FileContent:
    """Bytes [start, end) of a local file, as a Content; `movable` files may be taken away whole."""

    def __init__(self, path: Path, start: int = 0, end: int | None = None, *, movable: bool = False) -> None:
        try:
            self._fd = os.open(path, os.O_RDONLY | getattr(os, "O_BINARY", 0))
        except OSError as error:
            raise EntryNotFound(f"{path}: {error.strerror}") from error
        self.start = start
        self.total: int | None = os.fstat(self._fd).st_size
        self.origin = "local file"
        self.file = path if movable else None
        self._at = start
        self.end: int | None = self.total if end is None else min(end, self.total)

    def read(self, limit: int, /) -> bytes:
        """Return up to `limit` bytes, b"" at the end."""
        left = limit if self.end is None else min(limit, self.end - self._at)
        chunk = os.pread(self._fd, max(left, 0), self._at)
        self._at += len(chunk)
        return chunk

    def close(self) -> None:
        """Close the file."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def hash_file(path: Path, *hashers: Hasher) -> int:
    """Feed a file to the hashers in bounded memory; return its size in bytes."""
    size = 0
    buffer = memoryview(bytearray(CHUNK))
    with path.open("rb", buffering=0) as file:
        while count := file.readinto(buffer):
            size += count
            for hasher in hashers:
                hasher.update(buffer[:count])
    return size


def digest_file(path: Path) -> ContentDigests:
    """Read a file once and compute both its digests.

    Raises:
        IntegrityError: it changed while it was read.
    """
    size = path.stat().st_size
    sha1, sha256 = new_hasher("git-sha1", size), new_hasher("sha256", size)
    if hash_file(path, sha1, sha256) != size:
        raise IntegrityError(f"{path} changed while it was read")
    return ContentDigests(size, sha1.hexdigest(), sha256.hexdigest())


def temporary_name(path: Path) -> Path:
    """Name a temporary file beside `path`, unlike any other process's."""
    return path.with_name(f".{path.name[:60]}.{secrets.token_hex(4)}.tmp")  # 60 characters: at most 240 bytes of 255


def lock_file(fd: int, path: Path) -> bool:
    """Lock an open file against other writers; False where one has it, or the path is another file by now.

    Where the file system knows no locks, it is as good as locked.
    """
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:
        pass
    try:
        return os.path.samestat(os.fstat(fd), os.stat(path))
    except FileNotFoundError:
        return False


def write_atomically(path: Path, content: bytes, *, scratch: Path, mode: int | None = None) -> None:
    """Write a small file so that a crash leaves the old one or the new one; `scratch` is a folder on the same disk.

    Its permissions are `mode`, or those that the umask gives.
    """
    temporary = temporary_name(scratch / path.name)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with temporary.open("wb") as file:
            if mode is not None:
                os.fchmod(file.fileno(), mode)
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except OSError as error:
        with suppress(OSError):
            temporary.unlink()
        raise disk_error(error, path, needed=len(content)) from error


def sync_file(path: Path) -> None:
    """Make a file's bytes survive a power cut."""
    with path.open("rb+") as file:
        os.fsync(file.fileno())


def sync_folder(path: Path) -> None:
    """Make the folder's names survive a power cut, where the system can do that to a folder."""
    try:
        fd = os.open(path, os.O_RDONLY)
    except OSError:
        return
    try:
        os.fsync(fd)
    except OSError as error:
        if error.errno not in {errno.EINVAL, errno.EBADF, errno.ENOTSUP, errno.EROFS}:
            raise disk_error(error, path) from error
    finally:
        os.close(fd)


def tree_state(folder: Path) -> tuple[int, int]:
    """Return what changes whenever a file below a folder is written: all their bytes, and the newest time in ns."""
    size = newest = 0
    for top, _, names in os.walk(folder):
        for name in names:
            with suppress(OSError):
                status = os.lstat(os.path.join(top, name))
                size, newest = size + status.st_size, max(newest, status.st_mtime_ns)
    return size, newest


def free_space(folder: Path) -> int:
    """Return the free bytes of the disk that holds, or will hold, the folder."""
    while not folder.exists():
        folder = folder.parent
    return shutil.disk_usage(folder).free


def disk_error(error: OSError, path: Path, *, needed: int = 0) -> HubcacheError:
    """Translate an OSError about a file of ours; `needed` is how many bytes were still to be written."""
    if error.errno in _FULL:
        free = free_space(path.parent)
        return DiskFull(
            f"the disk of {path.parent} is full: {needed} bytes were still to be written, {free} are free",
            needed=needed,
            free=free,
            hint="free some space and run the same command: it goes on where it stopped",
        )
    return CacheError(f"{path}: {error.strerror or error}")
