"""copy(source, artifact, store): the one verb; which bytes come from where is decided in core/plan.py."""

from __future__ import annotations

import random
import threading
import time
from collections import deque
from collections.abc import Callable, Collection, Iterable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from hubcache.core.artifact import Artifact, RepoId
from hubcache.core.digests import Blob
from hubcache.core.plan import CopyPlan, PlannedFile
from hubcache.core.ports import Content, OpenRange, Progress, Source
from hubcache.core.ranges import Range, split
from hubcache.errors import HubcacheError, IntegrityError, RateLimited, SourceUnavailable
from hubcache.partial import PartialFile

READ_SIZE = 1 << 20
SEGMENT = 32 << 20
SMALL = 8 << 20
AHEAD = 64 << 20
"""Bytes by which a large file's further connections may be ahead of its hash; beyond, they only take its CPU time."""
PATIENCE = 1.0
"""Seconds that the other threads get to end by themselves after a failure; one may wait for a silent server."""


@dataclass(frozen=True, slots=True)
class TransferLimits:
    """How much at once: small files in flight, large files in flight, connections for one large file;
    `attempts` is how often in a row a range is asked for without getting a byte."""

    small_files: int = 32
    large_files: int = 2
    connections: int = 4
    attempts: int = 5


class BlobWriter(Protocol):
    """A blob on its way into a store: fill `partial`, then publish, or leave it to be resumed."""

    partial: PartialFile | None
    """None: the store has the blob by now, another process brought it."""

    def publish(self, origins: Collection[str], /) -> None:
        """Verify the digest and give the bytes their name; `partial` is a fresh one if they were wrong.

        Raises:
            IntegrityError: the bytes are not the blob's; they are dropped.
        """
        ...


class WritableStore(Protocol):
    """What copy needs of a store."""

    def write(self, repo: RepoId, blob: Blob, /, stop: threading.Event) -> AbstractContextManager[BlobWriter]: ...


def copy(
    source: Source, plan: CopyPlan, store: WritableStore, *, progress: Progress, limits: TransferLimits | None = None
) -> None:
    """Bring every missing blob of the plan from the source into the store, verified.

    Small files share many connections, large ones get several each. The first failure stops the
    rest; what has arrived stays and is resumed next time.

    Raises:
        IntegrityError: bytes that are not what the manifest says, with their origin.
        NotFound, AccessDenied, SourceUnavailable, DiskFull: as the source and the store raise them.
    """
    limits = limits or TransferLimits()
    progress.begin(len(plan.missing), plan.missing_size)
    stop = threading.Event()

    def job(file: PlannedFile) -> Callable[[], None]:
        return lambda: _copy_file(source, plan.artifact, file, store, _Run(progress, limits, stop))

    large = [job(file) for file in plan.missing if file.blob.size > SMALL]
    small = [job(file) for file in plan.missing if file.blob.size <= SMALL]
    _run_crews([(large, limits.large_files), (small, limits.small_files)], stop)


@dataclass(frozen=True, slots=True)
class _Run:
    progress: Progress
    limits: TransferLimits
    stop: threading.Event


def _copy_file(source: Source, artifact: Artifact, file: PlannedFile, store: WritableStore, run: _Run) -> None:
    def open_range(start: int, end: int | None) -> Content:
        return source.open(artifact, file.path, start, end)

    with store.write(artifact.repo, file.blob, stop=run.stop) as writer:
        while writer.partial is not None:
            resumed = writer.partial.resumed
            run.progress.advance(resumed, "resumed")
            origins = _fill(writer.partial, open_range, run)
            if run.stop.is_set():
                return
            try:
                writer.publish(origins)
                break
            except IntegrityError as error:
                # Bytes of an earlier process may be the bad ones: nobody is blamed before a try from zero.
                if not resumed:
                    raise IntegrityError(f"{artifact.repo}/{file.path}: {error.message}", hint=error.hint) from error
                run.progress.advance(-file.blob.size, "discarded")
    if not run.stop.is_set():
        run.progress.finish_file(file.path)


