"""One blob on its way into the cache: its partial file, claimed or new, its verification, its name."""

from __future__ import annotations

import os
import secrets
from collections.abc import Collection, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from hubcache.cache.folder import RepoFolder
from hubcache.cache.locks import held
from hubcache.core.digests import Blob
from hubcache.crew import Stop
from hubcache.errors import CacheError, IntegrityError
from hubcache.localfile import disk_error
from hubcache.partial import PartialFile

# huggingface_hub's own suffix, so that its prune finds what a crash left for good.
SUFFIX = ".incomplete"
JOURNAL = ".ranges" + SUFFIX


class CacheBlobWriter:
    """Writes `blobs/<digest>` by way of `blobs/<digest>.<8 hex>.incomplete`.

    A new partial file's name is ours alone, and one that another process left is taken over in its place,
    where nobody else has it open: two processes never write to one file, lock or no lock.
    """

    def __init__(self, folder: RepoFolder, blob: Blob) -> None:
        self._folder = folder
        self._blob = blob
        self.partial: PartialFile | None = None

    def begin(self, *, claim: bool) -> None:
        """Open a partial file: where `claim` allows it the furthest that another process left, dropping the others."""
        self.partial = None
        for leftover in leftovers(self._folder, self._blob) if claim else []:
            with suppress(CacheError):  # in use, or another user's
                partial = self._open(leftover)
                if self.partial is None:
                    self.partial = partial
                else:
                    partial.discard()
        if self.partial is None:
            blob = self._folder.blob_path(self._blob.digest)
            self.partial = self._open(blob.with_name(f"{blob.name}.{secrets.token_hex(4)}{SUFFIX}"))

    def _open(self, path: Path) -> PartialFile:
        journal = path.with_name(path.name.removesuffix(SUFFIX) + JOURNAL)
        return PartialFile(path, self._blob.size, algorithms=(self._blob.digest.algorithm,), journal=journal)

    def publish(self, origins: Collection[str], /) -> None:
        """Verify the digest and give the bytes their name; `partial` is a fresh one if they were wrong.

        Raises:
            IntegrityError: the bytes are not the blob's; they are dropped and their origins named.
        """
        partial = self.partial
        assert partial is not None
        digest = self._blob.digest
        computed = partial.digests()[digest.algorithm]
        if computed != digest.hex:
            partial.discard()
            self.begin(claim=False)
            raise IntegrityError(
                f"{' and '.join(sorted(origins)) or 'the partial file'} sent bytes whose {digest.algorithm} is"
                f" {computed}, where the listing says {digest.hex}; nothing was kept",
                hint="another mirror may have the right bytes",
            )
        partial.sync()
        partial.settle()
        try:
            os.replace(partial.path, self._folder.blob_path(digest))
        except OSError as error:
            raise disk_error(error, partial.path) from error
        partial.close()
        self.partial = None

    def close(self) -> None:
        """Close the partial file; its bytes stay for the next process, unless there are none."""
        if self.partial is None:
            return
        if self.partial.received():
            self.partial.close()
        else:
            with suppress(CacheError):
                self.partial.discard()


@contextmanager
def blob_writer(folder: RepoFolder, blob: Blob, *, stop: Stop, resumable: bool = True) -> Iterator[CacheBlobWriter]:
    """Hold the blob's lock and open its writer; its `partial` is None if another process brought the blob.

    `resumable` is False where nothing of the blob was here before: to look for it in a folder of many
    thousand blobs, for each of them, costs more than the transfer.
    """
    waited = False

    def progress() -> object:
        nonlocal waited
        waited = True
        return [(file.name, _written_at(file)) for file in leftovers(folder, blob)]

    writer = CacheBlobWriter(folder, blob)
    with held(folder.lock_path(blob.digest.hex), progress_of=progress, stop=stop) as is_held:
        if not folder.has_blob(blob) and not stop.is_set():
            writer.begin(claim=is_held and (resumable or waited))
        try:
            yield writer
        finally:
            writer.close()


def leftovers(folder: RepoFolder, blob: Blob) -> list[Path]:
    """List the blob's partial files, largest first."""
    found = folder.path.joinpath("blobs").glob(f"{blob.digest.hex}.*{SUFFIX}")
    partials = [file for file in found if not file.name.endswith(JOURNAL)]
    return sorted(partials, key=lambda file: -_allocated(file))


def leftover_size(folder: RepoFolder, blob: Blob) -> int:
    """Return the bytes of the blob that stand on the disk already."""
    return min(blob.size, max((_allocated(file) for file in leftovers(folder, blob)), default=0))


def _allocated(file: Path) -> int:
    """Return the bytes that really stand on the disk; a file filled out of order is longer than that."""
    try:
        status = file.stat()
    except OSError:
        return -1
    return int(getattr(status, "st_blocks", 0)) * 512 or status.st_size


def _written_at(file: Path) -> int:
    """Return when the file was last written to, in ns; its length says nothing while a gap in it is filled."""
    try:
        return file.stat().st_mtime_ns
    except OSError:
        return -1
