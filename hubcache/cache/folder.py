"""One repo's folder in the cache, read: refs, listings, snapshots, blobs; nothing is written here."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hubcache.core.artifact import Conversion, Entry, Manifest, RepoId, RepoPath, is_commit, parse_path
from hubcache.core.digests import Blob, Digest
from hubcache.core.gitobj import ContentDigests
from hubcache.core.layout import decode_tree, repo_folder
from hubcache.errors import BadReference, CacheError, IntegrityError
from hubcache.localfile import digest_file

SHORTEST_COMMIT = 4


@dataclass(frozen=True, slots=True)
class RepoFolder:
    """The folder `models--org--name` below the cache's root, and what is in it."""

    root: Path
    repo: RepoId

    @property
    def path(self) -> Path:
        """The repo's own folder."""
        return self.root / repo_folder(self.repo)

    def blob_path(self, digest: Digest) -> Path:
        """Return where a blob stands."""
        return self.path / "blobs" / digest.hex

    def snapshot_path(self, commit: str) -> Path:
        """Return the folder of a commit's files."""
        return self.path / "snapshots" / commit

    def tree_path(self, commit: str) -> Path:
        """Return where a commit's listing stands."""
        return self.path / "trees" / f"{commit}.json"

    def ref_path(self, name: str) -> Path:
        """Return where a ref stands; the name is one parse_revision took."""
        return self.path / "refs" / name

    def absent_path(self, commit: str, path: RepoPath) -> Path:
        """Return the marker that says the commit has no such file."""
        return self.path / ".no_exist" / commit / path

    def provenance_path(self, commit: str) -> Path:
        """Return where it is written where a commit came from."""
        return self.path / "provenance" / f"{commit}.json"

    def stage_path(self, key: str) -> Path:
        """Return the folder in which files wait until their commit is known."""
        return self.path / ".staging" / key

    def lock_path(self, name: str) -> Path:
        """Return huggingface_hub's lock file for a blob."""
        return self.root / ".locks" / repo_folder(self.repo) / f"{name}.lock"

    def has_blob(self, blob: Blob) -> bool:
        """Tell whether the blob stands in its place with its size."""
        return _size_of(self.blob_path(blob.digest)) == blob.size

    def has_file(self, commit: str, path: RepoPath, blob: Blob) -> bool:
        """Tell whether the bytes are there: as a blob, or as a real file where the cache has no links."""
        if self.has_blob(blob):
            return True
        file = self.snapshot_path(commit) / path
        return not file.is_symlink() and _size_of(file) == blob.size

    def refs(self) -> dict[str, str]:
        """Read every ref: name -> what it holds, stripped."""
        top = self.path / "refs"
        found = {}
        for folder, _, names in os.walk(top):
            for name in names:
                file = Path(folder, name)
                with suppress(FileNotFoundError):  # another process's temporary file
                    found[file.relative_to(top).as_posix()] = _read_text(file)
        return found

    def commits(self) -> list[str]:
        """List the commits that have a snapshot folder."""
        try:
            return sorted(entry.name for entry in os.scandir(self.path / "snapshots") if is_commit(entry.name))
        except FileNotFoundError:
            return []

    def commit_of(self, revision: str) -> str | None:
        """Find the commit that a full or short commit, or a ref, means here."""
        if is_commit(revision):
            return revision if self.snapshot_path(revision).is_dir() else None
        try:
            held = _read_text(self.ref_path(revision))
        except (FileNotFoundError, IsADirectoryError, NotADirectoryError):
            held = ""
        if is_commit(held):
            return held
        if len(revision) < SHORTEST_COMMIT:
            return None
        matches = [commit for commit in self.commits() if commit.startswith(revision)]
        return matches[0] if len(matches) == 1 else None

    def listing(self, commit: str) -> Manifest | None:
        """Read the commit's whole listing; None where there is none that can be read."""
        try:
            return decode_tree(self.tree_path(commit).read_bytes())
        except (OSError, IntegrityError):
            return None

    def found(self, commit: str, digests: Callable[[Path], ContentDigests] = digest_file) -> Manifest:
        """Read what a snapshot holds, for commits without a listing; real files are hashed."""
        return Manifest({path: _found_entry(path, file, digests) for path, file in self.snapshot_files(commit)})

    def snapshot_files(self, commit: str) -> Iterator[tuple[RepoPath, Path]]:
        """List the snapshot's files, links included."""
        top = self.snapshot_path(commit)
        for folder, _, names in os.walk(top):
            for name in sorted(names):
                file = Path(folder, name)
                try:
                    yield parse_path(file.relative_to(top).as_posix()), file
                except BadReference as error:
                    raise IntegrityError(f"{file}: {error.message}") from error

    def linked_blobs(self) -> set[str]:
        """Name the blobs that the links of the snapshots point at."""
        found = set()
        for folder, _, names in os.walk(self.path / "snapshots"):
            for name in names:
                file = os.path.join(folder, name)
                if os.path.islink(file):
                    found.add(os.path.basename(os.readlink(file)))
        return found

    def provenance(self, commit: str) -> dict[str, Any]:
        """Read where a commit came from; empty where that is not known."""
        try:
            content = json.loads(self.provenance_path(commit).read_bytes())
        except (OSError, ValueError):
            return {}
        return content if isinstance(content, dict) else {}

    def conversion(self, commit: str) -> Conversion | None:
        """Read what a commit was made of; None for one that was published as it is."""
        told = self.provenance(commit)
        original, rules, notes = told.get("converted_from"), told.get("conversion_rules"), told.get("notes")
        if not (isinstance(original, str) and is_commit(original) and isinstance(rules, int)):
            return None
        lines = tuple(str(line) for line in notes) if isinstance(notes, list) else ()
        return Conversion(original, rules, bool(told.get("portable")), lines)

    def partials(self) -> list[Path]:
        """List the files that wait to be resumed, ours and huggingface_hub's."""
        return sorted((self.path / "blobs").glob("*.incomplete"))


def _found_entry(path: RepoPath, file: Path, digests: Callable[[Path], ContentDigests]) -> Entry:
    if file.is_symlink():
        try:
            return Entry(Blob(Digest.parse(os.path.basename(os.readlink(file))), _size_of(file) or 0))
        except BadReference:
            pass
    try:
        return digests(file).entry(path)
    except OSError as error:
        raise IntegrityError(f"{file} cannot be read: {error.strerror}") from error


def _size_of(path: Path) -> int | None:
    try:
        return os.stat(path).st_size
    except OSError:
        return None


def _read_text(path: Path) -> str:
    try:
        return path.read_text(encoding="ascii", errors="replace").strip()
    except PermissionError as error:
        raise CacheError(f"{path}: {error.strerror}") from error
