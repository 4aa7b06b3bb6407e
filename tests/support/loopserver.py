"""What every loopback server of this folder offers a test: fault knobs, the request log, start and stop.

It knows no protocol of a hub; the servers built on it do.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Callable
from functools import partial
from typing import NamedTuple, Self

from tests.support.httpd import Body, Origin, Reply, Request, Spoil, ranged


class Logged(NamedTuple):
    """One request as it arrived; path with its query, header names in lower case."""

    origin: str
    method: str
    path: str
    headers: dict[str, str]


class LoopServer:
    """One or more origins behind the same knobs. Knobs are plain attributes, read at each request.

    down: 503 to all. delay: seconds before each answer. corrupt: files with one byte flipped, always the middle one.
    truncate, stall: file -> bytes of body after which the connection is closed, or kept silent until stop().
    ignore_ranges: 200 with the whole body. rate: bytes per second of a body, 0 for no limit.
    rate_limit: answer so many next requests with 429. retry_after: seconds named there.
    fail_next: status codes of the next requests; fail_origin: the same for one origin, {"cdn": [503]}.
    """

    def __init__(self, **routes: Callable[[Request], Reply]) -> None:
        self.down = False
        self.delay = 0.0
        self.corrupt: set[str] = set()
        self.truncate: dict[str, int] = {}
        self.stall: dict[str, int] = {}
        self.ignore_ranges = False
        self.rate = 0
        self.rate_limit = 0
        self.retry_after = 0
        self.fail_next: list[int] = []
        self.fail_origin: dict[str, list[int]] = {}
        self._lock = threading.Lock()
        self._log: list[Logged] = []
        self._origins = {name: Origin(partial(self._answer, name, route)) for name, route in routes.items()}

    @property
    def requests(self) -> list[Logged]:
        """A copy of the log, oldest first."""
        with self._lock:
            return list(self._log)

    @property
    def connections(self) -> int:
        """How many connections came in so far, over all origins."""
        return sum(origin.connections for origin in self._origins.values())

    def clear(self) -> None:
        with self._lock:
            self._log.clear()

    def start(self) -> Self:
        for origin in self._origins.values():
            origin.start()
        return self

    def stop(self) -> None:
        """Refuse connections and drop the open ones; start() comes back on the same ports."""
        for origin in self._origins.values():
            origin.stop()

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(self, *_: object) -> None:
        self.stop()

    def _answer(self, origin: str, route: Callable[[Request], Reply], request: Request) -> Reply:
        with self._lock:
            self._log.append(Logged(origin, request.method, request.target, request.headers))
        if self.delay:
            self._origins[origin].stopped.wait(self.delay)
        return self._refusal(origin) or route(request)

    def _refusal(self, origin: str) -> Reply | None:
        with self._lock:
            if self.down:
                return json_reply({"error": "down"}, 503)
            if self.rate_limit > 0:
                self.rate_limit -= 1
                return self._too_many()
            codes = self.fail_origin.get(origin) or self.fail_next
            if codes:
                return json_reply({"error": "asked to fail"}, codes.pop(0))
        return None

    def _too_many(self) -> Reply:
        wait = str(self.retry_after)
        policy = '"fixed window";"resolvers";q=3000;w=300'
        headers = {"Retry-After": wait, "RateLimit": f'"resolvers";r=0;t={wait}', "RateLimit-Policy": policy}
        return json_reply({"error": "too many requests"}, 429, headers)

    def file_reply(self, request: Request, name: str, body: Body, headers: dict[str, str]) -> Reply:
        """Answer with a file, or the range of it that was asked, under the faults set for that name."""
        spoil = Spoil(name in self.corrupt, self.truncate.get(name), self.stall.get(name), self.rate)
        reply = Reply(200, headers, body, spoil=spoil)
        return reply if self.ignore_ranges else ranged(reply, request.headers.get("range"))


def json_reply(value: object, status: int = 200, headers: dict[str, str] | None = None) -> Reply:
    body = json.dumps(value).encode()
    return Reply(status, {"Content-Type": "application/json; charset=utf-8"} | (headers or {}), body)
