"""Git clones with their LFS objects, read by way of git's object files alone: nothing of the clone is obeyed.

Its hooks, filters and configuration stay out: git is run with a folder of ours as its repository, and the clone's
objects as its store. Every tree is hashed before it is believed.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

from hubcache.app.layouts.seeing import Seeing, folder_repo, is_folder, kept_file, list_files, read_note
from hubcache.core.adoptable import Found, FoundFile, Left
from hubcache.core.artifact import Entry, Manifest, RepoPath, is_commit, parse_path
from hubcache.core.digests import Blob, Digest, new_hasher
from hubcache.core.foreign import (
    LONGEST_POINTER,
    packed_ref,
    read_commit_tree,
    read_git_tree,
    read_head,
    read_pointer,
    remote_url,
)
from hubcache.core.ids import parse
from hubcache.core.reference import Reference
from hubcache.core.scopenames import branch_ref
from hubcache.errors import BadReference

SECONDS = 600
DEEPEST = 100
MOST_ROWS = 200_000
_FILES = {"100644", "100755", "100664"}
_FOLDER, _LINK = "40000", "120000"


def find_clone(top: Path, seeing: Seeing) -> list[Found] | None:
    """Recognise a clone of a hub's repo, or one with LFS objects: HEAD's commit, and what stands unchanged here."""
    git = top / ".git"
    if not is_folder(git) or not is_folder(git / "objects"):
        return None
    reference = _origin(read_note(git / "config", 1 << 20).decode("utf-8", "replace"), seeing)
    if reference is None and not is_folder(git / "lfs" / "objects"):
        return None
    program = shutil.which("git", path=seeing.search_path)
    try:
        commit, branch = _head(git)
        if program is None:
            raise BadReference("there is no git on this machine to read it with")
        with tempfile.TemporaryDirectory(prefix="hubcache-git-") as scratch:
            objects = _Objects(program, git / "objects", Path(scratch))
            manifest, left = _manifest(objects, commit)
    except (BadReference, OSError, subprocess.SubprocessError) as error:
        why = error.message if isinstance(error, BadReference) else str(error)
        left = [Left(str(git), f"its commit cannot be read, so it is taken as a folder: {why}")]
        listing = list_files(top)
        return [Found("git clone", str(top), folder_repo(top, seeing.kind), tuple(listing.files.values()),
                      is_guess=True, left=(*left, *listing.left))]  # fmt: skip
    files = tuple(_files(top, manifest, left))
    found = Found("git clone", str(top), folder_repo(top, seeing.kind), files, commit=commit, listing=manifest,
                  is_guess=reference is None, left=tuple(left))  # fmt: skip
    return [_placed(found, git, branch, reference)]


def _origin(config: str, seeing: Seeing) -> Reference | None:
    """Read which hub's repo it is a clone of; None where that is no hub's."""
    url = remote_url(config)
    if url is None:
        return None
    scheme, _, rest = url.partition("://")
    rest = rest.rpartition("@")[2] if "@" in rest.partition("/")[0] else rest
    host, _, path = rest.partition("/")
    if host.removeprefix("www.") in {"modelscope.cn", "modelscope.ai"} and path.count("/") == 1:
        rest = f"{host}/models/{path}"
    with suppress(BadReference):
        reference = parse(f"{scheme}://{rest}", hub_urls=seeing.hub_urls)
        return reference if reference.scheme in {"hf", "ms"} else None
    return None


def _placed(found: Found, git: Path, branch: str, reference: Reference | None) -> Found:
    """Name the repo and its refs by where it was cloned from."""
    commit = found.commit or ""
    if reference is None:
        return replace(found, revision=branch or commit)
    is_main = branch == ("master" if reference.scheme == "ms" else "main")
    refs = (branch_ref(branch),) if reference.scheme == "ms" and branch else ()
    revision = "main" if is_main else branch or commit
    found = replace(found, repo=reference.repo, revision=revision, refs=refs)
    if branch and _ref(git, f"refs/remotes/origin/{branch}") not in {None, commit}:
        note = f"HEAD is not what {branch} was at {reference.address} when it was last fetched: no ref will mean it"
        return replace(found, revision=commit, refs=(), notes=(note,))
    return replace(found, source=f"{reference.scheme}:{reference.address}")


def _head(git: Path) -> tuple[str, str]:
    """Return HEAD's commit, and its branch, "" where it is detached."""
    head = read_head(read_note(git / "HEAD", 4096).decode("utf-8", "replace"))
    if is_commit(head):
        return head, ""
    commit = _ref(git, head)
    if commit is None:
        raise BadReference("its HEAD means no commit")
    return commit, head.removeprefix("refs/heads/")


def _ref(git: Path, name: str) -> str | None:
    loose = read_note(git / name, 4096).decode("ascii", "replace").strip()
    packed = read_note(git / "packed-refs").decode("utf-8", "replace")
    return loose if is_commit(loose) else packed_ref(packed, name)


