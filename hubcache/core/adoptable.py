"""What was recognised on a disk and what becomes of it, as values: files and digests in, a pinned repo out.

No disk is looked at here; how each layout is read is app/layouts.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Literal

from hubcache.core.artifact import Artifact, Conversion, Entry, Manifest, RepoId, RepoPath, Revision, is_commit
from hubcache.core.digests import Algorithm, Blob, Digest, digest_bytes
from hubcache.core.gitobj import commit_of, is_lfs, lfs_pointer
from hubcache.core.reference import Reference
from hubcache.errors import UsageError

Layout = Literal[
    "model folder", "git clone", "local_dir folder", "ModelScope cache", "SparseZoo cache", "Ollama store",
    "sentence-transformers folder", "hub cache",
]  # fmt: skip
How = Literal["here", "reflink", "hardlink", "move", "copy"]
"""How a file's bytes come into the cache; `here` is for those that it has already."""

Mode = Literal["auto", "link", "move", "copy"]
"""What the user allows: see ways_of."""

MANAGED: tuple[Layout, ...] = ("git clone", "Ollama store", "hub cache")
"""Layouts whose own tool breaks where a file is taken away."""


@dataclass(frozen=True, slots=True)
class FoundFile:
    """One file of a recognised repo.

    Attributes:
        path: its path in the repo.
        place: where it stands, a regular file.
        size: bytes.
        expected: the digest that the layout's own notes give it.
        is_immutable: its owner keeps it by its digest and never writes to it.
    """

    path: RepoPath
    place: str
    size: int
    expected: Digest | None = None
    is_immutable: bool = False


@dataclass(frozen=True, slots=True)
class Left:
    """What is left alone, and why."""

    path: str
    why: str


@dataclass(frozen=True, slots=True)
class Found:
    """One commit's worth of files in a layout that was recognised.

    Attributes:
        root: the folder it was recognised by.
        source: the hub's reference it came from (`hf:org/name`), "" where only the folder is known.
        commit: the real one; None where it is computed from the files.
        listing: all files of that commit, where the layout keeps it.
        revision: the ref that should mean it, `refs` further ones.
        algorithm: the one that names what no note names; None for the Hub's choice.
        is_guess: its name is a guess.
        notes: what else is worth telling.
    """

    layout: Layout
    root: str
    repo: RepoId
    files: tuple[FoundFile, ...]
    source: str = ""
    commit: str | None = None
    listing: Manifest | None = None
    revision: str = "main"
    refs: tuple[str, ...] = ()
    algorithm: Algorithm | None = None
    is_guess: bool = False
    left: tuple[Left, ...] = ()
    notes: tuple[str, ...] = ()
    conversion: Conversion | None = None
    told: Mapping[str, object] | None = None

    @property
    def reference(self) -> Reference:
        """What the cache notes as the source: the hub's reference where one is known, else the folder."""
        scheme, _, address = (self.source or f"file:{self.root}").partition(":")
        return Reference(scheme, address, self.repo, self.revision)


@dataclass(frozen=True, slots=True)
class Pinned:
    """A found repo with every file's digest: what is taken, at which commit, and what is left out."""

    artifact: Artifact
    files: tuple[FoundFile, ...]
    left: tuple[Left, ...]


def algorithm_of(found: Found, file: FoundFile) -> Algorithm:
    """Choose the hash that names a file: the one its note gives, else the one the Hub would."""
    if file.expected is not None:
        return file.expected.algorithm
    return found.algorithm or ("sha256" if is_lfs(file.path, file.size) else "git-sha1")


def pin(found: Found, hexes: Mapping[tuple[str, Algorithm], str]) -> Pinned:
    """Pin what was found by the digests of its files, by place and algorithm; a file without one is left out.

    A file that is not what its note says was changed since, and is left out.
    """
    taken, left, entries = [], [], {}
    for file in found.files:
        digest = hexes.get((file.place, algorithm_of(found, file)))
        if digest is None:
            continue
        if file.expected is not None and file.expected.hex != digest:
            left.append(Left(file.path, f"changed: its {file.expected.algorithm} is not the one noted for it"))
            continue
        taken.append(file)
        entries[file.path] = _entry(found, file, digest)
    return Pinned(_artifact(found, entries), tuple(taken), tuple(left))


