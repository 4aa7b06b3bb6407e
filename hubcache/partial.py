"""A file that is filling up: written by several threads, hashed in order by one, resumed by the next process.

Every byte is written once: what is there is never overwritten, so what was hashed is what will be read.
"""

from __future__ import annotations

import os
import threading
from pathlib import Path

from hubcache.core.digests import Hasher, new_hasher
from hubcache.core.ranges import Range, RangeSet
from hubcache.errors import CacheError
from hubcache.localfile import CHUNK, disk_error

MAX_JOURNAL_LINE = 64


class PartialFile:
    """A file of `size` bytes (None while unknown) on its way.

    Bytes that come in order need no book-keeping: the file's length says how far it got. When ranges
    come out of order (`out_of_order`), a journal beside the file tells the next process which are there.
    """

    def __init__(
        self, path: Path, size: int | None, *, algorithms: tuple[str, ...] = (), journal: Path | None = None
    ) -> None:
        self.path = path
        self.size = size
        self._journal = journal
        self._journal_fd = -1
        self._algorithms = algorithms
        self._changed = threading.Condition()
        self._closed = False
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            self._fd = os.open(path, os.O_RDWR | os.O_CREAT | getattr(os, "O_BINARY", 0), 0o666)
            self._claimed = self._recover()
        except OSError as error:
            raise disk_error(error, path) from error
        self._written = RangeSet(self._claimed)
        self.resumed = self._written.total()
        self._hashed = 0
        self._hashing = threading.Lock()
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

    def out_of_order(self) -> None:
        """Get ready for ranges that do not come in order."""
        if self._journal is None or self._journal_fd >= 0:
            return
        flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_APPEND
        with self._changed:
            self._journal_fd = os.open(self._journal, flags, 0o666)
            for start, end in self._written:
                os.write(self._journal_fd, b"%d %d\n" % (start, end))

    def write(self, offset: int, chunk: bytes, /) -> int:
        """Keep the bytes of the chunk that are not there yet; return how many were new.

        Raises:
            DiskFull: the disk has no room for them.
            CacheError: the file was closed, or outgrew its size.
        """
        end = offset + len(chunk)
        if self.size is not None and end > self.size:
            raise CacheError(f"{self.path.name}: bytes beyond its size of {self.size}")
        with self._changed:
            if self._closed:
                raise CacheError(f"{self.path.name} is closed")
            gaps = self._claimed.missing(offset, end)
            self._claimed.add(offset, end)
        for start, stop in gaps:
            self._write_range(start, chunk[start - offset : stop - offset])
        return sum(stop - start for start, stop in gaps)

    def _write_range(self, start: int, chunk: bytes) -> None:
        view = memoryview(chunk)
        at = start
        try:
            while view:
                count = os.pwrite(self._fd, view, at)
                view, at = view[count:], at + count
            if self._journal_fd >= 0:
                os.write(self._journal_fd, b"%d %d\n" % (start, at))
        except OSError as error:
            raise disk_error(error, self.path, needed=(self.size or 0) - self.received()) from error
        if not self._following and start == self._hashed:
            self._hash_chunk(start, chunk)
        with self._changed:
            self._written.add(start, at)
            self._changed.notify_all()

    def wait_beyond(self, offset: int, stop: threading.Event) -> int:
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
        return os.pread(self._fd, limit, offset)

    def finish(self, size: int) -> None:
        """Say how large the file turned out to be."""
        with self._changed:
            self.size = size
            self._changed.notify_all()

    def follow(self, stop: threading.Event) -> None:
        """Hash the bytes as they become contiguous, until the file's end or `stop`."""
        self._following = True
        while not stop.is_set() and (self.size is None or self._hashed < self.size):
            reached = self.wait_beyond(self._hashed, stop)
            if reached == self._hashed:
                return
            self._hash_up_to(reached)

    def digests(self) -> dict[str, str]:
        """Return the hex digest for each algorithm, over the whole file.

        Raises:
            CacheError: bytes are missing.
        """
        if self.size is None or self.missing():
            raise CacheError(f"{self.path.name} is not complete")
        self._hash_up_to(self.size)
        return {name: hasher.hexdigest() for name, hasher in self._started_hashers().items()}

    def adopt(self, file: Path) -> int:
        """Take a finished file of the same disk instead of what is here; return its size in bytes."""
        with self._changed, self._hashing:
            os.close(self._fd)
            try:
                os.replace(file, self.path)
                self._fd = os.open(self.path, os.O_RDWR | getattr(os, "O_BINARY", 0))
            except OSError as error:
                raise disk_error(error, self.path) from error
            size = os.fstat(self._fd).st_size
            self._claimed, self._written = RangeSet([(0, size)]), RangeSet([(0, size)])
            self._hashed, self._hashers = 0, None
            return size

    def sync(self) -> None:
        """Make the bytes survive a power cut."""
        try:
            os.fsync(self._fd)
        except OSError as error:
            raise disk_error(error, self.path) from error

    def close(self) -> None:
        """Close the file; a thread that still writes gets an error instead of somebody else's file."""
        with self._changed:
            if self._closed:
                return
            self._closed = True
            self._changed.notify_all()
        with self._hashing:
            for fd in {self._fd, self._journal_fd} - {-1}:
                os.close(fd)

    def discard(self) -> None:
        """Close the file and forget its bytes."""
        self.close()
        self.path.unlink(missing_ok=True)
        if self._journal is not None:
            self._journal.unlink(missing_ok=True)

    def settle(self) -> None:
        """Drop the journal of a file that is complete."""
        if self._journal is not None:
            self._journal.unlink(missing_ok=True)

    def _recover(self) -> RangeSet:
        length = os.fstat(self._fd).st_size
        if self.size is not None and length > self.size:
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
            if self.size is None or start != self._hashed or self._closed:
                return
            for hasher in self._started_hashers().values():
                hasher.update(chunk)
            self._hashed += len(chunk)

    def _hash_up_to(self, end: int) -> None:
        buffer = memoryview(bytearray(CHUNK))
        with self._hashing:
            hashers = list(self._started_hashers().values())
            while self._hashed < end and not self._closed:
                count = os.preadv(self._fd, [buffer[: min(CHUNK, end - self._hashed)]], self._hashed)
                if not count:
                    raise CacheError(f"{self.path}: shorter than what was written to it")
                for hasher in hashers:
                    hasher.update(buffer[:count])
                self._hashed += count


def _read_journal(content: bytes) -> list[Range]:
    """Read the journal's whole lines; a line that a crash cut short is left out."""
    ranges = []
    for line in content.split(b"\n")[:-1]:
        numbers = line.split()
        if len(numbers) == 2 and all(number.isdigit() for number in numbers) and len(line) < MAX_JOURNAL_LINE:
            ranges.append((int(numbers[0]), int(numbers[1])))
    return ranges
