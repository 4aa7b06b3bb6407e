"""The parts every loopback server shares: wire parsing, byte ranges, body sending with faults, the request log.

It is no general web server: one address, one thread a connection, no TLS, request bodies only with a Content-Length.
"""

from __future__ import annotations

import hashlib
import os
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from http import HTTPStatus
from io import BufferedReader
from pathlib import Path
from time import monotonic
from urllib.parse import parse_qs, unquote

HOST = "127.0.0.1"
SENDFILE_FROM = 1 << 20
STEP = 1 << 18

Body = bytes | Path


@dataclass(frozen=True, slots=True)
class Request:
    """One parsed request: `target` as it came, header names in lower case."""

    method: str
    target: str
    headers: dict[str, str]
    body: bytes = b""

    @property
    def path(self) -> str:
        """The path before the query, still percent-encoded."""
        return self.target.partition("?")[0]

    @property
    def query(self) -> dict[str, list[str]]:
        return parse_qs(self.target.partition("?")[2], keep_blank_values=True)

    @property
    def segments(self) -> list[str]:
        """The decoded segments of the path; an encoded slash stays inside its segment."""
        return [unquote(part) for part in self.path.split("/") if part]

    @property
    def bearer(self) -> str | None:
        scheme, _, token = self.headers.get("authorization", "").partition(" ")
        return token.strip() if scheme.lower() == "bearer" else None


@dataclass(frozen=True, slots=True)
class Spoil:
    """How a body is spoilt on its way out; sizes in bytes of this answer's body, rate in bytes per second."""

    corrupt: bool = False
    truncate: int | None = None
    stall: int | None = None
    rate: int = 0
    chunked: bool = False


@dataclass(slots=True)
class Reply:
    """An answer: bytes [start, stop) of the body are sent, all of it when stop is None."""

    status: int
    headers: dict[str, str] = field(default_factory=dict)
    body: Body = b""
    start: int = 0
    stop: int | None = None
    spoil: Spoil = Spoil()

    @property
    def length(self) -> int:
        return (body_size(self.body) if self.stop is None else self.stop) - self.start

    def head(self) -> bytes:
        framing = {"Transfer-Encoding": "chunked"} if self.spoil.chunked else {"Content-Length": str(self.length)}
        headers = framing | self.headers
        if self.status in (HTTPStatus.NO_CONTENT, HTTPStatus.NOT_MODIFIED):
            headers = self.headers
        lines = [f"HTTP/1.1 {self.status} {HTTPStatus(self.status).phrase}", *(f"{k}: {v}" for k, v in headers.items())]
        return "\r\n".join([*lines, "", ""]).encode("latin-1")


def body_size(body: Body) -> int:
    return len(body) if isinstance(body, bytes) else body.stat().st_size


def body_hex(body: Body, algorithm: str) -> str:
    """Return the hex digest of a body, by hashlib's name of the algorithm."""
    digest = hashlib.new(algorithm, usedforsecurity=False)
    with opened(body) as read:
        for offset in range(0, body_size(body), 1 << 20):
            digest.update(read(offset, 1 << 20))
    return digest.hexdigest()


def parse_range(text: str, size: int) -> tuple[int, int] | None:
    """Return [start, stop) of a single byte range, None where the field is to be ignored (RFC 9110 section 14).

    Raises:
        ValueError: the range is well formed but lies outside the body (416).
    """
    unit, _, spec = text.partition("=")
    first, dash, last = spec.strip().partition("-")
    if unit.strip().lower() != "bytes" or not dash or not (first + last).isdigit():
        return None
    if not first:
        start, stop = max(0, size - int(last)), size
    else:
        start, stop = int(first), min(int(last) + 1, size) if last else size
        if last and int(last) < start:
            return None
    if start >= size or start >= stop:
        raise ValueError(f"{text} of {size} bytes")
    return start, stop


def ranged(reply: Reply, text: str | None) -> Reply:
    """Narrow a whole-body 200 to the asked range: 206, 416, or the reply as it is."""
    size = body_size(reply.body)
    reply.headers.setdefault("Accept-Ranges", "bytes")
    try:
        span = parse_range(text, size) if text else None
    except ValueError:
        return Reply(416, reply.headers | {"Content-Range": f"bytes */{size}"})
    if span is not None:
        reply.status, (reply.start, reply.stop) = 206, span
        reply.headers["Content-Range"] = f"bytes {span[0]}-{span[1] - 1}/{size}"
    return reply


def read_request(reader: BufferedReader) -> Request | None:
    """Read one request; None at the end of the connection or where the bytes are no HTTP."""
    parts = reader.readline(65536).decode("latin-1").split()
    if len(parts) != 3:
        return None
    headers: dict[str, str] = {}
    while line := reader.readline(65536).rstrip(b"\r\n"):
        name, _, value = line.decode("latin-1").partition(":")
        headers[name.strip().lower()] = value.strip()
    return Request(parts[0], parts[1], headers, reader.read(int(headers.get("content-length", "0"))))


@contextmanager
def opened(body: Body) -> Iterator[Callable[[int, int], bytes]]:
    """Give a reader (offset, count) -> bytes over the body."""
    if isinstance(body, bytes):
        yield lambda offset, count: body[offset : offset + count]
        return
    descriptor = os.open(body, os.O_RDONLY)
    try:
        yield lambda offset, count: os.pread(descriptor, count, offset)
    finally:
        os.close(descriptor)


