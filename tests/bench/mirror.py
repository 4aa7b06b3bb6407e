"""A loopback hub as a process, started as a mirror, that counts the bytes of files it hands to its connections.

The count lies in a mapped file, so it outlives a process that is killed; it knows nothing of its clients.
"""

from __future__ import annotations

import argparse
import mmap
import signal
import struct
import threading
from pathlib import Path

from tests.support import httpd
from tests.support.loophub import LoopHub, folder_files

COUNT = struct.Struct("=Q")


class Counter:
    """Bytes counted in a file."""

    def __init__(self, file: Path) -> None:
        file.write_bytes(bytes(COUNT.size))
        with file.open("r+b") as opened:
            self._map = mmap.mmap(opened.fileno(), COUNT.size)
        self._lock = threading.Lock()
        self._total = 0

    def add(self, size: int) -> None:
        """Count further bytes."""
        with self._lock:
            self._total += size
            COUNT.pack_into(self._map, 0, self._total)


def counted(file: Path) -> int:
    """Read a counter's file; 0 before there is one."""
    content = file.read_bytes() if file.exists() else b""
    return int(COUNT.unpack(content)[0]) if len(content) == COUNT.size else 0


def counting_pace(counter: Counter) -> type[httpd.Pace]:
    """Return the server's pace with the counter in it: every piece of a large body passes it."""

    class Counting(httpd.Pace):
        def count(self, sent: int) -> None:
            counter.add(sent)
            super().count(sent)

    return Counting


def main() -> None:
    """Serve one folder as one repo until killed, the endpoint on the first line of stdout."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("--dir", type=Path, required=True)
    parser.add_argument("--repo", required=True)
    parser.add_argument("--rate", type=int, default=0, help="bytes per second of each body")
    parser.add_argument("--count", type=Path, required=True, help="the file to count the bytes sent in")
    arguments = parser.parse_args()
    setattr(httpd, "Pace", counting_pace(Counter(arguments.count)))  # noqa: B010  # a class of ours in another's place
    hub = LoopHub()
    hub.add_repo(arguments.repo, folder_files(arguments.dir))
    hub.rate = arguments.rate
    ends = {signal.SIGINT, signal.SIGTERM}
    signal.pthread_sigmask(signal.SIG_BLOCK, ends)  # before any thread is made: threads inherit it
    with hub:
        print(hub.endpoint, flush=True)
        signal.sigwait(ends)


if __name__ == "__main__":
    main()
