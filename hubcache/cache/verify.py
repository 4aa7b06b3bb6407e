"""Holds a cached repo against its digests and listings, and tells everything that is wrong; it repairs nothing."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from hubcache.cache.findings import Report
from hubcache.cache.folder import RepoFolder
from hubcache.cache.hashing import File, FileHash, hash_files
from hubcache.cache.index import FileState, Index
from hubcache.cache.inspection import Claim, Inspection
from hubcache.core.ports import Progress
from hubcache.core.sampling import Sample

UNNOTED, NOTED_EVERY = 16 << 20, 0.1
"""Bytes, and seconds of hashing, that a check which is killed may have to do again."""


@dataclass(frozen=True, slots=True)
class Effort:
    """Which bytes are read, and how fast; links, refs and listings are always looked at, all of them.

    Attributes:
        index: remembers each hash soon after it is there; an interrupted check goes on by `since`.
        since: what was hashed from then on (unix seconds), was right, and has not changed, is not read again.
        sample: of the rest, only these.
        spend: waits until so many bytes more may be read; None for no limit.
    """

    index: Index | None = None
    since: float | None = None
    sample: Sample | None = None
    spend: Callable[[int], None] | None = None


EVERYTHING = Effort()


def verify_repo(
    folder: RepoFolder, *, commit: str | None = None, progress: Progress, effort: Effort = EVERYTHING
) -> Report:
    """Check all that a repo's folder holds, or one commit and what it needs; each blob is hashed once."""
    inspection = Inspection(folder, commit)
    claims = inspection.inspect()
    known = _known(claims, effort)
    unknown = [claim for claim in claims if _file(claim) not in known]
    drawn = [claim for claim in unknown if effort.sample is None or effort.sample.has(claim.digest)]
    memory = _Memory(effort.index)
    try:
        files = [_file(claim) for claim in drawn]
        hashes = hash_files(files, progress, origin=str(folder.repo), spend=effort.spend, finished=memory.add)
    finally:
        memory.flush()
    for claim in claims:
        if (found := hashes.get(_file(claim)) or known.get(_file(claim))) is not None:
            _judge(inspection, claim, found)
    undrawn = {_file(claim): _size(claim) for claim in unknown if _file(claim) not in hashes}
    return replace(
        inspection.findings.report(len(hashes), sum(found.size for found in hashes.values())),
        known_files=len(known),
        known_size=sum(found.size for found in known.values()),
        undrawn_files=len(undrawn),
        undrawn_size=sum(undrawn.values()),
    )


def _file(claim: Claim) -> File:
    return claim.file, claim.digest.algorithm


def _known(claims: Sequence[Claim], effort: Effort) -> dict[File, FileHash]:
    """Recall what was hashed lately, and was right: what was wrong is hashed again."""
    if effort.index is None or effort.since is None:
        return {}
    found = {}
    for claim in claims:
        try:
            state = FileState.of(os.stat(claim.file))
        except OSError:
            continue
        if effort.index.proven_at(Path(claim.file), claim.digest, state) >= max(effort.since, 1):
            found[_file(claim)] = FileHash(state.size, claim.digest.hex, state=state)
    return found


class _Memory:
    """Notes hashes in the index soon: large files' at once, small ones' together, for each by itself costs more."""

    def __init__(self, index: Index | None) -> None:
        self._index = index
        self._lock = threading.Lock()
        self._waiting: list[tuple[str, FileState, str, str]] = []
        self._size = 0
        self._noted_at = 0.0

    def add(self, file: File, found: FileHash) -> None:
        if self._index is None or found.state is None:
            return
        digests = (found.hex, "") if file[1] == "git-sha1" else ("", found.hex)
        with self._lock:
            self._waiting.append((file[0], found.state, *digests))
            self._size += found.size
            is_much = self._size > UNNOTED or time.monotonic() - self._noted_at > NOTED_EVERY
        if is_much:
            self.flush()

    def flush(self) -> None:
        with self._lock:
            waiting, self._waiting, self._size = self._waiting, [], 0
            self._noted_at = time.monotonic()
        if self._index is not None and waiting:
            self._index.remember_hashes(waiting)


def _size(claim: Claim) -> int:
    try:
        return os.stat(claim.file).st_size
    except OSError:
        return 0


def _judge(inspection: Inspection, claim: Claim, found: FileHash) -> None:
    """Say what a file's hash shows: its bytes are wrong, or the listing is."""
    add, use = inspection.findings.add, claim.use
    named = f"{use.files[0][1]}: " if use.files and claim.path.startswith("blobs/") else ""
    others = {size: commit for size, commit in use.listed.items() if size != found.size}
    if found.error:
        add(claim.path, "unreadable", f"{named}cannot be read: {found.error}", use.commit)
    elif found.hex != claim.digest.hex:
        listed = f", {found.size} bytes where {min(others)} are listed" if others else ""
        add(claim.path, "corrupt", f"{named}its {claim.digest.algorithm} is {found.hex[:12]}{listed}", use.commit)
    else:
        for size, commit in others.items():
            message = f"gives {claim.digest.hex[:12]} {size} bytes where it has {found.size}"
            add(f"trees/{commit}.json", "wrong-size", message, commit)
