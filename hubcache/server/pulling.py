"""The cache in front of upstream: branches are asked for there, bytes come from there once, and stay."""

from __future__ import annotations

import os
import secrets
import threading
import time
from collections.abc import Callable, Mapping
from concurrent.futures import Future
from concurrent.futures import TimeoutError as Late
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TypeVar

from hubcache.cache.store import Cache
from hubcache.core.about import About
from hubcache.core.artifact import Artifact, RepoId, RepoPath, is_commit
from hubcache.core.cards import Held, about_of
from hubcache.core.digests import Digest
from hubcache.core.ports import RefTelling, Source
from hubcache.core.reference import Reference
from hubcache.errors import CacheError, IntegrityError, NotFound, SourceUnavailable
from hubcache.server.fills import Fills, Suspects
from hubcache.server.flow import Flow
from hubcache.server.hubs import CachedHub, Log
from hubcache.server.passing import Passage
from hubcache.server.pins import Pin, PinShelf
from hubcache.server.workers import turn_lent

_T = TypeVar("_T")

PATIENCE = 3.0
"""Seconds to wait for upstream's word on a branch where the cache has an older one."""
LONGEST = 45.0
"""Seconds to wait for it where there is nothing else to say."""
REST = 10.0
"""Seconds for which upstream is not asked again after it gave no answer, where the cache has one."""
MOST_ASKED = 256
"""Questions that upstream owes an answer to, from which on a further one is refused at once."""
MOST_BELIEVED = 20_000
MOST_PASSED = 1000


@dataclass(frozen=True, slots=True)
class _Believed:
    pin: Pin
    until: float


class PullThroughHub:
    """Answers from the cache what is known, and from upstream what is not, keeping it."""

    def __init__(self, cached: CachedHub, shelf: PinShelf, cache: Cache, fills: Fills, upstream: Upstream) -> None:
        self._cached = cached
        self._shelf = shelf
        self._cache = cache
        self._fills = fills
        self._upstream = upstream
        self._believed: dict[tuple[RepoId, str], _Believed] = {}

    def glance(self, repo: RepoId, revision: str, /) -> Pin | None:
        """Return a branch that was asked for a moment ago, or a commit that is known whole: it costs no request."""
        believed = self._believed.get((repo, revision))
        if believed is not None and time.monotonic() < believed.until:
            return believed.pin
        pin = self._shelf.glance(repo, revision) if is_commit(revision) else None
        return pin if pin is not None and pin.artifact.is_whole else None

    def pin(self, repo: RepoId, revision: str, /) -> Pin:
        """Ask upstream, and the cache where there is no answer (an answer "no" is an answer)."""
        older = self._read(repo, revision)
        if older is not None and older.artifact.is_whole and is_commit(revision):
            return older
        try:
            artifact = self._upstream.ask(repo, revision, has_older=older is not None)
        except (SourceUnavailable, IntegrityError):
            if older is None:
                raise
            pin = older.staled(self._upstream.out_since or time.time())
            return self._believe(repo, revision, pin, self._upstream.rest)
        return self._believe(repo, revision, self._keep(artifact), self._upstream.fresh(repo))

    def open(self, pin: Pin, path: RepoPath, /) -> Flow | Passage:
        """Open a file here, else let it come."""
        if (running := self._fills.running(pin.artifact, path)) is not None:
            return running
        flow = self._cached.find(pin, path)
        if flow is not None and flow.failure is not None and flow.path is not None:
            self._set_aside(pin, pin.artifact.entry(path).blob.digest, flow.path)
            flow = None
        if flow is not None:
            return flow
        blob = pin.artifact.entry(path).blob
        try:
            self._cache.require_space(blob.size)
        except CacheError:
            return Passage(self._upstream.source, pin.artifact, path, lambda: self._fills.suspects.note(blob.digest))
        return self._fills.open(pin.artifact, path)

    def is_suspect(self, pin: Pin, path: RepoPath, /) -> bool:
        """Tell whether wrong bytes of this file were sent within the last hour."""
        return pin.artifact.entry(path).blob.digest in self._fills.suspects

    def refs(self, repo: RepoId, /) -> Mapping[str, str]:
        """Return upstream's refs and those that are only here; the latter alone where it gives no answer."""
        here = self._cached.refs(repo)
        try:
            return {**here, **self._upstream.refs(repo, has_older=bool(here))}
        except (SourceUnavailable, IntegrityError):
            if not here:
                raise
            return here

    def _read(self, repo: RepoId, revision: str) -> Pin | None:
        with suppress(NotFound):
            return self._shelf.pin(repo, revision)
        return None

    def _keep(self, artifact: Artifact) -> Pin:
        """Write down what upstream told; where that cannot be done, it is still an answer."""
        name = (artifact.published_as or artifact.repo).name
        told = self._cache.folder(artifact.repo).provenance(artifact.revision.commit).get("about")
        with suppress(CacheError):
            self._cache.commit(artifact, Reference("hf", name, artifact.repo, artifact.revision.asked), paths=[])
            if artifact.told is not None and artifact.told != told:
                self._forget(artifact.repo)
            pin = self._shelf.pin(artifact.repo, artifact.revision.asked)
            if pin.commit == artifact.revision.commit:
                return replace(pin, artifact=artifact)
        return Pin(artifact, about_told(artifact))

    def _forget(self, repo: RepoId) -> None:
        """Believe nothing of a repo any more: another branch's news may be that it is gated now."""
        self._shelf.forget(repo)
        for key in [key for key in list(self._believed) if key[0] == repo]:
            self._believed.pop(key, None)

    def _believe(self, repo: RepoId, revision: str, pin: Pin, seconds: float) -> Pin:
        if len(self._believed) >= MOST_BELIEVED:
            self._believed.clear()
        self._believed[repo, revision] = _Believed(pin, time.monotonic() + seconds)
        return pin

    def _set_aside(self, pin: Pin, digest: Digest, file: Path) -> None:
        """Move a damaged blob, or a snapshot's real file, out of the way, so that a sound one can take its place."""
        folder = self._cache.folder(pin.repo).path / "quarantine"
        with suppress(OSError):
            folder.mkdir(exist_ok=True)
            os.replace(file, folder / f"{digest.hex}.{secrets.token_hex(4)}")
        self._fills.suspects.note(digest)


