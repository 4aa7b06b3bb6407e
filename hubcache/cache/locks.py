"""huggingface_hub's lock files, at its paths: they save work; correctness does not rest on them."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

from hubcache.crew import Stop
from hubcache.localfile import disk_error

POLL = 0.2
PATIENCE = 60.0


@contextmanager
def held(path: Path, *, progress_of: Callable[[], object], stop: Stop) -> Iterator[bool]:
    """Hold the lock, and yield True; wait for another holder as long as `progress_of()` keeps changing.

    After PATIENCE seconds without a change, yield False: the holder is stuck or the file system's
    locks do not work, and going on without the lock costs a second download, never a wrong file.
    """
    lock = _lock_at(path)
    is_held = _acquire(lock, progress_of, stop)
    try:
        yield is_held
    finally:
        if is_held:
            lock.release()


@contextmanager
def held_if_free(path: Path) -> Iterator[bool]:
    """Hold the lock if nobody else does, and yield whether that is so."""
    lock = _lock_at(path)
    is_held = _try(lock) is True
    try:
        yield is_held
    finally:
        if is_held:
            lock.release()


def _lock_at(path: Path) -> FileLock:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise disk_error(error, path) from error
    return FileLock(path, mode=0o664, thread_local=False)


def _acquire(lock: FileLock, progress_of: Callable[[], object], stop: Stop) -> bool:
    seen: object = None
    since = time.monotonic()
    while not stop.is_set():
        is_held = _try(lock)
        if is_held is not None:
            return is_held
        now = progress_of()
        if now != seen:
            seen, since = now, time.monotonic()
        if time.monotonic() - since > PATIENCE:
            return False
        stop.wait(POLL)
    return False


def _try(lock: FileLock) -> bool | None:
    """Return True for held, None for held by somebody else, False where there is no locking."""
    try:
        lock.acquire(timeout=0, blocking=False)
    except Timeout:
        return None
    except (NotImplementedError, OSError):
        # No flock on this file system, or a read-only lock folder.
        return False
    return True
