"""A cache that is being damaged at random: what may still be drawn for damage, so that no fault hides another.

How it is damaged is randomfaults.py's to know; nothing is judged here.
"""

from __future__ import annotations

import os
import random
from dataclasses import dataclass, field
from pathlib import Path

from hubcache.cache.folder import RepoFolder
from hubcache.cache.scan import scan_repos


@dataclass(frozen=True, slots=True)
class Told:
    """Where a fault must be told: the repo's folder, the path in it, and one of these kinds."""

    repo: str
    path: str
    kinds: tuple[str, ...]


@dataclass(slots=True)
class Wreck:
    """A cache on its way down; `gone` are commits whose bytes nobody can know to have been here."""

    root: Path
    rng: random.Random
    taken: set[Path] = field(default_factory=set)
    used: set[Path] = field(default_factory=set)  # snapshots in which a single file was damaged
    gone: set[tuple[str, str]] = field(default_factory=set)
    told: list[Told] = field(default_factory=list)
    names: list[str] = field(default_factory=list)

    def repo(self) -> RepoFolder:
        """Draw a repo."""
        return self.rng.choice(list(scan_repos(self.root)))

    def tell(self, folder: RepoFolder, path: str, *kinds: str) -> None:
        """Note where a fault must be told."""
        self.told.append(Told(folder.path.name, path, kinds))

    def blob(self, folder: RepoFolder, *, stored: bool = False) -> Path | None:
        """Draw a sound, untouched blob and take it with all links to it."""
        found = []
        for blob in sorted(folder.path.glob("blobs/*")):
            links = links_to(folder, blob.name)
            if blob.is_symlink() == stored and blob.is_file() and links and not self.taken & {blob, *links}:
                found.append(blob)
        return self._take(folder, found)

    def _take(self, folder: RepoFolder, found: list[Path]) -> Path | None:
        if not found:
            return None
        blob = self.rng.choice(found)
        self.taken |= {blob, *links_to(folder, blob.name)}
        return blob

    def file(self, folder: RepoFolder) -> Path | None:
        """Draw an untouched file or link of a listed snapshot and take it, with its blob and all its other links."""
        found = []
        for file in sorted(folder.path.glob("snapshots/*/**/*")):
            snapshot = snapshot_of(folder, file)
            if file.is_dir() or snapshot in self.taken or not folder.tree_path(snapshot.name).is_file():
                continue
            if not self.taken & self._with_its_blob(folder, file):
                found.append(file)
        if not found:
            return None
        file = self.rng.choice(found)
        self.taken |= self._with_its_blob(folder, file)
        self.used.add(snapshot_of(folder, file))
        return file

    def _with_its_blob(self, folder: RepoFolder, file: Path) -> set[Path]:
        if not file.is_symlink():
            return {file}
        name = os.path.basename(os.readlink(file))
        return {file, folder.path / "blobs" / name, *links_to(folder, name)}

    def snapshot(self, folder: RepoFolder) -> Path | None:
        """Draw a snapshot with a listing, of which nothing was touched, and take it."""
        found = [
            snapshot
            for snapshot in sorted(folder.path.glob("snapshots/*"))
            if snapshot.is_dir() and folder.tree_path(snapshot.name).is_file()
            if snapshot not in self.taken | self.used and not any(file in self.taken for file in snapshot.rglob("*"))
        ]
        if not found:
            return None
        snapshot = self.rng.choice(found)
        for file in snapshot.rglob("*"):
            if not file.is_dir() or file.is_symlink():
                self.taken |= self._with_its_blob(folder, file)
        self.taken.add(snapshot)
        return snapshot

    def ref(self, folder: RepoFolder) -> Path | None:
        """Draw an untouched ref and take it."""
        refs = [folder.ref_path(name) for name in sorted(folder.refs())]
        found = [ref for ref in refs if ref not in self.taken]
        if not found:
            return None
        ref = self.rng.choice(found)
        self.taken.add(ref)
        return ref


def links_to(folder: RepoFolder, name: str) -> list[Path]:
    """List the links of the snapshots that lead to a blob."""
    return [
        file
        for file in sorted(folder.path.glob("snapshots/**/*"))
        if file.is_symlink() and os.path.basename(os.readlink(file)) == name
    ]


def snapshot_of(folder: RepoFolder, file: Path) -> Path:
    return folder.snapshot_path(file.relative_to(folder.path / "snapshots").parts[0])
