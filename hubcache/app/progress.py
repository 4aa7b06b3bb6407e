"""Who watches a transfer: nobody, or a person at a terminal or in a notebook; it moves no bytes."""

from __future__ import annotations

import threading
import time
from typing import Any

from hubcache.core.amounts import size_text
from hubcache.notebook import is_notebook, new_bar, set_total, shows_bars

# 80 columns hold a name, how far, how fast, how long, which file, and who sends it; a drawn bar would not fit.
_BAR = "{desc} {percentage:3.0f}% {n_fmt}/{total_fmt} {rate_fmt} {remaining}{postfix}"


class NoProgress:
    """Nobody is watching."""

    def begin(self, files: int, size: int, /) -> None:
        """Ignore it."""

    def advance(self, size: int, origin: str, /) -> None:
        """Ignore it."""

    def finish_file(self, path: str, /) -> None:
        """Ignore it."""


class TransferProgress:
    """A bar on a terminal, and in the end one line: bytes, seconds, rate, origins."""

    def __init__(self, name: str, *, bar: bool) -> None:
        self._name = name
        self._wants_bar = bar and shows_bars()
        self._bar: Any = None
        self._lock = threading.Lock()
        self._started = time.monotonic()
        self._files = self._finished = 0
        self._by_origin: dict[str, int] = {}

    def begin(self, files: int, size: int, /) -> None:
        """Add files and bytes to what is to come."""
        with self._lock:
            self._files += files
            if self._bar is not None:
                set_total(self._bar, self._bar.total + size)
            elif self._wants_bar and size:
                self._bar = new_bar(
                    total=size, desc=_shortened(self._name, 18), unit="B", unit_scale=True, dynamic_ncols=True,
                    smoothing=0.1, bar_format=_BAR,
                )  # fmt: skip

    def advance(self, size: int, origin: str, /) -> None:
        """Count bytes, and show who sent them."""
        with self._lock:
            self._by_origin[origin] = self._by_origin.get(origin, 0) + size
            if self._bar is not None:
                self._bar.set_postfix_str(
                    f"{self._finished}/{self._files} files, {_shortened(_host(origin), 20)}", refresh=False
                )
                self._bar.update(size)

    def finish_file(self, path: str, /) -> None:
        """Count a file that is verified."""
        with self._lock:
            self._finished += 1

    def close(self) -> None:
        """Take the bar off the screen; in a notebook it stays, full."""
        if self._bar is not None:
            self._bar.leave = is_notebook()
            self._bar.close()
            self._bar = None

    @property
    def transferred(self) -> int:
        """Bytes that came over the network in this run."""
        return sum(size for origin, size in self._by_origin.items() if "://" in origin)

    def summary(self) -> str:
        """Say how much came, how fast, and from where."""
        seconds = max(time.monotonic() - self._started, 0.001)
        origins = ", ".join(sorted(origin for origin, size in self._by_origin.items() if "://" in origin and size))
        if not origins:
            return "taken in from this machine" if "local file" in self._by_origin else "nothing to transfer"
        rate = size_text(self.transferred / seconds)
        return f"{size_text(self.transferred)} in {seconds:.1f} s ({rate}/s) from {origins}"


def _shortened(name: str, width: int) -> str:
    """Keep the end of a name, which tells more than its beginning."""
    last = name.partition("?")[0].rstrip("/").rpartition("/")[2] or name
    return last if len(last) <= width else "…" + last[1 - width :]


def _host(origin: str) -> str:
    return origin.partition("://")[2] or origin
