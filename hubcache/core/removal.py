"""A removal as a value: what goes, what stays and why, and what is free once it is gone; nothing is decided here."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import Literal

from hubcache.core.inventory import HeldBlob, HeldCommit, HeldRepo, Inventory, LeftoverKind

LineKind = Literal["repo", "commit", "ref", "file", "blob", "stored", "trash"] | LeftoverKind


@dataclass(frozen=True, slots=True)
class Line:
    """One thing that goes or stays.

    Attributes:
        repo: the repo as it is written in references, "" for what is no repo's.
        name: the commit, ref, path or digest.
        size: bytes that its going frees, or that its staying takes.
        units: the paths to be moved away, in this order.
    """

    goes: bool
    kind: LineKind
    repo: str
    name: str
    size: int
    why: str
    units: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Plan:
    """What a removal would do.

    Attributes:
        what: gc or remove, for the history.
        at: when the cache was looked at; what changed later is left alone.
        is_final: nothing of it can be undone.
        short: bytes by which the budget is missed all the same.
    """

    what: Literal["gc", "remove"]
    lines: tuple[Line, ...]
    at: float = 0.0
    is_final: bool = False
    used: int = 0
    free: int = 0
    short: int = 0
    notes: tuple[str, ...] = field(default=())

    @property
    def going(self) -> tuple[Line, ...]:
        """The lines of what goes, the trash's excepted."""
        return tuple(line for line in self.lines if line.goes and line.kind != "trash")

    @property
    def bins(self) -> tuple[str, ...]:
        """The names of the trash bins to be emptied."""
        return tuple(line.name for line in self.lines if line.goes and line.kind == "trash")

    @property
    def size(self) -> int:
        """Bytes of all that goes."""
        return sum(line.size for line in self.lines if line.goes)

    def units(self) -> list[str]:
        """List the paths to be moved away: refs, snapshots, what tells of them, blobs; the reverse of writing."""
        return sorted(dict.fromkeys(unit for line in self.going for unit in line.units), key=_phase)


def _phase(path: str) -> int:
    folder, _, rest = path.partition("/")
    if folder == "blobs":
        return 4
    return {"": 0, "refs": 0, "snapshots": 1, "blobs": 3}.get(rest.partition("/")[0], 2)


class Claims:
    """Who needs which blob, while one after the other gives up what it needs."""

    def __init__(self, inventory: Inventory) -> None:
        self._links = Counter(
            (repo.folder, blob) for repo, commit in inventory.commits() for blob in commit.links.values()
        )
        self._blobs = {(repo.folder, blob.name): blob for repo in inventory.repos for blob in repo.blobs}
        self._stored = {payload.name: payload.size for payload in inventory.payloads}
        self._users = {payload.name: set(payload.users) for payload in inventory.payloads}

    def orphans(self, repo: HeldRepo) -> list[HeldBlob]:
        """List the blobs that nothing links to."""
        return [blob for blob in repo.blobs if not self._links[repo.folder, blob.name]]

    def needs(self, repo: HeldRepo, commit: HeldCommit) -> int:
        """Return the bytes that the commit needs, whoever else does."""
        blobs = (self._blobs.get((repo.folder, name)) for name in commit.blobs)
        linked = sum(blob.size or self._stored.get(blob.stored, 0) for blob in blobs if blob is not None)
        return linked + sum(commit.files.values())

    def give_up(self, repo: HeldRepo, commit: HeldCommit) -> tuple[tuple[str, ...], int]:
        """Take a commit's claims away; return the blobs that nobody needs any more, and the bytes that frees."""
        gone, size = [], sum(commit.files.values())
        for path in commit.links:
            freed = self.give_up_link(repo, commit.links[path])
            if freed is not None:
                gone.append(commit.links[path])
                size += freed
        return tuple(gone), size

    def give_up_link(self, repo: HeldRepo, name: str) -> int | None:
        """Take one link away; return the bytes that frees, None where the blob stays."""
        self._links[repo.folder, name] -= 1
        blob = self._blobs.get((repo.folder, name))
        return None if self._links[repo.folder, name] or blob is None else self.drop(repo, blob)

    def take_back(self, repo: HeldRepo, commit: HeldCommit) -> None:
        """Let a commit that freed nothing have its claims again."""
        for name in commit.links.values():
            self._links[repo.folder, name] += 1

    def frees_nothing(self, repo: HeldRepo, commit: HeldCommit) -> bool:
        """Tell whether all that a given up commit needed is needed by others."""
        return not commit.files and all(
            self._links[repo.folder, name] > 0 or (repo.folder, name) not in self._blobs for name in commit.blobs
        )

    def drop(self, repo: HeldRepo, blob: HeldBlob) -> int:
        """Take a blob away; return the bytes that frees, with its payload's where it was the last user."""
        users = self._users.get(blob.stored, set())
        users.discard(repo.path("blobs", blob.name))
        return blob.size + (0 if users or not blob.stored else self._stored.pop(blob.stored, 0))