class Pace:
    """Holds a connection to a rate in bytes per second; 0 is no limit. Waits end when `stopped` is set."""

    def __init__(self, rate: int, stopped: threading.Event) -> None:
        self.rate, self.stopped, self.sent, self.began = rate, stopped, 0, monotonic()
        self.step = max(1, min(STEP, rate // 50)) if rate else STEP

    def count(self, sent: int) -> None:
        self.sent += sent
        if self.rate:
            ahead = self.sent / self.rate - (monotonic() - self.began)
            if ahead > 0:
                self.stopped.wait(ahead)


def send_pieces(connection: socket.socket, reply: Reply, stop: int, pace: Pace) -> None:
    bad = body_size(reply.body) // 2 if reply.spoil.corrupt else -1
    with opened(reply.body) as read:
        for offset in range(reply.start, stop, pace.step):
            piece = read(offset, min(pace.step, stop - offset))
            if offset <= bad < offset + len(piece):
                piece = piece[: bad - offset] + bytes([piece[bad - offset] ^ 0xFF]) + piece[bad - offset + 1 :]
            connection.sendall(b"%x\r\n%b\r\n" % (len(piece), piece) if reply.spoil.chunked else piece)
            pace.count(len(piece))


def send_file(connection: socket.socket, path: Path, start: int, stop: int, pace: Pace) -> None:
    step = pace.step if pace.rate else 1 << 30
    with path.open("rb", buffering=0) as file:
        while start < stop:
            sent = os.sendfile(connection.fileno(), file.fileno(), start, min(step, stop - start))
            if not sent:
                raise OSError(f"{path} ended at byte {start} of {stop}")
            start += sent
            pace.count(sent)


def send_body(connection: socket.socket, reply: Reply, stopped: threading.Event) -> bool:
    """Send the body as far as the reply's faults allow; False means the connection cannot be used again."""
    spoil, length = reply.spoil, reply.length
    cuts = [cut for cut in (spoil.truncate, spoil.stall) if cut is not None and cut < length]
    stop = reply.start + min([length, *cuts])
    pace = Pace(spoil.rate, stopped)
    if isinstance(reply.body, Path) and length > SENDFILE_FROM and not (spoil.corrupt or spoil.chunked):
        send_file(connection, reply.body, reply.start, stop, pace)
    else:
        send_pieces(connection, reply, stop, pace)
    if spoil.stall is not None and spoil.stall in cuts and spoil.stall == min(cuts):
        stopped.wait()
    if spoil.chunked and not cuts:
        connection.sendall(b"0\r\n\r\n")
    return not cuts


class Origin:
    """One listening port: keep-alive, TCP_NODELAY, a daemon thread a connection; can stop and start again.

    The port is taken when the object is made, so its address is known before it answers.
    """

    def __init__(self, answer: Callable[[Request], Reply]) -> None:
        self._answer = answer
        self._lock = threading.Lock()
        self._open: set[socket.socket] = set()
        self._listener: socket.socket | None = _bound(0)
        self.port: int = self._listener.getsockname()[1]
        self.stopped = threading.Event()
        self.connections = 0
        self._accepting: threading.Thread | None = None

    @property
    def url(self) -> str:
        return f"http://{HOST}:{self.port}"

    def start(self) -> None:
        if self._accepting is not None:
            return
        self.stopped = threading.Event()
        self._listener = self._listener or _bound(self.port)
        self._listener.listen(128)
        self._accepting = threading.Thread(target=self._accept, args=(self._listener, self.stopped), daemon=True)
        self._accepting.start()

    def stop(self) -> None:
        """Close the port and every connection, and end the waits of stalled answers."""
        self.stopped.set()
        if self._accepting is not None:
            with suppress(OSError):
                socket.create_connection((HOST, self.port), timeout=1).close()
            self._accepting.join(5)
        if self._listener is not None:
            self._listener.close()
        self._listener = self._accepting = None
        with self._lock:
            for connection in self._open:
                with suppress(OSError):
                    connection.shutdown(socket.SHUT_RDWR)

    def _accept(self, listener: socket.socket, stopped: threading.Event) -> None:
        while True:
            connection, _ = listener.accept()
            if stopped.is_set():
                connection.close()
                return
            with self._lock:
                self._open.add(connection)
                self.connections += 1
            threading.Thread(target=self._serve, args=(connection, stopped), daemon=True).start()

    def _serve(self, connection: socket.socket, stopped: threading.Event) -> None:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        try:
            with suppress(OSError), connection.makefile("rb") as reader:
                while (request := read_request(reader)) and self._send(connection, request, stopped):
                    pass
        finally:
            with self._lock:
                self._open.discard(connection)
            connection.close()

    def _send(self, connection: socket.socket, request: Request, stopped: threading.Event) -> bool:
        reply = self._answer(request)
        keep = request.headers.get("connection", "").lower() != "close"
        if stopped.is_set():
            return False
        if request.method == "HEAD" or not (reply.length or reply.spoil.chunked):
            connection.sendall(reply.head())
        elif reply.length <= STEP and reply.spoil == Spoil():
            with opened(reply.body) as read:
                connection.sendall(reply.head() + read(reply.start, reply.length))
        else:
            connection.sendall(reply.head())
            keep = send_body(connection, reply, stopped) and keep
        return keep


def _bound(port: int) -> socket.socket:
    """Take a port of the loopback address, any with 0, without listening on it yet."""
    listener = socket.socket()
    # Only a port taken before may be shared with its old connections: with the option set, a free port need not be
    # free of other sockets that are bound and do not listen yet.
    if not port:
        listener.bind((HOST, 0))
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    if port:
        listener.bind((HOST, port))
    return listener
