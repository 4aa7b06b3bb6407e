"""LoopScope: ModelScope on loopback, its listings, files and git refs, with its object store as an origin of its own.

It takes no uploads, no login, and serves git no further than its first question.
"""

from __future__ import annotations

from base64 import urlsafe_b64decode, urlsafe_b64encode
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any
from urllib.parse import parse_qs, urlencode

from tests.support.httpd import Body, Reply, Request, body_hex
from tests.support.hubrepo import FIRST_COMMIT, Commit, HubFile, HubRepo
from tests.support.loophub import Refusal, signature
from tests.support.loopserver import LoopServer, json_reply

Row = dict[str, Any]
KINDS = {"models": "model", "datasets": "dataset"}
NO_REPO, NO_FILE, DENIED = 10010205001, 10990101007, 10010101002


@dataclass(slots=True)
class ScopeRepo:
    """A repo, and for each of its commits which commit last changed a path, folders included."""

    git: HubRepo
    changed: dict[str, dict[str, str]] = field(default_factory=dict)

    def add_commit(self, revision: str, files: Mapping[str, Body | None], replace: bool) -> str:
        before = self.git.refs.get(self.git.full_ref(revision), "")
        oid = self.git.add_commit(revision, files, replace)
        commit = self.git.commits[oid]
        touched = set(files)
        for path in files:
            touched |= {path[:at] for at, sign in enumerate(path) if sign == "/"}
        kept = {} if replace else self.changed.get(before, {})
        present = commit.files.keys() | commit.folders.keys()
        self.changed[oid] = {path: oid if path in touched else kept[path] for path in present if path}
        return oid


