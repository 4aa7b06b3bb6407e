"""Is a cache folder whole? Asked of the files themselves and of huggingface_hub, never of the library under test."""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from huggingface_hub import scan_cache_dir

COMMIT = re.compile(r"[0-9a-f]{40}")


def faults(cache: Path) -> list[str]:
    """List what is wrong with a cache: bad blobs, dangling links, bad refs, listings that are none, hub warnings."""
    if not cache.exists():
        return []
    found = [str(warning) for warning in scan_cache_dir(cache).warnings]
    for repo in sorted(cache.glob("*--*")):
        found += [f"{repo.name}: {fault}" for fault in _repo_faults(repo)]
    return found


def _repo_faults(repo: Path) -> Iterator[str]:
    for blob in repo.glob("blobs/*"):
        if not blob.name.endswith((".incomplete", ".tmp")) and digest(blob.read_bytes(), len(blob.name)) != blob.name:
            yield f"blob {blob.name} holds other bytes"
    for file in repo.glob("snapshots/**/*"):
        if file.is_symlink() and not file.exists():
            yield f"{file.relative_to(repo)} dangles"
    for ref in repo.glob("refs/**/*"):
        if ref.is_file():
            yield from _ref_faults(repo, ref)
    for tree in repo.glob("trees/*.json"):
        listing = json.loads(tree.read_bytes())
        if listing["format_version"] != 1:
            yield f"{tree.name} is no listing"


def _ref_faults(repo: Path, ref: Path) -> Iterator[str]:
    commit = ref.read_text()
    if not COMMIT.fullmatch(commit):
        yield f"ref {ref.name} holds {commit!r}"
    elif not (repo / "snapshots" / commit).is_dir():
        yield f"ref {ref.name} has no snapshot"


def unverified(snapshot: Path) -> list[str]:
    """List the snapshot's files that are not what the commit's listing says, and those that are missing."""
    listing = json.loads((snapshot.parent.parent / "trees" / f"{snapshot.name}.json").read_bytes())["files"]
    wrong = []
    for path, row in listing.items():
        expected = row.get("lfs_sha256") or row["blob_id"]
        file = snapshot / path
        if not file.is_file() or digest(file.read_bytes(), len(expected)) != expected:
            wrong.append(path)
    return wrong


def partial_bytes(cache: Path) -> int:
    """Return the bytes that stand in partial files now, gaps not counted; other processes may be at work there."""
    total = 0
    for folder, _, names in os.walk(cache):
        for name in names:
            if name.endswith((".incomplete", "download")) or name.startswith("zoo-"):
                with suppress(FileNotFoundError):
                    total += 0 if ".ranges" in name else os.stat(os.path.join(folder, name)).st_blocks * 512
    return total


def digest(content: bytes, digits: int) -> str:
    """Name bytes as the Hub does: git's blob id with 40 digits, sha256 with 64."""
    if digits == 40:
        return hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()
    return hashlib.sha256(content).hexdigest()
