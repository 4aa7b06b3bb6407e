"""One table from exceptions to HTTP statuses and the codes that the Hub's clients switch on."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping

from aiohttp import web

from hubcache import errors
from hubcache.core.httpranges import Unsatisfiable
from hubcache.core.routes import WrongMethod

STATUSES: tuple[tuple[type[errors.HubcacheError], int, str], ...] = (
    (WrongMethod, 405, ""),
    (Unsatisfiable, 416, ""),
    (errors.UsageError, 400, ""),
    (errors.RepoNotFound, 404, "RepoNotFound"),
    (errors.RevisionNotFound, 404, "RevisionNotFound"),
    (errors.EntryNotFound, 404, "EntryNotFound"),
    (errors.NotFound, 404, ""),
    (errors.AccessDenied, 403, "GatedRepo"),
    (errors.RateLimited, 429, ""),
    (errors.SourceUnavailable, 504, ""),
    (errors.IntegrityError, 502, ""),
    (errors.DiskFull, 507, ""),
    (errors.CacheError, 500, ""),
)
"""Exception, status, X-Error-Code: the first row that fits decides."""

# What a header's value cannot hold.
_UNFIT = re.compile(r"[^\x20-\x7e]")


def answer(error: errors.HubcacheError) -> web.Response:
    """Say in HTTP what went wrong, as far as a stranger may know: the hint is for whoever runs the server."""
    status, code = next(((status, code) for kind, status, code in STATUSES if isinstance(error, kind)), (500, ""))
    return refusal(status, error.message, code, _headers(error))


FOREIGN = (web.HTTPRequestEntityTooLarge, web.RequestPayloadError, TimeoutError)
"""What reading a request's body raises."""


def answer_foreign(error: Exception) -> web.Response:
    """Say in HTTP why a request's body could not be read."""
    if isinstance(error, web.HTTPRequestEntityTooLarge):
        return refusal(413, "the request's body is larger than this mirror reads")
    if isinstance(error, TimeoutError):
        return refusal(408, "the request's body did not come in time")
    return refusal(400, "the request's body is not what its headers say")


def refusal(status: int, message: str, code: str = "", headers: Mapping[str, str] | None = None) -> web.Response:
    """Refuse with a reason, in the headers and the body that huggingface_hub shows people."""
    line = _UNFIT.sub("?", " ".join(message.split()))[:500]
    told = {"X-Error-Message": line} | ({"X-Error-Code": code} if code else {}) | dict(headers or {})
    return web.Response(
        status=status, body=json.dumps({"error": line}).encode(), content_type="application/json", headers=told
    )


def _headers(error: errors.HubcacheError) -> dict[str, str]:
    if isinstance(error, errors.RateLimited):
        return {"Retry-After": str(int(error.retry_after or 10))}
    if isinstance(error, Unsatisfiable):
        return {"Content-Range": f"bytes */{error.size}"}
    return {"Allow": ", ".join((*error.allowed, "OPTIONS"))} if isinstance(error, WrongMethod) else {}
