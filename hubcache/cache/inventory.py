"""Looks through a cache for what stands there, who links to it and who is at work; nothing is hashed or decided."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from hubcache.cache.folder import RepoFolder
from hubcache.cache.links import follow
from hubcache.cache.openfiles import OpenFiles, open_files
from hubcache.cache.pinned import read_pins
from hubcache.cache.pulls import pulling
from hubcache.cache.remains import repo_leftovers, root_leftovers
from hubcache.cache.scan import held_refs, is_temporary, scan_repos, walk
from hubcache.cache.shared import payload_of, payloads
from hubcache.cache.trash import bin_facts, bins, remains
from hubcache.core.artifact import is_commit
from hubcache.core.digests import Digest
from hubcache.core.inventory import HeldBlob, HeldCommit, HeldRepo, Inventory, Payload
from hubcache.errors import BadReference
from hubcache.localfile import free_space

KNOWN = {"blobs", "refs", "snapshots", "trees", "provenance", ".no_exist", ".staging", "quarantine", "pins.json"}
"""What hubcache and huggingface_hub put into a repo's folder."""


def take_inventory(root: Path, served: Mapping[str, float] | None = None) -> Inventory:
    """Look at the whole cache; `served` tells when files of a repo were served last (unix seconds), by folder name.

    Raises:
        CacheError: it is there and cannot be listed.
    """
    at = time.time()
    opened = open_files(str(root))
    looking = _Looking(root, opened, at, served or {})
    repos = tuple(looking.repo(folder) for folder in scan_repos(root))
    notes_use = _notes_use(root)
    notes = [opened.note] if opened.note else []
    if not notes_use:
        notes.append("this disk does not note when a file is read: the last change counts as the last use")
    return Inventory(
        repos=repos,
        payloads=tuple(looking.payloads()),
        bins=(*remains(root), *(bin_facts(each) for each in bins(root))),
        leftovers=tuple(root_leftovers(root)),
        at=at,
        free=free_space(root),
        notes_use=notes_use,
        notes=tuple(notes),
    )


def _notes_use(root: Path) -> bool:
    with suppress(OSError):
        return not os.statvfs(root).f_flag & getattr(os, "ST_NOATIME", 0)
    return True


@dataclass(frozen=True, slots=True)
class _Blob:
    """A blob with what its commits want to know of it."""

    held: HeldBlob
    used: float


