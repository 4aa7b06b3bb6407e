"""What stands in a cache and who needs it, as values; cache/inventory.py looks, core/gc.py decides.

Paths are relative to the cache's root, sizes are in bytes, times in unix seconds.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Literal

LeftoverKind = Literal["partial", "temporary", "stage", "markers", "listing", "provenance", "quarantine", "locks"]

ALL = "*"
"""The pin that keeps all of a repo."""


@dataclass(frozen=True, slots=True)
class HeldBlob:
    """A file in a repo's `blobs`.

    Attributes:
        size: what it takes here, 0 for a link into the shared store.
        since: when it was written.
        stored: the name of its payload in the shared store, "" where it is a file itself.
        busy: who has it open, in words.
        is_known: its name is a digest, and it is a file or a link into the store.
    """

    name: str
    size: int
    since: float = 0.0
    stored: str = ""
    busy: str = ""
    is_known: bool = True


@dataclass(frozen=True, slots=True)
class HeldCommit:
    """A snapshot.

    Attributes:
        links: path to the name of the blob it leads to.
        files: path to the size of what is a real file.
        used: the last use of any of its bytes.
        since: when a file of it was last put in its place.
        original: the commit it was converted from, "" for none.
        extras: its listing, its provenance and its markers of absent files, as far as they are there.
    """

    name: str
    refs: tuple[str, ...] = ()
    links: Mapping[str, str] = field(default_factory=dict)
    files: Mapping[str, int] = field(default_factory=dict)
    used: float = 0.0
    since: float = 0.0
    busy: str = ""
    original: str = ""
    extras: tuple[str, ...] = ()

    @property
    def blobs(self) -> frozenset[str]:
        """The names of the blobs it needs."""
        return frozenset(self.links.values())


@dataclass(frozen=True, slots=True)
class Leftover:
    """What an interrupted write or a gone commit left; several files where they are only worth one line.

    `misses` are the commits that lack what it tells of: it is needed as long as one of them stays.
    """

    kind: LeftoverKind
    paths: tuple[str, ...]
    size: int
    since: float
    misses: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True)
class HeldRepo:
    """A repo's folder.

    Attributes:
        name: the repo as it is written in references.
        pins: revisions, or ALL, each with the reason in words.
        pulling: who is at work in it, in words.
        problem: why nothing in it can be judged; all of it stays then.
        is_foreign: there is more in it than hubcache and huggingface_hub write, or a ref that means nothing here.
        since: when its folder changed last.
    """

    folder: str
    name: str
    commits: tuple[HeldCommit, ...] = ()
    blobs: tuple[HeldBlob, ...] = ()
    leftovers: tuple[Leftover, ...] = ()
    pins: Mapping[str, str] = field(default_factory=dict)
    pulling: str = ""
    problem: str = ""
    is_foreign: bool = False
    since: float = 0.0

    def path(self, *parts: str) -> str:
        """Return the path of something in it."""
        return "/".join((self.folder, *parts))


@dataclass(frozen=True, slots=True)
class Payload:
    """A file of the shared store; `users` are the blobs that lead to it, whoever's they are."""

    name: str
    size: int
    users: frozenset[str] = frozenset()
    since: float = 0.0
    busy: str = ""


@dataclass(frozen=True, slots=True)
class TrashBin:
    """What one removal took, and can be put back; what is half emptied has `at` 0."""

    name: str
    size: int
    at: float
    what: str = ""


@dataclass(frozen=True, slots=True)
class Inventory:
    """All of a cache.

    Attributes:
        at: when the looking began.
        free: bytes free on its disk.
        notes_use: the disk notes when a file was read.
        notes: what could not be found out, a line each.
    """

    repos: tuple[HeldRepo, ...] = ()
    payloads: tuple[Payload, ...] = ()
    bins: tuple[TrashBin, ...] = ()
    leftovers: tuple[Leftover, ...] = ()
    at: float = 0.0
    free: int = 0
    notes_use: bool = True
    notes: tuple[str, ...] = ()

    @property
    def used(self) -> int:
        """All bytes, each once; what is in the trash counts until that is emptied."""
        return (
            sum(_size_of(repo) for repo in self.repos)
            + sum(payload.size for payload in self.payloads)
            + sum(each.size for each in self.bins)
            + sum(each.size for each in self.leftovers)
        )

    def commits(self) -> Iterator[tuple[HeldRepo, HeldCommit]]:
        """List every commit with its repo."""
        for repo in self.repos:
            for commit in repo.commits:
                yield repo, commit


def _size_of(repo: HeldRepo) -> int:
    real = sum(sum(commit.files.values()) for commit in repo.commits)
    return real + sum(blob.size for blob in repo.blobs) + sum(each.size for each in repo.leftovers)
