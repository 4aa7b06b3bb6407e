"""What the cache holds, repo by repo, with as few system calls as it takes; nothing is hashed here.

Paths are plain strings and system calls are counted, because this runs over every repo of a cache: one call for a
blob, one for a folder, three for a ref, none for a link.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType

from hubcache.cache.folder import RepoFolder
from hubcache.cache.pinned import FILE as PINS
from hubcache.core.artifact import RepoId, is_commit
from hubcache.core.layout import parse_repo_folder
from hubcache.core.risks import risk
from hubcache.localfile import disk_error

PARTIAL = ".incomplete"
JOURNAL = ".ranges" + PARTIAL
LONGEST_REF = 4096
_TEMPORARY = re.compile(r".*\.[0-9a-f]{8}\.tmp|tmp_[0-9a-f-]{36}|tmp[a-z0-9_]{8}\.tmp|\..*\.shared")

Tell = Callable[[str], None]
"""Takes one line about what is wrong."""


class _Listable:
    """A repo or a commit by the names that filters and orders have for its facts (core/filters.py)."""

    __slots__ = ()
    repo: RepoId
    last_used: int
    last_modified: int

    @property
    def name(self) -> str:
        """The repo's name, with its kind before it where that is no model."""
        return str(self.repo)

    @property
    def kind(self) -> str:
        """model, dataset or space."""
        return self.repo.kind

    @property
    def accessed(self) -> float:
        """`last_used`; a commit's is its repo's, for blobs are shared."""
        return self.last_used

    @property
    def modified(self) -> float:
        """`last_modified`."""
        return self.last_modified


@dataclass(frozen=True, slots=True)
class RepoSummary(_Listable):
    """One repo as it stands on the disk; sizes in bytes, times in unix seconds.

    Attributes:
        size: what is here, each blob once, and the real files of a cache without links.
        files: different paths in its snapshots.
        commits: those that have a snapshot.
        refs: name to commit; what holds no commit is left out and told in `problem`.
        last_used: the latest access that the file system noted.
        partial_size: files that wait to be resumed, not counted in `size`.
        orphan_size: bytes of blobs that no snapshot links to, counted in `size`.
        hits: how often its files were served, as far as the index knows.
        risks: what loading its files may run: pickle, code.
        is_pinned: something of it is kept whatever a budget says.
        problem: what is wrong at first sight, None for nothing.
    """

    repo: RepoId
    path: Path
    size: int
    files: int
    commits: tuple[str, ...]
    refs: Mapping[str, str]
    last_used: int
    last_modified: int
    partial_files: int
    partial_size: int
    problem: str | None
    orphan_size: int = 0
    hits: int = 0
    risks: tuple[str, ...] = ()
    is_pinned: bool = False


@dataclass(frozen=True, slots=True)
class CommitSummary(_Listable):
    """One snapshot; `size` counts each blob once, `last_modified` is in unix seconds."""

    repo: RepoId
    commit: str
    path: Path
    size: int
    files: int
    refs: tuple[str, ...]
    last_modified: int
    last_used: int = 0


def scan_repos(root: Path) -> Iterator[RepoFolder]:
    """List the repos in the cache, by name.

    Raises:
        CacheError: the cache is there and cannot be listed.
    """
    try:
        names = sorted(os.listdir(root))
    except FileNotFoundError:
        return
    except OSError as error:
        raise disk_error(error, root) from error
    for name in names:
        repo = parse_repo_folder(name)
        if repo is not None:
            yield RepoFolder(root, repo)


def scan(root: Path) -> Iterator[RepoSummary]:
    """Summarise every repo in the cache, by name; a damaged one is told about, not raised.

    Raises:
        CacheError: the cache is there and cannot be listed.
    """
    for folder in scan_repos(root):
        yield scan_repo(folder)


def scan_repo(folder: RepoFolder) -> RepoSummary:
    """Summarise one repo."""
    path = folder.path
    tally = _Tally()
    tally.count_repo(str(path))
    return RepoSummary(
        repo=folder.repo,
        path=path,
        size=tally.size,
        files=len(tally.paths),
        commits=tuple(sorted(tally.commits)),
        refs=MappingProxyType(tally.refs),
        last_used=int(tally.used),
        last_modified=int(tally.modified),
        partial_files=tally.partial_files,
        partial_size=tally.partial_size,
        problem="; ".join(tally.problems) or None,
        orphan_size=tally.orphan_size,
        risks=tuple(sorted({found for name in tally.paths if (found := risk(name))})),
        is_pinned=tally.is_pinned,
    )


def scan_commits(summary: RepoSummary) -> Iterator[CommitSummary]:
    """Summarise each of a repo's snapshots; links that lead nowhere count as files without a size."""
    for commit in summary.commits:
        path = summary.path / "snapshots" / commit
        found: dict[tuple[int, int], os.stat_result] = {}
        files = 0
        for _, entry in walk(str(path), _ignore):
            files += 1
            try:
                status = entry.stat()
            except OSError:
                continue
            found[status.st_dev, status.st_ino] = status
        size = sum(status.st_size for status in found.values())
        modified = max((status.st_mtime for status in found.values()), default=0)
        refs = tuple(name for name, held in summary.refs.items() if held == commit)
        yield CommitSummary(summary.repo, commit, path, size, files, refs, int(modified), summary.last_used)


