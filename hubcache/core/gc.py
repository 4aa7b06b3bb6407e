"""Decides what of a cache goes, and says of everything why it goes or stays; it touches nothing.

Without a budget, what nothing needs goes: orphan blobs, commits that no ref means and nobody used for DETACHED, what
interrupted writes left a day ago. `unused_for` takes commits with refs, too; `max_size` and `min_free` then take the
least recently used commits until it fits. What is pinned, open or being pulled stays whatever the budget says.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

from hubcache.core.amounts import DAY, span_text
from hubcache.core.inventory import (
    ALL,
    HeldBlob,
    HeldCommit,
    HeldRepo,
    Inventory,
    Leftover,
    LeftoverKind,
    Payload,
    TrashBin,
)
from hubcache.core.removal import Claims, Line, Plan

DETACHED = 30 * DAY
LEFTOVER = DAY
QUARANTINE = 30 * DAY
UNDO = DAY
JUST_WRITTEN = 600.0
"""Seconds in which a blob may still get its link and a commit its ref: a pull writes these last."""

_LEFT: dict[LeftoverKind, str] = {
    "partial": "an interrupted download left it",
    "temporary": "an interrupted write left it",
    "stage": "an interrupted pull left it",
    "markers": "absent files of a commit that is gone",
    "listing": "the listing of a commit that is gone",
    "provenance": "the origin of a commit that is gone",
    "quarantine": "damaged, and out of use",
    "locks": "locks of what is gone",
}

_Key = tuple[str, str]
"""A repo's folder and a commit."""


@dataclass(frozen=True, slots=True)
class Budget:
    """How much may stay: bytes at most, bytes to be free on the disk, seconds without use; None for no bound.

    Without `undo`, what goes is gone for good.
    """

    max_size: int | None = None
    min_free: int | None = None
    unused_for: float | None = None
    undo: bool = True

    def shortage(self, used: int, free: int) -> int:
        """Return how many bytes are too many; 0 or less where it fits."""
        over = [] if self.max_size is None else [used - self.max_size]
        under = [] if self.min_free is None else [self.min_free - free]
        return max([*over, *under], default=0)


def plan_gc(inventory: Inventory, budget: Budget, *, now: float) -> Plan:
    """Plan what goes so that the cache keeps to the budget; `now` is in unix seconds."""
    return _Planning(inventory, budget, now).plan()