def fill(
    partial: PartialFile,
    open_range: OpenRange,
    *,
    progress: Progress,
    limits: TransferLimits | None = None,
    stop: threading.Event | None = None,
) -> set[str]:
    """Fetch what the partial file lacks, until `stop`; return the origins its bytes came from.

    Raises:
        SourceUnavailable: a range could not be had in `limits.attempts` tries in a row.
        IntegrityError: the source says another size than the partial's.
    """
    return _fill(partial, open_range, _Run(progress, limits or TransferLimits(), stop or threading.Event()))


def _fill(partial: PartialFile, open_range: OpenRange, run: _Run) -> set[str]:
    origins: set[str] = set()
    before = -1
    # An answer that ignores its range takes all pieces, and may break off: what is missing then is asked for again.
    while not partial.is_complete and not run.stop.is_set():
        received = partial.received()
        if received == before:
            raise SourceUnavailable(f"{' and '.join(sorted(origins))} sent nothing of what is missing")
        before = received
        _fetch_missing(partial, _Fetch(partial, open_range, run, origins), run)
    return origins


def _fetch_missing(partial: PartialFile, fetch: _Fetch, run: _Run) -> None:
    if partial.size is None or partial.size <= SMALL:
        fetch.read_pieces()
        return
    partial.out_of_order()
    readers: list[Callable[[], None]] = [fetch.read_first_piece]
    readers += [fetch.read_when_ranged] * (min(run.limits.connections, fetch.pieces_left()) - 1)
    # The follower has an end of its own: should bytes be missing when the readers are through, nobody waits for them.
    ended = threading.Event()
    failures: list[BaseException] = []
    work = (deque([lambda: partial.follow(ended)]), run.stop, failures)
    follower = threading.Thread(target=_work, args=work, daemon=True)
    follower.start()
    try:
        _run_crews([(readers, len(readers))], run.stop)
    finally:
        ended.set()
    while follower.is_alive() and not run.stop.is_set():
        follower.join(0.1)
    if failures:
        raise failures[0]


class _Fetch:
    """The pieces of one file and the readers that share them."""

    def __init__(self, partial: PartialFile, open_range: OpenRange, run: _Run, origins: set[str]) -> None:
        self._origins = origins
        self._partial = partial
        self._open_range = open_range
        self._run = run
        self._pieces = deque(_pieces(partial))
        self._answered = threading.Event()
        self._ranged = False

    def pieces_left(self) -> int:
        return len(self._pieces)

    def read_first_piece(self) -> None:
        """Read on, and let the other readers start once a range was answered as one."""
        try:
            self.read_pieces()
        finally:
            self._answered.set()

    def read_when_ranged(self) -> None:
        """Read pieces, unless the source ignores ranges: then one reader gets the whole file."""
        while not self._answered.wait(0.1):
            if self._run.stop.is_set():
                return
        while self._ranged and self._pieces and not self._run.stop.is_set():
            if self._partial.unhashed() > AHEAD:
                self._run.stop.wait(0.01)
            else:
                self._read_next_piece()

    def read_pieces(self) -> None:
        while self._pieces and not self._run.stop.is_set():
            self._read_next_piece()

    def _read_next_piece(self) -> None:
        try:
            start, end = self._pieces.popleft()
        except IndexError:  # another reader took the last one
            return
        self._read_piece(start, end)

    def _read_piece(self, start: int, end: int | None) -> None:
        failures = 0
        while (end is None or start < end) and not self._run.stop.is_set():
            try:
                start = self._read_once(start, end)
                if end is None:
                    return
            except _BrokenOff as broken:
                failures = 0 if broken.reached > start else failures + 1
                start = broken.reached
                if failures >= self._run.limits.attempts:
                    raise broken.error from broken
                self._run.stop.wait(_pause(failures, broken.error))

    def _read_once(self, start: int, end: int | None) -> int:
        """Read one answer; return the offset reached, `end` or beyond."""
        at = start
        try:
            with self._open_range(start, end) as content:
                self._check(content, start)
                if content.file is not None:
                    return self._take(content.file)
                self._origins.add(content.origin)
                end = self._settle_end(content, start, end)
                at = content.start
                while chunk := self._read(content, at, end):
                    self._keep(at, chunk, content.origin)
                    at += len(chunk)
                if end is not None and at < end and not self._run.stop.is_set():
                    raise SourceUnavailable(f"{content.origin}: the answer ended at byte {at} of {end}")
        except SourceUnavailable as error:
            raise _BrokenOff(max(at, start), error) from error
        if end is None and not self._run.stop.is_set():
            self._partial.finish(at)
        return max(at, start)

    def _settle_end(self, content: Content, start: int, end: int | None) -> int | None:
        """Return where to stop reading; an answer that ignores its range brings the whole file: it takes all pieces."""
        self._ranged = content.start == start and end is not None and content.end is not None and content.end <= end
        if not self._ranged:
            self._pieces.clear()
            end = self._partial.size
        self._answered.set()
        return end

    def _read(self, content: Content, at: int, end: int | None) -> bytes:
        if self._run.stop.is_set():
            return b""
        return content.read(READ_SIZE if end is None else min(READ_SIZE, end - at)) if at != end else b""

    def _keep(self, at: int, chunk: bytes, origin: str) -> None:
        new = self._partial.write(at, chunk)
        self._run.progress.advance(new, origin)

    def _take(self, file: Path) -> int:
        size = self._partial.adopt(file)
        self._partial.finish(size)
        self._run.progress.advance(size, "local file")
        self._pieces.clear()
        return size

    def _check(self, content: Content, start: int) -> None:
        expected = self._partial.size
        if expected is not None and content.total is not None and content.total != expected:
            raise IntegrityError(
                f"{content.origin} has a file of {content.total} bytes where the listing says {expected}"
            )
        if content.start not in {0, start}:
            raise SourceUnavailable(f"{content.origin} sent bytes from {content.start} on, asked for {start}")


