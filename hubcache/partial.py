"""A file that is filling up: written by several threads, hashed in order by one, resumed by the next process.

Every byte is written once: what is there is never overwritten, so what was hashed is what will be read.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Self

from hubcache.core.digests import Hasher, new_hasher
from hubcache.core.ranges import Range, RangeSet
from hubcache.crew import Stop
from hubcache.errors import CacheError, CacheLocked
from hubcache.localfile import CHUNK, disk_error, lock_file, write_atomically

MAX_JOURNAL_LINE = 64


class PartialFile:
    """A file of `size` bytes (None while unknown) on its way.

    Bytes that come in order need no book-keeping: the file's length says how far it got. When ranges
    come out of order (`out_of_order`), a journal beside the file tells the next process which are there.
    One open PartialFile has a file to itself, as far as the file system's locks reach.
    """

    def __init__(
        self, path: Path, size: int | None, *, algorithms: tuple[str, ...] = (), journal: Path | None = None
    ) -> None:
        """Open the file, and find out what an earlier process left of it.

        Raises:
            CacheLocked: another process is writing to it.
        """
        self.path = path
        self.size = size
        self._journal = journal
        self._journal_fd = -1
        self._algorithms = algorithms
        self._changed = threading.Condition()
        self._closed = False
        self._users = 0
        self._retired: list[int] = []
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            self._fd = os.open(path, os.O_RDWR | os.O_CREAT | getattr(os, "O_BINARY", 0), 0o666)
        except OSError as error:
            raise disk_error(error, path) from error
        try:
            if not lock_file(self._fd, path):
                raise CacheLocked(f"another process is writing to {path}")
            self._claimed = self._recover()
        except CacheLocked:
            os.close(self._fd)
            raise
        except OSError as error:
            os.close(self._fd)
            raise disk_error(error, path) from error
        self._written = RangeSet(self._claimed)
        self.resumed = self._written.total()
        self._hashed = 0
        self._hashing = threading.Lock()
        # Threads that write to one file at once spin on the kernel's lock of it: a fifth of the whole CPU time.
        self._writing = threading.Lock()
        self._following = False
        self._hashers: dict[str, Hasher] | None = None

    def missing(self) -> list[Range]:
        """List the ranges still to come; of a file of unknown size, the rest up to a size no file has."""
        with self._changed:
            return self._written.missing(0, self.size if self.size is not None else 1 << 62)

    def received(self) -> int:
        """Return how many bytes are there."""
        with self._changed:
            return self._written.total()

    def unhashed(self) -> int:
        """Return how many bytes the hash is behind those that are there in order."""
        with self._changed:
            return self._written.prefix() - self._hashed

    def reach(self, offset: int) -> int:
        """Return up to where bytes from `offset` on are there without a gap; `offset` itself where none is."""
        with self._changed:
            gaps = self._written.missing(offset, self.size if self.size is not None else 1 << 62)
        return gaps[0][0] if gaps else max(offset, self.size or 0)

    @property
    def is_complete(self) -> bool:
        """Whether every byte is there."""
        return self.size is not None and not self.missing()

    def out_of_order(self) -> None:
        """Get ready for ranges that do not come in order."""
        if self._journal is None or self._journal_fd >= 0:
            return
        try:
            # Never truncated: on a full disk, a journal that is cut cannot be written again.
            if not self._journal.exists():
                lines = [b"%d %d\n" % each for each in self._written] or [b"0 0\n"]
                write_atomically(self._journal, b"".join(lines), scratch=self._journal.parent)
            self._journal_fd = os.open(self._journal, os.O_WRONLY | os.O_APPEND, 0o666)
        except OSError as error:
            raise disk_error(error, self._journal) from error

    def write(self, offset: int, chunk: bytes, /) -> int:
        """Keep the bytes of the chunk that are not there yet; return how many were new.

        Raises:
            DiskFull: the disk has no room for them.
            CacheError: the file was closed, or outgrew its size.
        """
        end = offset + len(chunk)
        if self.size is not None and end > self.size:
            raise CacheError(f"{self.path.name}: bytes beyond its size of {self.size}")
        with self._in_use() as fd:
            with self._changed:
                gaps = self._claimed.missing(offset, end)
                self._claimed.add(offset, end)
            for start, stop in gaps:
                self._write_range(fd, start, chunk[start - offset : stop - offset])
        return sum(stop - start for start, stop in gaps)

    def _write_range(self, fd: int, start: int, chunk: bytes) -> None:
        view = memoryview(chunk)
        at = start
        try:
            while view:
                with self._writing:
                    count = os.pwrite(fd, view, at)
                view, at = view[count:], at + count
            if self._journal_fd >= 0:
                # The first newline ends a line that a full disk or a crash cut short.
                os.write(self._journal_fd, b"\n%d %d\n" % (start, at))
        except OSError as error:
            raise disk_error(error, self.path, needed=max(0, (self.size or 0) - self.received())) from error
        if not self._following and start == self._hashed:
            self._hash_chunk(start, chunk)
        with self._changed:
            self._written.add(start, at)
            self._changed.notify_all()

    def wait_beyond(self, offset: int, stop: Stop) -> int:
        """Wait until bytes from `offset` on are there without a gap; return up to where.

        Returns `offset` itself when `stop` is set or the file has ended there.
        """
        with self._changed:
            while not stop.is_set() and not self._closed:
                reached = self._written.prefix()
                if reached > offset or (self.size is not None and offset >= self.size):
                    return reached if reached > offset else offset
                self._changed.wait(0.1)
        return offset

    def read(self, offset: int, limit: int) -> bytes:
        """Read bytes that are there."""
        with self._in_use() as fd:
            return os.pread(fd, limit, offset)

    def finish(self, size: int) -> None:
        """Say how large the file turned out to be."""
        with self._changed:
            self.size = size
            self._changed.notify_all()

    def follow(self, stop: Stop) -> None:
        """Hash the bytes as they become contiguous, until the file's end or `stop`."""
        self._following = True
        while not stop.is_set() and (self.size is None or self._hashed < self.size):
            reached = self.wait_beyond(self._hashed, stop)
            if reached == self._hashed:
                return
            try:
                self._hash_up_to(reached)
            except CacheError:
                if not self._closed:
                    raise

    def digests(self) -> dict[str, str]:
        """Return the hex digest for each algorithm, over the whole file.

        Raises:
            CacheError: bytes are missing.
        """
        if self.size is None or not self.is_complete:
            raise CacheError(f"{self.path.name} is not complete")
        self._hash_up_to(self.size)
        if self._hashed != self.size:
            raise CacheError(f"{self.path.name} was closed while it was hashed")
        return {name: hasher.hexdigest() for name, hasher in self._started_hashers().items()}

    def adopt(self, file: Path) -> int:
        """Take a finished file of the same disk instead of what is here; return its size in bytes."""
        try:
            fd = os.open(file, os.O_RDWR | getattr(os, "O_BINARY", 0))
            try:
                lock_file(fd, file)
                size = os.fstat(fd).st_size
                os.replace(file, self.path)
            except BaseException:
                os.close(fd)
                raise
        except OSError as error:
            raise disk_error(error, self.path) from error
        with self._changed:
            # Who still writes to the old file or hashes it does so in peace: it is closed with the new one.
            self._retired.append(self._fd)
            self._fd = fd
            self._claimed, self._written = RangeSet([(0, size)]), RangeSet([(0, size)])
        with self._hashing:
            self._hashed, self._hashers = 0, None
        self.settle()
        return size

    def evidence(self) -> Evidence:
        """Keep the bytes readable, whatever becomes of the file."""
        with self._in_use() as fd:
            return Evidence(os.dup(fd))

    def sync(self) -> None:
        """Make the bytes survive a power cut."""
        try:
            with self._in_use() as fd:
                os.fsync(fd)
        except OSError as error:
            raise disk_error(error, self.path) from error

    def close(self) -> None:
        """Close the file; a thread that still writes finishes its chunk, the next one is refused."""
        with self._changed:
            self._closed = True
            self._close_when_idle()
            self._changed.notify_all()

    def discard(self) -> None:
        """Close the file and forget its bytes."""
        self.close()
        try:
            self.path.unlink(missing_ok=True)
        except OSError as error:
            raise disk_error(error, self.path) from error
        self.settle()

    def settle(self) -> None:
        """Drop the journal: a complete file's length says all."""
        try:
            if self._journal is not None:
                self._journal.unlink(missing_ok=True)
        except OSError as error:
            raise disk_error(error, self.path) from error

    @contextmanager
    def _in_use(self) -> Iterator[int]:
        """Keep the file open meanwhile: a descriptor closed too early could be another file's by the next write."""
        with self._changed:
            if self._closed:
                raise CacheError(f"{self.path.name} is closed")
            self._users += 1
            fd = self._fd
        try:
            yield fd
        finally:
            with self._changed:
                self._users -= 1
                self._close_when_idle()

    def _close_when_idle(self) -> None:
        if self._closed and not self._users:
            for fd in {self._fd, self._journal_fd, *self._retired} - {-1}:
                os.close(fd)
            self._fd = self._journal_fd = -1
            self._retired.clear()

    def _recover(self) -> RangeSet:
        length = os.fstat(self._fd).st_size
        if self.size is not None and length > self.size:
            if self._journal is not None:
                self._journal.unlink(missing_ok=True)
            os.ftruncate(self._fd, 0)
            length = 0
        if self._journal is None or not self._journal.exists():
            return RangeSet([(0, length)])
        return RangeSet(
            (start, min(end, length)) for start, end in _read_journal(self._journal.read_bytes()) if start < length
        )

    def _started_hashers(self) -> dict[str, Hasher]:
        # git's header needs the size, so a file of unknown size is hashed when it is known.
        if self._hashers is None:
            if self.size is None:
                raise CacheError(f"{self.path.name}: size unknown")
            self._hashers = {name: new_hasher(name, self.size) for name in self._algorithms}
        return self._hashers

    def _hash_chunk(self, start: int, chunk: bytes) -> None:
        with self._hashing:
            if self.size is None or start != self._hashed:
                return
            for hasher in self._started_hashers().values():
                hasher.update(chunk)
            self._hashed += len(chunk)

    def _hash_up_to(self, end: int) -> None:
        buffer = memoryview(bytearray(CHUNK))
        with self._hashing, self._in_use() as fd:
            hashers = list(self._started_hashers().values())
            while self._hashed < end and fd == self._fd and not self._closed:
                try:
                    count = os.preadv(fd, [buffer[: min(CHUNK, end - self._hashed)]], self._hashed)
                except OSError as error:
                    raise disk_error(error, self.path) from error
                if not count:
                    raise CacheError(f"{self.path}: shorter than what was written to it")
                for hasher in hashers:
                    hasher.update(buffer[:count])
                self._hashed += count


class Evidence:
    """The bytes of a partial file, readable after the file itself is gone."""

    def __init__(self, fd: int) -> None:
        self._fd = fd

    def differs(self, other: Evidence, start: int, end: int) -> bool:
        """Tell whether bytes [start, end) are not the same in both."""
        return any(
            os.pread(self._fd, min(CHUNK, end - at), at) != os.pread(other._fd, min(CHUNK, end - at), at)
            for at in range(start, end, CHUNK)
        )

    def close(self) -> None:
        """Let go of the bytes."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def _read_journal(content: bytes) -> list[Range]:
    """Read the journal's whole lines; a line that a crash cut short is left out."""
    ranges = []
    for line in content.split(b"\n")[:-1]:
        numbers = line.split()
        if len(numbers) == 2 and all(number.isdigit() for number in numbers) and len(line) < MAX_JOURNAL_LINE:
            ranges.append((int(numbers[0]), int(numbers[1])))
    return ranges
