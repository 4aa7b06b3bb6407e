"""One plain HTTP request as a test asks it: the path goes out as it is, and a body that ends short is told as such.

It follows no redirect, and asserts nothing.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from http.client import HTTPConnection, IncompleteRead
from typing import Any
from urllib.parse import urlsplit

from tests.support.loopserver import LoopServer


@dataclass(frozen=True, slots=True)
class Answer:
    """An answer; header names in lower case. `is_short` says that the connection ended before the body did."""

    status: int
    headers: dict[str, str]
    body: bytes
    is_short: bool = False

    @property
    def facts(self) -> Any:
        """The body, read as JSON."""
        return json.loads(self.body)

    @property
    def code(self) -> str:
        """The code that the Hub's clients switch on."""
        return self.headers.get("x-error-code", "")

    @property
    def commit(self) -> str | None:
        """The commit that the answer is about."""
        return self.headers.get("x-repo-commit")


def ask(
    endpoint: str, path: str, *, method: str = "GET", headers: Mapping[str, str] | None = None, body: str | None = None
) -> Answer:
    """Ask once, on a connection of its own."""
    connection = HTTPConnection(urlsplit(endpoint).netloc, timeout=60)
    try:
        connection.request(method, path, body, dict(headers or {}))
        response = connection.getresponse()
        told = {name.lower(): value for name, value in response.getheaders()}
        try:
            return Answer(response.status, told, response.read())
        except (IncompleteRead, ConnectionResetError) as ended:
            return Answer(response.status, told, getattr(ended, "partial", b""), is_short=True)
    finally:
        connection.close()


def head(endpoint: str, path: str, **headers: str) -> Answer:
    """Ask for the headers alone; an underscore in a name stands for a hyphen."""
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return ask(endpoint, path, method="HEAD", headers=named)


def asked(hub: LoopServer, name: str) -> list[str]:
    """List what a hub was asked about a repo, method and path, oldest first; a CDN's path names it with a hyphen."""
    names = (name, name.replace("/", "-"))
    return [f"{each.method} {each.path}" for each in hub.requests if any(part in each.path for part in names)]
