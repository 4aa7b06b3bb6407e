"""Threads that work through jobs together: the first failure stops all, Ctrl-C does not wait for a socket."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable

from hubcache.errors import HubcacheError

Job = Callable[[], None]

PATIENCE = 1.0
"""Seconds that the other threads get to end by themselves after a failure; one may wait for a silent server."""
POLL = 0.1


class Stop:
    """A request to stop: one's own, or that of whoever one works for."""

    def __init__(self, above: Stop | None = None) -> None:
        self._event = threading.Event()
        self._above = above

    def set(self) -> None:
        """Ask everybody who works for this to stop."""
        self._event.set()

    def is_set(self) -> bool:
        """Tell whether to stop."""
        return self._event.is_set() or (self._above is not None and self._above.is_set())

    def wait(self, seconds: float) -> bool:
        """Wait until there is a request to stop, or the seconds are over; tell which."""
        deadline = time.monotonic() + seconds
        while not self.is_set() and (left := deadline - time.monotonic()) > 0:
            self._event.wait(min(left, POLL))
        return self.is_set()


class Crew:
    """A growing number of threads, each with a job.

    The threads are daemons, so that an interrupted process ends while one of them waits for a server.
    """

    def __init__(self, stop: Stop) -> None:
        self.stop = stop
        self._threads: list[threading.Thread] = []
        self._failures: list[BaseException] = []

    def start(self, job: Job) -> None:
        """Start one more thread."""
        thread = threading.Thread(target=self._work, args=(job,), daemon=True)
        self._threads.append(thread)
        thread.start()

    def is_working(self) -> bool:
        """Tell whether a thread still works and none has failed."""
        return not self._failures and any(thread.is_alive() for thread in self._threads)

    def wait(self, seconds: float) -> bool:
        """Wait that long at most; tell whether there is still work."""
        deadline = time.monotonic() + seconds
        for thread in self._threads:
            thread.join(max(0.0, deadline - time.monotonic()))
        return self.is_working()

    def finish(self) -> None:
        """Wait for the end and raise the first failure.

        Raises:
            BaseException: what a job raised; one of ours, if there are several.
        """
        try:
            while self.is_working():
                self.wait(POLL)
        except BaseException:
            self.stop.set()
            raise
        if self._failures:
            self.wait_patiently()
            raise next((error for error in self._failures if isinstance(error, HubcacheError)), self._failures[0])

    def wait_patiently(self) -> None:
        """Give the threads a moment to notice that they are to stop."""
        deadline = time.monotonic() + PATIENCE
        for thread in self._threads:
            thread.join(max(0.0, deadline - time.monotonic()))

    def _work(self, job: Job) -> None:
        try:
            job()
        except BaseException as error:  # noqa: BLE001  # raised by the thread that waits
            self._failures.append(error)
            self.stop.set()


def run_all(jobs: list[Job], workers: int, *, stop: Stop | None = None) -> None:
    """Run the jobs in `workers` threads; the first failure sets `stop` and is raised, and no further job begins."""
    crew = Crew(stop or Stop())
    start_workers(crew, jobs, workers)
    crew.finish()


def start_workers(crew: Crew, jobs: list[Job], workers: int) -> None:
    """Let `workers` threads of the crew work through the jobs."""
    queue = deque(jobs)

    def work() -> None:
        while not crew.stop.is_set():
            try:
                job = queue.popleft()
            except IndexError:
                return
            job()

    for _ in range(min(workers, len(jobs))):
        crew.start(work)
