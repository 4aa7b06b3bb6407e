"""The Hub's routes: what each asks of the graph, and how the answer looks on the wire; bytes go by respond.py."""

from __future__ import annotations

import asyncio
import json
import mimetypes
import time
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Collection
from functools import partial
from typing import Any

from aiohttp import web

from hubcache.core import answers
from hubcache.core.artifact import Entry, RepoId, RepoPath, is_commit, parse_path
from hubcache.core.catalogue import Listed, list_rows, parse_search
from hubcache.core.digests import digest_bytes
from hubcache.core.gitobj import lfs_pointer
from hubcache.core.httpranges import is_unchanged, parse_ranges, range_applies
from hubcache.core.paging import link, page, parse_limit
from hubcache.core.routes import Route, origin_form, split_revision, whole_revision
from hubcache.errors import EntryNotFound
from hubcache.server.cors import cors
from hubcache.server.errors import refusal
from hubcache.server.hubs import RuledHub
from hubcache.server.pins import Pin, PinShelf
from hubcache.server.respond import send
from hubcache.server.workers import Workers

ANSWERS_KEPT = 16 << 20
LARGEST_KEPT = 4 << 20
"""Bytes of encoded answers that are kept, together with what asked for them, and each."""
LISTED = 2.0
"""Seconds for which the list of repos is believed."""
CLIENT_LIMIT = 50_000_000_000
"""Bytes from which on huggingface_hub refuses to load over HTTP what a HEAD tells it the size of."""
BODY = 20.0
"""Seconds that a request's body may take."""
WAITING = 64
"""Questions that may wait for a disk or for upstream at once."""

_OF_A_BODY = {"Content-Type", "Accept-Ranges", "X-Linked-Size", "X-Linked-ETag"}
# A page of the mirror's own origin must not run what a repo holds.
_TEXTS = {
    ".txt",
    ".md",
    ".json",
    ".jsonl",
    ".py",
    ".yaml",
    ".yml",
    ".csv",
    ".tsv",
    ".html",
    ".htm",
    ".svg",
    ".js",
    ".xml",
}


