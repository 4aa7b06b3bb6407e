"""The repos of a cache, summed up from what the index remembers of them; those that changed are read again.

A repo counts as unchanged while none of its folders has been written to. Access times leave no such sign, and so a
summary is believed for a day: file systems note them no more often.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterable, Iterator
from dataclasses import replace
from pathlib import Path
from types import MappingProxyType
from typing import Any

from hubcache.cache.folder import RepoFolder
from hubcache.cache.index import Index
from hubcache.cache.scan import RepoSummary, scan_repo, scan_repos

BELIEVED = 86400
"""Seconds."""
_FACTS = ("size", "files", "commits", "last_used", "last_modified", "orphan_size", "risks", "is_pinned")
_PARTS = ("", "blobs", "snapshots", "refs", ".staging")


def scan_indexed(root: Path, index: Index) -> Iterator[RepoSummary]:
    """Summarise every repo in the cache, by name, as `scan` does, and remember what had to be read.

    Raises:
        CacheError: the cache is there and cannot be listed.
    """
    known, uses = index.summaries(root), index.uses(root)
    oldest = time.time() - BELIEVED
    news: dict[str, tuple[str, str]] = {}
    for folder in scan_repos(root):
        state, facts, at = known.pop(folder.path.name, ("", "", 0))
        summary = _recall(folder, state, facts) if at > oldest else None
        if summary is None:
            state = _state(folder, _folders(folder))
            summary = scan_repo(folder)
            if summary.problem is None and not summary.partial_files:
                news[folder.path.name] = (state, _encode(summary))
        hits, served_at = uses.get(folder.path.name, (0, 0))
        yield replace(summary, hits=hits, last_used=max(summary.last_used, served_at)) if hits else summary
    if news or known:
        index.remember_summaries(root, news, known)


def _recall(folder: RepoFolder, state: str, facts: str) -> RepoSummary | None:
    """Return the summary that was remembered, if the repo's folders are as they were."""
    try:
        told: dict[str, list[int]] = json.loads(state)
        if _state(folder, told) != state:
            return None
        return _decode(folder, json.loads(facts))
    except (ValueError, KeyError, TypeError, AttributeError):
        return None


def _folders(folder: RepoFolder) -> list[str]:
    """List the repo's folders whose change means that something came or went."""
    top = str(folder.path)
    found = list(_PARTS)
    for part in ("snapshots", "refs", ".staging"):
        for place, names, _ in os.walk(f"{top}/{part}"):
            found += [os.path.relpath(os.path.join(place, name), top) for name in names]
    return found


def _state(folder: RepoFolder, places: Iterable[str]) -> str:
    """Write down when each folder was written to; one that is not there has no time."""
    top = str(folder.path)
    return json.dumps({place: _stamp(f"{top}/{place}") for place in places}, separators=(",", ":"))


def _stamp(path: str) -> list[int]:
    try:
        status = os.stat(path)
    except OSError:
        return []
    return [status.st_mtime_ns, status.st_ino]


def _encode(summary: RepoSummary) -> str:
    facts = {name: getattr(summary, name) for name in _FACTS} | {"refs": dict(summary.refs)}
    return json.dumps(facts, separators=(",", ":"))


def _decode(folder: RepoFolder, facts: dict[str, Any]) -> RepoSummary:
    return RepoSummary(
        repo=folder.repo,
        path=folder.path,
        size=int(facts["size"]),
        files=int(facts["files"]),
        commits=tuple(facts["commits"]),
        refs=MappingProxyType(dict(facts["refs"])),
        last_used=int(facts["last_used"]),
        last_modified=int(facts["last_modified"]),
        partial_files=0,
        partial_size=0,
        problem=None,
        orphan_size=int(facts["orphan_size"]),
        risks=tuple(facts["risks"]),
        is_pinned=bool(facts["is_pinned"]),
    )
