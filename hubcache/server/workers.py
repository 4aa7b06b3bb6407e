"""Threads for what may wait, so that the event loop never does; they are daemons, so that the end is not waited for."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import partial
from typing import TypeVar

from hubcache.crew import POLL

_T = TypeVar("_T")
_here = threading.local()


class Workers:
    """At most `most` jobs at once; the others wait for their turn."""

    def __init__(self, most: int) -> None:
        self._turn = threading.BoundedSemaphore(most)
        self._count = 0
        self._lock = threading.Lock()

    def start(self, job: Callable[[], None]) -> None:
        """Do a job that raises nothing."""
        with self._lock:
            self._count += 1
        threading.Thread(target=self._work, args=(job,), daemon=True).start()

    async def result(self, job: Callable[[], _T]) -> _T:
        """Do a job and wait for what it returns or raises."""
        loop = asyncio.get_running_loop()
        future: asyncio.Future[_T] = loop.create_future()

        def run() -> None:
            try:
                settle = partial(future.set_result, job())
            except BaseException as error:  # noqa: BLE001  # raised by who waits
                settle = partial(future.set_exception, error)
            with suppress(RuntimeError):  # the loop has ended
                loop.call_soon_threadsafe(lambda: None if future.done() else settle())

        self.start(run)
        return await future

    def wait(self, seconds: float) -> None:
        """Wait for the jobs' end, so long at most."""
        end = time.monotonic() + seconds
        while self._count and time.monotonic() < end:
            time.sleep(POLL / 10)

    def _work(self, job: Callable[[], None]) -> None:
        try:
            with self._turn:
                _here.turn = self._turn
                job()
        finally:
            with self._lock:
                self._count -= 1


@contextmanager
def turn_lent() -> Iterator[None]:
    """Let another job have this thread's turn, while it waits for something that is not this machine's."""
    turn: threading.BoundedSemaphore | None = getattr(_here, "turn", None)
    if turn is None:
        yield
        return
    turn.release()
    try:
        yield
    finally:
        turn.acquire()
