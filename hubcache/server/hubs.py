"""What the routes ask, as a graph: the cache alone, the cache filled from upstream, upstream alone, and who gets which.

No hub knows of HTTP, and none asks whether this machine is offline: it is another graph then.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Protocol

from hubcache.cache.index import FileState
from hubcache.cache.store import Cache
from hubcache.core.artifact import RepoId, RepoPath
from hubcache.core.digests import Blob
from hubcache.core.layout import repo_folder
from hubcache.core.rules import Rule, Rules
from hubcache.errors import AccessDenied, CacheError, IntegrityError, NotFound, OfflineError, RepoNotFound
from hubcache.server.checking import Checker
from hubcache.server.flow import Flow
from hubcache.server.passing import Passage
from hubcache.server.pins import Pin, PinShelf
from hubcache.server.uses import Uses

SETTLED = 30.0
"""Seconds for which it is believed whether a repo in the cache is the Hub's."""


class Hub(Protocol):
    """Answers of one kind. `glance` and `open` never wait; `pin`, `refs` and `repos` may, so a thread calls them."""

    def glance(self, repo: RepoId, revision: str, /) -> Pin | None:
        """Return what is known without waiting; None where `pin` has to be asked."""
        ...

    def pin(self, repo: RepoId, revision: str, /) -> Pin:
        """Find a revision.

        Raises:
            NotFound, AccessDenied, SourceUnavailable: the three kinds of "no".
        """
        ...

    def open(self, pin: Pin, path: RepoPath, /) -> Flow | Passage:
        """Open a listed file; called on the event loop.

        Raises:
            SourceUnavailable: its bytes cannot be had.
        """
        ...

    def is_suspect(self, pin: Pin, path: RepoPath, /) -> bool:
        """Tell whether a client may have got wrong bytes of the file, and has to get all of it again."""
        ...

    def refs(self, repo: RepoId, /) -> Mapping[str, str]:
        """Return what each ref means.

        Raises:
            NotFound, AccessDenied, SourceUnavailable: as pin.
        """
        ...


class CachedHub:
    """The cache alone: what is not in it cannot be had."""

    def __init__(self, cache: Cache, shelf: PinShelf, checker: Checker) -> None:
        self._cache = cache
        self._shelf = shelf
        self._checker = checker

    def glance(self, repo: RepoId, revision: str, /) -> Pin | None:
        """Return a pin that is remembered and still true."""
        return self._shelf.glance(repo, revision)

    def pin(self, repo: RepoId, revision: str, /) -> Pin:
        """Read a revision from the disk."""
        return self._shelf.pin(repo, revision)

    def open(self, pin: Pin, path: RepoPath, /) -> Flow:
        """Open a file that is here, and not known to be damaged."""
        flow = self.find(pin, path)
        if flow is None:
            raise OfflineError(
                f"{pin.repo}/{path} is listed at {pin.commit[:12]}, and its bytes are not in this cache",
                hint=f"where there is a network: hubcache pull {pin.repo}",
            )
        if flow.failure is not None:
            raise flow.failure
        return flow

    def is_suspect(self, pin: Pin, path: RepoPath, /) -> bool:
        """Nothing that was sent from here is taken back."""
        return False

    def refs(self, repo: RepoId, /) -> Mapping[str, str]:
        """Return the refs that are here."""
        return self._shelf.refs(repo)

    def find(self, pin: Pin, path: RepoPath) -> Flow | None:
        """Open a file if it stands here with its size."""
        blob = pin.artifact.entry(path).blob
        top = f"{self._cache.root}/{repo_folder(pin.repo)}"
        for file in (f"{top}/blobs/{blob.digest.hex}", f"{top}/snapshots/{pin.commit}/{path}"):
            if (state := _state_of(file, blob)) is not None:
                return self._checker.open(Path(file), blob, state)
        return None


