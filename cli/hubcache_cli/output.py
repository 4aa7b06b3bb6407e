"""How things look: sizes, tables, JSON on stdout; notes and progress on stderr."""

from __future__ import annotations

import json
import os
import sys
import threading
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tqdm import tqdm

# 80 columns hold a name, how far, how fast, how long, which file, and who sends it; a drawn bar would not fit.
_BAR = "{desc} {percentage:3.0f}% {n_fmt}/{total_fmt} {rate_fmt} {remaining}{postfix}"
_UNITS = ("B", "kB", "MB", "GB", "TB", "PB")


def size_text(size: float) -> str:
    """Write bytes for people, in powers of 1000: `90.9 MB`."""
    unit = 0
    while abs(size) >= 999.5 and unit < len(_UNITS) - 1:
        size, unit = size / 1000, unit + 1
    return f"{size:.0f} {_UNITS[unit]}" if unit == 0 or size >= 99.95 else f"{size:.1f} {_UNITS[unit]}"


def age_text(seconds: float) -> str:
    """Write a span of time for people: `3 days`."""
    for unit, length in (("day", 86400), ("hour", 3600), ("minute", 60)):
        if seconds >= length:
            count = int(seconds // length)
            return f"{count} {unit}" + ("s" if count > 1 else "")
    return "now"


def counted(count: int, noun: str) -> str:
    """Write a count with its noun: `1 file`, `2 files`."""
    return f"{count} {noun}" + ("" if count == 1 else "s")


def print_json(value: Any) -> None:
    """Print one line of JSON."""
    # A file name that is no Unicode holds lone surrogates, whose backslash form is JSON's own.
    print(json.dumps(value, ensure_ascii=False).encode("utf-8", "backslashreplace").decode())


def print_table(header: Sequence[str], rows: Sequence[Sequence[str]], *, right: Sequence[int] = ()) -> None:
    """Print rows in columns, the columns `right` aligned to the right."""
    widths = [max(len(row[column]) for row in (header, *rows)) for column in range(len(header))]
    for row in (header, *rows):
        cells = [
            cell.rjust(width) if column in right else cell.ljust(width)
            for column, (cell, width) in enumerate(zip(row, widths, strict=True))
        ]
        print("  ".join(cells).rstrip())


def plain(text: str) -> str:
    """Write a name from the disk so that no terminal obeys it: control characters and strange bytes escaped."""
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else ascii(c)[1:-1] for c in text)


def shorten(text: str, width: int) -> str:
    """Cut a name to `width` characters, in its middle: what tells names apart stands at both ends."""
    if len(text) <= width:
        return text
    tail = (width - 1) // 2
    return f"{text[: width - 1 - tail]}…{text[len(text) - tail :]}"


def terminal_width() -> int:
    """Return the columns of the terminal that stdout is, 80 where it is none."""
    try:
        return os.get_terminal_size(sys.stdout.fileno()).columns or 80
    except (OSError, ValueError):
        return 80


def print_labelled(label: str, text: str) -> None:
    """Print a label and a text that is wrapped beside it; a word is never cut, paths are there to be copied."""
    import textwrap

    beside = " " * len(label)
    print(
        textwrap.fill(
            plain(text), terminal_width(), initial_indent=label, subsequent_indent=beside, break_long_words=False,
            break_on_hyphens=False,
        )
    )  # fmt: skip


def note(text: str) -> None:
    """Say one line to the person, beside the data."""
    print(text, file=sys.stderr)


class TransferProgress:
    """A bar on a terminal, and in the end one line: bytes, seconds, rate, origins."""

    def __init__(self, name: str, *, bar: bool) -> None:
        self._name = name
        self._wants_bar = bar and sys.stderr.isatty()
        self._bar: tqdm[Any] | None = None
        self._lock = threading.Lock()
        self._started = time.monotonic()
        self._files = self._finished = 0
        self._by_origin: dict[str, int] = {}

    def begin(self, files: int, size: int, /) -> None:
        """Add files and bytes to what is to come."""
        with self._lock:
            self._files += files
            if self._wants_bar and self._bar is None and size:
                self._bar = self._new_bar()
            if self._bar is not None:
                self._bar.total = (self._bar.total or 0) + size

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
        """Take the bar off the screen."""
        if self._bar is not None:
            self._bar.leave = False
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

    def _new_bar(self) -> tqdm[Any]:
        from tqdm import tqdm  # 45 ms that only a terminal pays

        return tqdm(total=0, desc=_shortened(self._name, 18), unit="B", unit_scale=True, file=sys.stderr,
                    dynamic_ncols=True, smoothing=0.1, bar_format=_BAR)  # fmt: skip


def _shortened(name: str, width: int) -> str:
    """Keep the end of a name, which tells more than its beginning."""
    last = name.partition("?")[0].rstrip("/").rpartition("/")[2] or name
    return last if len(last) <= width else "…" + last[1 - width :]


def _host(origin: str) -> str:
    return origin.partition("://")[2] or origin
