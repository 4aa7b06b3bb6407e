"""What is on the disk already, taken into the cache: recognised, hashed, planned, and only then brought in.

How a layout is recognised is app/layouts, how one file's bytes are taken is cache/adopting.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path

from hubcache.app.layouts import recognise
from hubcache.app.layouts.seeing import Seeing
from hubcache.app.local import LocalApp
from hubcache.cache.adopting import Hashed, expected_way, remove_source, take
from hubcache.cache.hashing import hash_files
from hubcache.cache.index import FileState, Index
from hubcache.cache.journal import Journal
from hubcache.cache.provenance import source_text
from hubcache.cache.tidy import remove_if_empty
from hubcache.core.adoptable import (
    MANAGED,
    Found,
    FoundFile,
    How,
    Left,
    Mode,
    algorithm_of,
    claim,
    keep_refs,
    pin,
    ways_of,
)
from hubcache.core.artifact import Artifact, Kind
from hubcache.core.digests import Algorithm
from hubcache.core.ports import Progress
from hubcache.errors import HubcacheError, IntegrityError


@dataclass(frozen=True, slots=True)
class AdoptRequest:
    """What is to be adopted, and what the options say of it."""

    paths: tuple[Path, ...]
    kind: Kind = "model"
    stored_as: str | None = None
    commit: str | None = None
    mode: Mode = "auto"


@dataclass(frozen=True, slots=True)
class PlannedTake:
    """One file of the plan, hashed, and how its bytes are to come."""

    file: FoundFile
    hashed: Hashed
    how: How


@dataclass(frozen=True, slots=True)
class Adoption:
    """One found repo's plan: its commit and refs, its files, what is left alone, what else is worth telling."""

    found: Found
    artifact: Artifact
    takes: tuple[PlannedTake, ...]
    left: tuple[Left, ...]
    notes: tuple[str, ...]
    mode: Mode

    @property
    def copied_size(self) -> int:
        """Bytes that really have to be copied, each blob once."""
        copied = {self.artifact.entry(take.file.path).blob for take in self.takes if take.how == "copy"}
        return sum(blob.size for blob in copied)


@dataclass(frozen=True, slots=True)
class Adopted:
    """What an adoption came to: the files as they really came in, the snapshot's folder; None where no file was left.

    `removed` counts the files that were taken away from where they stood.
    """

    adoption: Adoption
    path: Path | None
    removed: int = 0


@dataclass(frozen=True, slots=True)
class AdoptPlan:
    """Everything that was recognised, and the paths that were not."""

    adoptions: tuple[Adoption, ...]
    left: tuple[Left, ...] = ()


@dataclass(slots=True)
class _Seen:
    """The digests of the files by place, and the files as they were hashed."""

    hexes: dict[tuple[str, Algorithm], str] = field(default_factory=dict)
    hashed: dict[str, Hashed] = field(default_factory=dict)


def plan_adoption(app: LocalApp, request: AdoptRequest, progress: Progress) -> AdoptPlan:
    """Recognise what is at the paths, hash it, and say what becomes of it; only the index is written.

    Raises:
        UsageError: `--as` or `--commit` does not fit what was found.
    """
    seeing = Seeing(request.kind, app.hub_urls(), app.settings.environ.get("PATH"), os.path.realpath(app.cache.root))
    told: list[Found | Left] = []
    for path in request.paths:
        told += _recognised(Path(os.path.abspath(path.expanduser())), seeing)
    found = claim([each for each in told if isinstance(each, Found)], name=request.stored_as, commit=request.commit)
    found = [_listed(app, each) for each in found]
    index = Index(app.settings.state / "index.sqlite3" if app.settings.state else None)
    try:
        seen = _hash(found, index, progress)
    finally:
        index.close()
    adoptions = tuple(_adoption(app, each, seen, request.mode) for each in found)
    return AdoptPlan(adoptions, tuple(each for each in told if isinstance(each, Left)))