class _Planning:
    def __init__(self, inventory: Inventory, budget: Budget, now: float) -> None:
        self._inventory = inventory
        self._used = inventory.used
        self._budget = budget
        self._now = now
        self._goes: dict[_Key, str] = {}
        self._stays: dict[_Key, str] = {}
        self._needs_room = False
        self._lines: list[Line] = []
        self._conversions = {
            (repo.folder, commit.original): commit for repo, commit in inventory.commits() if commit.original
        }

    def plan(self) -> Plan:
        found = self._inventory
        for repo, commit in found.commits():
            self._judge(repo, commit)
        bins = [self._bin_line(each) for each in found.bins]
        emptied = sum(line.size for line in bins if line.goes)
        for number, line in enumerate(bins):
            if not line.goes and self._shortage(emptied) > 0:
                bins[number] = Line(True, "trash", "", line.name, line.size, "room is needed; it cannot be undone then")
                emptied += line.size
        self._needs_room = self._shortage(emptied) > 0
        short = self._make_room(emptied) if self._needs_room else 0
        self._write_lines()
        is_final = self._needs_room or not self._budget.undo
        lines = tuple(sorted([*bins, *self._lines], key=lambda line: not line.goes))
        return Plan("gc", lines, found.at, is_final, self._used, found.free, max(0, short), found.notes)

    def _shortage(self, freed: int) -> int:
        return self._budget.shortage(self._used - freed, self._inventory.free + freed)

    def _judge(self, repo: HeldRepo, commit: HeldCommit) -> None:
        """Say whether a commit goes whatever the room."""
        key, idle = (repo.folder, commit.name), self._now - commit.used
        unused = self._budget.unused_for
        if reason := why_kept(repo, commit):
            self._stays[key] = reason
        elif not commit.refs and self._now - commit.since < JUST_WRITTEN:
            age = span_text(self._now - commit.since)
            self._stays[key] = f"no ref means it yet; written {age} ago, a pull may be about to"
        elif unused is not None and idle >= unused:
            self._goes[key] = f"not used for {span_text(idle)}"
        elif not commit.refs and idle >= DETACHED and self._inventory.notes_use:
            self._goes[key] = f"no ref means it, and it was not used for {span_text(idle)}"

    def _make_room(self, freed: int) -> int:
        """Give up the least recently used commits until it fits; return the bytes that are still too many."""
        claims = Claims(self._inventory)
        freed += self._freed_anyway(claims)
        taken: list[tuple[HeldRepo, HeldCommit]] = []
        for repo, commit in sorted(self._expendable(), key=lambda each: self._rank(*each)):
            if self._shortage(freed) <= 0:
                break
            freed += claims.give_up(repo, commit)[1]
            taken.append((repo, commit))
        for repo, commit in reversed(taken):
            if claims.frees_nothing(repo, commit):
                claims.take_back(repo, commit)
                self._stays[repo.folder, commit.name] = "its going would free nothing: others need its blobs"
            else:
                idle = span_text(self._now - commit.used)
                self._goes[repo.folder, commit.name] = f"room is needed, and it was not used for {idle}"
        return self._shortage(freed)

    def _freed_anyway(self, claims: Claims) -> int:
        found = self._inventory
        orphans = [(repo, blob) for repo in found.repos for blob in claims.orphans(repo)]
        freed = sum(
            self._orphan_line(repo, blob, claims).size
            for repo, blob in orphans
            if not self._why_orphan_stays(repo, blob)
        )
        freed += sum(each.size for each in found.leftovers if self._leftover_line(None, each).goes)
        for repo in found.repos:
            freed += sum(each.size for each in repo.leftovers if self._leftover_line(repo, each).goes)
        freed += sum(each.size for each in found.payloads if not each.users and self._payload_line(each).goes)
        return freed + sum(
            claims.give_up(repo, commit)[1]
            for repo, commit in found.commits()
            if (repo.folder, commit.name) in self._goes
        )

    def _expendable(self) -> Iterator[tuple[HeldRepo, HeldCommit]]:
        for repo, commit in self._inventory.commits():
            if (repo.folder, commit.name) not in self._goes and (repo.folder, commit.name) not in self._stays:
                yield repo, commit

    def _rank(self, repo: HeldRepo, commit: HeldCommit) -> tuple[float, int, str, str]:
        """Order what may go: by last use; an original before its conversion, what no ref means before what one does."""
        used, conversion = commit.used, self._conversions.get((repo.folder, commit.name))
        if conversion is not None:
            used = min(used, conversion.used)
        elif commit.original:
            used = max([used, *(each.used for each in repo.commits if each.name == commit.original)])
        return used, 0 if conversion is not None else 1 + bool(commit.refs), repo.folder, commit.name

    def _write_lines(self) -> None:
        claims = Claims(self._inventory)
        for repo in self._inventory.repos:
            self._lines += self._repo_lines(repo, claims)
        self._lines += [self._leftover_line(None, each) for each in self._inventory.leftovers]
        self._lines += [self._payload_line(each) for each in self._inventory.payloads if not each.users]

    def _repo_lines(self, repo: HeldRepo, claims: Claims) -> list[Line]:
        if repo.problem:
            return [Line(False, "repo", repo.name, "", 0, repo.problem)]
        lines = [self._orphan_line(repo, blob, claims) for blob in claims.orphans(repo)]
        lines = [self._commit_line(repo, commit, claims) for commit in repo.commits] + lines
        lines += [self._leftover_line(repo, each) for each in repo.leftovers]
        return self._whole(repo, lines)

    def _whole(self, repo: HeldRepo, lines: list[Line]) -> list[Line]:
        """Let the folder of a repo of which nothing stays go in one piece."""
        if not all(line.goes for line in lines) or repo.pins or repo.pulling or repo.is_foreign:
            return lines
        if not lines and self._now - repo.since < LEFTOVER:
            return lines
        why = "nothing of it stays" if lines else "there is nothing in it"
        outside = [replace(line, units=_outside(repo, line)) for line in lines]
        return [*outside, Line(True, "repo", repo.name, "", 0, why, (repo.folder,))]

    def _commit_line(self, repo: HeldRepo, commit: HeldCommit, claims: Claims) -> Line:
        why = self._goes.get((repo.folder, commit.name))
        told = self._conversion_told(repo, commit)
        if why is None:
            why = self._stays.get((repo.folder, commit.name)) or self._why_it_stays(commit)
            return Line(False, "commit", repo.name, commit.name, claims.needs(repo, commit), why + told)
        return commit_line(repo, commit, claims, why + told)

    def _conversion_told(self, repo: HeldRepo, commit: HeldCommit) -> str:
        conversion = self._conversions.get((repo.folder, commit.name))
        if conversion is not None:
            return f"; it is the original of {conversion.name[:12]}"
        return f"; it was converted from {commit.original[:12]}" if commit.original else ""

    def _why_it_stays(self, commit: HeldCommit) -> str:
        idle = self._now - commit.used
        if commit.refs:
            return f"{_names(commit.refs)} means it; used {span_text(idle)} ago"
        if not self._inventory.notes_use:
            return "no ref means it, but this disk does not note what is used"
        return f"no ref means it; used {span_text(idle)} ago, it goes after {span_text(DETACHED)}"

    def _orphan_line(self, repo: HeldRepo, blob: HeldBlob, claims: Claims) -> Line:
        stays = self._why_orphan_stays(repo, blob)
        if stays:
            return Line(False, "blob", repo.name, blob.name, blob.size, stays)
        why, size = "orphan, no snapshot links to it", claims.drop(repo, blob)
        return Line(True, "blob", repo.name, blob.name, size, why, (repo.path("blobs", blob.name),))

    def _why_orphan_stays(self, repo: HeldRepo, blob: HeldBlob) -> str:
        age = self._now - blob.since
        if not blob.is_known:
            return "its name or kind is no blob's; hubcache verify tells more"
        if age < JUST_WRITTEN:
            return f"no snapshot links to it yet; written {span_text(age)} ago, a pull may be about to"
        return blob.busy or repo.pulling

    def _leftover_line(self, repo: HeldRepo | None, left: Leftover) -> Line:
        age, limit = self._now - left.since, QUARANTINE if left.kind == "quarantine" else LEFTOVER
        why, stays = f"{_LEFT[left.kind]} {span_text(age)} ago", ""
        if left.kind in {"markers", "listing", "provenance", "locks"}:
            why = _LEFT[left.kind]
        if repo is not None and (missing := self._missing(repo, left)):
            stays = f"{missing[:12]} lacks a file that it tells of; hubcache verify --repair brings it"
        elif repo is not None and repo.pulling and left.kind != "quarantine":
            stays = repo.pulling
        elif age < limit and not (left.kind == "quarantine" and self._needs_room):
            stays = f"{why}; it goes after {span_text(limit)}"
        name = left.paths[0].partition("/")[2] if repo is not None else left.paths[0]
        if len(left.paths) > 1:
            name = f"{len(left.paths)} files"
        return Line(not stays, left.kind, repo.name if repo else "", name, left.size, stays or why, left.paths)

    def _missing(self, repo: HeldRepo, left: Leftover) -> str:
        """Name a commit that stays and misses what a leftover tells of; "" for none."""
        return next((name for name in sorted(left.misses) if (repo.folder, name) not in self._goes), "")

    def _payload_line(self, payload: Payload) -> Line:
        age = self._now - payload.since
        stays = payload.busy or ("" if age >= LEFTOVER else f"no repo links to it yet; written {span_text(age)} ago")
        unit = f"blobs/{payload.name[:2]}/{payload.name}"
        return Line(not stays, "stored", "", payload.name, payload.size, stays or "no repo links to it", (unit,))

    def _bin_line(self, each: TrashBin) -> Line:
        age = self._now - each.at
        if not each.at:
            return Line(True, "trash", "", each.name, each.size, "an interrupted emptying left it")
        if not self._budget.undo:
            return Line(True, "trash", "", each.name, each.size, "--no-undo")
        if age >= UNDO:
            return Line(True, "trash", "", each.name, each.size, f"removed {span_text(age)} ago")
        why = f"removed {span_text(age)} ago; hubcache gc --undo puts it back"
        return Line(False, "trash", "", each.name, each.size, why)


