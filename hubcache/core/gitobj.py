"""Git objects computed, so that content which never was in git has a commit that git agrees with."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import TypeAlias, Union

from hubcache.core.artifact import Entry, Manifest, RepoPath
from hubcache.core.digests import Blob, Digest, digest_bytes
from hubcache.errors import BadReference

# What the Hub's default .gitattributes keeps in LFS, by name and by folder; any file of LFS_SIZE bytes or more joins.
LFS_PATTERNS = (
    "*.7z", "*.arrow", "*.bin", "*.bz2", "*.ckpt", "*.ftz", "*.gz", "*.h5", "*.joblib", "*.lfs.*",
    "*.mlmodel", "*.model", "*.msgpack", "*.npy", "*.npz", "*.onnx", "*.ot", "*.parquet", "*.pb", "*.pickle",
    "*.pkl", "*.pt", "*.pth", "*.rar", "*.safetensors", "*.tar", "*.tar.*", "*.tflite", "*.tgz", "*.wasm", "*.xz",
    "*.zip", "*.zst", "*tfevents*",
)  # fmt: skip
LFS_FOLDER = "saved_model/"
LFS_SIZE = 10 * 1024 * 1024

# Fixed, so that the same content gives the same commit on every machine.
_SIGNATURE = "hubcache <hubcache@localhost> 0 +0000"
_MESSAGE = "Content as published, in no git repository\n"

# A pointer's bytes without the digits of its size.
_POINTER_SIZE = 125

_Tree: TypeAlias = dict[str, Union[str, "_Tree"]]


def is_lfs(path: str, size: int) -> bool:
    """Tell whether the Hub would keep this file in LFS."""
    name = path.rsplit("/", 1)[-1]
    matches = path.startswith(LFS_FOLDER) or any(fnmatchcase(name, pattern) for pattern in LFS_PATTERNS)
    return matches or size >= LFS_SIZE


def lfs_pointer(blob: Blob) -> bytes:
    """Write the LFS pointer of a sha256 blob (git-lfs specification, version 1)."""
    return f"version https://git-lfs.github.com/spec/v1\noid sha256:{blob.digest.hex}\nsize {blob.size}\n".encode()


def pointer_size(blob: Blob) -> int:
    """Return the length of the LFS pointer in bytes, without writing it."""
    return _POINTER_SIZE + len(str(blob.size))


def entry_for(path: str, size: int, *, git_sha1: str, sha256: str) -> Entry:
    """Name a file's content as the Hub would: sha256 and a pointer in LFS, git-sha1 elsewhere."""
    if not is_lfs(path, size):
        return Entry(Blob(Digest("git-sha1", git_sha1), size))
    blob = Blob(Digest("sha256", sha256), size)
    return Entry(blob, pointer=digest_bytes("git-sha1", lfs_pointer(blob)).hex)


@dataclass(frozen=True, slots=True)
class ContentDigests:
    """A file's size in bytes and both its digests, while it is open which of them will name it."""

    size: int
    git_sha1: str
    sha256: str

    def entry(self, path: str) -> Entry:
        """Name the content as the Hub would at this path."""
        return entry_for(path, self.size, git_sha1=self.git_sha1, sha256=self.sha256)


def commit_of(manifest: Manifest) -> str:
    """Compute the commit whose tree holds these files; `git commit-tree` agrees.

    Raises:
        BadReference: one path is a file and another path's folder.
    """
    tree = folder_oids(manifest)[""]
    body = f"tree {tree}\nauthor {_SIGNATURE}\ncommitter {_SIGNATURE}\n\n{_MESSAGE}"
    return _object_id("commit", body.encode())


def git_oid(entry: Entry) -> str:
    """Name a file as git's tree does: the pointer's git-sha1 where it is kept in LFS, the content's elsewhere."""
    if entry.pointer or entry.blob.digest.algorithm == "git-sha1":
        return entry.pointer or entry.blob.digest.hex
    return _object_id("blob", lfs_pointer(entry.blob))


def folder_oids(manifest: Manifest) -> Mapping[str, str]:
    """Compute every folder's git tree, by its path; "" is the root. `git write-tree` agrees.

    Raises:
        BadReference: one path is a file and another path's folder.
    """
    # No recursion: a path may have more segments than Python has frames.
    trees = [("", _nest(manifest.files))]
    for path, tree in trees:
        start = f"{path}/" if path else ""
        trees.extend((start + name, child) for name, child in tree.items() if not isinstance(child, str))
    oids: dict[int, str] = {}
    for _, tree in reversed(trees):
        oids[id(tree)] = _object_id("tree", _tree_body(tree, oids))
    return {path: oids[id(tree)] for path, tree in trees}


def _object_id(kind: str, body: bytes) -> str:
    return hashlib.sha1(f"{kind} {len(body)}\0".encode() + body, usedforsecurity=False).hexdigest()


def _nest(files: Mapping[RepoPath, Entry]) -> _Tree:
    root: _Tree = {}
    folders = {"": root}
    for path, entry in files.items():
        folder, _, name = path.rpartition("/")
        if folder not in folders:
            folders[folder] = _folder(root, folder)
        folders[folder][name] = git_oid(entry)
    return root


def _folder(root: _Tree, path: str) -> _Tree:
    node = root
    for name in path.split("/"):
        child = node.setdefault(name, {})
        if isinstance(child, str):
            raise BadReference(f"{path!r} needs a folder where a file is")
        node = child
    return node


def _tree_body(tree: _Tree, oids: Mapping[int, str]) -> bytes:
    rows = []
    for name, child in tree.items():
        text = name.encode()
        # Git sorts a folder as if its name ended with a slash.
        if isinstance(child, str):
            rows.append((text, b"100644 %b\0%b" % (text, bytes.fromhex(child))))
        else:
            rows.append((text + b"/", b"40000 %b\0%b" % (text, bytes.fromhex(oids[id(child)]))))
    return b"".join(row for _, row in sorted(rows))