def _recognised(path: Path, seeing: Seeing) -> Iterator[Found | Left]:
    if _is_below(os.path.realpath(path), seeing.own_cache):
        yield Left(str(path), "it is in this very cache")
        return
    for each in recognise(path, seeing):
        if isinstance(each, Found) and _is_below(seeing.own_cache, os.path.realpath(each.root)):
            yield Left(each.root, "this very cache is in it")
        else:
            yield each


def _is_below(path: str, folder: str) -> bool:
    return os.path.commonpath([path, folder]) == folder


def _listed(app: LocalApp, found: Found) -> Found:
    """Hold a commit that says no listing of its own against the one that the cache has."""
    if found.commit is None or found.listing is not None:
        return found
    listing = app.cache.listing(found.repo, found.commit)
    if listing is None:
        return found
    files, left = [], list(found.left)
    for file in found.files:
        listed = listing.files.get(file.path)
        if listed is None or file.expected not in {None, listed.blob.digest}:
            left.append(Left(file.path, f"{found.repo}@{found.commit[:12]} has no such file"))
        else:
            files.append(replace(file, expected=listed.blob.digest))
    return replace(found, files=tuple(files), left=tuple(left), listing=listing)


def _hash(found: Sequence[Found], index: Index, progress: Progress) -> _Seen:
    """Hash every file once, recalling what the index knows of files that were not touched since."""
    wanted = list(dict.fromkeys((file.place, algorithm_of(each, file)) for each in found for file in each.files))
    began, seen = time.time_ns(), _Seen()
    states = {place: state for place, _ in wanted if (state := _state(place)) is not None}
    seen.hashed.update({place: Hashed(place, state, began) for place, state in states.items()})
    for place, algorithm in wanted:
        if place in states and seen.hashed[place].is_certain:
            known = index.hex_of(Path(place), algorithm, states[place])
            seen.hexes |= {(place, algorithm): known} if known else {}
    unknown = [each for each in wanted if each[0] in states and each not in seen.hexes]
    for (place, algorithm), result in hash_files(unknown, progress, origin="local file").items():
        if result.error or result.size != states[place].size or _state(place) != states[place]:
            continue
        seen.hexes[place, algorithm] = result.hex
        if seen.hashed[place].is_certain:
            digests = {"git_sha1" if algorithm == "git-sha1" else "sha256": result.hex}
            index.remember(Path(place), states[place], **digests)
    return seen


def _state(place: str) -> FileState | None:
    try:
        return FileState.of(os.lstat(place))
    except OSError:
        return None


def _adoption(app: LocalApp, found: Found, seen: _Seen, mode: Mode) -> Adoption:
    if mode == "move" and found.layout in MANAGED:
        mode, kept = "auto", [f"a {found.layout} needs its files where they are: nothing is moved out of it"]
    else:
        kept = []
    pinned = pin(found, seen.hexes)
    unread = [Left(file.path, "it changed while it was read, or cannot be read")
              for file in found.files if (file.place, algorithm_of(found, file)) not in seen.hexes]  # fmt: skip
    artifact, staying = _with_refs(app, pinned.artifact, found)
    kept += [f"refs/{name} stays what it is, another commit" for name in staying]
    if found.commit is not None and not pinned.artifact.is_whole:
        kept.append("no listing of its commit is here: what else belongs to it is not known")
    takes = tuple(_planned(app, artifact, file, seen.hashed[file.place], mode) for file in pinned.files)
    return Adoption(found, artifact, takes, (*found.left, *unread, *pinned.left), (*found.notes, *kept), mode)


def _with_refs(app: LocalApp, artifact: Artifact, found: Found) -> tuple[Artifact, list[str]]:
    folder = app.cache.folder(found.repo)
    source = source_text(found.reference)

    def is_own(commit: str) -> bool:
        # What is computed moves on with its folder; a commit of a hub is never newer for being adopted later.
        return found.commit is None and folder.provenance(commit).get("source") == source

    return keep_refs(artifact, folder.refs(), is_own)


