"""A file's bytes onto the wire: whole, one range or several, by sendfile, as far as they are there and proven.

What the headers say of the file is answering.py's; a body that cannot be finished ends short, so that no client
takes it for the file.
"""

from __future__ import annotations

import os
import secrets
import socket
from collections.abc import Coroutine, Mapping, Sequence
from contextlib import suppress
from io import FileIO

from aiohttp import web

from hubcache.core.httpranges import multipart_head, multipart_length, multipart_tail
from hubcache.core.ranges import Range
from hubcache.errors import HubcacheError, SourceUnavailable
from hubcache.server.flow import Flow
from hubcache.server.passing import Passage
from hubcache.server.sendfile import sendfile

AT_ONCE = 128 << 10
"""Bytes up to which a body is read and sent together with its head: one packet less, one system call less."""
STUCK_CLIENT = 120_000
"""Milliseconds for which a client may take nothing before its connection is dropped."""


async def send(
    request: web.BaseRequest,
    content: Flow | Passage,
    headers: Mapping[str, str],
    ranges: Sequence[Range] | None,
    size: int,
) -> web.StreamResponse:
    """Send a file of `size` bytes, or ranges of it.

    Raises:
        HubcacheError: before the head was sent; afterwards, the body ends short.
    """
    if ranges is not None and len(ranges) > 1:
        return await _send_several(request, content, headers, ranges, size)
    start, end = ranges[0] if ranges else (0, size)
    fixed = {**headers, "Content-Length": str(end - start)}
    if ranges:
        fixed["Content-Range"] = f"bytes {start}-{end - 1}/{size}"
    status = 206 if ranges else 200
    if isinstance(content, Passage):
        return await _pass(request, content, (start, end), web.StreamResponse(status=status, headers=fixed))
    with await _opened(request, content, start) as file:
        if end - start <= AT_ONCE and content.reach(start) >= end:
            return _at_once(fixed, status, os.pread(file.fileno(), end - start, start))
        response = web.StreamResponse(status=status, headers=fixed)
        await response.prepare(request)
        return await _finish(request, response, _Body(request, content, file).send(start, end))


def _at_once(headers: dict[str, str], status: int, body: bytes) -> web.Response:
    if len(body) != int(headers.pop("Content-Length")):
        raise SourceUnavailable("the file changed while it was read")
    return web.Response(status=status, headers=headers, body=body)


async def _send_several(
    request: web.BaseRequest, content: Flow | Passage, headers: Mapping[str, str], ranges: Sequence[Range], size: int
) -> web.StreamResponse:
    """Send several ranges as multipart/byteranges (RFC 9110, section 14.6)."""
    boundary, inner = secrets.token_hex(12), headers["Content-Type"]
    fixed = {**headers, "Content-Type": f"multipart/byteranges; boundary={boundary}"}
    fixed["Content-Length"] = str(multipart_length(boundary, inner, ranges, size))
    response = web.StreamResponse(status=206, headers=fixed)
    if isinstance(content, Passage):
        raise SourceUnavailable("several ranges of a file that is not kept here cannot be had at once")

    async def parts(body: _Body) -> None:
        for start, end in ranges:
            await response.write(multipart_head(boundary, inner, start, end, size))
            await body.send(start, end)
        await response.write(multipart_tail(boundary))

    with await _opened(request, content, ranges[0][0]) as file:
        await response.prepare(request)
        return await _finish(request, response, parts(_Body(request, content, file)))


async def _pass(
    request: web.BaseRequest, passage: Passage, span: Range, response: web.StreamResponse
) -> web.StreamResponse:
    """Hand bytes on from upstream; the head is sent with the first of them."""
    chunks = passage.bytes(*span)
    first = await anext(chunks, b"")
    if not first and span[0] != span[1]:
        raise SourceUnavailable(f"{passage.artifact.repo}/{passage.path}: upstream sent nothing")
    await response.prepare(request)

    async def rest() -> None:
        await response.write(first)
        async for chunk in chunks:
            await response.write(chunk)

    return await _finish(request, response, rest())


class _Ended(Exception):
    """The body cannot be finished."""


class _Body:
    """The bytes of one flow, for one client."""

    def __init__(self, request: web.BaseRequest, flow: Flow, file: FileIO) -> None:
        self._request = request
        self._flow = flow
        self._file = file
        self._edition = flow.edition
        _limit_patience(request)

    async def send(self, start: int, end: int) -> None:
        """Send bytes [start, end), as they may be sent.

        Raises:
            _Ended: they turned out wrong, or will not come, or the client has gone.
        """
        at, flow = start, self._flow
        while at < end:
            if flow.edition != self._edition:
                raise _Ended
            reach = min(flow.reach(at), end)
            if reach > at:
                await self._sendfile(at, reach - at)
                at = reach
            elif flow.failure is not None or _is_gone(self._request):
                raise _Ended
            else:
                await flow.more(at)

    async def _sendfile(self, at: int, count: int) -> None:
        transport = self._request.transport
        if transport is None:
            raise _Ended
        if await sendfile(transport, self._file, at, count) != count:  # it was cut meanwhile
            raise _Ended


async def _opened(request: web.BaseRequest, flow: Flow, at: int) -> FileIO:
    """Open a flow's file when its first byte may be sent.

    Raises:
        HubcacheError: it never will be.
    """
    while True:
        path, edition = flow.path, flow.edition
        if path is not None and (flow.reach(at) > at or (flow.size == 0 and flow.is_proven)):
            try:
                file = open(path, "rb", buffering=0)  # noqa: SIM115  # microseconds, on a disk
            except FileNotFoundError:  # it gets its name just now, or was removed
                if flow.is_placed and path == flow.path:
                    raise SourceUnavailable(f"{path.name} was removed meanwhile") from None
            else:
                if flow.edition == edition:
                    return file
                file.close()
        if flow.failure is not None:
            raise flow.failure
        if _is_gone(request):
            raise SourceUnavailable("the client has gone")
        await flow.more(at)


async def _finish(
    request: web.BaseRequest, response: web.StreamResponse, body: Coroutine[None, None, None]
) -> web.StreamResponse:
    """Send a body to its end, or end the connection where that cannot be."""
    try:
        await body
        await response.write_eof()
    except (_Ended, HubcacheError, OSError):
        if request.transport is not None:
            request.transport.close()
    return response


def _is_gone(request: web.BaseRequest) -> bool:
    return request.transport is None or request.transport.is_closing()


def _limit_patience(request: web.BaseRequest) -> None:
    """Let the kernel drop a connection whose client takes nothing: nobody else would ever notice."""
    sock = request.transport.get_extra_info("socket") if request.transport is not None else None
    if sock is not None and hasattr(socket, "TCP_USER_TIMEOUT"):
        with suppress(OSError):
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, STUCK_CLIENT)
