"""What the cache knows of a repo beyond its files: told by its hub, else read from the files; it writes nothing."""

from __future__ import annotations

import json
import os
import stat
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from hubcache.cache.folder import RepoFolder
from hubcache.core.about import About
from hubcache.core.artifact import Manifest, RepoPath, is_commit
from hubcache.core.cards import Card, Held, about_of, parse_card, select_config, select_told
from hubcache.errors import CacheError

CARD, CONFIG = RepoPath("README.md"), RepoPath("config.json")
LONGEST_CARD = 256 << 10
LONGEST_CONFIG = 1 << 20


def read_about(folder: RepoFolder, commit: str, manifest: Manifest) -> About:
    """Read what is known of the repo at a commit; what cannot be read is not known.

    It reads two files of the commit and what was told of every commit, so a server asks once and remembers.
    """
    provenance = folder.provenance(commit)
    told = _told(provenance)
    card = _card(folder, commit, manifest)
    if card is None and told.get("gated") is None:
        card = Card(is_gated=_was_gated(folder, commit))
    created, modified = _times(folder, commit)
    held = Held(card or Card(), _config(folder, commit, manifest), manifest.files, created, modified)
    return about_of(folder.repo.kind, _hub(provenance), told, _told_last(folder), held)


def _hub(provenance: Mapping[str, Any]) -> str:
    """Name the scheme that the commit was pulled by."""
    source = provenance.get("source")
    return source.partition(":")[0] if isinstance(source, str) else ""


def _told(provenance: Mapping[str, Any]) -> dict[str, Any]:
    return select_told(provenance.get("about")) or {}


def _told_last(folder: RepoFolder) -> dict[str, Any]:
    """Find what was told last of any commit: who may have a repo is no matter of one commit.

    Of several in one second, it is one that closes the repo.
    """
    try:
        names = os.listdir(folder.provenance_path("0" * 40).parent)
    except OSError:
        return {}
    records = [folder.provenance(name.removesuffix(".json")) for name in names if is_commit(name.removesuffix(".json"))]
    tellings = [(_age(record, told), told) for record in records if (told := _told(record))]
    return max(tellings, default=(None, {}), key=lambda each: each[0])[1]


def _age(record: Mapping[str, Any], told: Mapping[str, Any]) -> tuple[int, bool, bool]:
    second = record.get("pulled_at")
    return second if isinstance(second, int) else 0, bool(told.get("private")), bool(told.get("gated"))


def _card(folder: RepoFolder, commit: str, manifest: Manifest | None = None) -> Card | None:
    """Read the commit's card; None where it is not here."""
    content = _read(folder, commit, CARD, manifest, LONGEST_CARD)
    return None if content is None else parse_card(content.decode(errors="replace"))


def _was_gated(folder: RepoFolder, commit: str) -> bool:
    """Tell whether another commit's card asks for conditions, where the commit's own is not here."""
    try:
        others = set(folder.commits()) - {commit}
    except OSError:
        return False
    return any(card.is_gated for other in others if (card := _card(folder, other)) is not None)


def _config(folder: RepoFolder, commit: str, manifest: Manifest) -> dict[str, Any]:
    content = _read(folder, commit, CONFIG, manifest, LONGEST_CONFIG + 1)
    if content is None or len(content) > LONGEST_CONFIG:
        return {}
    try:
        return select_config(json.loads(content))
    except (ValueError, RecursionError):
        return {}


def _read(folder: RepoFolder, commit: str, path: RepoPath, manifest: Manifest | None, limit: int) -> bytes | None:
    """Read a file's first bytes from the snapshot, else from the blob that another commit brought."""
    content = _read_file(folder.snapshot_path(commit) / path, limit, folder)
    entry = manifest.files.get(path) if manifest is not None else None
    if content is None and entry is not None and folder.has_blob(entry.blob):
        return _read_file(folder.blob_path(entry.blob.digest), limit, folder)
    return content


def _read_file(path: Path, limit: int, folder: RepoFolder) -> bytes | None:
    try:
        if not _is_of(folder, path):  # a planted link: what it leads to is nobody's business
            return None
        if not stat.S_ISREG(path.stat().st_mode):  # a pipe would be waited for without end
            return None
        with path.open("rb") as file:
            return file.read(limit)
    except OSError:
        return None


def _is_of(folder: RepoFolder, path: Path) -> bool:
    """Tell whether a path ends in the repo's folder, or in the store that all repos share."""
    end = os.path.realpath(path)
    homes = (os.path.realpath(folder.path), os.path.realpath(folder.root / "blobs"))
    return any(end.startswith(home + os.sep) for home in homes)


def _times(folder: RepoFolder, commit: str) -> tuple[float | None, float | None]:
    """Say when the commit came here, by its folder and its refs: first and last, in unix seconds."""
    try:
        refs = [folder.ref_path(name) for name, held in folder.refs().items() if held == commit]
        times = [path.stat().st_mtime for path in (folder.snapshot_path(commit), *refs)]
    except (OSError, CacheError):
        return None, None
    return min(times), max(times)
