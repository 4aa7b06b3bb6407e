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
    "partial",
    "leftover",
    "unverifiable",
    "dropped",
]
NOTES: frozenset[Kind] = frozenset({"partial", "leftover", "unverifiable", "dropped"})
"""What is worth knowing and no problem: files not pulled, files that an interrupted write left, files of which no
listing says what they should be, files that the system dropped into a snapshot and no client loads."""


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
    """What was hashed, in files and bytes, and all that was found."""

    repo: RepoId
    checked_files: int
    checked_size: int
    problems: tuple[Problem, ...]
    notes: tuple[Problem, ...]


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
