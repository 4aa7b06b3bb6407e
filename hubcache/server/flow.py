"""A file's bytes on their way to clients: what is there, what is proven, and the waiting for more.

The last bytes of a file are held back until its digest is right, so that wrong bytes make a short body and never a
whole file. Who fills it, fills.py and checking.py say.
"""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from hubcache.errors import HubcacheError

HELD_BACK = 64 << 10
"""Bytes at a file's end that no client gets before the digest is right; a file no larger than that waits as a whole."""
WAKING = 0.01
WAKING_PER_CLIENT = 0.0003
"""Seconds between two wakings of those who wait: some, and more for each of them, or waking is all that is done."""


class Flow:
    """One file of `size` bytes, whole or filling up. Threads tell it; clients wait for it on the event loop.

    Attributes:
        path: where the bytes stand now, None before there are any.
        edition: raised when bytes that may have been sent turn out wrong; who has sent any must end there.
        is_proven: the digest is right.
        is_placed: the path is final; before, the file may get another name at any moment.
        failure: why there will be no more.
    """

    def __init__(self, size: int, *, path: Path | None = None, is_proven: bool = False) -> None:
        self.size = size
        self.path = path
        self.is_proven = is_proven
        self.is_placed = True
        self.edition = 0
        self.failure: HubcacheError | None = None
        self._loop = asyncio.get_running_loop()
        self._event = asyncio.Event()
        self._woken_at = 0.0
        self._told = False
        self._waiting: Counter[int] = Counter()

    def reach(self, at: int) -> int:
        """Return up to where bytes from `at` on may be sent; `at` itself where none may."""
        end = self._there(at)
        return end if self.is_proven else max(at, min(end, self.size - HELD_BACK))

    def _there(self, at: int) -> int:
        """Return up to where bytes from `at` on are there."""
        return self.size

    def wanted(self) -> tuple[int, ...]:
        """Return the offsets that clients wait at."""
        return tuple(self._waiting)

    async def more(self, at: int) -> None:
        """Wait until something changed that may concern the bytes from `at` on."""
        event = self._event
        with self._wait_at(at):
            await event.wait()

    @contextmanager
    def _wait_at(self, at: int) -> Iterator[None]:
        self._waiting[at] += 1
        try:
            yield
        finally:
            self._waiting[at] -= 1
            if not self._waiting[at]:
                del self._waiting[at]

    def tell(self) -> None:
        """Let the clients look again; any thread may call this, however often."""
        if not self._told:
            self._told = True
            self._loop.call_soon_threadsafe(self._wake_soon)

    def _wake_soon(self) -> None:
        """Wake them now, or a moment after they were woken last."""
        pause = WAKING + WAKING_PER_CLIENT * len(self._waiting)
        left = self._woken_at + pause - time.monotonic()
        if left > 0 and not self.is_proven and self.failure is None:
            self._loop.call_later(left, self._wake)
        else:
            self._wake()

    def _wake(self) -> None:
        self._told = False
        self._woken_at = time.monotonic()
        event, self._event = self._event, asyncio.Event()
        event.set()
