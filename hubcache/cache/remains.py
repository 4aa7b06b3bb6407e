"""What interrupted writes and gone commits left in a cache, found; whether it goes is core/gc.py's to say."""

from __future__ import annotations

import os
import re
from collections.abc import Collection, Iterable, Iterator
from dataclasses import replace
from pathlib import Path

from hubcache.cache.folder import RepoFolder
from hubcache.cache.pulls import is_held
from hubcache.cache.quarantine import FOLDER as QUARANTINE
from hubcache.cache.quarantine import is_missed, read_missed
from hubcache.cache.scan import PARTIAL, is_temporary, partial_size, walk
from hubcache.cache.trash import FOLDER, tree_size
from hubcache.core.artifact import is_commit
from hubcache.core.inventory import Leftover, LeftoverKind

_SCRATCH = re.compile(r"\..*\.[0-9a-f]{8}\.tmp|probe-[0-9a-f]{8}")


def repo_leftovers(folder: RepoFolder, commits: Collection[str]) -> Iterator[Leftover]:
    """List a repo's; `commits` are those that have a snapshot."""
    for name in ("blobs", "refs", "trees", "provenance"):
        for path, entry in walk(str(folder.path / name), lambda _: None):
            if is_temporary(entry.name):
                yield _single(folder, "partial" if entry.name.endswith(PARTIAL) else "temporary", f"{name}/{path}")
    for name in _names(folder.path):
        if is_temporary(name):
            yield _single(folder, "temporary", name)
    for name in _names(folder.path / ".staging"):
        yield _single(folder, "stage", f".staging/{name}")
    misses = _misses(folder)
    for name in _names(folder.path / QUARANTINE):
        yield replace(_single(folder, "quarantine", f"{QUARANTINE}/{name}"), misses=misses.get(name, frozenset()))
    yield from _of_gone_commits(folder, commits)
    yield from _locks(folder.root, folder.path.name, _live_locks(folder))


def _misses(folder: RepoFolder) -> dict[str, frozenset[str]]:
    """Name for each record of what was set aside the commits that still miss files by it."""
    return {
        missed.record.name: frozenset(link[0] for link in missed.links if is_missed(folder, link))
        for missed in read_missed(folder)
    }


def _of_gone_commits(folder: RepoFolder, commits: Collection[str]) -> Iterator[Leftover]:
    for name in _names(folder.path / ".no_exist"):
        if name not in commits:
            yield _single(folder, "markers", f".no_exist/{name}")
    kinds: tuple[tuple[str, LeftoverKind], ...] = (("trees", "listing"), ("provenance", "provenance"))
    for top, kind in kinds:
        for name in _names(folder.path / top):
            commit = name.removesuffix(".json")
            if is_commit(commit) and commit != name and commit not in commits:
                yield _single(folder, kind, f"{top}/{name}")


def root_leftovers(root: Path) -> Iterator[Leftover]:
    """List those in `.locks`: scratch of ours, and the locks of repos that are gone."""
    locks = root / ".locks"
    for name in _names(locks):
        if _SCRATCH.fullmatch(name):
            path = locks / name
            yield Leftover("temporary", (f".locks/{name}",), tree_size(path), _since(path))
        elif name != os.path.basename(FOLDER) and "--" in name and not (root / name).exists():
            yield from _locks(root, name, set())


def _locks(root: Path, name: str, live: Collection[str]) -> Iterator[Leftover]:
    """Gather a repo's lock files that nobody holds and that no blob here needs, as one leftover."""
    folder = root / ".locks" / name
    stale = [
        lock
        for lock in _names(folder)
        if lock.endswith(".lock") and lock.removesuffix(".lock") not in live and not is_held(folder / lock)
    ]
    if stale:
        since = max(_since(folder / lock) for lock in stale)
        yield Leftover("locks", tuple(f".locks/{name}/{lock}" for lock in stale), 0, since)


def _live_locks(folder: RepoFolder) -> set[str]:
    """Name the blobs and stages that are here, whose locks may be asked for again."""
    return {name.partition(".")[0] for name in _names(folder.path / "blobs")} | set(_names(folder.path / ".staging"))


def _single(folder: RepoFolder, kind: LeftoverKind, path: str) -> Leftover:
    file = folder.path / path
    try:
        size = partial_size(file.lstat()) if kind == "partial" else tree_size(file)
    except OSError:
        size = 0
    return Leftover(kind, (f"{folder.path.name}/{path}",), size, _since(file))


def _since(path: Path) -> float:
    """Return when a file, or the newest below a folder, was written."""
    newest = 0.0
    for file in _below(path):
        try:
            newest = max(newest, file.lstat().st_mtime)
        except OSError:
            continue
    return newest


def _below(path: Path) -> Iterable[Path]:
    yield path
    if path.is_dir() and not path.is_symlink():
        yield from path.rglob("*")


def _names(folder: Path) -> list[str]:
    try:
        return sorted(os.listdir(folder))
    except OSError:
        return []
