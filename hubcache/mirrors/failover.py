"""Several mirrors of one hub as one source: all carry the same content, so no answer moves on, and an answer stops.

Which mirror serves a range is decided when the range is opened: the least busy of those in health. A
range that breaks off is opened again by whoever reads it, at the offset reached, and meets the next mirror.
"""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Callable, Collection, Mapping, Sequence
from copy import copy
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Self, TypeVar

from hubcache.core.artifact import Artifact, RepoId, RepoPath
from hubcache.core.ports import Content, RefTelling, Source
from hubcache.core.reference import Reference
from hubcache.errors import (
    AccessDenied,
    HubcacheError,
    IntegrityError,
    NotFound,
    RateLimited,
    RedirectRefused,
    SourceUnavailable,
)
from hubcache.mirrors import health
from hubcache.mirrors.book import HealthBook
from hubcache.mirrors.config import Mirror
from hubcache.mirrors.rate import RateLimit
from hubcache.net import ATTEMPTS, retry

_T = TypeVar("_T")

MOST = 16
"""Connections to one mirror for one file; its own limit holds for all files together."""
LONGEST_TURN = 120.0
"""Seconds to wait for a mirror's connection to come free; the transfers that hold one have shorter time-outs."""


@dataclass(slots=True)
class Member:
    """One mirror, the source that asks it, and how many of its connections are in use."""

    mirror: Mirror
    source: Source
    rate: RateLimit | None = None
    active: int = 0
    has_token: bool = False


