"""A limit of bytes per second, shared by all connections to one mirror."""

from __future__ import annotations

import threading
import time


class RateLimit:
    """Lets `rate` bytes per second pass, with a burst of a tenth of a second."""

    def __init__(self, rate: float) -> None:
        self._rate = rate
        self._free_at = 0.0
        self._lock = threading.Lock()

    def spend(self, size: int) -> None:
        """Wait until `size` bytes more may have passed."""
        with self._lock:
            now = time.monotonic()
            self._free_at = max(self._free_at, now - 0.1) + size / self._rate
            wait = self._free_at - now
        if wait > 0:
            time.sleep(wait)
