"""What would be done about each thing that a check of a repo found, and why; nothing is changed here.

Only what is certain is repaired from the disk alone: a link that a listing names, a ref whose commit can be read in
it, a size that the bytes prove. Everything else comes again from where it came, or is set aside.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

from hubcache.cache.findings import Problem, Report
from hubcache.cache.folder import RepoFolder
from hubcache.cache.permissions import unshared_listings
from hubcache.cache.quarantine import Link, read_missed
from hubcache.cache.scan import is_folder, walk
from hubcache.core.artifact import Entry, is_commit
from hubcache.core.digests import Digest
from hubcache.errors import BadReference

Act = Literal["fetch", "link", "move", "write", "delete", "share", "leave"]
"""Set aside and fetch again; link to a blob that is here; set aside; write again; delete; chmod; nothing."""

OLD = 86400.0
"""Seconds after which nobody is thought to go on with an interrupted write."""


@dataclass(frozen=True, slots=True)
class Step:
    """What is done about one thing that is wrong.

    Attributes:
        size: bytes to come, at most; for what is deleted, bytes that go.
        digest: what the bytes should be, where something says it.
        links: the files of snapshots that need them.
        text: what is done, in words that go on after the problem's.
    """

    problem: Problem
    act: Act
    text: str
    size: int = 0
    digest: Digest | None = None
    links: tuple[Link, ...] = ()


def plan_repair(folder: RepoFolder, report: Report) -> list[Step]:
    """Decide on each problem, and on those notes about which something is to be done."""
    planner = _Planner(folder, report)
    steps = [planner.step(problem) for problem in report.problems]
    for remark in report.notes:
        steps += planner.remark(remark)
    return steps


class Links:
    """Which files of which snapshots lead to which blob, as they stand now."""

    def __init__(self, folder: RepoFolder) -> None:
        self._found: dict[str, set[Link]] = {}
        for commit in folder.commits():
            for path, entry in walk(str(folder.snapshot_path(commit)), lambda _: None):
                if entry.is_symlink():
                    self._found.setdefault(os.path.basename(os.readlink(entry.path)), set()).add((commit, path))

    def of(self, name: str) -> set[Link]:
        """Return those that lead to the blob of this name."""
        return self._found.get(name, set())


class _Planner:
    def __init__(self, folder: RepoFolder, report: Report) -> None:
        self._folder = folder
        self._links = Links(folder)
        self._bad = {problem.path for problem in report.problems}
        self._listings = {
            commit: {str(path): entry for path, entry in listing.files.items()}
            for commit in folder.commits()
            if (listing := folder.listing(commit)) is not None
        }
        self._missed: dict[str, set[Link]] = {}
        for missed in read_missed(folder):
            if missed.digest is not None:
                self._missed.setdefault(missed.digest.hex, set()).update(missed.links)

    def step(self, problem: Problem) -> Step:
        part, _, rest = problem.path.partition("/")
        plans = {"blobs": self._blob, "snapshots": self._snapshot, "refs": self._ref, "trees": self._tree}
        return plans[part](problem, rest) if part in plans and rest else _left(problem, "nothing is known to help")

    def remark(self, note: Problem) -> Iterator[Step]:
        if note.kind == "leftover" and self._is_old(note):
            yield Step(note, "delete", "is deleted: nobody went on with it for a day", self._allocated(note))
        if note.kind == "partial" and (links := self._linkable(note.commit)):
            yield Step(note, "link", f"{len(links)} of them are linked: their bytes are here", links=links)
        if note.kind == "unshared" and (listings := unshared_listings(self._folder)):
            yield Step(note, "share", f"{len(listings)} listings are made readable to those who can read the rest")

    def _blob(self, problem: Problem, name: str) -> Step:
        links = self._links.of(name)
        try:
            digest = Digest.parse(name)
        except BadReference:
            if any(self._listed(link) is None for link in links):
                return _left(problem, "a snapshot leads to it, and nothing says what it should be")
            return Step(problem, "move", "is moved to quarantine")
        if problem.kind == "unreadable" and self._is_forbidden(problem):
            return _left(problem, "only its owner can make it readable")
        links = links | self._missed.get(name, set())
        if not links:
            return Step(problem, "move", "is moved to quarantine: no snapshot needs it", digest=digest)
        sizes = [each.blob.size for link in links if (each := self._listed(link)) is not None]
        text = "is moved to quarantine and fetched again"
        return Step(problem, "fetch", text, max(sizes, default=0), digest, tuple(sorted(links)))

    def _snapshot(self, problem: Problem, rest: str) -> Step:
        commit, _, path = rest.partition("/")
        if problem.kind == "unlisted" or not path:
            if problem.kind == "unreadable":
                return _left(problem, "only its owner can make it readable")
            return Step(problem, "move", "is moved to quarantine")
        entry = self._listed((commit, path))
        if entry is None and commit in self._listings and problem.kind != "quarantined":
            return Step(problem, "move", "is moved to quarantine")
        links = ((commit, path),)
        if entry is not None and self._is_sound(entry):
            return Step(problem, "link", "is linked to the blob that is here", 0, entry.blob.digest, links)
        if entry is not None:
            return Step(problem, "fetch", "is fetched again", entry.blob.size, entry.blob.digest, links)
        return Step(problem, "fetch", "is fetched again", 0, self._target(problem), links)

    def _ref(self, problem: Problem, name: str) -> Step:
        held = readable_commit(self._folder, name)
        if problem.kind == "dangling-ref" and self._folder.listing(held) is not None:
            links = self._linkable(held)
            told = f"with links to {len(links)} files that are here" if links else "empty as yet"
            return Step(problem, "write", f"gets the snapshot's folder, {told}", links=links)
        if problem.kind == "bad-ref" and held and self._folder.snapshot_path(held).is_dir():
            return Step(problem, "write", f"is written again: it means {held[:12]}")
        return Step(problem, "fetch", "is asked for, and moved to quarantine where there is no answer")

    def _tree(self, problem: Problem, name: str) -> Step:
        if problem.kind == "wrong-size":
            return Step(problem, "write", "gets the sizes that the bytes have")
        if problem.kind == "unreadable" and self._is_forbidden(problem):
            return _left(problem, "only its owner can make it readable")
        if is_commit(name.removesuffix(".json")) and name.endswith(".json"):
            return Step(problem, "fetch", "is fetched again")
        return Step(problem, "move", "is moved to quarantine")

    def _listed(self, link: Link) -> Entry | None:
        return self._listings.get(link[0], {}).get(link[1])

    def _is_sound(self, entry: Entry) -> bool:
        return self._folder.has_blob(entry.blob) and f"blobs/{entry.blob.digest.hex}" not in self._bad

    def _linkable(self, commit: str) -> tuple[Link, ...]:
        snapshot = self._folder.snapshot_path(commit)
        listing, is_there = self._folder.listing(commit), is_folder(str(snapshot))
        listed = {str(path): entry for path, entry in listing.files.items()} if listing is not None else {}
        missing = {path: entry for path, entry in listed.items() if not (is_there and os.path.lexists(snapshot / path))}
        return tuple((commit, path) for path, entry in missing.items() if self._is_sound(entry))

    def _target(self, problem: Problem) -> Digest | None:
        """Read in a link what it should lead to, where no listing says it."""
        if problem.kind != "dangling-link":
            return None
        try:
            return Digest.parse(os.path.basename(os.readlink(self._folder.path / problem.path)))
        except (OSError, BadReference):
            return None

    def _is_forbidden(self, problem: Problem) -> bool:
        file = self._folder.path / problem.path
        return file.exists() and not os.access(file, os.R_OK)

    def _is_old(self, note: Problem) -> bool:
        try:
            return time.time() - os.lstat(self._folder.path / note.path).st_mtime > OLD
        except OSError:
            return False

    def _allocated(self, note: Problem) -> int:
        try:
            status = os.lstat(self._folder.path / note.path)
        except OSError:
            return 0
        return min(status.st_size, status.st_blocks * 512)


def readable_commit(folder: RepoFolder, ref: str) -> str:
    """Read the one commit that a ref, however written, can mean; "" where there is none."""
    try:
        text = folder.ref_path(ref).read_bytes().decode("ascii", "replace").strip().lower()
    except OSError:
        return ""
    return text if is_commit(text) else ""


def _left(problem: Problem, why: str) -> Step:
    return Step(problem, "leave", f"is left as it is: {why}")
