"""Caches made by hand for gc and rm, and what stands in them, told exactly; nothing is judged here."""

from __future__ import annotations

import os
import stat
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from hubcache.cache.folder import RepoFolder
from hubcache.core.artifact import Entry, Manifest, RepoId, RepoPath
from hubcache.core.digests import Blob, digest_bytes
from hubcache.core.layout import CACHEDIR_TAG, encode_tree, link_target

DAY = 86400


@dataclass(frozen=True, slots=True)
class MadeCache:
    """A cache folder that is written without any client."""

    root: Path

    def folder(self, name: str) -> RepoFolder:
        return RepoFolder(self.root, RepoId.parse(name))

    def commit(self, name: str, commit: str, files: Mapping[str, bytes], *, refs: tuple[str, ...] = ()) -> RepoFolder:
        """Write a commit with its listing and refs, as huggingface_hub would have left it; "a" becomes "aaaa…"."""
        folder, commit = self.folder(name), commit * 40
        snapshot = folder.snapshot_path(commit)
        for top in (snapshot, folder.path / "blobs", folder.path / "refs", folder.path / "trees"):
            top.mkdir(parents=True, exist_ok=True)
        self.root.joinpath("CACHEDIR.TAG").write_text(CACHEDIR_TAG)
        entries = {}
        for path, content in files.items():
            digest = digest_bytes("sha256", content)
            if not os.path.lexists(folder.blob_path(digest)):
                folder.blob_path(digest).write_bytes(content)
            (snapshot / path).parent.mkdir(parents=True, exist_ok=True)
            (snapshot / path).symlink_to(link_target(RepoPath(path), digest))
            entries[RepoPath(path)] = Entry(Blob(digest, len(content)))
        folder.tree_path(commit).write_bytes(encode_tree(Manifest(entries)))
        for ref in refs:
            folder.ref_path(ref).parent.mkdir(parents=True, exist_ok=True)
            folder.ref_path(ref).write_text(commit)
        return folder

    def orphan(self, name: str, content: bytes) -> Path:
        """Write a blob that nothing links to, an hour ago."""
        blob = self.folder(name).blob_path(digest_bytes("sha256", content))
        blob.parent.mkdir(parents=True, exist_ok=True)
        blob.write_bytes(content)
        age(blob, 3600)
        return blob

    def share(self, payload: str, content: bytes, *names: str) -> Path:
        """Move the blob of a content to the shared store, for these repos, as huggingface_hub does."""
        payload, digest = payload * 32, digest_bytes("sha256", content)
        store = self.root / "blobs" / payload[:2]
        store.mkdir(parents=True, exist_ok=True)
        (self.root / "blobs" / ".huggingface-shared-blobs").write_text("1\n")
        (store / payload).write_bytes(content)
        for name in names:
            blob = self.folder(name).blob_path(digest)
            with (store / f"{payload}.refs").open("a") as file:
                file.write(f"{blob.relative_to(self.root).as_posix()}\n")
            blob.unlink(missing_ok=True)
            blob.symlink_to(f"../../blobs/{payload[:2]}/{payload}")
        return store / payload


def age(path: Path, seconds: float) -> None:
    """Make a file, or all below a folder, as old as that."""
    at = time.time() - seconds
    for each in [path, *(path.rglob("*") if path.is_dir() and not path.is_symlink() else ())]:
        os.utime(each, (at, at), follow_symlinks=False)


Standing = Mapping[str, tuple[object, ...]]


def standing(root: Path, *, times: bool = True) -> Standing:
    """Tell all that stands in a cache, `.locks` excepted: kinds, modes, link targets, bytes, times of change."""
    found: dict[str, tuple[object, ...]] = {}
    for folder, folders, names in os.walk(root):
        if Path(folder) == root and ".locks" in folders:
            folders.remove(".locks")
        for path in [Path(folder, name) for name in (*folders, *names)]:
            status = path.lstat()
            if stat.S_ISLNK(status.st_mode):
                what: object = os.readlink(path)
            else:
                what = _read(path) if stat.S_ISREG(status.st_mode) else "folder"
            told = (stat.S_IMODE(status.st_mode), status.st_mtime_ns) if times else ()
            found[path.relative_to(root).as_posix()] = (what, *told)
    return {path: told for path, told in found.items() if not path.endswith(".lock")}


def _read(path: Path) -> bytes:
    """Read a file without a trace: that it was read counts as use."""
    with open(os.open(path, os.O_RDONLY | os.O_NOATIME), "rb") as file:
        return file.read()


def paths(found: Standing) -> set[str]:
    """Name the files and links, without folders."""
    return {path for path, told in found.items() if told[0] != "folder"}