class LoopScope(LoopServer):
    """A hub of repos made in code. Further knobs, beside LoopServer's:

    limit: rows after which a model's listing ends. full_commit: LatestCommitter has the whole id, not its start alone.
    no_commit: LatestCommitter is null. wrong_sha256, no_sha256: files whose rows lie, or have none.
    rows: added to every listing. revoked: tokens answered with 401.
    """

    def __init__(self) -> None:
        super().__init__(scope=self._scope, store=self._store)
        self.limit = 3000
        self.full_commit = False
        self.no_commit = False
        self.wrong_sha256: set[str] = set()
        self.no_sha256: set[str] = set()
        self.rows: list[Row] = []
        self.revoked: set[str] = set()
        self._repos: dict[tuple[str, str], ScopeRepo] = {}

    @property
    def endpoint(self) -> str:
        return self._origins["scope"].url

    @property
    def store_endpoint(self) -> str:
        return self._origins["store"].url

    # -- what the hub holds

    def add_repo(
        self,
        name: str,
        files: Mapping[str, Body],
        *,
        kind: str = "model",
        revision: str = "master",
        token: str | None = None,
    ) -> str:
        """Create a repo with one commit and return the commit; with a token, only it may read."""
        git = HubRepo(kind, name, private=token is not None, tokens={token} if token else set())
        self._repos[kind, name] = repo = ScopeRepo(git)
        return repo.add_commit(revision, files, replace=True)

    def add_commit(
        self, name: str, files: Mapping[str, Body | None], *, revision: str = "master", kind: str = "model"
    ) -> str:
        """Commit over the tip of a branch (None removes a file) and return the commit."""
        return self._repos[kind, name].add_commit(revision, files, replace=False)

    def set_tag(self, name: str, tag: str, commit: str, *, kind: str = "model") -> None:
        self._repos[kind, name].git.refs[f"refs/tags/{tag}"] = commit

    # -- the hub's origin

    def _scope(self, request: Request) -> Reply:
        try:
            return self._route(request)
        except Refusal as refused:
            return refused.reply

    def _route(self, request: Request) -> Reply:
        match request.segments:
            case ["api", "v1", "repos", "internalAccelerationInfo"]:
                return answer({"InternalRegionQueryAddress": ""})
            case ["api", "v1", kinds, owner, name] if kinds in KINDS:
                return answer(info(self._repo(request, kinds, f"{owner}/{name}")))
            case ["api", "v1", kinds, owner, name, "revisions"] if kinds in KINDS:
                return answer(revisions(self._repo(request, kinds, f"{owner}/{name}")))
            case ["api", "v1", "models", owner, name, "repo", "files"]:
                return self._files(request, self._repo(request, "models", f"{owner}/{name}"))
            case ["api", "v1", "datasets", owner, name, "repo", "tree"]:
                return self._tree(request, self._repo(request, "datasets", f"{owner}/{name}"))
            case ["api", "v1", kinds, owner, name, "repo"] if kinds in KINDS:
                return self._file(request, self._repo(request, kinds, f"{owner}/{name}"))
            case [kinds, owner, name, "info", "refs"] if kinds in KINDS and name.endswith(".git"):
                return git_refs(self._repo(request, kinds, f"{owner}/{name.removesuffix('.git')}").git)
        raise refusal(404, NO_REPO, "no such route")

    def _repo(self, request: Request, kinds: str, name: str) -> ScopeRepo:
        token = request.bearer or cookie(request, "m_session_id")
        if token in self.revoked:
            raise refusal(401, DENIED, "invalid token")
        repo = self._repos.get((KINDS[kinds], name))
        if repo is None:
            raise refusal(404, NO_REPO, "record not found")
        if repo.git.private and not repo.git.may_read(token):
            raise refusal(403, DENIED, "access denied")
        return repo

    def _files(self, request: Request, repo: ScopeRepo) -> Reply:
        rows, commit = self._listed(request, repo)
        return self._listing(rows if rows is None else rows[: self.limit], commit)

    def _tree(self, request: Request, repo: ScopeRepo) -> Reply:
        rows, commit = self._listed(request, repo)
        size, page = (int(request.query[name][0]) for name in ("PageSize", "PageNumber"))
        return self._listing(rows if rows is None else rows[(page - 1) * size : page * size], commit)

    def _listed(self, request: Request, repo: ScopeRepo) -> tuple[list[Row] | None, Commit | None]:
        """Return the rows asked for; none of an unknown revision, which is no error to ModelScope."""
        commit = repo.git.commit(asked(request, "Revision", "master"))
        if commit is None:
            return None, None
        paths = commit.under(asked(request, "Root"), asked(request, "Recursive").lower() == "true")
        return [*(self._row(repo, commit, path) for path in paths), *self.rows], commit

    def _listing(self, rows: list[Row] | None, commit: Commit | None) -> Reply:
        latest = None
        if commit is not None and not self.no_commit:
            latest = {"Id": commit.oid if self.full_commit else "", "ShortId": commit.oid[:8], "Name": "loop"}
        return answer({"Files": rows, "IsVisual": 0, "LatestCommitter": latest})

    def _row(self, repo: ScopeRepo, commit: Commit, path: str) -> Row:
        row: Row = {"CommitMessage": "a commit", "CommittedDate": FIRST_COMMIT, "CommitterName": "loop"}
        row |= {"InCheck": False, "Name": path.rpartition("/")[2], "Path": path}
        row["Revision"] = repo.changed[commit.oid][path]
        if (file := commit.files.get(path)) is None:
            return row | {"IsLFS": False, "Mode": "16384", "Sha256": "", "Size": 0, "Type": "tree"}
        sha256 = "0" * 64 if path in self.wrong_sha256 else "" if path in self.no_sha256 else sha256_of(file)
        row |= {"IsLFS": file.sha256 is not None, "Mode": "33188", "Sha256": sha256}
        return row | {"Size": file.size, "Type": "blob"}

    # -- files

    def _file(self, request: Request, repo: ScopeRepo) -> Reply:
        commit = repo.git.commit(asked(request, "Revision", "master"))
        path = asked(request, "FilePath")
        file = commit.files.get(path) if commit else None
        if commit is None or file is None:
            raise refusal(404, NO_FILE, "file not found")
        if file.sha256 is not None:
            return Reply(302, {"Location": self._signed(repo.git, commit, path)})
        # What is no LFS file comes from git itself, which knows no ranges.
        whole = replace(request, headers={name: text for name, text in request.headers.items() if name != "range"})
        reply = self.file_reply(whole, path, file.body, {"Content-Type": "application/octet-stream"})
        reply.headers.pop("Accept-Ranges", None)
        return reply

    def _signed(self, repo: HubRepo, commit: Commit, path: str) -> str:
        fields = {"kind": repo.kind, "name": repo.name, "commit": commit.oid, "path": path}
        policy = urlsafe_b64encode(urlencode(fields).encode()).decode()
        query = {"Expires": "4102444800", "Policy": policy, "Signature": signature(policy)}
        return f"{self.store_endpoint}/lfs/{commit.files[path].sha256}?{urlencode(query)}"

    def _store(self, request: Request) -> Reply:
        """Answer as an object store does: to a signature, and to nothing beside it."""
        policy = asked(request, "Policy")
        if "authorization" in request.headers or asked(request, "Signature") != signature(policy):
            return Reply(403, {"Content-Type": "application/xml"}, b"<Error><Code>AccessDenied</Code></Error>")
        fields = {key: values[0] for key, values in parse_qs(urlsafe_b64decode(policy).decode()).items()}
        file = self._repos[fields["kind"], fields["name"]].git.commits[fields["commit"]].files[fields["path"]]
        headers = {"ETag": f'"{body_hex(file.body, "md5")}"', "X-Linked-ETag": f'"{file.sha256}"'}
        return self.file_reply(request, fields["path"], file.body, headers)


