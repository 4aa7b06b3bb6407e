"""What a request to the Hub's API asks for, read from its method and target; no answer is made here.

Source: the paths that huggingface_hub, its JavaScript siblings and llama.cpp ask, as measured.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

from hubcache.core.artifact import Kind, RepoId, parse_path, parse_revision
from hubcache.core.hubnames import TYPES
from hubcache.core.urls import decode
from hubcache.errors import BadReference, NotFound, RepoNotFound, UsageError

Action = Literal[
    "start",
    "health",
    "whoami",
    "harnesses",
    "list",
    "info",
    "tree",
    "paths-info",
    "refs",
    "commits",
    "auth-check",
    "file",
]

_FIXED: Mapping[tuple[str, ...], Action] = {
    (): "start",
    ("healthz",): "health",
    ("api", "whoami-v2"): "whoami",
    ("api", "agent-harnesses"): "harnesses",
}
_API_VERBS: Mapping[str, Action] = {
    "revision": "info",
    "tree": "tree",
    "paths-info": "paths-info",
    "refs": "refs",
    "commits": "commits",
    "auth-check": "auth-check",
}
_FILE_VERBS: Mapping[str, Action] = {"resolve": "file", "raw": "file"}

LONGEST_NAME = 240
LONGEST_PATH = 3072
"""Bytes of one part of a revision, and of a whole path, that a disk takes with what a cache puts around them."""

_ABSOLUTE = re.compile(r"(?i:https?)://([^/?]*)")
# No client sends these as they are; half a surrogate pair is how a server reads a byte that is not UTF-8.
_UNFIT = re.compile(r"[\x00-\x20\x7f#\ud800-\udfff]")
_BAD_ESCAPE = re.compile(r"%(?![0-9A-Fa-f]{2})")
_DOTS = re.compile(r"/\.\.?(?:/|\Z)")
_BRANCH_OR_TAG = re.compile(r"refs/(?:heads|tags)/(.+)", re.DOTALL)


class WrongMethod(UsageError):
    """The path is a route, the method is not one of its own; `allowed` are."""

    def __init__(self, message: str, *, allowed: tuple[str, ...]) -> None:
        super().__init__(message)
        self.allowed = allowed


@dataclass(frozen=True, slots=True)
class Route:
    """One request: what to do, with which repo, and `rest`, the decoded segments of the revision and the path.

    A segment of `rest` that holds a slash had it percent-encoded. `query` has every value of a name, in order;
    `expand[]=a` is `expand=a`. `raw` says that /raw/ was asked, where an LFS file is its pointer.
    """

    action: Action
    repo: RepoId | None = None
    kind: Kind | None = None
    rest: tuple[str, ...] = ()
    query: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    raw: bool = False


def parse_route(method: str, target: str) -> Route:
    """Read a request line's method and target, the latter as it was sent.

    Raises:
        BadReference: hostile or malformed text, or a name that is none of a repo.
        NotFound: no such route.
        WrongMethod: a route, but not by this method.
    """
    path, _, query = origin_form(target).partition("?")
    route = _find(_segments(path), _parse_query(query))
    allowed = ("GET", "HEAD", "POST") if route.action == "paths-info" else ("GET", "HEAD")
    if method not in allowed:
        raise WrongMethod(f"{method[:20]!r} is no method of {path[:200]}", allowed=allowed)
    return route


def authority(target: str) -> str | None:
    """Return the host that a request target names by itself; None where the Host header alone does."""
    absolute = _ABSOLUTE.match(target)
    return absolute[1] if absolute else None


def split_revision(rest: Sequence[str], known: Collection[str]) -> tuple[str, str]:
    """Split a route's rest into the revision and the path; the path is "" where none follows.

    `known` are the repo's refs as huggingface_hub writes them ("main", "feature/x", "refs/pr/1"): they tell where a
    branch with a raw slash ends.

    Raises:
        BadReference: no revision, or text that is none, or a path that may not reach the disk.
    """
    length = _revision_length(tuple(rest), known)
    path = "/".join(rest[length:])
    if len(path.encode("utf-8", "replace")) > LONGEST_PATH:
        raise BadReference(f"a path over {LONGEST_PATH} bytes: {path[:80]!r}")
    return whole_revision(rest[:length]), parse_path(path) if path else ""


def whole_revision(rest: Sequence[str]) -> str:
    """Return all of a route's rest as one revision, where no path can follow it.

    `HEAD` is main; `refs/heads/x` and `refs/tags/x` are x.

    Raises:
        BadReference: it is none.
    """
    text = "/".join(rest)
    if any(len(part.encode("utf-8", "replace")) > LONGEST_NAME for part in text.split("/")):
        raise BadReference(f"a revision's name over {LONGEST_NAME} bytes: {text[:80]!r}")
    plain = _BRANCH_OR_TAG.fullmatch(text)
    return parse_revision("main" if text == "HEAD" else plain[1] if plain else text)


def _revision_length(rest: tuple[str, ...], known: Collection[str]) -> int:
    if not rest or "/" in rest[0]:
        return 1
    if rest[0] != "refs" or len(rest) < 3:
        return _known_length(rest, known)
    if rest[1] in {"heads", "tags"}:
        return 2 + _known_length(rest[2:], known)
    return max(3 if rest[1] in {"pr", "convert"} else 1, _known_length(rest, known))


def _known_length(rest: tuple[str, ...], known: Collection[str]) -> int:
    start = f"{rest[0]}/"
    nested = [tuple(ref.split("/")) for ref in known if ref.startswith(start)]
    return max((len(parts) for parts in nested if rest[: len(parts)] == parts), default=1)


def origin_form(target: str) -> str:
    """Return the target from its first slash on; a client that takes us for a proxy puts scheme and host before it.

    Raises:
        BadReference: no target of a request for a path.
    """
    if _UNFIT.search(target):
        raise BadReference(f"not a request target: {target[:200]!r}")
    if "%" in target and _BAD_ESCAPE.search(target):
        raise BadReference(f"a % that begins no percent-encoding: {target[:200]!r}")
    if target.startswith("/"):
        return target
    absolute = _ABSOLUTE.match(target)
    if absolute is None:
        raise BadReference(f"a request target begins with a slash: {target[:200]!r}")
    return target[absolute.end() :]


def _segments(path: str) -> list[str]:
    segments = [segment for segment in path.split("/") if segment]
    if "%" in path:
        segments = [decode(segment) for segment in segments]
        path = "/" + "/".join(segments)
    if "\\" in path or "\x00" in path or ("/." in path and _DOTS.search(path)):
        raise BadReference(f"a path that may lead elsewhere: {path[:200]!r}")
    return segments


def _parse_query(text: str) -> Mapping[str, tuple[str, ...]]:
    if not text:
        return {}
    if "%00" in text:
        raise BadReference(f"a NUL in a query: {text[:200]!r}")
    values: dict[str, list[str]] = {}
    for pair in text.split("&"):
        if pair:
            name, _, value = pair.replace("+", " ").partition("=")
            values.setdefault(decode(name).removesuffix("[]"), []).append(decode(value))
    return {name: tuple(given) for name, given in values.items()}


def _find(segments: list[str], query: Mapping[str, tuple[str, ...]]) -> Route:
    fixed = _FIXED.get(tuple(segments)) if len(segments) < 3 else None
    if fixed is not None:
        return Route(fixed, query=query)
    if segments[0] == "api":
        return _find_api(segments[1:], query)
    kind = TYPES.get(segments[0], "model")
    found = _split_verb(segments if kind == "model" else segments[1:], _FILE_VERBS)
    if found is None:
        raise _no_route(segments)
    name, verb, rest = found
    return Route("file", RepoId.parse(name, kind=kind), kind, rest, query, verb == "raw")


def _find_api(segments: list[str], query: Mapping[str, tuple[str, ...]]) -> Route:
    kind = TYPES.get(segments[0]) if segments else None
    tail = segments[1:]
    if kind is None:
        if tail and segments[0] == "kernels":
            raise RepoNotFound(f"no kernels are kept here: {'/'.join(tail)[:200]}")
        raise _no_route(["api", *segments])
    if not tail:
        return Route("list", kind=kind, query=query)
    found = _split_verb(tail, _API_VERBS)
    if found is not None:
        name, verb, rest = found
        return Route(_API_VERBS[verb], RepoId.parse(name, kind=kind), kind, rest, query)
    if len(tail) > 2:
        raise _no_route(["api", *segments])
    return Route("info", RepoId.parse("/".join(tail), kind=kind), kind, query=query)


def _split_verb(segments: list[str], verbs: Mapping[str, Action]) -> tuple[str, str, tuple[str, ...]] | None:
    """Split at the verb behind a name of two segments, else of one; what follows tells `x/tree/refs/pr/1` apart."""
    for at in (2, 1):
        if len(segments) > at and segments[at] in verbs:
            rest = tuple(segments[at + 1 :])
            if _may_follow(segments[at], rest):
                return "/".join(segments[:at]), segments[at], rest
    return None


def _may_follow(verb: str, rest: tuple[str, ...]) -> bool:
    if verb == "refs":
        return not rest
    if verb == "auth-check":
        return rest in {(), ("write",)}
    return len(rest) > (1 if verb in _FILE_VERBS else 0)


def _no_route(segments: list[str]) -> NotFound:
    return NotFound(f"no such route: /{'/'.join(segments)[:200]}")
