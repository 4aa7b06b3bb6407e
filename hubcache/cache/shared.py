"""huggingface_hub's store `blobs/ab/<64 hex>` that all repos share: who uses a payload, kept right; it fetches none.

A repo's blob is a link to the payload, and `<payload>.refs` has a line for each such blob, written before its link.
Source: huggingface_hub 2.4, utils/_shared_blobs.py, as measured.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from hubcache.cache.folder import RepoFolder
from hubcache.cache.scan import scan_repos
from hubcache.localfile import temporary_name, write_atomically

MARKER = ".huggingface-shared-blobs"
REFS = ".refs"
_PAYLOAD = re.compile(r"[0-9a-f]{64}")
_WAIT = 10.0


def has_store(root: Path) -> bool:
    """Tell whether the cache has such a store; a `blobs` folder without its mark is somebody else's."""
    try:
        return (root / "blobs" / MARKER).read_text() == "1\n"
    except (OSError, UnicodeDecodeError):
        return False


def payload_path(name: str) -> str:
    """Return a payload's path in the root."""
    return f"blobs/{name[:2]}/{name}"


def payloads(root: Path) -> Iterator[tuple[str, os.stat_result]]:
    """List the store's payloads."""
    if not has_store(root):
        return
    for folder in sorted(os.scandir(root / "blobs"), key=lambda entry: entry.name):
        if len(folder.name) == 2 and folder.is_dir(follow_symlinks=False):
            for entry in os.scandir(folder.path):
                if _PAYLOAD.fullmatch(entry.name) and entry.is_file(follow_symlinks=False):
                    yield entry.name, entry.stat(follow_symlinks=False)


def payload_of(link: str, root: str) -> str:
    """Return the name of the payload that a repo's blob leads to, "" where it is no link into the store."""
    try:
        target = os.readlink(link)
    except OSError:
        return ""
    return payload_in(target, os.path.dirname(link), root)


def payload_in(target: str, folder: str, root: str) -> str:
    """Return the payload's name that a link's target, read from a folder, means; "" for none."""
    path = os.path.normpath(os.path.join(folder, target))
    name = os.path.basename(path)
    is_payload = _PAYLOAD.fullmatch(name) and path == os.path.normpath(os.path.join(root, payload_path(name)))
    return name if is_payload else ""


def add_user(root: Path, payload: str, blob: str) -> None:
    """Note that a blob, by its path in the root, will lead to the payload."""
    path = root / (payload_path(payload) + REFS)
    with _locked(root, payload):
        if blob not in _lines(path):
            with suppress(FileNotFoundError), path.open("a", encoding="utf-8") as file:
                with suppress(PermissionError):
                    os.fchmod(file.fileno(), 0o666)  # as huggingface_hub does, for other users of the cache
                file.write(f"{blob}\n")
                file.flush()
                os.fsync(file.fileno())


@contextmanager
def without_users(root: Path, payload: str, known: Iterable[str]) -> Iterator[bool]:
    """Drop the users that lead to the payload no more, and yield whether none is left; nobody adds one meanwhile.

    `known` are users to be looked at beside those that `.refs` names.
    """
    path = root / (payload_path(payload) + REFS)
    with _locked(root, payload) as is_locked:
        noted = _lines(path)
        users = [user for user in dict.fromkeys([*noted, *known]) if _leads_to(root, user, payload)]
        if users and users != noted:
            write_atomically(path, "".join(f"{user}\n" for user in users).encode(), scratch=path.parent, mode=0o666)
        yield is_locked and not users


def users_of(payload: Path, root: Path) -> list[str]:
    """List the blobs that lead to a payload, by their paths in the root; the store's own notes may lack some."""
    found = []
    for repo in scan_repos(root):
        try:
            with os.scandir(repo.path / "blobs") as entries:
                blobs = [entry.path for entry in entries if entry.is_symlink()]
        except OSError:
            continue
        found += [os.path.relpath(blob, root) for blob in blobs if payload_of(blob, str(root)) == payload.name]
    return found


def replace_payload(payload: Path, sound: Path, place: Path, folder: RepoFolder) -> None:
    """Exchange a payload for the sound bytes of a repo's blob, which becomes a link to it; the old ones go to `place`.

    At every moment the store's users and the repo have a file, and the repo a sound one.
    """
    mode = os.stat(payload).st_mode & 0o777
    os.link(payload, place)
    fresh = temporary_name(payload)
    os.link(sound, fresh)
    os.chmod(fresh, mode)
    os.replace(fresh, payload)
    add_user(folder.root, payload.name, f"{folder.path.name}/blobs/{sound.name}")
    link = temporary_name(folder.path / sound.name)
    os.symlink(f"../../blobs/{payload.parent.name}/{payload.name}", link)
    os.replace(link, sound)


def _leads_to(root: Path, user: str, payload: str) -> bool:
    parts = user.split("/")
    return len(parts) == 3 and ".." not in parts and payload_of(f"{root}/{user}", str(root)) == payload


def _lines(path: Path) -> list[str]:
    try:
        return [line for line in path.read_text(encoding="utf-8").splitlines() if line]
    except (OSError, UnicodeDecodeError):
        return []


@contextmanager
def _locked(root: Path, payload: str) -> Iterator[bool]:
    """Hold huggingface_hub's lock of a payload; False where another has it for long, or there is no locking."""
    from filelock import FileLock, Timeout  # 35 ms that a cache without such a store need not pay

    lock = FileLock(f"{root}/{payload_path(payload)}.lock", mode=0o666)
    try:
        lock.acquire(timeout=_WAIT)
    except (Timeout, NotImplementedError, OSError):
        yield False
        return
    try:
        yield True
    finally:
        lock.release()