class _Objects:
    """A clone's objects, read by git with nothing but them; trees, commits and pointers are hashed here."""

    def __init__(self, program: str, objects: Path, scratch: Path) -> None:
        self._program = program
        for name in ("objects", "refs"):
            scratch.joinpath(name).mkdir()
        scratch.joinpath("HEAD").write_text("ref: refs/heads/none\n")
        self._environ = {
            "GIT_DIR": str(scratch), "GIT_OBJECT_DIRECTORY": str(objects.absolute()), "HOME": str(scratch),
            "GIT_CONFIG_NOSYSTEM": "1", "GIT_CONFIG_GLOBAL": os.devnull, "GIT_CONFIG_SYSTEM": os.devnull,
            "GIT_NO_LAZY_FETCH": "1", "GIT_ALLOW_PROTOCOL": "none", "GIT_TERMINAL_PROMPT": "0",
            "GIT_NO_REPLACE_OBJECTS": "1", "LC_ALL": "C",
        }  # fmt: skip

    def read(self, oids: Sequence[str], kind: str) -> dict[str, bytes]:
        """Read objects of one kind, each held against its name.

        Raises:
            BadReference: one is missing, of another kind, or not what its name says.
        """
        output, at, found = self._ask("--batch", oids), 0, {}
        for oid in oids:
            end = output.find(b"\n", at)
            header = output[at:end].decode("ascii", "replace").split()
            if end < 0 or header[:2] != [oid, kind] or len(header) != 3:
                raise BadReference(f"its object {oid[:12]} is missing or no {kind}")
            body = output[end + 1 : end + 1 + int(header[2])]
            if _object_name(kind, body) != oid:
                raise BadReference(f"its object {oid[:12]} is damaged")
            found[oid], at = body, end + 2 + len(body)
        return found

    def sizes(self, oids: Sequence[str]) -> dict[str, int]:
        """Return the sizes in bytes of the objects that are there."""
        lines = (line.split() for line in self._ask("--batch-check", oids).decode("ascii", "replace").splitlines())
        return {row[0]: int(row[2]) for row in lines if len(row) == 3 and row[1] == "blob"}

    def _ask(self, mode: str, oids: Sequence[str]) -> bytes:
        command = [self._program, "cat-file", mode]
        asked = "".join(f"{oid}\n" for oid in oids).encode()
        done = subprocess.run(  # noqa: S603
            command, input=asked, capture_output=True, env=self._environ, timeout=SECONDS, check=True
        )
        return done.stdout


def _object_name(kind: str, body: bytes) -> str:
    if kind == "blob":
        hasher = new_hasher("git-sha1", len(body))
        hasher.update(body)
        return hasher.hexdigest()
    hasher = new_hasher("sha1", 0)
    hasher.update(f"{kind} {len(body)}\0".encode())
    hasher.update(body)
    return hasher.hexdigest()


def _manifest(objects: _Objects, commit: str) -> tuple[Manifest, list[Left]]:
    """List a commit's files as a hub does: by sha256 what is in LFS, by git's own id the rest."""
    rows, left = dict(_rows(objects, read_commit_tree(objects.read([commit], "commit")[commit]))), []
    sizes = objects.sizes(sorted(set(rows.values())))
    small = sorted(oid for oid, size in sizes.items() if size <= LONGEST_POINTER)
    pointers = {oid: blob for oid, body in objects.read(small, "blob").items() if (blob := read_pointer(body))}
    files: dict[RepoPath, Entry] = {}
    for name, oid in rows.items():
        try:
            path = parse_path(name)
        except BadReference as error:
            left.append(Left(name, error.message))
            continue
        if oid in pointers:
            files[path] = Entry(pointers[oid], pointer=oid)
        elif oid in sizes:
            files[path] = Entry(Blob(Digest("git-sha1", oid), sizes[oid]))
        else:
            raise BadReference(f"the object of {path} is not here")
    return Manifest(files), left


def _rows(objects: _Objects, tree: str) -> Iterator[tuple[str, str]]:
    """Walk a tree level by level: path, object; submodules are no files of the repo."""
    waiting, count = [("", tree)], 0
    for _ in range(DEEPEST):
        if not waiting:
            return
        bodies, following = objects.read(sorted({oid for _, oid in waiting}), "tree"), []
        for prefix, oid in waiting:
            for row in read_git_tree(bodies[oid]):
                count += 1
                if row.mode == _FOLDER:
                    following.append((f"{prefix}{row.name}/", row.oid))
                elif row.mode in _FILES or row.mode == _LINK:
                    yield prefix + row.name, row.oid
            if count > MOST_ROWS:
                raise BadReference(f"it lists more than {MOST_ROWS} files")
        waiting = following
    raise BadReference(f"its folders are nested more than {DEEPEST} deep")


def _files(top: Path, manifest: Manifest, left: list[Left]) -> Iterator[FoundFile]:
    """Find each file's bytes: in the LFS store, else in the work tree as it was checked out."""
    seen = list_files(top)
    for path, entry in manifest.files.items():
        digest, size = entry.blob.digest, entry.blob.size
        stored = None
        if digest.algorithm == "sha256":
            name = f".git/lfs/objects/{digest.hex[:2]}/{digest.hex[2:4]}/{digest.hex}"
            stored = kept_file(top, name, path, entry.blob)
        file = seen.files.get(path)
        if stored is not None:
            yield stored
        elif file is not None and file.size == size and file.place == os.path.join(top, path):
            yield replace(file, expected=digest)
        elif file is None:
            left.append(Left(path, "not checked out"))
        elif digest.algorithm == "sha256" and file.size <= LONGEST_POINTER:
            left.append(Left(path, "only its LFS pointer is here"))
        else:
            left.append(Left(path, "changed since HEAD"))
    left += [each for each in seen.left if each.path not in manifest.files]
