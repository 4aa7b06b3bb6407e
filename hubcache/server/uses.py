"""How often the files of each repo were asked for, counted in memory and written down now and then; not by whom."""

from __future__ import annotations

import time
from collections import Counter
from pathlib import Path

from hubcache.cache.index import Index
from hubcache.core.artifact import RepoId
from hubcache.core.layout import repo_folder

PAUSE = 30.0
"""Seconds between two writings."""


class Uses:
    """The counts of one cache since they were written last."""

    def __init__(self, index: Index, root: Path) -> None:
        self._index = index
        self._root = root
        self._hits: Counter[RepoId] = Counter()

    def note(self, repo: RepoId) -> None:
        """Count one file that was asked for."""
        self._hits[repo] += 1

    def write(self) -> None:
        """Write the counts down."""
        hits, self._hits = self._hits, Counter()
        if hits:
            named = {repo_folder(repo): count for repo, count in hits.items()}
            self._index.note_uses(self._root, named, at=int(time.time()))
