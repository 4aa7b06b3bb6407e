"""A commit's files in its snapshot folder: links to the blobs, or real files where there are no links."""

from __future__ import annotations

import os
import shutil
from contextlib import suppress
from pathlib import Path

from hubcache.cache.folder import RepoFolder
from hubcache.core.artifact import Artifact, RepoPath
from hubcache.core.digests import Blob
from hubcache.core.layout import link_target
from hubcache.errors import CacheError
from hubcache.localfile import sync_file, temporary_name


def unplaced(folder: RepoFolder, artifact: Artifact, paths: list[RepoPath]) -> list[RepoPath]:
    """List the paths that are not in the snapshot: neither as the right link, nor as a real file of the right size."""
    snapshot = folder.snapshot_path(artifact.revision.commit)
    return [path for path in paths if not _is_placed(folder, snapshot / path, path, artifact.entry(path).blob)]


def _is_placed(folder: RepoFolder, file: Path, path: RepoPath, blob: Blob) -> bool:
    try:
        return os.readlink(file) == link_target(path, blob.digest) and folder.has_blob(blob)
    except OSError:  # no link
        return _is_file(file, blob)


def link_files(folder: RepoFolder, artifact: Artifact, paths: list[RepoPath]) -> None:
    """Point the snapshot's entries at their blobs.

    Raises:
        CacheError: a blob is gone.
    """
    for path in paths:
        blob, file = artifact.entry(path).blob, folder.snapshot_path(artifact.revision.commit) / path
        if not folder.has_blob(blob):
            raise _gone(folder, blob)
        file.parent.mkdir(parents=True, exist_ok=True)
        _link(link_target(path, blob.digest), file, scratch=folder.path)


def place_files(folder: RepoFolder, artifact: Artifact, paths: list[RepoPath]) -> None:
    """Put real files into the snapshot; a blob that no link needs is moved, as huggingface_hub does.

    Raises:
        CacheError: the bytes of a file are nowhere.
    """
    waiting: dict[Blob, list[Path]] = {}
    for path in paths:
        file = folder.snapshot_path(artifact.revision.commit) / path
        file.parent.mkdir(parents=True, exist_ok=True)
        waiting.setdefault(artifact.entry(path).blob, []).append(file)
    linked = folder.linked_blobs() if waiting else set()
    for blob, files in waiting.items():
        own = folder.blob_path(blob.digest)
        source = own if folder.has_blob(blob) else find_copy(folder, blob)
        if source is None:
            raise _gone(folder, blob)
        for file in files[1:]:
            _copy_atomically(source, file, scratch=folder.path)
        # A link into the shared blob store means nothing in another folder.
        if source == own and own.name not in linked and not own.is_symlink():
            os.replace(own, files[0])
        else:
            _copy_atomically(source, files[0], scratch=folder.path)


def find_copy(folder: RepoFolder, blob: Blob) -> Path | None:
    """Find the blob's bytes as a real file of some commit."""
    for commit in folder.commits():
        manifest = folder.listing(commit)
        for path, entry in manifest.files.items() if manifest else ():
            file = folder.snapshot_path(commit) / path
            if entry.blob == blob and not file.is_symlink() and _is_file(file, blob):
                return file
    return None


def _is_file(file: Path, blob: Blob) -> bool:
    return file.is_file() and file.stat().st_size == blob.size


def _link(target: str, file: Path, *, scratch: Path) -> None:
    """Make the file a link to the target, atomically."""
    with suppress(FileExistsError):
        os.symlink(target, file)
        return
    temporary = temporary_name(scratch / file.name)
    os.symlink(target, temporary)
    os.replace(temporary, file)


def _copy_atomically(source: Path, file: Path, *, scratch: Path) -> None:
    temporary = temporary_name(scratch / file.name)
    try:
        shutil.copyfile(source, temporary)
        sync_file(temporary)
        os.replace(temporary, file)
    except OSError:
        with suppress(OSError):
            temporary.unlink()
        raise


def _gone(folder: RepoFolder, blob: Blob) -> CacheError:
    return CacheError(f"{folder.blob_path(blob.digest)} was removed meanwhile", hint="run the same command again")
