"""When a server counts as too slow: headers that drip in, bodies below a minimum speed; it opens no connection."""

from __future__ import annotations

import http.client
import socket
import time
from typing import Any, BinaryIO

from hubcache.errors import SourceUnavailable


class Speed:
    """The minimum speed of one body: only the time spent waiting for the server counts."""

    def __init__(self, slowest: float, window: float) -> None:
        """Ask for `slowest` bytes per second over each `window` seconds of waiting."""
        self._slowest = slowest
        self._window = window
        self._waited = 0.0
        self._size = 0

    def check(self, size: int, waited: float, url: str) -> None:
        """Count `size` bytes that took `waited` seconds.

        Raises:
            SourceUnavailable: a whole window brought less than the minimum.
        """
        self._waited += waited
        self._size += size
        if self._waited < self._window:
            return
        if self._size < self._slowest * self._waited:
            raise SourceUnavailable(f"{url}: below {self._slowest:.0f} bytes/s for {self._window:g} s")
        self._waited, self._size = 0.0, 0


class PunctualAnswer(http.client.HTTPResponse):
    """An answer whose headers arrive within the time-out as a whole: a socket's own holds for every single byte."""

    def __init__(self, sock: socket.socket, *options: Any, **named: Any) -> None:
        super().__init__(sock, *options, **named)
        self._timeout = sock.gettimeout()

    def begin(self) -> None:
        """Read the status and the headers.

        Raises:
            TimeoutError: they were not there in time.
        """
        if self._timeout is None or self.fp is None:
            super().begin()
            return
        whole: Any = self.fp
        lines: Any = _TimedLines(whole, self._timeout)
        self.fp = lines
        try:
            super().begin()
        finally:
            if self.fp is lines:
                self.fp = whole


class _TimedLines:
    """Reads lines until the time is up, with no more than one wait for the socket between looks at the clock."""

    def __init__(self, buffered: BinaryIO, seconds: float) -> None:
        self._buffered: Any = buffered
        self._deadline = time.monotonic() + seconds

    def readline(self, limit: int = -1) -> bytes:
        line = b""
        while not line.endswith(b"\n") and (limit < 0 or len(line) < limit):
            ready = self._buffered.peek(1)
            if time.monotonic() > self._deadline:
                raise TimeoutError("the headers took too long")
            if not ready:
                break
            size = ready.find(b"\n") + 1 or len(ready)
            line += self._buffered.read(size if limit < 0 else min(size, limit - len(line)))
        return line

    def flush(self) -> None:
        """Have nothing to flush: closing an answer asks for it."""

    def close(self) -> None:
        self._buffered.close()