class Failover:
    """Asks the mirrors of one hub in the order that their health gives."""

    def __init__(self, members: Sequence[Member], book: HealthBook, *, notify: Callable[[str], None]) -> None:
        self._members = list(members)
        self._book = book
        self._notify = notify
        self._turn = threading.Condition()
        self._dropped: set[str] = set()
        self._told: set[str] = set()
        self._lacking: set[tuple[str, RepoId]] = set()
        self._broken: Counter[tuple[str, RepoId, RepoPath]] = Counter()
        self._patience: dict[str, float] = {}
        self._trusted = [member for member in self._members if "metadata" in member.mirror.trust]

    @property
    def connections(self) -> int:
        """How many connections one file may use, over all mirrors that share the work."""
        sharing = [member.mirror for member in self._members if not member.mirror.is_fallback]
        return sum(min(MOST, mirror.connections) for mirror in sharing if mirror.url not in self._dropped) or MOST

    def resolve(self, reference: Reference, /) -> Artifact:
        """Pin a reference at the first mirror that is trusted for metadata and answers.

        Raises:
            NotFound, AccessDenied: the first answer, which is every mirror's.
            SourceUnavailable: none answered; the message has each one's reason.
        """
        # Several are asked in turn, again and again; a single one's source has that patience of its own.
        attempts = ATTEMPTS if len(self._trusted) > 1 else 1
        artifact, member = retry(
            lambda: self._ask(reference.repo, lambda source: source.resolve(reference)), attempts=attempts
        )
        return replace(artifact, origin=member.mirror.url)

    def refs(self, repo: RepoId, /) -> Mapping[str, str]:
        """Ask the first mirror that is trusted for metadata and answers what a repo's refs mean."""
        return self._ask(repo, lambda source: source.refs(repo) if isinstance(source, RefTelling) else {})[0]

    def _ask(self, repo: RepoId, question: Callable[[Source], _T]) -> tuple[_T, Member]:
        """Return the first answer, and who gave it."""
        reasons: list[SourceUnavailable | IntegrityError] = []
        for member in self._ordered(self._ready(self._permitted(self._trusted, repo))):
            began = time.monotonic()
            try:
                answer = question(member.source)
            except (SourceUnavailable, IntegrityError) as error:
                self._record_failure(member, error)
                reasons.append(error)
            else:
                latency = time.monotonic() - began
                self._book.record(member.mirror.url, lambda facts, _: health.answered(facts, latency))  # noqa: B023
                return answer, member
        raise _combined(reasons, f"{repo}: no mirror that is trusted for metadata may be asked for it")

    def open(self, artifact: Artifact, path: RepoPath, start: int = 0, end: int | None = None) -> Content:
        """Open a range at the least busy mirror in health, and at the next one if that gives no answer.

        Raises:
            NotFound, AccessDenied: the answer of the mirror whose listing it is.
            SourceUnavailable: no mirror sent it; the message has each one's reason.
            IntegrityError: a mirror's answer is wrong in itself, or all that may be asked have sent wrong bytes.
        """
        reasons: list[SourceUnavailable | IntegrityError] = []
        tried: set[str] = set()
        while (member := self._take(artifact, path, tried)) is not None:
            tried.add(member.mirror.url)
            try:
                return self._open(member, artifact, path, start, end)
            except SourceUnavailable as error:
                self._record_failure(member, error)
                reasons.append(error)
            except (NotFound, AccessDenied):
                if member.mirror.url == artifact.origin:
                    raise
                # Not its listing: all this says is that this mirror does not carry the repo.
                self._lacking.add((member.mirror.url, artifact.repo))
        if self._dropped and not reasons:
            raise IntegrityError(f"no mirror is left to ask; {' and '.join(sorted(self._dropped))} sent wrong bytes")
        raise _combined(reasons, f"{artifact.repo}/{path}: no mirror is left to ask")

    def open_at(self, origin: str, artifact: Artifact, path: RepoPath, start: int, end: int | None) -> Content:
        """Open a range at this mirror and no other."""
        others = {member.mirror.url for member in self._members} - {origin}
        if (member := self._take(artifact, path, others)) is None:
            raise SourceUnavailable(f"{artifact.repo}/{path}: {origin} may not be asked any more")
        return self._open(member, artifact, path, start, end)

    def _open(self, member: Member, artifact: Artifact, path: RepoPath, start: int, end: int | None) -> _MirrorContent:
        """Open a range over a connection that was taken, or give it back."""
        try:
            content = member.source.open(artifact, path, start, end)
        except IntegrityError as error:
            self._release(member)
            error.origins = error.origins or (member.mirror.url,)
            raise
        except BaseException:
            self._release(member)
            raise
        return _MirrorContent(content, member, self, (member.mirror.url, artifact.repo, path))

    def for_one_run(self) -> Failover:
        """Share the mirrors, their connections and their health with a run in which drops say nothing of later ones."""
        run = copy(self)
        run._dropped = set()
        return run

    def drop(self, origins: Collection[str]) -> bool:
        """Ask these mirrors no more in this run, because they sent wrong bytes; tell whether others remain."""
        for url in sorted(set(origins) - self._dropped):
            self._notify(f"{url} sent wrong bytes and is asked no more in this run")
            self._book.record(url, lambda facts, now: health.failed(facts, "sent wrong bytes", now=now))
        self._dropped |= set(origins)
        return any(member.mirror.url not in self._dropped for member in self._members)

    def close(self) -> None:
        """Close the mirrors' sources and remember how they did."""
        for member in self._members:
            member.source.close()
        self._book.save()

    def finished(self, member: Member, size: int, seconds: float) -> None:
        """Take a connection back, with what it brought."""
        self._release(member)
        self._book.record(member.mirror.url, lambda facts, _: health.served(facts, size, seconds))

    def broke_off(self, member: Member, file: tuple[str, RepoId, RepoPath], failure: SourceUnavailable) -> None:
        """Take a connection back that ended early; others come before it for this file from now on."""
        self._broken[file] += 1
        self._release(member)
        self._record_failure(member, failure)

    def _take(self, artifact: Artifact, path: RepoPath, tried: set[str]) -> Member | None:
        """Choose a mirror that was not tried and take one of its connections, waiting for one if all are in use."""
        with self._turn:
            deadline = time.monotonic() + LONGEST_TURN
            while True:
                permitted = self._permitted(self._members, artifact.repo, artifact.is_public, artifact.origin)
                usable = [
                    member
                    for member in self._ready([each for each in permitted if "bytes" in each.mirror.trust])
                    if member.mirror.url not in tried and (member.mirror.url, artifact.repo) not in self._lacking
                ]
                if not usable:
                    return None
                wanted = self._preferred(usable)
                free = [member for member in wanted if member.active < member.mirror.connections]
                if free or time.monotonic() > deadline:
                    member = min(free or wanted, key=lambda member: self._reluctance(member, artifact, path))
                    member.active += 1
                    return member
                self._turn.wait(1.0)

    def _preferred(self, usable: list[Member]) -> list[Member]:
        """Keep those in health, the chosen ones before those that only stand in; the next to wake, if all rest."""
        by_url = {member.mirror.url: member for member in usable}
        order = self._book.order(list(by_url))
        awake = [by_url[choice.name] for choice in order if not choice.is_resting]
        chosen = [member for member in awake if not member.mirror.is_fallback]
        return chosen or awake or [by_url[order[0].name]]

    def _reluctance(self, member: Member, artifact: Artifact, path: RepoPath) -> float:
        """Say how late a mirror's turn is: it is busy, or broke off at this very file before."""
        broken = self._broken[member.mirror.url, artifact.repo, path]
        return member.active / member.mirror.connections + broken / 2

    def _ready(self, members: list[Member]) -> list[Member]:
        """Leave out those that asked for patience in this run, unless all did."""
        now = time.monotonic()
        return [member for member in members if self._patience.get(member.mirror.url, now) <= now] or members

    def _release(self, member: Member) -> None:
        with self._turn:
            member.active -= 1
            self._turn.notify_all()

    def _ordered(self, members: list[Member]) -> list[Member]:
        if len(members) < 2:
            return members
        by_url = {member.mirror.url: member for member in members}
        return [by_url[choice.name] for choice in self._book.order(list(by_url))]

    def _permitted(self, members: list[Member], repo: RepoId, is_public: bool = True, origin: str = "") -> list[Member]:
        """Keep the mirrors that may hear of this name.

        A name in a namespace that some mirror claims is asked of the claimants only. A repo that is not
        public is asked of the mirror that told of it, and of those for which there is a token.
        """
        claimants = [member for member in self._members if _claims(member.mirror, repo)]
        return [
            member
            for member in members
            if member.mirror.url not in self._dropped
            and (member in claimants if claimants else not member.mirror.namespaces)
            and (is_public or member.mirror.url == origin or member.has_token)
        ]

    def _record_failure(self, member: Member, error: SourceUnavailable | IntegrityError) -> None:
        after = error.retry_after if isinstance(error, RateLimited) else None
        if after is not None:
            self._patience[member.mirror.url] = time.monotonic() + after
        change = partial(_failure, reason=error.message[:200], retry_after=after)
        self._book.record(member.mirror.url, change)
        with self._turn:
            is_news = len(self._members) > 1 and member.mirror.url not in self._told
            self._told.add(member.mirror.url)
        if is_news:
            self._notify(f"{member.mirror.name} fails, others stand in: {error.message}")


