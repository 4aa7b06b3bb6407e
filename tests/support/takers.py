"""Clients that take a file and mistrust it: every byte is compared, and who is cut short comes back for the rest.

They assert nothing but that the bytes are right, and never more of them than the file has.
"""

from __future__ import annotations

import socket
import time
from http.client import HTTPConnection, HTTPException
from urllib.parse import urlsplit

from tests.support.asking import ask
from tests.support.httpd import Body, Reply, Request
from tests.support.loophub import LoopHub
from tests.support.waiting import until

PIECE = 1 << 20
SMALL_WINDOW = 64 << 10
PAUSE = 0.1


class FlippingHub(LoopHub):
    """A hub that lies. `flips`: file -> offset of its one wrong byte. `garbage`: what its API answers instead."""

    def __init__(self) -> None:
        super().__init__()
        self.flips: dict[str, int] = {}
        self.garbage: bytes | None = None

    def _route(self, request: Request) -> Reply:
        if self.garbage is not None and request.path.startswith("/api/"):
            return Reply(200, {"Content-Type": "text/html"}, self.garbage)
        return super()._route(request)

    def file_reply(self, request: Request, name: str, body: Body, headers: dict[str, str]) -> Reply:
        """Answer as the hub does, with another body where it is to be wrong."""
        at = self.flips.get(name)
        if at is not None and isinstance(body, bytes):
            body = body[:at] + bytes([body[at] ^ 0xFF]) + body[at + 1 :]
        return super().file_reply(request, name, body, headers)


def take(endpoint: str, path: str, content: bytes, *, most: int | None = None) -> int:
    """Take a file, or about its first `most` bytes, and return how many bytes came.

    Raises:
        AssertionError: they are not the content's.
    """
    connection = HTTPConnection(urlsplit(endpoint).netloc, timeout=60)
    view, at = memoryview(content), 0
    buffer = bytearray(PIECE)
    try:
        connection.request("GET", path)
        response = connection.getresponse()
        while (count := response.readinto(buffer)) and (most is None or at < most):
            if memoryview(buffer)[:count] != view[at : at + count]:
                raise AssertionError(f"{path}: wrong bytes from {at} to {at + count}")
            at += count
    finally:
        connection.close()
    return at


def persist(endpoint: str, path: str, size: int, *, seconds: float = 40.0) -> bytes:
    """Take a file as a downloader does: cut short, or refused, it comes back with a Range for the rest.

    Raises:
        AssertionError: it has not got all of it by then.
    """
    kept, end = b"", time.monotonic() + seconds
    while len(kept) < size:
        if time.monotonic() > end:
            raise AssertionError(f"{path}: {len(kept)} bytes of {size} after {seconds} s")
        try:
            got = ask(endpoint, path, headers={"Range": f"bytes={len(kept)}-"} if kept else {})
        except (OSError, HTTPException):
            time.sleep(PAUSE)
            continue
        if got.status not in {200, 206}:
            time.sleep(PAUSE)
        elif got.status == 200:
            kept = got.body
        else:
            kept += got.body
    return kept


def idle(port: int, path: str) -> socket.socket:
    """Ask for a file, read nothing of it, and return the connection once something waits to be read."""
    connection = socket.socket()
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, SMALL_WINDOW)
    connection.settimeout(20)
    connection.connect(("127.0.0.1", port))
    connection.sendall(f"GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode())
    until(lambda: connection.recv(1, socket.MSG_PEEK), "the first byte for a client that reads nothing")
    return connection
