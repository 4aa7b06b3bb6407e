"""The Hub's HTTP words: URLs, headers, listings, error answers, read and written; no connection is opened here.

Source: the Hub protocol as huggingface_hub 2.4 speaks it.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any
from urllib.parse import quote

from hubcache.core.artifact import Entry, RepoId, RepoPath, parse_commit, parse_path, parse_revision
from hubcache.core.digests import Blob, Digest
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

_NEXT = re.compile(r"<([^<>]+)>\s*;[^,]*\brel=\"?next\b")
_RATE_RESET = re.compile(r"\bt=([0-9]{1,18})", re.ASCII)
# No more digits than a file can have bytes: int() refuses some thousand of them.
_SIZE = re.compile(r"[0-9]{1,18}", re.ASCII)
_CONTENT_RANGE = re.compile(rf"bytes ({_SIZE.pattern})-({_SIZE.pattern})/({_SIZE.pattern}|\*)", re.ASCII)


def api_path(repo: RepoId) -> str:
    """Return the path of the repo's API: `/api/models/org/name`."""
    return f"/api/{repo.kind}s/{repo.name}"


def revision_path(repo: RepoId, revision: str) -> str:
    """Return the path that answers which commit a revision is."""
    return f"{api_path(repo)}/revision/{quote(revision, safe='')}"


def tree_path(repo: RepoId, commit: str) -> str:
    """Return the path of a commit's whole listing."""
    return f"{api_path(repo)}/tree/{commit}?recursive=true&expand=false"


def refs_path(repo: RepoId) -> str:
    """Return the path that answers a repo's refs, pull requests included."""
    return f"{api_path(repo)}/refs?include_prs=1"


def parse_refs(answer: Any) -> dict[str, str]:
    """Read a repo's refs as the cache names them: branches and tags plain, all others whole ("refs/pr/1").

    Raises:
        IntegrityError: it is no such answer.
    """
    try:
        groups = [
            (group, row)
            for group in ("branches", "tags", "converts", "pullRequests")
            for row in answer.get(group) or ()
        ]
        plain = {"branches", "tags"}
        return {
            parse_revision(row["name" if group in plain else "ref"]): parse_commit(row["targetCommit"])
            for group, row in groups
        }
    except (KeyError, TypeError, AttributeError, BadReference) as error:
        raise IntegrityError(f"the answer tells no refs: {str(answer)[:200]} ({error})") from error


def resolve_path(repo: RepoId, revision: str, path: RepoPath) -> str:
    """Return the path of a file's bytes."""
    prefix = "" if repo.kind == "model" else f"/{repo.kind}s"
    return f"{prefix}/{repo.name}/resolve/{quote(revision, safe='')}/{quote(path)}"


def parse_etag(text: str) -> Digest:
    """Read an ETag as the digest it names.

    Raises:
        BadReference: it names none (a CDN's own tag, or an attack).
    """
    return Digest.parse(text.strip().removeprefix("W/").strip('"'))


def parse_size(text: str | None) -> int | None:
    """Read a Content-Length in bytes; None where it says nothing, or nonsense."""
    return int(text) if text and _SIZE.fullmatch(text) else None


def next_page(link: str | None) -> str | None:
    """Find the next page's URL in a Link header."""
    found = _NEXT.search(link or "")
    return found[1] if found else None


def parse_content_range(text: str | None) -> tuple[int, int, int | None]:
    """Read a Content-Range as (start, end, whole size or None), for bytes [start, end).

    Raises:
        IntegrityError: it is none.
    """
    found = _CONTENT_RANGE.fullmatch(text or "")
    if not found or int(found[1]) > int(found[2]):
        raise IntegrityError(f"not a Content-Range: {text!r}")
    return int(found[1]), int(found[2]) + 1, None if found[3] == "*" else int(found[3])


def parse_tree(rows: Iterable[Mapping[str, Any]]) -> dict[RepoPath, Entry]:
    """Read a listing's rows; folders are left out.

    Raises:
        IntegrityError: a row that is none, or a path that may not reach the disk.
    """
    files = {}
    for row in rows:
        try:
            if row["type"] == "file":
                files[parse_path(row["path"])] = _entry(row)
        except (KeyError, TypeError, AttributeError, ValueError, BadReference) as error:
            raise IntegrityError(f"the listing has a row that cannot be read: {str(row)[:200]} ({error})") from error
    return files


def _entry(row: Mapping[str, Any]) -> Entry:
    lfs = row.get("lfs")
    if not lfs:
        return Entry(Blob(Digest.parse(row["oid"]), _size(row["size"])), xet=row.get("xetHash"))
    digest = Digest.parse(str(lfs.get("oid") or lfs["sha256"]))
    return Entry(Blob(digest, _size(lfs["size"])), pointer=Digest.parse(row["oid"]).hex, xet=row.get("xetHash"))


def _size(value: object) -> int:
    if type(value) is not int or value < 0:
        raise ValueError(f"not a size: {value!r}")
    return value


def retry_after(headers: Mapping[str, str]) -> float | None:
    """Read how many seconds an answer asks to wait, from Retry-After or RateLimit."""
    seconds = parse_size(headers.get("Retry-After"))
    if seconds is not None:
        return float(seconds)
    reset = _RATE_RESET.search(headers.get("RateLimit", ""))
    return float(reset[1]) if reset else None


def error_for(
    status: int, headers: Mapping[str, str], *, what: str, origin: str, authenticated: bool = False
) -> HubcacheError:
    """Translate an answer that is no success into the exception that says it.

    The codes are those huggingface_hub switches on; a bare 401 is how the Hub hides a repo from
    strangers, and a refused token's answer when one was sent (`authenticated`).
    """
    code = headers.get("X-Error-Code", "")
    said = headers.get("X-Error-Message", "")
    where = f"{what}: {origin} answered {status}" + (f" ({code})" if code else "") + (f": {said[:200]}" if said else "")
    if code in {"RevisionNotFound", "EntryNotFound", "RepoNotFound"}:
        return _MISSING[code](where)
    if code == "GatedRepo":
        return AccessDenied(where, hint="ask for access on the repo's page, then set HF_TOKEN")
    if status == 401 and not authenticated:
        return RepoNotFound(where, hint="no such repo, or a private one: check the name, or set HF_TOKEN")
    if status == 401:
        return AccessDenied(where, hint="the token was refused: check HF_TOKEN")
    if status in {403, 407, 451}:
        return AccessDenied(where)
    if status == 429:
        return RateLimited(where, retry_after=retry_after(headers))
    if status in {404, 410}:
        return NotFound(where)
    return SourceUnavailable(where)


_MISSING: dict[str, type[NotFound]] = {
    "RevisionNotFound": RevisionNotFound,
    "EntryNotFound": EntryNotFound,
    "RepoNotFound": RepoNotFound,
}