class PassThroughHub:
    """Upstream's answers, handed on: metadata is believed as long as a branch's, and no file is kept."""

    def __init__(self, upstream: Upstream) -> None:
        self._upstream = upstream
        self._suspects = Suspects()
        self._believed: dict[tuple[RepoId, str], _Believed] = {}

    def glance(self, repo: RepoId, revision: str, /) -> Pin | None:
        """Return what was asked for a moment ago."""
        believed = self._believed.get((repo, revision))
        return believed.pin if believed is not None and time.monotonic() < believed.until else None

    def pin(self, repo: RepoId, revision: str, /) -> Pin:
        """Ask upstream."""
        artifact = self._upstream.ask(repo, revision, has_older=False)
        pin = Pin(artifact, about_told(artifact))
        if len(self._believed) >= MOST_PASSED:
            self._believed.clear()
        self._believed[repo, revision] = _Believed(pin, time.monotonic() + self._upstream.fresh(repo))
        return pin

    def open(self, pin: Pin, path: RepoPath, /) -> Flow | Passage:
        """Let a file pass."""
        blob = pin.artifact.entry(path).blob
        return Passage(self._upstream.source, pin.artifact, path, lambda: self._suspects.note(blob.digest))

    def is_suspect(self, pin: Pin, path: RepoPath, /) -> bool:
        """Tell whether wrong bytes of this file passed within the last hour."""
        return pin.artifact.entry(path).blob.digest in self._suspects

    def refs(self, repo: RepoId, /) -> Mapping[str, str]:
        """Ask upstream."""
        return self._upstream.refs(repo, has_older=False)


class Upstream:
    """Upstream's metadata, asked with a limit to the patience, and left in peace for a while when it is out."""

    def __init__(self, source: Source, *, fresh: Callable[[RepoId], float], log: Log) -> None:
        self.source = source
        self.fresh = fresh
        self.out_since: float | None = None
        self._rests_until = 0.0
        self._reason = ""
        self._free = threading.BoundedSemaphore(MOST_ASKED)
        self._log = log

    @property
    def rest(self) -> float:
        """For how many seconds it is left in peace still; not above 0 where it is not."""
        return self._rests_until - time.monotonic()

    def ask(self, repo: RepoId, revision: str, *, has_older: bool) -> Artifact:
        """Pin a revision upstream.

        Raises:
            NotFound, AccessDenied: upstream's answer.
            SourceUnavailable: none came in time.
            IntegrityError: it makes no sense.
        """
        reference = Reference("hf", repo.name, repo, revision)
        return self._ask(lambda: self.source.resolve(reference), f"{repo}", has_older=has_older)

    def refs(self, repo: RepoId, *, has_older: bool) -> Mapping[str, str]:
        """Ask what a repo's refs mean; a source that cannot tell has none.

        Raises:
            NotFound, AccessDenied, SourceUnavailable, IntegrityError: as ask.
        """
        source = self.source
        if not isinstance(source, RefTelling):
            return {}
        return self._ask(lambda: source.refs(repo), f"the refs of {repo}", has_older=has_older)

    def _ask(self, question: Callable[[], _T], what: str, *, has_older: bool) -> _T:
        if has_older and self.rest > 0:
            raise SourceUnavailable(self._reason)
        try:
            with turn_lent():
                answer = self._within(question, PATIENCE if has_older else LONGEST)
        except (SourceUnavailable, IntegrityError) as error:
            self._rest(error)
            raise
        except Late as late:
            silence = SourceUnavailable(f"{what}: upstream gave no answer in time")
            self._rest(silence)
            raise silence from late
        if self.out_since is not None:
            self._log(f"upstream answers again, after {time.time() - self.out_since:.0f} s")
        self.out_since, self._rests_until = None, 0.0
        return answer

    def _within(self, job: Callable[[], _T], seconds: float) -> _T:
        """Do a job in a thread of its own, which goes on where it takes longer."""
        if not self._free.acquire(blocking=False):
            raise SourceUnavailable(f"upstream owes answers to {MOST_ASKED} questions already")
        future: Future[_T] = Future()

        def run() -> None:
            try:
                future.set_result(job())
            except BaseException as error:  # noqa: BLE001  # raised by who waits
                future.set_exception(error)
            finally:
                self._free.release()

        threading.Thread(target=run, daemon=True).start()
        return future.result(timeout=seconds)

    def _rest(self, error: SourceUnavailable | IntegrityError) -> None:
        if self.out_since is None:
            self.out_since = time.time()
            self._log(f"upstream is out: {error.message}")
        self._rests_until, self._reason = time.monotonic() + REST, error.message


def about_told(artifact: Artifact) -> About:
    """Make a record of what upstream told, and nothing else."""
    return about_of(artifact.repo.kind, "hf", artifact.told or {}, {}, Held(paths=artifact.manifest.files))
