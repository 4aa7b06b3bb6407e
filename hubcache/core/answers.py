"""What the Hub's API answers of one repo, as JSON's own values; no request is read here and no bytes are sent.

Source: huggingface_hub 2.4 (hf_api.py) and @huggingface/hub 2.17, which read these answers.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import UTC, datetime
from types import MappingProxyType
from typing import Any
from urllib.parse import parse_qsl

from hubcache.core.about import About
from hubcache.core.artifact import Artifact, Entry, Kind, RepoPath
from hubcache.core.gitobj import folder_oids, git_oid, pointer_size
from hubcache.core.paging import Row
from hubcache.errors import BadReference, EntryNotFound

MOST_PATHS = 10_000
"""The most paths that one paths-info may name."""

_TITLE = "As it is cached: no history is kept"
_AUTHOR = "unknown"
# The first second of year 10000: no client reads a date of five digits.
_END_OF_TIME = 253_402_300_800

_VERSION = re.compile(r"[vV]?[0-9]+(?:\.[0-9]+)+(?:[._+-]?[0-9A-Za-z]+)*|[vV][0-9]+", re.ASCII)
_SHORT_COMMIT = re.compile(r"[0-9a-f]{7,40}", re.ASCII)

_DATES = frozenset({"createdAt", "lastModified"})
_COMMON = (
    "author",
    "sha",
    "createdAt",
    "lastModified",
    "private",
    "gated",
    "disabled",
    "downloads",
    "likes",
    "tags",
    "siblings",
    "cardData",
    "usedStorage",
)
_ANSWERED: Mapping[Kind, tuple[str, ...]] = {
    "model": ("modelId", *_COMMON, "pipeline_tag", "library_name", "config"),
    "dataset": _COMMON,
    "space": (*_COMMON, "sdk", "models", "datasets"),
}
_ON_DEMAND: Mapping[Kind, tuple[str, ...]] = {
    "model": ("trendingScore",),
    "dataset": ("trendingScore", "mainSize"),
    "space": ("trendingScore",),
}


def repo_info(artifact: Artifact, about: About, *, expand: Sequence[str] = (), blobs: bool = False) -> Row:
    """Answer what a repo is; `expand` names the only fields wanted, `blobs` adds sizes and digests to the files."""
    row = record(artifact, about, expand or _ANSWERED[artifact.repo.kind])
    if blobs and "siblings" in row:
        row["siblings"] = [_sibling(path, entry) for path, entry in artifact.manifest.files.items()]
    return row


def record(artifact: Artifact, about: About, names: Iterable[str]) -> Row:
    """Answer the named fields, and the ids; a name that is none, or of which nothing is known, is left out.

    A date that is not known is null, which JavaScript's Date takes; a field that is missing makes it an invalid one.
    """
    kind = artifact.repo.kind
    known = {*_ANSWERED[kind], *_ON_DEMAND[kind]}
    row: Row = {"_id": _stable_id(artifact), "id": artifact.repo.name}
    for name in names:
        if name in known and ((value := _FIELDS[name](artifact, about)) is not None or name in _DATES):
            row[name] = value
    return row


def tree(
    artifact: Artifact, about: About, *, folder: str = "", recursive: bool = False, expand: bool = False
) -> list[Row]:
    """List a folder, or all below it: first the folders, then the files, each by path.

    Raises:
        EntryNotFound: there is no such folder.
        BadReference: one path is a file and another path's folder.
    """
    oids = folder_oids(artifact.manifest)
    if folder not in oids:
        raise EntryNotFound(f"{artifact.repo} has no folder {folder!r} at {artifact.revision.commit[:12]}")
    start = f"{folder}/" if folder else ""

    def is_listed(path: str) -> bool:
        return path.startswith(start) and (recursive or "/" not in path[len(start) :])

    rows = [_folder_row(path, oids[path]) for path in sorted(oids) if path and is_listed(path)]
    rows += [_file_row(path, entry) for path, entry in artifact.manifest.files.items() if is_listed(path)]
    return _with_commit(rows, artifact, about) if expand else rows


def paths_info(artifact: Artifact, about: About, paths: Iterable[str], *, expand: bool = False) -> list[Row]:
    """Answer the files and folders among the paths; what is neither is left out.

    Raises:
        BadReference: one path is a file and another path's folder.
    """
    asked = dict.fromkeys(path.strip("/") for path in paths)
    files = {path: artifact.manifest.files.get(RepoPath(path)) for path in asked}
    oids = {} if all(files.values()) else folder_oids(artifact.manifest)
    rows = [
        _file_row(path, entry) if entry is not None else _folder_row(path, oids[path])
        for path, entry in files.items()
        if entry is not None or (path and path in oids)
    ]
    return _with_commit(rows, artifact, about) if expand else rows


def parse_paths(content_type: str, body: bytes) -> tuple[list[str], bool]:
    """Read what a paths-info asks, a form or the same as JSON: the paths, and whether to expand them.

    Raises:
        BadReference: it is neither, or it names more than MOST_PATHS paths.
    """
    try:
        paths, expand = (_json_paths if "json" in content_type.lower() else _form_paths)(body)
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise BadReference(f"not the paths of a paths-info: {body[:80]!r} ({error})") from error
    if len(paths) > MOST_PATHS:
        raise BadReference(f"paths-info of {len(paths)} paths: the most are {MOST_PATHS}")
    return paths, expand


def refs(known: Mapping[str, str], *, include_prs: bool = False) -> dict[str, list[Row]]:
    """Answer a repo's refs, told apart by what they look like: the cache does not record which of them are tags.

    `known` are names as below the cache's refs/ ("main", "refs/pr/1") and their commits.
    """
    groups: dict[str, dict[str, Row]] = {"branches": {}, "converts": {}, "tags": {}, "pullRequests": {}}
    for asked, commit in sorted(known.items()):
        if (found := _ref(asked, commit)) is not None:
            group, name, ref = found
            groups[group].setdefault(name, {"name": name, "ref": ref, "targetCommit": commit})
    return {group: list(rows.values()) for group, rows in groups.items() if include_prs or group != "pullRequests"}


def commits(artifact: Artifact, about: About, *, formatted: bool = False) -> list[Row]:
    """Answer the one commit that is known."""
    last = _last_commit(artifact, about)
    row = {**last, "message": "", "authors": [{"user": _AUTHOR, "avatar": ""}]}
    return [{**row, "formatted": {"title": last["title"], "message": ""}} if formatted else row]


def timestamp(seconds: float | None) -> str | None:
    """Write unix seconds as the Hub writes dates; None for what is none that clients read."""
    if seconds is None or not 0 <= seconds < _END_OF_TIME:
        return None
    return datetime.fromtimestamp(int(seconds), UTC).strftime("%Y-%m-%dT%H:%M:%S.000Z")


def author_of(artifact: Artifact) -> str | None:
    """Name the repo's namespace; None for the oldest repos, which have none."""
    return artifact.repo.name.rpartition("/")[0] or None