class _Looking:
    def __init__(self, root: Path, opened: OpenFiles, now: float, served: Mapping[str, float]) -> None:
        self._served = served
        self._root = str(root)
        self._opened = opened
        self._now = now
        self._payloads = {name: status for name, status in payloads(root)}
        self._users: dict[str, set[str]] = {}

    def repo(self, folder: RepoFolder) -> HeldRepo:
        """Look at one repo."""
        path, name = str(folder.path), str(folder.repo)
        if os.path.islink(path) or not os.path.isdir(path):
            return HeldRepo(folder.path.name, name, problem="its folder is a link or a file, hubcache did not make it")
        problems: list[str] = []
        refs = {ref: held.decode("ascii", "replace").strip() for ref, held in _refs(path, problems).items()}
        blobs = {blob.held.name: blob for blob in self._blobs(path, problems)}
        commits = tuple(self._commit(folder, name, refs, blobs, problems) for name in _snapshots(path, problems))
        known = {commit.name for commit in commits}
        is_foreign = any(commit not in known for commit in refs.values()) or not _is_known(path)
        return HeldRepo(
            folder=folder.path.name,
            name=name,
            commits=commits,
            blobs=tuple(blob.held for blob in blobs.values()),
            leftovers=tuple(repo_leftovers(folder, known)),
            pins=pin_words(folder),
            pulling=pulling(folder, self._now),
            problem=f"it cannot be read: {problems[0]}" if problems else "",
            is_foreign=is_foreign,
            since=_changed(path),
        )

    def payloads(self) -> Iterator[Payload]:
        """List the shared store; every repo was looked at before, kernels are here."""
        for folder in self._other_folders():
            for entry in _entries(f"{folder}/blobs", []):
                self._stored(entry.path)
        for name, status in self._payloads.items():
            users = frozenset(self._users.get(name, ()))
            since = max(status.st_mtime, status.st_ctime)
            yield Payload(name, status.st_size, users, since, self._opened.busy(status))

    def _other_folders(self) -> Iterator[str]:
        """List the folders that may use the store and are no repo of ours, such as kernels."""
        if self._payloads:
            ours = {folder.path.name for folder in scan_repos(Path(self._root))}
            for entry in _entries(self._root, []):
                if "--" in entry.name and entry.name not in ours:
                    yield entry.path

    def _stored(self, path: str) -> str:
        """Return the name of the payload that a blob leads to, and count the blob as its user."""
        name = payload_of(path, self._root)
        if name:
            self._users.setdefault(name, set()).add(os.path.relpath(path, self._root))
        return name

    def _blobs(self, path: str, problems: list[str]) -> Iterator[_Blob]:
        for entry in _entries(f"{path}/blobs", problems):
            if is_temporary(entry.name):
                continue
            with suppress(FileNotFoundError):  # renamed meanwhile: a pull is at work
                status = entry.stat(follow_symlinks=False)
                stored = self._stored(entry.path) if entry.is_symlink() else ""
                real = self._payloads.get(stored, status)
                is_known = _is_digest(entry.name) and (bool(stored) or entry.is_file(follow_symlinks=False))
                size = 0 if entry.is_symlink() else status.st_size
                busy = self._opened.busy(real)
                held = HeldBlob(entry.name, size, status.st_mtime, stored, busy, is_known)
                yield _Blob(held, max(real.st_atime, real.st_mtime))

    def _commit(
        self, folder: RepoFolder, commit: str, refs: Mapping[str, str], blobs: Mapping[str, _Blob], problems: list[str]
    ) -> HeldCommit:
        top, repo = str(folder.snapshot_path(commit)), str(folder.path)
        links, files, busy, since = {}, {}, "", os.lstat(top).st_mtime
        used = max(since, self._served.get(folder.path.name, 0.0))
        for path, entry in walk(top, problems.append):
            status = entry.stat(follow_symlinks=False)
            if not entry.is_symlink():
                files[path] = status.st_size
                busy, used = busy or self._opened.busy(status), max(used, status.st_atime, status.st_mtime)
            elif (lead := follow(entry.path, repo=repo, root=self._root)).place == "blob":
                links[path] = lead.end
                if (blob := blobs.get(lead.end)) is not None:
                    busy, used = busy or blob.held.busy, max(used, blob.used)
        made = folder.conversion(commit) if is_commit(commit) else None
        names = tuple(sorted(ref for ref, held in refs.items() if held == commit))
        original = "" if made is None else made.original
        return HeldCommit(commit, names, links, files, used, since, busy, original, tuple(_extras(folder, commit)))


def _refs(path: str, problems: list[str]) -> dict[str, bytes]:
    return held_refs(f"{path}/refs", problems.append) if os.path.isdir(f"{path}/refs") else {}


def pin_words(folder: RepoFolder) -> dict[str, str]:
    """Say of each pin since when it holds, and why."""
    found = {}
    for name, pinned in read_pins(folder).items():
        words = f"pinned since {datetime.fromtimestamp(pinned.at):%Y-%m-%d}" if pinned.at else "pinned"
        found[name] = words + (f": {pinned.why}" if pinned.why else "")
    return found


def _extras(folder: RepoFolder, commit: str) -> Iterator[str]:
    for path in (folder.tree_path(commit), folder.provenance_path(commit), folder.path / ".no_exist" / commit):
        if os.path.lexists(path):
            yield path.relative_to(folder.root).as_posix()


def _snapshots(path: str, problems: list[str]) -> list[str]:
    entries = _entries(f"{path}/snapshots", problems)
    return sorted(entry.name for entry in entries if entry.is_dir(follow_symlinks=False))


def _entries(path: str, problems: list[str]) -> list[os.DirEntry[str]]:
    try:
        with os.scandir(path) as entries:
            return list(entries)
    except (FileNotFoundError, NotADirectoryError):
        return []
    except OSError as error:
        problems.append(f"{os.path.basename(path)} cannot be listed: {error.strerror}")
        return []


def _is_known(path: str) -> bool:
    return all(entry.name in KNOWN or is_temporary(entry.name) for entry in _entries(path, []))


def _is_digest(name: str) -> bool:
    try:
        Digest.parse(name)
    except BadReference:
        return False
    return True


def _changed(path: str) -> float:
    status = os.lstat(path)
    return max(status.st_mtime, status.st_ctime)
