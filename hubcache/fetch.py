"""One file's missing ranges, read over as many connections as make it faster; which file, transfer.py says."""

from __future__ import annotations

import random
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path

from hubcache.core.ports import Content, OpenRange, Progress
from hubcache.core.ranges import Range, RangeSet
from hubcache.crew import Crew, Stop
from hubcache.errors import IntegrityError, RateLimited, RedirectRefused, SourceUnavailable
from hubcache.partial import PartialFile

READ_SIZE = 1 << 20
SMALL = 8 << 20
SMALLEST_PIECE = 4 << 20
LARGEST_PIECE = 64 << 20
FIRST_READERS = 4
CONNECTIONS = 16
AHEAD = 64 << 20
"""Bytes by which the first bytes in order may be ahead of their hash before further readers wait for it."""
TRIAL = 0.05
"""Seconds over which it is measured how busy this process is."""
BUSY = 0.7
"""CPU seconds per second from which on more connections are of no use."""


@dataclass(frozen=True, slots=True)
class TransferLimits:
    """How much at once: small files in flight, large files in flight, connections for one large file;
    `attempts` is how often in a row a range is asked for without getting a byte."""

    small_files: int = 32
    large_files: int = 2
    connections: int = CONNECTIONS
    attempts: int = 5


@dataclass(frozen=True, slots=True)
class Run:
    """What the parts of one run share."""

    progress: Progress
    limits: TransferLimits = field(default_factory=TransferLimits)
    stop: Stop = field(default_factory=Stop)
    wanted: Callable[[], Iterable[int]] = tuple
    """Offsets that somebody waits for: they are fetched before what follows in order."""


def fill(
    partial: PartialFile, open_range: OpenRange, run: Run, sent: dict[str, RangeSet] | None = None
) -> dict[str, RangeSet]:
    """Fetch what the partial file lacks, until the run is stopped; return which origin sent which bytes.

    They are noted in `sent` as they come, so that the caller knows them after a failure, too.

    Raises:
        SourceUnavailable: a range could not be had in `limits.attempts` tries in a row.
        IntegrityError: an origin has another size than the partial's; `origins` names it.
    """
    sent = {} if sent is None else sent
    before = -1
    # An answer that ignores its range takes all pieces, and may break off: what is missing then is asked for again.
    while not partial.is_complete and not run.stop.is_set():
        received = partial.received()
        if received == before:
            raise SourceUnavailable(f"{' and '.join(sorted(sent))} sent nothing of what is missing")
        before = received
        fetch = _Fetch(partial, open_range, run, sent)
        if partial.size is None or partial.size <= SMALL:
            fetch.read_pieces()
        else:
            partial.out_of_order()
            _read_together(partial, fetch, run)
    return sent


def _read_together(partial: PartialFile, fetch: _Fetch, run: Run) -> None:
    """Let several readers share the file, while one thread hashes what they bring."""
    # The hasher has an end of its own: should bytes be missing when the readers are through, it waits for nobody.
    ended = Stop()
    hashing = Crew(fetch.stop)
    hashing.start(lambda: partial.follow(ended))
    readers = Crew(fetch.stop)
    try:
        readers.start(fetch.read_pieces)
        _add_readers(readers, fetch, run)
        readers.finish()
    finally:
        ended.set()
    hashing.finish()


def _add_readers(readers: Crew, fetch: _Fetch, run: Run) -> None:
    """Add connections: a few, then all, unless this process is busy; none where the source ignores ranges.

    While it waits for the network, more connections bring more, or as much; when it is busy receiving and
    hashing, they only take CPU time.
    """
    try:
        while not fetch.answered.wait(TRIAL) and readers.is_working():
            pass
        for wanted in (min(FIRST_READERS, run.limits.connections), run.limits.connections):
            while fetch.is_ranged and fetch.readers < wanted and fetch.pieces_left():
                fetch.readers += 1
                readers.start(fetch.read_further_pieces)
            busy_before, began = time.process_time(), time.monotonic()
            readers.wait(TRIAL)
            if time.process_time() - busy_before > BUSY * (time.monotonic() - began):
                return
    except BaseException:
        fetch.stop.set()
        raise