def _planned(app: LocalApp, artifact: Artifact, file: FoundFile, hashed: Hashed, mode: Mode) -> PlannedTake:
    # Not the cache's own has_file: that may try out links, and a plan writes nothing.
    folder = app.cache.folder(artifact.repo)
    if folder.has_file(artifact.revision.commit, file.path, artifact.entry(file.path).blob):
        return PlannedTake(file, hashed, "here")
    how = expected_way(hashed, ways_of(mode, file), _nearest_folder(app.cache.root))
    return PlannedTake(file, hashed, "move" if mode == "move" and how == "hardlink" else how)


def _nearest_folder(path: Path) -> Path:
    return next(folder for folder in (path, *path.parents) if folder.is_dir())


def adopt(app: LocalApp, adoption: Adoption, notify: Callable[[str], None]) -> Adopted:
    """Carry out one repo's plan: blobs, then links, listing and refs, and last, where it was to be moved, the sources.

    A file that changed since it was hashed is left where it is.

    Raises:
        DiskFull, CacheError: as the cache raises them; no source is gone then.
    """
    if not adoption.takes:
        return Adopted(adoption, None)
    folder = app.cache.folder(adoption.artifact.repo)
    app.cache.require_space(adoption.copied_size)
    reference = adoption.found.reference
    try:
        with app.cache.stage(reference) as stage:
            done = _take_all(app, adoption, stage.folder)
            if not done.takes:
                return Adopted(done, None)
            path = app.cache.commit(done.artifact, reference, paths=[each.file.path for each in done.takes])
    finally:
        remove_if_empty(folder)
    removed = _remove_sources(done, path, notify) if done.mode == "move" else 0
    came = {done.artifact.entry(each.file.path).blob for each in done.takes if each.how != "here"}
    _journal(app).add(
        "adopt", root=app.cache.root, repo=str(done.artifact.repo), commit=done.artifact.revision.commit,
        size=sum(blob.size for blob in came), note=done.artifact.origin,
    )  # fmt: skip
    return Adopted(done, path, removed)


def _take_all(app: LocalApp, adoption: Adoption, scratch: Path) -> Adoption:
    """Bring every blob in; a file that changed is left out, and where the commit is computed, so is its part of it."""
    folder = app.cache.folder(adoption.artifact.repo)
    takes, left = [], list(adoption.left)
    for planned in adoption.takes:
        blob = adoption.artifact.entry(planned.file.path).blob
        if app.cache.has_file(adoption.artifact, planned.file.path, blob):
            takes.append(planned if planned.how == "here" else replace(planned, how="here"))
            continue
        try:
            how = take(folder, blob, planned.hashed, ways_of(adoption.mode, planned.file), scratch=scratch)
        except IntegrityError as error:
            left.append(Left(planned.file.path, error.message))
        else:
            takes.append(replace(planned, how="move" if adoption.mode == "move" and how == "hardlink" else how))
    artifact = adoption.artifact
    if len(takes) < len(adoption.takes) and takes:
        artifact = _repinned(app, adoption, takes)
    return replace(adoption, artifact=artifact, takes=tuple(takes), left=tuple(left))


def _repinned(app: LocalApp, adoption: Adoption, takes: Sequence[PlannedTake]) -> Artifact:
    files = tuple(each.file for each in takes)
    digests = ((file.place, adoption.artifact.entry(file.path).blob.digest) for file in files)
    found = replace(adoption.found, files=files)
    pinned = pin(found, {(place, digest.algorithm): digest.hex for place, digest in digests})
    return _with_refs(app, pinned.artifact, found)[0]


def _remove_sources(done: Adoption, snapshot: Path, notify: Callable[[str], None]) -> int:
    """Take away the files that the cache has now, each held against what it has, and the folders left empty."""
    removed = 0
    for each in done.takes:
        try:
            removed += remove_source(each.hashed, done.artifact.entry(each.file.path).blob, snapshot / each.file.path)
        except HubcacheError as error:
            notify(f"{each.file.place} was adopted and stays: {error.message}")
    for folder, _, _ in os.walk(done.found.root, topdown=False):
        with suppress(OSError):
            os.rmdir(folder)
    return removed


def _journal(app: LocalApp) -> Journal:
    return Journal(app.settings.state / "history.jsonl" if app.settings.state else None)
