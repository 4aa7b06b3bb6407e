"""Several mirrors of one hub as one source: all carry the same content, so no answer moves on, and an answer stops.

Which mirror serves a range is decided when the range is opened: the least busy of those in health. A
range that breaks off is opened again by whoever reads it, at the offset reached, and meets the next mirror.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Self

from hubcache.core.artifact import Artifact, RepoId, RepoPath
from hubcache.core.ports import Content, Source
from hubcache.core.reference import Reference
from hubcache.errors import AccessDenied, HubcacheError, NotFound, RateLimited, SourceUnavailable
from hubcache.mirrors import health
from hubcache.mirrors.book import HealthBook
from hubcache.mirrors.config import Mirror
from hubcache.mirrors.rate import RateLimit

LONGEST_TURN = 120.0
"""Seconds to wait for a mirror's connection to come free; the transfers that hold one have shorter time-outs."""


@dataclass(slots=True)
class Member:
    """One mirror, the source that asks it, and how many of its connections are in use."""

    mirror: Mirror
    source: Source
    rate: RateLimit | None = None
    active: int = 0


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

    @property
    def connections(self) -> int:
        """How many ranges may be open at once, over all mirrors."""
        return sum(member.mirror.connections for member in self._members if member.mirror.url not in self._dropped)

    def resolve(self, reference: Reference, /) -> Artifact:
        """Pin a reference at the first mirror that is trusted for metadata and answers.

        Raises:
            NotFound, AccessDenied: the first answer, which is every mirror's.
            SourceUnavailable: none answered; the message has each one's reason.
        """
        reasons = []
        asked = [member for member in self._members if "metadata" in member.mirror.trust]
        for member in self._ordered(self._permitted(asked, reference.repo)):
            began = time.monotonic()
            try:
                artifact = member.source.resolve(reference)
            except SourceUnavailable as error:
                self._record_failure(member, error)
                reasons.append(error)
            else:
                latency = time.monotonic() - began
                self._book.record(member.mirror.url, lambda facts, _: health.answered(facts, latency))  # noqa: B023
                return replace(artifact, origin=member.mirror.url)
        raise _combined(reasons, f"{reference.address}: no mirror that is trusted for metadata may be asked for it")

    def open(self, artifact: Artifact, path: RepoPath, start: int = 0, end: int | None = None) -> Content:
        """Open a range at the least busy mirror in health, and at the next one if that gives no answer.

        Raises:
            NotFound, AccessDenied: the answer of the mirror whose listing it is.
            SourceUnavailable: no mirror sent it; the message has each one's reason.
        """
        reasons: list[SourceUnavailable] = []
        tried: set[str] = set()
        while (member := self._take(artifact, tried)) is not None:
            tried.add(member.mirror.url)
            try:
                content = member.source.open(artifact, path, start, end)
            except SourceUnavailable as error:
                self._release(member)
                self._record_failure(member, error)
                reasons.append(error)
            except (NotFound, AccessDenied):
                self._release(member)
                if member.mirror.url == artifact.origin:
                    raise
                # Not its listing: all this says is that this mirror does not carry the repo.
                self._lacking.add((member.mirror.url, artifact.repo))
            except BaseException:
                self._release(member)
                raise
            else:
                return _MirrorContent(content, member, self)
        raise _combined(reasons, f"{artifact.repo}/{path}: no mirror is left to ask")

    def open_at(self, origin: str, artifact: Artifact, path: RepoPath, start: int, end: int | None) -> Content:
        """Open a range at this mirror and no other."""
        member = next(member for member in self._members if member.mirror.url == origin)
        with self._turn:
            member.active += 1
        try:
            return _MirrorContent(member.source.open(artifact, path, start, end), member, self)
        except BaseException:
            self._release(member)
            raise

    def drop(self, origins: Collection[str]) -> bool:
        """Ask these mirrors no more in this run, because they sent wrong bytes; tell whether others remain."""
        for url in origins:
            self._notify(f"{url} sent wrong bytes and is asked no more in this run")
            self._book.record(url, lambda facts, now: health.failed(facts, "sent wrong bytes", now=now))
        self._dropped |= set(origins)
        return any(member.mirror.url not in self._dropped for member in self._members)

    def close(self) -> None:
        """Close the mirrors' sources and remember how they did."""
        for member in self._members:
            member.source.close()
        self._book.save()

    def finished(self, member: Member, size: int, seconds: float, failure: SourceUnavailable | None) -> None:
        """Take a connection back, with what it brought and what ended it early."""
        self._release(member)
        if failure is not None:
            self._record_failure(member, failure)
        else:
            self._book.record(member.mirror.url, lambda facts, _: health.served(facts, size, seconds))

    def _take(self, artifact: Artifact, tried: set[str]) -> Member | None:
        """Choose a mirror that was not tried and take one of its connections, waiting for one if all are in use."""
        with self._turn:
            deadline = time.monotonic() + LONGEST_TURN
            while True:
                usable = [
                    member
                    for member in self._permitted(self._members, artifact.repo, artifact.is_public, artifact.origin)
                    if member.mirror.url not in tried and (member.mirror.url, artifact.repo) not in self._lacking
                ]
                if not usable:
                    return None
                free = [member for member in self._ordered(usable) if member.active < member.mirror.connections]
                if free or time.monotonic() > deadline:
                    member = self._least_busy(free or usable)
                    member.active += 1
                    return member
                self._turn.wait(1.0)

    def _least_busy(self, ordered: list[Member]) -> Member:
        if len(ordered) == 1:
            return ordered[0]
        resting = {choice.name for choice in self._book.order([m.mirror.url for m in ordered]) if choice.is_resting}
        awake = [member for member in ordered if member.mirror.url not in resting]
        chosen = [member for member in awake if not member.mirror.is_fallback]
        return min(chosen or awake or ordered[:1], key=lambda member: member.active / member.mirror.connections)

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
        public is asked of the mirror that told of it, and of those that have a token of their own.
        """
        claimants = [member for member in self._members if _claims(member.mirror, repo)]
        return [
            member
            for member in members
            if member.mirror.url not in self._dropped
            and (member in claimants if claimants else not member.mirror.namespaces)
            and (is_public or member.mirror.url == origin or member.mirror.token)
        ]

    def _record_failure(self, member: Member, error: SourceUnavailable) -> None:
        after = error.retry_after if isinstance(error, RateLimited) else None
        change = partial(_failure, reason=error.message[:200], retry_after=after)
        self._book.record(member.mirror.url, change)
        with self._turn:
            is_news = len(self._members) > 1 and member.mirror.url not in self._told
            self._told.add(member.mirror.url)
        if is_news:
            self._notify(f"{member.mirror.name} fails, others stand in: {error.message}")


class _MirrorContent:
    """A mirror's content that reports how it went."""

    def __init__(self, content: Content, member: Member, failover: Failover) -> None:
        self._content = content
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
        self._failover.finished(self._member, self._size, time.monotonic() - self._began, self._failure)

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


def _combined(reasons: Sequence[HubcacheError], otherwise: str) -> SourceUnavailable:
    if len(reasons) == 1 and isinstance(reasons[0], SourceUnavailable):
        return reasons[0]
    return SourceUnavailable("; ".join(dict.fromkeys(error.message for error in reasons)) or otherwise)
