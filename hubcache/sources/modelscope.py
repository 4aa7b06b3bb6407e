"""ModelScope by its own API: one listing per revision, every file with its sha256; nothing is uploaded here.

ModelScope keeps git repos and serves any commit by its full id, so the commit is the real one and not computed: the
listing names it in full, or short beside rows that hold it in full; where neither is told (a last commit that only
deleted files) the question is the one that `git clone` begins with. The listing has every file's sha256 and no
git-sha1: so that resolving fetches no file, here small files, too, are blobs named by their sha256, and every byte is
held against the digest that was listed. A file listed without one is refused.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlencode

from hubcache.core.artifact import Artifact, Entry, Manifest, RepoId, RepoPath, Revision, is_commit, parse_path
from hubcache.core.digests import Blob, Digest, digest_bytes
from hubcache.core.gitobj import lfs_pointer
from hubcache.core.ports import Content, Memory
from hubcache.core.reference import Reference
from hubcache.core.scopenames import branch_of, branch_ref
from hubcache.core.wire import retry_after
from hubcache.errors import (
    AccessDenied,
    BadReference,
    EntryNotFound,
    HubcacheError,
    IntegrityError,
    NotFound,
    RateLimited,
    RepoNotFound,
    RevisionNotFound,
    SourceUnavailable,
)
from hubcache.net import Net, Response
from hubcache.sources.registry import SourceConfig

# A model's listing ends here, without a word; a dataset's comes in pages.
LISTING_LIMIT = 3000
PAGE_SIZE = 200
MAX_LISTINGS = 10_000
SHORTEST_COMMIT = 7
_GIT_REF = re.compile(rb"[0-9a-f]{4}([0-9a-f]{40}) (refs/[^\0\n]+)")

Row = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class _Listing:
    """One answer: its rows, and the full or short commit it says it is of ("" where it does not)."""

    rows: list[Row]
    commit: str


class ModelScopeSource:
    """One endpoint of ModelScope's API: models and datasets."""

    def __init__(self, net: Net, endpoint: str, memory: Memory, notify: Callable[[str], None]) -> None:
        self._net = net
        self._endpoint = endpoint.rstrip("/")
        self._memory = memory
        self._notify = notify
        # ModelScope's own name for a repo, where the cache keeps it under another (--as).
        self._names: dict[RepoId, RepoId] = {}
        # Where a file was redirected to; asked again with every range, the answer would be the same.
        self._located: dict[tuple[RepoId, str, RepoPath], str] = {}

    def resolve(self, reference: Reference, /) -> Artifact:
        """Pin a reference: one listing, which names its commit; none for a commit whose listing the cache has."""
        repo = RepoId("ms", reference.repo.kind, reference.address)
        self._names[reference.repo] = repo
        asked = reference.revision
        if not is_commit(asked) or (manifest := self._memory.listing(reference.repo, asked)) is None:
            commit, rows = self._pin(repo, asked)
            manifest = self._memory.listing(reference.repo, commit) or self._manifest(rows)
        else:
            commit = asked
        revision, refs = self._place(reference, commit)
        return Artifact(reference.repo, revision, manifest, origin=self._endpoint, refs=refs)

    def open(self, artifact: Artifact, path: RepoPath, start: int = 0, end: int | None = None) -> Content:
        """Open a file's bytes, at the place they were redirected to before, if they were."""
        artifact.entry(path)
        commit = artifact.revision.commit
        key = (artifact.repo, commit, path)
        located = self._located.get(key)
        if located is not None:
            response = self._net.open_range(located, start, end)
            if response.status in {200, 206}:
                return response
            response.close()
            self._located.pop(key, None)  # a signed address that has run out
        url = self._api(self._names.get(artifact.repo, artifact.repo), "repo", Revision=commit, FilePath=path)
        response = self._net.open_range(url, start, end)
        if (error := _check(f"{artifact.repo}/{path}", EntryNotFound)(response)) is not None:
            response.close()
            raise error
        if response.url != url:
            self._located[key] = response.url
        return response

    def close(self) -> None:
        """Hold nothing: the connections are the Net's."""

    def _place(self, reference: Reference, commit: str) -> tuple[Revision, tuple[str, ...]]:
        """Choose the refs: modelscope/<branch> always, the branch's own name where no other hub's commit has it."""
        asked = reference.revision
        if len(asked) >= SHORTEST_COMMIT and commit.startswith(asked):
            return Revision(commit, commit), ()
        ref = branch_ref(asked)
        holder = self._memory.origin_of(reference.repo, asked)
        if holder is None or holder.startswith("ms:"):
            return Revision(asked, commit), (ref,)
        self._notify(f"{reference.repo}@{asked} stays what it is, from {holder}; ModelScope's is the revision {ref}")
        return Revision(ref, commit), ()

    def _pin(self, repo: RepoId, asked: str) -> tuple[str, list[Row]]:
        """Ask which commit a revision is, and for all of its rows."""
        branch, first = self._first_listing(repo, asked)
        if is_commit(asked) and not asked.startswith(first.commit):
            raise IntegrityError(f"{self._endpoint} answered with {first.commit} where {repo}@{asked} was asked for")
        commit = asked if is_commit(asked) else _full_commit(first)
        if commit is None:
            commit = self._ask_git(repo, branch)
            first = self._list(repo, commit) or first
        return commit, self._all_rows(repo, commit, first.rows)

    def _first_listing(self, repo: RepoId, asked: str) -> tuple[str, _Listing]:
        """List a revision; main is ModelScope's master, or its main where there is no master."""
        branch = branch_of(asked)
        for name in dict.fromkeys((branch, asked)):
            if (listing := self._list(repo, name)) is not None:
                return name, listing
        there = self._revisions(repo)
        raise RevisionNotFound(
            f"{repo}@{branch}: {self._endpoint} has no such revision, or no file in it"
            f" (there are: {', '.join(there[:20]) or 'none'})",
            hint=f"ms:{repo}@{there[0]}" if there else "",
        )

    def _list(
        self, repo: RepoId, revision: str, *, root: str = "", recursive: bool = True, page: int = 1
    ) -> _Listing | None:
        """Fetch one listing; None where there is none, which is ModelScope's answer to an unknown revision."""
        query = {"Revision": revision, "Recursive": str(recursive)}
        if root:
            query["Root"] = root
        if repo.kind == "dataset":
            query |= {"PageNumber": str(page), "PageSize": str(PAGE_SIZE)}
        data = self._ask(repo, "repo/tree" if repo.kind == "dataset" else "repo/files", revision, **query)
        try:
            rows, latest = data.get("Files"), data.get("LatestCommitter") or {}
            if rows is None:
                return None
            return _Listing([dict(row) for row in rows], str(latest.get("Id") or latest.get("ShortId") or ""))
        except (TypeError, ValueError, AttributeError) as error:
            raise SourceUnavailable(f"{self._endpoint} answered something that is no listing of {repo}") from error

    def _all_rows(self, repo: RepoId, commit: str, rows: list[Row]) -> list[Row]:
        """Add what the first listing left out: a dataset's further pages, a large model's folders."""
        if repo.kind != "dataset":
            return rows if len(rows) < LISTING_LIMIT else self._walk(repo, commit)
        found, page = rows, 1
        while len(rows) >= PAGE_SIZE and page < MAX_LISTINGS:
            page += 1
            listing = self._list(repo, commit, page=page)
            rows = listing.rows if listing else []
            found = [*found, *rows]
        return found

    def _walk(self, repo: RepoId, commit: str) -> list[Row]:
        """List a repo folder by folder, each whole where it fits into one listing.

        Raises:
            SourceUnavailable: one folder alone does not fit.
        """
        found: list[Row] = []
        roots = [""]
        for _ in range(MAX_LISTINGS):
            if not roots:
                return found
            root = roots.pop()
            whole = self._list(repo, commit, root=root)
            if whole and len(whole.rows) < LISTING_LIMIT:
                found += whole.rows
                continue
            level = self._list(repo, commit, root=root, recursive=False)
            if not level or len(level.rows) >= LISTING_LIMIT:
                raise SourceUnavailable(f"{self._endpoint} does not list all of {repo}/{root}: it holds too much")
            found += level.rows
            roots += [str(row.get("Path")) for row in level.rows if row.get("Type") == "tree"]
        raise SourceUnavailable(f"{self._endpoint} lists {repo} in more than {MAX_LISTINGS} parts")

    def _revisions(self, repo: RepoId) -> list[str]:
        """Name the branches and tags there are; none where that is not told."""
        with suppress(HubcacheError):
            found = self._ask(repo, "revisions", "revisions").get("RevisionMap")
            rows = [*(found.get("Branches") or ()), *(found.get("Tags") or ())] if isinstance(found, dict) else []
            return [str(row.get("Revision")) for row in rows if isinstance(row, dict)]
        return []

    def _ask_git(self, repo: RepoId, branch: str) -> str:
        """Ask which commit a branch or tag is, as git does before it clones."""
        url = f"{self._endpoint}/{repo.kind}s/{repo.name}.git/info/refs?service=git-upload-pack"
        content, _ = self._net.fetch(url, check=_check(f"{repo}@{branch}", RepoNotFound))
        refs: dict[bytes, str] = {name: commit.decode() for commit, name in _GIT_REF.findall(content)}
        for name in (f"refs/heads/{branch}", f"refs/tags/{branch}^{{}}", f"refs/tags/{branch}"):
            if commit := refs.get(name.encode()):
                return commit
        raise SourceUnavailable(f"{self._endpoint} does not say which commit {repo}@{branch} is")

    def _ask(self, repo: RepoId, action: str, what: str, **query: str) -> Mapping[str, Any]:
        url = self._api(repo, action, **query)
        answer, _ = self._net.fetch_json(url, check=_check(f"{repo}@{what}", RepoNotFound))
        data = answer.get("Data") if isinstance(answer, dict) else None
        if not isinstance(data, dict) or answer.get("Success") is False:
            said = f": {_message(answer)}" if _message(answer) else ""
            raise SourceUnavailable(f"{self._endpoint} gave no answer about {repo}{said}")
        return data

    def _api(self, repo: RepoId, action: str, **query: str) -> str:
        return f"{self._endpoint}/api/v1/{repo.kind}s/{repo.name}/{action}" + (f"?{urlencode(query)}" if query else "")

    def _manifest(self, rows: Iterable[Row]) -> Manifest:
        files: dict[RepoPath, Entry] = {}
        for row in rows:
            if row.get("Type") in {"tree", "commit"}:
                continue
            try:
                path = parse_path(row["Path"])
                if path in files:
                    raise BadReference("listed twice")
                files[path] = _entry(row)
            except (KeyError, TypeError, ValueError, AttributeError, BadReference) as error:
                raise IntegrityError(
                    f"{self._endpoint} lists a file that cannot be read: {str(row)[:200]} ({error})"
                ) from error
        return Manifest(files)


