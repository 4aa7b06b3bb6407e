"""HTTP by hand over a socket: what is sent is sent as it is, and what comes back is counted.

It follows no redirect, mends no request and keeps no connection beyond what a test asks of it.
"""

from __future__ import annotations

import socket
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Self

HOST = "127.0.0.1"
PATIENCE = 20.0
"""Seconds after which a silent server fails the test."""


@dataclass(frozen=True, slots=True)
class Answer:
    """One answer: header names in lower case, as a list because a name may come twice."""

    status: int
    fields: tuple[tuple[str, str], ...]
    body: bytes

    def get(self, name: str) -> str | None:
        """Return the first value of a header."""
        return next((value for key, value in self.fields if key == name.lower()), None)

    @property
    def head(self) -> str:
        """All headers as one text in lower case."""
        return "\n".join(f"{key}: {value}" for key, value in self.fields).lower()


def request(
    method: str, target: str, headers: Mapping[str, str] | None = None, body: bytes = b"", *, host: str = "localhost"
) -> bytes:
    """Write a request that asks for the connection's end; a header given here replaces the usual one."""
    fields = {"Host": host, "Connection": "close"} | ({"Content-Length": str(len(body))} if body else {})
    fields |= headers or {}
    lines = [f"{method} {target} HTTP/1.1", *(f"{name}: {value}" for name, value in fields.items()), "", ""]
    return "\r\n".join(lines).encode("utf-8", "surrogateescape") + body


def send(port: int, sent: bytes, *, seconds: float = PATIENCE) -> bytes:
    """Send bytes and return all that comes until the server ends the connection.

    Raises:
        TimeoutError: it says nothing for so many seconds.
    """
    with Line(port, seconds) as line:
        line.send(sent)
        return line.rest()


def ask(
    port: int, method: str, target: str, headers: Mapping[str, str] | None = None, body: bytes = b"", **named: str
) -> Answer:
    """Send one request and read its answer; `host` names the Host header."""
    return parse(send(port, request(method, target, headers, body, **named)))


def parse(received: bytes) -> Answer:
    """Take one answer apart; what follows the head is its body, whatever the head says of it.

    Raises:
        AssertionError: it is none.
    """
    head, end, body = received.partition(b"\r\n\r\n")
    first, *lines = head.decode("latin-1").split("\r\n")
    if not end or not first.startswith("HTTP/1."):
        raise AssertionError(f"no answer: {received[:200]!r}")
    pairs = (line.partition(":") for line in lines)
    return Answer(int(first.split()[1]), tuple((name.lower(), value.strip()) for name, _, value in pairs), body)


class Line:
    """One connection; closed when the block ends."""

    def __init__(self, port: int, seconds: float = PATIENCE) -> None:
        self._socket = socket.create_connection((HOST, port), timeout=seconds)

    def send(self, sent: bytes) -> None:
        """Send bytes; a server that has hung up already is no failure here."""
        try:
            self._socket.sendall(sent)
        except (BrokenPipeError, ConnectionResetError):
            return

    def rest(self) -> bytes:
        """Read to the connection's end."""
        received = bytearray()
        try:
            while piece := self._socket.recv(1 << 16):
                received += piece
        except ConnectionResetError:  # it was ended with bytes of ours unread
            pass
        return bytes(received)

    def answer(self) -> Answer:
        """Read one answer by its Content-Length and leave the connection open."""
        received = bytearray()
        while b"\r\n\r\n" not in received:
            received += self._more()
        got = parse(bytes(received))
        left = int(got.get("Content-Length") or 0) - len(got.body)
        while left > 0:
            piece = self._more()
            received += piece
            left -= len(piece)
        return parse(bytes(received))

    def _more(self) -> bytes:
        piece = self._socket.recv(1 << 16)
        if not piece:
            raise AssertionError("the server ended the connection")
        return piece

    def close(self) -> None:
        """End the connection."""
        self._socket.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
