"""FaultProxy: a TCP proxy on loopback that spoils connections below HTTP.

It does not look into what it forwards: offsets count the bytes of a connection towards the client, headers included.
"""

from __future__ import annotations

import asyncio
import socket
import struct
import threading
from contextlib import suppress
from dataclasses import dataclass
from typing import Self

HOST = "127.0.0.1"


@dataclass(frozen=True, slots=True)
class Fault:
    """What happens to one connection. Offsets in bytes towards the client; None is never.

    latency: seconds before the first byte of each answer. rate: bytes per second, 0 for no limit.
    reset_after: RST. truncate_after: FIN. stall_after: silence on an open connection. corrupt_at: that byte is flipped.
    refuse: RST as soon as the connection is made.
    """

    latency: float = 0.0
    rate: int = 0
    reset_after: int | None = None
    truncate_after: int | None = None
    stall_after: int | None = None
    corrupt_at: int | None = None
    refuse: bool = False

    @property
    def cut(self) -> int | None:
        """The first offset at which forwarding ends."""
        cuts = [at for at in (self.reset_after, self.truncate_after, self.stall_after) if at is not None]
        return min(cuts, default=None)


class FaultProxy:
    """Forwards one upstream port. `fault` holds for every connection that has none of its own by inject()."""

    def __init__(self, upstream_port: int) -> None:
        self.upstream_port = upstream_port
        self.fault = Fault()
        self.connections = 0
        self.bytes_up = 0
        self.bytes_down = 0
        self._next: list[Fault] = []
        self._listener = socket.create_server((HOST, 0))
        self.port: int = self._listener.getsockname()[1]
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)

    @property
    def url(self) -> str:
        return f"http://{HOST}:{self.port}"

    def inject(self, fault: Fault, connections: int = 1) -> None:
        """Spoil the next connections with this fault, then go on with `fault`."""
        self._next += [fault] * connections

    def start(self) -> Self:
        self._thread.start()
        asyncio.run_coroutine_threadsafe(self._serve(), self._loop).result(10)
        return self

    def stop(self) -> None:
        """Refuse connections from now on and drop the open ones; there is no second start."""
        asyncio.run_coroutine_threadsafe(self._close(), self._loop).result(10)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(10)
        self._loop.close()

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(self, *_: object) -> None:
        self.stop()

    async def _serve(self) -> None:
        self._server = await asyncio.start_server(self._connection, sock=self._listener)

    async def _close(self) -> None:
        self._server.close()
        others = asyncio.all_tasks() - {asyncio.current_task()}
        for task in others:
            task.cancel()
        await asyncio.gather(*others, return_exceptions=True)

    async def _connection(self, client: asyncio.StreamReader, answer: asyncio.StreamWriter) -> None:
        self.connections += 1
        fault = self._next.pop(0) if self._next else self.fault
        if fault.refuse:
            reset(answer)
            return
        with suppress(OSError, asyncio.CancelledError):
            upstream, asks = await asyncio.open_connection(HOST, self.upstream_port)
            turn = asyncio.Event()
            up = asyncio.create_task(self._up(client, asks, turn))
            try:
                await self._down(upstream, answer, fault, turn)
            finally:
                up.cancel()
                asks.close()
        answer.close()

    async def _up(self, client: asyncio.StreamReader, asks: asyncio.StreamWriter, turn: asyncio.Event) -> None:
        with suppress(OSError):
            while piece := await client.read(65536):
                self.bytes_up += len(piece)
                turn.set()
                asks.write(piece)
                await asks.drain()
        asks.close()

    async def _down(
        self, upstream: asyncio.StreamReader, answer: asyncio.StreamWriter, fault: Fault, turn: asyncio.Event
    ) -> None:
        answer.transport.set_write_buffer_limits(high=0)
        step, sent = max(1, min(65536, fault.rate // 50)) if fault.rate else 65536, 0
        while piece := await upstream.read(step):
            if turn.is_set():
                turn.clear()
                await asyncio.sleep(fault.latency)
            kept = piece if fault.cut is None else piece[: fault.cut - sent]
            answer.write(flipped(kept, fault.corrupt_at, sent))
            await answer.drain()
            sent += len(kept)
            self.bytes_down += len(kept)
            if fault.cut is not None and sent >= fault.cut:
                await end(answer, fault)
                return
            if fault.rate:
                await asyncio.sleep(len(kept) / fault.rate)


def flipped(piece: bytes, corrupt_at: int | None, sent: int) -> bytes:
    if corrupt_at is None or not sent <= corrupt_at < sent + len(piece):
        return piece
    at = corrupt_at - sent
    return piece[:at] + bytes([piece[at] ^ 0xFF]) + piece[at + 1 :]


async def end(answer: asyncio.StreamWriter, fault: Fault) -> None:
    """End a connection as its first cut says."""
    if fault.cut == fault.stall_after:
        await asyncio.Event().wait()
    if fault.cut == fault.reset_after:
        reset(answer)


def reset(answer: asyncio.StreamWriter) -> None:
    """Close with RST: no lingering, nothing more is sent."""
    answer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    answer.transport.abort()
