"""Stores in which repos share files by digest: other hub caches, Ollama's; folders of one repo are in folders.py."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

from hubcache.app.layouts.seeing import MOST_FILES, Seeing, is_folder, kept_file, list_files, read_note
from hubcache.cache.folder import RepoFolder
from hubcache.cache.links import follow
from hubcache.cache.scan import scan_repos, walk
from hubcache.core.adoptable import Found, FoundFile, Left
from hubcache.core.artifact import Manifest, RepoId, parse_path, parse_revision
from hubcache.core.digests import Blob, Digest
from hubcache.core.foreign import read_ollama
from hubcache.core.layout import parse_repo_folder
from hubcache.errors import BadReference, HubcacheError

LIBRARY = "registry.ollama.ai/library/"


def find_hub_cache(top: Path, _seeing: Seeing) -> list[Found] | None:
    """Recognise a hub cache, or one repo's folder of it: its commits as they are, with the refs that mean them."""
    repo = parse_repo_folder(top.name)
    if repo is not None and is_folder(top / "snapshots"):
        return list(_commits(RepoFolder(top.parent, repo)))
    with suppress(HubcacheError):
        folders = [folder for folder in scan_repos(top) if is_folder(folder.path / "snapshots")]
        if is_folder(top) and folders:
            return [found for folder in folders for found in _commits(folder)]
    return None


def _commits(folder: RepoFolder) -> Iterator[Found]:
    refs = folder.refs()
    for commit in folder.commits():
        left: list[Left] = []
        listing = folder.listing(commit)
        files = tuple(_snapshot_files(folder, commit, listing, left))
        names = [name for name, held in refs.items() if held == commit and _is_revision(name)]
        told = folder.provenance(commit)
        about: Any = told.get("about")
        yield Found(
            "hub cache", str(folder.path), folder.repo, files,
            source=_source(told.get("source")) or f"hf:{folder.repo.name}", commit=commit, listing=listing,
            revision=names[0] if names else commit, refs=tuple(names[1:]), left=tuple(left),
            conversion=folder.conversion(commit), told=about if isinstance(about, dict) else None,
        )  # fmt: skip


def _source(text: object) -> str:
    return text if isinstance(text, str) and text.partition(":")[2] and len(text) < 8192 else ""


def _is_revision(name: str) -> bool:
    with suppress(BadReference):
        return bool(parse_revision(name))
    return False


def _snapshot_files(folder: RepoFolder, commit: str, listing: Manifest | None, left: list[Left]) -> Iterator[FoundFile]:
    top = str(folder.snapshot_path(commit))
    for number, (name, entry) in enumerate(walk(top, lambda told: left.append(Left(top, told)))):
        if number >= MOST_FILES:
            left.append(Left(top, f"more than {MOST_FILES} files; the rest of them"))
            return
        try:
            path = parse_path(name)
        except BadReference as error:
            left.append(Left(name, error.message))
            continue
        listed = listing.files.get(path) if listing else None
        found = _linked(folder, entry, path) if entry.is_symlink() else _real(entry, path)
        if found is None:
            left.append(Left(path, "it leads to no blob of this cache"))
        elif listing is not None and (listed is None or found.expected not in {None, listed.blob.digest}):
            left.append(Left(path, "the commit's listing says otherwise"))
        elif listed is not None and found.expected is None:
            yield FoundFile(path, found.place, found.size, listed.blob.digest)
        else:
            yield found


def _linked(folder: RepoFolder, entry: os.DirEntry[str], path: str) -> FoundFile | None:
    """Follow a link to a blob of the same repo, and from there into the store that the cache's repos share."""
    lead = follow(entry.path, repo=str(folder.path), root=str(folder.root))
    if lead.place != "blob":
        return None
    place = str(folder.path / "blobs" / lead.end)
    with suppress(BadReference, OSError):
        digest = Digest.parse(lead.end)
        top = folder.path
        if os.path.islink(place):
            lead_on = follow(place, repo=str(folder.path), root=str(folder.root))
            if lead_on.place != "store":
                return None
            place, top = lead_on.end, folder.root
        name = os.path.relpath(os.path.realpath(place), os.path.realpath(top))
        return kept_file(top, name, parse_path(path), Blob(digest, os.stat(place).st_size))
    return None


def _real(entry: os.DirEntry[str], path: str) -> FoundFile | None:
    if not entry.is_file(follow_symlinks=False):
        return None
    return FoundFile(parse_path(path), entry.path, entry.stat(follow_symlinks=False).st_size)


def find_ollama(top: Path, _seeing: Seeing) -> list[Found] | None:
    """Recognise Ollama's store: manifests/<registry>/<namespace>/<name>/<tag> over blobs/sha256-<hex>."""
    if not is_folder(top / "manifests") or not is_folder(top / "blobs"):
        return None
    manifests = list_files(top / "manifests")
    return [_ollama(top, path, Path(file.place)) for path, file in manifests.files.items() if path.count("/") >= 2]


def _ollama(top: Path, path: str, place: Path) -> Found:
    """Read one tag of a model; what Ollama's library has becomes ollama/<name>."""
    owner, name, tag = path.split("/")[-3:]
    left, files = [], []
    try:
        repo = RepoId.parse(f"{'ollama' if path.startswith(LIBRARY) else owner}/{name}", hub="ollama")
        parse_revision(tag)
        for layer in read_ollama(read_note(place)):
            names = (f"blobs/sha256{sign}{layer.blob.digest.hex}" for sign in "-:")
            kept = [file for name in names if (file := kept_file(top, name, parse_path(layer.name), layer.blob))]
            files += kept[:1]
            if not kept:
                left.append(Left(layer.name, f"its blob sha256-{layer.blob.digest.hex[:12]} is not here whole"))
    except BadReference as error:
        repo, tag, left = RepoId("ollama", "model", "ollama/unnamed"), "main", [Left(path, error.message)]
        files = []
    refs = ("main",) if tag == "latest" else ()
    return Found("Ollama store", str(top), repo, tuple(files), revision=tag, refs=refs, left=tuple(left))
