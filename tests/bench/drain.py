"""A client that costs next to nothing: many connections whose bodies the kernel throws away; it verifies no byte.

`recv` with MSG_TRUNC drops what came without copying it: 0.05 s of CPU for 1 GiB where curl -o /dev/null takes 0.45,
so that on two cores the server is what is measured. Elsewhere than on Linux it copies.
"""

from __future__ import annotations

import argparse
import json
import math
import resource
import socket
import struct
import sys
import threading
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from urllib.parse import urlsplit

STEP = 1 << 20
SLOW_STEP = 1 << 16
WAIT = 120  # seconds without a byte
DROP = socket.MSG_TRUNC if sys.platform == "linux" else 0


@dataclass(slots=True)
class Drained:
    """What one client got: the last status, bytes of bodies, when the first came (monotonic seconds), if all came."""

    status: int = 0
    received: int = 0
    first: float = 0.0
    is_whole: bool = False


class Client:
    """One connection that asks for the URLs one after the other; `rate` in bytes per second, 0 for no limit."""

    def __init__(self, urls: Sequence[str], rate: int, stopped: threading.Event) -> None:
        self.drained = Drained()
        self._urls, self._rate, self._stopped = urls, rate, stopped
        self._buffer = bytearray(STEP)
        self._socket = socket.socket()
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, struct.pack("@ll", WAIT, 0))
        if rate:  # before it connects, or the window is already wide
            self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, SLOW_STEP)

    def connect(self) -> None:
        """Connect to where the first URL says."""
        address = urlsplit(self._urls[0])
        self._socket.connect((address.hostname, address.port))

    def run(self) -> None:
        """Ask for all of them, and stop early when told to or when the server hangs up."""
        try:
            self.drained.is_whole = all(self._fetch(url) for url in self._urls)
        except OSError as error:
            print(f"a client's connection: {error}", file=sys.stderr)
        finally:
            self._socket.close()

    def _fetch(self, url: str) -> bool:
        address = urlsplit(url)
        target = address.path + (f"?{address.query}" if address.query else "")
        self._socket.sendall(f"GET {target} HTTP/1.1\r\nHost: {address.netloc}\r\n\r\n".encode())
        length, got = self._head()
        if length and not got:
            got = self._receive(1)
        if got and not self.drained.first:
            self.drained.first = time.monotonic()
        self.drained.received += got
        return self._body(length - got)

    def _head(self) -> tuple[int, int]:
        """Read the head; return the body's length and how many bytes of it came along."""
        head = bytearray()
        while (end := head.find(b"\r\n\r\n")) < 0:
            piece = self._socket.recv(SLOW_STEP)
            if not piece:
                raise ConnectionError("closed before the end of a head")
            head += piece
        first, *lines = head[:end].decode("latin-1").split("\r\n")
        headers = {name.strip().lower(): text.strip() for name, _, text in (line.partition(":") for line in lines)}
        self.drained.status = int(first.split(" ")[1])
        return int(headers["content-length"]), len(head) - end - 4

    def _body(self, left: int) -> bool:
        began, total = time.monotonic(), left
        while left:
            got = self._receive(min(left, SLOW_STEP if self._rate else STEP))
            if not got:
                return False
            left -= got
            self.drained.received += got
            if self._rate and self._stopped.wait(max(0.0, began + (total - left) / self._rate - time.monotonic())):
                return False
        return True

    def _receive(self, size: int) -> int:
        return self._socket.recv_into(self._buffer, size, DROP | socket.MSG_WAITALL)


def main() -> None:
    """Fetch the URLs and print what came, as one line of JSON."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("urls", nargs="+", help="each client starts at the next of them")
    parser.add_argument("--clients", type=int, default=1)
    parser.add_argument("--requests", type=int, default=1, help="of each client, over one connection")
    parser.add_argument("--rate", type=int, default=0, help="bytes per second of each client")
    parser.add_argument("--hold", type=float, default=math.inf, help="seconds after which clients with a rate leave")
    arguments = parser.parse_args()
    stopped = threading.Event()
    clients = [
        Client(chosen(arguments.urls, at, arguments.requests), arguments.rate, stopped)
        for at in range(arguments.clients)
    ]
    for client in clients:
        client.connect()
    began = time.monotonic()
    threads = [threading.Thread(target=client.run) for client in clients]
    for thread in threads:
        thread.start()
    if arguments.hold < math.inf:
        threading.Timer(arguments.hold, stopped.set).start()
    for thread in threads:
        thread.join()
    wall = time.monotonic() - began
    used = resource.getrusage(resource.RUSAGE_SELF)
    told = {"wall": wall, "cpu": used.ru_utime + used.ru_stime, "rss": used.ru_maxrss << 10}
    print(json.dumps({**told, "clients": [asdict(client.drained) for client in clients]}))


def chosen(urls: Sequence[str], start: int, count: int) -> list[str]:
    """Return so many URLs, beginning at `start` and round again."""
    return [urls[(start + at) % len(urls)] for at in range(count)]


if __name__ == "__main__":
    main()
