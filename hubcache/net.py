"""The one module that opens HTTP connections: timeouts, redirects, retries, origin-bound tokens, redaction.

It knows nothing of hubs: a status is given back as it came, and what it means is its source's business.
"""

from __future__ import annotations

import json
import random
import re
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import TracebackType
from typing import Any, Self, TypeVar
from urllib.parse import unquote, urljoin, urlunsplit

import urllib3
from urllib3.connection import HTTPConnection, HTTPSConnection
from urllib3.exceptions import HTTPError, LocationValueError

from hubcache.core.origins import Origin, is_direct, redact, split_web
from hubcache.core.wire import parse_content_range, parse_size
from hubcache.errors import BadConfig, HubcacheError, IntegrityError, RateLimited, RedirectRefused, SourceUnavailable
from hubcache.punctual import PunctualAnswer, Speed

MAX_REDIRECTS = 8
MAX_METADATA_SIZE = 64 * 1024 * 1024
MAX_DRAINED_SIZE = 64 * 1024
ATTEMPTS = 4
LONGEST_WAIT = 30.0

_T = TypeVar("_T")

# What urllib3 puts before its reasons; the URL says as much.
_CONNECTION = re.compile(r"\b\w+(?:Connection|Pool)\([^()]*\): ")


@dataclass(frozen=True, slots=True)
class NetSettings:
    """How connections are made; times in seconds.

    `tokens` and `headers` are bound to origins and sent nowhere else, `certificates` are files trusted
    for one origin; `proxies` maps http, https and all to proxy URLs, and `no` to a list of hosts that are
    reached directly. A body below `slowest` bytes per second for `slow_window` seconds is given up.
    """

    user_agent: str = "hubcache"
    connect_timeout: float = 10.0
    read_timeout: float = 10.0
    tokens: Mapping[Origin, str] = field(default_factory=dict, repr=False)
    headers: Mapping[Origin, Mapping[str, str]] = field(default_factory=dict, repr=False)
    certificates: Mapping[Origin, Path] = field(default_factory=dict)
    proxies: Mapping[str, str] = field(default_factory=dict, repr=False)
    connections: int = 64
    slowest: float = 1000.0
    slow_window: float = 20.0
    attempts: int = ATTEMPTS

    def __post_init__(self) -> None:
        for origin, token in self.tokens.items():
            if not (token.isascii() and token.isprintable()):
                raise BadConfig(f"the token for {origin} holds characters that no header can carry")


class Response:
    """An answer whose body has not been read: a context manager, and a Content for transfers."""

    file: Path | None = None

    def __init__(self, raw: urllib3.BaseHTTPResponse, url: str, speed: Speed, *, authenticated: bool) -> None:
        self._raw = raw
        self._speed = speed
        self.status = raw.status
        self.headers: Mapping[str, str] = raw.headers
        self.url = url
        self.authenticated = authenticated
        self._ended = False
        self.origin = str(Origin.of(url))
        self._remaining = parse_size(raw.headers.get("Content-Length"))
        self.start = 0
        self.end = self.total = self._remaining
        if self.status == 206:
            self.start, self.end, self.total = parse_content_range(raw.headers.get("Content-Range"))

    def read(self, limit: int, /) -> bytes:
        """Return up to `limit` bytes as they arrive, b"" at the end.

        Raises:
            SourceUnavailable: the body broke off, stalled, came too slowly or ended short.
        """
        try:
            chunk = self._read(limit)
        except (HTTPError, OSError) as error:
            raise SourceUnavailable(f"{redact(self.url)}: the transfer broke off ({_reason(error)})") from error
        self._ended = not chunk
        if self._remaining is not None:
            self._remaining -= len(chunk)
            if not chunk and self._remaining > 0:
                raise SourceUnavailable(f"{redact(self.url)}: the transfer ended {self._remaining} bytes short")
        return chunk

    def read_metadata(self) -> bytes:
        """Read and decode a whole small body.

        Raises:
            IntegrityError: it is larger than any metadata.
            SourceUnavailable: as in read.
        """
        try:
            chunks, size = [], 0
            while chunk := self._read(1 << 16, decode=True):
                size += len(chunk)
                if size > MAX_METADATA_SIZE:
                    raise IntegrityError(f"{redact(self.url)} answered more than {MAX_METADATA_SIZE} bytes of metadata")
                chunks.append(chunk)
        except (HTTPError, OSError) as error:
            raise SourceUnavailable(f"{redact(self.url)}: the answer broke off ({_reason(error)})") from error
        self._ended = True
        return b"".join(chunks)

    def _read(self, limit: int, *, decode: bool = False) -> bytes:
        began = time.monotonic()
        chunk = self._raw.read1(limit, decode_content=decode)
        self._speed.check(len(chunk), time.monotonic() - began, redact(self.url))
        return chunk

    def close(self) -> None:
        """Give the connection back when the body was read to its end, else drop it."""
        if self._remaining == 0 or self._ended:
            self._raw.release_conn()
        else:
            self._raw.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