def card_list(about: About, name: str) -> list[str]:
    """List a card's field; empty where it is no list of texts."""
    told = about.card.get(name)
    return [each for each in told if isinstance(each, str)] if isinstance(told, list | tuple) else []


def _stable_id(artifact: Artifact) -> str:
    repo = artifact.repo
    return hashlib.sha1(f"{repo.kind}s/{repo.name}".encode(), usedforsecurity=False).hexdigest()[:24]


def _whole_size(artifact: Artifact) -> int | None:
    return artifact.manifest.size if artifact.is_whole else None


_FIELDS: Mapping[str, Callable[[Artifact, About], Any]] = MappingProxyType(
    {
        "modelId": lambda artifact, _: artifact.repo.name,
        "author": lambda artifact, _: author_of(artifact),
        "sha": lambda artifact, _: artifact.revision.commit,
        "createdAt": lambda _, about: timestamp(about.created),
        "lastModified": lambda _, about: timestamp(about.modified),
        "private": lambda _, about: about.private,
        "gated": lambda _, about: "auto" if about.gated is True else about.gated,
        "disabled": lambda *_: False,
        "downloads": lambda _, about: about.downloads,
        "likes": lambda _, about: about.likes,
        "trendingScore": lambda *_: 0,
        "tags": lambda _, about: list(about.tags),
        "siblings": lambda artifact, _: [{"rfilename": path} for path in artifact.manifest.files],
        "cardData": lambda _, about: dict(about.card) or None,
        "config": lambda _, about: dict(about.config) or None,
        "pipeline_tag": lambda _, about: about.pipeline_tag,
        "library_name": lambda _, about: about.library,
        "sdk": lambda _, about: about.sdk,
        "models": lambda _, about: card_list(about, "models"),
        "datasets": lambda _, about: card_list(about, "datasets"),
        "usedStorage": lambda artifact, _: _whole_size(artifact),
        "mainSize": lambda artifact, _: _whole_size(artifact),
    }
)