def why_kept(repo: HeldRepo, commit: HeldCommit) -> str:
    """Say what keeps a commit whatever the budget: a pin, a process, a pull; "" for nothing."""
    for name in (ALL, commit.name, *commit.refs):
        if name in repo.pins:
            return repo.pins[name]
    return repo.problem or commit.busy or repo.pulling


def commit_line(repo: HeldRepo, commit: HeldCommit, claims: Claims, why: str) -> Line:
    """Let a commit go: its refs, its snapshot, what tells of it, and the blobs that nobody else needs."""
    blobs, size = claims.give_up(repo, commit)
    units = (
        *(repo.path("refs", ref) for ref in commit.refs),
        repo.path("snapshots", commit.name),
        *commit.extras,
        *(repo.path("blobs", blob) for blob in blobs),
    )
    return Line(True, "commit", repo.name, commit.name, size, why, units)


def _outside(repo: HeldRepo, line: Line) -> tuple[str, ...]:
    """List the units of a line that are not in the repo's own folder: its locks."""
    return tuple(unit for unit in line.units if not unit.startswith(f"{repo.folder}/"))


def _names(refs: tuple[str, ...]) -> str:
    return ", ".join(refs[:3]) + (f" and {len(refs) - 3} more" if len(refs) > 3 else "")