class Net:
    """Kept-alive connections under one set of settings; safe to share between threads."""

    def __init__(self, settings: NetSettings) -> None:
        self.settings = settings
        self._pools: dict[tuple[str | None, Path | None], urllib3.PoolManager] = {}

    def asking_once(self, *, user_agent: str | None = None) -> Net:
        """Share the connections with one who has others to ask before it asks the same server again."""
        net = Net(replace(self.settings, attempts=1, user_agent=user_agent or self.settings.user_agent))
        net._pools = self._pools
        return net

    def open(
        self, url: str, *, method: str = "GET", headers: Mapping[str, str] | None = None, body: bytes | None = None
    ) -> Response:
        """Send one request and follow its redirects; the body stays unread, whatever the status.

        The token goes to the origin it is bound to only, so it is dropped and picked up per hop.

        Raises:
            SourceUnavailable: no connection, no answer in time, a redirect loop, or one from https to http.
        """
        timeout = urllib3.Timeout(connect=self.settings.connect_timeout, read=self.settings.read_timeout)
        for _ in range(MAX_REDIRECTS):
            origin = Origin.of(url)
            sent = {"User-Agent": self.settings.user_agent, "Accept-Encoding": "identity", **(headers or {})}
            sent |= self.settings.headers.get(origin, {})
            if token := self.settings.tokens.get(origin):
                sent["Authorization"] = f"Bearer {token}"
            try:
                raw = self._pool(origin).request(
                    method, url, headers=sent, body=body, timeout=timeout, redirect=False, retries=False,
                    preload_content=False, decode_content=False,
                )  # fmt: skip
            except (HTTPError, OSError) as error:
                raise SourceUnavailable(f"{redact(url)}: {_reason(error)}") from error
            location = raw.headers.get("Location")
            if raw.status not in {301, 302, 303, 307, 308} or not location:
                speed = Speed(self.settings.slowest, self.settings.slow_window)
                return _response(raw, url, speed, authenticated=token is not None)
            _let_go(raw)
            url = _redirected(url, location)
        raise RedirectRefused(f"{redact(url)}: more than {MAX_REDIRECTS} redirects")

    def open_range(
        self, url: str, start: int, end: int | None, *, headers: Mapping[str, str] | None = None
    ) -> Response:
        """Send a GET for bytes [start, end); a server that ignores ranges answers from 0 on."""
        if start == 0 and end is None:
            return self.open(url, headers=headers)
        last = "" if end is None else str(end - 1)
        return self.open(url, headers={**(headers or {}), "Range": f"bytes={start}-{last}"})

    def fetch(
        self,
        url: str,
        *,
        method: str = "GET",
        headers: Mapping[str, str] | None = None,
        body: bytes | None = None,
        check: Callable[[Response], HubcacheError | None],
    ) -> tuple[bytes, Response]:
        """Read a whole small answer, asking again a few times where there is none.

        `check` says what a status means: None for success, else the exception to raise.

        Raises:
            SourceUnavailable: no answer after the last attempt; and whatever `check` returned.
        """
        sent = {"Accept-Encoding": "gzip, deflate", **(headers or {})}

        def once() -> tuple[bytes, Response]:
            with self.open(url, method=method, headers=sent, body=body) as response:
                if (error := check(response)) is not None:
                    raise error
                return response.read_metadata(), response

        return retry(once, attempts=self.settings.attempts)

    def fetch_json(
        self,
        url: str,
        *,
        method: str = "GET",
        headers: Mapping[str, str] | None = None,
        body: bytes | None = None,
        check: Callable[[Response], HubcacheError | None],
    ) -> tuple[Any, Response]:
        """Read a whole JSON answer; see fetch.

        Raises:
            SourceUnavailable: it is no JSON (a captive portal, a proxy's error page).
        """
        content, response = self.fetch(url, method=method, headers=headers, body=body, check=check)
        try:
            return json.loads(content), response
        except (ValueError, RecursionError) as error:
            raise SourceUnavailable(f"{redact(url)} answered something that is not JSON") from error

    def close(self) -> None:
        """Close every idle connection."""
        for pool in list(self._pools.values()):
            pool.clear()

    def _pool(self, origin: Origin) -> urllib3.PoolManager:
        key = self._proxy_for(origin), self.settings.certificates.get(origin)
        if key not in self._pools:
            self._pools[key] = _new_pool(*key, self.settings.connections)
        return self._pools[key]

    def _proxy_for(self, origin: Origin) -> str | None:
        proxies = self.settings.proxies
        proxy = proxies.get(origin.scheme) or proxies.get("all")
        if not proxy or origin.is_loopback:
            return None
        return None if is_direct(origin, proxies.get("no", "")) else proxy