def _sibling(path: str, entry: Entry) -> Row:
    row: Row = {"rfilename": path, "size": entry.blob.size, "blobId": git_oid(entry)}
    if entry.blob.digest.algorithm == "sha256":
        row["lfs"] = {"sha256": entry.blob.digest.hex, **_lfs_sizes(entry)}
    return row


def _file_row(path: str, entry: Entry) -> Row:
    row: Row = {"type": "file", "oid": git_oid(entry), "size": entry.blob.size, "path": path}
    if entry.blob.digest.algorithm == "sha256":
        row["lfs"] = {"oid": entry.blob.digest.hex, **_lfs_sizes(entry)}
    return row


def _lfs_sizes(entry: Entry) -> Row:
    return {"size": entry.blob.size, "pointerSize": pointer_size(entry.blob)}


def _folder_row(path: str, oid: str) -> Row:
    return {"type": "directory", "oid": oid, "size": 0, "path": path}


def _last_commit(artifact: Artifact, about: About) -> Row:
    date = timestamp(about.modified) or timestamp(about.created) or timestamp(0)
    return {"id": artifact.revision.commit, "title": _TITLE, "date": date}


def _with_commit(rows: list[Row], artifact: Artifact, about: About) -> list[Row]:
    last = _last_commit(artifact, about)
    return [{**row, "lastCommit": last} for row in rows]


def _json_paths(body: bytes) -> tuple[list[str], bool]:
    asked = json.loads(body)
    paths = asked["paths"]
    paths = [paths] if isinstance(paths, str) else paths
    if not isinstance(paths, list) or not all(isinstance(path, str) for path in paths):
        raise ValueError("paths is no list of texts")
    return paths, asked.get("expand") in (True, "true", 1)


def _form_paths(body: bytes) -> tuple[list[str], bool]:
    fields = parse_qsl(body.decode(), keep_blank_values=True, errors="strict", max_num_fields=MOST_PATHS + 10)
    paths = [value for name, value in fields if name in {"paths", "paths[]"}]
    if not paths:
        raise ValueError("no paths")
    return paths, any(name == "expand" and value.lower() in {"true", "1"} for name, value in fields)


def _ref(asked: str, commit: str) -> tuple[str, str, str] | None:
    """Return a ref's group, its name and git's name for it; None for a short commit, which is no ref to git."""
    for prefix, group in (("refs/convert/", "converts"), ("refs/pr/", "pullRequests")):
        if asked.startswith(prefix):
            return group, asked.removeprefix(prefix), asked
    for prefix, group in (("refs/tags/", "tags"), ("refs/heads/", "branches")):
        if asked.startswith(prefix):
            return group, asked.removeprefix(prefix), asked
    if asked.startswith("refs/") or (_SHORT_COMMIT.fullmatch(asked) and commit.startswith(asked)):
        return None
    if _VERSION.fullmatch(asked):
        return "tags", asked, f"refs/tags/{asked}"
    return "branches", asked, f"refs/heads/{asked}"
