"""Cached files proven before they are served whole: each is hashed once for every state that it is in.

huggingface_hub writes what it got without looking at it, and disks rot.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from pathlib import Path

from hubcache.cache.index import FileState, Index
from hubcache.core.digests import Blob, new_hasher
from hubcache.errors import IntegrityError
from hubcache.localfile import hash_file
from hubcache.server.flow import Flow
from hubcache.server.workers import Workers

THREADS = 2
MOST_REMEMBERED = 100_000


class Checker:
    """Opens cached files as flows; one that was not proven yet is hashed while it is sent."""

    def __init__(self, index: Index, *, log: Callable[[str], None]) -> None:
        self._index = index
        self._log = log
        self._proven: dict[Path, FileState] = {}
        self._checks: dict[Path, Flow] = {}
        self._lock = threading.Lock()
        self._workers = Workers(THREADS)

    def open(self, path: Path, blob: Blob, state: FileState) -> Flow:
        """Open a file that has this state and should be this blob; called on the event loop."""
        if self._proven.get(path) == state:
            return Flow(blob.size, path=path, is_proven=True)
        if (known := self._index.hex_of(path, blob.digest.algorithm, state)) is not None:
            flow = Flow(blob.size, path=path, is_proven=known == blob.digest.hex)
            self._settle(flow, path, blob, state, known)
            return flow
        with self._lock:
            running = self._checks.get(path)
            if running is not None:
                return running
            flow = self._checks[path] = Flow(blob.size, path=path)
        self._workers.start(lambda: self._check(flow, path, blob, state))
        return flow

    def _check(self, flow: Flow, path: Path, blob: Blob, state: FileState) -> None:
        algorithm = blob.digest.algorithm
        try:
            hasher = new_hasher(algorithm, blob.size)
            hash_file(path, hasher)
            found = hasher.hexdigest()
            if FileState.of(os.stat(path)) == state:
                sha1, sha256 = (found, "") if algorithm == "git-sha1" else ("", found)
                self._index.remember(path, state, git_sha1=sha1, sha256=sha256)
            self._settle(flow, path, blob, state, found)
        except OSError as error:
            flow.failure = IntegrityError(f"{path} cannot be read: {error.strerror}")
        finally:
            with self._lock:
                self._checks.pop(path, None)
            flow.tell()

    def _settle(self, flow: Flow, path: Path, blob: Blob, state: FileState, found: str) -> None:
        if found == blob.digest.hex:
            if len(self._proven) >= MOST_REMEMBERED:
                self._proven.clear()
            self._proven[path] = state
            flow.is_proven = True
            return
        message = f"{path} is not what its name says: its {blob.digest.algorithm} is {found}"
        self._log(f"{message}; it is not served")
        flow.failure = IntegrityError(message, hint="hubcache verify shows what else is wrong")
