"""The demo's upstream on 127.0.0.1: a Hub, a SparseZoo and an object store with one model each; no general server.

Everything it can answer is made when it is constructed: pages by path, and one GraphQL query.
"""

from __future__ import annotations

import hashlib
import json
import re
import socket
import sys
import threading
import uuid
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler
from socketserver import ThreadingTCPServer
from typing import Self
from urllib.parse import unquote

from hubcache.core.artifact import Entry, Manifest, parse_path
from hubcache.core.digests import digest_bytes
from hubcache.core.gitobj import commit_of, entry_for, lfs_pointer
from hubcache.demo.models import tarball, tiny_bert, zoo_model

BODY_LIMIT = 1 << 20  # bytes of a request's body; a query has about 600

_ONE_RANGE = re.compile(r"bytes=([0-9]{0,18})-([0-9]{0,18})")
_GRAPHQL_MODELS = re.compile(r"\bmodels\s*\(([^)]*)\)")
_GRAPHQL_ARGUMENT = re.compile(r'(\w+)\s*:\s*("(?:[^"\\]|\\.)*")')
_ZOO_FILE_TYPES = {"model.md": "card", "recipe.md": "recipe", "sample-inputs.tar.gz": "inputs"}


class DemoUpstream:
    """A context manager around the server; it runs once, between start() and stop().

    Attributes:
        endpoint: the value for HF_ENDPOINT and SPARSEZOO_API_URL, without a slash at the end.
        tarball_url: the object store's model, at the same port of localhost.
        hub_reference, zoo_reference: what to pull from the other two.
        hub_commit: the commit of the Hub's main branch.
    """

    hub_reference = "hubcache-demo/tiny-bert"
    zoo_reference = "zoo:nlp/sentiment_analysis/tinybert-demo/pytorch/huggingface/sst2/base-none"

    def __init__(self) -> None:
        files = tiny_bert(1)
        manifest = Manifest({parse_path(path): _entry(path, content) for path, content in files.items()})
        self._server = _Server()
        self.endpoint = f"http://127.0.0.1:{self._server.server_address[1]}"
        # By another name than the Hub's: an address on the Hub's own origin would be read as a repo there.
        self.tarball_url = self.endpoint.replace("127.0.0.1", "localhost") + "/models/tiny-bert.tar.gz"
        self.hub_commit = commit_of(manifest)
        zoo_files = zoo_model(2)
        self._zoo = _zoo_row(self.zoo_reference, zoo_files, self.endpoint)
        self._pages = _hub_pages(self.hub_reference, self.hub_commit, manifest, files)
        self._pages |= {_zoo_path(self.zoo_reference, name): _object(body) for name, body in zoo_files.items()}
        self._pages["/models/tiny-bert.tar.gz"] = _object(tarball(tiny_bert(3), "tiny-bert"))
        self._server.answer = self._answer
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True)

    @property
    def requests(self) -> int:
        """How many requests came in."""
        return self._server.requests

    @property
    def bytes_sent(self) -> int:
        """How many bytes of bodies went out."""
        return self._server.bytes_sent

    def start(self) -> None:
        """Answer from now on, in threads that end with the process."""
        self._thread.start()

    def stop(self) -> None:
        """Close the port, and answer no more on kept-alive connections either."""
        self._server.closed = True
        if self._thread.is_alive():
            self._server.shutdown()
            self._thread.join()
        self._server.server_close()

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def _answer(self, method: str, path: str, body: bytes) -> _Reply:
        if method == "POST":
            return _graphql(self._zoo, body) if path == "/v2/graphql" else _Reply(HTTPStatus.METHOD_NOT_ALLOWED)
        return self._pages.get(path) or self._not_found(path)

    def _not_found(self, path: str) -> _Reply:
        """Say what is missing, as the Hub does; the other two send no body.

        sparsezoo would take the Content-Length of a 404 for the file's size.
        """
        if path.startswith(("/v2/", "/models/")):
            return _Reply(HTTPStatus.NOT_FOUND)
        asked = path.removeprefix("/api/models")
        if not asked.startswith(f"/{self.hub_reference}/"):
            return _no("RepoNotFound")
        revision = "".join(asked.split("/")[4:5])  # /org/name/resolve/REVISION/…
        if f"/api/models/{self.hub_reference}/revision/{revision}" not in self._pages:
            return _no("RevisionNotFound")
        return _no("EntryNotFound", {"X-Repo-Commit": self.hub_commit})