class Api:
    """Answers routes from a hub."""

    def __init__(self, hub: RuledHub, shelf: PinShelf, *, origins: Collection[str] = ()) -> None:
        self._hub = hub
        self._origins = origins
        self._shelf = shelf
        self._workers = Workers(WAITING)
        self._asked: dict[tuple[RepoId, str], asyncio.Task[Pin]] = {}
        self._encoded: OrderedDict[tuple[int, str], bytes] = OrderedDict()
        self._encoded_size = 0
        self._listed: tuple[float, list[Pin]] = (0.0, [])
        self._routes: dict[str, Callable[[web.BaseRequest, Route], Awaitable[web.StreamResponse]]] = {
            "file": self._file,
            "info": self._info,
            "tree": self._tree,
            "paths-info": self._paths_info,
            "refs": self._refs,
            "commits": self._commits,
            "list": self._list,
            "auth-check": self._auth_check,
            "whoami": self._whoami,
            "harnesses": self._harnesses,
        }

    async def answer(self, request: web.BaseRequest, route: Route) -> web.StreamResponse:
        """Answer one route.

        Raises:
            HubcacheError: the three kinds of "no", and usage errors.
        """
        return await self._routes[route.action](request, route)

    # -- metadata

    async def _info(self, request: web.BaseRequest, route: Route) -> web.StreamResponse:
        pin = await self._pin(_repo(route), whole_revision(route.rest) if route.rest else "main")
        query = route.query
        return self._json(
            pin,
            request,
            lambda: answers.repo_info(
                pin.artifact, pin.about, expand=query.get("expand", ()), blobs=_flag(route, "blobs")
            ),
        )

    async def _tree(self, request: web.BaseRequest, route: Route) -> web.StreamResponse:
        pin, folder = await self._split(route)
        if not ({"limit", "cursor"} & route.query.keys()):
            return self._json(pin, request, lambda: self._tree_rows(pin, route, folder))
        rows, cursor = page(
            self._tree_rows(pin, route, folder),
            limit=parse_limit(_first(route, "limit")),
            cursor=_first(route, "cursor"),
        )
        links = {} if cursor is None else {"Link": link(_url(request), route.query, cursor)}
        return self._json(pin, request, lambda: rows, links)

    def _tree_rows(self, pin: Pin, route: Route, folder: str) -> list[dict[str, Any]]:
        expand, recursive = _flag(route, "expand"), _flag(route, "recursive")
        return answers.tree(pin.artifact, pin.about, folder=folder, recursive=recursive, expand=expand)

    async def _paths_info(self, request: web.BaseRequest, route: Route) -> web.StreamResponse:
        paths, expand = answers.parse_paths(request.headers.get("Content-Type", ""), await _body(request))
        pin = await self._pin(_repo(route), whole_revision(route.rest))
        return _json_response(
            answers.paths_info(pin.artifact, pin.about, paths, expand=expand), self._marks(request, pin)
        )

    async def _refs(self, request: web.BaseRequest, route: Route) -> web.StreamResponse:
        repo = _repo(route)
        refs = await self._workers.result(partial(self._hub.refs, repo))
        return _json_response(answers.refs(refs, include_prs=_flag(route, "include_prs")))

    async def _commits(self, request: web.BaseRequest, route: Route) -> web.StreamResponse:
        pin = await self._pin(_repo(route), whole_revision(route.rest) if route.rest else "main")
        return _json_response(
            answers.commits(pin.artifact, pin.about, formatted="formatted" in route.query.get("expand", ())),
            self._marks(request, pin),
        )

    async def _list(self, request: web.BaseRequest, route: Route) -> web.StreamResponse:
        expires, pins = self._listed
        if time.monotonic() > expires:
            pins = list(await self._workers.result(self._hub.listed))
            self._listed = (time.monotonic() + LISTED, pins)
        assert route.kind is not None
        found = [Listed(pin.artifact, pin.about) for pin in pins if pin.repo.kind == route.kind]
        rows, cursor = list_rows(found, parse_search(route.kind, route.query))
        links = {} if cursor is None else {"Link": link(_url(request), route.query, cursor)}
        return _json_response(rows, links)

    async def _auth_check(self, request: web.BaseRequest, route: Route) -> web.StreamResponse:
        pin = await self._pin(_repo(route), "main")
        self._hub.admit(pin)
        return _json_response({})

    async def _whoami(self, request: web.BaseRequest, route: Route) -> web.StreamResponse:
        """Everybody is nobody here: this server keeps no accounts, and hands no token on."""
        if "Authorization" not in request.headers:
            return refusal(401, "Invalid username or password.")
        return _json_response(
            {"type": "user", "id": "0" * 24, "name": "anonymous", "fullname": "anonymous", "orgs": []}
        )

    async def _harnesses(self, request: web.BaseRequest, route: Route) -> web.StreamResponse:
        return _json_response({"standardEnvVars": [], "harnesses": {}})

    # -- files

    async def _file(self, request: web.BaseRequest, route: Route) -> web.StreamResponse:
        pin, path = await self._split(route)
        self._hub.admit(pin)
        entry = pin.artifact.manifest.files.get(RepoPath(path))
        if entry is None:
            return self._missing(request, pin, path)
        headers = self._marks(request, pin) | _file_headers(path, entry)
        if route.raw and entry.blob.digest.algorithm == "sha256":
            return _pointer(request, headers, entry)
        if is_unchanged(request.headers.get("If-None-Match"), headers["ETag"]):
            return web.Response(status=304, headers={k: v for k, v in headers.items() if k not in _OF_A_BODY})
        return await self._file_body(request, pin, RepoPath(path), headers)

    async def _file_body(
        self, request: web.BaseRequest, pin: Pin, path: RepoPath, headers: dict[str, str]
    ) -> web.StreamResponse:
        size = pin.artifact.entry(path).blob.size
        if request.method == "HEAD":  # a range is asked by GET alone: RFC 9110, section 14.2
            return _head(request, headers, size)
        asked = (
            request.headers.get("Range") if range_applies(request.headers.get("If-Range"), headers["ETag"]) else None
        )
        if asked and self._hub.is_suspect(pin, path):
            asked = None  # who has the beginning of wrong bytes must not get the end of right ones
        ranges = parse_ranges(asked, size)
        if size == 0 and asked:
            headers["Content-Range"] = "bytes */0"  # @huggingface/hub takes 416 for a failure
        return await send(request, self._hub.open(pin, path), headers, ranges, size)

    def _missing(self, request: web.BaseRequest, pin: Pin, path: str) -> web.Response:
        """Say that there is no such file; the commit stands beside it only where that is certain.

        With it, huggingface_hub never asks again.
        """
        if not path:
            raise EntryNotFound(f"no file of {pin.repo} was named")
        is_certain = self._shelf.is_absent(pin, parse_path(path))
        headers = self._marks(request, pin)
        if not is_certain:
            del headers["X-Repo-Commit"]
        why = "has no such file" if is_certain else "is known in part only here, and this file is not"
        return refusal(404, f"Entry not found: {pin.repo} {why}: {path[:200]}", "EntryNotFound", headers)

    # -- pins

    async def _split(self, route: Route) -> tuple[Pin, str]:
        """Find the revision and the path of a route, and pin the revision."""
        repo, first = _repo(route), route.rest[0] if route.rest else ""
        is_plain = first in {"main", "HEAD"} or is_commit(first) or len(route.rest) < 2
        known = () if is_plain else await self._workers.result(lambda: tuple(self._shelf.refs(repo)))
        revision, path = split_revision(route.rest, known)
        return await self._pin(repo, revision), path

    async def _pin(self, repo: RepoId, revision: str) -> Pin:
        """Pin a revision; those who ask for the same at once wait for the same answer."""
        pin = self._hub.glance(repo, revision)
        if pin is not None:
            return pin
        key = (repo, revision)
        task = self._asked.get(key)
        if task is None:
            task = asyncio.create_task(self._workers.result(partial(self._hub.pin, repo, revision)))
            self._asked[key] = task
            task.add_done_callback(lambda _: self._asked.pop(key, None))
        return await asyncio.shield(task)

    # -- JSON

    def _json(
        self, pin: Pin, request: web.BaseRequest, make: Callable[[], object], headers: dict[str, str] | None = None
    ) -> web.Response:
        """Answer with JSON that is encoded once for a pin."""
        key = (pin.serial, request.raw_path)
        body = self._encoded.get(key)
        if body is None:
            body = _encode(make())
            self._keep(key, body)
        headers = self._marks(request, pin) | (headers or {})
        return web.Response(body=body, content_type="application/json", headers=headers)

    def _marks(self, request: web.BaseRequest, pin: Pin) -> dict[str, str]:
        """Say which commit it is, whether upstream could be asked, and which pages may read the answer."""
        marks = {"X-Repo-Commit": pin.commit, "X-Content-Type-Options": "nosniff"}
        if "Origin" in request.headers:
            about = pin.about
            is_open = not (about.is_local or about.private or about.gated)
            marks |= cors(request, self._origins, is_open=is_open)
        if pin.stale_since is not None:
            marks["X-Hubcache-Stale"] = str(max(0, int(time.time() - pin.stale_since)))
            asked = pin.artifact.revision.asked
            marks["X-HF-Warning"] = f"stale; upstream is out: {asked} is what this mirror has of it"
        return marks

    def _keep(self, key: tuple[int, str], body: bytes) -> None:
        if len(body) > LARGEST_KEPT:
            return
        self._encoded[key] = body
        self._encoded_size += len(body) + len(key[1])
        while self._encoded_size > ANSWERS_KEPT:
            (_, target), oldest = self._encoded.popitem(last=False)
            self._encoded_size -= len(oldest) + len(target)