class _BrokenOff(Exception):
    """A transfer that ended early: the offset it reached, and why."""

    def __init__(self, reached: int, error: SourceUnavailable) -> None:
        super().__init__(str(error))
        self.reached = reached
        self.error = error


def _pieces(partial: PartialFile) -> Iterable[tuple[int, int | None]]:
    missing = partial.missing()
    if partial.size is None:
        return [(missing[0][0], None)]
    ranges: list[Range] = missing if partial.size <= SMALL else split(missing, SEGMENT)
    return [(start, end) for start, end in ranges]


def _pause(failures: int, error: SourceUnavailable) -> float:
    """Return the seconds to wait before a range is asked for again."""
    if isinstance(error, RateLimited) and error.retry_after is not None:
        return min(error.retry_after, 60.0)
    return float(min(8.0, 0.25 * 2**failures) * random.uniform(0.75, 1.25)) if failures else 0.0


def _run_crews(crews: list[tuple[list[Callable[[], None]], int]], stop: threading.Event) -> None:
    """Run every job, each crew with its number of threads; the first failure stops all and is raised.

    The threads are daemons: Ctrl-C in the waiting thread ends the process without waiting for a socket.
    """
    failures: list[BaseException] = []
    threads = []
    for jobs, size in crews:
        work = (deque(jobs), stop, failures)
        threads += [threading.Thread(target=_work, args=work, daemon=True) for _ in range(min(size, len(jobs)))]
    try:
        for thread in threads:
            thread.start()
        for thread in threads:
            while thread.is_alive() and not failures:
                thread.join(0.1)
    except BaseException:
        stop.set()
        raise
    if failures:
        patience = time.monotonic() + PATIENCE
        for thread in threads:
            thread.join(max(0.0, patience - time.monotonic()))
        raise _most_telling(failures)


def _work(jobs: deque[Callable[[], None]], stop: threading.Event, failures: list[BaseException]) -> None:
    while not stop.is_set():
        try:
            job = jobs.popleft()
        except IndexError:
            return
        try:
            job()
        except BaseException as error:  # noqa: BLE001  # raised by the thread that waits
            failures.append(error)
            stop.set()


def _most_telling(failures: list[BaseException]) -> BaseException:
    ours = [error for error in failures if isinstance(error, HubcacheError)]
    return (ours or failures)[0]


def run_all(jobs: list[Callable[[], None]], workers: int, *, stop: threading.Event | None = None) -> None:
    """Run the jobs in `workers` threads; the first failure sets `stop` and is raised, and no further job begins."""
    _run_crews([(jobs, workers)], stop or threading.Event())