def walk(top: str, tell: Tell) -> Iterator[tuple[str, os.DirEntry[str]]]:
    """List what is below a folder, links included and not followed: relative path, entry."""
    waiting = [(top, "")]
    while waiting:
        folder, prefix = waiting.pop()
        try:
            with os.scandir(folder) as entries:
                found = list(entries)
        except OSError as error:
            tell(f"{prefix or 'it'} cannot be listed: {error.strerror}")
            continue
        for entry in found:
            if entry.is_dir(follow_symlinks=False):
                waiting.append((entry.path, f"{prefix}{entry.name}/"))
            else:
                yield prefix + entry.name, entry


def held_refs(top: str, tell: Tell) -> dict[str, bytes]:
    """Read what a repo's refs hold, byte for byte; `top` is its folder `refs`."""
    found = {}
    for name, entry in walk(top, tell):
        if is_temporary(entry.name) or not entry.is_file():
            continue
        try:
            with open(entry.path, "rb", buffering=0) as file:
                found[name] = file.read(LONGEST_REF)
        except OSError as error:
            tell(f"refs/{name} cannot be read: {error.strerror}")
    return found


def is_folder(path: str) -> bool:
    """Tell whether a path is a folder itself, and no link to one."""
    return os.path.isdir(path) and not os.path.islink(path)


def is_temporary(name: str) -> bool:
    """Tell whether a file is what an interrupted write leaves, ours or huggingface_hub's."""
    return name.endswith(PARTIAL) or _TEMPORARY.fullmatch(name) is not None


def partial_size(status: os.stat_result) -> int:
    """Return the bytes that really stand on the disk; a file filled out of order is longer than that."""
    allocated = int(getattr(status, "st_blocks", 0)) * 512
    return min(status.st_size, allocated) if allocated else status.st_size


def _ignore(_: str) -> None:
    """Say nothing: who scans commits has been told when the repo was scanned."""


class _Tally:
    """What has been counted of one repo so far."""

    def __init__(self) -> None:
        self.size = self.partial_files = self.partial_size = 0
        self.used = self.modified = 0.0
        self.paths: set[str] = set()
        self.commits: list[str] = []
        self.refs: dict[str, str] = {}
        self.problems: list[str] = []
        self.is_pinned = False
        self._blobs: dict[str, int] = {}
        self._linked: set[str] = set()

    @property
    def orphan_size(self) -> int:
        """Bytes of blobs that no link names."""
        return sum(size for name, size in self._blobs.items() if name not in self._linked)

    def count_repo(self, path: str) -> None:
        try:
            with os.scandir(path) as entries:
                names = {entry.name for entry in entries}
            status = os.stat(path)
        except OSError as error:
            self.problems.append(f"its folder cannot be listed: {error.strerror}")
            return
        self.is_pinned = PINS in names
        # Refs come last: they are held against the snapshots.
        parts = {
            "blobs": self._count_blobs,
            "snapshots": self._count_snapshots,
            ".staging": self._count_staged,
            "refs": self._read_refs,
        }
        for name, count in parts.items():
            if name in names:
                try:
                    count(f"{path}/{name}")
                except OSError as error:
                    self.problems.append(f"{name} cannot be read: {error.strerror}")
        self.used, self.modified = self.used or status.st_atime, self.modified or status.st_mtime

    def _count_blobs(self, path: str) -> None:
        with os.scandir(path) as entries:
            for entry in entries:
                try:
                    status = entry.stat()
                except OSError as error:
                    # What is no link has been renamed meanwhile: a pull is at work.
                    if entry.is_symlink() or not isinstance(error, FileNotFoundError):
                        self.problems.append(f"blobs/{entry.name[:12]} cannot be read: {error.strerror}")
                    continue
                if not entry.name.endswith(PARTIAL):
                    self._count(status)
                    self._blobs[entry.name] = status.st_size
                else:
                    self.partial_files += not entry.name.endswith(JOURNAL)
                    self.partial_size += partial_size(status)

    def _count_snapshots(self, path: str) -> None:
        with os.scandir(path) as entries:
            commits = [entry for entry in entries if entry.is_dir()]
        for commit in commits:
            self.commits.append(commit.name)
            for name, entry in walk(commit.path, self.problems.append):
                self.paths.add(name)
                if entry.is_symlink():
                    self._linked.add(os.readlink(entry.path).rpartition("/")[2])
                else:
                    self._count(entry.stat())

    def _count_staged(self, path: str) -> None:
        for _, entry in walk(path, self.problems.append):
            self.partial_files += 1
            self.partial_size += partial_size(entry.stat(follow_symlinks=False))

    def _read_refs(self, path: str) -> None:
        for name, held in held_refs(path, self.problems.append).items():
            commit = held.decode("ascii", "replace").strip()
            if not is_commit(commit):
                self.problems.append(f"refs/{name} holds no commit")
                continue
            self.refs[name] = commit
            if len(held) != len(commit):
                self.problems.append(f"refs/{name} has more than the 40 bytes of a commit")
            if commit not in self.commits:
                self.problems.append(f"refs/{name} means {commit[:12]}, which has no snapshot")

    def _count(self, status: os.stat_result) -> None:
        self.size += status.st_size
        self.used = max(self.used, status.st_atime)
        self.modified = max(self.modified, status.st_mtime)
