"""Every exception hubcache raises, drawn as one tree; not a place for translation tables.

HubcacheError
  UsageError
    BadReference        a reference, name, path or digest that does not parse
    BadConfig           a settings or mirrors file that does not parse
  NotFound              an answer: it does not exist (stop asking)
    RepoNotFound
    RevisionNotFound
    EntryNotFound
  AccessDenied          an answer about you: gated, private, or the token was refused
  SourceUnavailable     no answer: the next mirror may have one, else the cache
    RedirectRefused
    OfflineError
    RateLimited
  IntegrityError        a wrong answer: the bytes are dropped and their origin is named
    UnsafeArchive
  CacheError
    CacheLocked
    DiskFull
  PartialError          some of several references failed
"""

from __future__ import annotations

from collections.abc import Sequence


class HubcacheError(Exception):
    """The root: a message that says what, where and why, and a hint, the next command to type."""

    def __init__(self, message: str, *, hint: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint


class UsageError(HubcacheError):
    """The question itself is wrong."""


class BadReference(UsageError):
    """A reference, name, path or digest does not parse."""


class BadConfig(UsageError):
    """A settings or mirrors file does not parse."""


class NotFound(HubcacheError):
    """An answer: it does not exist there."""


class RepoNotFound(NotFound):
    """No such repo, or none this token may see."""


class RevisionNotFound(NotFound):
    """No such branch, tag or commit."""


class EntryNotFound(NotFound):
    """No such file in that commit."""


class AccessDenied(HubcacheError):
    """An answer about the asker: the repo is gated or private, or the token was refused."""


class SourceUnavailable(HubcacheError):
    """No answer: unreachable, timed out, broken off, or 5xx."""


class RedirectRefused(SourceUnavailable):
    """Redirects in a loop, or from https to plain http: asking the same server again changes nothing."""


class OfflineError(SourceUnavailable):
    """Not in the cache, and the network is off."""


class RateLimited(SourceUnavailable):
    """The source asks for patience; `retry_after` is in seconds, None where it names no time."""

    def __init__(self, message: str, *, hint: str = "", retry_after: float | None = None) -> None:
        super().__init__(message, hint=hint)
        self.retry_after = retry_after


class IntegrityError(HubcacheError):
    """Bytes that are not what their digest or size says; `issues` lists each of them, `origins` who sent them."""

    def __init__(
        self, message: str, *, hint: str = "", issues: Sequence[str] = (), origins: Sequence[str] = ()
    ) -> None:
        super().__init__(message, hint=hint)
        self.issues = tuple(issues)
        self.origins = tuple(origins)


class UnsafeArchive(IntegrityError):
    """An archive member that may not be unpacked, by name."""


class CacheError(HubcacheError):
    """The cache folder cannot be used as asked."""


class CacheLocked(CacheError):
    """Another process holds the lock and shows no progress."""


class DiskFull(CacheError):
    """The disk cannot hold it; `needed` and `free` are bytes."""

    def __init__(self, message: str, *, needed: int, free: int, hint: str = "") -> None:
        super().__init__(message, hint=hint)
        self.needed = needed
        self.free = free


class PartialError(HubcacheError):
    """Some of several references failed; `failures` pairs each with its error."""

    def __init__(self, message: str, *, failures: Sequence[tuple[str, HubcacheError]]) -> None:
        super().__init__(message)
        self.failures = tuple(failures)