def asked(request: Request, name: str, default: str = "") -> str:
    return request.query.get(name, [default])[0]


def cookie(request: Request, name: str) -> str | None:
    pairs = (pair.strip().partition("=") for pair in request.headers.get("cookie", "").split(";"))
    return next((value for key, _, value in pairs if key == name), None)


def sha256_of(file: HubFile) -> str:
    return file.sha256 or body_hex(file.body, "sha256")


def answer(value: object) -> Reply:
    return json_reply({"Code": 200, "Data": value, "Message": "success", "RequestId": "loop", "Success": True})


def refusal(status: int, code: int, message: str) -> Refusal:
    told = {"Code": code, "Data": None, "Message": message, "RequestId": "loop", "Success": False}
    return Refusal(json_reply(told, status))


def info(repo: ScopeRepo) -> Row:
    owner, _, name = repo.git.name.partition("/")
    return {"Id": 1, "Path": owner, "Name": name, "Visibility": 1 if repo.git.private else 5, "Revision": "master"}


def revisions(repo: ScopeRepo) -> Row:
    def under(start: str) -> list[Row]:
        names = [ref.removeprefix(start) for ref in sorted(repo.git.refs) if ref.startswith(start)]
        return [{"Revision": name, "CreatedAt": FIRST_COMMIT} for name in names]

    return {"RevisionMap": {"Branches": under("refs/heads/"), "Tags": under("refs/tags/")}}


def git_refs(repo: HubRepo) -> Reply:
    """Advertise the refs as git does (gitprotocol-http, gitprotocol-pack: version 0)."""
    lines = [f"{commit} {ref}" for ref, commit in sorted(repo.refs.items())]
    head = repo.refs.get("refs/heads/master")
    lines = [f"{head} HEAD", *lines] if head else lines
    lines[0] += "\0side-band-64k ofs-delta shallow agent=loopscope"
    parts = ["# service=git-upload-pack\n", None, *(f"{line}\n" for line in lines), None]
    body = b"".join(b"0000" if part is None else f"{len(part) + 4:04x}{part}".encode() for part in parts)
    return Reply(200, {"Content-Type": "application/x-git-upload-pack-advertisement"}, body)
