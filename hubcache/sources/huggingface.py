"""The Hugging Face Hub, or any server that speaks its API: commits, listings, bytes; it keeps nothing."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import urljoin

from hubcache.core import wire
from hubcache.core.artifact import Artifact, Entry, Manifest, RepoId, RepoPath, Revision, is_commit, parse_commit
from hubcache.core.cards import select_told
from hubcache.core.origins import Origin, redact
from hubcache.core.ports import Content, Memory
from hubcache.core.reference import Reference
from hubcache.errors import BadReference, HubcacheError, IntegrityError, SourceUnavailable
from hubcache.net import Net, Response
from hubcache.sources.registry import SourceConfig

MAX_PAGES = 10_000


@dataclass(frozen=True, slots=True)
class _Told:
    """What the hub says of a revision: its commit, the repo's present name, who may have it, and the rest."""

    repo: RepoId
    commit: str
    is_public: bool
    about: Mapping[str, Any] | None = None


class HubSource:
    """One endpoint of the Hub's API."""

    def __init__(self, net: Net, endpoint: str, memory: Memory, notify: Callable[[str], None]) -> None:
        self._net = net
        self._endpoint = endpoint.rstrip("/")
        self._memory = memory
        self._notify = notify
        # Where the hub redirected a file to; asked again with every range, it would answer the same.
        self._located: dict[tuple[RepoId, str, RepoPath], str] = {}

    def resolve(self, reference: Reference, /) -> Artifact:
        """Pin a reference: one request for the commit, and the listing's pages if the cache lacks them."""
        asked = RepoId("hf", reference.repo.kind, reference.address)
        known = self._memory.listing(reference.repo, reference.revision) if is_commit(reference.revision) else None
        if known is not None:
            # Not asked, so not known to be public: its bytes come from where its listing came from.
            told = _Told(asked, reference.revision, is_public=False)
        else:
            told = self._ask(asked, reference.revision)
        if told.repo != asked:
            self._notify(f"{asked} is called {told.repo} now; it is kept under the name that was asked for")
        return Artifact(
            reference.repo,
            Revision(reference.revision, told.commit),
            known or self._memory.listing(reference.repo, told.commit) or self.listing(told.repo, told.commit),
            origin=self._endpoint,
            published_as=told.repo,
            is_public=told.is_public,
            told=told.about,
        )

    def listing(self, repo: RepoId, commit: str) -> Manifest:
        """Fetch a commit's whole listing, page by page."""
        first = url = self._endpoint + wire.tree_path(repo, commit)
        files: dict[RepoPath, Entry] = {}
        for _ in range(MAX_PAGES):
            rows, response = self._net.fetch_json(url, check=self._check(f"{repo}@{commit[:12]}"))
            if not isinstance(rows, list):
                raise IntegrityError(f"{redact(url)} answered something that is no listing")
            files.update(wire.parse_tree(rows))
            following = wire.next_page(response.headers.get("Link"))
            if following is None:
                return Manifest(files)
            url = urljoin(url, following)
            if Origin.of(url) != Origin.of(first):
                raise IntegrityError(f"{redact(first)} continues its listing at another origin, {redact(url)}")
        raise IntegrityError(f"{redact(first)}: a listing of more than {MAX_PAGES} pages")

    def refs(self, repo: RepoId, /) -> Mapping[str, str]:
        """Fetch what each of a repo's refs means."""
        answer, _ = self._net.fetch_json(self._endpoint + wire.refs_path(repo), check=self._check(f"{repo}: its refs"))
        return wire.parse_refs(answer)

    def open(self, artifact: Artifact, path: RepoPath, start: int = 0, end: int | None = None) -> Content:
        """Open a file's bytes, at the place the hub redirected to before, if it did."""
        artifact.entry(path)
        key = (artifact.repo, artifact.revision.commit, path)
        if (known := self._open_located(key, start, end)) is not None:
            return known
        url = self._endpoint + wire.resolve_path(artifact.published_as or artifact.repo, artifact.revision.commit, path)
        response = self._net.open_range(url, start, end)
        if (error := self._check(f"{artifact.repo}/{path}")(response)) is not None:
            response.close()
            raise error
        if response.url != url:
            self._located[key] = response.url
        return response

    def _open_located(self, key: tuple[RepoId, str, RepoPath], start: int, end: int | None) -> Response | None:
        """Open a file where the hub redirected to before; None where it is not, or no longer, to be had there."""
        located = self._located.get(key)
        if located is None:
            return None
        try:
            response = self._net.open_range(located, start, end)
        except SourceUnavailable:  # a dead node: the hub may name another
            self._located.pop(key, None)
            return None
        if response.status in {200, 206}:
            return response
        response.close()
        self._located.pop(key, None)  # a signed address that has run out
        return None

    def close(self) -> None:
        """Hold nothing: the connections are the Net's."""

    def _ask(self, repo: RepoId, revision: str) -> _Told:
        """Ask which commit a revision is, under which name, for whom, and what else is told of it."""
        url = self._endpoint + wire.revision_path(repo, revision)
        answer, _ = self._net.fetch_json(url, check=self._check(f"{repo}@{revision}"))
        try:
            name = RepoId.parse(answer.get("id") or repo.name, kind=repo.kind)
            is_public = not (answer.get("private") or answer.get("gated"))
            return _Told(name, parse_commit(answer["sha"]), is_public, select_told(answer))
        except (KeyError, TypeError, AttributeError, BadReference) as error:
            raise SourceUnavailable(f"{redact(url)} answered no commit: is it a Hub's address?") from error

    def _check(self, what: str) -> Callable[[Response], HubcacheError | None]:
        def check(response: Response) -> HubcacheError | None:
            if response.status in {200, 206}:
                return None
            return wire.error_for(
                response.status, response.headers, what=what, origin=response.origin,
                authenticated=response.authenticated,
            )  # fmt: skip

        return check


def make(config: SourceConfig) -> HubSource:
    """Make the source of `hf:` references."""
    return HubSource(config.net, config.endpoints["huggingface"], config.memory, config.notify)