def _repo(route: Route) -> RepoId:
    assert route.repo is not None
    return route.repo


def _flag(route: Route, name: str) -> bool:
    return (_first(route, name) or "false").lower() in {"1", "true"}


def _first(route: Route, name: str) -> str | None:
    values = route.query.get(name)
    return values[0] if values else None


def _url(request: web.BaseRequest) -> str:
    """Return the absolute URL of the request, without its query: JavaScript's client takes no other in a Link."""
    return f"http://{request.headers['Host']}{origin_form(request.raw_path).partition('?')[0]}"


async def _body(request: web.BaseRequest) -> bytes:
    async with asyncio.timeout(BODY):
        return await request.read()


def _encode(value: object) -> bytes:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"), default=str).encode("utf-8", "replace")


def _json_response(value: object, headers: dict[str, str] | None = None) -> web.Response:
    return web.Response(body=_encode(value), content_type="application/json", headers=headers)


def _file_headers(path: str, entry: Entry) -> dict[str, str]:
    headers = {"ETag": f'"{entry.blob.digest.hex}"'}
    headers["Accept-Ranges"] = "bytes"
    headers["Content-Type"] = _media_type(path)
    if entry.blob.digest.algorithm == "sha256":
        headers["X-Linked-ETag"] = headers["ETag"]
        headers["X-Linked-Size"] = str(entry.blob.size)
    return headers


def _media_type(path: str) -> str:
    suffix = path[path.rfind(".") :].lower() if "." in path else ""
    if suffix == ".json":
        return "application/json"
    if suffix in _TEXTS:
        return "text/plain; charset=utf-8"
    kind = mimetypes.types_map.get(suffix, "")
    return kind if kind.startswith(("image/", "audio/", "video/")) and "svg" not in kind else "application/octet-stream"


def _head(request: web.BaseRequest, headers: dict[str, str], size: int) -> web.Response:
    """Answer a HEAD; huggingface_hub must not learn a size beyond which it gives up before it tries."""
    if size > CLIENT_LIMIT and "hf_hub/" in request.headers.get("User-Agent", ""):
        headers.pop("X-Linked-Size", None)
        return web.Response(headers=headers)
    return web.Response(headers=headers | {"Content-Length": str(size)})


def _pointer(request: web.BaseRequest, headers: dict[str, str], entry: Entry) -> web.Response:
    """Answer /raw/ of an LFS file, which is its pointer."""
    body = lfs_pointer(entry.blob)
    oid = entry.pointer or digest_bytes("git-sha1", body).hex
    kept = {key: value for key, value in headers.items() if key not in _OF_A_BODY}
    kept |= {"ETag": f'"{oid}"', "Content-Type": "text/plain; charset=utf-8"}
    is_known = is_unchanged(request.headers.get("If-None-Match"), kept["ETag"])
    return web.Response(status=304 if is_known else 200, body=None if is_known else body, headers=kept)