def _entry(row: Row) -> Entry:
    digest, size = Digest.parse(row["Sha256"]), row["Size"]
    if digest.algorithm != "sha256" or not isinstance(size, int) or size < 0:
        raise ValueError("no sha256, or no size in bytes")
    blob = Blob(digest, size)
    return Entry(blob, pointer=digest_bytes("git-sha1", lfs_pointer(blob)).hex if row.get("IsLFS") is True else None)


def _full_commit(listing: _Listing) -> str | None:
    """Return the listing's commit: told in full, or found among its rows by the short form that was told."""
    told = listing.commit
    if is_commit(told) or len(told) < SHORTEST_COMMIT:
        return told if is_commit(told) else None
    found = {text for text in (str(row.get("Revision")) for row in listing.rows) if text.startswith(told)}
    full = found.pop() if len(found) == 1 else ""
    return full if is_commit(full) else None


def _check(what: str, missing: type[NotFound]) -> Callable[[Response], HubcacheError | None]:
    def check(response: Response) -> HubcacheError | None:
        if response.status in {200, 206}:
            return None
        said = _said(response)
        where = f"{what}: {response.origin} answered {response.status}" + (f" ({said})" if said else "")
        if response.status in {401, 403, 451}:
            refused = "the token was refused" if response.authenticated else "private or gated"
            return AccessDenied(where, hint=f"{refused}: check the token that mirrors.yaml names for {response.origin}")
        if response.status == 429:
            return RateLimited(where, retry_after=retry_after(response.headers))
        return missing(where) if response.status in {404, 410} else SourceUnavailable(where)

    return check


def _said(response: Response) -> str:
    try:
        return _message(json.loads(response.read_metadata()))
    except (ValueError, HubcacheError):
        return ""


def _message(answer: object) -> str:
    return str(answer.get("Message") or "")[:200] if isinstance(answer, dict) else ""


def make(config: SourceConfig) -> ModelScopeSource:
    """Make the source of `ms:` references."""
    return ModelScopeSource(config.net, config.endpoints["modelscope"], config.memory, config.notify)