class _MirrorContent:
    """A mirror's content that reports how it went."""

    def __init__(
        self, content: Content, member: Member, failover: Failover, file: tuple[str, RepoId, RepoPath]
    ) -> None:
        self._content = content
        self._file = file
        self._member = member
        self._failover = failover
        self._began = time.monotonic()
        self._size = 0
        self._failure: SourceUnavailable | None = None
        self._closed = False
        self.start, self.end, self.total = content.start, content.end, content.total
        self.origin = member.mirror.url
        self.file: Path | None = None

    def read(self, limit: int, /) -> bytes:
        """Return up to `limit` bytes, no faster than the mirror's limit allows."""
        try:
            chunk = self._content.read(limit)
        except SourceUnavailable as error:
            self._failure = error
            raise
        self._size += len(chunk)
        if self._member.rate is not None:
            self._member.rate.spend(len(chunk))
        return chunk

    def close(self) -> None:
        """Close the content, and say how it went, once."""
        if self._closed:
            return
        self._closed = True
        self._content.close()
        if self._failure is not None:
            self._failover.broke_off(self._member, self._file, self._failure)
        else:
            self._failover.finished(self._member, self._size, time.monotonic() - self._began)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def _failure(facts: health.Health, now: float, *, reason: str, retry_after: float | None) -> health.Health:
    return health.failed(facts, reason, now=now, retry_after=retry_after)


def _claims(mirror: Mirror, repo: RepoId) -> bool:
    namespace = repo.name.partition("/")[0] if "/" in repo.name else ""
    return any(fnmatchcase(namespace, pattern) or fnmatchcase(repo.name, pattern) for pattern in mirror.namespaces)


def _combined(reasons: Sequence[HubcacheError], otherwise: str) -> HubcacheError:
    if len(reasons) == 1:
        return reasons[0]
    message = "; ".join(dict.fromkeys(error.message for error in reasons)) or otherwise
    if reasons and all(isinstance(error, RedirectRefused) for error in reasons):
        return RedirectRefused(message)
    limits = [error.retry_after for error in reasons if isinstance(error, RateLimited)]
    if limits and len(limits) == len(reasons):
        return RateLimited(message, retry_after=min((each for each in limits if each is not None), default=None))
    return SourceUnavailable(message)
