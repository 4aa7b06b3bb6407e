"""LoopHub: the Hugging Face Hub on loopback, with its CDN as an origin of its own, for tests and benchmarks.

It takes no uploads and never offers Xet.
"""

from __future__ import annotations

import argparse
import signal
from base64 import urlsafe_b64decode, urlsafe_b64encode
from collections.abc import Mapping
from hashlib import sha256
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, quote, urlencode

from tests.support import hubviews
from tests.support.httpd import Body, Reply, Request
from tests.support.hubrepo import Commit, HubFile, HubRepo
from tests.support.loopserver import LoopServer, json_reply

ACTIONS = frozenset(("revision", "tree", "refs", "paths-info"))
KINDS = {"models": "model", "datasets": "dataset", "spaces": "space"}


class Refusal(Exception):
    """An answer that ends the request at once."""

    def __init__(self, reply: Reply) -> None:
        super().__init__(reply.status)
        self.reply = reply


def refusal(status: int, message: str, code: str | None = None, **headers: str) -> Refusal:
    named = {"X-Error-Message": message} | ({"X-Error-Code": code} if code else {})
    return Refusal(json_reply({"error": message}, status, named | headers))


class LoopHub(LoopServer):
    """A hub of repos made in code. Further knobs, beside LoopServer's:

    page_size: rows of a tree page. redirect_loop: files whose resolve answers a redirect to itself.
    wrong_etag: all file digests in headers are wrong. no_commit_header: X-Repo-Commit is left out.
    small_via_307: small files by way of /api/resolve-cache, as the Hub does; else at once.
    revoked: tokens answered as invalid. cdn_base: origin put into CDN locations (a proxy before it), None for the CDN.
    """

    def __init__(self) -> None:
        super().__init__(hub=self._hub, cdn=self._cdn)
        self.page_size = 1000
        self.redirect_loop: set[str] = set()
        self.wrong_etag = False
        self.no_commit_header = False
        self.small_via_307 = True
        self.revoked: set[str] = set()
        self.cdn_base: str | None = None
        self._repos: dict[tuple[str, str], HubRepo] = {}
        self._about: dict[tuple[str, str], dict[str, Any]] = {}
        self._renamed: dict[tuple[str, str], str] = {}

    @property
    def endpoint(self) -> str:
        return self._origins["hub"].url

    @property
    def cdn_endpoint(self) -> str:
        return self._origins["cdn"].url

    # -- what the hub holds

    def add_repo(
        self,
        name: str,
        files: Mapping[str, Body],
        *,
        kind: str = "model",
        revision: str = "main",
        private: bool = False,
        gated: bool | str = False,
        token: str | None = None,
        about: Mapping[str, Any] | None = None,
    ) -> str:
        """Create a repo with one commit and return the commit; `token` is the one that may read it.

        `about` is laid over the repo's record (tags, pipeline_tag, cardData, …), whatever it says.
        """
        repo = HubRepo(kind, name, private, gated, {token} if token else set())
        self._about[kind, name] = dict(about or {})
        self._repos[kind, name] = repo
        return repo.add_commit(revision, files, replace=True)

    def add_commit(
        self,
        name: str,
        files: Mapping[str, Body | None],
        *,
        revision: str = "main",
        kind: str = "model",
        replace: bool = False,
    ) -> str:
        """Commit over the tip of a branch or full ref (None removes a file) and return the commit."""
        return self._repos[kind, name].add_commit(revision, files, replace)

    def set_ref(self, name: str, ref: str, commit: str, *, kind: str = "model") -> None:
        """Point a branch ("dev") or a full ref ("refs/tags/v1", "refs/pr/1") at a commit."""
        repo = self._repos[kind, name]
        repo.refs[repo.full_ref(ref)] = commit

    def tell(self, name: str, *, kind: str = "model", **about: Any) -> None:
        """Change what the repo's record says beyond its files."""
        self._about[kind, name] |= about

    def rename(self, old: str, new: str, *, kind: str = "model") -> None:
        """Move a repo; the old name answers a relative 307 from now on."""
        repo = self._repos.pop((kind, old))
        repo.name = new
        self._repos[kind, new] = repo
        self._about[kind, new] = self._about.pop((kind, old))
        self._renamed[kind, old] = new

    def files(self, name: str, revision: str = "main", *, kind: str = "model") -> dict[str, HubFile]:
        """Return the files of a revision with their size, oid and sha256."""
        commit = self._repos[kind, name].commit(revision)
        if commit is None:
            raise KeyError(revision)
        return dict(commit.files)

    # -- the hub's origin

    def _hub(self, request: Request) -> Reply:
        try:
            if request.bearer in self.revoked:
                raise refusal(401, "Invalid credentials in Authorization header")
            reply = self._route(request)
        except Refusal as refused:
            reply = refused.reply
        if self.no_commit_header:
            reply.headers.pop("X-Repo-Commit", None)
        reply.headers["X-Request-Id"] = f"Root=1-{len(self._log):08x}"
        return reply

    def _route(self, request: Request) -> Reply:
        match request.segments:
            case ["api", "whoami-v2"]:
                return self._whoami(request)
            case ["api", "agent-harnesses"]:
                return json_reply({"standardEnvVars": [], "harnesses": {}})
            case ["api", "resolve-cache", kinds, *rest] if kinds in KINDS:
                return self._resolve_cache(request, KINDS[kinds], rest)
            case ["api", kinds, *rest] if kinds in KINDS and rest:
                return self._api(request, KINDS[kinds], rest)
            case [kinds, *rest] if kinds in ("datasets", "spaces") and "resolve" in rest:
                return self._resolve(request, KINDS[kinds], rest)
            case [*rest] if "resolve" in rest:
                return self._resolve(request, "model", rest)
        raise refusal(404, "no such page")

    def _whoami(self, request: Request) -> Reply:
        if request.bearer is None:
            raise refusal(401, "Invalid username or password.")
        return json_reply({"type": "user", "id": "0", "name": "loop", "fullname": "Loop", "orgs": [], "auth": {}})

    def _repo(self, request: Request, kind: str, segments: list[str]) -> tuple[HubRepo, list[str]]:
        """Find the repo a path names and what follows its name; a name of old is redirected."""
        counts = [count for count in (2, 1) if (kind, "/".join(segments[:count])) in self._repos | self._renamed]
        single = len(segments) < 2 or segments[1] in ACTIONS | {"resolve"}
        count = counts[0] if counts else 1 if single else 2
        name = "/".join(segments[:count])
        if (new := self._canonical(kind, name)) is not None:
            target = request.target.replace(f"/{name}", f"/{new}", 1)
            raise Refusal(Reply(307, {"Location": target}, f"Temporary Redirect to {target}".encode()))
        repo = self._repos.get((kind, name))
        if repo is None or (repo.private and not repo.may_read(request.bearer)):
            if request.bearer is None:
                raise refusal(401, "Invalid username or password.")
            raise refusal(404, "Repository not found", "RepoNotFound")
        return repo, segments[count:]

    def _canonical(self, kind: str, name: str) -> str | None:
        """Return the name to redirect to: of a renamed repo, or the right letter case."""
        if (kind, name) in self._repos:
            return None
        same = (known for of, known in self._repos if of == kind and known.lower() == name.lower())
        return self._renamed.get((kind, name)) or next(same, None)

    def _commit(self, repo: HubRepo, revision: str) -> Commit:
        if (commit := repo.commit(revision)) is None:
            raise refusal(404, f"Invalid rev id: {revision}", "RevisionNotFound")
        return commit

    def _api(self, request: Request, kind: str, segments: list[str]) -> Reply:
        repo, rest = self._repo(request, kind, segments)
        match rest:
            case []:
                return self._info(request, repo, self._commit(repo, "main"))
            case ["revision", *revision]:
                return self._info(request, repo, self._commit(repo, "/".join(revision)))
            case ["refs"]:
                return json_reply(hubviews.refs(repo, "include_prs" in request.query))
            case ["tree", *where]:
                return self._tree(request, repo, where)
            case ["paths-info", *revision] if request.method == "POST":
                commit = self._commit(repo, "/".join(revision))
                return json_reply(hubviews.paths_info(commit, request))
        raise refusal(404, "no such route")

    def _info(self, request: Request, repo: HubRepo, commit: Commit) -> Reply:
        return json_reply(hubviews.repo_info(repo, commit, request.query, self._about[repo.kind, repo.name]))

    def _tree(self, request: Request, repo: HubRepo, where: list[str]) -> Reply:
        revision, folder = repo.split_revision(where)
        commit = self._commit(repo, revision)
        folder = folder.strip("/")
        if folder not in commit.folders:
            raise refusal(404, f"{folder} does not exist on {revision}", "EntryNotFound")
        recursive = hubviews.flag(request.query, "recursive")
        rows = hubviews.entries(commit, list(commit.under(folder, recursive)), hubviews.flag(request.query, "expand"))
        size = min(self.page_size, int(request.query.get("limit", ["1000"])[0]))
        start = int(urlsafe_b64decode(request.query.get("cursor", ["MA=="])[0]))
        headers = {}
        if start + size < len(rows):
            query = {key: values[0] for key, values in request.query.items()}
            query |= {"limit": str(size), "cursor": urlsafe_b64encode(str(start + size).encode()).decode()}
            headers["Link"] = f'<{self.endpoint}{request.path}?{urlencode(query)}>; rel="next"'
        return json_reply(rows[start : start + size], headers=headers)

    # -- files

    def _resolve(self, request: Request, kind: str, segments: list[str]) -> Reply:
        repo, rest = self._repo(request, kind, segments)
        if rest[:1] != ["resolve"]:
            raise refusal(404, "no such page")
        self._check_gate(request, repo)
        revision, path = repo.split_revision(rest[1:])
        commit = self._commit(repo, revision)
        if path in self.redirect_loop:
            return Reply(302, {"Location": request.target})
        file = self._file(commit, path)
        headers = self._linked(commit, file)
        if file.sha256 is not None:
            return self._found(302, self._signed(repo, commit, path), headers)
        if not self.small_via_307:
            return self._small(request, path, commit, file)
        query = urlencode({request.path: "", "etag": f'"{file.etag}"'})
        target = f"/api/resolve-cache/{repo.kind}s/{repo.name}/{commit.oid}/{quote(path)}?{query}"
        return self._found(307, target, headers)

    def _resolve_cache(self, request: Request, kind: str, segments: list[str]) -> Reply:
        repo, rest = self._repo(request, kind, segments)
        self._check_gate(request, repo)
        commit = self._commit(repo, rest[0] if rest else "")
        path = "/".join(rest[1:])
        return self._small(request, path, commit, self._file(commit, path))

    def _check_gate(self, request: Request, repo: HubRepo) -> None:
        if repo.gated and not repo.may_read(request.bearer):
            status = 401 if request.bearer is None else 403
            raise refusal(status, f"Access to {repo.kind} {repo.name} is restricted.", "GatedRepo")

    def _file(self, commit: Commit, path: str) -> HubFile:
        if (file := commit.files.get(path)) is None:
            headers = {"X-Error-Code": "EntryNotFound", "X-Error-Message": "Entry not found"}
            headers |= {"X-Repo-Commit": commit.oid, "Content-Type": "text/plain; charset=utf-8"}
            raise Refusal(Reply(404, headers, b"Entry not found"))
        return file

    def _etag(self, file: HubFile) -> str:
        return f'"{"f" * len(file.etag) if self.wrong_etag else file.etag}"'

    def _linked(self, commit: Commit, file: HubFile) -> dict[str, str]:
        linked = {"X-Repo-Commit": commit.oid, "X-Linked-Size": str(file.size), "X-Linked-Etag": self._etag(file)}
        return linked | {"Accept-Ranges": "bytes"}

    def _found(self, status: int, target: str, headers: dict[str, str]) -> Reply:
        return Reply(status, headers | {"Location": target}, f"Redirecting to {target}".encode())

    def _small(self, request: Request, path: str, commit: Commit, file: HubFile) -> Reply:
        headers = {"X-Repo-Commit": commit.oid, "ETag": self._etag(file), "Content-Type": "text/plain; charset=utf-8"}
        if file.sha256 is not None:
            headers |= {"X-Linked-Size": str(file.size), "X-Linked-Etag": self._etag(file)}
        return self.file_reply(request, path, file.body, headers)

    # -- the CDN's origin

    def _signed(self, repo: HubRepo, commit: Commit, path: str) -> str:
        fields = {"kind": repo.kind, "name": repo.name, "commit": commit.oid, "path": path}
        policy = urlsafe_b64encode(urlencode(fields).encode()).decode()
        query = {"Expires": "4102444800", "Policy": policy, "Signature": signature(policy), "Key-Pair-Id": "LOOP"}
        place = f"/xet-bridge-us/{repo.name.replace('/', '-')}/{commit.files[path].sha256}"
        return f"{self.cdn_base or self.cdn_endpoint}{quote(place)}?{urlencode(query)}"

    def _cdn(self, request: Request) -> Reply:
        if "authorization" in request.headers:
            return Reply(400, {"Content-Type": "application/xml"}, b"<Error><Code>InvalidArgument</Code></Error>")
        policy = request.query.get("Policy", [""])[0]
        fields = {key: values[0] for key, values in parse_qs(urlsafe_b64decode(policy).decode()).items()}
        repo = self._repos.get((fields.get("kind", ""), fields.get("name", "")))
        if repo is None or request.query.get("Signature") != [signature(policy)]:
            return Reply(403, {"Content-Type": "application/xml"}, b"<Error><Code>AccessDenied</Code></Error>")
        file = repo.commits[fields["commit"]].files[fields["path"]]
        etag = sha256(f"xet of {file.sha256}".encode()).hexdigest()
        headers = {"ETag": f'"{etag}"', "Content-Type": "application/octet-stream"}
        return self.file_reply(request, fields["path"], file.body, headers)


def signature(policy: str) -> str:
    return sha256(f"loop {policy}".encode()).hexdigest()


def folder_files(folder: Path) -> dict[str, Body]:
    """List a folder's files by their path in it."""
    return {path.relative_to(folder).as_posix(): path for path in sorted(folder.rglob("*")) if path.is_file()}


def main() -> None:
    """Serve one folder as one repo until killed, the endpoint on the first line of stdout."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("--dir", type=Path, required=True)
    parser.add_argument("--repo", required=True)
    parser.add_argument("--delay-ms", type=float, default=0.0)
    parser.add_argument("--rate", type=int, default=0, help="bytes per second of each body")
    arguments = parser.parse_args()
    hub = LoopHub()
    hub.add_repo(arguments.repo, folder_files(arguments.dir))
    hub.delay, hub.rate = arguments.delay_ms / 1000, arguments.rate
    ends = {signal.SIGINT, signal.SIGTERM}
    signal.pthread_sigmask(signal.SIG_BLOCK, ends)  # before any thread is made: threads inherit it
    with hub:
        print(hub.endpoint, flush=True)
        signal.sigwait(ends)


if __name__ == "__main__":
    main()
