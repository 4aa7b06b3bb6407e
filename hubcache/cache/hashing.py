"""Hashes many files at once, each in bounded memory; what their digests should be is its caller's to know."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from hubcache.core.digests import Algorithm, new_hasher
from hubcache.core.ports import Progress
from hubcache.localfile import hash_file

MOST_THREADS = 8
# Handing a file to a thread costs 75 µs, as much as hashing 64 KiB.
SMALL = 64 << 10


@dataclass(frozen=True, slots=True)
class FileHash:
    """What a file's bytes are; `error` says why they could not be read, in which case the rest is empty."""

    size: int = 0
    hex: str = ""
    error: str = ""


def hash_files(
    files: Iterable[tuple[str, Algorithm]], progress: Progress, *, origin: str
) -> dict[tuple[str, Algorithm], FileHash]:
    """Hash files, each by its algorithm, on as many threads as there are processors: hashlib lets them run at once.

    `origin` is told to `progress` as the place the bytes come from. An interrupt ends within a megabyte.
    """
    sizes = {file: _size(file[0]) for file in files}
    progress.begin(len(sizes), sum(sizes.values()))
    stop = threading.Event()

    def run(file: tuple[str, Algorithm]) -> FileHash:
        found = _hash(*file, _Meter(progress, origin, stop))
        progress.finish_file(file[0])
        return found

    # The largest first, so that none is left over for one thread at the end.
    ordered = sorted(sizes, key=lambda file: -sizes[file])
    large = [file for file in ordered if sizes[file] > SMALL]
    with ThreadPoolExecutor(min(MOST_THREADS, os.cpu_count() or 1)) as pool:
        try:
            running = pool.map(run, large)
            found = {file: run(file) for file in ordered[len(large) :]}
            return found | dict(zip(large, running, strict=True))
        finally:
            stop.set()
            pool.shutdown(wait=False, cancel_futures=True)


class _Stopped(Exception):
    """Nobody waits for this hash any more."""


class _Meter:
    """A hasher that only counts: it reports progress, and ends the reading when nobody waits for it."""

    def __init__(self, progress: Progress, origin: str, stop: threading.Event) -> None:
        self._progress = progress
        self._origin = origin
        self._stop = stop

    def update(self, data: bytes | memoryview, /) -> None:
        if self._stop.is_set():
            raise _Stopped
        self._progress.advance(len(data), self._origin)

    def hexdigest(self) -> str:
        return ""


def _hash(path: str, algorithm: Algorithm, meter: _Meter) -> FileHash:
    try:
        hasher = new_hasher(algorithm, os.stat(path).st_size)
        return FileHash(hash_file(Path(path), hasher, meter), hasher.hexdigest())
    except OSError as error:
        return FileHash(error=error.strerror or str(error))


def _size(path: str) -> int:
    try:
        return os.stat(path).st_size
    except OSError:
        return 0
