"""ObjectStore: plain files over HTTP as a bucket serves them, with ETags, conditions and ranges.

It lists nothing and takes no uploads.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from email.utils import formatdate
from time import time
from urllib.parse import unquote

from tests.support.httpd import Body, Reply, Request, body_hex
from tests.support.loopserver import LoopServer

NO_SUCH_KEY = '<?xml version="1.0" encoding="UTF-8"?>\n<Error><Code>NoSuchKey</Code><Key>{}</Key></Error>'


@dataclass(frozen=True, slots=True)
class Stored:
    """A body with the validators it is served under."""

    body: Body
    etag: str
    modified: str


class ObjectStore(LoopServer):
    """Serves path -> body; paths (in knobs too) have no leading slash.

    no_length: bodies come chunked, without Content-Length. Content may be put and removed at run time.
    """

    def __init__(self, files: Mapping[str, Body] | None = None) -> None:
        super().__init__(store=self._store)
        self.no_length = False
        self._stored: dict[str, Stored] = {}
        for path, body in (files or {}).items():
            self.put(path, body)

    @property
    def endpoint(self) -> str:
        return self._origins["store"].url

    def url(self, path: str) -> str:
        return f"{self.endpoint}/{path.lstrip('/')}"

    def put(self, path: str, body: Body, etag: str | None = None) -> None:
        """Store or change a file; the ETag is the md5 of the body unless given, without its quotes."""
        modified = time() if isinstance(body, bytes) else body.stat().st_mtime
        self._stored[path.lstrip("/")] = Stored(
            body, f'"{etag or body_hex(body, "md5")}"', formatdate(modified, usegmt=True)
        )

    def remove(self, path: str) -> None:
        del self._stored[path.lstrip("/")]

    def _store(self, request: Request) -> Reply:
        path = unquote(request.path).lstrip("/")
        if (stored := self._stored.get(path)) is None:
            return Reply(404, {"Content-Type": "application/xml"}, NO_SUCH_KEY.format(path).encode())
        headers = {"ETag": stored.etag, "Last-Modified": stored.modified, "Content-Type": "application/octet-stream"}
        if names(request.headers.get("if-none-match", ""), stored.etag):
            return Reply(304, headers)
        if request.headers.get("if-range", stored.etag) not in (stored.etag, stored.modified):
            request = replace(request, headers={**request.headers, "range": ""})
        reply = self.file_reply(request, path, stored.body, headers)
        if self.no_length:
            reply.spoil = replace(reply.spoil, chunked=True)
        return reply


def names(field: str, etag: str) -> bool:
    """Tell whether an If-None-Match field names the ETag (weak comparison, RFC 9110 section 13.1.2)."""
    listed = [each.strip().removeprefix("W/") for each in field.split(",")]
    return field.strip() == "*" or etag in listed
