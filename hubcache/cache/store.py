"""The cache as a Store: resolves and opens what is there, takes blobs in, and publishes commits last.

Order of writing, so that a crash at any point leaves a cache that huggingface_hub reads:
blobs (each under its name only when verified) > snapshot links > trees/<commit>.json > refs.
"""

from __future__ import annotations

import errno
import os
import secrets
import shutil
from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager
from functools import cached_property
from pathlib import Path

from hubcache.cache.folder import RepoFolder
from hubcache.cache.placing import find_copy, link_files, place_files, unplaced
from hubcache.cache.provenance import source_text, write_provenance
from hubcache.cache.stage import CacheStage, stage_key
from hubcache.core.artifact import Artifact, Manifest, RepoId, RepoPath, Revision, is_commit, parse_commit
from hubcache.core.digests import Blob
from hubcache.core.layout import CACHEDIR_TAG, ORIGINAL, encode_tree
from hubcache.core.plan import CopyPlan
from hubcache.core.ports import Recalled
from hubcache.core.reference import Reference
from hubcache.core.scopenames import cached_revision
from hubcache.crew import Stop
from hubcache.errors import DiskFull, EntryNotFound, OfflineError
from hubcache.localfile import (
    FileContent,
    disk_error,
    free_space,
    sync_folder,
    temporary_name,
    tree_state,
    write_atomically,
)
from hubcache.transfer import BlobWriter

# Left free on the disk for listings, links and everybody else.
RESERVE = 16 << 20
_NO_SYMLINKS = {errno.EPERM, errno.ENOSYS, errno.ENOTSUP, errno.EOPNOTSUPP, errno.EINVAL}


