"""A loopback hub behind one line of a fixed rate, as a process; a file tells when bodies began and what they took.

However many connections are open, they share the rate, so that a server gains nothing by opening more. The file is
mapped: another process reads it while bodies are sent. Answers that are no files cost the line nothing.
"""

from __future__ import annotations

import argparse
import mmap
import signal
import struct
import threading
from dataclasses import dataclass
from pathlib import Path
from time import monotonic

from tests.support import httpd
from tests.support.loophub import LoopHub, folder_files

TALLY = struct.Struct("=QQd")
IDLE = 0.1  # seconds after which what the line could have sent is lost


@dataclass(frozen=True, slots=True)
class Tally:
    """Bytes of bodies sent, the bodies they were of, and when the first of them began (monotonic seconds)."""

    sent: int = 0
    bodies: int = 0
    began: float = 0.0


def tally(file: Path) -> Tally:
    """Read what a line has noted."""
    return Tally(*TALLY.unpack(file.read_bytes()))


class Line:
    """The rate in bytes per second that all bodies share, and the file it is noted in."""

    def __init__(self, rate: int, file: Path) -> None:
        file.write_bytes(bytes(TALLY.size))
        with file.open("r+b") as opened:
            self._map = mmap.mmap(opened.fileno(), TALLY.size)
        self._rate, self._lock = rate, threading.Lock()
        self._sent = self._bodies = 0
        self._began = self._free = 0.0

    def begin(self) -> None:
        """Note that a body begins."""
        with self._lock:
            self._began = self._began or monotonic()
            self._bodies += 1
            self._note()

    def take(self, size: int) -> float:
        """Note further bytes; return the seconds to wait until the line is free again."""
        with self._lock:
            self._sent += size
            self._note()
            now = monotonic()
            self._free = max(self._free, now - IDLE) + size / self._rate
            return self._free - now

    def _note(self) -> None:
        TALLY.pack_into(self._map, 0, self._sent, self._bodies, self._began)


def shared_pace(line: Line) -> type[httpd.Pace]:
    """Return the servers' pace with the line in place of a rate for each connection."""

    class Shared(httpd.Pace):
        def __init__(self, rate: int, stopped: threading.Event) -> None:
            super().__init__(rate, stopped)
            line.begin()

        def count(self, sent: int) -> None:
            if (wait := line.take(sent)) > 0:
                self.stopped.wait(wait)

    return Shared


def main() -> None:
    """Serve folders as repos until killed, the endpoint on the first line of stdout."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("--repo", nargs=2, action="append", required=True, metavar=("NAME", "DIR"))
    parser.add_argument("--rate", type=int, required=True, help="bytes per second of all bodies together")
    parser.add_argument("--tally", type=Path, required=True, help="the file to note in")
    arguments = parser.parse_args()
    setattr(httpd, "Pace", shared_pace(Line(arguments.rate, arguments.tally)))  # noqa: B010  # a class of ours in its place
    hub = LoopHub()
    for name, folder in arguments.repo:
        hub.add_repo(name, folder_files(Path(folder)))
    hub.rate = arguments.rate
    ends = {signal.SIGINT, signal.SIGTERM}
    signal.pthread_sigmask(signal.SIG_BLOCK, ends)  # before any thread is made: threads inherit it
    with hub:
        print(hub.endpoint, flush=True)
        signal.sigwait(ends)


if __name__ == "__main__":
    main()
