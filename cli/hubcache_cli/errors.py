"""One table from exceptions to exit codes, and how an error looks on a terminal."""

from __future__ import annotations

import json
import sys

from hubcache import errors

UNEXPECTED = 1
INTERRUPTED = 130

EXIT_CODES: tuple[tuple[type[errors.HubcacheError], int, str], ...] = (
    (errors.UsageError, 2, "wrong usage: a reference, option or file that does not parse"),
    (errors.PartialError, 3, "some of several references failed"),
    (errors.NotFound, 4, "no such repo, revision or file"),
    (errors.SourceUnavailable, 5, "no answer: unreachable, or offline and not in the cache"),
    (errors.IntegrityError, 6, "bytes that are not what they should be"),
    (errors.CacheLocked, 7, "the cache is locked by another process"),
    (errors.DiskFull, 8, "the disk is full, or too small for what is to come"),
    (errors.AccessDenied, 9, "gated or private, or the token was refused"),
    (errors.CacheError, 10, "the cache folder cannot be read or written"),
)
"""Exception, exit code, meaning: the first row that fits decides."""


def exit_code(error: errors.HubcacheError) -> int:
    """Return the exit code of an error."""
    return next((code for kind, code, _ in EXIT_CODES if isinstance(error, kind)), UNEXPECTED)


def report(error: errors.HubcacheError, *, as_json: bool = False) -> int:
    """Print an error to stderr, as one line of JSON if asked; return its exit code."""
    code = exit_code(error)
    if as_json:
        told = {"error": type(error).__name__, "message": error.message, "hint": error.hint, "exit_code": code}
        print(json.dumps(told | {"issues": list(getattr(error, "issues", ()))}), file=sys.stderr)
        return code
    print(f"error: {error.message}", file=sys.stderr)
    for issue in getattr(error, "issues", ()):
        print(f"  {issue}", file=sys.stderr)
    if error.hint:
        print(f"hint: {error.hint}", file=sys.stderr)
    return code
