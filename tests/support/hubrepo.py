"""Repos as a hub stores them: git ids of files, folders and commits, LFS pointers, refs.

It keeps no pack files and speaks no HTTP.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import PurePosixPath

from tests.support.httpd import Body, body_hex, body_size

LFS_SUFFIXES = (
    *(".bin", ".ckpt", ".ftz", ".gguf", ".h5", ".joblib", ".mlmodel", ".model", ".msgpack", ".onnx", ".ot", ".pb"),
    *(".pickle", ".pkl", ".pt", ".pth", ".safetensors", ".tflite", ".wasm", ".arrow", ".npy", ".npz", ".parquet"),
    *(".7z", ".bz2", ".gz", ".rar", ".tar", ".tgz", ".xz", ".zip", ".zst"),
)
LFS_FROM = 10 << 20
FIRST_COMMIT = 1_700_000_000  # unix seconds
FULL_COMMIT = re.compile(r"[0-9a-f]{40}")
SHORT_COMMIT = re.compile(r"[0-9a-f]{7,39}")


def git_id(kind: str, content: bytes) -> str:
    """Return the id git gives an object of that kind (blob, tree, commit)."""
    return hashlib.sha1(f"{kind} {len(content)}\0".encode() + content).hexdigest()


@dataclass(frozen=True, slots=True)
class HubFile:
    """A file as committed: `oid` is the git id, of the pointer where the content is in LFS (sha256 set)."""

    body: Body
    size: int
    oid: str
    sha256: str | None = None

    @property
    def etag(self) -> str:
        return self.sha256 or self.oid

    @property
    def pointer_size(self) -> int:
        return len(lfs_pointer(self.sha256 or "", self.size))

    @classmethod
    def of(cls, path: str, body: Body) -> HubFile:
        size = body_size(body)
        if size > LFS_FROM or PurePosixPath(path).suffix.lower() in LFS_SUFFIXES:
            sha256 = body_hex(body, "sha256")
            return cls(body, size, git_id("blob", lfs_pointer(sha256, size)), sha256)
        return cls(body, size, git_id("blob", body if isinstance(body, bytes) else body.read_bytes()))


def lfs_pointer(sha256: str, size: int) -> bytes:
    return f"version https://git-lfs.github.com/spec/v1\noid sha256:{sha256}\nsize {size}\n".encode()


@dataclass(frozen=True, slots=True)
class Commit:
    """One commit: its files and the git ids of its folders ("" is the root)."""

    oid: str
    files: dict[str, HubFile]
    folders: dict[str, str]
    title: str
    date: str

    def under(self, folder: str, recursive: bool) -> Iterator[str]:
        """Yield the paths of a folder, folders before files."""
        inside = f"{folder}/" if folder else ""
        for paths in (sorted(self.folders), sorted(self.files)):
            for path in paths:
                rest = path.removeprefix(inside)
                if path and path.startswith(inside) and rest and (recursive or "/" not in rest):
                    yield path


def folder_ids(files: Mapping[str, HubFile]) -> dict[str, str]:
    """Compute the git tree id of every folder, deepest first."""
    children: dict[str, dict[str, str]] = {"": {}}
    for path, file in files.items():
        *parents, name = path.split("/")
        for depth in range(len(parents)):
            children.setdefault("/".join(parents[: depth + 1]), {})
        children["/".join(parents)][name] = file.oid
    ids: dict[str, str] = {}
    for folder in sorted(children, key=lambda path: (-len(path.split("/")), path == "", path)):
        inside = f"{folder}/" if folder else ""
        rows = [(name, b"100644", oid) for name, oid in children[folder].items()]
        names = [path.removeprefix(inside) for path in ids if path.startswith(inside)]
        rows += [(name, b"40000", ids[inside + name]) for name in names if "/" not in name]
        rows.sort(key=lambda row: row[0].encode() + (b"/" if row[1] == b"40000" else b""))
        tree = b"".join(mode + b" " + name.encode() + b"\0" + bytes.fromhex(oid) for name, mode, oid in rows)
        ids[folder] = git_id("tree", tree)
    return ids


@dataclass(slots=True)
class HubRepo:
    """A repo of the hub: commits by id, refs by full name (refs/heads/main), and who may read it."""

    kind: str
    name: str
    private: bool = False
    gated: bool | str = False
    tokens: set[str] = field(default_factory=set)
    commits: dict[str, Commit] = field(default_factory=dict)
    refs: dict[str, str] = field(default_factory=dict)

    def add_commit(self, ref: str, files: Mapping[str, Body | None], replace: bool) -> str:
        """Commit files over the tip of a ref (None removes one; replace starts from nothing) and move the ref."""
        full = self.full_ref(ref)
        parent = self.refs.get(full) or self.refs.get("refs/heads/main")
        kept = {} if replace or parent is None else dict(self.commits[parent].files)
        for path, body in files.items():
            kept.pop(path, None)
            if body is not None:
                kept[path] = HubFile.of(path, body)
        folders, number = folder_ids(kept), len(self.commits)
        made = FIRST_COMMIT + number
        lines = [f"tree {folders['']}", *([f"parent {parent}"] if parent else [])]
        lines += [f"{role} LoopHub <loop@hub.invalid> {made} +0000" for role in ("author", "committer")]
        oid = git_id("commit", "\n".join([*lines, "", f"{self.name} {number}\n"]).encode())
        date = datetime.fromtimestamp(made, UTC).strftime("%Y-%m-%dT%H:%M:%S.000Z")
        self.commits[oid] = Commit(oid, kept, folders, f"{self.name} {number}", date)
        self.refs[full] = oid
        return oid

    def full_ref(self, ref: str) -> str:
        return ref if ref.startswith("refs/") else f"refs/heads/{ref}"

    def commit(self, revision: str) -> Commit | None:
        """Find what a revision means: HEAD, branch, tag, full ref, commit, or 7 and more of its first letters."""
        name = "main" if revision == "HEAD" else revision
        for ref in (name, f"refs/heads/{name}", f"refs/tags/{name}"):
            if ref.startswith("refs/") and ref in self.refs:
                return self.commits[self.refs[ref]]
        if FULL_COMMIT.fullmatch(name):
            return self.commits.get(name)
        found = [oid for oid in self.commits if SHORT_COMMIT.fullmatch(name) and oid.startswith(name)]
        return self.commits[found[0]] if len(found) == 1 else None

    def split_revision(self, segments: list[str]) -> tuple[str, str]:
        """Split decoded segments into revision and path; a revision's slashes may have come raw."""
        known = {ref.removeprefix(start) for ref in self.refs for start in ("", "refs/heads/", "refs/tags/")}
        for count in range(2, len(segments) + 1):
            if (revision := "/".join(segments[:count])) in known:
                return revision, "/".join(segments[count:])
        return "".join(segments[:1]), "/".join(segments[1:])

    def may_read(self, token: str | None) -> bool:
        return token is not None and token in self.tokens
