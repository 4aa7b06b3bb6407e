"""Where the files of what is no git repo wait, hashed, until all are there and their commit can be computed."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path

from hubcache.core.artifact import Manifest, RepoPath
from hubcache.core.digests import new_hasher
from hubcache.core.gitobj import ContentDigests
from hubcache.errors import EntryNotFound, IntegrityError
from hubcache.localfile import digest_file, disk_error


def stage_key(source: str) -> str:
    """Name the stage of a source: the same in every process, so that the next one goes on."""
    return hashlib.sha256(source.encode("utf-8", "surrogatepass")).hexdigest()[:16]


class CacheStage:
    """A folder `.staging/<key>` in the repo's folder, which huggingface_hub does not look into."""

    def __init__(self, folder: Path, require_space: Callable[[int], None]) -> None:
        self.folder = folder
        self.require_space = require_space
        self._files: dict[RepoPath, tuple[Path, ContentDigests]] = {}
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise disk_error(error, self.folder) from error

    def place(self, path: RepoPath, file: Path, /) -> None:
        """Take a finished file of this folder as the repo's `path`, and hash it."""
        try:
            self._files[path] = file, digest_file(file)
        except OSError as error:
            raise disk_error(error, file) from error

    def write(self, path: RepoPath, chunks: Iterable[bytes], size: int, /) -> None:
        """Write a file of `size` bytes as the repo's `path`, hashing it."""
        file = self.folder / f"file-{len(self._files)}"
        sha1, sha256 = new_hasher("git-sha1", size), new_hasher("sha256", size)
        written = 0
        try:
            with file.open("wb") as out:
                for chunk in chunks:
                    out.write(chunk)
                    sha1.update(chunk)
                    sha256.update(chunk)
                    written += len(chunk)
        except OSError as error:
            raise disk_error(error, file, needed=size - written) from error
        if written != size:
            raise IntegrityError(f"{path} has {written} bytes where {size} were announced")
        self._files[path] = file, ContentDigests(size, sha1.hexdigest(), sha256.hexdigest())

    def rename(self, names: Mapping[RepoPath, RepoPath]) -> None:
        """Give every file the name it has in `names`; one that is not there is left out."""
        taken = self._files.items()
        self._files = {names[path]: taken_file for path, taken_file in taken if path in names}

    def manifest(self) -> Manifest:
        """Return what was taken so far."""
        return Manifest({path: digests.entry(path) for path, (_, digests) in self._files.items()})

    def file(self, path: RepoPath, /) -> Path:
        """Return where a taken file stands."""
        try:
            return self._files[path][0]
        except KeyError:
            raise EntryNotFound(f"no file {path!r} was published") from None
