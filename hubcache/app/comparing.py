"""Two cached commits held against each other: their files by digest, their tensors by name, type and shape.

Values are not compared: equal bytes have equal digests, and different ones are told by those.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Generic, Literal, TypeVar

from hubcache.app.local import LocalApp, find
from hubcache.core.artifact import Artifact, Kind
from hubcache.core.digests import Blob
from hubcache.core.tensorlist import LENGTH_SIZE, Tensor, header_length, parse_header
from hubcache.errors import IntegrityError

_T = TypeVar("_T")
Change = Literal["added", "removed", "changed", "renamed"]


@dataclass(frozen=True, slots=True)
class Difference(Generic[_T]):
    """One name that is not the same on both sides: what it was and what it is; None where it is not there.

    `was` is the former name of what was only renamed.
    """

    name: str
    before: _T | None
    after: _T | None
    was: str = ""

    @property
    def change(self) -> Change:
        """Say what happened."""
        if self.was:
            return "renamed"
        return "added" if self.before is None else "removed" if self.after is None else "changed"


@dataclass(frozen=True, slots=True)
class Comparison:
    """Two commits: what differs of their files and of the tensors in files that are here.

    `same_tensors` are those of files that differ. `unread` are weights of which no tensors are known: not here,
    damaged, or in another format than safetensors.
    """

    before: Artifact
    after: Artifact
    files: tuple[Difference[Blob], ...]
    same_files: int
    tensors: tuple[Difference[Tensor], ...]
    same_tensors: int
    unread: tuple[str, ...]


def compare(app: LocalApp, before: str, after: str, *, kind: Kind | None = None) -> Comparison:
    """Compare what two references mean in the cache; no hub is asked.

    Raises:
        OfflineError: one of them is not in the cache.
    """
    (_, first), (_, second) = find(app, [before, after], kind=kind)
    one, other = _blobs(first), _blobs(second)
    files = _renamed(_differences(one, other))
    wanted = {each.name for each in files} | {each.was for each in files}
    unread: list[str] = []
    had = _tensors(app, first, wanted, unread)
    has = _tensors(app, second, wanted, unread)
    tensors = _differences(had, has)
    same_tensors = sum(had.get(name) == tensor for name, tensor in has.items())
    same_files = sum(one.get(path) == blob for path, blob in other.items())
    return Comparison(first, second, tuple(files), same_files, tuple(tensors), same_tensors, tuple(unread))


def _blobs(artifact: Artifact) -> dict[str, Blob]:
    return {path: entry.blob for path, entry in artifact.manifest.files.items()}


def _differences(before: Mapping[str, _T], after: Mapping[str, _T]) -> list[Difference[_T]]:
    names = sorted(before.keys() | after.keys())
    found = (Difference(name, before.get(name), after.get(name)) for name in names)
    return [each for each in found if each.before != each.after]


def _renamed(differences: list[Difference[Blob]]) -> list[Difference[Blob]]:
    """Join what was removed and added with the same bytes."""
    gone = {each.before: each.name for each in differences if each.after is None}
    moved = {each.name: gone.pop(each.after) for each in differences if each.before is None and each.after in gone}
    former = set(moved.values())
    return [
        Difference(each.name, each.after, each.after, moved[each.name]) if each.name in moved else each
        for each in differences
        if each.name not in former
    ]


def _tensors(app: LocalApp, artifact: Artifact, paths: set[str], unread: list[str]) -> dict[str, Tensor]:
    """Read the tensors of the safetensors files among `paths`; what cannot be read is added to `unread`."""
    found: dict[str, Tensor] = {}
    for path in artifact.manifest.files:
        if path in paths and path.endswith(".safetensors"):
            file = app.cache.folder(artifact.repo).snapshot_path(artifact.revision.commit) / path
            try:
                found |= read_tensors(file)
            except (OSError, IntegrityError):
                unread.append(f"{artifact.repo}@{artifact.revision.commit[:12]}/{path}")
    return found


def read_tensors(file: Path) -> dict[str, Tensor]:
    """Read the tensors that a safetensors file declares.

    Raises:
        IntegrityError: it is none.
        OSError: it cannot be read.
    """
    with file.open("rb") as opened:
        length = header_length(opened.read(LENGTH_SIZE), file.stat().st_size)
        return parse_header(opened.read(length))