class RuledHub:
    """Chooses by the rules which hub answers for a repo, and whether its files may be had here at all."""

    def __init__(self, rules: Rules, hubs: Mapping[str, Hub], shelf: PinShelf, uses: Uses) -> None:
        """Take a hub for each of store, pass and never; offline, all of them are the cache's."""
        self._rules = rules
        self._hubs = hubs
        self._shelf = shelf
        self._uses = uses
        self._local: dict[RepoId, tuple[float, bool]] = {}

    def glance(self, repo: RepoId, revision: str, /) -> Pin | None:
        """Return what is known without waiting, if it may be told."""
        hub = self._hub(repo)
        pin = hub.glance(repo, revision) if hub is not None else None
        return None if pin is None else self._visible(pin)

    def pin(self, repo: RepoId, revision: str, /) -> Pin:
        """Find a revision, if it may be told."""
        hub = self._hub(repo, wait=True)
        assert hub is not None
        # What `glance` could not say was, perhaps, only whose the repo is: upstream need not be asked again for that.
        return self._visible(hub.glance(repo, revision) or hub.pin(repo, revision))

    def open(self, pin: Pin, path: RepoPath, /) -> Flow | Passage:
        """Open a file; `admit` has been asked before."""
        self._uses.note(pin.repo)
        return self._of(pin).open(pin, path)

    def is_suspect(self, pin: Pin, path: RepoPath, /) -> bool:
        """Ask the hub that sent it."""
        return self._of(pin).is_suspect(pin, path)

    def refs(self, repo: RepoId, /) -> Mapping[str, str]:
        """Return what each ref means, if it may be told."""
        self.pin(repo, self._shelf.first_revision(repo) or "main")
        hub = self._hub(repo, wait=True)
        assert hub is not None
        return hub.refs(repo)

    def admit(self, pin: Pin) -> None:
        """Check that the repo's files may be had by whoever asks.

        Raises:
            AccessDenied: it is gated, and no rule grants it.
        """
        if pin.about.gated and not self._rules.of(pin.repo).grant:
            raise AccessDenied(
                f"{pin.repo} is gated, and this mirror was not told to hand it out",
                hint="its operator can grant it in mirrors.yaml: serve: [{names: …, grant: true}]",
            )

    def listed(self) -> Sequence[Pin]:
        """Pin every repo of the cache that may be told of, at the revision that stands for it."""
        found = []
        for repo in self._shelf.repos():
            rule = self._rules.of(repo)
            if rule.access == "deny":
                continue
            with suppress(NotFound, IntegrityError, CacheError):  # one repo in disorder must not hide the others
                revision = self._shelf.first_revision(repo)
                pin = self._shelf.pin(repo, revision) if revision is not None else None
                if pin is not None and (not pin.about.private or rule.grant):
                    found.append(pin)
        return found

    def _of(self, pin: Pin) -> Hub:
        hub = self._hub(pin.repo, wait=True)
        assert hub is not None
        return hub

    def _hub(self, repo: RepoId, *, wait: bool = False) -> Hub | None:
        """Choose; None where the disk has to be read for that and `wait` is False."""
        rule: Rule = self._rules.of(repo)
        if rule.access == "deny":
            raise RepoNotFound(f"{repo} is not served here")
        if rule.upstream == "never":
            return self._hubs["never"]
        until, is_local = self._local.get(repo, (0.0, False))
        if time.monotonic() > until:
            if not wait:
                return None
            is_local = self._ask_whose(repo)
        return self._hubs["never" if is_local else rule.upstream]

    def _ask_whose(self, repo: RepoId) -> bool:
        """Find out whether a repo was made here or came from elsewhere: its name is nobody else's business then."""
        try:
            revision = self._shelf.first_revision(repo)
            pin = self._shelf.pin(repo, revision) if revision is not None else None
        except NotFound:
            pin = None
        is_local = pin is not None and pin.about.is_local
        if pin is not None:
            self._local[repo] = (time.monotonic() + SETTLED, is_local)
        return is_local

    def _visible(self, pin: Pin) -> Pin:
        if pin.about.private and not self._rules.of(pin.repo).grant:
            raise RepoNotFound(f"{pin.repo} is not served here")
        return pin


def _state_of(file: str, blob: Blob) -> FileState | None:
    try:
        state = FileState.of(os.stat(file))
    except OSError:
        return None
    return state if state.size == blob.size else None


Log = Callable[[str], None]
"""Takes one line for the operator."""