@dataclass(frozen=True, slots=True)
class _Reply:
    status: HTTPStatus
    body: bytes = b""
    headers: Mapping[str, str] = field(default_factory=dict)


def _json(value: object) -> _Reply:
    return _Reply(HTTPStatus.OK, json.dumps(value).encode(), {"Content-Type": "application/json"})


def _no(code: str, headers: Mapping[str, str] | None = None) -> _Reply:
    """Refuse with a code: a bare 404 is no clear answer to huggingface_hub."""
    return _Reply(HTTPStatus.NOT_FOUND, code.encode(), {"X-Error-Code": code} | dict(headers or {}))


def _file(content: bytes, tag: str, headers: Mapping[str, str]) -> _Reply:
    known = {"Content-Type": "application/octet-stream", "Accept-Ranges": "bytes", "ETag": f'"{tag}"'}
    return _Reply(HTTPStatus.OK, content, known | dict(headers))


def _object(content: bytes) -> _Reply:
    """Serve bytes as a bucket does, where the ETag is the MD5."""
    return _file(content, _md5(content), {"Last-Modified": "Thu, 01 Jan 1970 00:00:00 GMT"})


def _md5(content: bytes) -> str:
    return hashlib.md5(content, usedforsecurity=False).hexdigest()


def _entry(path: str, content: bytes) -> Entry:
    sha1, sha256 = digest_bytes("git-sha1", content), digest_bytes("sha256", content)
    return entry_for(path, len(content), git_sha1=sha1.hex, sha256=sha256.hex)


def _hub_pages(name: str, commit: str, manifest: Manifest, files: Mapping[str, bytes]) -> dict[str, _Reply]:
    """Write what the Hub answers about a flat repo, at each revision, by path."""
    siblings = [{"rfilename": path} for path in manifest.files]
    about = _json({"id": name, "sha": commit, "private": False, "siblings": siblings})
    tree = _json([_tree_row(path, entry) for path, entry in manifest.files.items()])
    # huggingface_hub asks for the harnesses again and again while that is a 404.
    pages = {f"/api/models/{name}": about, "/api/agent-harnesses": _json({"standardEnvVars": [], "harnesses": {}})}
    for revision in ("main", "HEAD", commit):
        pages[f"/api/models/{name}/revision/{revision}"] = about
        pages[f"/api/models/{name}/tree/{revision}"] = tree
        for path, entry in manifest.files.items():
            reply = _file(files[path], entry.blob.digest.hex, {"X-Repo-Commit": commit})
            pages[f"/{name}/resolve/{revision}/{path}"] = reply
    return pages


def _tree_row(path: str, entry: Entry) -> dict[str, object]:
    oid, size = entry.blob.digest.hex, entry.blob.size
    row: dict[str, object] = {"type": "file", "oid": entry.pointer or oid, "size": size, "path": path}
    if entry.pointer:
        row["lfs"] = {"oid": oid, "size": size, "pointerSize": len(lfs_pointer(entry.blob))}
    return row


def _zoo_path(stub: str, name: str) -> str:
    return f"/v2/models/{uuid.uuid5(uuid.NAMESPACE_URL, stub)}/files/{name}"


def _zoo_row(stub: str, files: Mapping[str, bytes], origin: str) -> dict[str, object]:
    """Write the SparseZoo's row of a model from its V1 stub; file names are those of `files(version: 2)`."""
    domain, task, name, framework, repo, dataset, tag = stub.removeprefix("zoo:").split("/")
    architecture, _, variant = name.partition("-")
    model = str(uuid.uuid5(uuid.NAMESPACE_URL, stub))
    rows = [
        {
            "displayName": path,
            "downloadUrl": f"{origin}{_zoo_path(stub, path)}?version=2",
            "fileSize": len(content),
            "fileType": _ZOO_FILE_TYPES.get(path) or path.partition("/")[0],
            "md5": _md5(content),
            "modelId": model,
        }
        for path, content in files.items()
    ]
    asked_by = {"domain": domain, "task": task, "architecture": architecture, "subArchitecture": variant}
    asked_by |= {"framework": framework, "repo": repo, "sourceDataset": dataset, "sparseTag": tag}
    names = {"modelId": model, "stub": stub, "repoName": f"{name}-{dataset}-base", "repoNamespace": "hubcache-demo"}
    measured = {"modelOnnxSizeCompressedBytes": 0, "benchmarkResults": [], "trainingResults": []}
    return {**asked_by, **names, **measured, "files": rows}