class Cache:
    """The Hugging Face cache folder at `root` (HF_HUB_CACHE)."""

    def __init__(self, root: Path, *, symlinks: bool | None = None) -> None:
        self.root = root
        self._symlinks = symlinks
        self._stages: set[Path] = set()
        # Of a repo that is being pulled, the digests that an earlier pull left something of.
        self._resumable: dict[RepoId, frozenset[str]] = {}

    def folder(self, repo: RepoId) -> RepoFolder:
        """Return the repo's folder, which need not exist."""
        return RepoFolder(self.root, repo)

    def resolve(self, reference: Reference, /) -> Artifact:
        """Pin a reference from what is on disk.

        Raises:
            OfflineError: the repo or the revision is not in the cache.
        """
        folder = self.folder(reference.repo)
        name = cached_revision(reference)
        commit = folder.commit_of(name)
        if commit is None or not folder.snapshot_path(commit).is_dir():
            what = f"revision {reference.revision!r} of {reference.repo}" if folder.commits() else str(reference.repo)
            raise OfflineError(
                f"{what} is not in the cache {self.root}", hint=f"online, run: hubcache pull {reference.repo}"
            )
        listing = folder.listing(commit)
        manifest = folder.found(commit) if listing is None else listing
        # What a snapshot happens to hold is no listing of the commit, and must never be written down as one.
        return Artifact(reference.repo, Revision(name, commit), manifest, is_whole=listing is not None)

    def open(self, artifact: Artifact, path: RepoPath, start: int = 0, end: int | None = None) -> FileContent:
        """Open a cached file's bytes from `start` to before `end`."""
        folder = self.folder(artifact.repo)
        blob = artifact.entry(path).blob
        if folder.has_blob(blob):
            return FileContent(folder.blob_path(blob.digest), start, end)
        file = folder.snapshot_path(artifact.revision.commit) / path
        content = FileContent(file, start, end)
        if content.total != blob.size:
            content.close()
            raise EntryNotFound(f"{artifact.repo}/{path} is not in the cache {self.root} with its {blob.size} bytes")
        return content

    def close(self) -> None:
        """Hold nothing."""

    def listing(self, repo: RepoId, commit: str) -> Manifest | None:
        """Return the listing of a commit that is known here."""
        return self.folder(repo).listing(commit)

    def origin_of(self, repo: RepoId, ref: str) -> str | None:
        """Return what the ref's commit was pulled from (`hf:org/name`); None where there is no such ref.

        What huggingface_hub wrote has no provenance, and is the Hub's.
        """
        folder = self.folder(repo)
        commit = folder.commit_of(ref)
        return None if commit is None else str(folder.provenance(commit).get("source") or f"hf:{repo}")

    def recall(self, reference: Reference) -> Recalled | None:
        """Return the commit that this very reference became last time, and upstream's validator of then.

        Where that was converted, it is the commit that was published, not what it was turned into.
        """
        folder = self.folder(reference.repo)
        # Between a fetch and the end of its conversion, only refs/original means what was published.
        for name in (reference.revision, ORIGINAL):
            commit = folder.commit_of(name)
            if commit and (conversion := folder.conversion(commit)):
                commit = conversion.original
            told = folder.provenance(commit) if commit else {}
            manifest = folder.listing(commit) if commit else None
            if commit and manifest and told.get("source") == source_text(reference):
                return Recalled(commit, manifest, told.get("validator"), str(told.get("origin", "")))
        return None

    @contextmanager
    def stage(self, reference: Reference) -> Iterator[CacheStage]:
        """Hold the place where files wait until their commit is known; one process at a time has it."""
        with self._hold_stage(self.folder(reference.repo), stage_key(source_text(reference))) as stage:
            yield stage

    @contextmanager
    def conversion_stage(self, repo: RepoId, original: str) -> Iterator[CacheStage]:
        """Hold the place where the files wait that a commit is converted to; nothing of it outlives the block."""
        with self._hold_stage(self.folder(repo), stage_key(f"convert:{original}")) as stage:
            try:
                yield stage
            finally:
                shutil.rmtree(stage.folder, ignore_errors=True)

    @contextmanager
    def _hold_stage(self, folder: RepoFolder, key: str) -> Iterator[CacheStage]:
        from hubcache.cache.locks import held  # filelock costs 35 ms that a warm pull need not pay

        self._prepare(folder)
        place = folder.stage_path(key)
        with held(folder.lock_path(key), progress_of=lambda: tree_state(place), stop=Stop()) as is_held:
            stage = CacheStage(place if is_held else temporary_name(place), self.require_space)
            self._stages.add(stage.folder)
            try:
                yield stage
            finally:
                self._stages.discard(stage.folder)
                if not is_held:
                    shutil.rmtree(stage.folder, ignore_errors=True)

    def has(self, repo: RepoId, blob: Blob, /) -> bool:
        """Tell whether the blob is here, by name and size."""
        return self.folder(repo).has_blob(blob)

    def has_file(self, artifact: Artifact, path: RepoPath, blob: Blob) -> bool:
        """Tell whether the artifact's file is here; without links, also as another commit's."""
        folder = self.folder(artifact.repo)
        if folder.has_file(artifact.revision.commit, path, blob):
            return True
        return not self.symlinks and find_copy(folder, blob) is not None

    def write(self, repo: RepoId, blob: Blob, /, stop: Stop) -> AbstractContextManager[BlobWriter]:
        """Open a blob's writer, which publishes it only when its digest is right."""
        from hubcache.cache.writer import blob_writer  # filelock costs 35 ms that a warm pull need not pay

        folder = self.folder(repo)
        self._prepare(folder)
        known = self._resumable.get(repo)
        return blob_writer(folder, blob, stop=stop, resumable=known is None or blob.digest.hex in known)

    def require_space(self, size: int) -> None:
        """Check that `size` more bytes fit on the disk.

        Raises:
            DiskFull: says how many bytes are missing.
        """
        free = free_space(self.root)
        if size and size + RESERVE > free:
            raise DiskFull(
                f"{size} bytes are to come, and the disk of {self.root} has {free} free:"
                f" {size + RESERVE - free} bytes are missing",
                needed=size,
                free=free,
                hint="free some space, or choose another disk with --cache-dir or HF_HUB_CACHE",
            )

    def resumable_size(self, plan: CopyPlan) -> int:
        """Return the bytes of the plan's missing blobs that an interrupted pull left here."""
        folder = self.folder(plan.artifact.repo)
        digests = frozenset(file.name.partition(".")[0] for file in (folder.partials() if plan.missing else []))
        self._resumable[plan.artifact.repo] = digests
        if not digests:
            return 0
        from hubcache.cache.writer import leftover_size

        return sum(leftover_size(folder, file.blob) for file in plan.missing if file.blob.digest.hex in digests)

    def commit(self, artifact: Artifact, reference: Reference, /, paths: Iterable[RepoPath] | None = None) -> Path:
        """Make the artifact's files visible: links, listing, then refs; return the snapshot folder.

        `paths` are the files that were wanted (all of them, where it is None); their blobs are here.
        """
        folder = self.folder(artifact.repo)
        commit = parse_commit(artifact.revision.commit)
        self._prepare(folder)
        snapshot = folder.snapshot_path(commit)
        try:
            snapshot.mkdir(parents=True, exist_ok=True)
            sync_folder(folder.path / "blobs")
            waiting = unplaced(folder, artifact, list(artifact.manifest.files if paths is None else paths))
            if waiting:  # else not even the probe for links is written
                place = link_files if self.symlinks else place_files
                place(folder, artifact, waiting)
            if artifact.is_whole and not self._has_shared_listing(folder, commit):
                write_atomically(folder.tree_path(commit), encode_tree(artifact.manifest), scratch=folder.path)
            write_provenance(folder, artifact, reference)
            for name in (artifact.revision.asked, *artifact.refs):
                self._write_ref(folder, name, commit)
            self._drop_stage(folder, stage_key(source_text(reference)))
        except OSError as error:
            raise disk_error(error, folder.path) from error
        return snapshot

    def mark_absent(self, repo: RepoId, commit: str, path: RepoPath) -> None:
        """Remember, as huggingface_hub does, that the commit has no such file."""
        marker = self.folder(repo).absent_path(commit, path)
        try:
            self._prepare(self.folder(repo))
            marker.parent.mkdir(parents=True, exist_ok=True)
            marker.touch()
        except OSError as error:
            raise disk_error(error, marker) from error

    @cached_property
    def symlinks(self) -> bool:
        """Whether this cache's file system keeps relative symlinks; tried out once."""
        if self._symlinks is not None:
            return self._symlinks
        probe = self.root / ".locks" / f"probe-{secrets.token_hex(4)}"
        try:
            probe.parent.mkdir(parents=True, exist_ok=True)
            os.symlink("target", probe)
            try:
                return os.readlink(probe) == "target"
            finally:
                probe.unlink()
        except NotImplementedError:
            return False
        except OSError as error:
            # A full or read-only disk says nothing about links.
            if error.errno in _NO_SYMLINKS:
                return False
            raise disk_error(error, probe) from error

    def _prepare(self, folder: RepoFolder) -> None:
        """Make the repo's folders; one without `snapshots` would look corrupt to huggingface_hub."""
        try:
            self.root.mkdir(parents=True, exist_ok=True)
            tag = self.root / "CACHEDIR.TAG"
            if not tag.exists():
                write_atomically(tag, CACHEDIR_TAG.encode(), scratch=_locks_folder(self.root))
            if not folder.path.joinpath("snapshots").is_dir():
                self._make_folder(folder)
            for name in ("snapshots", "blobs", "refs"):
                folder.path.joinpath(name).mkdir(exist_ok=True)
        except OSError as error:
            raise disk_error(error, self.root) from error

    def _make_folder(self, folder: RepoFolder) -> None:
        """Make the repo's folder and its snapshots at one stroke."""
        scratch = temporary_name(_locks_folder(self.root) / folder.path.name)
        scratch.joinpath("snapshots").mkdir(parents=True)
        try:
            os.rename(scratch, folder.path)
        except OSError as error:
            shutil.rmtree(scratch, ignore_errors=True)
            if error.errno not in {errno.EEXIST, errno.ENOTEMPTY}:
                raise

    def _drop_stage(self, folder: RepoFolder, key: str) -> None:
        """Remove the stage of what is published now, unless another process works in it."""
        place = folder.stage_path(key)
        if place in self._stages:
            shutil.rmtree(place, ignore_errors=True)
        elif place.is_dir():
            from hubcache.cache.locks import held_if_free  # filelock costs 35 ms that a warm pull need not pay

            with held_if_free(folder.lock_path(key)) as is_held:
                if is_held:
                    shutil.rmtree(place, ignore_errors=True)

    def _has_shared_listing(self, folder: RepoFolder, commit: str) -> bool:
        """Tell whether the listing is there for everybody; huggingface_hub writes it for its user alone."""
        return folder.listing(commit) is not None and bool(folder.tree_path(commit).stat().st_mode & 0o040)

    def _write_ref(self, folder: RepoFolder, name: str, commit: str) -> None:
        """Write a ref of exactly 40 bytes, unless it is right already; a full commit needs none."""
        if is_commit(name):
            return
        path = folder.ref_path(name)
        try:
            if path.read_bytes() == commit.encode():
                return
        except OSError:
            pass
        write_atomically(path, commit.encode(), scratch=folder.path)
        sync_folder(path.parent)


def _locks_folder(root: Path) -> Path:
    """Return the one folder in the root in which huggingface_hub minds no strange file."""
    folder = root / ".locks"
    folder.mkdir(exist_ok=True)
    return folder
