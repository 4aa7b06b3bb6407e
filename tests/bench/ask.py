"""A client that asks one thing over and over on many connections and times every answer; bodies are only counted.

It is no wrk, which cannot ask HEAD: it waits for the body that Content-Length names. A question costs this client some
30 microseconds, the kernel's part included, against 200 that a server may take for an answer.
"""

from __future__ import annotations

import argparse
import json
import selectors
import socket
import time
from dataclasses import dataclass
from urllib.parse import urlsplit

ROOM = 1 << 20
WAIT = 10.0  # seconds without any answer


@dataclass(slots=True)
class Connection:
    """One connection with a question under way: when it was sent, and how much of the answer is still to come."""

    socket: socket.socket
    sent: float = 0.0
    left: int = 0
    head: bytes = b""


class Asker:
    """Asks for a URL on so many connections, one question at a time on each."""

    def __init__(self, url: str, method: str, connections: int) -> None:
        address = urlsplit(url)
        target = address.path + (f"?{address.query}" if address.query else "")
        self._question = f"{method} {target} HTTP/1.1\r\nHost: {address.netloc}\r\n\r\n".encode()
        self._has_body = method != "HEAD"
        self._selector = selectors.DefaultSelector()
        self.waits: list[float] = []
        for _ in range(connections):
            connected = socket.create_connection((address.hostname or "", address.port or 80), timeout=WAIT)
            connected.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            self._selector.register(connected, selectors.EVENT_READ, Connection(connected))

    def run(self, seconds: float) -> float:
        """Ask for so long, and until there is an answer; return the seconds it took.

        Raises:
            ConnectionError: an answer was no 200, or none came.
        """
        began = time.perf_counter()
        for key in self._selector.get_map().values():
            self._ask(key.data)
        while time.perf_counter() < began + seconds or not self.waits:
            events = self._selector.select(WAIT)
            if not events:
                raise ConnectionError(f"no answer for {WAIT} s")
            for key, _ in events:
                if self._is_answered(key.data):
                    self.waits.append(time.perf_counter() - key.data.sent)
                    self._ask(key.data)
        return time.perf_counter() - began

    def _ask(self, connection: Connection) -> None:
        connection.sent = time.perf_counter()
        connection.socket.sendall(self._question)

    def _is_answered(self, connection: Connection) -> bool:
        piece = connection.socket.recv(ROOM)
        if not piece:
            raise ConnectionError("the server hung up")
        if connection.left:
            connection.left -= len(piece)
            return not connection.left
        head, blank, body = (connection.head + piece).partition(b"\r\n\r\n")
        if not blank:
            connection.head = head
            return False
        connection.head = b""
        if not head.startswith(b"HTTP/1.1 200 "):
            raise ConnectionError(f"answered {head[:100]!r}")
        connection.left = self._length(head) - len(body)
        return not connection.left

    def _length(self, head: bytes) -> int:
        """Read the length of the body that follows a head; Content-Length is all that our servers send."""
        if not self._has_body:
            return 0
        return int(head.lower().split(b"\r\ncontent-length:", 1)[1].split(b"\r\n", 1)[0])


def main() -> None:
    """Ask for some seconds and print how many answers came and how long they took, as one line of JSON."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("url")
    parser.add_argument("--method", choices=("GET", "HEAD"), default="GET")
    parser.add_argument("--connections", type=int, default=16)
    parser.add_argument("--seconds", type=float, default=4.0)
    arguments = parser.parse_args()
    asker = Asker(arguments.url, arguments.method, arguments.connections)
    wall, waits = asker.run(arguments.seconds), sorted(asker.waits)
    shares = {f"p{share}_ms": waits[len(waits) * share // 100] * 1000 for share in (50, 95)}
    print(json.dumps({"answers": len(waits), "seconds": wall, "cpu": time.process_time(), **shares}))


if __name__ == "__main__":
    main()
