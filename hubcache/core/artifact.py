"""What a pinned repo is: ids, revisions, manifests, artifacts; how text becomes one is ids.py's job."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any, Literal, NewType, get_args

from hubcache.core.digests import Blob
from hubcache.errors import BadReference, EntryNotFound

Kind = Literal["model", "dataset", "space"]
KINDS: tuple[Kind, ...] = get_args(Kind)

# huggingface_hub's validate_repo_id, in one expression per part.
_PART = re.compile(r"(?=.{1,96}\Z)[A-Za-z0-9_](?:[A-Za-z0-9_.-]*[A-Za-z0-9_])?", re.ASCII)
_COMMIT = re.compile(r"[0-9a-f]{40}", re.ASCII)
_REF_FORBIDDEN = re.compile(r"[\x00-\x20\x7f~^:?*\[\\]|\.\.|@\{|//")
_WINDOWS_NAMES = re.compile(r"(?i)(con|prn|aux|nul|com[0-9]|lpt[0-9])(\..*)?")

_DRIVE = re.compile(r"[A-Za-z]:")

RepoPath = NewType("RepoPath", str)


@dataclass(frozen=True, slots=True, order=True)
class RepoId:
    """Which repo on which hub; `name` is `org/name` or, for the oldest repos, `name` alone."""

    hub: str
    kind: Kind
    name: str

    @classmethod
    def parse(cls, name: str, *, hub: str = "hf", kind: str = "model") -> RepoId:
        """Parse by huggingface_hub's rules: at most one slash, word characters, `-` and `.`.

        Raises:
            BadReference: says which part is wrong.
        """
        if kind not in KINDS:
            raise BadReference(f"no such repo type: {kind!r}", hint=f"one of: {', '.join(KINDS)}")
        parts = name.split("/")
        if len(parts) > 2:
            raise BadReference(f"a repo name has at most one slash: {name!r}")
        for part in parts:
            if not _PART.fullmatch(part) or "--" in part or ".." in part:
                raise BadReference(
                    f"not a repo name: {part!r} in {name!r} (letters, digits, '_', '-' and '.', 1 to 96 of them,"
                    " beginning and ending with a letter or digit, no '--' or '..')"
                )
        if name.endswith(".git"):
            raise BadReference(f"a repo name does not end with .git: {name!r}")
        return cls(hub, kind, name)

    def __str__(self) -> str:
        return self.name if self.kind == "model" else f"{self.kind}s/{self.name}"


@dataclass(frozen=True, slots=True)
class Revision:
    """What was asked ("main") and the 40-hex commit it means."""

    asked: str
    commit: str


def is_commit(text: str) -> bool:
    """Tell whether the text is a full commit: 40 lower-case hex digits."""
    return _COMMIT.fullmatch(text) is not None


def parse_commit(text: str) -> str:
    """Return the text if it is a full commit.

    Raises:
        BadReference: anything else; a commit becomes a folder's name.
    """
    if not is_commit(text):
        raise BadReference(f"not a commit: {text[:80]!r} (40 lower-case hex digits)")
    return text


def parse_revision(text: str) -> str:
    """Return the text if git would take it as the name of a branch, tag, pull request or commit.

    Raises:
        BadReference: it would not, or it would leave the refs folder.
    """
    segments = text.split("/")
    bad = any(not s or s.startswith((".", "-")) or s.endswith((".", ".lock")) for s in segments)
    if bad or _REF_FORBIDDEN.search(text) or len(text) > 240:
        raise BadReference(f"not a revision: {text[:80]!r} (a branch, tag, refs/pr/N or commit)")
    return text


def parse_path(text: str) -> RepoPath:
    """Return the text if it is a file's path inside a repo, safe under POSIX and Windows rules.

    Raises:
        BadReference: absolute, empty or dotted segments, drives, reserved names, control characters.
    """
    for segment in text.split("/"):
        if not segment or segment in {".", ".."}:
            raise BadReference(f"not a path inside a repo: {text[:200]!r}")
        if segment.lower() == ".git":
            # git itself keeps none; in a snapshot, it could make git run what a stranger wrote.
            raise BadReference(f"a .git folder is no part of a repo: {text[:200]!r}")
        if any(c == "\\" or ord(c) < 32 or ord(c) == 127 for c in segment) or _DRIVE.match(segment):
            raise BadReference(f"unsafe character in path: {text[:200]!r}")
        if segment[-1] in ". " or _WINDOWS_NAMES.fullmatch(segment):
            raise BadReference(f"path that some systems cannot hold: {text[:200]!r}")
        if len(segment.encode("utf-8", "surrogatepass")) > 255:
            raise BadReference(f"path segment over 255 bytes: {text[:80]!r}…")
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise BadReference(f"path that is not Unicode: {text[:200]!r}") from error
    return RepoPath(text)


@dataclass(frozen=True, slots=True)
class Entry:
    """One file of a commit.

    `blob` is what the cache stores and the ETag names; `pointer` is the git-sha1 of the LFS
    pointer where the file is kept in LFS; `xet` is the Hub's Xet hash where it told one.
    """

    blob: Blob
    pointer: str | None = None
    xet: str | None = None


@dataclass(frozen=True, slots=True)
class Manifest:
    """Every file of one commit; immutable."""

    files: Mapping[RepoPath, Entry]

    def __post_init__(self) -> None:
        object.__setattr__(self, "files", MappingProxyType(dict(sorted(self.files.items()))))

    @property
    def size(self) -> int:
        """All files' bytes, each path counted."""
        return sum(entry.blob.size for entry in self.files.values())


@dataclass(frozen=True, slots=True)
class Conversion:
    """What a commit was made of here: the original's commit, by which rules, and what was done to it, line by line."""

    original: str
    rules: int
    portable: bool = False
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Artifact:
    """A repo pinned to a commit: enough to pull, serve, verify or bundle with no further question.

    `validator` is what upstream answers as long as this content is current, for sources that are
    no git repos (an ETag, a listing's digest); None where the commit itself says it. `origin` is where
    the listing came from, `refs` further names of the commit, `published_as` the hub's own name where the
    repo is kept under another; `is_whole` says that the manifest has every file of the commit, `is_public`
    that anybody may have them. `conversion` tells of what another commit's files were turned into these;
    `told` is what the hub told of the repo beyond its files, as core/cards.py selects it, None where it was not asked.
    """

    repo: RepoId
    revision: Revision
    manifest: Manifest
    validator: str | None = None
    origin: str = ""
    refs: tuple[str, ...] = ()
    published_as: RepoId | None = None
    is_whole: bool = True
    is_public: bool = True
    conversion: Conversion | None = None
    told: Mapping[str, Any] | None = field(default=None, compare=False)

    def entry(self, path: RepoPath) -> Entry:
        """Return the file's entry.

        Raises:
            EntryNotFound: the commit has no such file.
        """
        try:
            return self.manifest.files[path]
        except KeyError:
            raise EntryNotFound(f"{self.repo} has no file {path!r} at {self.revision.commit[:12]}") from None
