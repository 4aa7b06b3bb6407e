"""What pages of other origins may read: what is public on the Hub anyway, and everything where their origin is near.

Near is a page from this machine, or from an origin that the operator named.
"""

from __future__ import annotations

from collections.abc import Collection

from aiohttp import web

from hubcache.core.hosts import origin_is_near

EXPOSED = (
    "X-Repo-Commit, X-Request-Id, X-Error-Code, X-Error-Message, X-Total-Count, ETag, Link, Accept-Ranges,"
    " Content-Length, Content-Range, X-Linked-Size, X-Linked-ETag"
)
ALLOWED = "Authorization, Content-Type, Range, If-Range, If-None-Match, Accept"
REMEMBERED = 86400
"""Seconds for which a browser need not ask again."""


def cors(request: web.BaseRequest, origins: Collection[str], *, is_open: bool) -> dict[str, str]:
    """Return the headers that let a page read an answer; none where it may not, or where no page asks.

    `is_open` says that the answer holds nothing but what the Hub shows everybody.
    """
    origin = request.headers.get("Origin")
    if origin is None:
        return {}
    if origin_is_near(origin, origins):
        return {"Access-Control-Allow-Origin": origin, "Access-Control-Expose-Headers": EXPOSED, "Vary": "Origin"}
    if is_open:
        return {"Access-Control-Allow-Origin": "*", "Access-Control-Expose-Headers": EXPOSED, "Vary": "Origin"}
    return {"Vary": "Origin"}


def preflight(request: web.BaseRequest, origins: Collection[str]) -> web.Response:
    """Answer an OPTIONS; it tells nothing of what there is."""
    headers = cors(request, origins, is_open=True) | {"Allow": "GET, HEAD, POST, OPTIONS"}
    headers |= {
        "Access-Control-Allow-Methods": "GET, HEAD, POST, OPTIONS",
        "Access-Control-Allow-Headers": ALLOWED,
        "Access-Control-Max-Age": str(REMEMBERED),
    }
    # Without this, a browser lets no page of the internet ask a machine of the inner network.
    if headers.get("Access-Control-Allow-Origin") not in {None, "*"}:
        headers["Access-Control-Allow-Private-Network"] = "true"
    return web.Response(status=204, headers=headers)
