"""A file's bytes into a connection by the kernel, in threads beside the event loop; it copies nothing.

The loop has other requests to read meanwhile, and a disk that is slow to give its bytes holds up one thread, not all
clients. A thread stays with a client that takes what it gets at once; for any other the loop waits.
"""

from __future__ import annotations

import asyncio
import os
import select
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from io import FileIO

THREADS = 8
ALONG = 2
"""Milliseconds for which a thread waits for its client to take more."""
BURST = 64 << 20
"""Bytes after which it is another client's turn."""

_threads = ThreadPoolExecutor(THREADS, thread_name_prefix="send")


async def sendfile(transport: asyncio.Transport, file: FileIO, at: int, count: int) -> int:
    """Send `count` bytes from offset `at`; return how many were sent: fewer where the file ends before.

    Raises:
        OSError: the client has gone.
    """
    loop = asyncio.get_running_loop()
    sock = transport.get_extra_info("socket")
    if sock is None or transport.get_extra_info("sslcontext") is not None or transport.get_write_buffer_size():
        return await loop.sendfile(transport, file, at, count)  # what was written before comes first
    # A descriptor of our own: the connection's may be closed, and its number another one's, while a thread writes.
    out = os.dup(sock.fileno())
    try:
        sender = _Sender(out, file.fileno(), at, at + count)
        while not sender.ended:
            await _finished(loop.run_in_executor(_threads, sender.burst))
            if not sender.ended:
                await _writable(loop, transport, out)
        return sender.at - at
    finally:
        os.close(out)


async def _finished(burst: asyncio.Future[None]) -> None:
    """Wait for a thread, also when nobody waits for us any more: it holds descriptors that are closed after this."""
    try:
        await asyncio.shield(burst)
    except asyncio.CancelledError:
        await asyncio.wait([burst])
        raise


async def _writable(loop: asyncio.AbstractEventLoop, transport: asyncio.Transport, out: int) -> None:
    """Wait until the connection has room.

    Raises:
        ConnectionResetError: the client has gone.
    """
    room: asyncio.Future[None] = loop.create_future()
    loop.add_writer(out, lambda: None if room.done() else room.set_result(None))
    try:
        await room
    finally:
        loop.remove_writer(out)
    if transport.is_closing():
        raise ConnectionResetError("the client has gone")


class _Sender:
    """How far the sending has come."""

    def __init__(self, out: int, source: int, at: int, end: int) -> None:
        self.at = at
        self.ended = at >= end
        self._out = out
        self._source = source
        self._end = end

    def burst(self) -> None:
        """Send as long as the client takes it."""
        room = select.poll()
        room.register(self._out, select.POLLOUT)
        most = self.at + BURST
        with suppress(BlockingIOError):
            while not self.ended and self.at < most:
                sent = os.sendfile(self._out, self._source, self.at, self._end - self.at)
                self.at += sent
                self.ended = not sent or self.at >= self._end
                if not self.ended and not room.poll(ALONG):
                    return
