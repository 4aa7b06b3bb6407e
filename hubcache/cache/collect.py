"""Carries out a plan of removal, under the locks, by renames into a trash bin; what to remove was decided before.

The reverse order of writing, so that a crash at any point leaves a cache that huggingface_hub reads: refs, then
snapshots, then what tells of them, then blobs, then the shared store's payloads. A repo goes in one piece.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path

from hubcache.cache.folder import RepoFolder
from hubcache.cache.locks import held_if_free
from hubcache.cache.pinned import read_pins
from hubcache.cache.pulls import is_held, pulling
from hubcache.cache.scan import scan_repos
from hubcache.cache.shared import REFS, has_store, payload_of, payload_path, without_users
from hubcache.cache.trash import (
    FOLDER,
    Bin,
    bins,
    empty,
    empty_remains,
    new_bin,
    payload_units,
    throw,
    tree_size,
)
from hubcache.cache.undo import Restored, undo
from hubcache.core.removal import Plan
from hubcache.errors import CacheLocked

LOCK = ".locks/hubcache-gc.lock"


@dataclass(frozen=True, slots=True)
class Removed:
    """What was done: bytes and paths that went; `bin` can be put back, "" where nothing can; `skipped` says why not."""

    size: int = 0
    paths: int = 0
    bin: str = ""
    emptied: int = 0
    skipped: tuple[tuple[str, str], ...] = ()


def remove(root: Path, plan: Plan) -> Removed:
    """Carry out a plan; what has changed since it was made is left alone and told.

    Raises:
        CacheLocked: another removal is at work.
        DiskFull, CacheError: a path cannot be moved; what was moved by then can be put back.
    """
    if not plan.going and not plan.bins:
        return Removed()
    with _alone(root):
        emptied = _empty_bins(root, plan)
        units = [unit for unit in plan.units() if os.path.lexists(root / unit)]
        if not units:
            return Removed(emptied=emptied)
        removal = _Removal(root, plan, units)
        into = removal.run()
        size = tree_size(into.path / "files")
        if plan.is_final:
            empty(root, into.name)
        else:
            empty_remains(root)
        name = "" if plan.is_final or not removal.moved else into.name
        return Removed(size, removal.moved, name, emptied, tuple(removal.skipped))


def put_back(root: Path) -> Restored:
    """Undo the last removal.

    Raises:
        NotFound: there is none.
        CacheLocked: another removal is at work.
        CacheError: it cannot be put back; nothing was moved then, or the next call goes on.
    """
    if not bins(root):
        return undo(root)  # which says so, and makes no lock file in a cache that may not be there
    with _alone(root):
        return undo(root)


@contextmanager
def _alone(root: Path) -> Iterator[None]:
    """Keep other removals out; where there is no locking, renames still lose nothing."""
    lock = root / LOCK
    with held_if_free(lock) as is_alone:
        if not is_alone and is_held(lock):
            raise CacheLocked(
                f"another removal is at work in {root}", hint="run the same command again when it is done"
            )
        yield


def _empty_bins(root: Path, plan: Plan) -> int:
    emptied = 0
    for name in plan.bins:
        emptied += tree_size(root / FOLDER / name)
        empty(root, name)
    empty_remains(root)
    return emptied


class _Removal:
    """One plan on its way; `moved` counts paths, `skipped` pairs those left alone with the reason."""

    def __init__(self, root: Path, plan: Plan, units: list[str]) -> None:
        self.moved = 0
        self.skipped: list[tuple[str, str]] = []
        self._root = root
        self._plan = plan
        self._units = units
        self._planned = frozenset(units)
        self._folders = {folder.path.name: folder for folder in scan_repos(root)}
        self._busy = {name: self._why_busy(name) for name in self._repos()}
        self._linked: dict[str, set[str]] = {}

    def run(self) -> Bin:
        """Move the units, one by one."""
        payloads = self._payloads()
        stored = [unit for unit in self._units if not unit.startswith("blobs/")] + payload_units(payloads)
        into = new_bin(self._root, stored, what=self._plan.what)
        for unit in self._units:
            if unit.startswith("blobs/"):
                continue
            if reason := self._why_not(unit):
                self.skipped.append((unit, reason))
                continue
            with self._lock_of(unit) as is_free:
                if not is_free:
                    self.skipped.append((unit, "its lock is held"))
                else:
                    self.moved += throw(into, unit)
        for payload, users in payloads.items():
            self._throw_payload(into, payload, users)
        return into

    def _repos(self) -> set[str]:
        return {unit.partition("/")[0] for unit in self._units} & set(self._folders)

    def _why_busy(self, name: str) -> str:
        if self._is_changed(f"{name}/pins.json"):
            return "its pins have changed meanwhile"
        return pulling(self._folders[name], time.time())

    def _payloads(self) -> dict[str, list[str]]:
        """Find the payloads that may lose a user, with the users that are known."""
        found: dict[str, list[str]] = {}
        if not has_store(self._root):
            return found
        for unit in self._units:
            parts = unit.split("/")
            if parts[0] == "blobs":
                found.setdefault(parts[-1], [])
            elif len(parts) == 1 and unit in self._folders:
                for name in _names(self._root / unit / "blobs"):
                    self._add_payload(f"{unit}/blobs/{name}", found)
            elif len(parts) == 3 and parts[1] == "blobs":
                self._add_payload(unit, found)
        for name in [folder for folder in _names(self._root) if "--" in folder] if found else ():
            for blob in _names(self._root / name / "blobs"):
                user = f"{name}/blobs/{blob}"
                if (payload := payload_of(f"{self._root}/{user}", str(self._root))) in found:
                    found[payload].append(user)
        return found

    def _add_payload(self, blob: str, found: dict[str, list[str]]) -> None:
        if payload := payload_of(f"{self._root}/{blob}", str(self._root)):
            found.setdefault(payload, [])

    def _throw_payload(self, into: Bin, payload: str, users: list[str]) -> None:
        with without_users(self._root, payload, users) as is_free:
            if is_free:
                # In this order, a crash leaves a payload without users, which a later gc finds.
                throw(into, payload_path(payload) + REFS)
                self.moved += throw(into, payload_path(payload))

    def _lock_of(self, unit: str) -> AbstractContextManager[bool]:
        folder, _, rest = unit.partition("/")
        if folder in self._folders and rest.startswith("blobs/"):
            lock = self._folders[folder].lock_path(rest.removeprefix("blobs/").partition(".")[0])
            # Where there is no lock file, nobody holds it, and none is to be left behind.
            if lock.exists():
                return held_if_free(lock)
        return nullcontext(True)

    def _why_not(self, unit: str) -> str:
        """Say what has come up since the plan was made."""
        name, _, rest = unit.partition("/")
        folder = self._folders.get(name)
        if name == ".locks" and is_held(self._root / unit):
            return "it is held by now"
        if folder is None:
            return "it has changed meanwhile" if self._is_changed(unit) else ""
        if self._busy[name]:
            return self._busy[name]
        if not rest:
            return self._why_not_whole(folder)
        kind, _, what = rest.partition("/")
        if kind == "snapshots" and "/" not in what:
            return self._why_not_commit(folder, what)
        if kind == "refs" and self._keeps_commit(folder, what):
            return "its commit has changed meanwhile"
        if kind in {"trees", "provenance", ".no_exist"}:
            commit = what.removesuffix(".json")
            return "its commit is here" if folder.snapshot_path(commit).is_dir() else ""
        if kind == "blobs" and what in self._linked_blobs(folder):
            return "a snapshot links to it by now"
        return "it has changed meanwhile" if self._is_changed(unit) else ""

    def _why_not_whole(self, folder: RepoFolder) -> str:
        if read_pins(folder):
            return "it is pinned by now"
        paths = [folder.path.name, *(f"{folder.path.name}/{name}" for name in ("blobs", "snapshots", "refs"))]
        paths += [f"{folder.path.name}/refs/{name}" for name in folder.refs()]
        return "it has changed meanwhile" if any(map(self._is_changed, paths)) else ""

    def _why_not_commit(self, folder: RepoFolder, commit: str) -> str:
        refs = [name for name, held in folder.refs().items() if held == commit]
        if refs:
            return f"{refs[0]} means it by now"
        return "it has changed meanwhile" if self._is_changed(f"{folder.path.name}/snapshots/{commit}") else ""

    def _keeps_commit(self, folder: RepoFolder, ref: str) -> bool:
        """Tell whether the commit that was to go with the ref will be left alone."""
        snapshot = f"{folder.path.name}/snapshots/{folder.commit_of(ref)}"
        return snapshot in self._planned and self._is_changed(snapshot)

    def _linked_blobs(self, folder: RepoFolder) -> set[str]:
        """Name the blobs that are linked when the snapshots have gone; read once, before the first blob goes."""
        if folder.path.name not in self._linked:
            self._linked[folder.path.name] = folder.linked_blobs()
        return self._linked[folder.path.name]

    def _is_changed(self, path: str) -> bool:
        try:
            return os.lstat(self._root / path).st_ctime > self._plan.at
        except OSError:
            return False


def _names(folder: Path) -> list[str]:
    try:
        return sorted(os.listdir(folder))
    except OSError:
        return []