class _Fetch:
    """The pieces of one file that are still to come, and who sent the others."""

    def __init__(self, partial: PartialFile, open_range: OpenRange, run: Run, sent: dict[str, RangeSet]) -> None:
        self.stop = Stop(run.stop)
        self.answered = threading.Event()
        self.is_ranged = False
        self.readers = 1
        self.received = 0
        self._sent = sent
        self._partial = partial
        self._open_range = open_range
        self._run = run
        self._lock = threading.Lock()
        self._left: deque[Range] = deque(partial.missing())

    def pieces_left(self) -> bool:
        """Tell whether there is a piece that nobody reads yet."""
        return bool(self._left)

    def read_pieces(self) -> None:
        """Read piece after piece until none is left."""
        try:
            while not self.stop.is_set() and (piece := self._take_piece()) is not None:
                self._read_piece(*piece)
        finally:
            self.answered.set()

    def read_further_pieces(self) -> None:
        """Read pieces beside the first reader, as long as the hash keeps up: beyond, it only lacks the CPU time."""
        while self._left and not self.stop.is_set():
            if self._partial.unhashed() > AHEAD:
                self.stop.wait(0.01)
            elif (piece := self._take_piece()) is not None:
                self._read_piece(*piece)

    def _take_piece(self) -> tuple[int, int | None] | None:
        """Take the next piece: large ones first, small ones in the end, so that all readers end together."""
        with self._lock:
            if not self._left:
                return None
            start, end = self._take_range()
            if self._partial.size is None:
                return start, None
            left = end - start + sum(high - low for low, high in self._left)
            most = max(SMALLEST_PIECE, min(LARGEST_PIECE, left // (3 * self._run.limits.connections)))
            if self._partial.size > SMALL and end - start > most:
                self._left.appendleft((start + most, end))
                end = start + most
            return start, end

    def _take_range(self) -> Range:
        """Take the range that somebody waits for, from there on, else the first."""
        for offset in self._run.wanted():
            for index, (start, end) in enumerate(self._left):
                if start <= offset < end:
                    del self._left[index]
                    if start < offset:
                        self._left.insert(index, (start, offset))
                    return offset, end
        return self._left.popleft()

    def _read_piece(self, start: int, end: int | None) -> None:
        failures = 0
        while (end is None or start < end) and not self.stop.is_set():
            try:
                start = self._read_once(start, end)
                if end is None:
                    return
            except _BrokenOff as broken:
                failures = 0 if broken.reached > start else failures + 1
                start = broken.reached
                if failures >= self._run.limits.attempts or isinstance(broken.error, RedirectRefused):
                    raise broken.error from broken
                self.stop.wait(_pause(failures, broken.error))

    def _read_once(self, start: int, end: int | None) -> int:
        """Read one answer; return the offset reached, `end` or beyond."""
        at = start
        try:
            with self._open_range(start, end) as content:
                self._check(content, start)
                if content.file is not None:
                    return self._take(content.file)
                end = self._settle_end(content, start, end)
                at = content.start
                while chunk := self._read(content, at, end):
                    self._keep(at, chunk, content.origin)
                    at += len(chunk)
                if end is not None and at < end and not self.stop.is_set():
                    raise SourceUnavailable(f"{content.origin}: the answer ended at byte {at} of {end}")
        except SourceUnavailable as error:
            raise _BrokenOff(max(at, start), error) from error
        if end is None and not self.stop.is_set():
            self._partial.finish(at)
        return max(at, start)

    def _settle_end(self, content: Content, start: int, end: int | None) -> int | None:
        """Return where to stop reading; an answer that ignores its range brings the whole file: it takes all pieces."""
        ranged = content.start == start and end is not None and content.end is not None and content.end <= end
        if not ranged:
            with self._lock:
                self._left.clear()
            end = self._partial.size
        self.is_ranged = ranged
        self.answered.set()
        return end

    def _read(self, content: Content, at: int, end: int | None) -> bytes:
        if self.stop.is_set():
            return b""
        return content.read(READ_SIZE if end is None else min(READ_SIZE, end - at)) if at != end else b""

    def _keep(self, at: int, chunk: bytes, origin: str) -> None:
        new = self._partial.write(at, chunk)
        self._run.progress.advance(new, origin)
        with self._lock:
            self.received += new
            self._sent.setdefault(origin, RangeSet()).add(at, at + len(chunk))

    def _take(self, file: Path) -> int:
        size = self._partial.adopt(file)
        self._partial.finish(size)
        self._run.progress.advance(size, "local file")
        with self._lock:
            self._left.clear()
        return size

    def _check(self, content: Content, start: int) -> None:
        expected = self._partial.size
        if expected is not None and content.total is not None and content.total != expected:
            raise IntegrityError(
                f"{content.origin} has a file of {content.total} bytes where the listing says {expected}",
                origins=(content.origin,),
            )
        if content.start not in {0, start}:
            raise SourceUnavailable(f"{content.origin} sent bytes from {content.start} on, asked for {start}")


class _BrokenOff(Exception):
    """A transfer that ended early: the offset it reached, and why."""

    def __init__(self, reached: int, error: SourceUnavailable) -> None:
        super().__init__(str(error))
        self.reached = reached
        self.error = error


def _pause(failures: int, error: SourceUnavailable) -> float:
    """Return the seconds to wait before a range is asked for again."""
    if isinstance(error, RateLimited) and error.retry_after is not None:
        return min(error.retry_after, 60.0)
    return float(min(8.0, 0.25 * 2**failures) * random.uniform(0.75, 1.25)) if failures else 0.0
