"""A damaged payload of the store that all repos share: who else leads to it, and its exchange for sound bytes.

Who uses a payload, by its own notes, shared.py knows; here, the repos' links are asked.
"""

from __future__ import annotations

import os
from pathlib import Path

from hubcache.cache.folder import RepoFolder
from hubcache.cache.scan import scan_repos
from hubcache.cache.shared import add_user, payload_of
from hubcache.localfile import temporary_name


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
