"""What the Hub's clients need of each answer, as small checks that name what is wrong; it sends nothing.

Source: the fields that huggingface_hub 2.4 and @huggingface/hub 2.17 read.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from typing import Any

_OID = re.compile(r"[0-9a-f]{40}")
_SHA256 = re.compile(r"[0-9a-f]{64}")
_DATE = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z")

Faults = Iterator[str]


def info(told: Any) -> Faults:
    """Check a repo's record, whole or by the fields that were asked for."""
    yield from _fields(told, {"id": str, "_id": str})
    for name, kind in _RECORD.items():
        if name in told and not isinstance(told[name], kind):
            yield f"{name} is {told[name]!r}"
    for name in ("createdAt", "lastModified"):
        if told.get(name) is not None and not _DATE.fullmatch(told[name]):
            yield f"{name} is {told[name]!r}"
    if "sha" in told and not _OID.fullmatch(told["sha"]):
        yield f"sha is {told['sha']!r}"
    for sibling in told.get("siblings", []):
        yield from _fields(sibling, {"rfilename": str})


def rows(told: Any) -> Faults:
    """Check a tree's or a paths-info's rows."""
    if not isinstance(told, list):
        yield f"no list: {told!r}"
        return
    for row in told:
        yield from _fields(row, {"type": str, "oid": str, "size": int, "path": str})
        if row["type"] not in {"file", "directory"} or not _OID.fullmatch(row["oid"]) or row["size"] < 0:
            yield f"a row is {row!r}"
        if "lfs" in row:
            yield from _fields(row["lfs"], {"oid": str, "size": int, "pointerSize": int})
            if not _SHA256.fullmatch(row["lfs"]["oid"]):
                yield f"an LFS oid is {row['lfs']['oid']!r}"
        if "lastCommit" in row:
            yield from _fields(row["lastCommit"], {"id": str, "title": str, "date": str})


def refs(told: Any) -> Faults:
    """Check a repo's refs."""
    yield from _fields(told, {"branches": list, "converts": list, "tags": list})
    for group in told.values():
        for ref in group:
            yield from _fields(ref, {"name": str, "ref": str, "targetCommit": str})
            if not ref["ref"].startswith("refs/") or not _OID.fullmatch(ref["targetCommit"]):
                yield f"a ref is {ref!r}"


def commits(told: Any) -> Faults:
    """Check a history."""
    if not isinstance(told, list) or not told:
        yield f"no history: {told!r}"
        return
    for commit in told:
        yield from _fields(commit, {"id": str, "title": str, "message": str, "date": str, "authors": list})
        if not _DATE.fullmatch(commit["date"]):
            yield f"a date is {commit['date']!r}"


def repos(told: Any) -> Faults:
    """Check a list of repos."""
    if not isinstance(told, list):
        yield f"no list: {told!r}"
        return
    for row in told:
        yield from info(row)


def _fields(told: Any, kinds: Mapping[str, type]) -> Faults:
    if not isinstance(told, dict):
        yield f"no object: {told!r}"
        return
    for name, kind in kinds.items():
        if not isinstance(told.get(name), kind):
            yield f"{name} is {told.get(name)!r} in {told!r}"


def _exactly(value: Any) -> Callable[[Any], Faults]:
    def check(told: Any) -> Faults:
        if told != value:
            yield f"{told!r}, not {value!r}"

    return check


_RECORD: Mapping[str, type | tuple[type, ...]] = {
    "sha": str,
    "private": bool,
    "gated": (bool, str),
    "disabled": bool,
    "downloads": int,
    "likes": int,
    "tags": list,
    "siblings": list,
    "cardData": dict,
    "config": dict,
}
SCHEMAS: Mapping[str, Callable[[Any], Faults]] = {
    "health": lambda told: _fields(told, {"status": str, "version": str, "mode": str, "uptime": int}),
    "whoami": lambda told: _fields(told, {"type": str, "name": str, "orgs": list}),
    "harnesses": _exactly({"standardEnvVars": [], "harnesses": {}}),
    "auth-check": _exactly({}),
    "list": repos,
    "info": info,
    "tree": rows,
    "paths-info": rows,
    "refs": refs,
    "commits": commits,
}
"""The check of each JSON route's answer, by its action."""