def _graphql(model: Mapping[str, object], body: bytes) -> _Reply:
    """Answer `{ models (name: "value", …) { field … } }`: the model if every argument fits, with fields it names."""
    try:
        query = str(json.loads(body)["query"])
        arguments = _GRAPHQL_MODELS.findall(query)[0]
        asked = {name: json.loads(value) for name, value in _GRAPHQL_ARGUMENT.findall(arguments)}
    except (ValueError, LookupError, TypeError):
        return _json({"errors": [{"message": 'only { models (name: "value") { field } } is answered here'}]})
    if any(model.get(name) != value for name, value in asked.items()):
        return _json({"data": {"models": []}})
    return _json({"data": {"models": [_chosen(model, set(re.findall(r"\w+", query)))]}})


def _chosen(row: Mapping[str, object], names: Iterable[str]) -> dict[str, object]:
    return {
        name: [_chosen(child, names) for child in value] if isinstance(value, list) else value
        for name, value in row.items()
        if name in names
    }


def _conditional(reply: _Reply, asked: Mapping[str, str]) -> _Reply:
    """Apply If-None-Match, then Range under If-Range, to what has an ETag (RFC 9110, sections 13 and 14)."""
    tag = reply.headers.get("ETag")
    if tag is None:
        return reply
    if asked.get("if-none-match") in (tag, "*"):
        return _Reply(HTTPStatus.NOT_MODIFIED, headers={"ETag": tag})
    return _ranged(reply, asked.get("range", "")) if asked.get("if-range", tag) == tag else reply


def _ranged(whole: _Reply, asked: str) -> _Reply:
    """Cut one range out; several, or one that makes no sense, get the whole. An end past the last byte is clamped."""
    match = _ONE_RANGE.fullmatch(asked)
    first, last = match.groups() if match else ("", "")
    if not (first or last) or (first and last and int(last) < int(first)):
        return whole
    size = len(whole.body)
    start = int(first) if first else max(0, size - int(last))
    end = min(int(last) + 1, size) if first and last else size
    if start >= size:
        return _Reply(HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE, headers={"Content-Range": f"bytes */{size}"})
    place = {"Content-Range": f"bytes {start}-{end - 1}/{size}"}
    return _Reply(HTTPStatus.PARTIAL_CONTENT, whole.body[start:end], dict(whole.headers) | place)


class _Server(ThreadingTCPServer):
    """A thread per connection. Unlike HTTPServer it never looks up the host's name, which can wait for a network."""

    answer: Callable[[str, str, bytes], _Reply]
    daemon_threads = True
    request_queue_size = 128

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.requests = self.bytes_sent = 0
        self.closed = False
        self._lock = threading.Lock()

    def count(self, sent: int) -> None:
        with self._lock:
            self.requests += 1
            self.bytes_sent += sent

    def handle_error(self, request: socket.socket | tuple[bytes, socket.socket], client_address: object) -> None:
        if not isinstance(sys.exception(), OSError):  # a client that hangs up is no news
            super().handle_error(request, client_address)


class _Handler(BaseHTTPRequestHandler):
    server: _Server
    protocol_version = "HTTP/1.1"
    timeout = 30.0  # seconds
    wbufsize = 1 << 16  # head and body in one segment: the second of two would wait for the first one's ACK

    def do_GET(self) -> None:
        length = self.headers.get("Content-Length", "0")
        if not length.isdecimal() or int(length) > BODY_LIMIT:
            self.send_error(HTTPStatus.REQUEST_ENTITY_TOO_LARGE)
            return
        reply = self.server.answer(self.command, unquote(self.path.partition("?")[0]), self.rfile.read(int(length)))
        if self.server.closed:  # stop() closed the port; this ends what was kept alive
            self.close_connection = True
        else:
            self._send(_conditional(reply, {name.lower(): value for name, value in self.headers.items()}))

    do_HEAD = do_POST = do_GET

    def _send(self, reply: _Reply) -> None:
        body = b"" if self.command == "HEAD" else reply.body
        self.server.count(len(body))
        self.send_response(reply.status)
        for name, value in reply.headers.items():
            self.send_header(name, value)
        if reply.status != HTTPStatus.NOT_MODIFIED:
            self.send_header("Content-Length", str(len(reply.body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:
        """Stay silent: the terminal is the demo's."""
