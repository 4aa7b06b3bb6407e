"""Git itself agrees with the objects hubcache computes."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hubcache.core.artifact import Entry, Manifest, RepoPath
from hubcache.core.digests import Blob, Digest, digest_bytes
from hubcache.core.gitobj import LFS_FOLDER, LFS_PATTERNS, LFS_SIZE, commit_of, entry_for, is_lfs, lfs_pointer
from hubcache.errors import BadReference

MESSAGE = b"Content as published, in no git repository\n"
SIGNATURE = {
    f"GIT_{who}_{what}": value
    for who in ("AUTHOR", "COMMITTER")
    for what, value in (("NAME", "hubcache"), ("EMAIL", "hubcache@localhost"), ("DATE", "@0 +0000"))
}
# "a" and what sorts around "a/" in git's order, and what has two lengths: in characters and in bytes.
SEGMENTS = [
    "a",
    "a.b",
    "a-b",
    "a0",
    "A",
    "a b",
    "ä",
    "가",
    "\U0001f917",
    "zz",
    "b.bin",
    "b.bin.index.json",
    "saved_model",
]
PATHS = st.lists(st.sampled_from(SEGMENTS), min_size=1, max_size=4).map("/".join)


class Git:
    """A repository in a temporary folder, apart from the user's configuration."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._env = {**os.environ, **SIGNATURE, "GIT_CONFIG_GLOBAL": os.devnull, "GIT_CONFIG_NOSYSTEM": "1"}
        for name in ("GIT_DIR", "GIT_WORK_TREE", "GIT_INDEX_FILE", "GIT_OBJECT_DIRECTORY"):
            self._env.pop(name, None)
        self("init", "-q")

    def __call__(self, *args: str, stdin: bytes = b"") -> str:
        run = subprocess.run(
            ["git", *args], cwd=self._folder, env=self._env, input=stdin, check=True, capture_output=True, timeout=60
        )
        return run.stdout.decode().strip()

    def hash_objects(self, contents: list[bytes]) -> list[str]:
        for number, content in enumerate(contents):
            (self._folder / f"{number}").write_bytes(content)
        names = "".join(f"{number}\n" for number in range(len(contents)))
        return self("hash-object", "-w", "--no-filters", "--stdin-paths", stdin=names.encode()).split()

    def commit(self, blobs: dict[str, str]) -> str:
        self("read-tree", "--empty")
        listing = "".join(f"100644 {blob}\t{path}\0" for path, blob in blobs.items())
        self("update-index", "-z", "--index-info", stdin=listing.encode())
        return self("commit-tree", self("write-tree"), stdin=MESSAGE)


@pytest.fixture(scope="module")
def git(tmp_path_factory: pytest.TempPathFactory) -> Git:
    return Git(tmp_path_factory.mktemp("repo"))


def entry_of(path: str, content: bytes) -> Entry:
    sha1, sha256 = (digest_bytes(algorithm, content).hex for algorithm in ("git-sha1", "sha256"))
    return entry_for(path, len(content), git_sha1=sha1, sha256=sha256)


def as_git_keeps_it(path: str, content: bytes) -> bytes:
    if not is_lfs(path, len(content)):
        return content
    return lfs_pointer(Blob(digest_bytes("sha256", content), len(content)))


def without_clashes(files: dict[str, bytes]) -> dict[str, bytes]:
    return {path: files[path] for path in files if not any(other.startswith(f"{path}/") for other in files)}


@settings(max_examples=15, deadline=None)
@given(contents=st.lists(st.binary(max_size=3000), min_size=1, max_size=20))
def test_git_hashes_blobs_alike(git: Git, contents: list[bytes]) -> None:
    assert [digest_bytes("git-sha1", content).hex for content in contents] == git.hash_objects(contents)


@settings(max_examples=25, deadline=None)
@given(files=st.dictionaries(PATHS, st.binary(max_size=50), min_size=1, max_size=25).map(without_clashes))
def test_git_gives_the_same_files_the_same_commit(git: Git, files: dict[str, bytes]) -> None:
    manifest = Manifest({RepoPath(path): entry_of(path, content) for path, content in files.items()})
    blobs = git.hash_objects([as_git_keeps_it(path, content) for path, content in files.items()])
    assert commit_of(manifest) == git.commit(dict(zip(files, blobs, strict=True)))


def test_git_sorts_a_folder_as_if_a_slash_followed(git: Git) -> None:
    files = {"a/b": b"1", "a.b": b"2", "a0": b"3", "a-b": b"4", "a/.c": b"5", "가/a": b"6", "ä": b"7"}
    manifest = Manifest({RepoPath(path): entry_of(path, content) for path, content in files.items()})
    assert commit_of(manifest) == git.commit(dict(zip(files, git.hash_objects(list(files.values())), strict=True)))


def test_no_files_are_gits_empty_tree(git: Git) -> None:
    assert commit_of(Manifest({})) == git.commit({})


def test_a_large_file_is_committed_as_its_lfs_pointer(git: Git) -> None:
    content = bytes(LFS_SIZE)
    [pointer] = git.hash_objects([as_git_keeps_it("vocab.txt", content)])
    manifest = Manifest({RepoPath("vocab.txt"): entry_of("vocab.txt", content)})
    assert commit_of(manifest) == git.commit({"vocab.txt": pointer})


def test_a_path_may_be_very_deep(git: Git) -> None:
    path = "a/" * 1500 + "b"
    [blob] = git.hash_objects([b"deep"])
    assert commit_of(Manifest({RepoPath(path): entry_of(path, b"deep")})) == git.commit({path: blob})


def test_a_pointer_has_the_three_lines_of_the_lfs_specification() -> None:
    oid = digest_bytes("sha256", b"weights").hex
    expected = f"version https://git-lfs.github.com/spec/v1\noid sha256:{oid}\nsize 12345\n"
    assert lfs_pointer(Blob(Digest("sha256", oid), 12345)) == expected.encode()


def test_git_matches_the_lfs_patterns_alike(git: Git, tmp_path: Path) -> None:
    names = [
        "x.bin",
        "x.bin.index.json",
        "x.BIN",
        ".bin",
        "bin",
        "x.tar.gz",
        "x.lfs.y",
        "events.out.tfevents.1",
        "x.py",
    ]
    paths = [
        folder + name for folder in ("", "d/", "saved_model/", "d/saved_model/", "saved_model/v/") for name in names
    ]
    attributes = tmp_path / "attributes"
    attributes.write_text("".join(f"{pattern} lfs\n" for pattern in [*LFS_PATTERNS, f"{LFS_FOLDER}**/*"]))
    answer = git("-c", f"core.attributesFile={attributes}", "check-attr", "lfs", "--", *paths)
    assert [line.endswith(": set") for line in answer.splitlines()] == [is_lfs(path, 0) for path in paths]


@pytest.mark.parametrize("paths", [["a", "a/b"], ["a/b", "a"], ["a/b/c", "a/b"], ["a", "a.b", "a/b/c"]])
def test_a_path_that_is_file_and_folder_has_no_commit(paths: list[str]) -> None:
    with pytest.raises(BadReference, match="a folder where a file is"):
        commit_of(Manifest({RepoPath(path): entry_of(path, b"") for path in paths}))
