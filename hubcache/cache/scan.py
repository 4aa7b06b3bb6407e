"""What the cache holds, repo by repo, with as few system calls as it takes; nothing is hashed here."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

from hubcache.cache.folder import RepoFolder
from hubcache.core.layout import parse_repo_folder


def scan_repos(root: Path) -> Iterator[RepoFolder]:
    """List the repos in the cache, by name."""
    try:
        names = sorted(os.listdir(root))
    except FileNotFoundError:
        return
    for name in names:
        repo = parse_repo_folder(name)
        if repo is not None:
            yield RepoFolder(root, repo)