def retry(once: Callable[[], _T], *, attempts: int = ATTEMPTS, sleep: Callable[[float], None] = time.sleep) -> _T:
    """Call until there is an answer, waiting 0.25, 0.5, 1… seconds with jitter, or as long as the source asks.

    Only SourceUnavailable is tried again; every other exception is an answer.
    """
    for attempt in range(1, attempts):
        try:
            return once()
        except RedirectRefused:
            raise
        except SourceUnavailable as error:
            asked = error.retry_after if isinstance(error, RateLimited) else None
            if asked is not None and asked > LONGEST_WAIT:
                raise
            sleep(asked if asked is not None else 0.25 * 2 ** (attempt - 1) * random.uniform(0.75, 1.25))
    return once()


class _PlainConnection(HTTPConnection):
    response_class = PunctualAnswer


class _TlsConnection(HTTPSConnection):
    response_class = PunctualAnswer


class _PlainPool(urllib3.HTTPConnectionPool):
    ConnectionCls = _PlainConnection


class _TlsPool(urllib3.HTTPSConnectionPool):
    ConnectionCls = _TlsConnection


def _new_pool(proxy: str | None, certificates: Path | None, connections: int) -> urllib3.PoolManager:
    trusted = None if certificates is None else str(certificates)
    pool: urllib3.PoolManager
    if proxy is None:
        pool = urllib3.PoolManager(num_pools=16, maxsize=connections, retries=False, ca_certs=trusted)
    else:
        url = proxy if "://" in proxy else f"http://{proxy}"
        login = unquote(url.partition("://")[2].partition("/")[0].rpartition("@")[0])
        headers = urllib3.make_headers(proxy_basic_auth=login) if login else None
        pool = urllib3.ProxyManager(
            redact(url), maxsize=connections, proxy_headers=headers, retries=False, ca_certs=trusted
        )
    pool.pool_classes_by_scheme = {"http": _PlainPool, "https": _TlsPool}
    return pool


def _response(raw: urllib3.BaseHTTPResponse, url: str, speed: Speed, *, authenticated: bool) -> Response:
    try:
        return Response(raw, url, speed, authenticated=authenticated)
    except IntegrityError as error:
        raw.close()
        raise IntegrityError(f"{redact(url)}: {error.message}") from error


def _let_go(raw: urllib3.BaseHTTPResponse) -> None:
    """Keep the connection of a redirect, unless its body is longer than a new connection is worth."""
    length = parse_size(raw.headers.get("Content-Length"))
    if length is not None and length <= MAX_DRAINED_SIZE:
        raw.drain_conn()
        raw.release_conn()
    else:
        raw.close()


def _redirected(url: str, location: str) -> str:
    try:
        target = urljoin(url, location)
    except ValueError as error:
        raise SourceUnavailable(f"{redact(url)} redirects to no URL: {redact(location)[:200]!r}") from error
    before, after = Origin.of(url), Origin.of(target)
    if before.scheme == "https" and after.scheme == "http":
        raise RedirectRefused(f"{redact(url)} redirects from https to plain http ({after}): refused")
    return urlunsplit(split_web(target)._replace(fragment=""))


def _reason(error: Exception) -> str:
    if isinstance(error, LocationValueError):
        return "not a URL"  # urllib3's words repeat all of it, the query too
    text = str(getattr(error, "reason", None) or error)
    return _CONNECTION.sub("", text)[:200] or type(error).__name__