def _entry(found: Found, file: FoundFile, digest: str) -> Entry:
    if found.listing is not None and (listed := found.listing.files.get(file.path)) is not None:
        return listed
    blob = Blob(Digest(algorithm_of(found, file), digest), file.size)
    # ModelScope names small files by sha256, too: those are kept in no LFS.
    if blob.digest.algorithm == "git-sha1" or found.algorithm is not None:
        return Entry(blob)
    return Entry(blob, pointer=digest_bytes("git-sha1", lfs_pointer(blob)).hex)


def _artifact(found: Found, entries: Mapping[RepoPath, Entry]) -> Artifact:
    manifest = Manifest(entries)
    commit = found.commit
    if commit is None:
        commit = commit_of(manifest)
    elif found.listing is not None:
        manifest = found.listing
    return Artifact(
        found.repo,
        Revision(found.revision, commit),
        manifest,
        origin=f"{found.layout} {found.root}",
        refs=found.refs,
        is_whole=found.commit is None or found.listing is not None,
        conversion=found.conversion,
        told=found.told,
    )


def keep_refs(artifact: Artifact, held: Mapping[str, str], is_own: Callable[[str], bool]) -> tuple[Artifact, list[str]]:
    """Leave out the refs that mean another commit already, unless that one `is_own`: of the same source, earlier.

    Returns the artifact and the refs that stay what they are.
    """
    commit = artifact.revision.commit
    wanted = [name for name in dict.fromkeys((artifact.revision.asked, *artifact.refs)) if not is_commit(name)]
    kept = [name for name in wanted if held.get(name, commit) == commit or is_own(held[name])]
    asked, *others = kept or [commit]
    return replace(artifact, revision=Revision(asked, commit), refs=tuple(others)), [n for n in wanted if n not in kept]


def ways_of(mode: Mode, file: FoundFile) -> tuple[How, ...]:
    """List the ways to bring a file's bytes in, the best first.

    A hardlinked blob changes where somebody writes to the old path, so `auto` links only what its owner keeps by
    digest and never writes to; `link` allows it for all, `move` leaves no old path, `copy` shares nothing.
    """
    if mode == "copy":
        return ("copy",)
    if mode == "move":
        return ("hardlink", "reflink", "copy")
    return ("reflink", "hardlink", "copy") if mode == "link" or file.is_immutable else ("reflink", "copy")


def claim(found: Iterable[Found], *, name: str | None, commit: str | None) -> list[Found]:
    """Lay `--as` and `--commit` over what was found.

    Raises:
        UsageError: the name or commit is given and more than one repo, or one with a commit of its own, was found.
    """
    found = list(found)
    if name is not None and len({each.repo for each in found}) > 1:
        raise UsageError(f"--as names one repo, and {len({each.repo for each in found})} were found")
    if name is not None:
        found = [_named(each, name) for each in found]
    if commit is None:
        return found
    if len(found) > 1 or any(each.commit not in {None, commit} for each in found):
        raise UsageError("--commit is for one folder that does not say its commit itself")
    return [
        replace(each, commit=commit, repo=replace(each.repo, hub="hf"), source=each.source or f"hf:{each.repo.name}")
        for each in found
    ]


def _named(found: Found, name: str) -> Found:
    """Give it its name; a folder of the Hub's commit that did not say of which repo is that repo's then."""
    repo = RepoId.parse(name, hub=found.repo.hub, kind=found.repo.kind)
    if found.layout != "local_dir folder":
        return replace(found, repo=repo, is_guess=False)
    return replace(found, repo=replace(repo, hub="hf"), source=f"hf:{name}", is_guess=False, notes=())
