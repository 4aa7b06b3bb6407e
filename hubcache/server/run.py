"""The server as a process: the graph built, a port bound, signals heard, an orderly end."""

from __future__ import annotations

import asyncio
import logging
import resource
import signal
import sys
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field

from aiohttp import web
from aiohttp.http_exceptions import HttpProcessingError

from hubcache.cache.index import Index
from hubcache.cache.store import Cache
from hubcache.core.ports import Source
from hubcache.core.rules import Rules
from hubcache.errors import UsageError
from hubcache.server.answering import Api
from hubcache.server.app import Front, FrontSettings
from hubcache.server.checking import Checker
from hubcache.server.fills import Fills
from hubcache.server.hubs import CachedHub, Hub, Log, RuledHub
from hubcache.server.pins import PinShelf
from hubcache.server.pulling import PassThroughHub, PullThroughHub, Upstream
from hubcache.server.uses import PAUSE, Uses

REQUEST_LINE = 16 << 10
"""Bytes of a request line, or of one header field."""
IDLE = 75.0
"""Seconds for which an idle connection is kept."""
BACKLOG = 1024
SWITCHING = 0.0005
"""Seconds after which a thread that has sent something gets its turn, a tenth of what Python gives."""

_NOT_OURS = (HttpProcessingError, ConnectionError)


@dataclass(frozen=True, slots=True)
class Served:
    """What is served: the cache, what is remembered of it, the rules, and upstream, None where there is none."""

    cache: Cache
    index: Index
    rules: Rules = field(default_factory=Rules)
    upstream: Source | None = None


class App:
    """The parts of one server, wired; `handle` answers a request, `close` lets go of upstream."""

    def __init__(self, served: Served, settings: FrontSettings, log: Log) -> None:
        shelf = PinShelf(served.cache, served.index)
        cached = CachedHub(served.cache, shelf, Checker(served.index, log=log))
        hubs: dict[str, Hub] = dict.fromkeys(("store", "pass", "never"), cached)
        self._fills: Fills | None = None
        if served.upstream is not None:
            self._fills = Fills(served.cache, served.upstream, log=log)
            upstream = Upstream(served.upstream, fresh=lambda repo: served.rules.of(repo).fresh, log=log)
            hubs["store"] = PullThroughHub(cached, shelf, served.cache, self._fills, upstream)
            hubs["pass"] = PassThroughHub(upstream)
        self.uses = Uses(served.index, served.cache.root)
        hub = RuledHub(served.rules, hubs, shelf, self.uses)
        self._served = served
        self.handle = Front(Api(hub, shelf, origins=settings.origins), settings, log).handle

    def close(self) -> None:
        """Stop what is under way; it is resumed by the next process."""
        if self._fills is not None:
            self._fills.close()
        if self._served.upstream is not None:
            self._served.upstream.close()
        self.uses.write()
        self._served.index.close()


def build_app(served: Served, settings: FrontSettings, log: Log) -> App:
    """Wire a server; the event loop need not run yet."""
    return App(served, settings, log)


def serve(app: App, host: str, port: int, *, announce: Callable[[str], None]) -> None:
    """Answer at `host` and `port` (0: any that is free) until SIGINT or SIGTERM; `announce` is told the endpoint.

    Raises:
        UsageError: the address cannot be had.
    """
    try:
        asyncio.run(_serve(app, host, port, announce))
    finally:
        app.close()


async def _serve(app: App, host: str, port: int, announce: Callable[[str], None]) -> None:
    loop = asyncio.get_running_loop()
    ended = asyncio.Event()
    for each in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(each, ended.set)
    _allow_files()
    sys.setswitchinterval(SWITCHING)
    server = web.Server(
        app.handle,
        access_log=None,
        logger=_faults_logger(),
        keepalive_timeout=IDLE,
        max_line_size=REQUEST_LINE,
        max_field_size=REQUEST_LINE,
        auto_decompress=False,  # no client sends a body compressed, and a small one could grow without end
    )
    runner = web.ServerRunner(server)
    await runner.setup()
    site = web.TCPSite(runner, host, port, backlog=BACKLOG, shutdown_timeout=1.0)
    try:
        await site.start()
    except OSError as error:
        raise UsageError(
            f"cannot listen at {host}:{port}: {error.strerror}", hint="choose another with --host and --port"
        ) from error
    bound = runner.addresses[0]
    name = f"[{bound[0]}]" if ":" in str(bound[0]) else bound[0]
    announce(f"http://{name}:{bound[1]}")
    writing = asyncio.create_task(_write_uses(app.uses))
    try:
        await ended.wait()
    finally:
        writing.cancel()
        await runner.cleanup()


async def _write_uses(uses: Uses) -> None:
    """Write down now and then what was used."""
    while True:
        await asyncio.sleep(PAUSE)
        uses.write()


def _allow_files() -> None:
    """Let the process have as many connections and files open as it may: many systems begin at 1024."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    with suppress(ValueError, OSError):
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))


def _faults_logger() -> logging.Logger:
    """Return a log of this server's own faults: whoever sends what is no HTTP, or hangs up, must not fill it."""
    logger = logging.Logger("hubcache.server", logging.ERROR)
    logger.addHandler(logging.StreamHandler())
    logger.addFilter(lambda record: not (record.exc_info and isinstance(record.exc_info[1], _NOT_OURS)))
    return logger
