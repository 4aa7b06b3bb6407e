"""Local folders, archives and files: brought in by hash, with the commit they are known to be, or a computed one."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path

from hubcache.core.artifact import Artifact, Manifest, RepoId, RepoPath, Revision, parse_commit, parse_path
from hubcache.core.gitobj import ContentDigests, commit_of
from hubcache.core.layout import ORIGINAL
from hubcache.core.plan import Preview
from hubcache.core.ports import Content, Stage
from hubcache.core.reference import Reference
from hubcache.core.urls import archive_suffix
from hubcache.errors import EntryNotFound, IntegrityError, SourceUnavailable
from hubcache.localfile import FileContent, digest_file
from hubcache.sources.huggingface import HubSource
from hubcache.sources.registry import SourceConfig
from hubcache.sources.staged import Published, StagedSource
from hubcache.sources.tarball import stage_archive

# Never part of a checkpoint: version control, huggingface_hub's own notes in a local_dir, the desktop's litter.
IGNORED = {".git", ".cache", ".DS_Store", "__MACOSX", "Thumbs.db"}


class LocalSource:
    """A path on this machine: a folder, an archive, or one file."""

    def __init__(self, archives: StagedSource, listing_of: Callable[[RepoId, str], Manifest | None],
                 notify: Callable[[str], None]) -> None:  # fmt: skip
        self._archives = archives
        self._listing_of = listing_of
        self._notify = notify
        self._roots: dict[tuple[RepoId, str], Path] = {}

    def resolve(self, reference: Reference, /) -> Artifact:
        """Hash the files and pin them: to `--commit` where it was given, else to their computed commit."""
        path = Path(reference.address)
        if not path.exists():
            raise EntryNotFound(f"there is no {path} on this machine")
        if path.is_file() and archive_suffix(path.name) is not None:
            return self._archives.resolve(reference)
        hashed = hash_files(path)
        claimed = reference.argument("commit")
        artifact = self._claimed(reference, claimed, hashed) if claimed else computed_artifact(reference, hashed)
        self._roots[artifact.repo, artifact.revision.commit] = path if path.is_dir() else path.parent
        return artifact

    def open(self, artifact: Artifact, path: RepoPath, start: int = 0, end: int | None = None) -> Content:
        """Open a file where it stands; it is left there."""
        root = self._roots.get((artifact.repo, artifact.revision.commit))
        if root is None:
            return self._archives.open(artifact, path, start, end)
        artifact.entry(path)
        return FileContent(root / path, start, end)

    def preview(self, reference: Reference, /) -> Preview | None:
        """Say which archive would be unpacked; folders are hashed where they stand."""
        path = Path(reference.address)
        return self._archives.preview(reference) if path.is_file() and archive_suffix(path.name) else None

    def close(self) -> None:
        """Let go of the archives' stages."""
        self._archives.close()

    def _claimed(self, reference: Reference, claimed: str, hashed: dict[RepoPath, ContentDigests]) -> Artifact:
        """Check the files against the listing of the commit that they are said to be."""
        commit = parse_commit(claimed)
        listing = self._listing_of(reference.repo, commit)
        entries = {path: found.entry(path) for path, found in hashed.items()}
        if listing is None:
            self._notify(f"no listing of {commit[:12]} to be had: what these files should be is unchecked")
        else:
            issues = [issue for path, found in hashed.items() if (issue := _disagreement(path, found, listing))]
            if issues:
                raise IntegrityError(
                    f"{reference.address} is not {reference.repo}@{commit[:12]}: {len(issues)} of {len(hashed)}"
                    " files are not what the hub lists",
                    issues=issues,
                    hint="get those files again, or leave --commit out to keep them under a commit of their own",
                )
            entries = {path: listing.files[path] for path in hashed}
        return Artifact(
            reference.repo,
            Revision(reference.revision, commit),
            Manifest(entries),
            origin=reference.address,
            is_whole=listing is not None and len(listing.files) == len(entries),
        )


def _disagreement(path: RepoPath, found: ContentDigests, listing: Manifest) -> str | None:
    entry = listing.files.get(path)
    if entry is None:
        return f"{path}: the commit has no such file"
    digest = entry.blob.digest
    computed = found.git_sha1 if digest.algorithm == "git-sha1" else found.sha256
    if computed == digest.hex:
        return None
    return f"{path}: its {digest.algorithm} is {computed}, the hub lists {digest.hex}"


def hash_files(path: Path) -> dict[RepoPath, ContentDigests]:
    """Hash a file, or the files of a folder that make the repo.

    Raises:
        EntryNotFound: there are none.
    """
    hashed = {name: digest_file(file) for name, file in _files(path)}
    if not hashed:
        raise EntryNotFound(f"{path} holds no files")
    return hashed


def computed_artifact(reference: Reference, hashed: dict[RepoPath, ContentDigests]) -> Artifact:
    """Pin hashed files to the commit that is computed from them."""
    manifest = Manifest({path: found.entry(path) for path, found in hashed.items()})
    revision = Revision(reference.revision, commit_of(manifest))
    return Artifact(reference.repo, revision, manifest, origin=reference.address, refs=(ORIGINAL,))


def _files(path: Path) -> Iterator[tuple[RepoPath, Path]]:
    """List the files that make the repo; links are followed to files, so a snapshot folder works too."""
    if path.is_file():
        yield parse_path(path.name), path
        return
    for folder, folders, names in os.walk(path):
        folders[:] = sorted(set(folders) - IGNORED)
        for name in sorted(set(names) - IGNORED):
            file = Path(folder, name)
            if file.is_file():
                yield parse_path(file.relative_to(path).as_posix()), file


class ArchivePublication:
    """An archive on this machine."""

    def probe(self, reference: Reference, /) -> str | None:
        """Tell the archive apart from another one at the same path, by size and time."""
        try:
            status = os.stat(reference.address)
        except OSError:
            return None
        return f"{status.st_size} {status.st_mtime_ns}"

    def preview(self, reference: Reference, /) -> Preview:
        """Name the archive."""
        return Preview(((reference.address, Path(reference.address).stat().st_size),))

    def publish(self, reference: Reference, stage: Stage, /) -> Published:
        """Unpack the archive into the stage."""
        validator = self.probe(reference)
        suffix = archive_suffix(reference.address)
        assert suffix is not None
        with open(reference.address, "rb") as file:
            stage_archive(file, suffix, stage)
        return Published(reference.address, validator)


def make(config: SourceConfig) -> LocalSource:
    """Make the source of `file:` references."""
    hub = HubSource(config.net, config.endpoints["huggingface"], config.memory, config.notify)

    def listing_of(repo: RepoId, commit: str) -> Manifest | None:
        """Find a commit's listing in the cache, else at the hub; None where neither can tell."""
        known = config.memory.listing(repo, commit)
        if known is not None or config.offline:
            return known
        try:
            return hub.listing(repo, commit)
        except SourceUnavailable as error:
            config.notify(f"{config.endpoints['huggingface']} cannot be asked: {error.message}")
            return None

    return LocalSource(StagedSource(ArchivePublication(), config.memory), listing_of, config.notify)
