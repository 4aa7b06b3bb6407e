"""What a check of the cache found, as values, and the place where it is gathered; the checking is inspection.py's."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from hubcache.core.artifact import RepoId

Kind = Literal[
    "corrupt",  # bytes that do not hash to what they should
    "wrong-size",  # a listing that gives sound bytes another size
    "unreadable",
    "dangling-link",
    "escaping-link",  # it leaves the repo's folder, and not for the shared store
    "wrong-link",  # another blob than the listing says
    "unlisted",  # a file the commit does not have
    "foreign-name",  # it stands among blobs or snapshots and is none
    "bad-ref",
    "dangling-ref",  # its commit has no snapshot
    "bad-listing",
    "quarantined",  # it was damaged, was set aside, and has not come again
    "partial",
    "leftover",
    "unverifiable",
    "dropped",
    "unshared",
    "writable-by-all",
    "foreign-owner",
]
NOTES: frozenset[Kind] = frozenset(
    {"partial", "leftover", "unverifiable", "dropped", "unshared", "writable-by-all", "foreign-owner"}
)
"""What is worth knowing and no problem: files not pulled, files that an interrupted write left, files of which no
listing says what they should be, files that the system dropped into a snapshot and no client loads, and permissions:
some disks have but one for all files, and a shared cache has files of many."""


@dataclass(frozen=True, slots=True, order=True)
class Problem:
    """One thing that is wrong, or worth knowing.

    `path` is relative to the repo's folder, and what to delete so that the next pull brings it again;
    `commit` is one that needs it, "" where none is known.
    """

    repo: RepoId
    path: str
    kind: Kind
    message: str
    commit: str = ""


@dataclass(frozen=True, slots=True)
class Report:
    """What was hashed, in files and bytes, and all that was found.

    `known` is what had been hashed lately and has not changed since, `undrawn` what the sample left out.
    """

    repo: RepoId
    checked_files: int
    checked_size: int
    problems: tuple[Problem, ...]
    notes: tuple[Problem, ...]
    known_files: int = 0
    known_size: int = 0
    undrawn_files: int = 0
    undrawn_size: int = 0


@dataclass(slots=True)
class Findings:
    """What has been found in one repo so far."""

    repo: RepoId
    found: list[Problem] = field(default_factory=list)

    def add(self, path: str, kind: Kind, message: str, commit: str = "") -> None:
        """Note one thing."""
        self.found.append(Problem(self.repo, path, kind, message, commit))

    def report(self, checked_files: int, checked_size: int) -> Report:
        """Sort problems from notes, each by path."""
        found = sorted(self.found)
        return Report(
            self.repo,
            checked_files,
            checked_size,
            tuple(one for one in found if one.kind not in NOTES),
            tuple(one for one in found if one.kind in NOTES),
        )
