"""What the cache's bytes are, by hub, organisation, type and format; what could go is the collector's to say."""

from __future__ import annotations

import os
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Literal, get_args

from hubcache.cache.folder import RepoFolder
from hubcache.cache.scan import is_temporary, partial_size, scan_repos, walk

Way = Literal["hub", "org", "type", "format", "repo"]
WAYS: tuple[Way, ...] = get_args(Way)
HUBS = {"hf": "huggingface", "ms": "modelscope", "zoo": "sparsezoo", "http": "archives", "file": "this machine"}
UNLINKED = "(no snapshot)"
UNFINISHED = "(unfinished)"


@dataclass(frozen=True, slots=True)
class Share:
    """What one group has: bytes on the disk, each blob once, and how many blobs or files."""

    name: str
    size: int
    count: int


@dataclass(frozen=True, slots=True)
class _Piece:
    """One blob or real file: its bytes, and the format that its name in a snapshot tells."""

    size: int
    format: str


def measure(root: Path, way: Way) -> list[Share]:
    """Sum the cache up one way, the largest first.

    Raises:
        CacheError: the cache is there and cannot be listed.
    """
    sizes: dict[str, int] = defaultdict(int)
    counts: dict[str, int] = defaultdict(int)
    seen: set[tuple[int, int]] = set()
    for folder in scan_repos(root):
        name = _group(folder, way)
        for piece in _pieces(folder, seen):
            group = piece.format if way == "format" else name
            sizes[group] += piece.size
            counts[group] += 1
    return [
        Share(name, size, counts[name]) for name, size in sorted(sizes.items(), key=lambda each: (-each[1], each[0]))
    ]


def _group(folder: RepoFolder, way: Way) -> str:
    repo = folder.repo
    if way == "hub":
        return HUBS.get(_scheme(folder), "huggingface")
    if way == "org":
        return repo.name.partition("/")[0] if "/" in repo.name else "(none)"
    return repo.kind if way == "type" else str(repo)


def _scheme(folder: RepoFolder) -> str:
    """Read from any commit's provenance where the repo came from; huggingface_hub writes none."""
    for commit in folder.commits():
        source = folder.provenance(commit).get("source")
        if isinstance(source, str):
            return source.partition(":")[0]
    return ""


def _pieces(folder: RepoFolder, seen: set[tuple[int, int]]) -> Iterator[_Piece]:
    """List what takes room in a repo, each file of the disk once over all repos (`seen`: device and inode)."""
    formats = _formats(folder)
    for part in ("blobs", "snapshots", ".staging", "quarantine"):
        for path, entry in walk(str(folder.path / part), lambda _: None) if (folder.path / part).is_dir() else ():
            if part == "snapshots" and entry.is_symlink():
                continue
            try:
                status = entry.stat()
            except OSError:
                continue
            if (status.st_dev, status.st_ino) in seen:
                continue
            seen.add((status.st_dev, status.st_ino))
            yield _Piece(*_sized(status, path, part, formats))


def _sized(status: os.stat_result, path: str, part: str, formats: dict[str, str]) -> tuple[int, str]:
    if part == ".staging" or is_temporary(path):
        return partial_size(status), UNFINISHED
    if part == "quarantine":
        return status.st_size, "(quarantine)"
    return status.st_size, formats.get(path, UNLINKED) if part == "blobs" else _format(path)


def _formats(folder: RepoFolder) -> dict[str, str]:
    """Map each blob that a snapshot links to, to what the link's name tells."""
    found: dict[str, str] = {}
    top = folder.path / "snapshots"
    for path, entry in walk(str(top), lambda _: None) if top.is_dir() else ():
        if entry.is_symlink():
            found.setdefault(os.path.basename(os.readlink(entry.path)), _format(path))
    return found


def _format(path: str) -> str:
    return PurePosixPath(path).suffix.lower().removeprefix(".") or "(no suffix)"
