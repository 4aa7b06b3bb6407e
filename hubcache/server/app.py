"""HTTP in front of the routes: who may ask (Host, origin), what they asked, and every error as an answer.

There is no router and no middleware: core/routes.py reads the request line, which a fuzz run holds it to.
"""

from __future__ import annotations

import json
import secrets
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import lru_cache

from aiohttp import web

from hubcache import __version__
from hubcache.core.hosts import allowed_host
from hubcache.core.routes import authority, parse_route
from hubcache.errors import HubcacheError
from hubcache.server.answering import Api
from hubcache.server.cors import cors, preflight
from hubcache.server.errors import FOREIGN, answer, answer_foreign, refusal

HOSTS = 256
"""Host names whose judgement is remembered."""


@dataclass(frozen=True, slots=True)
class FrontSettings:
    """How the server is reached: `names` are Host names beside this machine's own, `origins` those of web pages
    that may read everything ("*": all), `instance` marks what this server asks, so that it never asks itself."""

    names: tuple[str, ...] = ()
    origins: tuple[str, ...] = ()
    mode: str = "offline"
    instance: str = field(default_factory=lambda: secrets.token_hex(8))


class Front:
    """One request after the other, from the request line to the answer."""

    def __init__(self, api: Api, settings: FrontSettings, log: Callable[[str], None]) -> None:
        self._api = api
        self._settings = settings
        self._log = log
        self._started = time.monotonic()
        self._allowed = lru_cache(HOSTS)(lambda host: allowed_host(host, settings.names))

    async def handle(self, request: web.BaseRequest) -> web.StreamResponse:
        """Answer a request, whatever it is."""
        response = self._refuse(request) or await self._respond(request)
        if not response.prepared:
            response.headers["X-Content-Type-Options"] = "nosniff"
            if "Origin" in request.headers and "Vary" not in response.headers:
                response.headers.update(cors(request, self._settings.origins, is_open=False))
        return response

    def _refuse(self, request: web.BaseRequest) -> web.Response | None:
        """Turn away who comes by another name: a page whose name was made to lead here, or this server itself."""
        host = request.headers.get("Host")
        named = (host, authority(request.raw_path) or host)
        if not all(map(self._allowed, named)):
            return refusal(421, "this mirror does not answer by that Host name; its operator can add it with --name")
        if self._settings.instance in request.headers.get("User-Agent", ""):
            return refusal(508, "this mirror asks itself: its upstream leads back here")
        return None

    async def _respond(self, request: web.BaseRequest) -> web.StreamResponse:
        try:
            if request.method == "OPTIONS":
                return preflight(request, self._settings.origins)
            route = parse_route(request.method, request.raw_path)
            if route.action == "health":
                return self._health()
            if route.action == "start":
                return self._start(request)
            return await self._api.answer(request, route)
        except HubcacheError as error:
            response = answer(error)
            if response.status >= 500:
                self._log(f"{response.status} {request.method} {request.raw_path[:200]!r}: {error.message}")
            return response
        except FOREIGN as error:
            return answer_foreign(error)

    def _health(self) -> web.Response:
        uptime = int(time.monotonic() - self._started)
        told = {"status": "ok", "version": __version__, "mode": self._settings.mode, "uptime": uptime}
        return web.Response(text=json.dumps(told), content_type="application/json")

    def _start(self, request: web.BaseRequest) -> web.Response:
        return web.Response(
            text=f"hubcache {__version__}: a mirror of the Hugging Face Hub ({self._settings.mode})\n\n"
            f"    export HF_ENDPOINT=http://{request.headers['Host']}\n"
            "    unset HF_HUB_OFFLINE TRANSFORMERS_OFFLINE\n\n"
            "From then on hf, transformers, datasets and others load from here.\n"
        )
