"""Members' names: which are safe, which collide, which are skipped; reading members is tar.py's and zip.py's."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeAlias, Union
from unicodedata import normalize

from hubcache.core.artifact import RepoPath, parse_path
from hubcache.errors import BadReference, UnsafeArchive
from hubcache.unpack.tally import Limits, label

# Folded segment -> its spelling, and what is below it (None: it is a file).
_Folder: TypeAlias = dict[str, tuple[str, Union["_Folder", None]]]


@dataclass(frozen=True, slots=True)
class Member:
    """A regular file of an archive; `size` is in bytes."""

    path: RepoPath
    size: int


class Names:
    """The names one archive has used so far."""

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._root: _Folder = {}
        self._members = 0
        self._nodes = 0

    def add(self, name: str, *, folder: bool) -> RepoPath | None:
        """Parse a member's name and claim its place; None for what is not unpacked (folders, macOS litter).

        Raises:
            UnsafeArchive: the name is unsafe or too long, its place is taken, or there are too many.
        """
        self._members += 1
        self._check_count(name, self._members)
        path = _parse(name, folder, self._limits.path_bytes)
        if path is None or _is_litter(path):
            return None
        *parents, leaf = path.split("/")
        node = self._root
        for segment in parents:
            node = self._enter(node, segment, name)
        if folder:
            self._enter(node, leaf, name)
            return None
        self._place(node, leaf, name)
        return path

    def _enter(self, node: _Folder, segment: str, name: str) -> _Folder:
        key = _fold(segment)
        if key not in node:
            self._new(name)
            node[key] = (segment, {})
        spelling, below = node[key]
        if spelling != segment:
            raise UnsafeArchive(f"{label(name)}: {segment!r} and {spelling!r} are one name to some systems")
        if below is None:
            raise UnsafeArchive(f"{label(name)}: needs a folder where {spelling!r} is a file")
        return below

    def _place(self, node: _Folder, leaf: str, name: str) -> None:
        key = _fold(leaf)
        if key not in node:
            self._new(name)
            node[key] = (leaf, None)
            return
        spelling, below = node[key]
        if below is not None:
            raise UnsafeArchive(f"{label(name)}: is a file where {spelling!r} is a folder")
        if spelling != leaf:
            raise UnsafeArchive(f"{label(name)}: {leaf!r} and {spelling!r} are one name to some systems")
        raise UnsafeArchive(f"{label(name)}: is there twice")

    def _new(self, name: str) -> None:
        self._nodes += 1
        self._check_count(name, self._nodes)

    def _check_count(self, name: str, count: int) -> None:
        if count > self._limits.members:
            raise UnsafeArchive(f"{label(name)}: the archive holds more than {self._limits.members} files and folders")


def _parse(name: str, folder: bool, limit: int) -> RepoPath | None:
    if len(name.encode("utf-8", "surrogateescape")) > limit:
        raise UnsafeArchive(f"{label(name)}: name of more than {limit} bytes")
    text = name.removesuffix("/") if folder else name
    while text.startswith("./"):
        text = text[2:]
    if folder and text == ".":
        return None
    try:
        return parse_path(text)
    except BadReference as error:
        raise UnsafeArchive(f"{label(name)}: {error.message}") from error


def _is_litter(path: RepoPath) -> bool:
    first, last = path.split("/", 1)[0], path.rsplit("/", 1)[-1]
    return first == "__MACOSX" or last == ".DS_Store" or last.startswith("._")


def _fold(segment: str) -> str:
    # Canonical caseless matching (Unicode 3.13, D145): what APFS, and with case NTFS, may call the same name.
    return normalize("NFD", normalize("NFD", segment).casefold())
